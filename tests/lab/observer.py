"""The observer: an extra station on the LAN that sees who owns each address.

Decides what counts as two owners: two MACs that answer for one address within
one questioning interval.  Its questions are ordinary ARP requests and
neighbour solicitations from addresses that no kernel holds, so asking changes
nobody's neighbour cache.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tests.lab.names import NODE_OF_MAC, OBSERVER
from tests.lab.network import Network
from tests.lab.probe_process import ProbeProcess, now_ms

INTERFACE = "observer"


@dataclass(frozen=True)
class Double:
    """An address seen with two owners."""

    address: str
    owners: tuple[str, ...]
    from_ms: float
    duration_ms: float


@dataclass(frozen=True)
class Tenure:
    """Who answered for an address, from when to when; nobody: an empty tuple."""

    owners: tuple[str, ...]
    from_ms: float
    to_ms: float


class Observer:
    """Watches some addresses from when it is made until it is closed; a context manager."""

    def __init__(self, lan: Network, targets: Sequence[str], *, interval_ms: float = 5) -> None:
        self.interval_ms = interval_ms
        self._probe = ProbeProcess(
            "observer_process.py",
            lan,
            {
                "interface": INTERFACE,
                "mac": OBSERVER.mac,
                "address": OBSERVER.address,
                "address6": OBSERVER.address6,
                "targets": list(targets),
                "interval_ms": interval_ms,
            },
        )

    def tenures(self, address: str, since_ms: float | None = None) -> list[Tenure]:
        """The history of one address, oldest first."""
        report = self._probe.ask(since_ms)[address]
        return [Tenure(tuple(name_of(mac) for mac in who), first, last) for first, last, who in report["runs"]]

    def owner(self, address: str) -> str:
        """Who answers for it now; empty if nobody or two do."""
        latest = self.tenures(address, now_ms() - 100)
        return latest[-1].owners[0] if latest and len(latest[-1].owners) == 1 else ""

    def doubles(self, since_ms: float | None = None) -> list[Double]:
        """Every time that an address had two owners.

        ``duration_ms`` errs on the long side by at most one interval.
        """
        found = []
        for address, report in self._probe.ask(since_ms).items():
            for first, last, who in report["runs"]:
                if len(who) > 1:
                    owners = tuple(name_of(mac) for mac in who)
                    found.append(Double(address, owners, first, last - first + self.interval_ms))
        return found

    def claims(self, address: str, since_ms: float | None = None) -> list[tuple[float, str]]:
        """Gratuitous ARPs and unsolicited advertisements: (when, from whom)."""
        return [(at_ms, name_of(mac)) for at_ms, mac in self._probe.ask(since_ms)[address]["claims"]]

    def close(self) -> None:
        self._probe.close()

    def __enter__(self) -> "Observer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def name_of(mac: str) -> str:
    return NODE_OF_MAC.get(mac, mac)
