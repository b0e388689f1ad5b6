"""Tables → a text of TOML that reads well, proven to say what was meant.

Decides the look of a file: comments above each table, small tables on one
line.  Every text is read back with the standard library and compared, since
the toml library breaks some strings.
"""

import re
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import toml
from toml.decoder import InlineTableDict
from toml.encoder import TomlPreserveInlineDictEncoder

from hostd.api import ConfigError


class Inline(dict[str, Any], InlineTableDict):
    """A table that stands on one line: ``{ a = 1, b = 2 }``."""


class Listed(tuple[Any, ...]):
    """A list whose tables stand on one line each, and not as ``[[…]]`` each."""


class Piece(msgspec.Struct, frozen=True):
    """A part of a file: comments, and the table below them (empty: the comments alone)."""

    comments: tuple[str, ...]
    """Without ``#``; each on a line of its own."""
    table: Mapping[str, Any]


class File(msgspec.Struct, frozen=True):
    """A file of conf.d."""

    name: str
    text: str


def file(name: str, pieces: Sequence[Piece]) -> File:
    """The file of these pieces.  Raises ConfigError if the text does not say what they say."""
    text = "\n".join(_text(piece) for piece in pieces)
    wanted: dict[str, Any] = {}
    for piece in pieces:
        _merge(wanted, piece.table)
    try:
        is_same = tomllib.loads(text) == wanted
        text.encode()
    except (tomllib.TOMLDecodeError, UnicodeEncodeError):
        is_same = False
    if not is_same:
        raise ConfigError(f"{name}: a value cannot be written as TOML; take odd characters out of the files to import")
    return File(name, text)


def _text(piece: Piece) -> str:
    assert all(comment.isprintable() for comment in piece.comments), piece.comments
    comments = "".join(f"# {comment}".rstrip() + "\n" for comment in piece.comments)
    if not piece.table:
        return comments
    text = str(toml.dumps(dict(piece.table), encoder=_Encoder()))
    # The library opens [heartbeat] again above each [[heartbeat.link]]: twice in one file is no TOML
    text = re.sub(r"^\[[A-Za-z0-9_.-]+\]\n(?=\[\[)", "", text, flags=re.MULTILINE)
    return comments + text.strip("\n") + "\n"


class _Encoder(TomlPreserveInlineDictEncoder):  # type: ignore[type-arg]
    """The library's, but for two things that it writes wrong (keys with a point) or ugly (lists)."""

    def dump_inline_table(self, section: Any) -> str:
        return f"{self.dump_value(section)}\n"

    def dump_value(self, v: Any) -> Any:
        if isinstance(v, Mapping):
            inside = ", ".join(f"{_key(key)} = {self.dump_value(value)}" for key, value in v.items())
            return f"{{ {inside} }}" if inside else "{}"
        return super().dump_value(v)

    def dump_list(self, v: Any) -> str:
        items = [str(self.dump_value(item)) for item in v]
        if any(isinstance(item, Mapping) for item in v):
            return "".join(("[\n", *(f"  {item},\n" for item in items), "]"))
        return f"[{', '.join(items)}]"


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else str(_Encoder().dump_value(name))


def _merge(into: dict[str, Any], table: Mapping[str, Any]) -> None:
    """Tables of the same name grow together, as they do in a file; lists of tables are appended."""
    for key, value in table.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        elif isinstance(value, list) and isinstance(into.get(key), list):
            into[key] = into[key] + _plain(value)
        else:
            into[key] = _plain(value)


def _plain(value: Any) -> Any:
    """The same of lists and dicts, as tomllib makes them."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
