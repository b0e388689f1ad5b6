"""The systemd agent against a real systemd, process 1 of namespaces of its own."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostd.api import ConfigError, Health
from hostd.config import Directories
from hostd.jobs import Verb
from hostd.registry import Registry
from tests.contracts import mount_room
from tests.contracts.bench import Bench
from tests.contracts.systemd_node import SystemdNode

HOSTD_AGENT = (sys.executable, "-m", "hostd.commands.agent_main", "run", "--json")
DROP_IN = "/run/systemd/system/{}.service.d/50-hostd.conf"

RECURRING = """
import pathlib, sys, time
from hostd.api import AgentError, Resource
from hostd.config import Directories
from hostd.registry import Registry
agent = Registry.load(Directories(), system=pathlib.Path("/none")).agent("systemd")
resource = Resource(name="r", node="n", params={}, run_dir=pathlib.Path("/tmp"), deadline=time.monotonic() + 20,
                    reference=sys.argv[1], interval_ms=1000)
try:
    print(agent.monitor(resource))
except AgentError as error:
    print(error.reason)
"""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SystemdNode]:
    node = SystemdNode(tmp_path_factory.mktemp("systemd") / "node")
    yield node
    node.close()


def state(node: SystemdNode, unit: str) -> str:
    return node.run("systemctl", "is-active", unit).stdout.strip()


def test_a_service_goes_through_its_life(node: SystemdNode) -> None:
    """Twice each; its main process is the one that is watched; systemd agrees with every answer."""
    node.unit("sleeper.service", "[Service]\nExecStart=/bin/sleep 1000\n")
    assert node.act("sleeper", "monitor").health == "STOPPED"
    first, second = node.act("sleeper", "start"), node.act("sleeper.service", "start")
    assert first.ok and second.ok and first.main_pid == second.main_pid
    assert node.run("cat", f"/proc/{first.main_pid}/comm").stdout.strip() == "sleep"
    assert node.act("sleeper", "monitor").health == "RUNNING" and state(node, "sleeper") == "active"
    assert node.act("sleeper", "stop").ok and node.act("sleeper", "stop").ok
    assert node.act("sleeper", "monitor").health == "STOPPED" and state(node, "sleeper") == "inactive"


def test_while_hostd_holds_a_unit_systemd_restarts_nothing_and_stops_it_last(node: SystemdNode) -> None:
    """By a drop-in that is there from start to stop."""
    node.unit("keen.service", "[Service]\nExecStart=/bin/sleep 1000\nRestart=always\nRestartSec=100ms\n")
    assert "Restart=always" in node.act("keen", "validate").output
    started = node.act("keen", "start")
    assert node.run("test", "-e", DROP_IN.format("keen")).returncode == 0
    shown = node.run("systemctl", "show", "keen", "--property=Restart,Before").stdout
    assert "Restart=no" in shown and "hostd.service" in shown
    node.run("kill", "-9", str(started.main_pid))
    until = time.monotonic() + 10
    while state(node, "keen") == "active" and time.monotonic() < until:
        time.sleep(0.05)
    assert state(node, "keen") == "failed", "systemd brought it back behind hostd's back"
    recurring = node.run(sys.executable, "-c", RECURRING, "systemd:keen").stdout
    assert "failed" in recurring and "Result=signal" in recurring
    assert node.act("keen", "monitor").health == "STOPPED", "a probe: nothing of it runs"
    assert node.act("keen", "stop").ok
    assert state(node, "keen") == "inactive", "and not failed any more"
    assert node.run("test", "-e", DROP_IN.format("keen")).returncode == 1


def test_at_shutdown_hostd_is_stopped_first_and_its_stop_of_the_unit_does_not_wait_for_itself(
    node: SystemdNode,
) -> None:
    """Both have a stop job; the unit's waits for hostd's, which monitors and stops the unit meanwhile."""
    node.unit("late.service", "[Service]\nExecStart=/bin/sleep 1000\n")
    act = " ".join((*HOSTD_AGENT, "systemd:late"))
    text = "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\nTimeoutStopSec=60s\n"
    text += f"ExecStop={act} monitor\nExecStop={act} stop\n"
    node.unit("hostd.service", text)
    assert node.act("late", "start").ok
    node.run("systemctl", "start", "hostd")
    began = time.monotonic()
    done = node.run("systemctl", "stop", "hostd.service", "late.service")
    assert done.returncode == 0 and time.monotonic() - began < 50
    shown = node.run("systemctl", "show", "hostd", "--property=Result").stdout
    assert "Result=success" in shown and state(node, "late") == "inactive"


def test_pending_is_not_failed(node: SystemdNode) -> None:
    """A unit that is activating is waited for, and running when it is."""
    node.unit(
        "slow.service", "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/sleep 2\nExecStop=/bin/sleep 1\n"
    )
    node.run("systemctl", "start", "--no-block", "slow")
    assert state(node, "slow") == "activating"
    assert node.act("slow", "monitor").health == "RUNNING"
    node.run("systemctl", "stop", "--no-block", "slow")
    assert node.act("slow", "monitor").health == "STOPPED"


def test_a_job_that_takes_too_long_is_told_in_time_and_can_be_stopped(node: SystemdNode) -> None:
    """Before the time limit strikes; systemd would go on with the start, and stop puts an end to that."""
    node.unit("endless.service", "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/sleep 1000\n")
    outcome = node.act("endless", "start", 3_000)
    assert not outcome.ok and not outcome.timed_out
    assert "still activating" in outcome.reason and "list-jobs" in outcome.cure
    assert node.act("endless", "stop").ok and state(node, "endless") in ("inactive", "failed")


def test_a_failure_is_told_with_systemds_result_and_the_services_own_words(node: SystemdNode) -> None:
    """Result, exit status, and the end of its journal."""
    node.unit("fails.service", '[Service]\nType=oneshot\nExecStart=/bin/sh -c "echo no disk; sleep 0.3; exit 3"\n')
    outcome = node.act("fails", "start")
    for part in ("Result=exit-code", "exit status 3", "no disk"):
        assert part in outcome.reason, outcome
    assert outcome.cure == "systemctl status fails.service"
    assert node.act("fails", "stop").ok


def test_processes_that_a_stop_leaves_are_noticed(node: SystemdNode) -> None:
    """KillMode=process leaves children; the unit is inactive, and the service is not gone."""
    node.unit(
        "messy.service",
        '[Service]\nExecStart=/bin/sh -c "sleep 1000 & echo $$! > /run/messy; wait"\nKillMode=process\n',
    )
    assert node.act("messy", "start").ok
    outcome = node.act("messy", "stop")
    assert not outcome.ok and "has processes left" in outcome.reason and "KillMode" in outcome.cure
    node.run("sh", "-c", "kill $(cat /run/messy)")
    assert node.act("messy", "stop").ok


def test_units_that_cannot_be_started_are_told_apart(node: SystemdNode) -> None:
    """Not there, masked, not loadable: each with its cure; none of them runs."""
    node.unit("bad.service", "[Service]\nType=oneshot\n")
    node.run("ln", "-s", "/dev/null", "/etc/systemd/system/masked.service")
    node.run("systemctl", "daemon-reload")
    for unit, reason, cure in (
        ("nowhere", "there is no unit nowhere.service", "install"),
        ("masked", "masked.service is masked", "systemctl unmask masked.service"),
        ("bad", "cannot be loaded (bad-setting", "mend"),
    ):
        for verb in ("start", "validate"):
            outcome = node.act(unit, verb)
            assert reason in outcome.reason and cure in outcome.cure, outcome
        assert node.act(unit, "monitor").health == "STOPPED"
        assert node.act(unit, "stop").ok


def test_validate_tells_what_would_surprise_later(node: SystemdNode) -> None:
    """A unit that the system starts at boot, and one that was changed and not read again."""
    node.unit("boots.service", "[Service]\nExecStart=/bin/sleep 900\n[Install]\nWantedBy=multi-user.target\n")
    assert node.act("boots", "start").ok and node.act("boots", "validate").ok
    node.run("systemctl", "enable", "boots")
    assert "started by the system at boot" in node.act("boots", "validate").reason
    node.run("systemctl", "disable", "boots")
    node.file("/etc/systemd/system/boots.service", "[Service]\nExecStart=/bin/sleep 901\n")
    assert "systemctl daemon-reload" in node.act("boots", "validate").reason


def test_other_kinds_of_units_work_too(node: SystemdNode) -> None:
    """A socket has no main process and no Restart=."""
    node.unit("door.socket", "[Socket]\nListenStream=/run/door\nAccept=yes\n")
    node.unit("door@.service", "[Service]\nExecStart=/bin/cat\nStandardInput=socket\n")
    started = node.act("door.socket", "start")
    assert started.ok and started.main_pid == 0
    assert node.act("door.socket", "monitor").health == "RUNNING"
    assert node.act("door.socket", "stop").ok


def test_without_systemd_nothing_of_it_runs_and_nothing_starts(tmp_path: Path) -> None:
    """As on a machine with another process 1: what tells of systemd is hidden from the agent."""
    with mount_room.private_mounts():
        if Path("/run/systemd").is_dir():
            subprocess.run(["mount", "-t", "tmpfs", "hidden", "/run/systemd"], check=True)
        bench = Bench(tmp_path, "systemd:nginx", {})
        assert bench.run(Verb.MONITOR).health is Health.STOPPED and bench.run(Verb.STOP).ok
        for verb in (Verb.START, Verb.VALIDATE):
            assert "systemd does not run this machine" in bench.run(verb).reason
        bench.close()


@pytest.mark.parametrize("reference", ["systemd", "systemd:", "systemd:a/b", "systemd:-x", "systemd:x@", "systemd:a b"])
def test_a_reference_to_no_unit_is_refused(reference: str, tmp_path: Path) -> None:
    """With what to write instead."""
    with pytest.raises(ConfigError, match=r"write systemd:NAME|name its instance"):
        Registry.load(Directories(), system=tmp_path / "none").parameters(reference)
