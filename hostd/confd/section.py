"""One table of conf.d, whose keys are taken one by one.

Decides what a missing, unfit or unknown key is told.  Whoever reads a table
takes each key that he knows with a parser of ``values`` and ends with
``end()``, which complains of every key that nobody took.  Knows no key.
"""

import difflib
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from hostd.confd.complain import Complaints, Path, shown
from hostd.confd.values import Unfit, one_of

T = TypeVar("T")
D = TypeVar("D")


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that was most likely meant; None if none is near."""
    found = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return found[0] if found else None


class Section:
    """The table at ``path``; ``is_there`` False if the files have none."""

    def __init__(self, complaints: Complaints, path: Path, table: Any) -> None:
        self.complaints, self.path = complaints, path
        self.is_there = table is not None
        self._known: list[str] = []
        self._table: dict[str, Any] = {}
        if isinstance(table, dict):
            self._table = table
        elif self.is_there:
            complaints.error(path, "must be a table", "write it with a [header] or in braces", value=shown(table))

    def __contains__(self, key: str) -> bool:
        return key in self._table

    def at(self, key: str) -> Path:
        return (*self.path, key)

    def take(self, key: str, parse: Callable[[Any], T], default: D) -> T | D:
        """The key's value, parsed; ``default`` if it is not there or unfit (then with a complaint)."""
        raw = self.raw(key)
        if raw is None:
            return default
        try:
            return parse(raw)
        except Unfit as unfit:
            self.complaints.error(self.at(key), unfit.rule, unfit.cure, value=shown(raw))
            return default

    def need(self, key: str, parse: Callable[[Any], T], example: str) -> T | None:
        """The same for a key that must be there; None only together with a complaint."""
        if key not in self._table:
            self.complaints.error(self.at(key), "is missing", f"add {key} = {example}")
        return self.take(key, parse, None)

    def raw(self, key: str) -> Any:
        """The key's value as it stands there; None if it does not."""
        self._known.append(key)
        return self._table.get(key)

    def table(self, key: str) -> "Section":
        return Section(self.complaints, self.at(key), self.raw(key))

    def tables(self, key: str) -> list["Section"]:
        """Each item of a list of tables."""
        raw = self.raw(key)
        if raw is None:
            return []
        if not isinstance(raw, list):
            cure = f"write [[{'.'.join(map(str, self.at(key)))}]] or a list of tables"
            self.complaints.error(self.at(key), "must be a list of tables", cure, value=shown(raw))
            return []
        return [Section(self.complaints, (*self.at(key), number), item) for number, item in enumerate(raw)]

    def names(self) -> list[str]:
        return list(self._table)

    def rest(self) -> dict[str, Any]:
        """All keys that nobody has taken; they count as known from now on."""
        rest = {key: value for key, value in self._table.items() if key not in self._known}
        self._known += rest
        return rest

    def error(self, key: str, rule: str, cure: str) -> None:
        """Complain of a key, showing its value if it has one."""
        value = shown(self._table[key]) if key in self._table else ""
        self.complaints.error(self.at(key), rule, cure, value=value)

    def warn(self, key: str, rule: str, cure: str) -> None:
        value = shown(self._table[key]) if key in self._table else ""
        self.complaints.warn(self.at(key), rule, cure, value=value)

    def end(self, elsewhere: dict[str, str] | None = None) -> None:
        """Complain of each key that nobody took; ``elsewhere``: where some belong instead."""
        for key in self._table:
            if key in self._known:
                continue
            meant = nearest(key, self._known)
            if elsewhere and key in elsewhere:
                cure = elsewhere[key]
            elif meant:
                cure = f"did you mean {meant}?"
            else:
                cure = f"known here: {', '.join(sorted(self._known))}"
            self.complaints.error(self.at(key), "is not a known key", cure)


def by_node(raw: Any, nodes: tuple[str, ...]) -> dict[str, Any] | None:
    """A table of node names as ``{node: value}``; None if it is a plain value.

    Raises :class:`Unfit` for a table with a key that is no node.
    """
    if not isinstance(raw, dict) or not raw:
        return None
    strangers = [key for key in raw if key not in nodes]
    if strangers:
        meant = nearest(strangers[0], nodes)
        cure = f"did you mean {meant}?" if meant else f"use {one_of(nodes)}"
        raise Unfit(f'names "{strangers[0]}", which is not a node of the cluster', cure)
    return raw
