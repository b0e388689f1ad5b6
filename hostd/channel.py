"""One link as the heart uses it: its medium, what it refused, what it still has to carry.

Decides when a plugin that fails is given another try, and which part of a
snapshot comes next on a medium that takes one frame at a time.  Refuses to
know what the frames mean and whether a beat is due.

A plugin is somebody else's code: whatever it raises ends here, so that the
other links' beats go on.
"""

import contextlib
from collections.abc import Callable
from typing import Final

from hostd.api import Carrier, ConfigError, Link, LinkSettings
from hostd.core.terms import Incarnation
from hostd.core.wire import NOTHING_HEARD, Part, split
from hostd.timekeeping import Worst

BROKEN_RETRY_MS: Final = 10_000
"""A plugin that raised is broken, not busy: no hurry."""
ANSWER_BEATS: Final = 2
"""How many beats the peer has to say that it holds the snapshot, before a narrow medium brings it again."""

OpenLink = Callable[[LinkSettings], Link | None]


class Channel:
    """Link ``index`` of the plan."""

    def __init__(self, index: int, settings: LinkSettings, open_link: OpenLink, now_ms: int) -> None:
        self.index = index
        self.name = settings.name
        self.next_turn = 0
        """Of the heart's schedule: when its next beat is due."""
        self.refused = 0
        """Frames that were no authentic, new word of the peer."""
        self.gap_max = Worst()
        self.told: tuple[bool, Carrier, str] | None = None
        """What the brain knows of it."""
        self._settings = settings
        self._open_link = open_link
        self._link: Link | None = None
        self._broken = ""
        self._state = (False, Carrier.UNKNOWN, "")
        self._retry_at_ms = now_ms
        self._heard_at_ms: int | None = None
        self._heard_life: tuple[Incarnation, int] = NOTHING_HEARD[:2]
        self._parts: list[Part] = []
        self._next_part = 0
        self.tick(now_ms)

    # -- the medium ----------------------------------------------------------------

    @property
    def keepalive_ms(self) -> int:
        return self._settings.keepalive_ms if self._link is None else self._link.keepalive_ms

    @property
    def is_narrow(self) -> bool:
        """Takes one frame at a time."""
        return self._link is not None and self._link.burst == 1

    @property
    def mtu(self) -> int:
        assert self._link is not None
        return self._link.mtu

    @property
    def is_open(self) -> bool:
        return self._link is not None

    @property
    def is_usable(self) -> bool:
        """As it was last looked at, once per keepalive."""
        return self._state[0]

    def fileno(self) -> int:
        return -1 if self._link is None else self._link.fileno()

    def send(self, frame: bytes) -> bool:
        if self._link is None:
            return False
        try:
            return self._link.send(frame)
        except Exception as error:  # noqa: BLE001 - a plugin may raise anything; see the module's docstring
            return self._fail(error)

    def received(self) -> list[bytes]:
        if self._link is None:
            return []
        try:
            return self._link.received()
        except Exception as error:  # noqa: BLE001 - as above
            self._fail(error)
            return []

    def tick(self, now_ms: int) -> None:
        """Let the medium heal itself; open it if its plugin failed a while ago."""
        try:
            if self._link is None and now_ms >= self._retry_at_ms:
                self._retry_at_ms = now_ms + BROKEN_RETRY_MS
                self._link = self._open_link(self._settings)
                self._broken = "" if self._link is not None else f"no plugin brings type {self._settings.type}"
            if self._link is not None:
                self._link.tick(now_ms)
        except Exception as error:  # noqa: BLE001 - as above
            self._fail(error)

    def state(self) -> tuple[bool, Carrier, str]:
        """Usable, carrier, and why not."""
        try:
            if self._link is not None:
                self._state = (self._link.usable, self._link.carrier(), self._link.detail)
        except Exception as error:  # noqa: BLE001 - as above
            self._fail(error)
        if self._link is None:
            self._state = (False, Carrier.UNKNOWN, self._broken)
        return self._state

    @property
    def rejected(self) -> int:
        return self.refused + (0 if self._link is None else self._link.rejected)

    def _fail(self, error: Exception) -> bool:
        self._broken = str(error) if isinstance(error, ConfigError) else f"{type(error).__name__}: {error}"
        if self._link is not None:
            with contextlib.suppress(Exception):  # it is given up; what it says to that is of no use
                self.refused += self._link.rejected
                self._link.close()
        self._link = None
        return False

    # -- what it heard, what it carries -----------------------------------------------

    def heard(self, at_ms: int, life: tuple[Incarnation, int], absent_ms: int) -> None:
        """An authentic frame came, of this life of the peer.  A gap of ``absent_ms``
        or more is an absence, which is told as such, and so is one between two
        lives; what is shorter was a delay."""
        if self._heard_at_ms is not None and life == self._heard_life:
            gap_ms = at_ms - self._heard_at_ms
            if gap_ms < absent_ms:
                self.gap_max.note(gap_ms)
        self._heard_at_ms, self._heard_life = at_ms, life

    def next_part(self, version: int, body: bytes, held: int) -> Part | None:
        """The part of our snapshot that goes out after this beat.

        A version that was begun is brought to its end, unless the peer holds
        it by now (``held``): a line so slow that versions change faster than
        it carries one would otherwise never bring any.
        """
        if not self._parts or self._parts[0].version <= held or self._next_part >= len(self._parts) + ANSWER_BEATS:
            self._parts, self._next_part = split(version, body, self.mtu), 0
        if self._next_part < len(self._parts):
            return self._parts[self._next_part]
        self._next_part += 1
        return None

    def part_was_sent(self) -> None:
        self._next_part += 1

    def forget_parts(self) -> None:
        """They were of an earlier incarnation."""
        self._parts = []
