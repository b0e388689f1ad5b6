"""What an operator plans: moves, standby, leaving.  The address is away for an instant only."""

import signal

import pytest

from tests.lab.cluster import Cluster
from tests.lab.lab import wait_until
from tests.lab.limits import promised
from tests.lab.watching import Watch

pytestmark = pytest.mark.lab

PLANNED_MAX_MS = promised(100)


def test_a_planned_move_takes_an_instant(cluster: Cluster) -> None:
    """``hostd move``: the address is elsewhere, and was away for less than 100 ms."""
    watch = Watch(cluster)
    cluster.lab.node1.hostd("move", "mysql", "clustnode1")
    watch.wait_for(cluster.primaries | {"mysql": "clustnode1"}, within_s=5)
    watch.assert_never_two_owners()
    outages = watch.outages_ms()
    assert outages["mysql"] < PLANNED_MAX_MS, outages
    assert outages["ldap"] == outages["cyrus"] == 0


def test_a_move_can_be_asked_for_on_either_node(cluster: Cluster) -> None:
    """Asked on the node that does not coordinate; without NODE it goes to the next candidate."""
    watch = Watch(cluster)
    cluster.lab.node2.hostd("move", "ldap")
    watch.wait_for(cluster.primaries | {"ldap": "clustnode2"}, within_s=5)
    watch.assert_never_two_owners()


def test_standby_empties_a_node_and_online_fills_it(cluster: Cluster) -> None:
    """Each address is away for less than 100 ms on its way there and back."""
    watch = Watch(cluster)
    cluster.lab.node1.hostd("standby", "clustnode2")
    watch.wait_for(cluster.on(cluster.lab.node1), within_s=5)
    cluster.lab.node1.hostd("online", "clustnode2")
    watch.wait_for(cluster.primaries, within_s=5)
    watch.assert_never_two_owners()
    assert max(watch.outages_ms().values()) < PLANNED_MAX_MS, watch.outages_ms()


def test_an_orderly_shutdown_is_no_power_cut(cluster: Cluster) -> None:
    """SIGTERM of the daemon: everything is handed over first, then it ends."""
    lab, watch = cluster.lab, Watch(cluster)
    lab.node2.signal([cluster.hosts["clustnode2"]], signal.SIGTERM)
    wait_until(lambda: not lab.node2.hostd_tree(), "it has ended", within_s=10)
    watch.wait_for(cluster.on(lab.node1), within_s=2)
    watch.assert_never_two_owners()
    assert max(watch.outages_ms().values()) < PLANNED_MAX_MS, watch.outages_ms()
