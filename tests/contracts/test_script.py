"""The script agent: Heartbeat's contract for resource.d, held against the rules of its ResourceManager."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hostd.api import ConfigError, Health
from hostd.api.foreign.initscripts import Verdict, by_words_of_heartbeat
from hostd.commands.agent_show import find
from hostd.config import Directories
from hostd.jobs import Verb
from hostd.registry import Registry
from tests.contracts.bench import Bench

Benches = Callable[..., Bench]

WE_OWN_RESOURCE = """
  case "$1" in
    *[Nn][Oo][Tt]\\ *[Rr]unning*)	exit 3;;
    *[Rr]unning*|*OK*)			exit 0;;
    *)					exit 3;;
  esac
"""
"""The very lines of ResourceManager 3.0.6."""

KEEPS = """
echo "$*" >> {folder}/calls
for action; do :; done
case $action in
  start) touch {folder}/state ;;
  stop) rm -f {folder}/state ;;
  status) [ -e {folder}/state ] && echo "$1 is running" || echo "$1 is stopped"; exit 0 ;;
esac
"""


@pytest.fixture
def benches(tmp_path: Path) -> Iterator[Benches]:
    """Makes a bench for ``script:probe ARGUMENTS``, whose body is given."""
    made: list[Bench] = []

    def make(body: str, arguments: str = "", **params: Any) -> Bench:
        script = tmp_path / "resource.d" / "probe"
        script.parent.mkdir(exist_ok=True)
        script.write_text(f"#!/bin/sh\n{body}\n".replace("{folder}", str(tmp_path)))
        script.chmod(0o755)
        made.append(
            Bench(tmp_path, f"script:probe {arguments}".strip(), {"path": f"/nowhere:{script.parent}"} | params)
        )
        return made[-1]

    yield make
    for bench in made:
        bench.close()


def calls(tmp_path: Path) -> list[str]:
    return (tmp_path / "calls").read_text().splitlines()


def test_arguments_come_first_and_the_action_last(benches: Benches, tmp_path: Path) -> None:
    """``name::arg1::arg2`` of haresources is ``name arg1 arg2 start``; start only if status says no."""
    bench = benches(KEEPS, "/dev/sdb1 /data")
    assert bench.run(Verb.VALIDATE).ok
    assert bench.run(Verb.MONITOR).health is Health.STOPPED
    assert bench.run(Verb.START).ok and bench.run(Verb.START).ok
    assert bench.run(Verb.MONITOR).health is Health.RUNNING
    assert bench.run(Verb.STOP).ok and bench.run(Verb.STOP).ok
    assert bench.run(Verb.MONITOR).health is Health.STOPPED
    assert calls(tmp_path).count("/dev/sdb1 /data start") == 1
    assert set(calls(tmp_path)) == {f"/dev/sdb1 /data {action}" for action in ("start", "stop", "status")}


@pytest.mark.parametrize(
    "said",
    [
        "running", "Running", "is running OK", "OK", "not running", "NOT Running", "not really running", "ok",
        "RUNNING", "stopped", "", "notrunning", "not\nrunning", "not up\nbut running", "Resource is stopped",
    ],
)  # fmt: skip
def test_words_are_read_as_resourcemanager_reads_them(said: str) -> None:
    """Its own lines are the judge."""
    judged = subprocess.run(["sh", "-c", WE_OWN_RESOURCE, "sh", said], check=False).returncode
    assert by_words_of_heartbeat(said) is (Verdict.RUNNING if judged == 0 else Verdict.STOPPED)


def test_words_count_and_the_code_does_not_but_a_contradiction_is_told(benches: Benches) -> None:
    """As in Heartbeat, which ignores the code."""
    outcome = benches("echo probe is running; exit 3").run(Verb.MONITOR)
    assert outcome.health is Health.RUNNING and "with exit code 3; the words count" in outcome.output


def test_a_stop_that_fails_is_tried_again(benches: Benches, tmp_path: Path) -> None:
    """Heartbeat tries ten times, a second apart."""
    bench = benches(
        "[ $1 = stop ] || exit 0\nn=$(cat {folder}/n 2>/dev/null || echo 0); echo $((n+1)) > {folder}/n; [ $n -ge 1 ]"
    )
    assert bench.run(Verb.STOP).ok
    assert (tmp_path / "n").read_text().strip() == "2"


def test_a_stop_that_never_works_is_a_failure_if_it_runs_and_forgiven_if_not(benches: Benches) -> None:
    """Heartbeat reboots in the first case; in the second it only complains of the script."""
    running = benches("[ $1 = status ] && { echo running; exit 0; }; echo cannot; exit 1").run(
        Verb.STOP, timeout_ms=2_500
    )
    assert not running.ok and "cannot (exit code 1)" in running.reason
    assert benches("exit 1").run(Verb.STOP, timeout_ms=2_500).ok


def test_a_stop_that_lies_is_caught(benches: Benches) -> None:
    """Heartbeat does not look; hostd does."""
    outcome = benches("[ $1 != status ] || echo running").run(Verb.STOP)
    assert not outcome.ok and "still says that it runs" in outcome.reason


def test_a_script_without_status_is_known_by_what_was_done_with_it(benches: Benches) -> None:
    """Hooks that only act on start and stop, as sites have them."""
    bench = benches("echo $1 >> {folder}/calls", status="none")
    assert bench.run(Verb.MONITOR).health is Health.STOPPED
    assert bench.run(Verb.START).ok and bench.run(Verb.MONITOR).health is Health.RUNNING
    assert bench.run(Verb.STOP).ok and bench.run(Verb.MONITOR).health is Health.STOPPED


def test_a_failed_start_is_told_with_its_words(benches: Benches) -> None:
    """And its exit code."""
    outcome = benches("[ $1 = start ] && { echo no disk; exit 9; }; exit 0").run(Verb.START)
    assert "no disk (exit code 9)" in outcome.reason


def test_a_script_that_is_missing_or_not_executable_is_told(benches: Benches, tmp_path: Path) -> None:
    """Heartbeat takes only executable files, from the first folder that has one."""
    bench = benches("exit 0")
    (tmp_path / "resource.d" / "probe").chmod(0o644)
    for verb in (Verb.VALIDATE, Verb.START):
        outcome = bench.run(verb)
        assert "no executable probe in /nowhere or" in outcome.reason and outcome.cure
    assert bench.run(Verb.MONITOR).health is Health.STOPPED and bench.run(Verb.STOP).ok


def test_arguments_with_slashes_are_no_path_of_an_agent(tmp_path: Path) -> None:
    """``hostd-agent run "script:Filesystem /dev/sdb1 /data" start`` means the agent script."""
    registry = Registry.load(Directories(), system=tmp_path / "none")
    agent, reference = find(registry, "script:Filesystem /dev/sdb1 /data")
    assert (agent.name, reference) == ("script", "script:Filesystem /dev/sdb1 /data")


@pytest.mark.parametrize("reference", ["script", "script:", "script:a/b", "script:../x", 'script:x "y'])
def test_a_reference_to_no_script_is_refused(reference: str, tmp_path: Path) -> None:
    """With what to write instead."""
    with pytest.raises(ConfigError, match=r"write script:NAME|close the quotes"):
        Registry.load(Directories(), system=tmp_path / "none").parameters(reference)
