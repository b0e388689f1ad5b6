"""Are we cut off?  Decides from what is seen of the client LAN (the carriers of
the addresses' interfaces, and a tiebreaker that answers whoever is there)
whether this node can serve anybody.

Refuses to know who else is reached by whom, and what follows for services.

Lost counts at once (whoever asks a tiebreaker has waited for its deadtime);
found again it counts only after :data:`STABLE_MS`, so that a LAN which comes
and goes does not make services do the same.
"""

from typing import Final

STABLE_MS: Final = 10_000
"""PROTOCOL.md names no time.  Several times a switch's hiccup, short against an operator."""


class Reach:
    """What was told of this node's way to its clients."""

    __slots__ = ("good_at_ms", "lan", "tiebreaker")

    def __init__(self) -> None:
        self.lan: bool | None = None  # some address has an interface that can be used; None: not told
        self.tiebreaker: bool | None = None  # None: there is none, or it has not said anything yet
        self.good_at_ms: int | None = None  # when it counts as reached again

    def take_lan(self, now_ms: int, alive: bool) -> None:
        """Can any address of the plan be reached through its interface?"""
        before, self.lan = self.reached, alive
        self._turned(now_ms, before)

    def take_tiebreaker(self, now_ms: int, reached: bool) -> None:
        """It was found, or lost."""
        before, self.tiebreaker = self.reached, reached
        self._turned(now_ms, before)

    @property
    def reached(self) -> bool | None:
        """Now; None if nothing can tell."""
        told = [word for word in (self.lan, self.tiebreaker) if word is not None]
        return all(told) if told else None

    @property
    def is_cut_off(self) -> bool:
        return self.reached is False

    def word(self, now_ms: int) -> bool | None:
        """What is published: False also while it has not been back for long enough."""
        if self.good_at_ms is not None and now_ms < self.good_at_ms:
            return False
        return self.reached

    def _turned(self, now_ms: int, before: bool | None) -> None:
        if self.is_cut_off:
            self.good_at_ms = None
        elif before is False:
            self.good_at_ms = now_ms + STABLE_MS
