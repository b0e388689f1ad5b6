"""What became of each line, and why.

Decides what a fate says: one of four verdicts, the thing, what it is now, the
reason and the cure.  Knows neither ha.cf nor haresources.
"""

import enum
from collections.abc import Iterable
from typing import Final

import msgspec


class Verdict(enum.Enum):
    """The four fates; the value is what people and tools read."""

    CONVERTED = "converted"  # does in hostd what it did in Heartbeat
    WARNING = "warning"  # converted, and something about it should be known
    NOT_NEEDED = "not needed"  # hostd does it anyway, or has no use for it
    REFUSED = "refused"  # not converted: somebody must decide or repair


class Line(msgspec.Struct, frozen=True, order=True):
    """A line of a file of ha.d.  ``number`` 0: the file as a whole."""

    file: str
    number: int
    text: str = ""
    """Fit to be shown: printable, no secrets."""

    @property
    def place(self) -> str:
        """``ha.cf:3``, as editors understand it."""
        return f"{self.file}:{self.number}" if self.number else self.file


class Fate(msgspec.Struct, frozen=True):
    """What became of a line, or of one thing on it."""

    line: Line
    verdict: Verdict
    thing: str
    """The directive or resource; empty: the line as a whole."""
    became: str = ""
    """What it is in conf.d, if it is anything there."""
    reason: str = ""
    cure: str = ""

    @property
    def text(self) -> str:
        """All of it but the place, in one line."""
        head = " → ".join(part for part in (self.thing, self.became) if part)
        why = "; ".join(part for part in (self.reason, self.cure) if part)
        return ": ".join(part for part in (head, why) if part)


class Ledger:
    """Gathers the fates, in the order in which they were met."""

    def __init__(self) -> None:
        self.fates: list[Fate] = []

    def converted(self, line: Line, thing: str, became: str) -> None:
        """It does in hostd what it did."""
        self.fates.append(Fate(line, Verdict.CONVERTED, thing, became))

    def warned(self, line: Line, thing: str, became: str, reason: str, cure: str = "") -> None:
        """Converted; ``reason`` says what is different, ``cure`` what to do if that is not wanted."""
        self.fates.append(Fate(line, Verdict.WARNING, thing, became, reason, cure))

    def not_needed(self, line: Line, thing: str, reason: str) -> None:
        """Left out, and nothing is lost."""
        self.fates.append(Fate(line, Verdict.NOT_NEEDED, thing, "", reason))

    def refused(self, line: Line, thing: str, reason: str, cure: str) -> None:
        """Left out, and something is missing until the cure is applied."""
        self.fates.append(Fate(line, Verdict.REFUSED, thing, "", reason, cure))

    def withdraw(self, line: Line, thing: str) -> None:
        """Take back what was told of it: something worse is known now."""
        self.fates = [fate for fate in self.fates if (fate.line, fate.thing) != (line, thing)]

    def count(self, verdict: Verdict) -> int:
        return sum(fate.verdict is verdict for fate in self.fates)


_FILES: Final = ("ha.cf", "peer/ha.cf", "haresources", "peer/haresources", "authkeys", "peer/authkeys")


def by_line(fates: Iterable[Fate]) -> list[tuple[Line, list[Fate]]]:
    """The fates of each line together: the known files first, then the others in the order met; lines by number."""
    files: dict[str, dict[int, list[Fate]]] = {}
    for fate in fates:
        files.setdefault(fate.line.file, {}).setdefault(fate.line.number, []).append(fate)
    order = {name: rank for rank, name in enumerate((*_FILES, *(name for name in files if name not in _FILES)))}
    return [
        (told[0].line, told)
        for _name, numbers in sorted(files.items(), key=lambda item: order[item[0]])
        for _number, told in sorted(numbers.items())
    ]
