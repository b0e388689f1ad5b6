"""Fuzzing: inputs without number for every door of hostd.

    python -m tests.fuzz                          every target in turn, 5 minutes in all
    python -m tests.fuzz wire --runs 1000000      one target, so many inputs
    python -m tests.fuzz wire --input FILE        this input again, with its traceback

Decides how long each target has, and tells what came of it.  With atheris (in
.venv by the extra `test`, where there is a wheel for this machine) the search
goes by branches; else the kept corpus is changed at random.  Once a finding is
mended, its input goes among the seeds of its target, cut down by hand.
"""

import argparse
import contextlib
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NoReturn

from tests.fuzz import engine, targets

SHOWN_EVERY_S: Final = 60.0
ENDED_WELL: Final = (0, 72, 130)
"""Two of them after an interruption."""
UNSAID: Final = 99
MEMORY: Final = Path("/dev/shm")
"""Inputs are many and small, and some become files."""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="./test fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("target", nargs="?", choices=targets.NAMES, help="only this one")
    parser.add_argument("--runs", type=int, default=0, help="so many inputs for each target")
    parser.add_argument("--minutes", type=float, default=0.0, help="for so long, all targets together (default 5)")
    parser.add_argument("--seed", type=int, default=0, help="of everything that is drawn (default 0)")
    parser.add_argument("--keep", action="store_true", help="make tests/fuzz/corpus anew of what takes all branches")
    parser.add_argument("--input", type=Path, help="try this one input, in this process")
    given = parser.parse_args(argv)
    os.environ.setdefault("OCF_ROOT", "/nonexistent")  # the agents of this machine are not what is tried
    if given.input is not None:
        return again(given.target, given.input)
    names = [given.target] if given.target else list(targets.NAMES)
    minutes = given.minutes or (0.0 if given.runs else 5.0)
    print("engine: " + ("atheris, by branches" if engine.has_atheris() else "blind (no atheris here)"), flush=True)
    seconds = max(1, round(minutes * 60 / len(names))) if minutes else 0
    findings = [name for name in names if not fuzz(name, given.runs, seconds, given.seed, keep=given.keep)]
    print(f"{len(names)} targets, {len(findings)} with findings{': ' if findings else ''}{', '.join(findings)}")
    return 1 if findings else 0


def again(name: str | None, path: Path) -> int:
    """One input in this very process: what it raises is seen."""
    if name is None:
        print("--input needs the name of its target", file=sys.stderr)
        return 2
    targets.load(name).one(path.read_bytes())
    print("nothing was found")
    return 0


def fuzz(name: str, runs: int, seconds: int, seed: int, *, keep: bool) -> bool:
    """One target; False if something was found."""
    with tempfile.TemporaryDirectory(prefix="hostd-fuzz-", dir=MEMORY if MEMORY.is_dir() else None) as scratch:
        folder = Path(scratch)
        began = time.monotonic()
        order = engine.Order(name, runs, seconds, seed, folder)
        code, pieces, tried, said = run(order, engine.work)
        took_s = time.monotonic() - began
        print(f"  {name:<12}{tried:>12,} inputs {pieces:>14,} pieces {took_s:>7.0f} s", flush=True)
        found = sorted(
            path for path in folder.iterdir() if path.name.startswith(("crash-", "timeout-", "oom-", "slow-"))
        )
        if found or code not in ENDED_WELL:
            report(name, code, found, said)
            return False
        if keep:
            print(f"  {'':<12}{run(order, engine.keep)[2]:>12,} inputs kept")
        return True


def run(order: engine.Order, work: Callable[[engine.Order, engine.Counter], NoReturn]) -> tuple[int, int, int, str]:
    """One child: exit code, pieces, inputs, and the end of what it said."""
    numbers: Any = multiprocessing.RawArray("Q", 2)
    said = order.folder / "said"
    pid = os.fork()
    if pid == 0:
        code = UNSAID
        try:
            output = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            os.dup2(output, 1)
            os.dup2(output, 2)
            work(order, numbers)
        except (KeyboardInterrupt, SystemExit) as ended:
            code = (ended.code if isinstance(ended, SystemExit) else None) or 0
        except BaseException:  # noqa: BLE001 - the edge: the parent's stack must not be unwound in a child
            traceback.print_exc()
        finally:
            os._exit(code)
    status = wait(pid, order.name, numbers)
    text = said.read_text(errors="replace") if said.exists() else ""
    return os.waitstatus_to_exitcode(status), numbers[1], numbers[0], text


def wait(pid: int, name: str, numbers: engine.Counter) -> int:
    """Until the child ends, with a line now and then; its status.  Ctrl-C is for both."""
    look_at = time.monotonic() + SHOWN_EVERY_S
    while True:
        with contextlib.suppress(KeyboardInterrupt):  # the child ends by it, and what it did is told
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                return status
            time.sleep(0.1)
        if time.monotonic() >= look_at:
            look_at += SHOWN_EVERY_S
            so_far = f"{numbers[0]:,} inputs, {numbers[1]:,} pieces so far" if numbers[0] else "looking what to keep"
            print(f"    {name}: {so_far}", flush=True)


def report(name: str, code: int, found: list[Path], said: str) -> None:
    """What was found, and how to see it again."""
    print(f"  FOUND by {name} (exit code {code}):")
    lines = [line for line in said.splitlines() if line.strip() and not line.startswith(("#", "INFO:", "NEW_FUNC"))]
    print("".join(f"    {line}\n" for line in lines[-25:]), end="")
    for path in found:
        kept = Path(tempfile.mkdtemp(prefix="hostd-fuzz-found-")) / path.name
        shutil.copy(path, kept)
        print(f"    again: ./test fuzz {name} --input {kept}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
