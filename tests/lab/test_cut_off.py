"""A node that has no way to its clients hands its services over, and does not flap."""

import time

import pytest

from tests.lab.cluster import Cluster
from tests.lab.watching import Watch

pytestmark = pytest.mark.lab


def cut_off(cluster: Cluster) -> list[str]:
    """Nodes that node1 says are cut off."""
    problems = cluster.status(cluster.lab.node1).get("problems", [])
    return [problem["about"]["node"] for problem in problems if problem["code"] == "cut-off"]


def test_a_pulled_lan_cable_moves_services_once_each_way(cluster: Cluster) -> None:
    """Serial and crossover go on: no failover, but no clients either; back on the LAN they come home."""
    lab = cluster.lab
    watch = Watch(cluster)
    lab.pull_lan(lab.node2)
    watch.wait_for(cluster.on(lab.node1), within_s=10)
    assert cluster.is_pair(lab.node1) and cut_off(cluster) == ["clustnode2"]
    lab.plug_lan(lab.node2)
    watch.wait_for(cluster.primaries, within_s=60)
    assert cut_off(cluster) == []
    watch.assert_never_two_owners()


def test_a_silent_gateway_at_one_node_moves_its_services(cluster: Cluster) -> None:
    """The carrier is well, the switch is not: what the tiebreaker is for."""
    lab = cluster.lab
    watch = Watch(cluster)
    lab.block_pings(lab.node2)
    watch.wait_for(cluster.on(lab.node1), within_s=20)
    assert cluster.is_pair(lab.node1) and cut_off(cluster) == ["clustnode2"]
    watch.assert_never_two_owners()


def test_a_gateway_that_is_gone_for_both_moves_nothing(cluster: Cluster) -> None:
    """It is the tiebreaker that is away; said, and no service is touched."""
    lab = cluster.lab
    watch = Watch(cluster)
    lab.block_pings(*lab.nodes)
    watch.wait_for(cluster.primaries, within_s=1)
    deadline = time.monotonic() + 20
    while sorted(cut_off(cluster)) != ["clustnode1", "clustnode2"]:
        assert time.monotonic() < deadline, cluster.picture()
        time.sleep(0.2)
    assert watch.owners() == cluster.primaries
    watch.assert_never_two_owners()
    watch.assert_no_outage()
