"""What is wrong with conf.d, said so that a person can act on it.

Decides how a complaint reads: place, thing, value, rule, cure.  Knows nothing
of what is right: the rules are where the things are read.
"""

import json
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec

Path = tuple[str | int, ...]
"""Where in the merged tree: ("service", "mysql", "primary"), ("heartbeat", "link", 0, "baud")."""

SHOWN_MAX: Final = 60
"""Characters of a value that are shown: the rest of a long one tells nobody anything."""


class Place(NamedTuple):
    """A line of a file of conf.d; line 0 if it is not known."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


class Complaint(msgspec.Struct, frozen=True):
    """One mistake, or with ``is_warning`` something allowed that should be known.

    ``rule`` goes on after thing and value ("must be ..."), ``cure`` is an
    order ("use ...").  ``file`` is a name within conf.d, or empty.
    """

    file: str
    line: int | None
    key: str
    value: str
    rule: str
    cure: str
    is_warning: bool = False
    sets_aside: str = ""
    """A mistake that costs one service and no more: its name."""
    is_note: bool = False
    """Beside ``is_warning``: not even dangerous, as what cannot be looked at now."""

    @property
    def severity(self) -> str:
        """As in ``hostd status``: error, warning or info."""
        return "info" if self.is_note else "warning" if self.is_warning else "error"

    @property
    def is_fatal(self) -> bool:
        """conf.d cannot be used at all."""
        return not self.is_warning and not self.sets_aside

    @property
    def place(self) -> str:
        """``mysql.toml:3``, as editors understand it; empty if there is none."""
        return str(Place(self.file, self.line or 0)) if self.file else ""

    @property
    def text(self) -> str:
        """All of it in one line."""
        thing = f"{self.key} = {self.value}" if self.value else self.key
        sentence = " ".join(part for part in (thing, self.rule) if part)
        return f"{self.place}: {sentence}; {self.cure}" if self.place else f"{sentence}; {self.cure}"


def named(path: Path) -> str:
    """A path as a person would look for it: ``[service.mysql] primary``."""
    if not path:
        return "conf.d"
    head = 1
    if path[0] == "service" and len(path) > 1:
        head = 2
    if path[:2] in (("heartbeat", "link"), ("fencing", "device")):
        text, rest = f"[[{path[0]}.{path[1]}]]", path[2:]
    elif path[0] == "notify":
        text, rest = "[[notify]]", path[1:]
    else:
        text, rest = f"[{'.'.join(str(part) for part in path[:head])}]", path[head:]
    separator = " "
    for part in rest:
        if isinstance(part, int):
            text += f" #{part + 1}"
            separator = " "
        else:
            text += f"{separator}{part}"
            separator = "."
    return text


def shown(value: Any) -> str:
    """A value about as it stands in the file, on one line, cut if long."""
    text = _toml(value)
    return text if len(text) <= SHOWN_MAX else f"{text[: SHOWN_MAX - 1]}…"


def _toml(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return json.dumps(value, ensure_ascii=False)
        case list():
            return f"[{', '.join(_toml(item) for item in value)}]"
        case dict():
            inside = ", ".join(f"{key} = {_toml(item)}" for key, item in value.items())
            return f"{{ {inside} }}" if inside else "{}"
        case _:
            return str(value)


class Complaints:
    """Gathers the complaints of one reading; knows the place of every key."""

    def __init__(self, places: Mapping[Path, Place]) -> None:
        self.places = places
        self.gathered: list[Complaint] = []

    def place(self, path: Path) -> Place:
        """Of the key, or of the nearest thing around it that has one."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.places:
                return self.places[path[:length]]
        return Place("", 0)

    @property
    def mistakes(self) -> int:
        return sum(not complaint.is_warning for complaint in self.gathered)

    def error(self, path: Path, rule: str, cure: str, *, value: str = "") -> None:
        self._add(path, rule, cure, value)

    def set_aside(self, service: str, path: Path, rule: str, cure: str, *, value: str = "") -> None:
        """A mistake for which ``service`` cannot be run on this node; all others can."""
        self._add(path, rule, cure, value, sets_aside=service)

    def warn(self, path: Path, rule: str, cure: str, *, value: str = "") -> None:
        self._add(path, rule, cure, value, is_warning=True)

    def note(self, path: Path, rule: str, cure: str) -> None:
        """What should be known and is no danger."""
        self._add(path, rule, cure, "", is_warning=True, is_note=True)

    def _add(
        self,
        path: Path,
        rule: str,
        cure: str,
        value: str,
        *,
        is_warning: bool = False,
        is_note: bool = False,
        sets_aside: str = "",
    ) -> None:
        place = self.place(path)
        self.gathered.append(
            Complaint(place.file, place.line or None, named(path), value, rule, cure, is_warning, sets_aside, is_note)
        )
