"""What is done to machines while services run on them: clocks are set, hostd is upgraded and at last removed.

The tests build on each other, in this order; the last one leaves no hostd.
"""

import functools

import pytest

from tests.machines.cluster import IDLE, WEB, WITHIN_S, Cluster
from tests.machines.guest import Guest
from tests.machines.installation import INSIDE
from tests.machines.steps import note, step
from tests.machines.undisturbed import Undisturbed

HOUR_S = 3_600
LOOK_S = 20
"""Longer than deadtime and than two intervals of the monitors."""

NEXT = "99.0"
NEXT_DEB = "/var/cache/hostd-next.deb"
REPACK = f"""\
set -e
rm -rf /var/tmp/next
dpkg-deb -R {INSIDE} /var/tmp/next
sed -i 's/^Version: .*/Version: {NEXT}-1/' /var/tmp/next/DEBIAN/control
cd /var/tmp/next/usr/lib/hostd/lib/python3.*/site-packages/hostd
sed -i 's/^__version__ = .*/__version__ = "{NEXT}"/' __init__.py
cd /
dpkg-deb -Znone -b /var/tmp/next {NEXT_DEB}
rm -r /var/tmp/next
"""
"""The same program under a higher number."""


class SameLife:
    """hostd itself: its processes, its view of the cluster, and no line in its log that says that anything moved."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._before = self._look()

    def _look(self) -> list[object]:
        nodes = self._cluster.pair.nodes
        return [
            *(node.sh("pgrep -x 'hostd(-heart|-brain)?'").split() for node in nodes),
            *(self._cluster.status(node)["view"] for node in nodes),
            *(self._cluster.node_states(node) for node in nodes),
        ]

    def assert_holds(self) -> None:
        assert self._look() == self._before, self._cluster.picture()


def shift_clock(node: Guest, seconds: int) -> None:
    """Set it as an administrator does."""
    node.sh(f"date -s @$(($(date +%s) + {seconds}))")


@pytest.mark.parametrize("seconds", [-HOUR_S, 2 * HOUR_S], ids=["an hour back", "two hours forward"])
def test_a_clock_that_is_set_moves_nothing(cluster: Cluster, undisturbed: Undisturbed, seconds: int) -> None:
    """One node's clock jumps: no failover, no restart, no new view; monitors go on."""
    node = cluster.pair.node1
    before = SameLife(cluster)
    with step(f"the clock of {node.name} jumps by {seconds} s, and {LOOK_S} s later"):
        shift_clock(node, seconds)
        node.sh(f"sleep {LOOK_S}")
    before.assert_holds()
    undisturbed.assert_holds()


def test_orders_hold_whatever_the_clocks_say(cluster: Cluster) -> None:
    """Given on the node whose clock is an hour behind, the later order is the one that counts."""
    behind, ahead = cluster.pair.nodes
    shift_clock(ahead, 2 * HOUR_S)
    with step("stopped by the node that is ahead, started by the one that is behind"):
        ahead.sh("hostd stop idle", timeout_s=WITHIN_S)
        cluster.wait_until(lambda: cluster.owners(behind)["idle"] == "", "it is stopped")
        behind.sh("hostd start idle", timeout_s=WITHIN_S)
        cluster.wait_for(cluster.primaries)


def test_a_restart_under_a_clock_that_went_back_costs_nothing(cluster: Cluster, undisturbed: Undisturbed) -> None:
    """hostd's new life is newer than its old one for the other node, though its clock says otherwise."""
    node = cluster.pair.node2
    with step("the clock goes two hours back, systemctl restart hostd"):
        shift_clock(node, -2 * HOUR_S)
        node.sh("systemctl restart hostd", timeout_s=WITHIN_S)
        cluster.wait_until(
            lambda: all(cluster.node_states(each) == ["online", "online"] for each in cluster.pair.nodes),
            "both are members again",
        )


@pytest.mark.long
def test_an_upgrade_stops_no_service(cluster: Cluster, undisturbed: Undisturbed) -> None:
    """``dpkg -i`` of a higher version, one node after the other; in between the two releases are one cluster."""
    for number, node in enumerate(cluster.pair.nodes, 1):
        before = cluster.main_pid(node)
        node.sh(REPACK, timeout_s=600)
        with step(f"dpkg -i on {node.name}"):
            note(node.sh(f"dpkg -i {NEXT_DEB}", timeout_s=600))
            cluster.wait_until(functools.partial(is_upgraded, cluster, number), f"{number} of them have {NEXT}")
            cluster.wait_for(cluster.primaries)
        assert node.sh("dpkg-query -W -f '${Version} ${db:Status-Status}' hostd") == f"{NEXT}-1 installed"
        assert NEXT in node.sh("hostd --version")
        assert cluster.main_pid(node) not in (0, before)
        assert all(cluster.node_states(each) == ["online", "online"] for each in cluster.pair.nodes)
        undisturbed.assert_holds()


def is_upgraded(cluster: Cluster, number: int) -> bool:
    """So many of the two daemons are of the next release, as the first node says."""
    entries = cluster.status(cluster.pair.node1).get("nodes", {}).values()
    return [node["version"] for node in entries].count(NEXT) == number


@pytest.mark.long
def test_a_removal_leaves_first(cluster: Cluster) -> None:
    """``dpkg -r``: everything moves to the other node, conf.d stays.  ``dpkg -P`` on the last: stopped, no trace."""
    last, first = cluster.pair.nodes
    with step(f"dpkg -r on {first.name}: everything on {last.name}"):
        note(first.sh("dpkg -r hostd", timeout_s=600))
        cluster.wait_until(lambda: cluster.owners(last) == cluster.on(last), "everything on the other")
    assert cluster.node_states(last) == ["online", "offline"], "it left; it was not lost"
    assert first.sh("ls /etc/hostd/conf.d").split() == ["00-cluster.toml", "idle.toml", "web.toml"]
    assert_nothing_of_hostd(first)
    with step(f"dpkg -P on {last.name}: services stopped, nothing left"):
        note(last.sh("dpkg -P hostd", timeout_s=600))
    assert_nothing_of_hostd(last)
    assert last.run("ls -d /etc/hostd /var/lib/hostd /run/hostd /usr/lib/hostd 2>/dev/null").output == ""


def assert_nothing_of_hostd(node: Guest) -> None:
    """No process, no service, no address, no unit, no program."""
    assert node.run("pgrep -l 'hostd|apache2'").output == ""
    assert node.run(f"ip -o addr | grep -e {WEB.address} -e {IDLE.address}").output == ""
    assert node.sh("systemctl show -P LoadState hostd") == "not-found"
    assert node.run("command -v hostd").status != 0
