"""Thousands of schedules from seeds, and that a seed is a run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hostd.sim import draws, faults, plans, replay

ROOT = Path(__file__).parent.parent.parent
MANY = 1_000


@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("fencing", [True, False], ids=["fencing", "no-fencing"])
def test_a_thousand_schedules_find_no_harm(fencing: bool) -> None:
    """No invariant of PROTOCOL.md section 4 breaks, and everything is well again in time."""
    outcome = replay.many(range(MANY), fencing=fencing)
    assert outcome.runs == MANY or outcome.harmed
    assert [(v.seed, v.harm, replay.command(v.seed, fencing, None)) for v in outcome.harmed] == []


def test_a_seed_gives_the_same_trace_under_two_hash_seeds() -> None:
    """Nothing iterates over a set: the digest of many traces does not depend on PYTHONHASHSEED."""
    said = []
    for hash_seed in ("1", "2"):
        command = [sys.executable, "-m", "hostd.sim", "run", "--seeds", "25", "--digest"]
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        said.append(run.stdout.splitlines()[-1])
    assert said[0].startswith("digest ")
    assert said[0] == said[1]


def test_every_fault_can_be_written_and_read_back() -> None:
    """A schedule printed by a failing seed can be replayed from its text."""
    seen = set()
    for seed in range(400):
        for _, fault in draws.draw(seed, plans.draw(seed), faults=20, over_ms=30_000):
            assert faults.parse(faults.words(fault)) == fault
            seen.add(type(fault))
    assert {kind.__name__ for kind in seen} == {kind.__name__ for kind in faults.KINDS.values()}


@pytest.mark.timeout(400)
def test_a_failing_schedule_is_made_smaller() -> None:
    """Shrinking keeps what the harm needs and drops the rest."""
    from hostd.sim import mutants

    name = "address-is-added-unasked"
    with mutants.applied(name):
        few = (replay.many(range(at, at + 20), fencing=False, mutant=name).harmed for at in range(0, 400, 20))
        seed = next(harmed[0].seed for harmed in few if harmed)
        plan, schedule = replay.drawn(seed, False)
        small = replay.shrunk(plan, schedule, seed)
        again = replay.simulate(plan, small, seed, replay.make_brain, over_ms=replay.OVER_MS)
    assert again.harm
    assert len(small) < len(schedule)
    assert set(small) <= set(schedule)
