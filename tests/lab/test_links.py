"""Cables fail: nothing moves, and the loss is reported within deadtime."""

from collections.abc import Callable

import pytest

from tests.lab.cluster import CROSSOVER, LAN, SERIAL, Cluster
from tests.lab.lab import Lab, wait_until
from tests.lab.limits import promised
from tests.lab.watching import Watch

pytestmark = pytest.mark.lab

REPORTED_WITHIN_S = 2.0 + promised(1.0)  # deadtime, and what asking for the status costs on a busy machine

CABLES: dict[str, tuple[Callable[[Lab], None], Callable[[Lab], None]]] = {
    SERIAL: (lambda lab: lab.serial.unplug(), lambda lab: lab.serial.plug()),
    CROSSOVER: (lambda lab: lab.pull_crossover(), lambda lab: lab.plug_crossover()),
    LAN: (lambda lab: lab.block_lan_heartbeats(), lambda lab: lab.pass_everything()),
}


def lose(cluster: Cluster, link: str) -> None:
    """Take a link away and wait until both nodes report it."""
    CABLES[link][0](cluster.lab)
    wait_until(
        lambda: all(cluster.link(node, link)["receive"] == "down" for node in cluster.lab.nodes),
        f"{link} is reported down by both",
        within_s=REPORTED_WITHIN_S,
    )


def restore(cluster: Cluster, link: str) -> None:
    CABLES[link][1](cluster.lab)
    both_ways = {"receive": "up", "send": "up"}
    try:
        wait_until(
            lambda: all(both_ways.items() <= cluster.link(node, link).items() for node in cluster.lab.nodes),
            f"{link} is up again for both, in both directions",
            within_s=8,
        )
    except AssertionError as late:
        raise AssertionError(f"{late}\n{cluster.picture()}") from None


def test_each_link_in_turn_may_fail(cluster: Cluster) -> None:
    """Serial, crossover, LAN heartbeats, one after the other: reported, no failover, no outage."""
    watch = Watch(cluster)
    for link in CABLES:
        lose(cluster, link)
        assert cluster.owners(cluster.lab.node1) == cluster.primaries
        restore(cluster, link)
    assert watch.owners() == cluster.primaries
    watch.assert_never_two_owners()
    watch.assert_no_outage()


@pytest.mark.parametrize("survivor", list(CABLES))
def test_one_link_is_enough(cluster: Cluster, survivor: str) -> None:
    """All links but one are lost: the pair stays a pair on the last one."""
    watch = Watch(cluster)
    for link in CABLES:
        if link != survivor:
            lose(cluster, link)
    for node in cluster.lab.nodes:
        assert cluster.is_pair(node), cluster.picture()
    assert cluster.link(cluster.lab.node1, survivor)["receive"] == "up"
    assert watch.owners() == cluster.primaries
    watch.assert_never_two_owners()
    watch.assert_no_outage()


def test_a_power_cut_is_survived_on_the_serial_line_alone(cluster: Cluster) -> None:
    """With only the serial line left a power cut is still seen and survived."""
    lose(cluster, CROSSOVER)
    lose(cluster, LAN)
    watch = Watch(cluster)
    cluster.lab.power_off(cluster.lab.node2)
    watch.wait_for(cluster.on(cluster.lab.node1), within_s=8)
    watch.assert_never_two_owners()


def test_noise_on_the_serial_line_hurts_nobody(cluster: Cluster) -> None:
    """Garbage, zeros and half frames: the line is heard again right after."""
    watch = Watch(cluster)
    for number in range(20):
        cluster.lab.serial.garbage(number % 2, bytes((number * 37 + i * 11) % 256 for i in range(200)))
    wait_until(
        lambda: all(cluster.link(node, SERIAL).get("receive") == "up" for node in cluster.lab.nodes),
        "the serial line is heard",
        within_s=5,
    )
    assert watch.owners() == cluster.primaries
    watch.assert_no_outage()
