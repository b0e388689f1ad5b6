"""The client: somebody on the LAN who needs the services and keeps asking.

Decides what an outage is: from when the last request was sent that was
answered before a loss, to the first answer after it (of an echo: to when that
was asked for).  So a client that was itself held up sees no outage, and the
figure errs on the long side by at most one interval.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.lab.names import NODE_OF_MAC
from tests.lab.network import Network
from tests.lab.probe_process import ProbeProcess, now_ms

ECHO_INTERVAL_MS = 5.0
HTTP_INTERVAL_MS = 20.0
TALK_INTERVALS_MS = {"mysql": 100.0, "ldap": 100.0, "imap": 250.0}
"""An IMAP session costs a process, and a mail is several files."""
SETTLE_MAX_S = 6.0  # a little over the longest time that a request may take


@dataclass(frozen=True)
class Ask:
    """What to ask: ``http`` with a page that names the node, or ``protocol`` of
    ``conversations.py`` (mysql, ldap, imap) as a user, else ICMP echo."""

    name: str
    address: str
    http: bool = False
    port: int = 80
    interval_ms: float = 0
    protocol: str = ""
    user: str = ""
    password: str = ""

    @property
    def kind(self) -> str:
        return self.protocol or ("http" if self.http else "echo")


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
class Kept:
    """What one service has of the numbers that the client wrote."""

    acknowledged: int
    """The client was told that so many are written."""
    found: int
    """So many of these could be read back; -1: the service could not be read."""

    @property
    def is_all(self) -> bool:
        return self.found == self.acknowledged


@dataclass(frozen=True)
class Seen:
    """What the client saw of one service."""

    sent: int
    answered: int
    outages: tuple[Outage, ...]
    servers: tuple[tuple[str, float, float], ...]
    """(node, first, last) in order: named by the http page, or by the network card; no echo names any."""
    last_answer_at_ms: float
    undecided_since_ms: float | None
    """When the oldest request was sent that is neither answered nor lost."""

    interval_ms: float
    """From one request to the next."""

    @property
    def outage_ms(self) -> float:
        """The longest outage; 0 if there was none."""
        return max((outage.duration_ms for outage in self.outages), default=0.0)

    @property
    def server(self) -> str:
        return self.servers[-1][0] if self.servers else ""

    @property
    def is_answered(self) -> bool:
        """Was there an answer within the last 200 ms, or to one of the last requests?"""
        return now_ms() - self.last_answer_at_ms < max(200, 3 * self.interval_ms)


class Client:
    """Asks from when it is made until it is closed; a context manager."""

    def __init__(self, network: Network, asks: Sequence[Ask]) -> None:
        self._probes: list[ProbeProcess] = []
        # apart: threads that wait for each other would disturb the measurement of milliseconds
        for has_libraries in (False, True):
            targets = [as_spec(ask) for ask in asks if bool(ask.protocol) is has_libraries]
            if targets:
                spec = {"targets": targets}
                self._probes.append(ProbeProcess("client_process.py", network, spec, has_libraries=has_libraries))
        self._order = [ask.name for ask in asks]

    def see(self, name: str, since_ms: float | None = None) -> Seen:
        """What it saw of one service since then (default: since the start)."""
        return self.see_all(since_ms)[name]

    def see_all(self, since_ms: float | None = None) -> dict[str, Seen]:
        reports = {name: report for probe in self._probes for name, report in probe.ask(since_ms).items()}
        return {name: as_seen(reports[name]) for name in self._order}

    def kept(self, until_ms: float | None = None) -> dict[str, Kept]:
        """Read back, from each service that the client talks to, what was written until then (default: until now).

        Nothing else is asked meanwhile.
        """
        until_ms = now_ms() if until_ms is None else until_ms
        answers = [probe.put("kept", until_ms) for probe in self._probes]
        return {name: Kept(**report) for answer in answers for name, report in answer.items()}

    def settle(self) -> None:
        """Wait until every request sent so far is answered or counts as lost."""
        began_at_ms = now_ms()
        while now_ms() < began_at_ms + SETTLE_MAX_S * 1000:
            undecided = [seen.undecided_since_ms for seen in self.see_all(began_at_ms - SETTLE_MAX_S * 1000).values()]
            if all(since_ms is None or since_ms > began_at_ms for since_ms in undecided):
                return
            time.sleep(0.05)

    def close(self) -> None:
        for probe in self._probes:
            probe.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def as_spec(ask: Ask) -> dict[str, Any]:
    usual = {"http": HTTP_INTERVAL_MS, "echo": ECHO_INTERVAL_MS, **TALK_INTERVALS_MS}[ask.kind]
    return {
        "name": ask.name,
        "kind": ask.kind,
        "address": ask.address,
        "port": ask.port,
        "interval_ms": ask.interval_ms or usual,
        "user": ask.user,
        "password": ask.password,
    }


def as_seen(report: dict[str, Any]) -> Seen:
    return Seen(
        sent=report["sent"],
        answered=report["answered"],
        outages=tuple(Outage(g["from_ms"], g["to_ms"], g["lost"], not g["open"]) for g in report["gaps"]),
        servers=tuple((NODE_OF_MAC.get(who, who), first, last) for who, first, last in report["servers"]),
        last_answer_at_ms=report["last_answer_at_ms"],
        undecided_since_ms=report["undecided_since_ms"],
        interval_ms=report["interval_ms"],
    )
