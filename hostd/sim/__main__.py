"""The simulator's command line: ``python -m hostd.sim run|replay|search|story``.

Decides nothing; parses, runs, prints.
"""

import argparse
import difflib
import sys
import time
from pathlib import Path

from hostd.sim import mutants, replay, story
from hostd.sim.search import Finding, Search
from hostd.sim.small_world import Budget, small_plan


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m hostd.sim", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="many seeds; stops at the first harm and prints it")
    run.add_argument("--seeds", type=int, default=1_000, help="how many (default 1000)")
    run.add_argument("--from", dest="first", type=int, default=0, help="the first seed (default 0)")
    run.add_argument("--keep-going", action="store_true", help="list every seed that finds harm")
    run.add_argument("--digest", action="store_true", help="one digest over all traces (slower)")
    _world(run)
    run.set_defaults(act=_run)

    again = commands.add_parser("replay", help="one seed, with one aligned line per change")
    again.add_argument("seed", type=int)
    again.add_argument("--shrink", action="store_true", help="drop the faults that the harm does not need")
    again.add_argument("--facts", action="store_true", help="also what the nodes tell people")
    again.add_argument("--schedule", metavar="FILE", help="the faults of this file instead of the drawn ones")
    _world(again)
    again.set_defaults(act=_replay)

    seek = commands.add_parser("search", help="everything that can happen in a small world")
    for name, default in Budget()._asdict().items():
        seek.add_argument(f"--{name}", type=int, default=default, help=f"default {default}")
    seek.add_argument("--services", type=int, choices=(1, 2), default=1, help="default 1")
    seek.add_argument("--states", type=int, default=10_000_000, help="give up after so many")
    seek.add_argument("--seconds", type=float, default=3_600.0, help="give up after so long")
    _world(seek)
    seek.set_defaults(act=_search, fencing=True)

    tale = commands.add_parser("story", help="play scenarios and compare; --rewrite writes them anew")
    tale.add_argument("files", nargs="+", type=Path)
    tale.add_argument("--rewrite", action="store_true")
    tale.set_defaults(act=_story)

    options = parser.parse_args(argv)
    code: int = options.act(options)
    return code


def _world(parser: argparse.ArgumentParser) -> None:
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--fencing", dest="fencing", action="store_true", default=None, help="only fenced clusters")
    mode.add_argument("--no-fencing", dest="fencing", action="store_false", help="only clusters without fencing")
    parser.add_argument("--mutant", metavar="NAME", help="break this rule of the core on purpose")


def _run(options: argparse.Namespace) -> int:
    began = time.monotonic()
    outcome = replay.many(
        range(options.first, options.first + options.seeds),
        fencing=options.fencing,
        mutant=options.mutant,
        keep_going=options.keep_going,
        digest=options.digest,
        show=print,
    )
    took = time.monotonic() - began
    print(
        f"{outcome.runs} schedules, {outcome.virtual_ms // 1000} s of virtual time in {took:.1f} s "
        f"({outcome.runs / took:.1f} schedules/s), {len(outcome.harmed)} with harm, "
        f"well after at most {outcome.well_after_ms_max} ms"
    )
    if options.digest:
        print(f"digest {outcome.digest}")
    return 1 if outcome.harmed else 0


def _replay(options: argparse.Namespace) -> int:
    verdict = replay.one(
        options.seed,
        fencing=options.fencing,
        mutant=options.mutant,
        shrink=options.shrink,
        facts=options.facts,
        schedule=options.schedule,
        show=print,
    )
    return 1 if verdict.harm else 0


def _search(options: argparse.Namespace) -> int:
    budget = Budget(**{name: getattr(options, name) for name in Budget._fields})
    with mutants.applied(options.mutant):
        search = Search(small_plan(fencing=options.fencing, services=options.services), replay.make_brain)
        finding = search.run(budget, states_max=options.states, seconds_max=options.seconds)
    print(f"budget {budget}")
    print(told(finding))
    for step in finding.path:
        print(f"    {step}")
    return 1 if finding.harm else 0


def _story(options: argparse.Namespace) -> int:
    wrong = 0
    for path in options.files:
        if options.rewrite:
            print(f"{path}: {'rewritten' if story.rewrite(path) else 'as it was'}")
            continue
        given = story.read(path.read_text())
        told_now = story.tell(given)
        if told_now != given.expected:
            wrong += 1
            print(f"{path}: has another end now")
            for line in difflib.unified_diff(given.expected.splitlines(), told_now.splitlines(), "told", "now"):
                print(line)
    return 1 if wrong else 0


def told(finding: Finding) -> str:
    """The finding in one line."""
    end = "all of them" if finding.complete else "not all: the limit was reached"
    return (
        f"{finding.states} states of the world, {finding.cores} of a core, {finding.steps} steps of the core, "
        f"{finding.seconds:.1f} s: {finding.harm or f'no harm in {end}'}"
    )


if __name__ == "__main__":
    sys.exit(main())
