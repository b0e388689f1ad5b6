"""``hostd-agent new``: the file that an agent begins with."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for each in (tmp_path, *tmp_path.parents[:2]):
        each.chmod(each.stat().st_mode | 0o011)
    return tmp_path


def agent(folder: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hostd.commands.agent_main", *argv],
        env=os.environ
        | {
            "PYTHONPATH": str(REPOSITORY),
            "HOSTD_RUNTIME_DIR": str(folder / "run"),
            "HOSTD_STATE_DIR": str(folder / "state"),
        },
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_a_new_agent_passes_as_it_is(folder: Path) -> None:
    """Every rule, the live ones too: whoever changes it sees which change broke what."""
    written = agent(folder, "new", "squid")
    assert written.returncode == 0 and "hostd-agent test ./squid.py" in written.stdout
    done = agent(folder, "test", "./squid.py", "--seed", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "squid: passed"


def test_a_new_agent_keeps_to_the_rules_of_style(folder: Path) -> None:
    """It is read and copied by people: lint and format find nothing in it."""
    agent(folder, "new", "squid")
    for check in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *check, "--config", str(REPOSITORY / "pyproject.toml"), "squid.py"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout


def test_nobodys_work_is_overwritten(folder: Path) -> None:
    """Exit code 2, and the file is as it was."""
    (folder / "squid.py").write_text("precious")
    done = agent(folder, "new", "squid")
    assert done.returncode == 2 and "is there already" in done.stderr
    assert (folder / "squid.py").read_text() == "precious"


def test_it_goes_where_it_is_wanted(folder: Path) -> None:
    """--directory; a folder that is not there is told."""
    (folder / "agents").mkdir()
    assert agent(folder, "new", "squid", "--directory", "agents").returncode == 0
    assert (folder / "agents" / "squid.py").exists()
    done = agent(folder, "new", "squid", "--directory", "nowhere")
    assert done.returncode == 2 and "nowhere" in done.stderr


@pytest.mark.parametrize("name", ["../evil", "two words", "1st", ""])
def test_a_name_that_no_agent_can_have_is_told(name: str, folder: Path) -> None:
    """Exit code 2, and nothing is written."""
    done = agent(folder, "new", name)
    assert done.returncode == 2 and "is no name for an agent" in done.stderr
    assert list(folder.rglob("*.py")) == []
