"""Fencing is required, and a power switch is there: what a silent node gets, and what follows."""

import time
from typing import Any

import pytest

from tests.lab.cluster import Cluster, Settings
from tests.lab.lab import always, wait_until
from tests.lab.node import Node, command_line
from tests.lab.power_switch import PASSWORD, PROGRAM, Fencing
from tests.lab.watching import Watch

pytestmark = [
    pytest.mark.lab,
    pytest.mark.parametrize("cluster", [Settings(fencing=Fencing(delay="1s", timeout="2s"))], indirect=True),
]


UNTRIED: dict[str, Any] = {
    "mode": "required", "ready": True, "clearance": "none",
    "devices": [{
        "agent": str(PROGRAM), "node": "clustnode2", "level": 1, "last": None, "ok": None, "power": "", "reason": "",
        "cure": "", "took_ms": None,
    }],
}  # fmt: skip


def lose_all_heartbeats(cluster: Cluster) -> None:
    """Serial and crossover pulled, UDP 694 blocked on the client LAN; ARP still passes."""
    cluster.lab.block_lan_heartbeats()
    cluster.lab.serial.unplug()
    cluster.lab.pull_crossover()


def problem(cluster: Cluster, node: Node, code: str) -> dict[str, Any]:
    found = [problem for problem in cluster.status(node).get("problems", []) if problem["code"] == code]
    return found[0] if found else {}


def wait_for_failure(cluster: Cluster, node: Node, says: str) -> None:
    """Until the node's status has an error that says why fencing failed."""
    try:
        wait_until(lambda: says in problem(cluster, node, "fencing-failed").get("text", ""), says, within_s=15)
    except AssertionError as late:
        raise AssertionError(f"{late}\n{cluster.lab.switch.journal}\n{cluster.picture()}") from None
    assert problem(cluster, node, "fencing-failed")["severity"] == "error"
    assert not cluster.status(node)["fencing"]["ready"]


def nothing_is_taken_over(cluster: Cluster, watch: Watch) -> bool:
    """Nothing of the second node's was taken over: a frozen one may lose an address, by its lease."""
    theirs = [name for name, primary in cluster.primaries.items() if primary == "clustnode2"]
    owners = watch.owners()
    return all(owners[name] != "clustnode1" for name in theirs)


def of_the_program(node: Node) -> list[bytes]:
    """What of the fence agent runs in a node."""
    lines = [command_line(pid) for pid in node.processes()]
    return [line for line in lines if bytes(PROGRAM) in line or b"sleep" in line]


def test_a_hung_node_is_powered_off_before_its_services_start(cluster: Cluster) -> None:
    """All of its userland stops, its kernel answers on: it is off before anything moves."""
    lab, watch = cluster.lab, Watch(cluster)
    assert cluster.status(lab.node1)["fencing"] == UNTRIED
    lab.node2.freeze()
    watch.wait_for(cluster.on(lab.node1), within_s=10)
    assert not lab.node2.is_on
    watch.assert_never_two_owners()
    cluster.wait_for(cluster.on(lab.node1))
    status = cluster.status(lab.node1)
    assert (status["nodes"]["clustnode2"]["state"], status["fencing"]["clearance"]) == ("fenced", "fenced")
    asked = f"0 arguments, password {PASSWORD}"
    assert lab.switch.journal == [f"clustnode1: {action} clustnode2, {asked}" for action in ("off", "status")]
    assert PASSWORD not in lab.node1.log.read_text()


def test_of_two_that_lose_each_other_the_one_that_serves_more_lives(cluster: Cluster) -> None:
    """No heartbeat passes, and both live: one is shot, the other has everything, no address is doubled."""
    lab, watch = cluster.lab, Watch(cluster)
    lose_all_heartbeats(cluster)
    watch.wait_for(cluster.on(lab.node2), within_s=10)
    assert lab.node2.is_on and not lab.node1.is_on
    watch.assert_never_two_owners()
    outages = watch.outages_ms()
    assert [name for name, ms in outages.items() if ms] == ["ldap"], outages


def test_a_switch_that_says_no_moves_nothing_until_it_says_yes(cluster: Cluster) -> None:
    """Nothing is taken over, status says why; once the switch works, the next shot hits."""
    lab, watch = cluster.lab, Watch(cluster)
    lab.switch.behave("refuse")
    lab.node2.freeze()
    wait_for_failure(cluster, lab.node1, "the switch refuses to listen to ***")
    always(lambda: nothing_is_taken_over(cluster, watch), "nothing is taken over", for_s=3)
    assert lab.node2.is_on
    lab.switch.behave("obey")
    watch.wait_for(cluster.on(lab.node1), within_s=15)
    assert [node.is_on for node in lab.nodes] == [True, False]
    watch.assert_never_two_owners()
    assert not problem(cluster, lab.node1, "fencing-failed")


def test_a_switch_that_hangs_is_killed(cluster: Cluster) -> None:
    """At its time limit, and all that it started with it; nothing is taken over."""
    lab, watch = cluster.lab, Watch(cluster)
    lab.switch.behave("hang")
    lab.node2.freeze()
    wait_until(lambda: len(of_the_program(lab.node1)) == 2, "the switch hangs", within_s=10)
    wait_for_failure(cluster, lab.node1, "did not end within")
    assert of_the_program(lab.node1) == []
    assert nothing_is_taken_over(cluster, watch) and lab.node2.is_on


def test_the_word_of_a_lying_switch_does_not_count(cluster: Cluster) -> None:
    """It says that it has switched off, and its status is on: nothing is taken over."""
    lab, watch = cluster.lab, Watch(cluster)
    lab.switch.behave("lie")
    lab.node2.freeze()
    wait_for_failure(cluster, lab.node1, "claims to have switched clustnode2 off, and its status is still on")
    assert nothing_is_taken_over(cluster, watch) and lab.node2.is_on


def test_a_node_that_is_back_does_not_shoot_the_survivor(cluster: Cluster) -> None:
    """Power comes back: it joins, takes its own services, and nobody is shot."""
    lab, watch = cluster.lab, Watch(cluster)
    lab.node2.freeze()
    watch.wait_for(cluster.on(lab.node1), within_s=10)
    shots = lab.switch.journal
    lab.power_on(lab.node2)
    cluster.start(lab.node2)
    cluster.wait_for_pair()
    watch.wait_for(cluster.primaries, within_s=10)
    time.sleep(1)  # longer than the delay of a shot
    assert lab.switch.journal == shots
    assert all(node.is_on for node in lab.nodes)
    watch.assert_never_two_owners()


def test_a_node_that_is_heard_again_is_not_shot(cluster: Cluster) -> None:
    """Within the delay of the node that serves less, the links are back: the shot is called off."""
    lab, watch = cluster.lab, Watch(cluster)
    lab.switch.behave("hang")  # the other's shot must not hit either
    lose_all_heartbeats(cluster)
    wait_until(lambda: len(lab.switch.journal) > 0, "one of them shoots", within_s=5)
    lab.pass_everything()
    lab.plug_crossover()
    lab.serial.plug()
    cluster.wait_for_pair()
    lab.switch.behave("obey")
    for node in lab.nodes:
        assert of_the_program(node) == []
    always(lambda: all(node.is_on for node in lab.nodes), "both live", for_s=2)
    watch.assert_never_two_owners()
    watch.assert_no_outage()


def test_the_operator_has_a_node_shot(cluster: Cluster) -> None:
    """By its name, typed or with --yes: it loses its power though it is well, and its services are taken over."""
    lab, watch = cluster.lab, Watch(cluster)
    assert lab.node1.hostd("fence", "clustnode2", check=False).returncode == 4
    assert lab.node1.hostd("fence", "clustnode1", "--yes", check=False).returncode == 4
    assert all(node.is_on for node in lab.nodes)
    done = lab.node1.hostd("fence", "clustnode2", "--yes", check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "clustnode2 is off, its services are taken over" in done.stdout
    assert [node.is_on for node in lab.nodes] == [True, False]
    watch.wait_for(cluster.on(lab.node1), within_s=5)
    watch.assert_never_two_owners()
    assert lab.node1.hostd("fence", "clustnode2", "--yes", check=False).returncode == 1  # there is nothing to shoot


def test_a_node_that_the_operator_could_not_have_shot_stays_a_member(cluster: Cluster) -> None:
    """The command says why, and nothing has moved."""
    lab, watch = cluster.lab, Watch(cluster)
    lab.switch.behave("refuse")
    done = lab.node1.hostd("fence", "clustnode2", "--yes", check=False)
    assert done.returncode == 1
    assert "the switch refuses to listen to ***" in done.stdout and PASSWORD not in done.stdout
    cluster.wait_for_pair()
    watch.assert_no_outage()
    assert all(node.is_on for node in lab.nodes)


def test_a_drill_switches_nothing_and_finds_the_wrong_outlet(cluster: Cluster) -> None:
    """With the daemon and without it; a node that lives and is said to be off is an error of status, too."""
    lab = cluster.lab
    done = lab.node1.hostd("fence", "clustnode2", "--check", check=False)
    assert done.returncode == 0 and "fence_lab, level 1: says that clustnode2 is on" in done.stdout, done.stdout
    assert [line.split()[1] for line in lab.switch.journal] == ["monitor", "status"]
    [device] = cluster.status(lab.node1)["fencing"]["devices"]
    assert device["ok"] and device["power"] == "on"
    lab.switch.show("clustnode2", on=False)
    done = lab.node1.hostd("fence", "clustnode2", "--check", check=False)
    assert done.returncode == 1 and "says that clustnode2 is off, and clustnode2" in done.stdout, done.stdout
    assert problem(cluster, lab.node1, "fencing-device-wrong")["severity"] == "error"
    assert not cluster.status(lab.node1)["fencing"]["ready"]
    lab.switch.show("clustnode2", on=True)
    lab.node1.hostd("detach")
    done = lab.node1.hostd("fence", "clustnode1", "--check", check=False)
    assert done.returncode == 0 and "says that clustnode1 is on" in done.stdout, done.stdout + done.stderr
    assert all(node.is_on for node in lab.nodes)
