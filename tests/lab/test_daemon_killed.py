"""hostd dies, hangs or freezes while its node's kernel lives."""

import signal
import time

import pytest

from tests.lab.client import Ask
from tests.lab.cluster import Cluster, apache
from tests.lab.lab import Lab, always, wait_until
from tests.lab.limits import promised
from tests.lab.node import Node
from tests.lab.watching import Watch

pytestmark = pytest.mark.lab

DEADTIME_S = 2.0
LEASE_S = 5.0
KERNEL_SLACK_S = 0.4  # how late the kernel was seen to drop an address


def named(node: Node, name: str) -> list[int]:
    """hostd's processes of this name on a node."""
    found = []
    for pid in node.hostd_tree():
        with open(f"/proc/{pid}/comm") as comm:
            if comm.read().strip() == name:
                found.append(pid)
    return found


@pytest.mark.parametrize("part", ["hostd-brain", "hostd-heart"])
def test_a_killed_part_of_the_daemon_is_back_at_once(cluster: Cluster, part: str) -> None:
    """SIGKILL of brain or heart: back within half a second, no failover, services untouched."""
    lab, watch = cluster.lab, Watch(cluster)
    before = named(lab.node2, part)
    assert len(before) == 1
    lab.node2.signal(before, signal.SIGKILL)
    wait_until(lambda: named(lab.node2, part) not in ([], before), f"{part} is forked again", within_s=promised(0.5))
    cluster.wait_for_pair(within_s=DEADTIME_S + 2)
    always(lambda: watch.owners() == cluster.primaries, "each address stays", for_s=2.5)
    assert cluster.owners(lab.node1) == cluster.primaries
    watch.assert_never_two_owners()
    watch.assert_no_outage()


def test_a_restarted_daemon_adopts_what_runs(lab: Lab) -> None:
    """The whole daemon is killed and started again at once, as systemd does: the service keeps
    its processes, the pair forms again, the client notices nothing."""
    web = apache(lab, "web", "clustnode2", "172.23.2.16")
    cluster = Cluster(lab, [web]).up()
    client = lab.ask(Ask("web", web.address, http=True))
    wait_until(lambda: client.see("web").server == "clustnode2", "its primary serves it", within_s=10)
    hostd = set(lab.node2.hostd_tree())
    workers = set(lab.node2.processes()) - hostd
    assert workers
    cluster.kill_host(lab.node2)
    wait_until(lambda: not lab.node2.hostd_tree(), "heart and brain die with the host", within_s=2)
    cluster.start(lab.node2)
    cluster.wait_for_pair(within_s=10)
    cluster.wait_for(cluster.primaries)
    assert workers <= set(lab.node2.processes()), "the same Apache"
    client.settle()
    assert client.see("web").outages == ()


def test_a_daemon_that_stays_dead_loses_its_addresses_to_the_other_node(cluster: Cluster) -> None:
    """SIGKILL of all of hostd, the kernel lives and answers ARP: never two owners, and the other
    node serves the addresses within lease + 1 s."""
    lab, watch = cluster.lab, Watch(cluster)
    cluster.kill_all_of_hostd(lab.node2)
    took = watch.wait_for(cluster.on(lab.node1), within_s=LEASE_S + promised(1))
    assert took > DEADTIME_S, "the guard must have waited for the lease"
    watch.assert_never_two_owners()


def test_a_node_frozen_for_good_loses_its_addresses_to_the_other_node(cluster: Cluster) -> None:
    """SIGSTOP of every process, the kernel answers ARP: likewise."""
    lab, watch = cluster.lab, Watch(cluster)
    lab.node2.freeze()
    watch.wait_for(cluster.on(lab.node1), within_s=LEASE_S + promised(1 + KERNEL_SLACK_S))
    watch.assert_never_two_owners()


def test_a_frozen_node_that_comes_back_yields_at_once(cluster: Cluster) -> None:
    """SIGSTOP for 5 s, then SIGCONT: two owners for less than 50 ms, and a pair again."""
    lab, watch = cluster.lab, Watch(cluster)
    lab.node2.freeze()
    time.sleep(5)
    lab.node2.thaw()
    cluster.wait_for_pair(within_s=20)
    watch.wait_for(cluster.primaries, within_s=15)
    assert watch.double_ms() < promised(50), f"{watch.observer.doubles()}\n{cluster.picture()}"


def test_a_short_freeze_is_no_failover(cluster: Cluster) -> None:
    """SIGSTOP for one second, half of deadtime: nothing moves."""
    lab, watch = cluster.lab, Watch(cluster)
    lab.node2.freeze()
    time.sleep(1)
    lab.node2.thaw()
    always(lambda: watch.owners() == cluster.primaries, "each address stays", for_s=4)
    watch.assert_never_two_owners()
    watch.assert_no_outage()
