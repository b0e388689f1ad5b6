"""Watches a cluster's addresses from outside, and says what must never be seen.

Decides what the judgement tests look at: the owners that the LAN sees, and
the outage that a client with a warm neighbour cache sees.
"""

from tests.lab.client import Ask, Client, Seen
from tests.lab.cluster import Cluster
from tests.lab.lab import wait_until
from tests.lab.observer import Observer
from tests.lab.probe_process import now_ms

INTERVALS_OF_DOUBT = 2
"""A late answer may be put to the question after; two in a row are no accident."""


class Watch:
    """A client that asks for every address, and an observer of their owners.

    Everything is told from ``began_at_ms`` on, which is set when all
    addresses are answered.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        addresses = [service.address for service in cluster.services.values()]
        self.client: Client = cluster.lab.ask(*(Ask(s.name, s.address) for s in cluster.services.values()))
        self.observer: Observer = cluster.lab.observe(*addresses)
        wait_until(self.is_answered, "every address is answered", within_s=10)
        self.began_at_ms = now_ms()

    def is_answered(self) -> bool:
        """Does every address answer the client now?"""
        return all(seen.is_answered for seen in self.client.see_all(now_ms() - 1000).values())

    def owners(self) -> dict[str, str]:
        """Who answers for each service's address on the LAN now."""
        return {name: self.observer.owner(s.address) for name, s in self.cluster.services.items()}

    def wait_for(self, owners: dict[str, str], *, within_s: float) -> float:
        """Until the LAN sees these owners; the seconds it took."""
        try:
            return wait_until(lambda: self.owners() == owners, f"the LAN sees {owners}", within_s=within_s)
        except AssertionError as late:
            raise AssertionError(f"{late}; it sees {self.owners()}\n{self.cluster.picture()}") from None

    def seen(self) -> dict[str, Seen]:
        """What the client saw of each service, once all its requests are decided."""
        self.client.settle()
        return self.client.see_all(self.began_at_ms)

    def outages_ms(self) -> dict[str, float]:
        """The longest outage of each service."""
        return {name: seen.outage_ms for name, seen in self.seen().items()}

    def double_ms(self) -> float:
        """The longest time that an address had two owners, 0 for never."""
        doubt_ms = self.observer.interval_ms * INTERVALS_OF_DOUBT
        durations = [double.duration_ms for double in self.observer.doubles(self.began_at_ms)]
        return max((duration for duration in durations if duration > doubt_ms), default=0.0)

    def assert_never_two_owners(self) -> None:
        assert self.double_ms() == 0, f"{self.observer.doubles(self.began_at_ms)}\n{self.cluster.picture()}"

    def assert_no_outage(self) -> None:
        outages = {name: ms for name, ms in self.outages_ms().items() if ms}
        assert outages == {}, f"{outages}\n{self.cluster.picture()}"
