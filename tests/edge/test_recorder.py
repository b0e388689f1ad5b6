"""The flight recorder and the timeline."""

import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hostd import recorder
from hostd.core.effects import AnyEffect, LinkOpened, ServiceTurned
from hostd.core.events import AnyEvent, HeartReturned, LinkChanged, Started, TimerFired
from hostd.core.node import Node
from hostd.core.plan import Link, Plan, Resource, Service
from hostd.core.terms import Carrier, Incarnation, ServiceState, Why
from hostd.recorder import Gap, Header, Record, Recorder, Timeline

PLAN = Plan(
    "example",
    ("a", "b"),
    services=(Service("web", ("a", "b"), (Resource("web", "dummy"),)),),
    links=(Link("wire"),),
)
LIFE: list[AnyEvent] = [
    Started(Incarnation(7, 1)),
    HeartReturned(),
    LinkChanged("wire", 10, True, Carrier.UP),
    *[TimerFired()] * 400,
]


def header(node: Node | None = None, at_ms: int = 0) -> Header:
    checkpoint = b"" if node is None else pickle.dumps(node)
    return Header(recorder.FORMAT, "test", "a", PLAN, 0.0, at_ms, checkpoint)


def replay(path: Path) -> list[tuple[int, list[AnyEffect]]]:
    """The effects of one file, by the core."""
    frames = list(recorder.read(path))
    start = frames[0]
    assert isinstance(start, Header)
    node = pickle.loads(start.checkpoint) if start.checkpoint else Node(start.plan, start.node)
    return [(f.now_ms, node.step(f.now_ms, f.event)) for f in frames if isinstance(f, Record)]


def test_every_file_by_itself_replays_to_the_same_effects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A life over several files: each one, from its header on, gives the effects that the core gave then."""
    monkeypatch.setattr(recorder, "FILE_SIZE_MAX", 4_000)
    monkeypatch.setattr(recorder, "FILES_MAX", 1_000)
    node, stepped = Node(PLAN, "a"), False
    given: list[tuple[int, list[AnyEffect]]] = []
    with ThreadPoolExecutor(1) as disk:
        flight = Recorder(tmp_path, lambda: header(node if stepped else None), disk)
        for number, event in enumerate(LIFE):
            now_ms = 1_000 + number * 100
            flight.record(now_ms, event)
            stepped = True
            given.append((now_ms, node.step(now_ms, event)))
        flight.flush()
    files = recorder.flights(tmp_path)
    assert len(files) > 2
    assert [step for path in files for step in replay(path)] == given
    assert any(effects for _, effects in given)


def test_the_ring_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However much is recorded, a fixed number of files of about a fixed size remain, the newest."""
    monkeypatch.setattr(recorder, "FILE_SIZE_MAX", 2_000)
    with ThreadPoolExecutor(1) as disk:
        flight = Recorder(tmp_path, header, disk)
        for now_ms in range(2_000):
            flight.record(now_ms, TimerFired())
            if now_ms % 100 == 0:
                writing = flight.flush()
                assert writing is not None
                writing.result()
        flight.flush()
    files = recorder.flights(tmp_path)
    assert len(files) == recorder.FILES_MAX
    assert all(path.stat().st_size < 2_500 for path in files)
    last = list(recorder.read(files[-1]))[-1]
    assert last == Record(1_999, TimerFired())


def test_a_torn_or_damaged_tail_ends_the_reading_and_harms_nothing_before(tmp_path: Path) -> None:
    """Cut or flip anything at the end of a file: what stands before is read all the same."""
    with ThreadPoolExecutor(1) as disk:
        flight = Recorder(tmp_path, header, disk)
        for now_ms in range(10):
            flight.record(now_ms, TimerFired())
        flight.flush()
    (path,) = recorder.flights(tmp_path)
    whole = path.read_bytes()
    for damaged in (whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1]), whole + b"\xff\xff\xff\xffxxxx"):
        path.write_bytes(damaged)
        frames = list(recorder.read(path))
        assert frames[:10] == [header(), *(Record(now_ms, TimerFired()) for now_ms in range(9))]


def test_a_disk_that_hangs_costs_records_and_says_how_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the disk thread hangs, recording never waits, memory is bounded, and the gap is on record."""
    monkeypatch.setattr(recorder, "PENDING_MAX", 1_000)
    hang = threading.Event()
    with ThreadPoolExecutor(1) as disk:
        disk.submit(hang.wait)
        flight = Recorder(tmp_path, header, disk)
        for now_ms in range(500):
            flight.record(now_ms, TimerFired())
            flight.flush()
        assert flight.lost_total > 300
        hang.set()
        flight.record(500, TimerFired())  # memory is still full
        for _ in range(2):
            writing = flight.flush()
            assert writing is not None
            writing.result()
        flight.record(501, TimerFired())
        flight.flush()
    frames = list(recorder.read(recorder.flights(tmp_path)[-1]))
    gaps = [frame.lost for frame in frames if isinstance(frame, Gap)]
    assert sum(gaps) == flight.lost_total
    assert frames[-1] == Record(501, TimerFired())


def test_the_timeline_outlives_the_brain(tmp_path: Path) -> None:
    """Facts of one life are there in the next, oldest first, and lines that are none are passed over."""
    clock = iter(range(1, 100))
    with ThreadPoolExecutor(1) as disk:
        first = Timeline(tmp_path, disk, wall=lambda: float(next(clock)))
        first.add("a", ServiceTurned("web", ServiceState.RUNNING, Why.PRIMARY))
        first.add("b", LinkOpened("wire", True, ""), observed=True)
        first.flush()
    with open(tmp_path / "timeline.jsonl", "ab") as file:
        file.write(b'{"at": 1, "no')
    with ThreadPoolExecutor(1) as disk:
        entries = Timeline(tmp_path, disk).entries()
    assert [(entry.at, entry.node, entry.observed) for entry in entries] == [(1.0, "a", False), (2.0, "b", True)]


def test_the_timeline_chooses_by_service_time_and_number(tmp_path: Path) -> None:
    """A service's entries come with those of no service; the newest win when there are too many."""
    clock = iter(range(1, 100))
    with ThreadPoolExecutor(1) as disk:
        timeline = Timeline(tmp_path, disk, wall=lambda: float(next(clock)))
        for service in ("web", "mail", "web"):
            timeline.add("a", ServiceTurned(service, ServiceState.RUNNING, Why.PRIMARY))
        timeline.add("a", LinkOpened("wire", True, ""))
    assert [entry.at for entry in timeline.entries(service="web")] == [1.0, 3.0, 4.0]
    assert [entry.at for entry in timeline.entries(since=2.5)] == [3.0, 4.0]
    assert [entry.at for entry in timeline.entries(limit=1)] == [4.0]


def test_a_fact_becomes_one_line_of_names(tmp_path: Path) -> None:
    """The log has names a person can search for, no numbers of enumerations."""
    fact = ServiceTurned("web", ServiceState.FAILED, Why.START_FAILED, "port 80 is taken")
    line = 'ServiceTurned service=web state=failed why=start_failed detail="port 80 is taken"'
    assert recorder.line_of(fact) == line
