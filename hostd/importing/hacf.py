"""ha.cf → directives, split as Heartbeat's own reader (``config.c``) splits them.

Decides what a directive and its arguments are; refuses to know what any of
them means.  A ``#`` begins a comment anywhere, even within a word, and a
carriage return ends the line; blanks, tabs, form feeds and commas separate;
there is neither quoting nor continuation; names are case-sensitive.
"""

import re
from typing import Final

import msgspec

from hostd.importing import texts
from hostd.importing.fates import Ledger, Line

FILE: Final = "ha.cf"
_SEPARATORS: Final = re.compile(r"[ \t\f,]+")
_END: Final = re.compile(r"[#\r]")
HIDDEN: Final = {"stonith_host": 3, "env": 1}
"""Directives whose words may be secrets, and how many words of the line are shown."""


class Directive(msgspec.Struct, frozen=True):
    """One line that says something."""

    line: Line
    name: str
    arguments: tuple[str, ...]


def directives(content: bytes, ledger: Ledger, file: str = FILE) -> tuple[Directive, ...]:
    """All directives in order; lines that cannot be text are refused here."""
    found = []
    for number, raw in enumerate(texts.decoded(content).split("\n"), 1):
        words = [word for word in _SEPARATORS.split(_END.split(raw, maxsplit=1)[0]) if word]
        if not words:
            continue
        line = Line(file, number, _shown(words))
        if not all(texts.is_plain(word) for word in words):
            cure = "write the line anew, in plain text"
            ledger.refused(line, "", "has bytes or control characters that are no text", cure)
        else:
            found.append(Directive(line, words[0], tuple(words[1:])))
    return tuple(found)


def _shown(words: list[str]) -> str:
    kept = HIDDEN.get(words[0], len(words))
    hidden = " (the rest is not shown)" if len(words) > kept else ""
    return texts.shown(" ".join(words[:kept])) + hidden
