"""A report has all that explains, and no secret; replayed, it gives the same effects, or says where it does not."""

import io
import os
import pickle
import tarfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import hostd
from hostd import recorder, replaying
from hostd.commands import main, redaction
from hostd.commands.exits import ExitCode
from hostd.config import Directories
from hostd.core.effects import AddAddress, AnyEffect, RunAction, Tell
from hostd.core.events import (
    ActionFinished,
    AddressFinished,
    AddressOutcome,
    AnyEvent,
    HeartReturned,
    LinkChanged,
    Started,
    TimerFired,
)
from hostd.core.node import Node
from hostd.core.plan import Link, Plan, Resource, Service, Timers
from hostd.core.terms import Action, Carrier, Health, Incarnation
from hostd.recorder import Header, Record, Recorder, Timeline

ADDRESS = "192.0.2.1/24"
PLAN = Plan(
    "example",
    ("a", "b"),
    (Service("web", ("a", "b"), (Resource(ADDRESS, "address", ADDRESS), Resource("web", "dummy"))),),
    (Link("wire"),),
    Timers(initdead_ms=2_000),
)
WALL = 1_700_000_000.0


def live(
    folder: Path, *, tamper: Callable[[AnyEvent], AnyEvent] = lambda event: event, steps: int = 120, me: str = "a"
) -> None:
    """A node alone: it probes, waits, starts its service, and keeps its books, over several files."""
    clock = [WALL]
    node, stepped = Node(PLAN, me), [0]
    inbox: list[AnyEvent] = [
        Started(Incarnation(7, 1), release=hostd.__version__),
        HeartReturned(),
        LinkChanged("wire", 10, True, Carrier.UP),
    ]

    def header() -> Header:
        checkpoint = pickle.dumps(node) if stepped[0] else b""
        return Header(recorder.FORMAT, hostd.__version__, me, PLAN, clock[0], stepped[0], checkpoint)

    with ThreadPoolExecutor(1) as disk:
        flight = Recorder(folder, header, disk)
        timeline = Timeline(folder, disk, wall=lambda: clock[0])
        now_ms = 1_000
        for _ in range(steps):
            event = inbox.pop(0) if inbox else TimerFired()
            flight.record(now_ms, tamper(event))
            effects = node.step(now_ms, event)
            stepped[0] = now_ms
            inbox += [outcome for effect in effects if (outcome := answer(effect)) is not None]
            for effect in effects:
                if isinstance(effect, Tell):
                    timeline.add(me, effect.fact)
            now_ms += 100
            clock[0] += 0.1
        flight.flush()
        timeline.flush()
    assert node.wishes is not None


def answer(effect: AnyEffect) -> AnyEvent | None:
    """A world in which everything succeeds."""
    if isinstance(effect, RunAction):
        health = Health.STOPPED if effect.action is Action.MONITOR and not effect.recurring else Health.RUNNING
        return ActionFinished(effect.action_id, True, health if effect.action is Action.MONITOR else None)
    if isinstance(effect, AddAddress):
        return AddressFinished(effect.request_id, AddressOutcome.DONE)
    return None


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(recorder, "FILE_SIZE_MAX", 3_000)
    monkeypatch.setattr(recorder, "FILES_MAX", 100)
    folder = tmp_path / "state"
    live(folder)
    assert len(recorder.flights(folder)) > 2
    return folder


def replay(*words: object) -> int:
    return main.main(["replay", *map(str, words)])


# -- replay ---------------------------------------------------------------------------------


def test_a_life_comes_out_the_same(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Over all files and their seams; steps that changed something are shown, one a line, others are not."""
    assert replay(state) == ExitCode.DONE
    shown = capsys.readouterr().out.splitlines()
    assert shown[-1].endswith("the same effects come out") and "120 steps" in shown[-1]
    assert any("RunAction action_id=1 service=web" in line for line in shown)
    assert 5 < len(shown) < 40
    assert replay(state, "--all") == ExitCode.DONE
    assert len(capsys.readouterr().out.splitlines()) > 120


def test_only_the_part_that_is_asked_for_is_shown(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--since and --until choose lines; all of it is replayed and judged all the same."""
    import datetime

    since, until = (datetime.datetime.fromtimestamp(WALL + s).isoformat() for s in (1.0, 2.0))
    assert replay(state, "--all", "--from", since, "--until", until) == ExitCode.DONE
    shown = capsys.readouterr().out.splitlines()
    assert 8 <= len(shown) - 2 <= 12 and "120 steps" in shown[-1]


def test_an_outcome_that_nobody_asked_for_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The record says that action 99 ended, and the replayed core never asked for it."""

    def other(event: AnyEvent) -> AnyEvent:
        return ActionFinished(99, True, Health.STOPPED) if isinstance(event, ActionFinished) else event

    live(tmp_path, tamper=other)
    assert replay(tmp_path) == ExitCode.NO
    assert "ActionFinished 99 answers nothing" in capsys.readouterr().out


def test_a_timeline_that_tells_another_story_is_found(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One fact of it missing in the middle: the replay tells it, the timeline does not."""
    lines = (state / "timeline.jsonl").read_bytes().splitlines(keepends=True)
    (state / "timeline.jsonl").write_bytes(b"".join(lines[:3] + lines[4:]))
    assert replay(state) == ExitCode.NO
    assert "DIFFERS" in capsys.readouterr().out


def test_a_core_that_stands_differently_at_a_seam_is_found(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A step that is missing at the end of a file: the next checkpoint is of another core."""
    first = recorder.flights(state)[0]
    frames = list(recorder.read(first))
    first.write_bytes(b"".join(recorder._frame(frame) for frame in frames[:-1]))
    assert replay(state) == ExitCode.NO
    assert "begins with another core" in " ".join(capsys.readouterr().out.split())


def test_a_record_of_another_release_is_not_replayed(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The core may have changed: said, and no verdict is given."""
    for path in recorder.flights(state):
        header, *records = recorder.read(path)
        assert isinstance(header, Header)
        old = Header(header.format, "0.0.1", "a", PLAN, header.wall, header.at_ms, header.checkpoint)
        path.write_bytes(b"".join(recorder._frame(frame) for frame in (old, *records)))
    assert replay(state) == ExitCode.WRONG_USE
    assert "written by hostd 0.0.1" in capsys.readouterr().err


class _Evil:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.mark}",)


def test_a_checkpoint_is_no_way_to_run_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A report comes from anywhere: a pickle that names anything but the core's types is refused."""
    mark = tmp_path / "mark"
    evil = Header(recorder.FORMAT, hostd.__version__, "a", PLAN, WALL, 5, pickle.dumps(_Evil(mark)))
    frames = recorder._frame(evil) + recorder._frame(Record(6, TimerFired()))
    (tmp_path / "flight-00000001.rec").write_bytes(frames)
    assert replay(tmp_path) == ExitCode.WRONG_USE
    assert not mark.exists()
    assert "no part of a core" in capsys.readouterr().err
    for name in (("builtins", "eval"), ("hostd.core.node", "Final"), ("hostd.core.wire", "os.system")):
        with pytest.raises(pickle.UnpicklingError):
            replaying._CoreOnly(io.BytesIO()).find_class(*name)


def test_what_an_archive_says_of_paths_is_not_followed(tmp_path: Path, state: Path) -> None:
    """Names that lead out, links and devices: nothing is written but our own scratch files."""
    archive = tmp_path / "evil.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(recorder.flights(state)[0], "../../outside/flight-00000001.rec")
        link = tarfile.TarInfo("x/flight-00000002.rec")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    assert replay(archive) == ExitCode.DONE
    assert not list(tmp_path.parent.parent.glob("outside"))


@pytest.mark.parametrize("command", ["replay", "log"])
def test_a_file_that_is_no_report_is_told_in_one_line(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A text, an empty file, an archive of something else, an empty folder: what to name instead, and no Python."""
    (tmp_path / "text").write_text("no archive\n")
    (tmp_path / "empty").touch()
    (tmp_path / "folder").mkdir()
    with tarfile.open(tmp_path / "other.tgz", "w:gz") as tar:
        tar.add(tmp_path / "text", "text")
    for name in ("text", "empty", "folder", "other.tgz"):
        assert _read_back(command, tmp_path, name) == ExitCode.WRONG_USE
        said = capsys.readouterr().err.splitlines()[-1]
        cure = "name the file that `hostd report` wrote, or a state directory"
        assert said == f"{tmp_path / name}: it is no report; {cure}"
    assert _read_back(command, tmp_path, "nowhere") == ExitCode.WRONG_USE
    assert capsys.readouterr().err.endswith("nowhere: No such file or directory\n")


@pytest.mark.parametrize("command", ["replay", "log"])
def test_half_a_report_is_called_that(
    command: str, tmp_path: Path, state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A copy that was broken off: not "no report", but to be copied again."""
    with tarfile.open(tmp_path / "whole.tgz", "w:gz") as tar:
        tar.add(state, "a")
    half = (tmp_path / "whole.tgz").read_bytes()
    (tmp_path / "half.tgz").write_bytes(half[: len(half) // 2])
    assert _read_back(command, tmp_path, "half.tgz") == ExitCode.WRONG_USE
    assert "half.tgz: it is cut short or damaged; copy it again" in capsys.readouterr().err


def _read_back(command: str, folder: Path, name: str) -> int:
    places = ["--with", folder / name, "--state-dir", folder, "--runtime-dir", folder]
    return main.main([command, *map(str, places if command == "log" else [folder / name])])


# -- report ----------------------------------------------------------------------------------


def report(folder: Path, state: Path, config: Path) -> tarfile.TarFile:
    words = ["report", "-o", folder / "r.tgz", "--state-dir", state, "--config", config]
    assert main.main([str(w) for w in (*words, "--runtime-dir", folder / "none", "--node", "a")]) == ExitCode.DONE
    return tarfile.open(folder / "r.tgz")


CONF = """
# the password is on a note in the safe
# password = "0ld-s3cret"
[cluster]
name = "example"
nodes = ["a", "b"]
key = "/etc/hostd/cluster.key"
[[fencing.device]]
agent = "fence_x"
params = { ip = "10.0.0.1", username = "hostd", passwd = 'hunter2"x', "snmp_community" = "publ1c-not" }
secrets = { password = "/etc/hostd/ipmi" }
[[notify]]
type = "webhook"
params = { url = "https://hooks.example.org/T0/B0/h00k-token", headers = { Authorization = "Basic h00k-pw" } }
[service.web]
agent = "httpd"
params = { url = "http://172.23.2.16/" }
[service.mysql]
agent = "mysql"
params = { password = { a = "s3cret-a", b = "s3cret-b" }, token = \"\"\"line
two-of-it\"\"\" }
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    folder = tmp_path / "conf.d"
    folder.mkdir()
    (folder / "00.toml").write_text(CONF)
    return folder


def test_a_report_explains_and_can_be_replayed(
    tmp_path: Path, state: Path, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a daemon, too: recorder, timeline, conf.d, status or why there is none, versions; for root only."""
    with report(tmp_path, state, config) as tar:
        names = {"/".join(Path(name).parts[1:]) for name in tar.getnames()}
    expected = {"timeline.jsonl", "conf.d/00.toml", "status.json", "check.txt", "versions.json", "flight-00000001.rec"}
    assert {f"a/{name}" for name in expected} <= names
    assert (tmp_path / "r.tgz").stat().st_mode & 0o077 == 0
    assert replay(tmp_path / "r.tgz") == ExitCode.DONE
    assert "the same effects come out" in capsys.readouterr().out


def test_no_secret_is_in_a_report(tmp_path: Path, state: Path, config: Path) -> None:
    """Whatever quotes, tables or lines it stands in, and wherever else it turns up; comments and the rest stay."""
    (state / "evidence").mkdir()
    (state / "evidence" / "x").write_text("ps: mysqladmin -ps3cret-a")
    with report(tmp_path, state, config) as tar:
        bodies = {m.name: source.read() for m in tar if (source := tar.extractfile(m)) is not None}
    for name, body in bodies.items():
        for secret in (b"hunter2", b"publ1c", b"s3cret", b"two-of-it", b"h00k"):
            assert secret not in body, name
    (conf,) = (body.decode() for name, body in bodies.items() if name.endswith("conf.d/00.toml"))
    for kept in (
        "# the password is on",
        'key = "/etc/hostd/cluster.key"',
        'password = "/etc/hostd/ipmi"',
        "10.0.0.1",
        "http://172.23.2.16/",
    ):
        assert kept in conf


def test_a_file_that_cannot_be_cleaned_is_left_out_and_named(tmp_path: Path, state: Path, config: Path) -> None:
    """A secret of three letters cannot be replaced everywhere; a broken file cannot be read at all."""
    (config / "10.toml").write_text('[x]\npassword = ["abc"]\n')
    (config / "20.toml").write_text('password = "unclosed\n')
    with report(tmp_path, state, config) as tar:
        bodies = {
            Path(m.name).name: source.read().decode(errors="replace")
            for m in tar
            if (source := tar.extractfile(m)) is not None
        }
    assert "10.toml" not in bodies and "20.toml" not in bodies
    assert "conf.d/10.toml: password could not be hidden" in bodies["left-out.txt"]
    assert "conf.d/20.toml" in bodies["left-out.txt"] and "unclosed" not in bodies["left-out.txt"]


def test_the_example_of_the_project_is_given_away_whole(tmp_path: Path) -> None:
    """Nothing in it is secret, so nothing of it is changed or left out."""
    folder = Path(__file__).parents[2] / "conf.d"
    texts, secrets, left_out = redaction.of_configuration(Directories(config=folder))
    assert texts == {path.name: path.read_text().replace('"…"', '"***"') for path in folder.glob("*.toml")}
    assert not secrets and not left_out
