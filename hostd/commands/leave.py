"""``hostd leave`` and ``hostd detach``: two ways to end the daemon on this node."""

import argparse
import math
import re
import time
from pathlib import Path
from typing import Any, Final

from hostd.commands import ask, options, sentences
from hostd.commands.exits import ExitCode
from hostd.core.events import AnyCommand, Detach, Leave
from hostd.requests import SOCKET_NAME

LEAVE_EPILOG: Final = """\
Moves every service to the other node (or stops it, if there is none), says
goodbye and ends the daemon. SIGTERM and `systemctl stop hostd` do the same.

example:
  hostd leave && reboot"""

DETACH_EPILOG: Final = """\
Ends the daemon and leaves the services running: the other node waits until
the limit has passed before it takes anything over.

examples:
  hostd detach && apt-get install hostd && systemctl start hostd
  hostd detach --for 5m"""

_UNITS_MS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "": 1_000}


def register(subparsers: Any) -> None:
    leave = options.add(subparsers, "leave", "move everything away, say goodbye, exit", epilog=LEAVE_EPILOG)
    detach = options.add(
        subparsers, "detach", "exit and leave the services running, for an upgrade", epilog=DETACH_EPILOG
    )
    detach.add_argument("--for", type=duration_ms, default=0, dest="for_ms", metavar="TIME", help="default 60s")
    for parser in (leave, detach):
        parser.add_argument("--no-wait", action="store_true", help="return as soon as the order is taken")
        parser.set_defaults(run=run)


def duration_ms(text: str) -> int:
    """``60s``, ``5m`` or a number of seconds, up to an hour; in milliseconds.  ValueError otherwise."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|)", text)
    if match is None:
        raise ValueError(text)
    ms = math.ceil(float(match[1]) * _UNITS_MS[match[2]])
    if not 0 < ms <= 3_600_000:
        raise ValueError(text)
    return ms


def run(namespace: argparse.Namespace) -> int:
    runtime = options.runtime(namespace)
    command: AnyCommand = Leave() if namespace.command == "leave" else Detach(namespace.for_ms)
    try:
        ask.order(runtime, command)
    except ask.Unanswered as error:
        return ask.complain(error)
    print("leaving: services move away" if isinstance(command, Leave) else "detaching: services stay", flush=True)
    return ExitCode.DONE if namespace.no_wait else _wait(runtime)


def _wait(runtime: Path) -> int:
    """Until the socket is gone: the daemon removes it when it ends."""
    began, seen = time.monotonic(), set[str]()
    while (runtime / SOCKET_NAME).exists():
        try:
            status = ask.status(runtime, retry_s=0)
        except ask.Unanswered:
            break
        here = {name for name, service in status.services.items() if status.node in service.nodes}
        for name in sorted(seen - here):
            print(f"  {name}: gone from here", flush=True)
        seen = here
        blocked = [name for name in here if status.services[name].state == "blocked"]
        if blocked:
            print(f"{', '.join(blocked)} could not be stopped: this node ends without goodbye")
            return ExitCode.NO
        time.sleep(0.1)
    print(f"the daemon has ended ({sentences.span(time.monotonic() - began)})")
    return ExitCode.DONE
