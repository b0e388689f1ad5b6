"""A state directory in which somebody has put links, pipes and rubbish in the place of our files.

Only root can do that, or a backup that was put back by the wrong user: what is
promised is that nothing outside is written, that nothing is waited for, and
that hostd starts.
"""

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hostd import metrics, recorder, state
from hostd.core.effects import PlansDiffer
from hostd.core.events import TimerFired
from hostd.core.plan import Plan
from hostd.core.snapshot import Wish, WishKind
from hostd.core.terms import Incarnation
from hostd.core.wire import NONCE_MAX
from hostd.recorder import FORMAT, Header, Recorder, Timeline

WISH = Wish(WishKind.STOPPED, "web", "yes", 1, "a")
NAMES = (
    "incarnation", "wishes.json", "services.json", "told.json", "timeline.jsonl", "timeline.jsonl.1",
    "flight-00000001.rec", "flight-99999998.rec",
)  # fmt: skip
VICTIM = b"root:x:0:0\n"


@pytest.fixture
def disk() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as disk:
        yield disk


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "state"
    made.mkdir(mode=0o700)
    return made


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    made = tmp_path / "victim"
    made.write_bytes(VICTIM)
    return made


def live(folder: Path, disk: ThreadPoolExecutor) -> None:
    """What a brain reads at its start and writes in its life."""
    assert state.next_incarnation(folder).boot > 1_700_000_000
    state.load_wishes(folder)
    state.save_wishes(folder, (WISH,))
    state.first_seen(folder, ("web",), 1e9)
    timeline = Timeline(folder, disk)
    timeline.add("a", PlansDiffer())
    flight = Recorder(folder, lambda: Header(FORMAT, "1", "a", Plan("x", ("a", "b")), 0.0, 0), disk)
    flight.record(1, TimerFired())
    for written in (timeline.flush(), flight.flush()):
        assert written is not None
        written.result(5)


@pytest.mark.timeout(20)
def test_nothing_is_written_where_a_link_leads(folder: Path, victim: Path, disk: ThreadPoolExecutor) -> None:
    """Links in the place of every file that we write, and of the ones that are renamed to it."""
    for name in (*NAMES, *(f".{name}.{os.getpid()}" for name in NAMES)):
        (folder / name).symlink_to(victim)
    live(folder, disk)
    assert victim.read_bytes() == VICTIM
    assert state.load_wishes(folder) == ((WISH,), ""), "a link is replaced by the file"
    (flight,) = recorder.flights(folder)
    assert [type(frame).__name__ for frame in recorder.read(flight)] == ["Header", "Record"]


@pytest.mark.timeout(20)
def test_no_file_is_made_where_a_link_leads_to_nothing(folder: Path, tmp_path: Path, disk: ThreadPoolExecutor) -> None:
    """A dangling link would have root make the file it names."""
    for name in (*NAMES, *(f".{name}.{os.getpid()}" for name in NAMES)):
        (folder / name).symlink_to(tmp_path / "made")
    live(folder, disk)
    assert not (tmp_path / "made").exists()


@pytest.mark.timeout(20)
def test_nobody_waits_for_a_pipe_or_reads_an_endless_file(folder: Path, disk: ThreadPoolExecutor) -> None:
    """A pipe without a writer, and a link to /dev/zero, where the start of a brain reads."""
    for name in ("incarnation", "wishes.json", "services.json", "timeline.jsonl.1"):
        os.mkfifo(folder / name)
    live(folder, disk)
    for name in ("incarnation", "wishes.json", "services.json"):
        (folder / name).unlink()
        (folder / name).symlink_to("/dev/zero")
    live(folder, disk)


def test_folders_in_the_place_of_files_cost_no_start(folder: Path, disk: ThreadPoolExecutor) -> None:
    """What cannot be replaced is said, or counted, and the brain lives on."""
    for name in ("incarnation", "services.json", "timeline.jsonl"):
        (folder / name).mkdir()
    live(folder, disk)
    (folder / "wishes.json").unlink()
    (folder / "wishes.json").mkdir()
    with pytest.raises(IsADirectoryError):
        state.save_wishes(folder, (WISH,))
    wishes, complaint = state.load_wishes(folder)
    assert wishes == () and "wishes.json" in complaint


@pytest.mark.parametrize("damage", [b"9" * 30, b"\xff\xfe", b"", b"-4", b"1099511627776"])
def test_a_damaged_counter_gives_a_life_that_frames_can_carry(folder: Path, damage: bytes) -> None:
    """The wall clock takes over; a number that no frame can carry would silence every heart."""
    (folder / "incarnation").write_bytes(damage)
    assert Incarnation(1_700_000_000, 0) < state.next_incarnation(folder) < Incarnation(2**33, 0)


def test_lives_of_one_number_are_told_apart_by_their_order(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that takes nothing and a clock that was set back: the later life is the higher all the same."""
    (folder / "incarnation").mkdir()
    monkeypatch.setattr(state.time, "time", lambda: 1_800_000_000.0)
    lives = []
    for _ in range(20):
        lives.append(state.next_incarnation(folder))
        time.sleep(0.002)
    assert {life.boot for life in lives} == {1_800_000_000}
    assert lives == sorted(set(lives))
    assert all(life.nonce <= NONCE_MAX for life in lives)


@pytest.mark.parametrize(
    "damage", [b'[[1,"\xff","yes",1,"a"]]', b"[" * 100_000, b'[[1,"web","yes",' + b"9" * 30 + b',"a"]]']
)
def test_damaged_wishes_are_said_and_cost_no_start(folder: Path, damage: bytes) -> None:
    """Text that is no UTF-8, brackets without end, numbers without measure."""
    (folder / "wishes.json").write_bytes(damage)
    wishes, complaint = state.load_wishes(folder)
    assert wishes == () and "damaged" in complaint


@pytest.mark.skipif(os.geteuid() != 0, reason="as root, who could write where it leads")
def test_metrics_are_not_written_through_a_collectors_link(folder: Path, victim: Path) -> None:
    """The collector's folder is another user's, who can guess the name that root is about to open."""
    path = folder / "hostd.prom"
    path.symlink_to(victim)
    (folder / f".hostd.prom.{os.getpid()}").symlink_to(victim)
    metrics.replace_for_all(path, "up 1\n")
    assert victim.read_bytes() == VICTIM
    assert (path.read_text(), path.is_symlink(), path.stat().st_mode & 0o777) == ("up 1\n", False, 0o644)
