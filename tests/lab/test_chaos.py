"""Two minutes of chaos in every run of the tests; `./test chaos --minutes 60` is for longer."""

import re
import subprocess
import sys
from types import SimpleNamespace
from typing import NamedTuple

import pytest

from tests.lab.chaos import Verdict
from tests.lab.chaos_faults import DECK, draw
from tests.lab.environment import ROOT
from tests.lab.observer import Double

pytestmark = pytest.mark.lab

SEED, MINUTES = 2, 2
"""From fencing and MariaDB (seeds 0 to 4) over to no fencing and Apache."""


class Stage(NamedTuple):
    """A site on which the observer saw this."""

    fencing: bool
    doubles: list[Double]

    @property
    def watch(self) -> "Stage":
        return self

    @property
    def observer(self) -> SimpleNamespace:
        return SimpleNamespace(doubles=lambda since_ms: [d for d in self.doubles if d.from_ms >= since_ms])


def judged(*, fencing: bool, duration_ms: float, deaf: tuple[float, float] | None = None) -> list[str]:
    """What is said of an address that is doubled from the second 10.0 of a round on."""
    double = Double("172.23.2.15", ("clustnode1", "clustnode2"), 10_000, duration_ms)
    verdict = Verdict(Stage(fencing, [double]), 0, [deaf] if deaf else [], is_anyone_away=False)
    return [harm.what for harm in verdict.of_addresses(repaired_ms=20_000)]


def test_a_doubled_address_is_harm() -> None:
    """Longer than promised, and no silence on the LAN that would excuse it."""
    assert judged(fencing=False, duration_ms=30) == []
    assert judged(fencing=False, duration_ms=900) == [
        "172.23.2.15 had two owners for 900 ms, from 10.00 s of the round (repaired at 20.00 s)"
    ]


def test_only_without_fencing_does_a_silent_lan_excuse() -> None:
    """Both hold it while no ARP passes, and for a moment after; never if a shot would have decided."""
    assert judged(fencing=False, duration_ms=900, deaf=(5_000, 10_500)) == []
    assert judged(fencing=False, duration_ms=900, deaf=(5_000, 8_000)) != []
    assert judged(fencing=False, duration_ms=60_000, deaf=(5_000, 10_500)) != []
    assert judged(fencing=True, duration_ms=900, deaf=(5_000, 10_500)) != []


@pytest.mark.timeout(600)
def test_two_minutes_of_chaos_find_no_harm() -> None:
    """No two owners of an address, no acknowledged row lost, no server twice, and each round ends well."""
    words = [sys.executable, "-m", "tests.lab.chaos", "--seed", str(SEED), "--minutes", str(MINUTES)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=550, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    played = re.search(r"^(\d+) rounds, 0 with harm$", done.stdout, re.MULTILINE)
    assert played and int(played[1]) > 1, done.stdout


def test_a_seed_is_a_schedule() -> None:
    """The same seed draws the same faults, and all kinds come in some."""
    services = ("mysql", "six")
    assert draw(7, services, 10) == draw(7, services, 10) != draw(8, services, 10)
    assert {strike.verb for seed in range(300) for strike in draw(seed, services, 10)} == set(DECK)
