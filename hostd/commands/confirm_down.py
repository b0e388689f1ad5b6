"""``hostd confirm-down NODE``: the operator vouches that a silent node is off."""

import argparse
from typing import Any, Final

from hostd.commands import ask, confirmation, options
from hostd.commands.exits import ExitCode
from hostd.core.events import ConfirmDown

EPILOG: Final = """\
Only if you have SEEN that the node is off: its services are started here at
once, and if it still ran them, data would be destroyed.

example:
  hostd confirm-down clustnode2"""


def register(subparsers: Any) -> None:
    parser = options.add(subparsers, "confirm-down", "confirm that a silent node is off", epilog=EPILOG)
    parser.add_argument("target", metavar="NODE")
    parser.add_argument("--yes", action="store_true", help="do not ask for the node's name to be typed")
    parser.set_defaults(run=run)


def run(namespace: argparse.Namespace) -> int:
    node: str = namespace.target
    warning = f"If {node} is NOT off, two nodes will run the same services and may destroy data."
    if not namespace.yes and not confirmation.is_typed(node, warning, "confirm that it is off"):
        return ExitCode.UNSAFE
    try:
        ask.order(options.runtime(namespace), ConfirmDown(node))
    except ask.Unanswered as error:
        return ask.complain(error)
    print(f"{node} counts as off; its services are taken over. See: hostd status --watch")
    return ExitCode.DONE
