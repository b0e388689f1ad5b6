"""How many schedules per second does the simulator run?  This checkout beside others.

    python benchmarks/simulator.py [--seeds N] [--rounds R] [FOLDER ...]

A FOLDER holds another ``hostd``: an older checkout, or the core compiled by
``benchmarks/compile_core.py``.  Each runs the same seeds in a process of its
own, in turns, so that what else the machine does hits all; counted is CPU
time, and the best round of each.  With one folder or more their digests are
compared as well: a quicker simulator that does something else is none.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent.parent

CHILD = """
import sys, time
from hostd.sim import replay
first, seeds, digest = map(int, sys.argv[1:])
replay.many(range(2))  # imports and caches
began = time.process_time()
outcome = replay.many(range(first, first + seeds), digest=bool(digest), keep_going=True)
print(time.process_time() - began, outcome.digest, outcome.virtual_ms, len(outcome.harmed))
"""


class Round(NamedTuple):
    """One run of all seeds in one folder."""

    seconds: float
    """CPU time."""
    digest: str
    virtual_ms: int
    harmed: int


def run(folder: Path, first: int, seeds: int, digest: bool) -> Round:
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(first), str(seeds), str(int(digest))],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    )
    seconds, found, virtual_ms, harmed = done.stdout.split()
    return Round(float(seconds), found, int(virtual_ms), int(harmed))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=60)
    parser.add_argument("--from", dest="first", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("folders", nargs="*", type=Path)
    options = parser.parse_args()
    folders = [HERE, *(folder.resolve() for folder in options.folders)]
    best = {folder: run(folder, options.first, options.seeds, False) for folder in folders}
    for _ in range(options.rounds - 1):
        for folder in folders:
            best[folder] = min(best[folder], run(folder, options.first, options.seeds, False))
    rates = {folder: options.seeds / best[folder].seconds for folder in folders}
    for folder in folders:
        virtual_s = best[folder].virtual_ms / 1000
        print(
            f"{folder}: {rates[folder]:.1f} schedules per second of CPU, {virtual_s / best[folder].seconds:.0f} times "
            f"as fast as the clock, {rates[folder] / rates[HERE]:.2f} times this checkout, {best[folder].harmed} harmed"
        )
    told = [run(folder, options.first, options.seeds, True).digest for folder in folders if options.folders]
    if len(set(told)) > 1:
        print("the digests differ: these are not the same simulators")
    return int(len(set(told)) > 1)


if __name__ == "__main__":
    sys.exit(main())
