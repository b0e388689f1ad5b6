"""Drills by real programs: harmless, one at a time, in their turn, and never in the way of a shot."""

import selectors
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hostd import cgroups, drills
from hostd.clock import now_ms
from hostd.config import Directories, FencingDevice
from hostd.core.terms import Incarnation
from hostd.drill_book import DrillBook, could_shoot, is_wrong
from hostd.drills import Drills
from hostd.messages import Drilled, Trial
from hostd.registry import Registry

SCRIPT = """#!/bin/sh
input=$(cat)
action=${{input##*action=}}
printf '%s\\n' "{name} $action" >> {folder}/journal
{acts}
"""
IS_ON = "exit 0"
IS_OFF = "[ $action = status ] && exit 2; exit 0"
MUTE = "echo 'no route to host' >&2; exit 1"
UNSURE = "[ $action = status ] && exit 1; exit 0"
HANGS = "sleep 100"
LIFE, LATER_LIFE = Incarnation(1, 1), Incarnation(2, 2)


class Field:
    """Drills in a loop of their own, with programs that a test writes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.registry = Registry.load(Directories(), system=folder / "none")
        self.groups = cgroups.choose("drill-a", folder)
        self.selector = selectors.DefaultSelector()
        self.words: list[Drilled] = []
        self.drills = self.made()

    def made(self, *devices: FencingDevice) -> Drills:
        self.drills = Drills(self.registry, self.groups, devices, self.selector, self.words.append, dice=lambda: 0.5)
        return self.drills

    def device(self, name: str, acts: str, level: int = 1, timeout_ms: int = 5_000) -> FencingDevice:
        path = self.folder / name
        path.write_text(SCRIPT.format(name=name, folder=self.folder, acts=acts))
        path.chmod(0o755)
        return FencingDevice(str(path), ("b",), {"b": {}}, {"b": {}}, level, timeout_ms)

    @property
    def journal(self) -> list[str]:
        path = self.folder / "journal"
        return path.read_text().splitlines() if path.exists() else []

    def run(self, until: Any, *, shooting: bool = False, limit_s: float = 15) -> None:
        """Turn the loop, as the host does."""
        end = time.monotonic() + limit_s
        while not until():
            assert time.monotonic() < end, (self.journal, self.words)
            wake = self.drills.wake_at_ms()
            wait_ms = 50 if wake is None else max(0, min(50, wake - now_ms()))
            for key, _ in self.selector.select(wait_ms / 1_000):
                key.data()
            self.drills.tick(shooting=shooting)

    def outcome(self) -> Drilled:
        """The last word of the drill that is under way."""
        self.run(lambda: self.words and self.words[-1].is_over)
        self.run(lambda: not self.drills.busy)
        return self.words[-1]


@pytest.fixture
def field(tmp_path: Path) -> Iterator[Field]:
    tmp_path.chmod(0o755)
    made = Field(tmp_path)
    yield made
    made.drills.abort()
    made.run(lambda: not made.drills.busy)
    made.groups.tidy()


def test_a_drill_is_monitor_and_status_and_nothing_else(field: Field) -> None:
    """Levels in order; each device is told of as it is done with, and at the end all of them."""
    field.made(field.device("fence_second", IS_OFF, level=2), field.device("fence_first", IS_ON)).begin(7, "b")
    done = field.outcome()
    assert field.journal == ["fence_first monitor", "fence_first status", "fence_second monitor", "fence_second status"]
    assert [(trial.device, trial.ok, trial.power) for trial in done.trials] == [(1, True, "on"), (0, True, "off")]
    assert [(word.drill_id, word.is_over, len(word.trials)) for word in field.words] == [(7, False, 1), (7, True, 2)]


@pytest.mark.parametrize(
    ("acts", "says", "called"),
    [
        (MUTE, "does not reach its device (exit status 1: no route to host)", ["monitor"]),
        (UNSURE, "cannot say whether b is on (exit status 1)", ["monitor", "status"]),
    ],
)
def test_a_device_that_a_shot_could_not_use_fails(field: Field, acts: str, says: str, called: list[str]) -> None:
    """With what its program printed, and a cure; the next is tried all the same."""
    field.made(field.device("fence_x", acts), field.device("fence_y", IS_ON)).begin(1, "b")
    bad, good = field.outcome().trials
    assert not bad.ok and says in bad.reason and "see to the device" in bad.cure
    assert good.ok and [line.split()[1] for line in field.journal if "fence_x" in line] == called


def test_a_device_that_hangs_is_killed_at_its_limit(field: Field) -> None:
    """And the next is tried."""
    field.made(field.device("fence_hang", HANGS, timeout_ms=500), field.device("fence_y", IS_ON)).begin(1, "b")
    bad, good = field.outcome().trials
    assert not bad.ok and "did not end within" in bad.reason and good.ok


def test_a_shot_goes_first(field: Field) -> None:
    """What is tried is killed, what waits is called off, and nothing is said against a device."""
    field.made(field.device("fence_hang", HANGS))
    field.drills.begin(1, "b")
    field.drills.begin(2, "b")
    field.run(lambda: field.journal)
    field.run(lambda: len(field.words) == 2, shooting=True)
    assert [(word.drill_id, word.is_over, word.trials) for word in field.words] == [(1, True, ()), (2, True, ())]
    assert {word.detail for word in field.words} == {"a shot was under way"}
    field.run(lambda: not field.drills.busy, shooting=True)
    field.drills.begin(3, "b")
    field.run(lambda: len(field.words) == 3, shooting=True)
    assert field.journal == ["fence_hang monitor"]


def test_the_peers_devices_are_tried_by_themselves(
    field: Field, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A while after the start, the second node later; again after the interval, sooner after a failure."""
    clock = [1_000_000]
    monkeypatch.setattr(drills, "now_ms", lambda: clock[0])
    aimed = field.made(field.device("fence_x", IS_ON))
    aimed.repeat("b", 3_600_000, is_first=False)
    assert aimed.wake_at_ms() == clock[0] + drills.FIRST_MS + drills.APART_MS
    aimed.repeat("b", 3_600_000, is_first=True)
    assert aimed.wake_at_ms() == clock[0] + drills.FIRST_MS
    clock[0] += drills.FIRST_MS
    assert field.outcome().trials[0].ok and field.words[-1].drill_id == drills.BY_ITSELF
    assert aimed.remembered() == field.words[-1]
    assert aimed.wake_at_ms() == clock[0] + 3_600_000
    field.device("fence_x", MUTE)
    clock[0] += 3_600_000
    field.words.clear()
    assert not field.outcome().trials[0].ok
    assert aimed.wake_at_ms() == clock[0] + drills.AGAIN_MS


def test_conf_d_may_want_none_and_a_reload_forgets(field: Field) -> None:
    """No drill without an interval, or without a device; a device that is another now is not known to work."""
    device = field.device("fence_x", IS_ON)
    aimed = field.made(device)
    aimed.repeat("b", 0, is_first=True)
    assert aimed.wake_at_ms() is None
    aimed.repeat("a", 3_600_000, is_first=True)
    assert aimed.wake_at_ms() is None
    aimed.repeat("b", 3_600_000, is_first=True)
    aimed.begin(1, "b")
    field.outcome()
    aimed.renew(field.registry, (device,))
    assert aimed.remembered() is not None
    aimed.renew(field.registry, (field.device("fence_y", IS_ON),))
    assert aimed.remembered() is None


# -- what it means -----------------------------------------------------------------------------


def a_trial(power: str, *, ok: bool = True, device: int = 0, level: int = 1, at: float = 1.0) -> Trial:
    return Trial(device, "fence_x", level, ok, power, "" if ok else "mute", "", 10, at)


def a_book(*levels: int) -> DrillBook:
    return DrillBook("a", "b", tuple(FencingDevice("fence_x", ("a", "b"), {}, {}, level) for level in levels))


def test_a_node_that_lives_and_is_said_to_be_off_is_anothers_outlet() -> None:
    """Only while the very life is heard that was heard then: one that went off and came back was off."""
    book = a_book(1)
    book.take(Drilled(0, "b", (a_trial("off"),), is_over=True), LIFE)
    [device] = book.statuses(LIFE)
    assert is_wrong(device) and not could_shoot((device,))
    for life in (None, LATER_LIFE):
        [device] = book.statuses(life)
        assert device.ok and not is_wrong(device)
    assert book.expect(5, "a")
    book.take(Drilled(5, "a", (a_trial("off"),), is_over=True), None)
    assert is_wrong(book.answer(5).devices[0])  # ourselves: we live


def test_one_level_without_a_failure_is_enough_to_shoot() -> None:
    """All devices of a level must say off; what was not tried yet is not held against it."""
    book = a_book(1, 1, 2)
    assert could_shoot(book.statuses(LIFE)) and [device.ok for device in book.statuses(LIFE)] == [None] * 3
    book.take(Drilled(0, "b", (a_trial("on"), a_trial("", ok=False, device=1)), is_over=False), LIFE)
    assert could_shoot(book.statuses(LIFE))
    book.take(Drilled(0, "b", (a_trial("", ok=False, device=2, level=2),), is_over=True), LIFE)
    assert not could_shoot(book.statuses(LIFE))


def test_a_drill_that_cannot_be_says_why() -> None:
    """A stranger, a node without a device, and one that an earlier brain was asked for."""
    book = DrillBook("a", "b", (FencingDevice("fence_x", ("b",), {}, {}),))
    assert not book.expect(1, "c") and "there is no node c" in book.answer(1).detail
    assert not book.expect(2, "a") and "no fencing device" in book.answer(2).detail
    assert book.expect(3, "b") and not book.answer(3).is_over
    assert book.answer(99).is_over and "ask again" in book.answer(99).detail
