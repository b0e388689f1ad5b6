"""A power cut: QEMU killed, the victim fenced, everything on the survivor; then a real boot, and failback."""

import time

from tests.machines.cluster import IDLE, WEB, WITHIN_S, Cluster, Settings
from tests.machines.steps import note, step

SETTINGS = Settings(fenced=True)


def test_a_power_cut_is_fenced_and_everything_taken_over(cluster: Cluster) -> None:
    """The survivor has the fence agent confirm that the node is off, and only then runs its services."""
    pair, (survivor, victim) = cluster.pair, cluster.pair.nodes
    for node in pair.nodes:
        node.sh("systemctl enable -q hostd; sync")
    pair.station.watch([WEB.address, IDLE.address])
    cut_at_s = time.monotonic()
    with step(f"{victim.name} loses its power, everything on {survivor.name}"):
        pair.power_off(victim)
        cluster.wait_for(cluster.on(survivor))
    owners = pair.station.owners_since(cut_at_s + 1)  # an answer may have been on its way
    assert owners == {WEB.address: [survivor.name], IDLE.address: [survivor.name]}
    note(f"{IDLE.address} was away for {pair.station.longest_silence_s(IDLE.address, cut_at_s):.1f} s")
    assert pair.switch.shots == [f"{survivor.name}: off {victim.name}: done"]
    said = pair.switch.journal
    assert f"{survivor.name}: status {victim.name}: off" in said[said.index(pair.switch.shots[0]) :]
    status = cluster.status(survivor)
    assert (status["nodes"][victim.name]["state"], status["phase"]) == ("fenced", "alone")


def test_after_its_boot_the_node_has_its_services_back(cluster: Cluster) -> None:
    """Its own disk as the cut has left it: the unit starts at boot, the node joins, nobody is shot."""
    pair, victim = cluster.pair, cluster.pair.node2
    assert not victim.is_on
    shots = pair.switch.shots
    pair.power_on(victim)
    with step("joined, and failback"):
        cluster.wait_for(cluster.primaries)
    assert all(cluster.node_states(node) == ["online", "online"] for node in pair.nodes)
    assert pair.switch.shots == shots


def test_a_hung_machine_is_switched_off_before_its_services_move(cluster: Cluster) -> None:
    """Its processor stands still, its disk and addresses might come back at any moment: power off first."""
    pair, (survivor, victim) = cluster.pair, cluster.pair.nodes
    pair.station.watch([WEB.address, IDLE.address])
    pair.switch.works = False
    with step("a machine hangs, and the switch refuses"):
        victim.monitor.command("stop")
        cluster.wait_until(lambda: f"{survivor.name}: off {victim.name}: refused" in pair.switch.journal, "a shot")
        cluster.wait_until(lambda: "fencing-failed" in codes(cluster), "status says so")
    assert lamps(cluster) == [True, True]
    assert cluster.owners(survivor)["idle"] != survivor.name
    with step("the switch works again: off, then everything here"):
        pair.switch.works = True
        cluster.wait_until(lambda: cluster.owners(survivor) == cluster.on(survivor), "everything here")
    assert lamps(cluster) == [True, False]
    assert pair.station.owners_since(0)[IDLE.address][-1:] == [survivor.name]
    pair.power_on(victim)
    cluster.wait_for(cluster.primaries, within_s=WITHIN_S)


def codes(cluster: Cluster) -> list[str]:
    """The problems that the first node's status tells of."""
    return [problem["code"] for problem in cluster.status(cluster.pair.node1).get("problems", [])]


def lamps(cluster: Cluster) -> list[bool]:
    """Which machines have power."""
    return [node.is_on for node in cluster.pair.nodes]
