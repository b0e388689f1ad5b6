"""``hostd reload``: the daemon reads conf.d again, and goes on by it."""

import argparse
import sys
import time
from pathlib import Path
from typing import Any, Final

from hostd.commands import ask, foretold, options, sentences
from hostd.commands.exits import ExitCode
from hostd.commands.paper import Paper
from hostd.messages import ReloadOutcome
from hostd.requests import AskReload, AskRunning, ReloadIs, RunningIs
from hostd.status_form import Status

TIMEOUT_S: Final = 125.0
"""A little longer than the daemon gives itself: starts and stops under way are waited for."""
NEXT_S: Final = 30.0
POLL_S: Final = 0.1

EPILOG: Final = """\
Everything is checked before anything is changed: with a bad conf.d hostd goes
on as it was. Only services that must be are stopped and started, and only once
both nodes have the same definition; see `hostd plan` for what will happen.
SIGHUP and `systemctl reload hostd` do the same, and answer in the log.

example:
  hostd plan && hostd reload

exit code: 0 done, or nothing differs; 1 a start or stop is under way, ask
again; 2 conf.d cannot be used; 3 the daemon is not reachable; 4 both nodes
must be restarted for this"""

_CODES: Final = {
    ReloadOutcome.DONE: ExitCode.DONE,
    ReloadOutcome.SAME: ExitCode.DONE,
    ReloadOutcome.BUSY: ExitCode.NO,
    ReloadOutcome.BAD: ExitCode.WRONG_USE,
    ReloadOutcome.FORBIDDEN: ExitCode.UNSAFE,
}


def register(subparsers: Any) -> None:
    """Add this command to ``hostd``."""
    parser = options.add(subparsers, "reload", "read conf.d again; touches only what changed", epilog=EPILOG)
    parser.set_defaults(run=run)


def run(namespace: argparse.Namespace) -> int:
    """The exit code."""
    runtime, began = options.runtime(namespace), time.monotonic()
    try:
        before = ask.status(runtime)
        word = ask.ask(runtime, AskReload(), retry_s=0, timeout_s=TIMEOUT_S)
        assert isinstance(word, ReloadIs), word
        if word.outcome is not ReloadOutcome.DONE:
            return _not_done(word)
        running = _next(runtime, before)
    except ask.Unanswered as error:
        return ask.complain(error)
    paper = Paper()
    services = running.description.services if running.description else {}
    picture = foretold.Picture(before, running.peer, running.peer_digests, services)
    for change in word.changes:
        paper.line(paper.colour(foretold.headline(change), "bold"))
        paper.wrapped("", foretold.effect(change, picture), indent=2)
    paper.line(f"hostd runs by the new conf.d ({sentences.span(time.monotonic() - began)})")
    return ExitCode.DONE


def _not_done(word: ReloadIs) -> ExitCode:
    if word.outcome is ReloadOutcome.SAME:
        print(f"nothing to do: {word.text}")
    else:
        for change in word.changes if word.outcome is ReloadOutcome.FORBIDDEN else ():
            print(foretold.headline(change), file=sys.stderr)
        print(f"{word.text}\n\nNothing was changed: hostd goes on as it was.", file=sys.stderr)
    return _CODES[word.outcome]


def _next(runtime: Path, before: Status) -> RunningIs:
    """The first word of the next brain.  Raises ``ask.Unanswered`` if there is none."""
    until = time.monotonic() + NEXT_S
    while True:
        running = ask.ask(runtime, AskRunning(), retry_s=NEXT_S)
        assert isinstance(running, RunningIs), running
        if _life(running.status) != _life(before):
            return running
        if time.monotonic() > until:
            raise ask.Unanswered("hostd has taken conf.d, and its next brain does not answer; see its log", ExitCode.NO)
        time.sleep(POLL_S)


def _life(status: Status) -> str:
    return status.nodes[status.node].incarnation
