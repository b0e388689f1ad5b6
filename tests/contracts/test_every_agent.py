"""The contract over every bundled agent that can make an instance of its own: no rule is broken.

``hostd-agent test`` against the real service, as its author would run it.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
SLOW = frozenset({"cyrus", "mysql"})
"""Their servers take seconds to start, fifty times: run by ``./test long``."""
NAMES = sorted(path.stem for path in (REPOSITORY / "agents").glob("*.py") if "def sandbox(" in path.read_text())


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.long] if n in SLOW else []) for n in NAMES])
def test_a_bundled_agent_breaks_no_rule(name: str, tmp_path: Path) -> None:
    """Exit code 0: nothing failed, and start, stop and monitor were really run."""
    done = subprocess.run(
        [sys.executable, "-m", "hostd.commands.agent_main", "test", name, "--json"],
        env=os.environ | {"HOSTD_STATE_DIR": str(tmp_path / "state"), "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.stdout, done.stderr
    answer = json.loads(done.stdout)
    broken = [
        f"{rule['id']}: expected {rule['expected']}; came {rule['came']} (seed {answer['seed']})"
        for rule in answer["rules"]
        if rule["result"] == "failed"
    ]
    skipped = [f"{rule['id']}: {rule['reason']}" for rule in answer["rules"] if rule["result"] == "skipped"]
    assert broken == [] and done.returncode == 0, skipped
