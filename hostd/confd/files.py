"""The files of conf.d → one merged tree, and the place of every key in it.

Decides what may be read at all (sizes, syntax) and that no key is defined
twice.  Knows nothing of what any key means.

NB: no TOML library tells the line of a key, so the text is walked a second
time here, for lines only; ``tomllib`` has accepted it by then, so the walk
needs to understand the shape of TOML and none of its rules.
"""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path as FilePath
from typing import Any, Final, NamedTuple

from hostd.confd.complain import Complaint, Path, Place, named

FILES_MAX: Final = 256
"""A file per service and some to spare."""
SIZE_MAX: Final = 1_000_000
"""Bytes of one file: a service takes about 300."""


class Tree(NamedTuple):
    """All files as one document.  ``complaints`` not empty: do not judge ``values``,
    parts of it are missing."""

    directory: FilePath
    values: dict[str, Any]
    places: dict[Path, Place]
    complaints: list[Complaint]


def read(directory: FilePath) -> Tree:
    """Read ``*.toml`` of the directory in name order and merge them.

    Tables are merged, ``[[lists of tables]]`` are joined, any other key that
    is there twice is a complaint that names both places.
    """
    tree = Tree(directory, {}, {}, [])
    try:
        files = sorted(path for path in directory.iterdir() if path.suffix == ".toml" and not path.name.startswith("."))
    except OSError as error:
        _refuse(
            tree,
            str(directory),
            f"cannot be read: {error.strerror}",
            "make it, or name another: --config DIR",
        )
        return tree
    if not files:
        _refuse(tree, str(directory), "holds no *.toml file", "begin with the example that comes with hostd")
    if len(files) > FILES_MAX:
        _refuse(tree, str(directory), f"holds {len(files)} files; {FILES_MAX} is the most", "join some of them")
        return tree
    for path in files:
        _read_file(tree, path)
    return tree


def _refuse(tree: Tree, thing: str, rule: str, cure: str, *, file: str = "", line: int = 0) -> None:
    tree.complaints.append(Complaint(file, line or None, thing, "", rule, cure))


def _read_file(tree: Tree, path: FilePath) -> None:
    name, foreign = path.name, "is this a file of conf.d?"
    try:
        if not path.is_file() or path.stat().st_size > SIZE_MAX:
            rule = f"is no ordinary file of at most {SIZE_MAX} bytes"
            _refuse(tree, "this", rule, foreign, file=name)
            return
        text = path.read_bytes().decode()
        values = tomllib.loads(text)
        places = {path: Place(name, line) for path, line in lines_of(text)}
    except OSError as error:
        _refuse(tree, "this", f"cannot be read: {error.strerror}", "look at its owner and mode", file=name)
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        _refuse(tree, "this", "is not UTF-8", "save it as UTF-8", file=name, line=line)
    except RecursionError:
        _refuse(tree, "this", "is nested too deeply", foreign, file=name)
    except tomllib.TOMLDecodeError as error:
        said = str(error)
        found = re.search(r" \(at line (\d+), column (\d+)\)$", said)
        line = int(found[1]) if found else text.count("\n") + 1
        said = re.sub(r" \(at .*\)$", "", said)
        said = re.sub(r"\('(.*?)',?\)", lambda keys: f"[{keys[1]}]".replace("', '", "."), said)
        at = f" at column {found[2]}" if found else " at the end of the file"
        _refuse(tree, "this", f"is not TOML: {said}{at}", _syntax_cure(said), file=name, line=line)
    else:
        _note(tree, places, _merge(tree, tree.values, values, places, ()))


def _syntax_cure(said: str) -> str:
    """What mostly lies behind tomllib's words."""
    if said.startswith(("Cannot overwrite", "Cannot declare")):
        return "remove or rename one of the two"
    if said.startswith(("Invalid value", "Expected newline")):
        return 'texts stand in quotes ("2s"), true and false are written small'
    if said.startswith("Unclosed"):
        return "look for a missing bracket or comma in the lines above"
    return "compare the line with the example that comes with hostd"


def _merge(
    tree: Tree, into: dict[str, Any], values: dict[str, Any], places: dict[Path, Place], table: Path
) -> dict[Path, int]:
    """Add ``values`` to ``into``, both the table at path ``table``.

    Returns how many items each joined list had before: by so much the
    numbers of its new items are higher in the tree than in their file.
    """
    moved: dict[Path, int] = {}
    for key, value in values.items():
        path = (*table, key)
        if key not in into:
            into[key] = value
        elif isinstance(value, dict) and isinstance(into[key], dict):
            moved |= _merge(tree, into[key], value, places, path)
        elif _is_tables(value) and _is_tables(into[key]):
            moved[path] = len(into[key])
            into[key].extend(value)
        else:
            place, first = places[path], tree.places[path]
            rule = f"is also defined in {first}"
            _refuse(tree, named(path), rule, "remove one of the two", file=place.file, line=place.line)
    return moved


def _is_tables(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def _note(tree: Tree, places: dict[Path, Place], moved: dict[Path, int]) -> None:
    """Add the places of a file's keys to the tree; where two files have one (a table), the first stays."""
    for path, place in places.items():
        for joined, offset in moved.items():
            number = path[len(joined)] if path[: len(joined)] == joined and len(path) > len(joined) else None
            if isinstance(number, int):
                path = (*joined, number + offset, *path[len(joined) + 1 :])
        tree.places.setdefault(path, place)


_TOKEN = re.compile(
    r'''(?P<blank>[ \t\r]+|\#[^\n]*)
      | (?P<newline>\n)
      | (?P<text>"""(?:\\.|[^\\])*?"{3,5} | \'\'\'.*?\'{3,5} | "(?:\\.|[^"\\\n])*" | '[^'\n]*')
      | (?P<mark>[\[\]{}=,.])
      | (?P<bare>[^\s\[\]{}=,.\#"']+)''',
    re.VERBOSE | re.DOTALL,
)


class _Token(NamedTuple):
    kind: str
    text: str
    line: int


def _tokens(text: str) -> Iterator[_Token]:
    line = 1
    for found in _TOKEN.finditer(text):
        assert found.lastgroup is not None
        if found.lastgroup != "blank":
            yield _Token(found.lastgroup, found.group(), line)
        line += found.group().count("\n")


def lines_of(text: str) -> list[tuple[Path, int]]:
    """Every header, key and list item of a valid TOML text, with its line (from 1)."""
    return _Walk([*_tokens(text), _Token("newline", "\n", 0), _Token("end", "", 0)]).all()


class _Walk:
    """One pass over the tokens of one file."""

    def __init__(self, tokens: list[_Token]) -> None:
        self._tokens, self._at = tokens, 0
        self._found: list[tuple[Path, int]] = []
        self._counts: dict[Path, int] = {}
        """How many ``[[tables]]`` each list has so far."""

    def all(self) -> list[tuple[Path, int]]:
        table: Path = ()
        while self._token.kind != "end":
            if self._token.kind == "newline":
                self._at += 1
            elif self._token.text == "[":
                table = self._header()
            else:
                self._pair(table)
        return self._found

    @property
    def _token(self) -> _Token:
        return self._tokens[self._at]

    def _skip(self, marks: str) -> int:
        start = self._at
        while self._token.kind == "mark" and self._token.text in marks:
            self._at += 1
        return self._at - start

    def _header(self) -> Path:
        line = self._token.line
        is_list = self._skip("[") == 2
        keys = self._keys()
        self._skip("]")
        table: Path = ()
        for key in keys[:-1]:
            table = (*table, key)
            if table in self._counts:
                table = (*table, self._counts[table] - 1)
        table = (*table, keys[-1])
        self._found.append((table, line))
        if is_list:
            number = self._counts.get(table, 0)
            self._counts[table] = number + 1
            table = (*table, number)
            self._found.append((table, line))
        return table

    def _keys(self) -> list[str]:
        """The parts of a key, quoted or not, up to the mark that ends it."""
        keys = []
        while self._token.kind in ("bare", "text"):
            quoted = self._token.kind == "text"
            key = tomllib.loads(f"key = {self._token.text}")["key"] if quoted else self._token.text
            keys.append(key)
            self._at += 1
            if not self._skip("."):
                break
        return keys

    def _pair(self, table: Path) -> None:
        line = self._token.line
        keys = self._keys()
        self._skip("=")
        path = table
        for key in keys:
            path = (*path, key)
            self._found.append((path, line))
        self._value(path)

    def _value(self, path: Path) -> None:
        if self._token.text == "[" and self._token.kind == "mark":
            self._list(path)
        elif self._token.text == "{" and self._token.kind == "mark":
            self._at += 1
            while self._token.text != "}":
                self._pair(path)
                self._skip(",")
            self._at += 1
        else:  # a number with a point or a date with a blank is several tokens
            while self._token.kind != "newline" and self._token.text not in (",", "]", "}"):
                self._at += 1

    def _list(self, path: Path) -> None:
        self._at += 1
        number = 0
        while True:
            while self._token.kind == "newline" or self._token.text == ",":
                self._at += 1
            if self._token.text == "]":
                self._at += 1
                return
            self._found.append(((*path, number), self._token.line))
            self._value((*path, number))
            number += 1
