"""Heartbeat over the null-modem cable between two 16550 serial ports: alone, at two speeds, and beside Ethernet."""

import time
from collections.abc import Iterator

import pytest

from tests.machines.cluster import ALL_LINKS, IDLE, SERIAL, TTY, WEB, WITHIN_S, Cluster, Settings
from tests.machines.image import Image
from tests.machines.pair import Pair
from tests.machines.steps import note, step

CONSOLE = "/dev/ttyS0"
ONLY_HERE = f"""\
[[heartbeat.link]]
name = "console"
type = "serial"
device = "{CONSOLE}"
"""


@pytest.fixture(params=[19_200, pytest.param(115_200, marks=pytest.mark.long)])
def line(image: Image, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A pair that the cable joins and nothing else."""
    with Pair(image) as pair:
        pair.restore()
        pair.cable.baud = request.param
        cluster = Cluster(pair, Settings(links=(SERIAL,), baud=request.param))
        cluster.configure()
        cluster.start()
        yield cluster


def is_up(cluster: Cluster, *, both_ways: bool = True) -> bool:
    """The serial link, as both nodes say."""
    wanted = "up" if both_ways else "down"
    return all(cluster.link(node, SERIAL).get("receive") == wanted for node in cluster.pair.nodes)


def test_the_cable_alone_makes_a_cluster(line: Cluster) -> None:
    """Two nodes stay one cluster on it; pulled, nothing that answers is taken over; plugged, they are one again."""
    pair, addresses = line.pair, [WEB.address, IDLE.address]
    before, began_s = sum(pair.cable.passed), time.monotonic()
    assert [line.node_states(node) for node in pair.nodes] == [["online", "online"]] * 2
    pair.station.watch(addresses)
    line.wait_until(lambda: all(pair.station.owners_since(began_s).values()), "the addresses are answered")
    rate = (sum(pair.cable.passed) - before) / (time.monotonic() - began_s) / 2
    note(f"{rate:.0f} bytes/s each way, of {pair.cable.baud // 10}")
    assert rate < pair.cable.baud / 10
    with step("the cable is pulled, and both notice"):
        pair.cable.unplug()
        line.wait_until(lambda: is_up(line, both_ways=False), "both say that the link is down")
        phases = [line.status(node)["phase"] for node in pair.nodes]
    note(f"phases {phases}")
    with step("the cable is plugged, and they are a cluster again"):
        pair.cable.plug()
        line.wait_until(lambda: is_up(line), "both say that the link is up")
        line.wait_for(line.primaries)
        assert [line.node_states(node) for node in pair.nodes] == [["online", "online"]] * 2
    # the guard: what the other still answers for stays where it is
    assert pair.station.owners_since(began_s) == {WEB.address: [WEB.primary], IDLE.address: [IDLE.primary]}


def test_beside_ethernet_it_may_fail(cluster: Cluster) -> None:
    """The loss is told, nobody moves; the same with the crossover cable, whose carrier really drops."""
    pair = cluster.pair
    assert set(cluster.settings.links) == set(ALL_LINKS)
    with step("the serial cable is pulled and plugged"):
        pair.cable.unplug()
        cluster.wait_until(lambda: is_up(cluster, both_ways=False), "both say that the link is down")
        problems = [problem["code"] for problem in cluster.status(pair.node1)["problems"]]
        assert "link-down" in problems, problems
        assert cluster.owners(pair.node1) == cluster.primaries
        pair.cable.plug()
        cluster.wait_until(lambda: is_up(cluster), "both say that the link is up")
    with step("the crossover cable is pulled and plugged"):
        pair.pull_crossover()
        cluster.wait_until(lambda: cluster.link(pair.node1, "crossover").get("receive") == "down", "it is down")
        assert cluster.owners(pair.node1) == cluster.primaries
        pair.plug_crossover()
        cluster.wait_until(lambda: cluster.link(pair.node1, "crossover").get("receive") == "up", "it is up again")
    assert all(cluster.node_states(node) == ["online", "online"] for node in pair.nodes)


def test_a_login_on_the_tty_is_refused(cluster: Cluster) -> None:
    """``hostd check`` names the getty; the link that it has taken is back when it is gone."""
    node = cluster.pair.node1
    assert "getty" not in node.run("hostd check").output
    with step("a getty takes the tty"):
        node.sh(f"systemctl unmask --runtime getty.target; systemctl start serial-getty@{TTY.removeprefix('/dev/')}")
        node.until(f"fuser -s {TTY} && pgrep agetty")
        checked = node.run("hostd check")
        note(checked.output)
    assert checked.status == 1 and "getty" in checked.output and TTY in checked.output
    with step("the getty goes, and the link is back"):
        node.sh(f"systemctl stop serial-getty@{TTY.removeprefix('/dev/')}", timeout_s=WITHIN_S)
        cluster.wait_until(lambda: is_up(cluster), "both say that the link is up")
    assert cluster.owners(node) == cluster.primaries


def test_the_kernel_s_console_is_refused(cluster: Cluster) -> None:
    """``hostd check`` does not take the tty on which the kernel prints."""
    node = cluster.pair.node1
    node.write("/etc/hostd/conf.d/console.toml", ONLY_HERE)
    checked = node.run("hostd check")
    node.sh("rm /etc/hostd/conf.d/console.toml")
    note(checked.output)
    assert checked.status == 1 and CONSOLE in checked.output and "console" in checked.output
