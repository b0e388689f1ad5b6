"""hostd under a real systemd: started, killed, restarted, stopped, and a node rebooted.

The machines are restored once; each test leaves both nodes running, with every
service on its primary.
"""

import json
import re

import pytest

from tests.machines.cluster import IDLE, WEB, WITHIN_S, Cluster
from tests.machines.guest import Guest
from tests.machines.steps import note, step
from tests.machines.undisturbed import Undisturbed, processes


def show(node: Guest, *properties: str) -> dict[str, str]:
    """What systemd knows of the unit."""
    lines = node.sh(f"systemctl show hostd -p {','.join(properties)}").splitlines()
    return dict(line.split("=", 1) for line in lines)


def brain(cluster: Cluster, node: Guest) -> int:
    """The daemon proper, by the name that it has given itself; 0 while there is none."""
    found = node.run(f"pgrep -x hostd-brain -P {cluster.main_pid(node)}").output.split()
    return int(found[0]) if found else 0


def test_systemctl_start_waits_until_hostd_is_ready(cluster: Cluster) -> None:
    """Type=notify is honoured: active only once hostd listens, which takes it a while; it says how it is."""
    for node in cluster.pair.nodes:
        shown = show(
            node, "Type", "SubState", "StatusText", "ActiveEnterTimestampMonotonic", "ExecMainStartTimestampMonotonic"
        )
        assert (shown["Type"], shown["SubState"]) == ("notify", "running")
        took_s = (
            int(shown["ActiveEnterTimestampMonotonic"]) - int(shown["ExecMainStartTimestampMonotonic"])
        ) / 1_000_000
        note(f"{node.name} was ready after {took_s:.1f} s: {shown['StatusText']}")
        assert took_s > 0.2, "no Python program is ready so early: systemd did not wait"
        assert "member" in shown["StatusText"]


def test_hostd_has_what_its_unit_asks_for(cluster: Cluster) -> None:
    """The heart is real-time, the services are in cgroups of their own below the unit's."""
    for node in cluster.pair.nodes:
        classes = dict(line.split() for line in node.sh("ps -o comm=,cls= -C hostd-heart,hostd-brain").splitlines())
        assert classes == {"hostd-heart": "RR", "hostd-brain": "TS"}
    assert all(processes(cluster).values())


def test_a_killed_brain_costs_no_service(cluster: Cluster, undisturbed: Undisturbed) -> None:
    """SIGKILL of the daemon proper: another is there at once, the unit notices nothing, no failover."""
    node = cluster.pair.node1
    main, before = cluster.main_pid(node), brain(cluster, node)
    with step("the brain is killed, and there again"):
        node.sh(f"kill -9 {before}")
        cluster.wait_until(lambda: brain(cluster, node) not in (0, before), "a new brain")
        cluster.wait_for(cluster.primaries)
    assert (cluster.main_pid(node), show(node, "NRestarts")["NRestarts"]) == (main, "0")


def test_a_killed_main_process_costs_no_service(cluster: Cluster, undisturbed: Undisturbed) -> None:
    """SIGKILL of the unit's main process: systemd starts it again, the services are found, no failover."""
    node = cluster.pair.node2
    before = cluster.main_pid(node)
    with step("the main process is killed, and there again"):
        node.sh(f"kill -9 {before}")
        node.until("systemctl is-active -q hostd && [ $(systemctl show -P NRestarts hostd) = 1 ]", within_s=WITHIN_S)
        cluster.wait_for(cluster.primaries)
    assert cluster.main_pid(node) != before


def test_systemctl_restart_costs_no_service(cluster: Cluster, undisturbed: Undisturbed) -> None:
    """A restart, as of an upgrade, hands nothing over: the services stay and are found."""
    node = cluster.pair.node1
    before = cluster.main_pid(node)
    with step("systemctl restart hostd"):
        node.sh("systemctl restart hostd", timeout_s=WITHIN_S)
        cluster.wait_for(cluster.primaries)
    assert cluster.main_pid(node) != before


def test_systemctl_stop_leaves_in_good_order(cluster: Cluster) -> None:
    """Everything moves to the other node first; nothing is left; a start brings it back."""
    node, other = cluster.pair.nodes
    with step("systemctl stop hostd"):
        node.sh("systemctl stop hostd", timeout_s=WITHIN_S)
    assert show(node, "ActiveState", "Result") == {"Result": "success", "ActiveState": "inactive"}
    cluster.wait_until(lambda: cluster.owners(other) == cluster.on(other), "everything on the other")
    assert cluster.node_states(other) == ["offline", "online"]
    assert processes(cluster)[node.name] == []
    assert node.run(f"ip -o addr | grep -e {WEB.address} -e {IDLE.address}").output == ""
    with step("systemctl start hostd, and failback"):
        node.sh("systemctl start hostd", timeout_s=WITHIN_S)
        cluster.wait_for(cluster.primaries)


def test_the_journal_can_be_read(cluster: Cluster) -> None:
    """One line per thing that happened, each with its level; no traceback."""
    for node in cluster.pair.nodes:
        entries = [json.loads(line) for line in node.sh("journalctl -u hostd -o json --no-pager").splitlines()]
        ours = [entry for entry in entries if entry.get("SYSLOG_IDENTIFIER") == "hostd"]
        said = [str(entry["MESSAGE"]) for entry in ours]
        assert any("ServiceTurned service=web state=running" in line for line in said), said[-20:]
        assert not [line for line in said if "Traceback" in line or re.match(r"<\d>", line)]
        assert {entry["PRIORITY"] for entry in ours} >= {"6", "4"}, "every line has the same level"


@pytest.mark.long
def test_a_rebooted_node_is_back_with_its_services(cluster: Cluster) -> None:
    """``systemctl reboot`` leaves in good order; the enabled unit starts at boot; what is its own comes back."""
    node, other = cluster.pair.nodes
    for each in cluster.pair.nodes:
        each.sh("systemctl enable -q hostd")
    with step("systemctl reboot: everything on the other"):
        node.monitor.take_events()
        node.background("systemctl reboot")
        cluster.wait_until(lambda: cluster.owners(other) == cluster.on(other), "everything on the other")
        assert cluster.node_states(other)[0] == "offline", "it left; it was not lost"
        node.monitor.wait_for_event("RESET", within_s=WITHIN_S)
    with step("booted, and failback"):
        node.wait()
        cluster.wait_for(cluster.primaries)
