"""``hostd maintenance on|off [SERVICE]``: hands off, monitoring goes on."""

import argparse
from typing import Any, Final

from hostd.commands import follow, options
from hostd.core.events import SetMaintenance
from hostd.status_form import Status

EPILOG: Final = """\
While it is on, hostd starts, stops and recovers nothing (of that service),
and nothing is taken over without proof that the other node is off.

examples:
  hostd maintenance on             everything
  hostd maintenance on mysql       one service
  hostd maintenance off"""


def register(subparsers: Any) -> None:
    parser = options.add(subparsers, "maintenance", "hands off: no start, stop or recovery", epilog=EPILOG)
    parser.add_argument("switch", choices=("on", "off"))
    parser.add_argument("service", nargs="?", default="", metavar="SERVICE")
    follow.add_options(parser)
    parser.set_defaults(run=run)


def run(namespace: argparse.Namespace) -> int:
    what = namespace.service or "everything"

    def done(status: Status) -> str | None:
        return f"hands off {what}" if namespace.switch == "on" else f"hostd cares for {what} again"

    return follow.carry_out(
        namespace,
        SetMaintenance(namespace.switch == "on", namespace.service),
        lambda taken: f"maintenance {namespace.switch} for {what}",
        lambda taken: done,
    )
