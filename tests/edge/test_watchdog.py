"""The watchdog: what feeds it, what starves it, when it is let go; by a fake device behind the seam."""

import errno
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from hostd import config, host, keys, watchdog
from hostd.clock import now_ms
from hostd.config import Configuration, Directories
from hostd.core.plan import Plan, Timers
from hostd.messages import Alive, WatchdogIs
from hostd.registry import Registry
from hostd.watchdog import BEAT_MAX_MS, WORD_MAX_MS, KernelDevice, Watchdog

WANTED = config.Watchdog(Path("/dev/watchdog"), 10_000)


class FakeDevice:
    """Writes down what is done to it, one line each, into a file that it keeps open like a device."""

    identity = "fake"
    can_be_closed = True

    def __init__(self, journal: Path) -> None:
        self._file = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC)
        self._note("open")

    def _note(self, what: str) -> None:
        os.write(self._file, f"{what}\n".encode())

    def set_timeout(self, seconds: int) -> int:
        self._note(f"timeout {seconds}")
        return seconds

    def feed(self) -> None:
        self._note("fed")

    def let_go(self) -> None:
        self._note("V")

    def close(self) -> None:
        self._note("close")
        os.close(self._file)

    def fileno(self) -> int:
        return self._file


class Bench:
    """A watchdog with a fake device; ``refusal``: what the opening fails with."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.journal = folder / "journal"
        self.refusal: int | None = None
        self.words: list[WatchdogIs] = []
        monkeypatch.setattr(watchdog, "open_device", self._open)
        self.dog = Watchdog(self.words.append)

    def _open(self, path: Path) -> FakeDevice:
        if self.refusal is not None:
            raise OSError(self.refusal, os.strerror(self.refusal), str(path))
        return FakeDevice(self.journal)

    @property
    def lines(self) -> list[str]:
        return self.journal.read_text().splitlines()

    def feeds(self, *, word_ms: int = 0, beat_ms: int = 0) -> bool:
        """Is it fed by a word and a beat of these ages?"""
        before = len(self.lines)
        self.dog._fed_at_ms = 0
        self.dog.hear(Alive("", True, now_ms() - word_ms, now_ms() - beat_ms))
        return self.lines[before:] == ["fed"]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch)


def test_without_one_in_conf_d_nothing_is_opened(bench: Bench) -> None:
    """And there is nothing to tell."""
    bench.dog.want(None)
    bench.dog.hear(Alive("", True, now_ms(), now_ms()))
    bench.dog.let_go()
    assert bench.dog.word() is None and bench.words == [] and not bench.journal.exists()


def test_it_is_armed_with_the_time_of_conf_d(bench: Bench) -> None:
    """The brain is told the time, and the longest that a machine without beats may live on."""
    bench.dog.want(WANTED)
    assert bench.lines == ["open", "timeout 10", "fed"]
    assert bench.words == [WatchdogIs(10_000, 10_000 + BEAT_MAX_MS, "fake", "")]


def test_only_a_fresh_word_with_a_fresh_beat_feeds(bench: Bench) -> None:
    """What queued while the host stood still feeds nothing, nor does a brain without a heart."""
    bench.dog.want(WANTED)
    assert bench.feeds()
    assert bench.feeds(word_ms=WORD_MAX_MS - 500, beat_ms=BEAT_MAX_MS - 500)
    assert not bench.feeds(word_ms=WORD_MAX_MS + 1)
    assert not bench.feeds(beat_ms=BEAT_MAX_MS + 1)
    assert not bench.feeds(beat_ms=now_ms())  # 0: no heart has told of a beat
    assert bench.feeds()


def test_an_end_in_good_order_lets_it_go_and_no_other(bench: Bench) -> None:
    """The magic character is written for leave and detach only."""
    bench.dog.want(WANTED)
    bench.dog.let_go()
    assert bench.lines[-2:] == ["V", "close"]
    bench.dog.want(WANTED)
    bench.dog.abandon()
    assert bench.lines[-2:] == ["fed", "close"]


def test_a_device_that_is_busy_is_tried_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """And until then the status says who is to blame."""
    bench.refusal = errno.EBUSY
    bench.dog.want(WANTED)
    assert bench.words == [WatchdogIs(0, 0, "", "another program holds it")]
    bench.dog.tick()
    due = bench.dog.wake_at_ms()
    assert due is not None and due > now_ms()
    bench.refusal = None
    monkeypatch.setattr(watchdog, "now_ms", lambda: due)
    bench.dog.tick()
    assert bench.words[-1].timeout_ms == 10_000 and bench.dog.wake_at_ms() is None


def test_a_reload_sets_another_time_or_lets_it_go(bench: Bench) -> None:
    """Without a moment in which it is not armed, unless it is not wanted any more."""
    bench.dog.want(WANTED)
    bench.dog.want(config.Watchdog(WANTED.device, 20_000))
    assert bench.lines == ["open", "timeout 10", "fed", "timeout 20", "fed"]
    bench.dog.want(None)
    assert bench.lines[-2:] == ["V", "close"] and bench.dog.word() is None


def test_a_first_start_is_fed_by_the_host_alone_and_given_up(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose hostd cannot start must not reset itself again and again; nothing was promised yet."""
    clock = [5_000_000]
    monkeypatch.setattr(watchdog, "now_ms", lambda: clock[0])
    monkeypatch.setattr(watchdog, "facts", lambda path: {"state": "inactive"})
    bench.dog.want(WANTED)
    for _ in range(3):
        due = bench.dog.wake_at_ms()
        assert due is not None and due <= clock[0] + watchdog.START_FEED_MS
        clock[0] = due
        bench.dog.tick()
    assert bench.lines == ["open", "timeout 10", "fed", "fed", "fed", "fed"]
    clock[0] += watchdog.START_MAX_MS
    bench.dog.tick()
    assert bench.lines[-2:] == ["V", "close"] and bench.dog.wake_at_ms() is None
    assert bench.words[-1].timeout_ms == 0 and "did not come to turn" in bench.words[-1].detail
    bench.dog.hear(Alive("", True, clock[0], clock[0]))  # at last
    assert bench.lines[-3:] == ["open", "timeout 10", "fed"] and bench.words[-1].timeout_ms == 10_000


@pytest.mark.parametrize("state", ["inactive", "active"])
def test_after_the_first_turn_nobody_but_a_healthy_brain_feeds(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    """Nor from the start if it ran already: an earlier hostd was killed, and its promise holds."""
    clock = [5_000_000]
    monkeypatch.setattr(watchdog, "now_ms", lambda: clock[0])
    monkeypatch.setattr(watchdog, "facts", lambda path: {"state": state})
    bench.dog.want(WANTED)
    if state == "inactive":
        clock[0] += 1_000
        bench.dog.hear(Alive("", True, clock[0], clock[0]))
    before = bench.lines
    clock[0] += 2 * watchdog.START_MAX_MS
    bench.dog.tick()
    assert bench.lines == before and bench.dog.wake_at_ms() is None


def test_what_is_no_watchdog_is_not_taken_for_one() -> None:
    """Every ioctl-compatible device will do, and /dev/null is none."""
    with pytest.raises(OSError) as caught:
        KernelDevice(Path("/dev/null"))
    assert caught.value.errno == errno.ENOTTY
    with pytest.raises(OSError, match="it is no watchdog"):
        watchdog.facts(Path("/dev/null"))


def test_the_kernel_is_spoken_to_by_its_numbers() -> None:
    """linux/watchdog.h: direction, size, 'W' and number, as _IOR and _IOWR make them."""

    def number(direction: int, size: int, command: int) -> int:
        return direction << 30 | size << 16 | ord("W") << 8 | command

    assert number(2, 40, 0) == watchdog._GETSUPPORT and watchdog._SUPPORT.size == 40
    assert number(2, 4, 5) == watchdog._KEEPALIVE
    assert number(3, 4, 6) == watchdog._SETTIMEOUT
    assert number(2, 4, 7) == watchdog._GETTIMEOUT


def test_whoever_holds_the_device_is_named(tmp_path: Path) -> None:
    """From the files that each process has open, not by opening the device."""
    assert watchdog.holder(Path("/dev/null"), proc=tmp_path) is None
    (tmp_path / "7" / "fd").mkdir(parents=True)
    (tmp_path / "7" / "comm").write_text("wd_keepalive\n")
    (tmp_path / "7" / "fd" / "3").symlink_to("/dev/null")
    assert watchdog.holder(Path("/dev/null"), proc=tmp_path) is None  # no watchdog by its name


# -- hostd itself: host, heart and brain, on no link ------------------------------------------


class Family:
    """hostd in a process of its own, with the fake device."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.journal = folder, folder / "journal"
        directories = Directories(config=folder, runtime=folder / "run", state=folder / "state")
        keys.make(folder / "key")
        configuration = Configuration(
            plan=Plan("c", ("dog-a", "dog-b"), timers=Timers(initdead_ms=600_000)),
            node="dog-a",
            key=folder / "key",
            links=(),
            resources=(),
            watchdog=WANTED,
        )
        registry = Registry.load(directories, system=folder / "none")
        self.pid = os.fork()
        if self.pid == 0:
            try:
                watchdog.open_device = lambda path: FakeDevice(self.journal)
                code = 99
                for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                    signal.signal(number, signal.SIG_DFL)
                code = host.run(configuration, registry, directories)
            finally:
                os._exit(code)

    @property
    def feedings(self) -> int:
        return self.journal.read_text().split().count("fed") if self.journal.exists() else 0

    def process(self, name: str) -> psutil.Process:
        if name == "host":
            return psutil.Process(self.pid)
        [found] = [child for child in psutil.Process(self.pid).children() if name in child.name()]
        return found

    def wait_for_feedings(self, count: int, within_s: float = 20) -> None:
        until, before = time.monotonic() + within_s, self.feedings
        while self.feedings < before + count:
            assert time.monotonic() < until, f"{self.feedings - before} feedings in {within_s} s"
            time.sleep(0.05)

    def end(self) -> int:
        _, status = os.waitpid(self.pid, 0)
        self.pid = 0
        return os.waitstatus_to_exitcode(status)

    def close(self) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Family]:
    if os.geteuid() != 0:
        pytest.skip("needs root, for netlink and packet sockets")
    made = Family(tmp_path_factory.mktemp("dog"))
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def another(tmp_path: Path) -> Iterator[Family]:
    if os.geteuid() != 0:
        pytest.skip("needs root, for netlink and packet sockets")
    made = Family(tmp_path)
    try:
        made.wait_for_feedings(3)
        yield made
    finally:
        made.close()


@pytest.mark.parametrize(("who", "limit_ms"), [("brain", WORD_MAX_MS), ("heart", BEAT_MAX_MS), ("host", 100)])
def test_a_life_that_stands_still_ends_the_feeding(family: Family, who: str, limit_ms: int) -> None:
    """Within the limit, and it goes on when the life does: a fake device would have reset this machine."""
    family.wait_for_feedings(3)
    process = family.process(who)
    process.suspend()
    try:
        time.sleep(limit_ms / 1_000 + 0.6)
        before = family.feedings
        time.sleep(1.5)  # three words of a brain
        assert family.feedings == before
    finally:
        process.resume()
    family.wait_for_feedings(3)


def test_without_a_link_it_is_fed_and_nobody_but_the_host_holds_it(family: Family) -> None:
    """Unplugged cables are no reason for a reset; a device that a heart holds would be busy for the next host."""
    family.wait_for_feedings(3)
    holders = {
        name: [fd for fd in Path(f"/proc/{family.process(name).pid}/fd").iterdir() if _points_to(fd, family.journal)]
        for name in ("host", "heart", "brain")
    }
    assert [name for name, files in holders.items() if files] == ["host"]


def _points_to(link: Path, file: Path) -> bool:
    try:
        return link.readlink() == file
    except OSError:
        return False


def test_leaving_lets_it_go(another: Family) -> None:
    """Nothing runs here any more that a reset could save anybody from."""
    os.kill(another.pid, signal.SIGTERM)
    assert another.end() == 0
    assert another.journal.read_text().split()[-2:] == ["V", "close"]


@pytest.mark.parametrize("how", [[signal.SIGKILL], [signal.SIGTERM, signal.SIGTERM]], ids=["killed", "by force"])
def test_any_other_end_leaves_it_running(another: Family, how: list[signal.Signals]) -> None:
    """Whoever starts hostd again has the device's time for it; else the machine resets."""
    brain = another.process("brain")
    if len(how) > 1:
        brain.suspend()  # so that it cannot leave in order first
    for number in how:
        os.kill(another.pid, number)
        time.sleep(0.3)
    assert another.end() != 0
    assert "V" not in another.journal.read_text().split()
