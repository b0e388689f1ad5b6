"""Give an order and watch it being carried out.

Decides what is shown meanwhile (one line per change of what is watched) and
when to give up waiting; giving up takes nothing back.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from hostd.commands import ask, options, sentences
from hostd.commands.exits import ExitCode
from hostd.core.events import AnyCommand
from hostd.requests import Taken
from hostd.status_form import Status

POLL_S: Final = 0.1
HELD_MAX_S: Final = 5.0
"""A wish travels with the next heartbeat; a serial line may take a second."""

Done = Callable[[Status], str | None]
"""The sentence that says it is done, or None while it is not.  Raises :class:`Failed`."""


class Failed(Exception):
    """It will not come to what was asked for."""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--no-wait", action="store_true", help="return as soon as the order is taken")
    parser.add_argument(
        "--timeout", type=float, default=300.0, metavar="S", help="wait at most so many seconds (default 300)"
    )


def carry_out(
    namespace: argparse.Namespace, command: AnyCommand, said: Callable[[Taken], str], done: Callable[[Taken], Done]
) -> int:
    """The whole of a command that gives an order; its exit code.

    ``said``: what is printed once the order is taken; ``done``: made of the
    answer, judges each status.
    """
    runtime, began = options.runtime(namespace), time.monotonic()
    try:
        before = ask.status(runtime)
        taken = ask.order(runtime, command)
    except ask.Unanswered as error:
        return ask.complain(error)
    print(said(taken), flush=True)
    try:
        _wait_until_held(runtime, taken)
        if namespace.no_wait:
            return ExitCode.DONE
        return _wait(runtime, done(taken), began, before, namespace.timeout)
    except ask.Unanswered as error:
        return ask.complain(error)


def _wait_until_held(runtime: Path, taken: Taken) -> None:
    """Both nodes hold the wish, or the other one cannot be told now."""
    until = time.monotonic() + HELD_MAX_S
    while taken.stamp:
        status = ask.status(runtime)
        wish = next((w for w in status.wishes if w.serial == taken.stamp), None)
        absent = [name for name, node in status.nodes.items() if not node.heard]
        if wish is None or len(wish.held_by) == len(status.nodes):
            return  # None: a newer one has replaced it
        if absent or time.monotonic() > until:
            names = ", ".join(absent) or "the other node"
            print(f"note: {names} does not know of it yet; it will when the nodes hear each other")
            return
        time.sleep(POLL_S)


def _wait(runtime: Path, done: Done, began: float, before: Status, timeout_s: float) -> int:
    seen: dict[str, str] = {}
    _show_changes(before, seen)
    while True:
        status = ask.status(runtime, retry_s=5.0)
        _show_changes(status, seen)
        try:
            sentence = done(status)
        except Failed as failure:
            print(failure)
            return ExitCode.NO
        if sentence is not None:
            print(f"{sentence} ({sentences.span(time.monotonic() - began)})")
            return ExitCode.DONE
        if time.monotonic() - began > timeout_s:
            print(f"not done after {sentences.span(timeout_s)}; it goes on. See: hostd status")
            return ExitCode.NO
        time.sleep(POLL_S)


def _show_changes(status: Status, seen: dict[str, str]) -> None:
    """One line for each service that changed since the last look."""
    for name, service in status.services.items():
        now = f"{service.state}{' on ' + ', '.join(service.nodes) if service.nodes else ''}"
        if seen.get(name, now) != now:
            print(f"  {name}: {now}", flush=True)
        seen[name] = now
