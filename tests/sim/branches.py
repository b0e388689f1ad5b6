"""Which branches of the core do the simulator's schedules reach, and which do they never?

    python -m tests.sim.branches [--seeds N] [--from SEED] [--states N]

Decides what counts: random schedules first, then the stories of
``tests/scenarios``, then the exhaustive search of small worlds; a branch that
only the later ones reach is rare.  Prints a table per file, and then each
branch that none of them reached, with its line.  ``wire`` and ``stream`` are left
out: the simulator hands snapshots over whole, and frames have tests of their
own (properties, fuzzing).  Harm is shown here and judged elsewhere.  Needs
coverage.py; hostd is imported only once it measures.
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import coverage

ROOT = Path(__file__).parents[2]
CORE = ROOT / "hostd" / "core"
NOT_OURS = ("wire.py", "stream.py")

Arc = tuple[int, int]
"""From a line to a line; a negative one is the end of the function that begins there."""


def random_schedules(first: int, seeds: int) -> None:
    from hostd.sim import replay

    for fencing in (True, False):
        replay.many(range(first, first + seeds // 2), fencing=fencing, keep_going=True, show=print)


def stories() -> None:
    from hostd.sim import story

    for path in sorted((ROOT / "tests" / "scenarios").glob("*.txt")):
        story.tell(story.read(path.read_text()))


def search(states: int) -> None:
    from hostd.sim import replay
    from hostd.sim.search import Search
    from hostd.sim.small_world import Budget, small_plan

    everything = Budget(boots=3, crashes=1, kills=1, cuts=1, deaths=1, fails=1, moves=1, leaves=1, late=1)
    for fencing in (True, False):
        Search(small_plan(fencing=fencing), replay.make_brain).run(everything, states_max=states, seconds_max=600)


def measured(stages: dict[str, Callable[[], None]]) -> list[dict[str, Any]]:
    """coverage.py's report of every file of the core, after each stage."""
    watch = coverage.Coverage(data_file=None, branch=True, include=[f"{CORE}/*"], config_file=False)
    reports = []
    with tempfile.TemporaryDirectory() as folder:
        for name, play in stages.items():
            print(f"{name} …", flush=True)
            watch.start()
            play()
            watch.stop()
            watch.json_report(outfile=f"{folder}/report.json")
            files = json.loads(Path(folder, "report.json").read_text())["files"]
            reports.append({Path(path).name: report for path, report in files.items()})
    return reports


def missing(report: dict[str, Any], name: str) -> list[Arc]:
    return [(start, end) for start, end in report[name]["missing_branches"]]


def told(name: str, arc: Arc) -> str:
    """A branch as a reader can find it."""
    start, end = arc
    lines = (CORE / name).read_text().splitlines()
    to = f"{end} `{lines[end - 1].strip()}`" if end > 0 else "the end of the function"
    return f"  {name}:{start} `{lines[start - 1].strip()}` never goes to {to}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=400, help="schedules, half of them with fencing (default 400)")
    parser.add_argument("--from", dest="first", type=int, default=0, help="the first seed (default 0)")
    parser.add_argument("--states", type=int, default=5_000, help="of each of the two searches (default 5000)")
    options = parser.parse_args()
    stages = {
        "schedules": lambda: random_schedules(options.first, options.seeds),
        "stories": stories,
        "search": lambda: search(options.states),
    }
    reports = measured(stages)
    names = sorted(name for name in reports[-1] if name not in NOT_OURS and missing_or_any(reports[-1], name))
    print(f"{'branches of':<16}{'all':>5}" + "".join(f"{stage:>12}" for stage in stages))
    totals = [0] * (1 + len(stages))
    for name in names:
        every = reports[-1][name]["summary"]["num_branches"]
        row = [every, *(every - len(missing(report, name)) for report in reports)]
        totals = [total + n for total, n in zip(totals, row, strict=True)]
        print(f"{name:<16}{row[0]:>5}" + "".join(f"{n:>12}" for n in row[1:]))
    print(f"{'together':<16}{totals[0]:>5}" + "".join(f"{n:>12}" for n in totals[1:]))
    for heading, earlier, later in (
        ("only by the stories", reports[0], reports[1]),
        ("only by the search", reports[1], reports[2]),
        ("never", reports[2], None),
    ):
        print(f"\n{heading}:")
        for name in names:
            found = missing(later, name) if later else []
            print(*[told(name, arc) + "\n" for arc in missing(earlier, name) if arc not in found], sep="", end="")


def missing_or_any(report: dict[str, Any], name: str) -> bool:
    return bool(report[name]["summary"]["num_branches"])


if __name__ == "__main__":
    main()
