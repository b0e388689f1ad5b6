"""Two minutes of chaos in every run of the tests; `./test chaos --minutes 60` is for longer."""

import re
import subprocess
import sys
import time
from types import SimpleNamespace
from typing import NamedTuple

import pytest

from tests.lab import chaos_clock
from tests.lab.chaos import Verdict
from tests.lab.chaos_faults import DECK, draw
from tests.lab.environment import ROOT
from tests.lab.lab import Lab
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


def test_a_nodes_clock_is_set_and_no_clock_that_counts_from_the_boot(lab: Lab) -> None:
    """Of a process that runs already, and of those that it starts; the other node keeps the time."""
    script = (
        "import subprocess, sys, time\n"
        "def look(): return int(time.time()), int(time.time_ns() / 1e9), int(time.clock_gettime(time.CLOCK_BOOTTIME))\n"
        "for _ in sys.stdin:\n"
        "    time.sleep(0.01); child = [sys.executable, '-c', 'import time; print(int(time.time()))']\n"
        "    print(*look(), subprocess.run(child, capture_output=True, text=True).stdout.strip(), flush=True)\n"
    )
    for node in lab.nodes:
        chaos_clock.give(node)
    watched, other = (
        subprocess.Popen(
            node.command([sys.executable, "-c", script]),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=dict(node.environment()),
        )
        for node in lab.nodes
    )  # fmt: skip

    def look(process: subprocess.Popen[str]) -> list[int]:
        assert process.stdin is not None and process.stdout is not None
        print("look", file=process.stdin, flush=True)
        return [int(word) for word in process.stdout.readline().split()]

    with watched, other:
        for off in (0, -86_400, 10**9, 0):
            chaos_clock.put(lab.node1, off)
            now, boot = time.time(), time.clock_gettime(time.CLOCK_BOOTTIME)
            for process, expected in ((watched, now + off), (other, now)):
                wall, wall_ns, since_boot, childs = look(process)
                assert all(abs(seen - expected) < 10 for seen in (wall, wall_ns, childs))
                assert abs(since_boot - boot) < 10
        for process in (watched, other):
            assert process.stdin is not None
            process.stdin.close()


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
