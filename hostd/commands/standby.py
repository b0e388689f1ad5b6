"""``hostd standby [NODE]`` and ``hostd online [NODE]``: empty a node, take it back."""

import argparse
from typing import Any, Final

from hostd.commands import ask, follow, options
from hostd.core.events import SetStandby
from hostd.status_form import Status

EPILOG: Final = """\
Without NODE: this node. Standby is kept over restarts until `hostd online`.

examples:
  hostd standby clustnode2
  hostd online clustnode2"""


def register(subparsers: Any) -> None:
    for name, summary in (("standby", "empty a node"), ("online", "take a node back")):
        parser = options.add(subparsers, name, summary, epilog=EPILOG)
        parser.add_argument("target", nargs="?", default="", metavar="NODE")
        follow.add_options(parser)
        parser.set_defaults(run=run, standby=name == "standby")


def run(namespace: argparse.Namespace) -> int:
    try:
        node = namespace.target or ask.status(options.runtime(namespace)).node
    except ask.Unanswered as error:
        return ask.complain(error)
    said = f"{node} goes to standby" if namespace.standby else f"{node} may run services again"
    return follow.carry_out(
        namespace,
        SetStandby(node, namespace.standby),
        lambda taken: said,
        lambda taken: _is_empty(node) if namespace.standby else _is_settled(node),
    )


def _is_empty(node: str) -> follow.Done:
    def done(status: Status) -> str | None:
        for name, service in status.services.items():
            instance = service.instances.get(node)
            if instance is not None and instance.state == "blocked":
                raise follow.Failed(f"{name} could not be stopped on {node}; see: hostd why {name}")
        busy = [name for name, service in status.services.items() if node in service.nodes]
        return None if busy else f"nothing runs on {node}"

    return done


def _is_settled(node: str) -> follow.Done:
    def done(status: Status) -> str | None:
        """Every service is where the coordinator wants it."""
        if status.nodes[node].state == "standby":
            return None
        moving = [s for s in status.services.values() if s.state in ("starting", "stopping", "recovering")]
        elsewhere = [s for s in status.services.values() if s.owners and set(s.owners) != set(s.nodes)]
        return None if moving or elsewhere else f"{node} is online"

    return done
