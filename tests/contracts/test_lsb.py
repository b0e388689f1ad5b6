"""The lsb agent: against a script of Debian's own making, and against the ways in which scripts break the standard."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hostd.api import ConfigError, Health
from hostd.api.foreign.initscripts import Verdict, by_code, by_words, started_at_boot
from hostd.config import Directories
from hostd.jobs import Verb
from hostd.registry import Registry
from tests.contracts.bench import Bench

Benches = Callable[..., Bench]

DEBIAN = """#!/bin/sh
### BEGIN INIT INFO
# Provides: sleeper
### END INIT INFO
. /lib/lsb/init-functions
PIDFILE={folder}/sleeper.pid
DAEMON={folder}/sleeper
case "$1" in
  start) start-stop-daemon --start --quiet --oknodo --background --make-pidfile --pidfile $PIDFILE \\
           --exec $DAEMON -- 1000; for i in 1 2 3 4 5 6 7 8 9; do [ -s $PIDFILE ] || sleep 0.1; done ;;
  stop) start-stop-daemon --stop --quiet --oknodo --retry 5 --remove-pidfile --pidfile $PIDFILE --exec $DAEMON ;;
  status) status_of_proc -p $PIDFILE $DAEMON sleeper ;;
  *) echo "Usage: $0 start|stop|status"; exit 3 ;;
esac
"""

KEEPS = """
state={folder}/state
case "$1" in
  start) touch $state ;;
  stop) rm -f $state ;;
"""
"""Of a script that only remembers; its status follows."""


@pytest.fixture
def benches(tmp_path: Path) -> Iterator[Benches]:
    """Makes a bench for ``lsb:probe``, whose text is given."""
    made: list[Bench] = []

    def make(text: str, **params: Any) -> Bench:
        script = tmp_path / "init.d" / "probe"
        script.parent.mkdir(exist_ok=True)
        text = text.replace("{folder}", str(tmp_path))
        script.write_text(text if text.startswith("#!") else f"#!/bin/sh\n{text}\n")
        script.chmod(0o755)
        made.append(Bench(tmp_path, "lsb:probe", {"directory": script.parent} | params))
        return made[-1]

    yield make
    for bench in made:
        bench.close()


def test_a_real_init_script_goes_through_its_life(benches: Benches, tmp_path: Path) -> None:
    """Debian's own functions: a daemon is started, watched, found dead, started again and stopped."""
    (tmp_path / "sleeper").write_bytes(Path("/bin/sleep").read_bytes())
    (tmp_path / "sleeper").chmod(0o755)
    bench = benches(DEBIAN)
    assert bench.run(Verb.VALIDATE).ok
    assert bench.run(Verb.MONITOR).health is Health.STOPPED
    started = bench.run(Verb.START)
    assert started.ok and bench.run(Verb.START).ok, started
    (daemon,) = bench.left()
    assert (started.main_pid, daemon.name) == (daemon.pid, "sleeper")
    assert bench.run(Verb.MONITOR).health is Health.RUNNING
    assert bench.run(Verb.STOP).ok and bench.run(Verb.STOP).ok
    assert bench.left() == [] and bench.run(Verb.MONITOR).health is Health.STOPPED


@pytest.mark.parametrize(
    ("code", "health", "reason"),
    [
        (0, Health.RUNNING, ""),
        (1, Health.STOPPED, ""),  # a probe: what a crash left is no reason not to start
        (2, Health.STOPPED, ""),
        (3, Health.STOPPED, ""),
        (4, None, "(exit code 4)"),
        (150, None, "(exit code 150)"),
    ],
)
def test_each_status_code_has_its_meaning(benches: Benches, code: int, health: Health | None, reason: str) -> None:
    """LSB's table; what is reserved means nothing and fails."""
    outcome = benches(f"exit {code}").run(Verb.MONITOR)
    assert outcome.health is health and reason in outcome.reason and bool(outcome.cure) == (health is None)


def test_code_and_words_that_disagree_are_noticed(benches: Benches) -> None:
    """Until the operator says which of the two to believe."""
    bench = benches("echo probe is stopped; exit 0")
    outcome = bench.run(Verb.MONITOR)
    assert 'exit code 0 means running, and it says "probe is stopped"' in outcome.reason
    assert "status_by" in outcome.cure
    assert bench.run(Verb.MONITOR, status_by="words").health is Health.STOPPED
    assert bench.run(Verb.MONITOR, status_by="code").health is Health.RUNNING


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("probe is running", Verdict.RUNNING),
        ("probe (pid 7) is running...", Verdict.RUNNING),
        ("probe is not running", Verdict.STOPPED),
        ("probe is not currently running", Verdict.STOPPED),
        ("probe dead but pid file exists", Verdict.STOPPED),
        ("master is running, worker is stopped", Verdict.UNKNOWN),
        ("", Verdict.UNKNOWN),
    ],
)
def test_only_plain_words_count(text: str, verdict: Verdict) -> None:
    """A false alarm costs as much as a missed one."""
    assert by_words(text) is verdict
    assert by_code(0) is Verdict.RUNNING


def test_a_script_that_fails_where_it_should_tolerate_is_tolerated(benches: Benches) -> None:
    """Start of what runs and stop of what is stopped must give 0; those that give 1 work here all the same."""
    bench = benches(
        "state={folder}/state\ncase $1 in\n"
        "start) [ ! -e $state ] || exit 1; touch $state;;\nstop) [ -e $state ] || exit 1; rm $state;;\n"
        "status) [ -e $state ] || exit 3;;\nesac"
    )
    assert bench.run(Verb.STOP).ok
    assert bench.run(Verb.START).ok and bench.run(Verb.START).ok
    assert bench.run(Verb.STOP).ok and bench.run(Verb.STOP).ok


def test_a_real_failure_is_told_in_the_scripts_words(benches: Benches) -> None:
    """With the meaning and the cure of its code."""
    outcome = benches("[ $1 = status ] && exit 3; echo no daemon here; exit 5").run(Verb.START)
    assert "no daemon here (exit code 5)" in outcome.reason and "install" in outcome.cure


def test_a_status_that_always_says_0_is_caught_by_its_first_stop(benches: Benches) -> None:
    """A stop is asked after: nothing that still says that it runs is taken for stopped."""
    bench = benches(KEEPS + "  status) exit 0 ;;\nesac")
    assert bench.run(Verb.START).ok
    outcome = bench.run(Verb.STOP, timeout_ms=3_000)
    assert not outcome.ok and "still says running" in outcome.reason and "always" in outcome.cure


def test_a_start_that_lies_is_caught(benches: Benches) -> None:
    """It says yes, and its status never does."""
    outcome = benches("[ $1 != status ] || exit 3").run(Verb.START, timeout_ms=3_000)
    assert not outcome.ok and "still says stopped" in outcome.reason


def test_a_start_that_is_done_a_little_later_is_waited_for(benches: Benches) -> None:
    """Many scripts return before their daemon is there."""
    bench = benches(
        "state={folder}/state\ncase $1 in\nstart) (sleep 0.7; touch $state) >/dev/null 2>&1 &;;\n"
        "stop) rm -f $state;;\nstatus) [ -e $state ] || exit 3;;\nesac"
    )
    assert bench.run(Verb.START).ok and bench.run(Verb.MONITOR).health is Health.RUNNING


def test_a_hanging_script_ends_at_the_time_limit(benches: Benches) -> None:
    """With evidence, and nothing is left of it."""
    bench = benches("sleep 1000")
    for verb in (Verb.MONITOR, Verb.STOP):
        outcome = bench.run(verb, timeout_ms=600)
        assert outcome.timed_out and outcome.evidence and bench.left() == []


def test_what_is_not_installed_does_not_run(benches: Benches, tmp_path: Path) -> None:
    """Unless processes of it are there: then nobody can say, and nothing is started elsewhere."""
    bench = benches(KEEPS + "esac\n[ $1 != start ] || setsid sleep 1000 &")
    assert bench.run(Verb.START).ok and bench.left()
    (tmp_path / "init.d" / "probe").unlink()
    assert "processes of it run" in bench.run(Verb.MONITOR).reason
    assert not bench.run(Verb.STOP).ok
    bench.close()
    assert bench.run(Verb.MONITOR).health is Health.STOPPED and bench.run(Verb.STOP).ok


def test_validate_tells_what_is_wrong_with_the_script(benches: Benches, tmp_path: Path) -> None:
    """Missing, not executable, no status."""
    bench = benches("case $1 in start) ;; stop) ;; esac")
    assert "has no action status" in bench.run(Verb.VALIDATE).reason
    (tmp_path / "init.d" / "probe").chmod(0o644)
    assert "not executable" in bench.run(Verb.VALIDATE).reason
    (tmp_path / "init.d" / "probe").unlink()
    assert "No such file" in bench.run(Verb.VALIDATE).reason


def test_a_script_that_the_system_starts_at_boot_is_found(tmp_path: Path) -> None:
    """It would run on both nodes."""
    (tmp_path / "rc3.d").mkdir()
    assert started_at_boot("probe", tmp_path) == ""
    (tmp_path / "rc3.d" / "S01probe").touch()
    assert started_at_boot("probe", tmp_path).endswith("rc3.d/S01probe")


@pytest.mark.parametrize("option", [[], ["--json"]])
def test_what_may_be_set_is_shown(option: list[str]) -> None:
    """A default that is a path included."""
    argv = [sys.executable, "-m", "hostd.commands.agent_main", "show", "lsb:probe", *option]
    said = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert said.returncode == 0 and '"/etc/init.d"' in said.stdout, said.stderr


@pytest.mark.parametrize("reference", ["lsb", "lsb:", "lsb:a/b", "lsb:../x", "lsb:.x"])
def test_a_reference_to_no_script_is_refused(reference: str, tmp_path: Path) -> None:
    """A name is a name, and no path."""
    with pytest.raises(ConfigError, match="write lsb:NAME"):
        Registry.load(Directories(), system=tmp_path / "none").parameters(reference)
