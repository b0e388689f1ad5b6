"""``hostd stop``, ``hostd start`` and ``hostd cleanup`` of one service."""

import argparse
from typing import Any, Final

from hostd.commands import follow, options
from hostd.core.events import AnyCommand, CleanUp, StartService, StopService
from hostd.status_form import Status

_SUMMARIES: Final = {
    "stop": "stop a service and keep it stopped",
    "start": "end of an operator's stop",
    "cleanup": "forget a service's failures, probe again",
}


def register(subparsers: Any) -> None:
    for name, summary in _SUMMARIES.items():
        epilog = f"example:\n  hostd {name} mysql"
        if name == "stop":
            epilog = "The stop is kept over restarts of both nodes until `hostd start`.\n\n" + epilog
        parser = options.add(subparsers, name, summary, epilog=epilog)
        parser.add_argument("service", metavar="SERVICE")
        follow.add_options(parser)
        parser.set_defaults(run=run, verb=name)


def run(namespace: argparse.Namespace) -> int:
    name: str = namespace.service
    command: AnyCommand
    if namespace.verb == "stop":
        command, said, done = StopService(name), f"{name} is to stop", _stopped(name)
    elif namespace.verb == "start":
        command, said, done = StartService(name), f"{name} is to run", _running(name)
    else:
        command, said, done = CleanUp(name), f"failures of {name} are forgotten", _clean(name)
    return follow.carry_out(namespace, command, lambda taken: said, lambda taken: done)


def _stopped(name: str) -> follow.Done:
    def done(status: Status) -> str | None:
        service = status.services[name]
        if service.state == "blocked":
            raise follow.Failed(f"{name} could not be stopped on {service.node}; see: hostd why {name}")
        return f"{name} is stopped" if not service.nodes else None

    return done


def _running(name: str) -> follow.Done:
    def done(status: Status) -> str | None:
        service = status.services[name]
        if service.state == "running":
            return f"{name} runs on {', '.join(service.nodes)}"
        if service.state in ("failed", "blocked") or all(i.banned for i in service.instances.values()):
            raise follow.Failed(f"{name} cannot be started; see: hostd why {name}")
        return None

    return done


def _clean(name: str) -> follow.Done:
    def done(status: Status) -> str | None:
        service = status.services[name]
        forgotten = not any(instance.banned for instance in service.instances.values())
        return f"{name} is {service.state}" if forgotten and service.state != "unknown" else None

    return done
