"""``hostd fence`` and what ``hostd status`` shows of devices and watchdog: words and exit codes."""

import io
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hostd import device_inspection, watchdog
from hostd.commands import complaints, main
from hostd.commands.exits import ExitCode
from hostd.commands.paper import Paper
from hostd.commands.status import exit_code, show
from hostd.confd.complain import Complaints
from hostd.config import Watchdog
from hostd.core.effects import ClearanceTurned, Publish, Refusal
from hostd.core.events import FenceNode, Started
from hostd.core.node import Node
from hostd.core.plan import Plan
from hostd.core.terms import Clearance, Incarnation
from hostd.drill_book import DrillBook
from hostd.problems import _of_fencing_devices, _of_watchdog
from hostd.requests import (
    AnyAnswer,
    AnyRequest,
    AskDrill,
    AskLog,
    AskStatus,
    DrillIs,
    Entry,
    LogIs,
    Order,
    Refused,
    StatusIs,
    Taken,
)
from hostd.status_form import DeviceStatus, FencingStatus, Problem, Status, WatchdogStatus
from tests.edge.test_commands import Daemon, a_status

NODE = "clustnode2"
GOOD = DeviceStatus("fence_good", NODE, 1, "2026-01-01T00:00:00Z", True, "on", took_ms=300)
BAD = DeviceStatus("fence_bad", NODE, 2, "2026-01-01T00:00:00Z", False, "", "no route to host", "see to it", 90)
WRONG = DeviceStatus("fence_wrong", NODE, 1, "2026-01-01T00:00:00Z", False, "off", "it says off", "correct it", 90)
ASKED = ClearanceTurned(True, Clearance.FENCED)
OFF = ClearanceTurned(False, Clearance.FENCED, "fence_good says that clustnode2 is off")
FAILED = ClearanceTurned(False, Clearance.NONE, "no route to host")


class Answers:
    """A daemon that takes the order, and tells the facts one look after the other."""

    def __init__(self, daemon: Daemon, *facts: ClearanceTurned) -> None:
        self.daemon, self._facts, self._told = daemon, list(facts), 0
        self.refusal: Refusal | None = None
        self.drills: list[DrillIs] = []
        self.after: Callable[[], Status] = lambda: self.status(nodes=("clustnode1",))
        daemon.answers = self._answer

    @staticmethod
    def status(nodes: tuple[str, ...] = (NODE,)) -> Status:
        before = a_status()
        service = msgspec.structs.replace(before.services["mysql"], node=nodes[0], nodes=nodes, owners=nodes)
        return a_status(services={"mysql": service})

    def _answer(self, request: AnyRequest) -> AnyAnswer:
        match request:
            case AskStatus():
                return StatusIs(self.after() if self._told else self.status())
            case AskLog():
                self._told += bool(self._facts[self._told :])
                return LogIs(tuple(Entry(time.time(), "clustnode1", fact) for fact in self._facts[: self._told]))
            case AskDrill():
                return self.drills.pop(0)
            case Order():
                return Taken() if self.refusal is None else Refused(self.refusal)
            case _:
                raise AssertionError(request)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    running = Daemon(tmp_path)
    yield running
    running.close()


def fence(daemon: Daemon, *words: str) -> int:
    return main.main(["fence", NODE, "--runtime-dir", str(daemon.runtime), *words])


def test_a_shot_that_hits_is_followed_to_the_takeover(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    """Each step is told, and the exit code says that all of it is done."""
    Answers(daemon, ASKED, OFF)
    assert fence(daemon, "--yes") == ExitCode.DONE
    said = capsys.readouterr().out
    assert "clustnode2 is to be powered off" in said and "its services are taken over" in said
    assert said.index("asks whether the other node is off") < said.index("a fencing device confirmed")
    assert daemon.orders == [FenceNode(NODE)]


def test_a_shot_that_misses_says_why(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    """And that the node, which is heard, is a member again."""
    answers = Answers(daemon, ASKED, FAILED)
    answers.after = answers.status
    assert fence(daemon, "--yes") == ExitCode.NO
    assert "not known to be off: no route to host; clustnode2 is heard and stays a member" in capsys.readouterr().out


def test_what_failed_before_our_order_is_not_ours(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    """What the guard found while a shot was not yet asked for says nothing of the shot."""
    Answers(daemon, FAILED, ASKED, OFF)
    assert fence(daemon, "--yes") == ExitCode.DONE


@pytest.mark.parametrize(
    ("refusal", "code"),
    [
        (Refusal.FENCE_OWN_NODE, ExitCode.UNSAFE),
        (Refusal.NO_FENCING, ExitCode.WRONG_USE),
        (Refusal.NOTHING_TO_FENCE, ExitCode.NO),
        (Refusal.UNKNOWN_NODE, ExitCode.WRONG_USE),
    ],
)
def test_a_refusal_has_its_exit_code(daemon: Daemon, refusal: Refusal, code: ExitCode) -> None:
    """As INTERFACES say, and nothing is waited for."""
    Answers(daemon).refusal = refusal
    assert fence(daemon, "--yes") == code


def test_nobody_is_shot_without_the_name_typed(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    """From a script it takes --yes; without a daemon it is told."""
    Answers(daemon)
    assert fence(daemon) == ExitCode.UNSAFE
    assert daemon.orders == [] and "--yes" in capsys.readouterr().err
    assert fence(daemon, "--json", "--yes") == ExitCode.WRONG_USE


def test_a_drill_is_told_device_by_device(
    daemon: Daemon, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 1 if any failed, with reason, time and cure; as facts with --json."""
    monkeypatch.setattr("hostd.inspection.daemon_runs", lambda runtime: True)
    answers = Answers(daemon)
    steps = [DrillIs(4, False), DrillIs(4, False, (GOOD,)), DrillIs(4, True, (GOOD, BAD))]
    answers.drills = list(steps)
    assert fence(daemon, "--check") == ExitCode.NO
    said = " ".join(capsys.readouterr().out.split())
    assert "ok fence_good, level 1: says that clustnode2 is on (300 ms)" in said
    assert "FAILED fence_bad, level 2: no route to host (90 ms) → see to it" in said
    answers.drills = list(steps)
    assert fence(daemon, "--check", "--json") == ExitCode.NO
    facts = json.loads(capsys.readouterr().out)
    assert (facts["schema"], facts["ok"], [device["ok"] for device in facts["devices"]]) == (1, False, [True, False])
    answers.drills = [DrillIs(5, True, (GOOD,))]
    assert fence(daemon, "--check") == ExitCode.DONE
    answers.drills = [DrillIs(6, True, (), "a shot was under way")]
    assert fence(daemon, "--check") == ExitCode.NO
    assert daemon.orders == []


# -- status -------------------------------------------------------------------------------------


def shown(status: Status) -> str:
    paper = Paper(io.StringIO(), is_coloured=False)
    show(complaints.with_texts(status), paper)
    return paper.text()


def found(*devices: DeviceStatus) -> list[Problem]:
    return list(_of_fencing_devices(a_status(fencing=FencingStatus("required", True, devices=devices))))


def test_a_device_that_failed_is_a_warning_as_long_as_another_level_works() -> None:
    """An error if none does; one that is another machine's outlet is an error at once."""
    assert [(problem.severity, problem.code) for problem in found(GOOD, BAD)] == [("warning", "fencing-drill-failed")]
    alone = [(problem.severity, problem.code) for problem in found(BAD)]
    assert alone == [("error", "fencing-unusable"), ("warning", "fencing-drill-failed")]
    assert ("error", "fencing-device-wrong") in [(problem.severity, problem.code) for problem in found(WRONG, GOOD)]
    assert found(GOOD, DeviceStatus("fence_new", NODE, 2)) == []


def test_devices_and_watchdog_are_shown() -> None:
    """Level, last drill, result; armed and for how long; problems with their cures."""
    devices = (GOOD, BAD, DeviceStatus("/opt/fence_new", NODE, 3))
    status = a_status(
        fencing=FencingStatus("required", True, devices=devices),
        watchdog=WatchdogStatus("/dev/watchdog", True, 10_000, "i6300ESB timer"),
        problems=(*found(*devices), *found(BAD), *found(WRONG)),
    )
    text = shown(status)
    for words in ("watchdog: armed, 10 s", "FENCING DEVICE OF clustnode2", "ok, says on", "FAILED", "not tried yet"):
        assert words in text
    assert "→ See to it. Then: hostd fence clustnode2 --check" in text
    assert max(map(len, text.splitlines())) <= 80


def test_a_watchdog_that_is_not_armed_is_a_warning() -> None:
    """With what keeps it from that; one that conf.d does not have is none."""
    status = a_status(watchdog=WatchdogStatus("/dev/watchdog", False, detail="another program holds it"))
    [problem] = _of_watchdog(status)
    assert (problem.severity, problem.code) == ("warning", "watchdog-off")
    text = shown(msgspec.structs.replace(status, problems=(problem,)))
    assert "not armed: another program holds it" in text and "watchdog: not armed" in text
    assert exit_code(status) == ExitCode.DONE
    assert list(_of_watchdog(a_status())) == [] and "watchdog" not in shown(a_status())


def test_an_armed_watchdog_is_published() -> None:
    """In the first snapshot of a life, to the letter; it clears nobody."""
    core = Node(Plan("c", ("a", "b")), "a")
    effects = core.step(1_000, Started(Incarnation(1, 1), watchdog_ms=13_000))
    [published] = [effect.snapshot for effect in effects if isinstance(effect, Publish)][-1:]
    assert published.watchdog_ms == 13_000


@pytest.mark.parametrize(
    ("facts", "holder", "says", "is_warning"),
    [
        ({"identity": "Software Watchdog"}, None, "is softdog", True),
        ({"nowayout": "1"}, None, "cannot be let go (nowayout)", True),
        ({}, ("systemd", 1), "is held by systemd (process 1)", False),
        ({"max_timeout": "5"}, None, "is longer than this device can wait (5 s)", False),
    ],
)
def test_hostd_check_says_what_is_wrong_with_the_watchdog(
    monkeypatch: pytest.MonkeyPatch, facts: dict[str, str], holder: Any, says: str, is_warning: bool
) -> None:
    """Without opening it, which would arm it."""
    monkeypatch.setattr(watchdog, "facts", lambda device: facts)
    monkeypatch.setattr(watchdog, "holder", lambda device: holder)
    gathered = Complaints({})
    device_inspection.timer(Watchdog(Path("/dev/watchdog")), gathered, is_running=False)
    [complaint] = gathered.gathered
    assert says in complaint.text and complaint.is_warning is is_warning


def test_hostd_check_says_that_the_watchdog_is_missing() -> None:
    """And what to load."""
    gathered = Complaints({})
    device_inspection.timer(Watchdog(Path("/dev/no-such-watchdog")), gathered, is_running=False)
    [complaint] = gathered.gathered
    assert "is not there" in complaint.text and "load the driver" in complaint.text and not complaint.is_warning


def test_a_book_without_devices_has_nothing_to_show() -> None:
    """A cluster without fencing."""
    assert DrillBook("a", "b").statuses(None) == ()
