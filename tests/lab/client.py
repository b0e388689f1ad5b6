"""The client: somebody on the LAN who needs the services and keeps asking.

Decides what an outage is: from the last request that was answered before a
loss to the first that was answered after it, by the times they were sent.
So a client that was itself held up sees no outage, and the figure errs on the
long side by at most one interval.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.lab.network import Network
from tests.lab.probe_process import ProbeProcess, now_ms

ECHO_INTERVAL_MS = 5.0
HTTP_INTERVAL_MS = 20.0
SETTLE_S = 0.55  # a little over the longest time that a request may take


@dataclass(frozen=True)
class Ask:
    """What to ask: ``http`` with a page that names the node, else ICMP echo."""

    name: str
    address: str
    http: bool = False
    port: int = 80
    interval_ms: float = 0


@dataclass(frozen=True)
class Outage:
    """``lost`` requests in a row; ``over`` False: it still lasts."""

    from_ms: float
    to_ms: float
    lost: int
    over: bool

    @property
    def duration_ms(self) -> float:
        return self.to_ms - self.from_ms


@dataclass(frozen=True)
class Seen:
    """What the client saw of one service."""

    sent: int
    answered: int
    outages: tuple[Outage, ...]
    servers: tuple[tuple[str, float, float], ...]
    """(node, first, last) in order; nodes are named by http pages only."""
    last_answer_at_ms: float

    @property
    def outage_ms(self) -> float:
        """The longest outage; 0 if there was none."""
        return max((outage.duration_ms for outage in self.outages), default=0.0)

    @property
    def server(self) -> str:
        return self.servers[-1][0] if self.servers else ""

    @property
    def is_answered(self) -> bool:
        """Was there an answer within the last 200 ms?"""
        return now_ms() - self.last_answer_at_ms < 200


class Client:
    """Asks from when it is made until it is closed; a context manager."""

    def __init__(self, network: Network, asks: Sequence[Ask]) -> None:
        self._probe = ProbeProcess("client_process.py", network, {"targets": [as_spec(ask) for ask in asks]})

    def see(self, name: str, since_ms: float | None = None) -> Seen:
        """What it saw of one service since then (default: since the start)."""
        return self.see_all(since_ms)[name]

    def see_all(self, since_ms: float | None = None) -> dict[str, Seen]:
        return {name: as_seen(report) for name, report in self._probe.ask(since_ms).items()}

    def settle(self) -> None:
        """Wait until every request sent so far is answered or counts as lost."""
        time.sleep(SETTLE_S)

    def close(self) -> None:
        self._probe.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def as_spec(ask: Ask) -> dict[str, Any]:
    usual = HTTP_INTERVAL_MS if ask.http else ECHO_INTERVAL_MS
    return {
        "name": ask.name,
        "kind": "http" if ask.http else "echo",
        "address": ask.address,
        "port": ask.port,
        "interval_ms": ask.interval_ms or usual,
    }


def as_seen(report: dict[str, Any]) -> Seen:
    return Seen(
        sent=report["sent"],
        answered=report["answered"],
        outages=tuple(Outage(g["from_ms"], g["to_ms"], g["lost"], not g["open"]) for g in report["gaps"]),
        servers=tuple((who, first, last) for who, first, last in report["servers"]),
        last_answer_at_ms=report["last_answer_at_ms"],
    )
