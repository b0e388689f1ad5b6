"""The host with a small heart and a small brain: deaths, sockets, signals, the lock, unfinished services."""

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from hostd import cgroups, host, processes
from hostd.changes import Description
from hostd.config import Configuration, Directories, FencingDevice, ResourceSettings
from hostd.core.plan import Plan, Service
from hostd.core.plan import Resource as PlannedResource
from hostd.family import Main
from hostd.registry import Registry
from hostd.reloading import Setup
from tests.edge import host_lives
from tests.edge.host_lives import wait_for

DO = "Do(action_id={id}, service='web', resource='r', action=Action.{verb}, timeout_ms={ms}, depth=0, recurring=False)"


class Machine:
    """One host in a process of its own, and what its family wrote down."""

    def __init__(self, folder: Path, **params: Any) -> None:
        self.folder = folder
        self.directories = Directories(runtime=folder / "run", state=folder / "state")
        self.registry = Registry.load(self.directories, system=folder / "none")
        self.params = {f.name: f.default for f in self.registry.parameters("dummy").fields} | params
        self.devices: tuple[FencingDevice, ...] = ()
        self.pid = 0

    def setup(self) -> Setup:
        """What the host lives by."""
        resource = ResourceSettings("web", "r", "dummy", self.params)
        configuration = Configuration(
            plan=Plan("c", ("a", "b"), services=(Service("web", ("a", "b"), (PlannedResource("r", "dummy"),)),)),
            node="a",
            key=self.folder / "key",
            links=(),
            resources=(resource,),
            fencing_devices=self.devices,
        )
        return Setup(configuration, self.registry, *self.mains(), Description("00", {}, {}, {}, {}, {}))

    def mains(self) -> tuple[Main, Main]:
        return partial(host_lives.heart, self.folder), partial(host_lives.brain, self.folder)

    def start(self) -> None:
        setup = self.setup()
        self.pid = os.fork()
        if self.pid == 0:
            code = 99
            try:
                for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                    signal.signal(number, signal.SIG_DFL)
                code = host.serve(setup, self.directories, self.setup)
            finally:
                os._exit(code)

    def told(self, who: str = "", what: str = "") -> list[dict[str, Any]]:
        try:
            lines = (self.folder / "told").read_text().splitlines()
        except FileNotFoundError:
            return []
        facts = [json.loads(line) for line in lines]
        return [f for f in facts if who in ("", f["who"]) and what in ("", f["what"])]

    def lives(self, who: str) -> list[int]:
        return [fact["pid"] for fact in self.told(who, "born")]

    def wait_for_lives(self, hearts: int, brains: int) -> None:
        wait_for(lambda: (len(self.lives("heart")), len(self.lives("brain"))) >= (hearts, brains))

    def order(self, *messages: str) -> None:
        fresh = self.folder / "orders.new"
        fresh.write_text("\n".join(messages))
        fresh.rename(self.folder / "orders")

    def do(self, number: int, verb: str, ms: int = 10_000) -> None:
        self.order(DO.format(id=number, verb=verb, ms=ms))

    def done(self, number: int) -> dict[str, Any]:
        answer: Any = wait_for(lambda: [f for f in self.told("brain", "Done") if f["action_id"] == number])
        assert len(answer) == 1
        return dict(answer[0])

    def end(self) -> int:
        """The exit code of the host, which is about to end."""
        _, status = os.waitpid(self.pid, 0)
        self.pid = 0
        return os.waitstatus_to_exitcode(status)

    def close(self) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        groups = cgroups.choose("a", self.directories.runtime)
        for process in groups.in_resource("web", "r"):
            processes.kill(process)
        time.sleep(0.05)
        groups.tidy()


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path, process=True)
    yield machine
    machine.close()


@pytest.fixture
def running(machine: Machine) -> Machine:
    machine.start()
    machine.wait_for_lives(1, 1)
    return machine


def is_sleeping(pid: int) -> bool:
    look = processes.look(pid)
    return look is not None and look.is_alive


def test_a_dead_brain_is_back_within_half_a_second(running: Machine) -> None:
    """The heart lives on, is told, and talks with the new one through a fresh pair."""
    began = time.monotonic()
    os.kill(running.lives("brain")[0], signal.SIGKILL)
    running.wait_for_lives(1, 2)
    assert time.monotonic() - began < 0.5
    assert len(running.lives("heart")) == 1
    new = running.lives("brain")[1]
    wait_for(lambda: [f for f in running.told("heart", "Renew") if f["hears"] == new])
    what = [f["what"] for f in running.told("heart")]
    assert what.index("BrainGone") < what.index("BrainForked")


def test_a_dead_heart_is_back_within_half_a_second(running: Machine) -> None:
    """The brain lives on, is told, and talks with the new one through a fresh pair."""
    began = time.monotonic()
    os.kill(running.lives("heart")[0], signal.SIGKILL)
    running.wait_for_lives(2, 1)
    assert time.monotonic() - began < 0.5
    new = running.lives("heart")[1]
    wait_for(lambda: [f for f in running.told("brain", "Renew") if f["hears"] == new])
    assert len(running.lives("brain")) == 1
    what = [f["what"] for f in running.told("brain")]
    assert what.index("HeartGone") < what.index("HeartForked")


def test_each_sees_the_end_of_the_other(running: Machine) -> None:
    """Nobody else holds a copy of their sockets: the end of file comes at once."""
    os.kill(running.lives("heart")[0], signal.SIGKILL)
    wait_for(lambda: [f for f in running.told("brain", "eof") if f["of"] == "other"])


def test_both_dead_at_once_are_both_back_and_joined(running: Machine) -> None:
    """Whichever is forked first."""
    os.kill(running.pid, signal.SIGSTOP)
    for who in ("heart", "brain"):
        os.kill(running.lives(who)[0], signal.SIGKILL)
    os.kill(running.pid, signal.SIGCONT)
    running.wait_for_lives(2, 2)
    new = running.lives("heart")[-1]
    wait_for(lambda: [f for f in running.told("brain", "Renew") if f["hears"] == new])


def test_a_brain_that_cannot_live_is_not_forked_in_a_busy_loop(machine: Machine) -> None:
    """After several deaths within seconds the pauses grow; cured, it lives."""
    (machine.folder / "crash").touch()
    machine.start()
    time.sleep(1.2)
    gone = machine.told("heart", "BrainGone")
    assert 4 <= len(gone) <= 8, "three at once, then pauses of 250, 500, 1000 ms"
    (machine.folder / "crash").unlink()
    machine.wait_for_lives(1, 1)


def test_the_first_word_to_every_brain_is_what_is_unfinished(running: Machine) -> None:
    """Nothing at first; after a brain died in the middle of a start, that service."""
    running.order(DO.format(id=1, verb="STOP", ms=10_000))
    running.done(1)
    first = running.told("brain")[1]
    assert (first["what"], first["services"]) == ("Unfinished", [])


def test_what_a_dead_brain_had_begun_is_killed_and_named_to_the_next(tmp_path: Path) -> None:
    """Its slow start is cut off, no outcome of it ever reaches the next brain."""
    machine = Machine(tmp_path, process=True, start_delay=600.0)
    try:
        machine.start()
        machine.wait_for_lives(1, 1)
        machine.do(1, "START", 600_000)
        groups = cgroups.choose("a", machine.directories.runtime)
        action: Any = wait_for(lambda: groups.in_resource("web", "r") or _actions_of(machine.pid))
        os.kill(machine.lives("brain")[0], signal.SIGKILL)
        machine.wait_for_lives(1, 2)
        wait_for(lambda: len(machine.told("brain", "Unfinished")) == 2)
        assert machine.told("brain", "Unfinished")[1]["services"] == ["web"]
        assert not processes.is_same(action[0].pid, action[0].started)
        machine.do(2, "STOP")
        assert machine.done(2)["ok"]
        assert not [f for f in machine.told("brain", "Done") if f["action_id"] == 1]
        os.kill(machine.lives("brain")[1], signal.SIGKILL)
        wait_for(lambda: len(machine.told("brain", "Unfinished")) == 3)
        assert machine.told("brain", "Unfinished")[2]["services"] == [], "a stop that succeeded ends it"
    finally:
        machine.close()


def test_a_killed_host_takes_its_family_along_and_its_services_stay(running: Machine) -> None:
    """The next one gets the lock, finds the service running, and watches it again."""
    running.do(1, "START")
    service = running.done(1)["pid"]
    family = running.lives("heart") + running.lives("brain")
    os.kill(running.pid, signal.SIGKILL)
    os.waitpid(running.pid, 0)
    wait_for(lambda: not any(is_sleeping(pid) for pid in family))
    assert is_sleeping(service)
    running.start()
    running.wait_for_lives(2, 2)
    running.do(2, "MONITOR")
    assert (running.done(2)["health"], running.done(2)["pid"]) == ("RUNNING", service)


def test_a_start_cut_off_with_the_host_is_named_by_the_next_host(tmp_path: Path) -> None:
    """The record was written before the start began."""
    machine = Machine(tmp_path, process=True, start_delay=600.0)
    try:
        machine.start()
        machine.wait_for_lives(1, 1)
        machine.do(1, "START", 600_000)
        wait_for(lambda: _actions_of(machine.pid))
        os.kill(machine.pid, signal.SIGKILL)
        os.waitpid(machine.pid, 0)
        machine.start()
        wait_for(lambda: len(machine.told("brain", "Unfinished")) == 2)
        assert machine.told("brain", "Unfinished")[1]["services"] == ["web"]
    finally:
        machine.close()


def test_a_crash_of_a_service_is_told_at_once(running: Machine) -> None:
    """By its main process, long before any monitor."""
    running.do(1, "START")
    pid = running.done(1)["pid"]
    os.kill(pid, signal.SIGKILL)
    exited: Any = wait_for(lambda: running.told("brain", "Exited"), 2.0)
    assert (exited[0]["service"], exited[0]["resource"]) == ("web", "r")


def test_a_process_that_a_stop_ends_is_no_crash(running: Machine) -> None:
    """Its end was asked for."""
    running.do(1, "START")
    running.done(1)
    running.do(2, "STOP")
    assert running.done(2)["ok"]
    running.do(3, "MONITOR")
    assert running.done(3)["health"] == "STOPPED"
    assert running.told("brain", "Exited") == []


def test_an_action_that_hangs_comes_back_with_its_evidence(tmp_path: Path) -> None:
    """Its path travels in the outcome."""
    machine = Machine(tmp_path, hang="start")
    try:
        machine.start()
        machine.wait_for_lives(1, 1)
        machine.do(1, "START", 400)
        done = machine.done(1)
        assert done["timed_out"] and not done["ok"]
        assert "sleep 1000000" in Path(done["evidence"]).read_text()
    finally:
        machine.close()


def test_services_of_one_node_act_side_by_side(tmp_path: Path) -> None:
    """A hanging monitor does not hold up a start."""
    machine = Machine(tmp_path, hang="monitor")
    try:
        machine.start()
        machine.wait_for_lives(1, 1)
        machine.order(DO.format(id=1, verb="MONITOR", ms=3_000), DO.format(id=2, verb="START", ms=3_000))
        assert machine.done(2)["ok"]
        assert not [f for f in machine.told("brain", "Done") if f["action_id"] == 1]
    finally:
        machine.close()


def test_a_second_host_waits_for_the_first(running: Machine) -> None:
    """Two hosts never share a runtime directory."""
    first = running.pid
    running.start()
    second, running.pid = running.pid, first
    try:
        time.sleep(0.4)
        assert len(running.lives("brain")) == 1
        running.order("Goodbye(exit_code=0)")
        assert running.end() == 0
        running.pid = second
        running.wait_for_lives(2, 2)
    finally:
        if not running.pid:
            running.pid = second


def test_a_living_heart_keeps_a_new_host_waiting(running: Machine) -> None:
    """The lock is shared by the whole family: while one of them could act, nobody else does."""
    lock = running.directories.runtime / "lock"
    for who in ("heart", "brain"):
        held = [str(f.readlink()) for f in Path(f"/proc/{running.lives(who)[0]}/fd").iterdir()]
        assert str(lock) in held


def test_goodbye_ends_all_with_the_brains_exit_code(running: Machine) -> None:
    """And leaves the services alone."""
    running.do(1, "START")
    service = running.done(1)["pid"]
    family = running.lives("heart") + running.lives("brain")
    running.order("Goodbye(exit_code=7)")
    assert running.end() == 7
    assert not any(is_sleeping(pid) for pid in family)
    assert is_sleeping(service)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_the_brains_to_answer(running: Machine, number: signal.Signals) -> None:
    """The host passes it on and goes on."""
    os.kill(running.pid, number)
    told: Any = wait_for(lambda: running.told("brain", "Signalled"))
    assert told[0]["signal"] == number
    assert processes.look(running.pid) is not None


def test_a_second_sigterm_ends_at_once_and_touches_no_service(running: Machine) -> None:
    """For an operator who cannot wait."""
    running.do(1, "START")
    service = running.done(1)["pid"]
    os.kill(running.pid, signal.SIGTERM)
    wait_for(lambda: running.told("brain", "Signalled"))
    os.kill(running.pid, signal.SIGTERM)
    assert running.end() == 128 + signal.SIGTERM
    assert is_sleeping(service)


def test_a_signal_to_the_whole_family_is_answered_once(running: Machine) -> None:
    """As a terminal's Ctrl-C or systemd's control-group mode sends it."""
    for pid in (*running.lives("heart"), *running.lives("brain"), running.pid):
        os.kill(pid, signal.SIGTERM)
    wait_for(lambda: running.told("brain", "Signalled"))
    assert len(running.lives("brain")) == 1


def test_systemd_hears_ready_status_watchdog_and_stopping(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the host and only by the brain's word."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(machine.folder / "notify"))
        manager.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(machine.folder / "notify"))
        machine.start()
        machine.wait_for_lives(1, 1)
        machine.order("Alive(status='joining', ready=False)", "Alive(status='member', ready=True)")
        assert manager.recv(1000).decode().splitlines() == ["WATCHDOG=1", "STATUS=joining"]
        assert manager.recv(1000).decode().splitlines() == ["WATCHDOG=1", "READY=1", "STATUS=member"]
        machine.order("Goodbye(exit_code=0)")
        assert manager.recv(1000).decode() == "STOPPING=1"
        assert machine.end() == 0


def test_fencing_without_a_device_is_never_confirmed(running: Machine) -> None:
    """The answer comes, and it is no."""
    running.order("Shoot(request_id=5, node='b', delay_ms=0)")
    shot: Any = wait_for(lambda: running.told("brain", "Shot"))
    assert shot[0]["confirmed"] is False and "no fencing device" in shot[0]["detail"]


def shooting(machine: Machine, acts: str) -> Path:
    """The host runs, with a fence agent for node b that does this; where it notes each call."""
    journal, agent = machine.folder / "journal", machine.folder / "fence_b"
    agent.write_text(f"#!/bin/sh\ncat >> {journal}\n{acts}\n")
    agent.chmod(0o755)
    machine.devices = (FencingDevice(str(agent), ("b",), {"b": {}}, {"b": {}}),)
    machine.start()
    machine.wait_for_lives(1, 1)
    return journal


def test_a_shot_that_hits_is_confirmed(machine: Machine) -> None:
    """From the brain's order to its one answer."""
    shooting(machine, f"grep -q status {machine.folder}/journal && exit 2; exit 0")
    machine.order("Shoot(request_id=5, node='b', delay_ms=0)")
    shot: Any = wait_for(lambda: machine.told("brain", "Shot"))
    assert [(s["request_id"], s["confirmed"]) for s in shot] == [(5, True)]


def test_a_shot_that_is_held_is_not_answered(machine: Machine) -> None:
    """In its delay: it is never begun; while it runs: it is killed."""
    journal = shooting(machine, "exec sleep 100")
    machine.order("Shoot(request_id=5, node='b', delay_ms=300)", "HoldFire(request_id=5)")
    time.sleep(0.6)
    assert not journal.exists()
    machine.order("Shoot(request_id=6, node='b', delay_ms=0)")
    wait_for(journal.exists)
    assert len(_actions_of(machine.pid)) == 1
    machine.order("HoldFire(request_id=6)")
    wait_for(lambda: _actions_of(machine.pid) == [])
    assert machine.told("brain", "Shot") == []


def test_the_shot_of_a_dead_brain_is_held(machine: Machine) -> None:
    """The next brain counts its requests anew: it must never get an answer of the one before."""
    journal = shooting(machine, "sleep 0.7; exit 1")
    machine.order("Shoot(request_id=5, node='b', delay_ms=0)")
    wait_for(journal.exists)
    os.kill(machine.lives("brain")[0], signal.SIGKILL)
    machine.wait_for_lives(1, 2)
    wait_for(lambda: _actions_of(machine.pid) == [])
    time.sleep(1)
    assert machine.told("brain", "Shot") == []


def test_nothing_is_left_after_the_end(running: Machine) -> None:
    """No cgroup, no process."""
    running.do(1, "START")
    running.done(1)
    running.do(2, "STOP")
    running.done(2)
    groups = cgroups.choose("a", running.directories.runtime)
    running.order("Goodbye(exit_code=0)")
    running.end()
    if isinstance(groups, cgroups.Cgroups):
        assert not groups.base.exists()
    found = subprocess.run(["pgrep", "-f", str(running.folder)], capture_output=True, text=True, check=False)
    assert found.stdout == ""


def _actions_of(pid: int) -> list[processes.Process]:
    """Children of the host that are neither heart nor brain."""
    return [p for p in processes.everyone() if p.parent == pid and p.is_alive and not p.name.startswith("hostd-")]
