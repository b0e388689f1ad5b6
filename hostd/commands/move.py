"""``hostd move SERVICE [NODE]``: an action, not a rule; it leaves no hidden constraint."""

import argparse
from typing import Any, Final

from hostd.commands import follow, options
from hostd.core.events import MoveService
from hostd.requests import Taken
from hostd.status_form import Status

EPILOG: Final = """\
Without NODE it goes to its primary, or if it is there, to the next node. It
stays until its node fails, goes to standby or it is moved again.

examples:
  hostd move mysql
  hostd move mysql clustnode1 --no-wait"""


def register(subparsers: Any) -> None:
    parser = options.add(subparsers, "move", "move a service to the other node, once", epilog=EPILOG)
    parser.add_argument("service", metavar="SERVICE")
    parser.add_argument("target", nargs="?", default="", metavar="NODE")
    follow.add_options(parser)
    parser.set_defaults(run=run)


def run(namespace: argparse.Namespace) -> int:
    return follow.carry_out(
        namespace,
        MoveService(namespace.service, namespace.target),
        lambda taken: f"{namespace.service} moves to {taken.node}",
        lambda taken: _arrived(namespace.service, taken),
    )


def _arrived(name: str, taken: Taken) -> follow.Done:
    def done(status: Status) -> str | None:
        service = status.services[name]
        instance = service.instances.get(taken.node)
        if instance is not None and instance.banned:
            raise follow.Failed(f"{name} failed on {taken.node}; see: hostd why {name}")
        if service.state == "blocked":
            raise follow.Failed(f"{name} could not be stopped on {service.node}; see: hostd why {name}")
        if service.state == "running" and service.nodes == (taken.node,):
            return f"{name} runs on {taken.node}"
        return None

    return done
