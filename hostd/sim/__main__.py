"""The simulator's command line: ``python -m hostd.sim run|replay|search|story``.

Decides nothing; parses, runs, prints.
"""

import argparse
import sys
import time

from hostd.sim import replay


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


if __name__ == "__main__":
    sys.exit(main())
