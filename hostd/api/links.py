"""What a heartbeat medium is handed, and what it must offer.  Decides nothing."""

from typing import Any, Protocol

import msgspec

from hostd.core.terms import Carrier


class Note(str):
    """A sentence of ``check_link`` that is good to know and no mistake."""


class LinkSettings(msgspec.Struct, frozen=True):
    """One ``[[heartbeat.link]]`` as this node is to open it.

    ``settings``: its keys but for type, name and direct, with a table of node
    names already replaced: own value under the key, the peer's under
    ``peer_`` + key where both nodes have one.  ``keepalive_ms``: how often a
    beat is sent.
    """

    name: str
    type: str
    node: str
    peer: str
    cluster: str
    keepalive_ms: int
    settings: dict[str, Any] = {}


class Link(Protocol):
    """An open heartbeat medium.  Used by the heart only, which must never
    wait: every method returns at once, whatever the medium does."""

    mtu: int
    """The largest frame in bytes that ``send`` takes."""
    keepalive_ms: int
    """How often a beat may be sent here: the configured one, or a slower one
    that the medium can carry (a serial line at 9600 baud)."""
    burst: int
    """How many frames the medium takes at once: many for a network, 1 for a
    serial line, which gets one part of a snapshot after each beat."""

    def fileno(self) -> int:
        """What to poll for readability; -1 while the medium is away."""
        ...

    def send(self, frame: bytes) -> bool:
        """Send, or drop if the medium is busy or away: the latest wins, nothing queues.
        False if it was dropped here.  Never raises for what the medium does."""
        ...

    def received(self) -> list[bytes]:
        """All frames that have arrived, oldest first; never blocks.  What is
        no frame is counted in ``rejected`` and dropped.  A medium that hung
        up is closed here and opened again by ``tick``."""
        ...

    def tick(self, now_ms: int) -> None:
        """Called once per keepalive: reopen what is away (with backoff)."""
        ...

    def carrier(self) -> Carrier:
        """What the hardware says of the other end."""
        ...

    @property
    def usable(self) -> bool:
        """The medium is open."""
        ...

    @property
    def detail(self) -> str:
        """Why it is not usable, for people; empty if it is."""
        ...

    @property
    def rejected(self) -> int:
        """How many pieces of garbage arrived."""
        ...

    def close(self) -> None: ...
