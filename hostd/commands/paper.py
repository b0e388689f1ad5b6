"""Text for a terminal: columns, wrapped lines, colour where a person looks.

Decides how wide and how coloured; refuses to know what is written.
"""

import io
import os
import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import Final, TextIO

WIDTH: Final = 80

_COLOURS: Final = {"red": "31", "green": "32", "yellow": "33", "bold": "1", "dim": "2"}


class Paper:
    """Writes to ``out``; colours only if that is a terminal and NO_COLOR is not set,
    or as ``is_coloured`` says."""

    def __init__(self, out: TextIO | None = None, *, is_coloured: bool | None = None) -> None:
        self.out = out if out is not None else sys.stdout
        self.is_coloured = self.out.isatty() and "NO_COLOR" not in os.environ if is_coloured is None else is_coloured

    def text(self) -> str:
        """All that was written, if ``out`` is a StringIO."""
        assert isinstance(self.out, io.StringIO), self.out
        return self.out.getvalue()

    def colour(self, text: str, name: str) -> str:
        """The text in a colour, or as it is; an empty ``name`` is no colour."""
        if not self.is_coloured or not name:
            return text
        return f"\x1b[{_COLOURS[name]}m{text}\x1b[0m"

    def line(self, text: str = "") -> None:
        print(text, file=self.out)

    def wrapped(self, first: str, text: str, *, indent: int, colour: str = "") -> None:
        """``first`` padded to ``indent``, then the text wrapped beside it."""
        lines = textwrap.wrap(text, WIDTH - indent, break_long_words=False, break_on_hyphens=False) or [""]
        head = first.ljust(indent)
        self.line(self.colour(head, colour) + lines[0])
        for rest in lines[1:]:
            self.line(" " * indent + rest)

    def table(self, head: Sequence[str], rows: Iterable[Sequence[tuple[str, str]]]) -> None:
        """Columns as wide as they need; a cell is its text and its colour."""
        listed = [list(row) for row in rows]
        widths = [
            max(len(title), *(len(row[i][0]) for row in listed)) if listed else len(title)
            for i, title in enumerate(head)
        ]
        titles = "  ".join(title.ljust(width) for title, width in zip(head, widths, strict=True)).rstrip()
        self.line(self.colour(titles, "bold"))
        for row in listed:
            cells = [
                self.colour(text, colour) + " " * (width - len(text))
                for (text, colour), width in zip(row, widths, strict=True)
            ]
            self.line("  ".join(cells).rstrip())
