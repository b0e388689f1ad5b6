"""Bytes read as a script: every choice that a fuzz target makes is taken from its input.

Decides how bytes become numbers, choices and pieces, so that any input is a
script, a small change of the bytes is a small change of the script, and an
input means the same for every engine.  Knows no target.
"""

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Script:
    """One input, read from its beginning.  After its end it gives zeros and empty pieces."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    @property
    def is_over(self) -> bool:
        return self._at >= len(self._data)

    def byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1] if self._at <= len(self._data) else 0

    def number(self, size: int) -> int:
        """Of so many bytes, unsigned."""
        return int.from_bytes(self.piece(size).ljust(size, b"\0"), "big")

    def choice(self, among: Sequence[T]) -> T:
        return among[self.byte() % len(among)]

    def piece(self, size: int) -> bytes:
        """The next bytes, as many as are left of so many."""
        self._at += size
        return self._data[self._at - size : self._at]

    def short(self) -> bytes:
        """A piece whose length is its first byte."""
        return self.piece(self.byte())

    def rest(self) -> bytes:
        return self.piece(max(0, len(self._data) - self._at))
