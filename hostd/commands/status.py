"""``hostd status``: nodes, links, services, and at the end what is wrong and what to do."""

import argparse
import io
import json
import shutil
import sys
import textwrap
import time
from pathlib import Path
from typing import Any, Final

from hostd.commands import ask, options, sentences
from hostd.commands.exits import ExitCode
from hostd.commands.paper import WIDTH, Paper
from hostd.confd.values import counted
from hostd.requests import plain
from hostd.status_form import NodeStatus, ServiceStatus, Status

EPILOG: Final = """\
examples:
  hostd status
  hostd status --watch              a live view, until q
  hostd status --json | jq .services.mysql

exit code: 0 no problem of severity "error", 1 at least one, 3 no daemon"""

_COLOURS: Final = {
    "online": "green", "running": "green", "up": "green", "yes": "green",
    "offline": "red", "unclean": "red", "fenced": "red", "failed": "red", "blocked": "red", "NO": "red",
    "error": "red", "warning": "yellow", "unknown": "yellow", "starting": "yellow", "stopping": "yellow",
    "recovering": "yellow", "standby": "yellow", "maintenance": "yellow", "leaving": "yellow", "pending": "yellow",
    "info": "dim",
}  # fmt: skip


def register(subparsers: Any) -> None:
    parser = options.add(subparsers, "status", "nodes, links, services, problems; works on any node", epilog=EPILOG)
    parser.add_argument("--json", action="store_true", help="facts for tools (schema 1)")
    parser.add_argument(
        "--watch", nargs="?", type=float, const=1.0, metavar="S", help="redraw every S seconds (default 1)"
    )
    parser.set_defaults(run=run)


def run(namespace: argparse.Namespace) -> int:
    runtime = options.runtime(namespace)
    if namespace.watch is not None and not namespace.json and sys.stdin.isatty() and sys.stdout.isatty():
        from hostd.commands import watch  # a terminal's business, which no other status needs

        return watch.run(runtime, max(0.1, namespace.watch))
    while True:
        code: ExitCode = ExitCode.DONE
        try:
            status = ask.status(runtime)
        except ask.Unanswered as error:
            if namespace.watch is None:
                return ask.complain(error)
            code = error.code
            _redraw("\n".join(textwrap.fill(line, WIDTH) for line in str(error).splitlines()))
        else:
            code = exit_code(status)
            if namespace.json:
                print(json.dumps(plain(status), indent=None if namespace.watch else 2), flush=True)
            elif namespace.watch is None:
                show(status, Paper())
            else:
                _redraw(fitted(status, shutil.get_terminal_size((WIDTH, 24)).lines, Paper().is_coloured))
        if namespace.watch is None:
            return code
        time.sleep(max(0.1, namespace.watch))


def _redraw(text: str) -> None:
    print(f"\x1b[H\x1b[2J{text}", end="", flush=True)


def fitted(status: Status, height: int, is_coloured: bool) -> str:
    """The status in so many lines: if need be without cures, and cut as the last resort."""
    for with_cures in (True, False):
        paper = Paper(io.StringIO(), is_coloured=is_coloured)
        show(status, paper, with_cures=with_cures)
        lines = paper.text().splitlines()
        if len(lines) < height:
            return "\n".join(lines)
    return "\n".join([*lines[: height - 2], f"… {counted(len(lines) - height + 2, 'line')} more: hostd status"])


def exit_code(status: Status) -> ExitCode:
    return ExitCode.NO if any(p.severity == "error" for p in status.problems) else ExitCode.DONE


def show(status: Status, paper: Paper, *, with_cures: bool = True) -> None:
    """The whole status in words; every line fits 80 columns unless a name is very long."""
    _headline(status, paper)
    paper.line()
    paper.table(["NODE", "STATE", ""], [_node(status, name, node) for name, node in status.nodes.items()])
    for name, node in status.nodes.items():
        if node.links:
            paper.line()
            _links(name, node, paper)
    if status.services:
        paper.line()
        rows = [row for name, service in status.services.items() for row in _service(name, service)]
        paper.table(["SERVICE", "STATE", "ON", "SINCE", "ADDRESS"], rows)
    if status.fencing.devices:
        paper.line()
        _devices(status, paper)
    if status.problems:
        paper.line()
    for problem in status.problems:
        paper.wrapped(problem.severity, problem.text, indent=9, colour=_COLOURS[problem.severity])
        if problem.cure and with_cures:
            paper.wrapped("", "→ " + problem.cure, indent=9)


def _headline(status: Status, paper: Paper) -> None:
    errors = sum(problem.severity == "error" for problem in status.problems)
    warnings = sum(problem.severity == "warning" for problem in status.problems)
    counts = [
        f"{count} {word}{'s' if count > 1 else ''}"
        for count, word in ((errors, "error"), (warnings, "warning"))
        if count
    ]
    verdict = ", ".join(counts) or "all is well"
    paper.line(
        f"{paper.colour(status.cluster, 'bold')} seen from {status.node}: "
        f"{paper.colour(verdict, 'red' if errors else 'yellow' if warnings else 'green')}"
    )
    phases = {
        "joining": "waits to form a pair",
        "startup_fencing": "heard nobody since its start",
        "peer_lost": "lost the other node",
        "alone": "acts alone",
        "left": "has left",
    }
    if status.phase == "member":
        what = f"view {status.view}, coordinator {status.coordinator}" if status.confirmed else "forming a pair"
    else:
        what = f"{status.node} {phases[status.phase]}"
    paper.line(f"{what}; fencing: {status.fencing.mode}{_watchdog(status)}")


def _node(status: Status, name: str, node: NodeStatus) -> list[tuple[str, str]]:
    if name == status.node:
        remark = "this node"
    elif node.heard:
        ages = [link.last_heard_ms for link in node.links.values() if link.last_heard_ms is not None]
        remark = f"heard {sentences.span(min(ages) / 1_000)} ago" if ages else "heard"
    else:
        remark = "not heard"
        if status.fencing.clearance != "none":
            remark += f"; {sentences.cleared(status.fencing.clearance)}"
    return [(name, "bold" if name == status.node else ""), (node.state, _COLOURS.get(node.state, "")), (remark, "")]


def _watchdog(status: Status) -> str:
    watchdog = status.watchdog
    if watchdog is None:
        return ""
    return f"; watchdog: {f'armed, {watchdog.timeout_ms / 1_000:g} s' if watchdog.armed else 'not armed'}"


def _devices(status: Status, paper: Paper) -> None:
    rows = []
    for device in status.fencing.devices:
        result = "not tried yet" if device.ok is None else f"ok, says {device.power}" if device.ok else "FAILED"
        last = f"{sentences.span(sentences.seconds_since(device.last))} ago" if device.last else "-"
        rows.append(
            [
                (Path(device.agent).name, ""),
                (str(device.level), ""),
                (last, ""),
                (result, "" if device.ok else "yellow"),
            ]
        )
    paper.table([f"FENCING DEVICE OF {status.fencing.devices[0].node}", "LEVEL", "LAST DRILL", "RESULT"], rows)


def _links(name: str, node: NodeStatus, paper: Paper) -> None:
    rows = []
    for link, state in node.links.items():
        receive, send = ("yes" if way == "up" else "NO" for way in (state.receive, state.send))
        heard = "never" if state.last_heard_ms is None else sentences.span(state.last_heard_ms / 1_000) + " ago"
        late = "-" if state.late_max_ms is None else f"{state.late_max_ms} ms"
        rows.append([(link, ""), (receive, _COLOURS[receive]), (send, _COLOURS[send]), (heard, ""), (late, "")])
    paper.table([f"LINK TO {name}", "HEARD HERE", "HEARD THERE", "LAST HEARD", "WORST DELAY"], rows)


def _service(name: str, service: ServiceStatus) -> list[list[tuple[str, str]]]:
    """One row, and one more for each address after the first."""
    verified = {resource.id: resource.verified for resource in service.resources if resource.state == "running"}
    addresses = [a + (" (unverified)" if verified.get(a) is False and service.node else "") for a in service.addresses]
    marks = [
        mark
        for mark, holds in (
            ("moved", service.moved and service.moved == service.node),
            ("away from its primary", not service.everywhere and service.node not in (None, service.primary)),
            ("hands off", service.maintenance),
        )
        if holds
    ]
    if "moved" in marks and "away from its primary" in marks:
        marks.remove("away from its primary")
    if service.set_aside:
        marks = ["set aside here"]
    state = "stopped*" if service.operator_stopped and service.state == "stopped" else service.state
    where = ", ".join(service.nodes) or "-"
    since = sentences.span(sentences.seconds_since(service.since)) if service.since else "-"
    last = ", ".join([*(addresses[:1]), *marks]) if marks or addresses else ""
    first_row = [(name, ""), (state, _COLOURS.get(service.state, "")), (where, ""), (since, ""), (last, "")]
    return [first_row, *([("", "")] * 4 + [(address, "")] for address in addresses[1:])]
