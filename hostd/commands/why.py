"""``hostd why SERVICE``: the cause chain, oldest first, and how it stands now."""

import argparse
import datetime
import json
from typing import Any, Final

from hostd.commands import ask, complaints, options, sentences
from hostd.commands.exits import ExitCode
from hostd.commands.log import is_detail
from hostd.commands.paper import Paper
from hostd.confd.values import counted
from hostd.core.effects import (
    AddressChecked,
    AddressDisputed,
    ClearanceTurned,
    PauseNoticed,
    PhaseChanged,
    PlansDiffer,
    ReachTurned,
    ResourceTurned,
    ServiceAssigned,
    ServiceTurned,
    WishTaken,
)
from hostd.core.snapshot import WishKind
from hostd.requests import AskWhy, Entry, WhyIs, plain
from hostd.status_form import ServiceStatus, Status

SHOWN: Final = 16
"""Steps of the chain; mostly enough for the last change and the one before it."""

EPILOG: Final = """\
examples:
  hostd why mysql
  hostd why mysql -n 50             a longer history
  hostd why mysql --json"""


def register(subparsers: Any) -> None:
    parser = options.add(subparsers, "why", "why a service runs where it runs, or does not", epilog=EPILOG)
    parser.add_argument("service", metavar="SERVICE")
    parser.add_argument("-n", type=int, default=SHOWN, metavar="N", help=f"steps to show (default {SHOWN})")
    parser.add_argument("--json", action="store_true", help="facts for tools")
    parser.set_defaults(run=run)


def run(namespace: argparse.Namespace) -> int:
    try:
        answer = ask.ask(options.runtime(namespace), AskWhy(namespace.service))
    except ask.Unanswered as error:
        return ask.complain(error)
    assert isinstance(answer, WhyIs), answer
    service = answer.status.services[answer.service]
    chain = [entry for entry in answer.entries if concerns(entry, answer.service, service)][-namespace.n :]
    if namespace.json:
        facts = {
            "schema": 1,
            "service": answer.service,
            "status": plain(service),
            "because": _cause(service, answer.status),
            "chain": [{"at": entry.at, "node": entry.node, "text": sentences.entry(entry)} for entry in chain],
        }
        print(json.dumps(facts, indent=2))
    else:
        show(answer.service, service, chain, answer.status, Paper())
    return ExitCode.DONE


def concerns(entry: Entry, name: str, service: ServiceStatus) -> bool:
    """Is this a link of the chain: of the service itself, or of what decides over all services?"""
    fact = entry.fact
    match fact:
        case ServiceAssigned() | ServiceTurned():
            return fact.service == name
        case ResourceTurned():
            return fact.service == name and not is_detail(entry)
        case PlansDiffer():
            return fact.service in ("", name)
        case AddressChecked() | AddressDisputed():
            return fact.address in service.addresses
        case WishTaken():
            return fact.wish.subject in ("", name) or fact.wish.kind is WishKind.STANDBY
        case PhaseChanged() | ClearanceTurned() | ReachTurned() | PauseNoticed():
            return True
        case _:
            return False


def _cause(service: ServiceStatus, status: Status) -> str:
    if service.set_aside:
        return f"{status.node} sets it aside: {service.set_aside}"
    if service.state == "blocked":
        return sentences.because("blocked")
    return sentences.because("operator_stopped" if service.operator_stopped else service.why)


def show(name: str, service: ServiceStatus, chain: list[Entry], status: Status, paper: Paper) -> None:
    paper.line(f"{paper.colour(name, 'bold')} {sentences.stands(service)}")
    paper.wrapped("because", _cause(service, status), indent=8)
    paper.line()
    for entry in chain:
        at = datetime.datetime.fromtimestamp(entry.at).strftime("%m-%d %H:%M:%S.%f")[:-3]
        paper.wrapped(f"{at}  {entry.node}", sentences.entry(entry), indent=33)
    paper.line()
    for node, instance in service.instances.items():
        remarks = [instance.state]
        if instance.failures:
            remarks.append(counted(instance.failures, "failure"))
        if instance.banned:
            remarks.append(f"not eligible until: hostd cleanup {name}")
        if instance.resources and instance.state != "stopped":
            remarks.append(", ".join(f"{r.id} {r.state}" for r in instance.resources))
        paper.wrapped(f"now on {node}", "; ".join(remarks), indent=24)
    paper.wrapped("its primary", service.primary, indent=24)
    about = [p for p in status.problems if p.about.get("service") == name]
    for problem in complaints.with_texts(status).problems if about else ():
        if problem.about.get("service") == name:
            paper.wrapped(problem.severity, f"{problem.text} → {problem.cure}", indent=9)
