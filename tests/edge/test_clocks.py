"""One timeline of both nodes: the clocks' offset is found from what each saw of the other."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hostd.commands import clocks, main
from hostd.commands.exits import ExitCode
from hostd.core.effects import AnyFact, LinkOpened, ServiceTurned
from hostd.core.terms import ServiceState, Why
from hostd.recorder import Timeline
from hostd.requests import Entry

WALL = 1_700_000_000.0


def turned(service: str, state: ServiceState = ServiceState.RUNNING) -> AnyFact:
    return ServiceTurned(service, state, Why.PRIMARY)


class Pair:
    """Two nodes that write down what happens; b's clock is ahead by so many seconds, and a word takes a while."""

    def __init__(self, ahead_s: float, late_s: float = 0.06) -> None:
        self.ahead_s, self.late_s = ahead_s, late_s
        self.a: list[Entry] = []
        self.b: list[Entry] = []

    def happens(self, at_s: float, node: str, fact: AnyFact, *, is_seen: bool = True) -> None:
        shift = {"a": 0.0, "b": self.ahead_s}
        books = {"a": self.a, "b": self.b}
        books[node].append(Entry(WALL + at_s + shift[node], node, fact))
        other = "b" if node == "a" else "a"
        if is_seen:
            books[other].append(Entry(WALL + at_s + self.late_s + shift[other], node, fact, True))

    def day(self) -> "Pair":
        for number in range(5):
            self.happens(10.0 * number, "a", turned(f"web{number}"))
            self.happens(10.0 * number + 1, "b", turned(f"mail{number}"))
        return self


@pytest.mark.parametrize("ahead_s", [0.0, 0.5, -3.2, 7_200.0])
def test_the_offset_lies_within_what_is_said_of_it(ahead_s: float) -> None:
    """Bounded from both sides, whoever is ahead, by however much."""
    pair = Pair(ahead_s).day()
    found = clocks.offset(pair.a, pair.b, "a", "b")
    assert found.is_known
    assert abs(found.seconds + ahead_s) <= found.plus_minus + 0.001 <= pair.late_s + 0.002


def test_where_only_one_side_saw_anything_it_is_less_sure() -> None:
    """One bound, and a heartbeat's usual delay for the other."""
    pair = Pair(2.0)
    for number in range(5):
        pair.happens(number, "b", turned(f"mail{number}"))
    found = clocks.offset(pair.a, pair.b, "a", "b")
    assert abs(found.seconds + 2.0) <= found.plus_minus and found.plus_minus == clocks.LATENESS_S / 2
    assert not clocks.offset([], [], "a", "b").is_known


def test_a_fact_that_was_missed_does_not_pull_the_offset() -> None:
    """Of two alike only one was seen: nobody knows which, so neither is used."""
    pair = Pair(1.0).day()
    pair.happens(100, "b", turned("odd"), is_seen=False)
    pair.happens(200, "b", turned("odd"))
    assert abs(clocks.offset(pair.a, pair.b, "a", "b").seconds + 1.0) < 0.1


def test_each_tells_of_itself_in_the_order_in_which_it_happened() -> None:
    """What was only seen gives way to the node's own words; where those are missing it stays."""
    pair = Pair(-3.2).day()
    pair.happens(2.0, "b", LinkOpened("wire", True, ""), is_seen=False)
    found = clocks.offset(pair.a, pair.b, "a", "b")
    whole = clocks.merged(pair.a, pair.b, "a", "b", found)
    assert not any(entry.observed for entry in whole)
    assert len(whole) == 11
    days = [e.fact.service for e in whole if isinstance(e.fact, ServiceTurned)]
    assert days == [name for number in range(5) for name in (f"web{number}", f"mail{number}")]
    beyond = clocks.merged(pair.a, [e for e in pair.b if e.at < WALL + 20], "a", "b", found)
    assert [e.fact.service for e in beyond if e.observed and isinstance(e.fact, ServiceTurned)] == ["mail3", "mail4"]


def test_hostd_log_takes_the_others_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both in one list by this node's clock, and how the other's was corrected."""
    pair = Pair(-3.2).day()
    for node, entries in (("a", pair.a), ("b", pair.b)):
        clock = [0.0]
        with ThreadPoolExecutor(1) as disk:
            timeline = Timeline(tmp_path / node, disk, wall=lambda clock=clock: clock[0])  # type: ignore[misc]
            for entry in sorted(entries, key=lambda e: e.at):
                clock[0] = entry.at
                timeline.add(entry.node, entry.fact, observed=entry.observed)
            timeline.flush()
    places = ["--runtime-dir", str(tmp_path / "none"), "--state-dir", str(tmp_path / "a")]
    report = tmp_path / "b.tgz"
    words = ["report", "-o", str(report), "--node", "b", "--config", str(tmp_path / "none")]
    assert main.main([*words, "--runtime-dir", str(tmp_path / "none"), "--state-dir", str(tmp_path / "b")]) == 0
    capsys.readouterr()
    for other in (report, tmp_path / "b"):
        assert main.main(["log", *places, "--with", str(other)]) == ExitCode.DONE
        caught = capsys.readouterr()
        assert "times of b corrected by +3" in caught.err
        names = [line.split()[3] for line in caught.out.splitlines()]
        assert names == [name for number in range(5) for name in (f"web{number}", f"mail{number}")]
    assert main.main(["log", *places, "--with", str(tmp_path / "a")]) == ExitCode.WRONG_USE
    assert "no timeline of another node" in capsys.readouterr().err
