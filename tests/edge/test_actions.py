"""Actions in children: one outcome each, limits that strike, evidence, nothing left, nothing forgotten."""

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hostd import cgroups, processes
from hostd.actions import Actions
from hostd.api import Health
from hostd.cgroups import Groups
from hostd.clock import now_ms
from hostd.config import Directories
from hostd.jobs import Job, Outcome, Verb
from hostd.records import Records, file_name
from hostd.registry import Registry

ROGUE = '''"""Whatever a test asks of it."""
import os, subprocess, sys, time
from hostd.api import AgentError, Health, Parameters, hookimpl

@hookimpl
def parameters():
    return Parameters(any_others=True)

def act(resource):
    exec(resource.params["code"], {"resource": resource})

@hookimpl
def start(resource): act(resource)

@hookimpl
def stop(resource): act(resource)

@hookimpl
def monitor(resource):
    act(resource)
    return Health.RUNNING

@hookimpl
def main_process(resource):
    return resource.params.get("main")
'''

DAEMON = "import subprocess; p = subprocess.Popen(['sleep', '{seconds}'], start_new_session=True); p.returncode = 0"
"""A daemon as a careless agent starts it: a session of its own, its caller's output kept open."""


class Bench:
    """Actions on their own, with the loop that a host would run."""

    def __init__(self, folder: Path, kind: str) -> None:
        agents = folder / "agents"
        agents.mkdir(exist_ok=True)
        (agents / "rogue.py").write_text(ROGUE)
        self.folder = folder
        self.registry = Registry.load(Directories(agents=(agents,)), system=folder / "none")
        self.groups: Groups = cgroups.choose("bench", folder) if kind == "cgroup" else cgroups.Marks(f"bench-{folder}")
        self.selector = selectors.DefaultSelector()
        self.actions = Actions(
            self.registry,
            self.groups,
            node="bench",
            runtime=folder / "run",
            state=folder / "state",
            selector=self.selector,
        )

    def job(self, verb: Verb, agent: str = "rogue", timeout_ms: int = 10_000, **params: Any) -> Job:
        filled = {f.name: f.default for f in self.registry.parameters(agent).fields} | params
        return Job("web", "r", agent, verb, filled, timeout_ms)

    def run(self, verb: Verb, agent: str = "rogue", timeout_ms: int = 10_000, **params: Any) -> Outcome:
        """One action to its end."""
        outcomes: list[Outcome] = []
        self.actions.start(self.job(verb, agent, timeout_ms, **params), outcomes.append)
        self.turn_until(lambda: bool(outcomes) and not self.actions.busy)
        assert len(outcomes) == 1, "exactly one outcome"
        return outcomes[0]

    def turn_until(self, done: Any, limit_ms: int = 20_000) -> None:
        until = now_ms() + limit_ms
        while not done():
            assert now_ms() < until, "not in time"
            wake = self.actions.wake_at_ms()
            wait_ms = 20 if wake is None else max(0, min(20, wake - now_ms()))
            for key, _ in self.selector.select(wait_ms / 1000):
                key.data()
            self.actions.tick()

    def left(self) -> list[processes.Process]:
        return self.groups.in_resource("web", "r")

    def unfinished(self) -> tuple[str, ...]:
        return self.actions.unfinished()

    def close(self) -> None:
        for process in self.left():
            processes.kill(process)
        until = time.monotonic() + 5
        while (self.left() or self.has_cgroup()) and time.monotonic() < until:
            time.sleep(0.01)
            self.groups.tidy()

    def has_cgroup(self) -> bool:
        return isinstance(self.groups, cgroups.Cgroups) and self.groups.base.exists()


@pytest.fixture(params=["cgroup", "marks"])
def bench(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Bench]:
    """With cgroups where this machine has them, and without."""
    bench = Bench(tmp_path, request.param)
    if request.param == "cgroup" and not isinstance(bench.groups, cgroups.Cgroups):
        pytest.skip("no writable cgroup v2 on this machine")
    yield bench
    bench.close()


def test_a_process_that_was_started_outlives_its_action_and_is_named(bench: Bench) -> None:
    """start, monitor and stop of a real process, by the dummy agent."""
    started = bench.run(Verb.START, "dummy", process=True)
    assert started.ok and processes.is_same(started.main_pid, started.main_started)
    watched = bench.run(Verb.MONITOR, "dummy", process=True)
    assert (watched.health, watched.main_pid) == (Health.RUNNING, started.main_pid)
    stopped = bench.run(Verb.STOP, "dummy", process=True)
    assert stopped.ok and stopped.leftovers == 0
    assert not processes.is_same(started.main_pid, started.main_started)
    assert bench.run(Verb.MONITOR, "dummy", process=True).health is Health.STOPPED


def test_a_killed_process_is_a_failed_monitor(bench: Bench) -> None:
    """Gone is not the same as stopped cleanly."""
    started = bench.run(Verb.START, "dummy", process=True)
    os.kill(started.main_pid, signal.SIGKILL)
    outcome = bench.run(Verb.MONITOR, "dummy", process=True)
    assert not outcome.ok and outcome.reason == "the process is gone" and outcome.cure


@pytest.mark.parametrize("verb", [Verb.START, Verb.STOP, Verb.MONITOR])
def test_a_hanging_action_leaves_evidence_and_nothing_else(bench: Bench, verb: Verb) -> None:
    """The limit strikes, the evidence shows where, and all that the action started is gone."""
    code = DAEMON.format(seconds=77001) + "\nresource.run(['sleep', '77002'])"
    outcome = bench.run(verb, timeout_ms=700, code=code)
    assert outcome.timed_out and not outcome.ok
    assert outcome.reason == f"{verb.value} did not end within 0.7 s"
    evidence = Path(outcome.evidence).read_text()
    for expected in ("sleep 77002", "sleep 77001", "rogue.py", "nanosleep", "load ", "fd 1 →"):
        assert expected in evidence, evidence
    assert bench.left() == []
    assert bench.unfinished() == (() if verb is Verb.MONITOR else ("web",))


def test_a_command_that_ignores_sigterm_and_forks_is_gone_too(bench: Bench) -> None:
    """Whole groups are killed, whatever is in them."""
    script = "trap '' TERM HUP INT; setsid sleep 77003 & sleep 77004"
    outcome = bench.run(Verb.MONITOR, timeout_ms=500, code=f"resource.run(['sh', '-c', {script!r}])")
    assert outcome.timed_out
    assert bench.left() == []


def test_a_slow_monitor_never_kills_the_service(bench: Bench) -> None:
    """What strikes is the monitor's limit; the daemon started before goes on."""
    started = bench.run(Verb.START, "dummy", process=True)
    assert bench.run(Verb.MONITOR, "dummy", 300, process=True, hang="monitor").timed_out
    assert processes.is_same(started.main_pid, started.main_started)


def test_a_daemon_that_survives_its_stop_is_counted(bench: Bench) -> None:
    """The agent says stopped; its process group says otherwise."""
    assert bench.run(Verb.START, code=DAEMON.format(seconds=77005)).ok
    outcome = bench.run(Verb.STOP, code="pass")
    assert outcome.ok and outcome.leftovers == 1
    assert "sleep" in outcome.reason
    assert bench.unfinished() == ("web",)


def test_a_double_forked_daemon_is_counted(bench: Bench) -> None:
    """Its parent is process 1 and its session its own: still ours."""
    code = "resource.run(['sh', '-c', '(setsid sleep 77006 >/dev/null 2>&1 &)'])"
    assert bench.run(Verb.START, code=code).ok
    assert bench.run(Verb.STOP, code="pass").leftovers == 1


def test_a_daemon_that_goes_by_itself_within_the_grace_is_not_counted(bench: Bench) -> None:
    """A process that is on its way out when the stop returns is no leftover."""
    assert bench.run(Verb.STOP, code=DAEMON.format(seconds=0.15)).leftovers == 0


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("1 / 0", "agent's mistake: ZeroDivisionError: division by zero (rogue.py, line"),
        ("import sys; sys.exit(0)", "agent's mistake: SystemExit: 0"),
        ("import os; os._exit(5)", "monitor ended with exit status 5 before it answered"),
        ("import os; os.kill(os.getpid(), 9)", "monitor was killed by SIGKILL before it answered"),
        ("from hostd.api import AgentError; raise AgentError('x' * 100_000)", "x" * 100),
    ],
)
def test_whatever_an_agent_does_is_an_outcome(bench: Bench, code: str, reason: str) -> None:
    """It may raise, exit or die: the host hears of it in one sentence."""
    outcome = bench.run(Verb.MONITOR, code=code)
    assert not outcome.ok and not outcome.timed_out
    assert outcome.reason.startswith(reason)


def test_what_an_action_prints_is_kept(bench: Bench) -> None:
    """Both streams, of the agent and of its commands."""
    code = "import os, sys; print('one'); print('two', file=sys.stderr); os.system('echo three')"
    outcome = bench.run(Verb.MONITOR, code=code)
    assert all(word in outcome.output for word in ("one", "two", "three"))


def test_an_action_inherits_nothing_that_is_hostds(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """No open file, no systemd socket, no blocked or ignored signal; a session and a private folder of its own."""
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/nowhere")
    code = """
import os, signal, stat
files = [int(n) for n in os.listdir("/proc/self/fd")]
assert set(files) <= {0, 1, 2, 3, 4}, files
assert "NOTIFY_SOCKET" not in os.environ
assert os.getsid(0) == os.getpid()
assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL and not signal.pthread_sigmask(signal.SIG_BLOCK, ())
assert stat.S_IMODE(resource.run_dir.stat().st_mode) == 0o700
assert resource.run(["ls", "/proc/self/fd"]).stdout.split() == ["0", "1", "2", "3"]
"""
    outcome = bench.run(Verb.MONITOR, code=code)
    assert outcome.ok, outcome


def test_a_monitor_that_knows_the_main_process_is_not_asked_twice(bench: Bench) -> None:
    """What it leaves in ``main_pid`` is watched; ``main_process`` would have named another."""
    code = "import os; resource.main_pid = os.getppid()"
    found = bench.run(Verb.MONITOR, code=code, main=1)
    assert (found.ok, found.main_pid) == (True, os.getpid())
    assert bench.run(Verb.MONITOR, code="pass", main=os.getpid()).main_pid == os.getpid()


def test_a_monitor_is_recorded_with_its_cgroup_alone(bench: Bench) -> None:
    """All in there is to die with its host, so its number says nothing; elsewhere it is all that says who."""
    bench.actions.start(bench.job(Verb.MONITOR, code="resource.run(['sleep', '77013'])"), lambda _: None)
    bench.turn_until(lambda: any(p.name == "sleep" for p in bench.left()))
    (record,) = Records(bench.folder / "run" / "actions").all(processes.boot_id())
    assert bool(record.cgroup) is isinstance(bench.groups, cgroups.Cgroups)
    assert (record.pid == 0) is bool(record.cgroup)
    bench.actions.abort()
    bench.turn_until(lambda: not bench.actions.busy and bench.left() == [])


def test_a_second_start_beside_a_running_one_is_refused(bench: Bench) -> None:
    """One start or stop of a resource at a time."""
    outcomes: list[Outcome] = []
    bench.actions.start(bench.job(Verb.START, code="import time; time.sleep(0.3)"), outcomes.append)
    bench.actions.start(bench.job(Verb.STOP, code="pass"), outcomes.append)
    assert [o.reason for o in outcomes] == ["an earlier start of r is still there"]
    bench.turn_until(lambda: len(outcomes) == 2)


def test_aborted_actions_die_without_a_word_and_are_named(bench: Bench) -> None:
    """What a dead brain had begun: the start is unfinished, the daemons that it had started stay."""
    outcomes: list[Outcome] = []
    code = DAEMON.format(seconds=77007) + "\nresource.run(['sleep', '77008'])"
    bench.actions.start(bench.job(Verb.START, code=code), outcomes.append)
    bench.actions.start(bench.job(Verb.MONITOR, code="import time; time.sleep(1000)"), outcomes.append)
    bench.turn_until(lambda: sum(p.name == "sleep" for p in bench.left()) == 2)
    bench.actions.abort()
    bench.turn_until(lambda: not bench.actions.busy)
    assert outcomes == []
    assert bench.unfinished() == ("web",)
    assert [_argument(p.pid) for p in bench.left()] == ["77007"]


def test_a_failed_start_is_unfinished_until_a_stop_succeeds(bench: Bench) -> None:
    """A crash between the two must not let anybody trust a half-started service."""
    assert not bench.run(Verb.START, "dummy", fail="start").ok
    assert bench.unfinished() == ("web",)
    assert not bench.run(Verb.STOP, "dummy", fail="stop").ok
    assert bench.unfinished() == ("web",)
    assert bench.run(Verb.STOP, "dummy").ok
    assert bench.unfinished() == ()


def test_the_actions_of_a_killed_host_are_killed_by_the_next(bench: Bench) -> None:
    """Found by their records; the daemon that the start had spawned stays for its agent to stop."""
    child = os.fork()
    if child == 0:
        code = DAEMON.format(seconds=77009) + "\nresource.run(['sleep', '77010'])"
        bench.actions.start(bench.job(Verb.START, code=code), lambda _: None)
        bench.actions.start(bench.job(Verb.MONITOR, code="resource.run(['sleep', '77011'])"), lambda _: None)
        time.sleep(1000)
    try:
        bench.turn_until(lambda: len([p for p in bench.left() if p.name == "sleep"]) == 3)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    successor = Bench(bench.folder, "marks" if isinstance(bench.groups, cgroups.Marks) else "cgroup")
    assert successor.actions.recover() == ("web",)
    successor.turn_until(lambda: len(successor.left()) <= 1, 5_000)
    assert [_argument(p.pid) for p in successor.left()] == ["77009"]
    assert successor.actions.recover() == ("web",), "it stays unfinished for the next one too"


def test_a_number_that_was_used_again_is_never_killed(bench: Bench) -> None:
    """The record's pid lives, but it started at another time: a stranger."""
    stranger = subprocess.Popen(["sleep", "77012"], start_new_session=True)
    try:
        records = Records(bench.folder / "run" / "actions")
        look = processes.look(stranger.pid)
        assert look is not None
        place = bench.groups.open("web", "r", "t")
        bench_record = _record(place, stranger.pid, look.started - 1)
        records.write(bench_record)
        assert bench.actions.recover() == ("web",)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_records_of_an_earlier_boot_are_forgotten(bench: Bench) -> None:
    """Nothing of them can run, whatever has their numbers now."""
    import msgspec

    records = Records(bench.folder / "run" / "actions")
    place = bench.groups.open("web", "r", "t")
    records.write(msgspec.structs.replace(_record(place, os.getpid(), 1), boot="another"))
    bench.groups.close(place)
    assert bench.actions.recover() == ()
    assert list((bench.folder / "run" / "actions").iterdir()) == []


def test_a_torn_or_foreign_record_is_thrown_away(bench: Bench) -> None:
    """A power cut in the middle of a write leaves no trap."""
    folder = bench.folder / "run" / "actions"
    (folder / "web+r+change.json").write_bytes(b'{"service": "web", "reso')
    (folder / "web+r+change.4711.new").write_bytes(b"{")
    assert bench.actions.recover() == ()
    assert list(folder.iterdir()) == []


def test_evidence_files_are_bounded_in_number(bench: Bench) -> None:
    """A service that hangs every ten seconds does not fill the disk."""
    folder = bench.folder / "state" / "evidence"
    folder.mkdir(parents=True)
    for number in range(80):
        (folder / f"2020{number:04}.txt").write_text("old")
    outcome = bench.run(Verb.MONITOR, timeout_ms=200, code="import time; time.sleep(1000)")
    assert len(list(folder.iterdir())) == 50
    assert Path(outcome.evidence).exists()


def test_a_chatty_daemon_does_not_fill_the_runtime_directory(bench: Bench) -> None:
    """Output starts over when it has grown too large."""
    bench.run(Verb.MONITOR, code="print('x' * 2_000_000)")
    output = bench.folder / "run" / "output" / "web+r+monitor"
    assert output.stat().st_size > 1_000_000
    bench.actions.bound_output()
    assert output.stat().st_size == 0


def test_a_machine_without_a_mounted_cgroup_v2_gets_one_for_the_time_being(tmp_path: Path) -> None:
    """As on a machine with version 1 only; undone at the end, and the groups outlive it."""
    mount = cgroups._mount(tmp_path / "cgroup")
    if mount is None:
        pytest.skip("no cgroup v2 in this kernel or container")
    base = mount / f"hostd-test-{os.getpid()}"
    base.mkdir()
    groups = cgroups.Cgroups(base, mount)
    place = groups.open("web", "r", "t")
    daemon = subprocess.Popen(["sleep", "77013"])
    try:
        (Path(place.cgroup) / "cgroup.procs").write_text(str(daemon.pid))
        groups.close(place)
        assert [p.pid for p in groups.in_resource("web", "r")] == [daemon.pid]
        groups.tidy()
        assert list((tmp_path / "cgroup").iterdir()) == []
        assert cgroups._mount(tmp_path / "cgroup") == mount
        assert [p.pid for p in groups.in_resource("web", "r")] == [daemon.pid]
    finally:
        daemon.kill()
        daemon.wait()
        groups.tidy()


def test_different_names_never_share_a_file() -> None:
    """Not even names made to look alike."""
    names = [("a", "b+c"), ("a+b", "c"), ("a.b", "c"), ("a", "b.c"), ("..", "x"), ("a/b", "c"), ("a%2Fb", "c")]
    files = {file_name(*pair) for pair in names}
    assert len(files) == len(names)
    assert not any("/" in file or file.startswith(".") for file in files)


def _argument(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text().split("\0")[1]


def _record(place: cgroups.Place, pid: int, started: int) -> Any:
    from hostd.records import Record

    return Record(
        service="web",
        resource="r",
        action="start",
        changes=True,
        boot=processes.boot_id(),
        token="t",
        cgroup=place.cgroup,
        pid=pid,
        started=started,
    )
