"""``hostd fence NODE``: have a node shot; with ``--check``, only see whether it could be.

Parses, asks, and tells what the daemon says meanwhile.  Whether the node may
be shot decides the core; what a drill is, the plugin of the device.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any, Final

from hostd.commands import ask, confirmation, follow, options, sentences
from hostd.commands.exits import ExitCode
from hostd.commands.paper import Paper
from hostd.core.effects import ClearanceTurned
from hostd.core.events import FenceNode
from hostd.core.terms import Clearance
from hostd.requests import AskDrill, AskLog, DrillIs, LogIs, Taken, plain
from hostd.status_form import DeviceStatus, Status

POLL_S: Final = 0.2
MARGIN: Final = 9
SETTLING: Final = ("starting", "stopping", "recovering", "unknown")

EPILOG: Final = """\
The node is powered off through the fencing devices of conf.d, and its services
are started on the other one. To empty a node in good order: hostd standby NODE.
If the devices fail, nothing is taken over, and a node that is heard stays a
member.

--check switches nothing: every device for the node is asked by "monitor", and
for its power by "status". Works with and without the daemon. hostd does the
same by itself every hour ([fencing] drill) and says so in hostd status.

examples:
  hostd fence clustnode2
  hostd fence clustnode2 --check
  hostd fence clustnode2 --check --json | jq '.devices[] | select(.ok | not)'

exit code: 0 it is off and taken over, or every device is in order; 1 it is not"""


def register(subparsers: Any) -> None:
    parser = options.add(subparsers, "fence", "shoot a node, or see whether it could be shot", epilog=EPILOG)
    parser.add_argument("target", metavar="NODE")
    parser.add_argument("--yes", action="store_true", help="do not ask for the node's name to be typed")
    parser.add_argument("--check", action="store_true", help="a harmless drill of every fencing device of the node")
    parser.add_argument("--json", action="store_true", help="with --check: facts for tools (schema 1)")
    follow.add_options(parser)
    parser.set_defaults(run=run)


def run(namespace: argparse.Namespace) -> int:
    if namespace.check:
        return _check(namespace)
    if namespace.json:
        print("--json goes with --check; the outcome of a shot is in: hostd status --json", file=sys.stderr)
        return ExitCode.WRONG_USE
    node: str = namespace.target
    warning = f"{node} will lose its power at once: what it has not written is lost."
    if not namespace.yes and not confirmation.is_typed(node, warning, "have it powered off"):
        return ExitCode.UNSAFE
    runtime = options.runtime(namespace)
    try:
        was_lost = ask.status(runtime).phase == "peer_lost"
    except ask.Unanswered as error:
        return ask.complain(error)
    shot = _Shot(node, runtime, was_lost)
    return follow.carry_out(namespace, FenceNode(node), lambda _: f"{node} is to be powered off", shot.done)


class _Shot:
    """One shot, followed through the timeline of this node.

    ``counts``: a failure is ours.  From the start if a shot was under way
    already, else from the first that is asked for after our order.
    """

    def __init__(self, node: str, runtime: Path, counts: bool) -> None:
        self._node, self._runtime, self._counts = node, runtime, counts
        self._since = time.time()
        self._seen = 0
        self._is_off = False

    def done(self, _taken: Taken) -> follow.Done:
        return self._judge

    def _judge(self, status: Status) -> str | None:
        for fact in self._news():
            print(f"  {sentences.fact(fact)}", flush=True)
            if fact.asked:
                self._counts = True
            elif fact.clearance is Clearance.FENCED:
                self._is_off = True
            elif fact.clearance is Clearance.NONE and self._counts and not self._is_off:
                raise follow.Failed(_failure(self._node, fact.detail, ask.status(self._runtime)))
        if not self._is_off:
            return None
        mine = {name: service for name, service in status.services.items() if status.node in service.owners}
        if any(service.state in SETTLING or not service.nodes for service in mine.values() if not _is_over(service)):
            return None
        lost = [name for name, service in mine.items() if _is_over(service)]
        if lost:
            raise follow.Failed(f"{self._node} is off, and {', '.join(lost)} failed here; see: hostd why {lost[0]}")
        return f"{self._node} is off, its services are taken over"

    def _news(self) -> list[ClearanceTurned]:
        answer = ask.ask(self._runtime, AskLog(since=self._since), retry_s=5.0)
        assert isinstance(answer, LogIs), answer
        facts = [entry.fact for entry in answer.entries if isinstance(entry.fact, ClearanceTurned)]
        facts, self._seen = facts[self._seen :], max(self._seen, len(facts))
        return facts


def _is_over(service: Any) -> bool:
    return service.state in ("failed", "blocked")


def _failure(node: str, detail: str, status: Status) -> str:
    stands = status.nodes[node].heard
    after = f"{node} is heard and stays a member" if stands else "nothing is taken over, and it is tried again"
    return f"{node} is not known to be off: {detail}; {after}"


# -- --check ------------------------------------------------------------------------------


def _check(namespace: argparse.Namespace) -> int:
    """Through the daemon if one runs here: it alone knows whether a shot is under way."""
    # Imported here: plugins and conf.d take a while to read, which a shot need not
    from hostd.commands import fence_directly
    from hostd.inspection import daemon_runs

    node: str = namespace.target
    report = Report(node, Paper(), is_json=namespace.json)
    if not daemon_runs(options.runtime(namespace)):
        return fence_directly.check(namespace, report)
    try:
        answer = _ask(namespace, 0)
        while True:
            report.show(answer.devices)
            if answer.is_over:
                return report.end(answer.detail)
            time.sleep(POLL_S)
            answer = _ask(namespace, answer.drill_id)
    except ask.Unanswered as error:
        return ask.complain(error)


def _ask(namespace: argparse.Namespace, drill_id: int) -> DrillIs:
    answer = ask.ask(options.runtime(namespace), AskDrill(namespace.target, drill_id))
    assert isinstance(answer, DrillIs), answer
    return answer


class Report:
    """The devices as they are done with, a line each; the exit code at the end."""

    def __init__(self, node: str, paper: Paper, *, is_json: bool) -> None:
        self._node, self._paper, self._is_json = node, paper, is_json
        self._devices: tuple[DeviceStatus, ...] = ()

    def show(self, devices: tuple[DeviceStatus, ...]) -> None:
        fresh = devices[len(self._devices) :]
        self._devices = devices
        for device in () if self._is_json else fresh:
            name = f"{Path(device.agent).name}, level {device.level}"
            took = sentences.span((device.took_ms or 0) / 1_000)
            if device.ok:
                self._paper.wrapped("ok", f"{name}: says that {self._node} is {device.power} ({took})", indent=MARGIN)
            else:
                text = f"{name}: {device.reason} ({took})"
                self._paper.wrapped("FAILED", text, indent=MARGIN, colour="red")
                if device.cure:
                    self._paper.wrapped("", f"→ {device.cure}", indent=MARGIN)

    def end(self, detail: str) -> ExitCode:
        """``detail``: why it came to no end."""
        is_good = not detail and bool(self._devices) and all(device.ok for device in self._devices)
        if self._is_json:
            facts = {"schema": 1, "node": self._node, "ok": is_good, "detail": detail, "devices": plain(self._devices)}
            print(json.dumps(facts, indent=2))
        elif detail:
            print(f"no drill: {detail}" if not self._devices else f"not all were tried: {detail}")
        elif is_good:
            print(f"{self._node} could be powered off")
        return ExitCode.DONE if is_good else ExitCode.NO
