"""A power cut: the other node serves the addresses, and nobody ever sees two owners."""

import statistics
from collections.abc import Sequence

import pytest

from tests.lab.cluster import ALL_LINKS, LAN, SERIAL, Cluster, LabService, Settings, apache
from tests.lab.conftest import CYRUS, LDAP, MYSQL
from tests.lab.lab import Lab, wait_until
from tests.lab.power_switch import Fencing
from tests.lab.watching import Watch

pytestmark = pytest.mark.lab

WARNTIME_MS, DEADTIME_MS = 500, 2_000
GRACE_MS = 200
FAST = {"keepalive": "20ms", "warntime": "60ms", "deadtime": "100ms", "initdead": "4s"}
ROUNDS = 5


def test_the_survivor_serves_every_address(cluster: Cluster) -> None:
    """IPv4 and IPv6 are answered again by the other node; its own service is not touched."""
    watch = Watch(cluster)
    cluster.lab.power_off(cluster.lab.node2)
    watch.wait_for(cluster.on(cluster.lab.node1), within_s=6)
    cluster.wait_for(cluster.on(cluster.lab.node1))
    watch.assert_never_two_owners()
    outages = watch.outages_ms()
    assert outages["ldap"] == 0
    assert max(outages.values()) < DEADTIME_MS + 1500, outages


def test_services_return_to_their_primary_with_the_node(cluster: Cluster) -> None:
    """Power comes back: the node joins, takes its own services back, and no address is doubled."""
    lab = cluster.lab
    lab.power_off(lab.node2)
    cluster.wait_for(cluster.on(lab.node1))
    watch = Watch(cluster)
    lab.power_on(lab.node2)
    cluster.start(lab.node2)
    cluster.wait_for_pair()
    watch.wait_for(cluster.primaries, within_s=10)
    watch.assert_never_two_owners()
    assert watch.outages_ms()["ldap"] == 0


def test_a_real_service_moves_with_its_address(lab: Lab) -> None:
    """Apache answers at the same address from the other node, with that node's page."""
    from tests.lab.client import Ask

    web = apache(lab, "web", "clustnode2", "172.23.2.16")
    cluster = Cluster(lab, [web]).up()
    client = lab.ask(Ask("web", web.address, http=True))
    wait_until(lambda: client.see("web").server == "clustnode2", "its primary serves it", within_s=10)
    lab.power_off(lab.node2)
    wait_until(lambda: client.see("web").server == "clustnode1", "the other node serves it", within_s=10)
    cluster.wait_for(cluster.on(lab.node1))


def test_both_nodes_start_from_cold_without_doubling_anything(lab: Lab) -> None:
    """Power for both at once: each service comes up on its primary, once."""
    cluster = Cluster(lab, [MYSQL, LDAP, CYRUS])
    observer = lab.observe(MYSQL.address, LDAP.address, CYRUS.address)
    cluster.up()
    assert [double for double in observer.doubles() if double.duration_ms > 10] == []


def outages_of_cuts(settings: Settings, rounds: int, services: Sequence[LabService] = (MYSQL,)) -> list[float]:
    """What a client saw of an address at each of so many power cuts of its holder."""
    outages = []
    with Lab() as lab:
        cluster = Cluster(lab, services, settings).up()
        for number in range(rounds):
            watch = Watch(cluster)
            holder = lab.node(cluster.owners(lab.node1)["mysql"])
            other = lab.other(holder)
            lab.power_off(holder)
            watch.wait_for(cluster.on(other), within_s=8)
            outages.append(watch.outages_ms()["mysql"])
            watch.assert_never_two_owners()
            if settings.fencing:
                asked = [call.partition(",")[0] for call in lab.switch.journal[2 * number :]]
                assert asked == [f"{other.name}: {action} {holder.name}" for action in ("off", "status")]
            watch.client.close()
            watch.observer.close()
            lab.power_on(holder)
            cluster.start(holder)
            cluster.wait_for_pair()
            cluster.wait_for(cluster.primaries)
    return outages


@pytest.mark.long
@pytest.mark.timeout(300)
def test_with_quick_evidence_the_outage_is_warntime_and_a_little() -> None:
    """The crossover's carrier drops: median of five at most warntime + 200 ms."""
    outages = outages_of_cuts(Settings(), ROUNDS)
    assert statistics.median(outages) <= WARNTIME_MS + GRACE_MS, outages


@pytest.mark.long
@pytest.mark.timeout(300)
def test_without_a_direct_cable_the_outage_is_deadtime_and_a_little() -> None:
    """Serial and LAN only: median of five at most deadtime + 200 ms."""
    outages = outages_of_cuts(Settings(links=(SERIAL, LAN)), ROUNDS)
    assert statistics.median(outages) <= DEADTIME_MS + GRACE_MS, outages


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("links", [ALL_LINKS, (SERIAL, LAN)], ids=["with-a-direct-cable", "without"])
def test_with_fencing_and_short_timers_the_outage_is_a_fifth_of_a_second(links: Sequence[str]) -> None:
    """keepalive 20 ms, warntime 60 ms, deadtime 100 ms on a quiet machine: median at most 200 ms.

    The survivor serves as much as the other and is the first in order, so that it shoots without a delay.
    """
    outages = outages_of_cuts(Settings(links=links, timers=FAST, fencing=Fencing()), ROUNDS, [MYSQL, LDAP])
    assert statistics.median(outages) <= 200, outages


@pytest.mark.long
@pytest.mark.timeout(900)
def test_twenty_power_cuts_in_a_row_lose_nothing_and_leave_nothing() -> None:
    """Alternating nodes: every address comes back every time, never two owners, nothing piles up."""
    with Lab() as lab:
        cluster = Cluster(lab, [MYSQL, LDAP, CYRUS]).up()
        watch = Watch(cluster)
        for number in range(20):
            victim = lab.nodes[number % 2]
            lab.power_off(victim)
            watch.wait_for(cluster.on(lab.other(victim)), within_s=8)
            lab.power_on(victim)
            assert victim.addresses() & {s.address for s in cluster.services.values()} == set()
            cluster.start(victim)
            cluster.wait_for_pair()
            watch.wait_for(cluster.primaries, within_s=15)
            cluster.wait_for(cluster.primaries)
        watch.assert_never_two_owners()
        for node in lab.nodes:
            assert len(node.hostd_tree()) == 3, "host, heart and brain, and nothing else"
            assert len(node.processes()) == 3
        assert max(watch.outages_ms().values()) < DEADTIME_MS + 1500
