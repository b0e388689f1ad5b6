"""``hostd-agent`` as an operator meets it: words, facts and exit codes."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return os.environ | {
        "HOSTD_RUNTIME_DIR": str(tmp_path / "run"),
        "HOSTD_STATE_DIR": str(tmp_path / "state"),
        "HOSTD_NODE": "a",
        "PYTHONPATH": str(REPOSITORY),
    }


def agent(environment: dict[str, str], *argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hostd.commands.agent_main", *argv],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def facts(done: subprocess.CompletedProcess[str]) -> Any:
    answer = json.loads(done.stdout)
    assert answer["schema"] == 1
    return answer


def test_list_names_what_is_found_and_what_is_broken(environment: dict[str, str], tmp_path: Path) -> None:
    """With the reason, and exit code 0: the list is what was asked for."""
    (tmp_path / "torn.py").write_text("def (")
    done = agent(environment, "list", "--agents", str(tmp_path))
    assert done.returncode == 0
    assert "httpd" in done.stdout and "broken agent torn" in done.stdout and "SyntaxError" in done.stdout
    answer = facts(agent(environment, "list", "--json", "--agents", str(tmp_path)))
    assert "dummy" in [entry["name"] for entry in answer["agents"]]
    assert [entry["name"] for entry in answer["broken"]] == ["torn"]


def test_show_tells_parameters_and_limits(environment: dict[str, str]) -> None:
    """For people and for programs."""
    done = agent(environment, "show", "httpd")
    assert done.returncode == 0 and "url (str" in done.stdout and "start 40s" in done.stdout
    answer = facts(agent(environment, "show", "dummy", "--json"))
    token = next(entry for entry in answer["parameters"] if entry["name"] == "token")
    assert token["secret"] and token["default"] is None


def test_a_misspelt_agent_is_wrong_use(environment: dict[str, str]) -> None:
    """Exit code 2 and the nearest name."""
    for command in (("show", "htpd"), ("run", "htpd", "monitor")):
        done = agent(environment, *command)
        assert done.returncode == 2 and "did you mean httpd" in done.stderr


def test_run_keeps_a_state_from_one_action_to_the_next(environment: dict[str, str]) -> None:
    """start, monitor and stop by hand, each with its exit code."""
    params = ("process=true", "seconds=600")
    assert agent(environment, "run", "dummy", "monitor", *params).returncode == 1
    started = facts(agent(environment, "run", "dummy", "start", "--json", *params))
    assert started["ok"] and started["main_process"] and started["took_ms"] < 5_000
    monitored = agent(environment, "run", "dummy", "monitor", *params)
    assert monitored.returncode == 0 and "monitor of dummy: running after" in monitored.stdout
    assert agent(environment, "run", "dummy", "stop", *params).returncode == 0
    assert agent(environment, "run", "dummy", "monitor", *params).returncode == 1


def test_run_of_a_file_by_its_path(environment: dict[str, str], tmp_path: Path) -> None:
    """A new agent is tried before it is installed."""
    mine = tmp_path / "mine.py"
    mine.write_text((REPOSITORY / "agents" / "dummy.py").read_text())
    done = agent(environment, "run", str(mine), "validate", "seconds=5")
    assert done.returncode == 0 and "validate of mine: done" in done.stdout


def test_run_tells_every_wrong_parameter_at_once(environment: dict[str, str]) -> None:
    """Exit code 2; nothing was run."""
    done = agent(environment, "run", "dummy", "start", "seconds=x", "sceonds=3", "fail=foo")
    assert done.returncode == 2
    assert all(word in done.stderr for word in ("whole number", "did you mean seconds", "one of its values"))


def test_run_shows_reason_cure_and_evidence(environment: dict[str, str]) -> None:
    """Exit code 1."""
    failed = agent(environment, "run", "dummy", "start", "fail=start")
    assert failed.returncode == 1
    assert "reason: start fails as asked" in failed.stdout and 'cure: set fail = ""' in failed.stdout
    hung = facts(agent(environment, "run", "dummy", "start", "--timeout", "300ms", "--json", "hang=start"))
    assert hung["timed_out"] and Path(hung["evidence"]).exists()


def test_a_secret_comes_from_a_file_and_is_never_shown(environment: dict[str, str], tmp_path: Path) -> None:
    """Not even where everything else is."""
    secret = tmp_path / "secret"
    secret.write_text("hush-hush\n")
    done = agent(environment, "run", "dummy", "monitor", f"token=@{secret}", "--json")
    assert done.returncode == 1 and "hush-hush" not in done.stdout + done.stderr


def test_hostd_run_refuses_to_run_without_assertions(environment: dict[str, str]) -> None:
    """They are part of its safety."""
    done = subprocess.run(
        [sys.executable, "-O", "-m", "hostd.commands.main", "run"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 4 and "python -O" in done.stderr


def test_hostd_run_tells_a_missing_conf_d(environment: dict[str, str], tmp_path: Path) -> None:
    """Exit code 2, not a traceback."""
    done = subprocess.run(
        [sys.executable, "-m", "hostd.commands.main", "run", "--config", str(tmp_path / "nowhere")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2 and "nowhere" in done.stderr and "Traceback" not in done.stderr
