"""haresources → groups of resources, as Heartbeat itself makes them of the file.

Decides what the words are, and only that: it does what the shell code of
Heartbeat 3.0.6 does (``ipres``, ``resource2script`` and ``resource2arg`` in
/usr/share/heartbeat/ResourceManager), its surprises included, and says where
one of them struck.  What a resource means is the business of ``resources``.

Heartbeat's rules, in its order: everything from the first ``#`` of a line is
a comment; a line that then ends in a backslash is joined with the next, whose
comment is *not* removed; blanks and tabs separate words; the first word, the
node, is lower-cased; the others are resources.
"""

import bisect
import enum
import re
from collections.abc import Sequence
from typing import Final

import msgspec

from hostd.importing import texts
from hostd.importing.fates import Line

FILE: Final = "haresources"
_BLANKS: Final = re.compile(r"[ \t\n]+")
_LIKE_AN_ADDRESS: Final = re.compile(r"[0-9].*\.[0-9].*\.[0-9].*\.[0-9].*", re.DOTALL)


class Surprise(enum.Enum):
    """Where the words are not what the writer of the file must have meant."""

    BACKSLASH = "backslash"  # the word is or ends in a backslash that joins nothing
    HASH = "hash"  # a comment on a continued line became words
    GLUED = "glued"  # two lines were joined in the middle of a word
    CARRIAGE_RETURN = "carriage return"  # the line ends as on DOS
    CUT = "cut"  # a comment began in the middle of a word


class Word(msgspec.Struct, frozen=True):
    """One word, and the number of the line on which it begins."""

    text: str
    number: int
    surprises: frozenset[Surprise] = frozenset()


class Group(msgspec.Struct, frozen=True):
    """One logical line: a node and what it is to run, in the order of starts."""

    line: Line
    node: str
    """Lower-cased, as Heartbeat compares it."""
    words: tuple[Word, ...]


class Call(msgspec.Struct, frozen=True):
    """What Heartbeat runs for a resource: the script's name, and arguments before the action."""

    script: str
    arguments: tuple[str, ...]


def is_like_an_address(word: str) -> bool:
    """Heartbeat's test, the shell pattern ``[0-9]*.[0-9]*.[0-9]*.[0-9]*``."""
    return _LIKE_AN_ADDRESS.fullmatch(word) is not None


def call(word: str) -> Call:
    """The script and its arguments, as ``doscript`` finds them.

    NB: where a name holds a single colon (``a:b::c``), the arguments are not
    what they look like (``a:c``): that is Heartbeat's, and kept here.
    """
    name = word.partition("::")[0]
    script = "IPaddr" if is_like_an_address(name) else name
    if "::" not in word and not is_like_an_address(word):
        return Call(script, ())
    rest = re.sub(r"[^:]*::", "", word, count=1)
    return Call(script, tuple(part for part in _BLANKS.split(rest.replace("::", " ")) if part))


class _Joined:
    """Physical lines joined to a logical one; knows which character came from which line."""

    def __init__(self, number: int, text: str) -> None:
        before, hash_, _comment = text.partition("#")
        self._pieces = [before]
        self._starts, self._numbers = [0], [number]
        self._cut = len(before) if hash_ else None
        self._seams: list[int] = []

    @property
    def continues(self) -> bool:
        return self._pieces[-1].endswith("\\")

    def join(self, number: int, text: str) -> None:
        """The next physical line, whose comment Heartbeat leaves in place."""
        self._pieces[-1] = self._pieces[-1][:-1]
        start = self._starts[-1] + len(self._pieces[-1])
        self._pieces.append(text)
        self._seams.append(start)
        self._starts.append(start)
        self._numbers.append(number)

    def words(self) -> list[Word]:
        text = "".join(self._pieces)
        return [
            Word(
                match[0],
                self._numbers[bisect.bisect_right(self._starts, match.start()) - 1],
                frozenset(self._surprises(match)),
            )
            for match in re.finditer(r"[^ \t\n]+", text)
        ]

    def _surprises(self, match: "re.Match[str]") -> list[Surprise]:
        word = match[0]
        checks = {
            Surprise.BACKSLASH: word.rstrip("\r").endswith("\\"),
            Surprise.HASH: "#" in word,
            Surprise.GLUED: self._is_glued(match),
            Surprise.CARRIAGE_RETURN: word.endswith("\r"),
            Surprise.CUT: match.end() == self._cut,
        }
        return [surprise for surprise, is_so in checks.items() if is_so]

    def _is_glued(self, match: "re.Match[str]") -> bool:
        """A seam lies within the word."""
        after = bisect.bisect_right(self._seams, match.start())
        return after < len(self._seams) and self._seams[after] < match.end()


def groups(content: bytes) -> tuple[Group, ...]:
    """Every logical line with its words; empty lines and comments give none."""
    lines = texts.decoded(content).split("\n")
    if not lines[-1]:
        lines.pop()
    found = []
    position = 0
    while position < len(lines):
        joined = _Joined(position + 1, lines[position])
        position += 1
        while joined.continues and position < len(lines):
            joined.join(position + 1, lines[position])
            position += 1
        words = joined.words()
        if words:
            line = Line(FILE, words[0].number, shown([word.text for word in words]))
            found.append(Group(line, words[0].text.lower(), tuple(words[1:])))
    return tuple(found)


def shown(words: Sequence[str]) -> str:
    """Words as a line that can be printed."""
    return texts.shown(" ".join(words))
