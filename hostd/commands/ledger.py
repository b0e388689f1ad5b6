"""``hostd ledger``: each service that was brought back on this node, phase by phase, against its budget.

Works without a daemon, too: then the timeline in the state directory is read,
and budgets come from history alone.
"""

import argparse
import datetime
import json
import sys
from typing import Any, Final

from hostd.commands import ask, options, sentences
from hostd.commands.exits import ExitCode
from hostd.commands.paper import WIDTH, Paper
from hostd.requests import AskLedger, LedgerIs, plain
from hostd.status_form import Recovery

EPILOG: Final = """\
examples:
  hostd ledger                      the last 20 recoveries on this node
  hostd ledger mysql -n 5
  hostd ledger --json | jq '.recoveries[].took_ms'

kinds   takeover: the other node was lost    failover: it failed there for good
        restart: it was restarted here       move: somebody or a rule wanted it
phases  detect: from the last word of the lost node   clear: fencing, or the guard
        decide: until it was begun   stop, start: its resources   address: it and
        its questions to the LAN     verify: until a neighbour was seen to use it

Each phase has its time and, after "of", its budget: twice the median of earlier
ones once there are three, before that the time limit of conf.d. What took
longer is marked with "!". How long a monitor took to notice a failure is not in
it. The other node's ledger is on the other node."""


def register(subparsers: Any) -> None:
    parser = options.add(subparsers, "ledger", "each recovery on this node, phase by phase", epilog=EPILOG)
    parser.add_argument("service", nargs="?", default="", metavar="SERVICE")
    parser.add_argument("-n", type=int, default=20, metavar="N", help="at most the newest N (default 20)")
    parser.add_argument("--json", action="store_true", help="facts for tools (schema 1)")
    parser.set_defaults(run=run)


def run(namespace: argparse.Namespace) -> int:
    try:
        answer = ask.ask(options.runtime(namespace), AskLedger(namespace.service, namespace.n), retry_s=0.5)
        assert isinstance(answer, LedgerIs), answer
        recoveries = answer.recoveries
    except ask.Unanswered as error:
        if error.code is not ExitCode.UNREACHABLE:
            return ask.complain(error)
        recoveries = _from_files(namespace)
        print(f"(no daemon: from the files in {options.directories(namespace).state})", file=sys.stderr)
    if namespace.json:
        print(json.dumps({"schema": 1, "recoveries": [plain(recovery) for recovery in recoveries]}, indent=2))
    else:
        show(recoveries, Paper())
    return ExitCode.DONE


def _from_files(namespace: argparse.Namespace) -> tuple[Recovery, ...]:
    from hostd.ledger import Ledger
    from hostd.recorder import read_timeline

    ledger = Ledger(options.node(namespace), None)
    ledger.take_all(read_timeline(options.directories(namespace).state))
    return ledger.newest(namespace.n, namespace.service)


def show(recoveries: tuple[Recovery, ...], paper: Paper) -> None:
    if not recoveries:
        paper.line("no recovery is on record here")
    for recovery in recoveries:
        at = datetime.datetime.fromtimestamp(recovery.began_at).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
        is_late = recovery.budget_ms is not None and recovery.took_ms > recovery.budget_ms
        budget = f" of {milliseconds(recovery.budget_ms)}" if recovery.budget_ms is not None else ""
        took = paper.colour(f"{milliseconds(recovery.took_ms)}{budget}{' !' if is_late else ''}", _colour(is_late))
        paper.line(f"{at}  {paper.colour(recovery.service, 'bold')}  {recovery.kind} to {recovery.node}: {took}")
        paper.wrapped("", sentences.because(recovery.why), indent=4)
        parts = []
        for phase in recovery.phases:
            is_late = phase.budget_ms is not None and phase.took_ms > phase.budget_ms
            budget = f" of {milliseconds(phase.budget_ms)}" if phase.budget_ms is not None else ""
            parts.append(f"{phase.name} {milliseconds(phase.took_ms)}{budget}{' !' if is_late else ''}")
        for line in _filled(parts):
            paper.line(f"    {line}")


def _filled(parts: list[str]) -> list[str]:
    """As many beside each other as fit: a figure is never torn from its phase."""
    lines = [""]
    for part in parts:
        longer = f"{lines[-1]}   {part}" if lines[-1] else part
        if len(longer) <= WIDTH - 4:
            lines[-1] = longer
        else:
            lines.append(part)
    return lines


def _colour(is_late: bool) -> str:
    return "yellow" if is_late else ""


def milliseconds(value: int) -> str:
    """Exact below ten seconds: what is compared here differs by little."""
    return f"{value} ms" if value < 10_000 else sentences.span(value / 1_000)
