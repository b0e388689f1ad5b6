"""Shots by real programs: what they are told, when their word counts, order, limits, and being called off."""

import os
import selectors
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hostd import cgroups, device_child, processes
from hostd.api import AgentError, FenceOrder
from hostd.clock import now_ms
from hostd.config import Directories, FencingDevice
from hostd.messages import Shot
from hostd.registry import Registry
from hostd.shots import Shots

SCRIPT = """#!/bin/sh
# {name}: its standard input and command line go to a journal, then it does as `acts` says
input=$(cat)
action=${{input##*action=}}
printf '%s\\n' "{name} $action" >> {folder}/journal
printf '%s\\n' "$input" > {folder}/{name}.$action.input
printf '%s\\n' "$0 $*" > {folder}/{name}.$action.arguments
{acts}
"""
OBEYS = "[ $action = status ] && exit 2; exit 0"
REFUSES = "echo 'wrong password: '$(cat {folder}/pw 2>/dev/null) >&2; exit 1"
LIES = "exit 0"
HANGS = "{folder}/sleep 100 & wait"
UNSURE = "[ $action = status ] && exit 1; exit 0"


class Range:
    """Shots in a loop of their own, with programs that a test writes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.registry = Registry.load(Directories(), system=folder / "none")
        self.groups = cgroups.choose("a", folder)
        self.selector = selectors.DefaultSelector()
        self.answers: list[Shot] = []
        (folder / "sleep").symlink_to("/bin/sleep")  # a name by which its processes are found
        self.shots = self.aimed()

    def aimed(self, *devices: FencingDevice) -> Shots:
        self.shots = Shots(self.registry, self.groups, devices, self.selector, self.answers.append)
        return self.shots

    def device(self, name: str, acts: str, level: int = 1, timeout_ms: int = 5_000, **more: Any) -> FencingDevice:
        path = self.folder / name
        path.write_text(SCRIPT.format(name=name, folder=self.folder, acts=acts.replace("{folder}", str(self.folder))))
        path.chmod(0o755)
        told: dict[str, Any] = {"params": {"b": {}}, "secrets": {}} | more
        return FencingDevice(str(path), ("b",), level=level, timeout_ms=timeout_ms, **told)

    @property
    def journal(self) -> list[str]:
        path = self.folder / "journal"
        return path.read_text().splitlines() if path.exists() else []

    def run(self, until: Any, limit_s: float = 15) -> None:
        """Turn the loop, as the host does."""
        end = time.monotonic() + limit_s
        while not until():
            assert time.monotonic() < end, (self.journal, self.answers)
            self.turn()

    def turn(self) -> None:
        wake = self.shots.wake_at_ms()
        wait_ms = 50 if wake is None else max(0, min(50, wake - now_ms()))
        for key, _ in self.selector.select(wait_ms / 1_000):
            key.data()
        self.shots.tick()

    def answer(self) -> Shot:
        """The one answer; nothing is left of the shot."""
        self.run(lambda: self.answers)
        self.run(lambda: not self.shots.busy)
        assert len(self.answers) == 1
        self.run(lambda: self.left() == [], limit_s=5)  # killed, and gone in a moment
        assert self.shots.wake_at_ms() is None
        return self.answers.pop()

    def left(self) -> list[processes.Process]:
        """Processes of this test's programs."""
        found = []
        for process in processes.everyone():
            try:
                line = Path(f"/proc/{process.pid}/cmdline").read_bytes()
            except OSError:
                continue
            if process.is_alive and bytes(self.folder) in line:
                found.append(process)
        return [p for p in found if p.pid != os.getpid()]


@pytest.fixture
def range_(tmp_path: Path) -> Iterator[Range]:
    tmp_path.chmod(0o755)
    made = Range(tmp_path)
    yield made
    made.shots.abort()
    made.run(lambda: not made.shots.busy)
    made.groups.tidy()


def test_a_device_is_told_off_and_then_asked(range_: Range) -> None:
    """Only what it says of its status counts; the detail names it."""
    device = range_.device("fence_good", OBEYS)
    range_.aimed(device).shoot(7, "b", 0)
    answer = range_.answer()
    assert (answer.request_id, answer.confirmed) == (7, True)
    assert answer.detail == f"{device.agent} says that b is off"
    assert range_.journal == ["fence_good off", "fence_good status"]


def test_everything_is_told_on_standard_input(range_: Range) -> None:
    """The target's own values, the secret from its file, nothing on the command line."""
    secret = range_.folder / "pw"
    secret.write_text("open=sesame \n")
    secret.chmod(0o600)
    device = range_.device(
        "fence_good",
        OBEYS,
        params={"a": {"plug": "1"}, "b": {"plug": "2", "lanplus": True, "ipport": 623}},
        secrets={"a": {}, "b": {"password": secret}},
    )
    range_.aimed(device).shoot(1, "b", 0)
    assert range_.answer().confirmed
    told = (range_.folder / "fence_good.off.input").read_text().splitlines()
    assert told == ["nodename=b", "plug=2", "lanplus=1", "ipport=623", "password=open=sesame ", "action=off"]
    assert (range_.folder / "fence_good.status.arguments").read_text() == f"{device.agent} \n"


def test_a_program_is_found_on_the_path(range_: Range, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its bare name, as in conf.d."""
    device = msgspec.structs.replace(range_.device("fence_bare", OBEYS), agent="fence_bare")
    monkeypatch.setenv("PATH", f"{range_.folder}:{os.environ['PATH']}")
    range_.aimed(device).shoot(1, "b", 0)
    assert range_.answer().confirmed


def test_a_refusal_is_told_without_the_secret(range_: Range) -> None:
    """The last line that the program printed, its exit status, and stars."""
    secret = range_.folder / "pw"
    secret.write_text("sesame\n")
    secret.chmod(0o600)
    device = range_.device("fence_no", REFUSES, secrets={"b": {"password": secret}})
    range_.aimed(device).shoot(1, "b", 0)
    answer = range_.answer()
    assert not answer.confirmed
    assert answer.detail.endswith("could not switch b off (exit status 1: wrong password: ***)")
    assert range_.journal == ["fence_no off"]


@pytest.mark.parametrize(
    ("acts", "says"), [(LIES, "and its status is still on"), (UNSURE, "cannot say whether b is off (exit status 1)")]
)
def test_done_without_a_status_of_off_is_not_confirmed(range_: Range, acts: str, says: str) -> None:
    """It is asked again until its time is over, and then counts as failed."""
    range_.aimed(range_.device("fence_odd", acts, timeout_ms=1_500)).shoot(1, "b", 0)
    answer = range_.answer()
    assert not answer.confirmed and says in answer.detail
    assert range_.journal.count("fence_odd status") >= 2


def test_a_status_that_turns_off_late_is_waited_for(range_: Range) -> None:
    """A machine takes a moment to lose its power; a management board may not answer meanwhile."""
    late = "[ $action = off ] && exit 0; n=$(grep -c status {folder}/journal); [ $n = 1 ] && exit 0; "
    device = range_.device("fence_slow", late + "[ $n = 2 ] && exit 1; exit 2")
    range_.aimed(device).shoot(1, "b", 0)
    assert range_.answer().confirmed
    assert range_.journal.count("fence_slow status") == 3


def test_all_devices_of_a_level_must_say_off(range_: Range) -> None:
    """Two power supplies: one that is off proves nothing."""
    first, second = range_.device("fence_one", OBEYS), range_.device("fence_two", REFUSES)
    range_.aimed(first, second).shoot(1, "b", 0)
    answer = range_.answer()
    assert not answer.confirmed and "fence_two" in answer.detail
    assert range_.journal == ["fence_one off", "fence_one status", "fence_two off"]


def test_levels_are_tried_in_order_until_one_succeeds(range_: Range) -> None:
    """A level with a failure is given up at once; after one that succeeds no further is touched."""
    devices = (
        range_.device("fence_third", OBEYS, level=3),
        range_.device("fence_second", OBEYS, level=2),
        range_.device("fence_first", REFUSES, level=1),
        range_.device("fence_not_reached", OBEYS, level=1),
    )
    range_.aimed(*devices).shoot(1, "b", 0)
    assert range_.answer().confirmed
    assert range_.journal == ["fence_first off", "fence_second off", "fence_second status"]


def test_when_every_level_fails_all_reasons_are_told(range_: Range) -> None:
    """One answer, and it is no."""
    range_.aimed(range_.device("fence_x", REFUSES), range_.device("fence_y", REFUSES, level=2)).shoot(1, "b", 0)
    answer = range_.answer()
    assert not answer.confirmed and "fence_x could" in answer.detail and "fence_y could" in answer.detail


def test_a_device_that_hangs_is_killed_and_the_next_level_tried(range_: Range) -> None:
    """With all that it started, at its own limit."""
    hanging, good = range_.device("fence_hang", HANGS, timeout_ms=500), range_.device("fence_good", OBEYS, level=2)
    range_.aimed(hanging, good).shoot(1, "b", 0)
    range_.run(lambda: len(range_.left()) >= 2)
    assert range_.answer().confirmed
    assert range_.journal == ["fence_hang off", "fence_good off", "fence_good status"]


def test_a_plugin_that_hangs_is_killed_by_the_host(range_: Range, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own care is not needed: the limit and a little more, and it is gone."""
    monkeypatch.setattr(device_child, "SLACK_MS", 100)
    monkeypatch.setattr(range_.registry, "fence", lambda order: time.sleep(100))
    range_.aimed(range_.device("fence_good", OBEYS, timeout_ms=300)).shoot(1, "b", 0)
    answer = range_.answer()
    assert not answer.confirmed and "did not end within 0.3 s" in answer.detail


def test_a_plugin_that_fails_is_a_device_that_failed(range_: Range, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it raises, and also if its process just ends."""

    def raises(order: FenceOrder) -> None:
        raise ZeroDivisionError("by mistake")

    device = range_.device("fence_good", OBEYS)
    monkeypatch.setattr(range_.registry, "fence", raises)
    range_.aimed(device).shoot(1, "b", 0)
    assert "plugin's mistake: ZeroDivisionError: by mistake" in range_.answer().detail
    monkeypatch.setattr(range_.registry, "fence", lambda order: os._exit(0))
    range_.aimed(device).shoot(2, "b", 0)
    answer = range_.answer()
    assert not answer.confirmed and "before it answered" in answer.detail


def test_a_shot_waits_for_its_delay(range_: Range) -> None:
    """Nothing is touched before."""
    range_.aimed(range_.device("fence_good", OBEYS)).shoot(1, "b", 400)
    began = time.monotonic()
    range_.run(lambda: range_.journal)
    assert time.monotonic() - began >= 0.39
    assert range_.answer().confirmed


def test_a_shot_that_is_held_in_its_delay_never_comes(range_: Range) -> None:
    """No program runs, and no answer is given."""
    aimed = range_.aimed(range_.device("fence_good", OBEYS))
    aimed.shoot(1, "b", 300)
    range_.turn()
    aimed.hold(1)
    assert aimed.wake_at_ms() is None and not aimed.busy
    until = time.monotonic() + 0.6
    range_.run(lambda: time.monotonic() > until)
    assert range_.journal == [] and range_.answers == []


def test_a_shot_that_is_held_while_it_runs_is_killed(range_: Range) -> None:
    """The program and what it started; no answer, and the next shot is not disturbed."""
    hanging = range_.device("fence_hang", HANGS)
    aimed = range_.aimed(hanging)
    aimed.shoot(1, "b", 0)
    range_.run(lambda: len(range_.left()) >= 2)
    aimed.hold(1)
    range_.device("fence_hang", OBEYS)
    aimed.shoot(2, "b", 0)
    answer = range_.answer()
    assert (answer.request_id, answer.confirmed) == (2, True)
    aimed.hold(2)  # too late, and no error


def test_an_answer_that_comes_after_the_hold_is_ignored(range_: Range) -> None:
    """The program has said off, the host has not read it yet, and the node is heard again."""
    aimed = range_.aimed(range_.device("fence_good", OBEYS))
    aimed.shoot(1, "b", 0)
    until = time.monotonic() + 10
    while "fence_good status" not in range_.journal or range_.left():
        assert time.monotonic() < until
        time.sleep(0.02)  # and the loop stands still
    time.sleep(0.2)  # the child writes its answer and ends
    aimed.hold(1)
    range_.run(lambda: not aimed.busy)
    assert range_.answers == [] and aimed.wake_at_ms() is None


def test_what_a_program_leaves_running_is_killed_with_it(range_: Range) -> None:
    """A daemon of its own could switch something later, for a request that nobody remembers."""
    stays = "[ $action = off ] && { setsid {folder}/sleep 100 & }; "
    range_.aimed(range_.device("fence_fork", stays + OBEYS)).shoot(1, "b", 0)
    assert range_.answer().confirmed  # and nothing is left


def test_a_secret_is_on_standard_input_only(range_: Range, caplog: pytest.LogCaptureFixture) -> None:
    """Not in the program's environment or arguments, not in the log, whatever the program prints."""
    secret = range_.folder / "pw"
    secret.write_text("open-sesame\n")
    secret.chmod(0o600)
    tells = "env > {folder}/environment; cat /proc/$$/cmdline >> {folder}/environment; "
    tells += "echo open-sesame; echo open-sesame >&2; exit 1"
    caplog.set_level("DEBUG")
    range_.aimed(range_.device("fence_tell", tells, secrets={"b": {"password": secret}})).shoot(1, "b", 0)
    answer = range_.answer()
    assert "password=open-sesame" in (range_.folder / "fence_tell.off.input").read_text()
    assert "PATH=" in (range_.folder / "environment").read_text()
    for text in (answer.detail, caplog.text, (range_.folder / "environment").read_text()):
        assert "sesame" not in text


def test_what_an_earlier_host_left_is_killed(range_: Range) -> None:
    """Its host died: the program must not shoot for a request that nobody remembers."""
    device = range_.device("fence_hang", HANGS)
    pid = os.fork()
    if pid == 0:
        aimed = range_.aimed(device)
        aimed.shoot(1, "b", 0)
        time.sleep(100)
        os._exit(0)
    range_.run(lambda: len([p for p in range_.left() if p.name != "python"]) >= 2)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    assert range_.left() != []
    range_.aimed(device).recover()
    range_.run(lambda: range_.left() == [], limit_s=5)


def test_without_a_device_the_answer_comes_at_once(range_: Range) -> None:
    """And it is no, whatever the delay."""
    range_.shots.shoot(1, "b", 60_000)
    answer = range_.answer()
    assert not answer.confirmed and "no fencing device" in answer.detail


def order(tmp_path: Path, **told: Any) -> FenceOrder:
    program = tmp_path / "fence_never"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/was-run\nexit 2\n")
    program.chmod(0o755)
    facts: dict[str, Any] = {"params": {}, "secrets": {}, "deadline": time.monotonic() + 5} | told
    return FenceOrder(agent=str(program), node="b", **facts)


@pytest.mark.parametrize(
    "params",
    [{"action": "reboot"}, {"option": "on"}, {"plug": "1\naction=reboot"}, {"plug\naction": "reboot"}, {"a b": "1"}],
)
def test_nothing_can_smuggle_another_action_in(tmp_path: Path, params: dict[str, str]) -> None:
    """Not by a key, not by a line break: the program is not even run."""
    registry = Registry.load(Directories(), system=tmp_path / "none")
    with pytest.raises(AgentError):
        registry.fence(order(tmp_path, params=params))
    assert not (tmp_path / "was-run").exists()


@pytest.mark.parametrize(
    ("text", "mode", "says"),
    [("x\n", 0o640, "may be read by others (mode 0640)"), ("", 0o600, "one line"), ("a\nb\n", 0o600, "line break")],
)
def test_an_unfit_secret_is_not_used(tmp_path: Path, text: str, mode: int, says: str) -> None:
    """One that others may read, an empty one, one of two lines."""
    (tmp_path / "pw").write_text(text)
    (tmp_path / "pw").chmod(mode)
    registry = Registry.load(Directories(), system=tmp_path / "none")
    with pytest.raises(AgentError, match=says.replace("(", r"\(").replace(")", r"\)")):
        registry.fence(order(tmp_path, secrets={"password": tmp_path / "pw"}))
    assert not (tmp_path / "was-run").exists()


def test_a_program_that_is_not_there_is_told(tmp_path: Path) -> None:
    """With the cure."""
    registry = Registry.load(Directories(), system=tmp_path / "none")
    lost = FenceOrder(agent="fence_nothing", node="b", params={}, secrets={}, deadline=time.monotonic() + 5)
    with pytest.raises(AgentError, match="fence_nothing is no program here") as caught:
        registry.fence(lost)
    assert "fence-agents" in caught.value.cure


def test_only_true_from_a_plugin_confirms(tmp_path: Path) -> None:
    """A plugin of the operator's own comes before ours; one that returns anything else has failed."""
    folder = tmp_path / "plugins"
    folder.mkdir(mode=0o755)
    (folder / "mine.py").write_text(
        "from hostd.api import hookimpl\n\n@hookimpl\ndef fence(order):\n"
        "    return {'sms': True, 'odd': 'off'}.get(order.agent)\n"
    )
    registry = Registry.load(Directories(plugins=(folder,)), system=tmp_path / "none")
    facts: dict[str, Any] = {"node": "b", "params": {}, "secrets": {}, "deadline": time.monotonic() + 5}
    registry.fence(FenceOrder(agent="sms", **facts))
    with pytest.raises(AgentError, match="plugin's mistake: fence returned 'off'"):
        registry.fence(FenceOrder(agent="odd", **facts))
    with pytest.raises(AgentError, match="no program"):
        registry.fence(FenceOrder(agent="neither", **facts))
