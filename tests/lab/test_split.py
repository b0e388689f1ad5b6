"""All heartbeats lost while both nodes live, without fencing: the guard, and the heal."""

import time

import pytest

from tests.lab.cluster import Cluster
from tests.lab.lab import always, wait_until
from tests.lab.watching import Watch

pytestmark = pytest.mark.lab


def lose_all_heartbeats(cluster: Cluster) -> None:
    """Serial and crossover pulled, UDP 694 blocked on the client LAN; ARP still passes."""
    cluster.lab.block_lan_heartbeats()
    cluster.lab.serial.unplug()
    cluster.lab.pull_crossover()


def heal(cluster: Cluster) -> float:
    """Everything passes again; when that was, on the clock of the measurements."""
    from tests.lab.probe_process import now_ms

    cluster.lab.pass_everything()
    cluster.lab.plug_crossover()
    cluster.lab.serial.plug()
    return now_ms()


def test_the_guard_keeps_each_address_on_its_owner(cluster: Cluster) -> None:
    """No heartbeat passes but ARP does: nothing moves, no address is doubled, both say so."""
    watch = Watch(cluster)
    lose_all_heartbeats(cluster)
    always(lambda: watch.owners() == cluster.primaries, "each address stays", for_s=8)
    watch.assert_never_two_owners()
    watch.assert_no_outage()
    for node in cluster.lab.nodes:
        status = cluster.status(node)
        assert status["phase"] == "peer_lost", cluster.picture()
        assert [problem for problem in status["problems"] if problem["severity"] == "error"]


def test_after_a_guarded_split_the_pair_goes_on(cluster: Cluster) -> None:
    """Heartbeats come back: a pair again, nothing was restarted, no outage."""
    watch = Watch(cluster)
    since = {name: entry["since"] for name, entry in cluster.status(cluster.lab.node1)["services"].items()}
    lose_all_heartbeats(cluster)
    time.sleep(4)
    heal(cluster)
    cluster.wait_for_pair()
    assert watch.owners() == cluster.primaries
    watch.assert_never_two_owners()
    watch.assert_no_outage()
    now = cluster.status(cluster.lab.node1)["services"]
    assert {name: entry["since"][:16] for name, entry in now.items()} == {n: s[:16] for n, s in since.items()}


def test_a_total_split_heals_to_one_owner_at_once(cluster: Cluster) -> None:
    """Not even ARP passes: two owners cannot be excluded, but 300 ms after the heal there is one,
    and a service that ran on one node only is not restarted."""
    watch = Watch(cluster)
    cluster.lab.block_between_nodes()
    cluster.lab.serial.unplug()
    cluster.lab.pull_crossover()
    wait_until(lambda: watch.double_ms() > 0, "both nodes hold addresses", within_s=15)
    healed_at_ms = heal(cluster)
    cluster.wait_for_pair()
    watch.wait_for(cluster.primaries, within_s=10)
    late = [
        double
        for double in watch.observer.doubles(healed_at_ms)
        if double.from_ms + double.duration_ms > healed_at_ms + 300
    ]
    assert late == [], f"{late}\n{cluster.picture()}"
    always(lambda: watch.owners() == cluster.primaries, "it stays so", for_s=1.5)


@pytest.mark.parametrize("blocked", ["clustnode1", "clustnode2"])
def test_a_one_way_lan_moves_nothing(cluster: Cluster, blocked: str) -> None:
    """One direction of the LAN is lost while the other links live: no failover."""
    watch = Watch(cluster)
    cluster.lab.block_from(cluster.lab.node(blocked))
    always(lambda: watch.owners() == cluster.primaries, "each address stays", for_s=4)
    watch.assert_never_two_owners()
    watch.assert_no_outage()
