"""``hostd check``: would this conf.d work here, and what is dangerous about it?

Parses, asks ``hostd.config`` and ``hostd.inspection``, prints.  Changes
nothing, needs no daemon, and may be run on either node at any time.
"""

import argparse
import json
import textwrap
from collections import Counter
from typing import Any, Final

from hostd.commands import options, progress
from hostd.commands.exits import ExitCode
from hostd.commands.paper import WIDTH, Paper
from hostd.confd.values import counted
from hostd.config import Complaint, Configuration, Directories, Examined, examine

WORDS: Final = {"error": ("error", "red"), "warning": ("warning", "yellow"), "info": ("note", "dim")}
"""How each severity is shown, worst first."""
MARGIN: Final = 9
"""Of complaints: "warning" and two blanks."""

DESCRIPTION = """\
Reads conf.d, loads agents and plugins, and looks at this machine: the key,
interfaces and serial ports, addresses, ports, scheduling, fencing, and what
each agent says of its parameters. Nothing is changed or started."""

EPILOG = """\
examples:
  hostd check                                before the first start, on both nodes
  hostd check --config ./conf.d --node clustnode2
  hostd check --json | jq .complaints        for tools

exit code: 0 nothing wrong (warnings at most), 1 `hostd run` would start and
something would not work (this machine, an agent), 2 conf.d cannot be used"""


def register(subparsers: Any) -> None:
    """Add this command to ``hostd``."""
    summary = "validate conf.d, agents, plugins, key, and this machine"
    parser = options.add(subparsers, "check", summary, description=DESCRIPTION, epilog=EPILOG)
    parser.add_argument("--json", action="store_true", help="facts for tools")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Check, print, and return the exit code."""
    directories, node = options.directories(args), options.node(args)
    examined, complaints = look(directories, node)
    configuration = examined.configuration
    if args.json:
        print(json.dumps(facts(directories, node, configuration, complaints), indent=2))
    else:
        show(directories, node, configuration, complaints)
    if configuration is None:
        return ExitCode.WRONG_USE
    return ExitCode.DONE if all(complaint.is_warning for complaint in complaints) else ExitCode.NO


def look(directories: Directories, node: str) -> tuple[Examined, tuple[Complaint, ...]]:
    """conf.d first; the machine only if that is right, for it is judged by it."""
    # Imported here: netlink and the agents take half a second, which `hostd --help` need not
    from hostd.confd.complain import Complaints
    from hostd.inspection import Inspection
    from hostd.registry import Registry

    registry = Registry.load(directories)
    examined = examine(directories.config, node, registry.parameters, registry.link_types(), registry.notify_types())
    extensions = [
        *(Complaint("", None, broken.path, "", f"is broken: {broken.reason}", "mend or remove it", True)
          for broken in registry.broken),
        *(_of_sentence(warning) for warning in registry.warnings),
    ]  # fmt: skip
    complaints = Complaints(examined.places)
    if examined.configuration is not None:
        Inspection(examined.configuration, registry, directories, complaints, progress.say).everything()
        progress.say("")
    return examined, (*examined.complaints, *complaints.gathered, *extensions)


def _of_sentence(sentence: str) -> Complaint:
    rule, _, cure = sentence.partition("; ")
    return Complaint("", None, rule, "", "", cure or "see hostd-agent list", True)


def facts(
    directories: Directories, node: str, configuration: Configuration | None, complaints: tuple[Complaint, ...]
) -> dict[str, Any]:
    """The same as JSON, schema 1."""
    return {
        "schema": 1,
        "config": str(directories.config),
        "node": node,
        "cluster": configuration.plan.cluster if configuration else None,
        "configuration_is_good": configuration is not None,
        "complaints": [
            {
                "severity": complaint.severity,
                "file": complaint.file or None,
                "line": complaint.line,
                "key": complaint.key,
                "value": complaint.value or None,
                "rule": complaint.rule,
                "cure": complaint.cure,
                "text": complaint.text,
            }
            for complaint in complaints
        ],
    }


def show(
    directories: Directories, node: str, configuration: Configuration | None, complaints: tuple[Complaint, ...]
) -> None:
    """Mistakes first, then warnings, then notes, then one line that says it all."""
    paper = Paper()
    paper.line(paper.colour(f"{directories.config} on {node}", "bold"))
    for complaint in sorted(complaints, key=lambda complaint: list(WORDS).index(complaint.severity)):
        word, colour = WORDS[complaint.severity]
        paper.wrapped(word, complaint.text, indent=MARGIN, colour=colour)
    for line in textwrap.wrap(_verdict(configuration, complaints), WIDTH):
        paper.line(paper.colour(line, "bold"))


def _verdict(configuration: Configuration | None, complaints: tuple[Complaint, ...]) -> str:
    found = Counter(complaint.severity for complaint in complaints)
    counts = f"{counted(found['error'], 'error')}, {counted(found['warning'], 'warning')}"
    if found["info"]:
        counts += f", {counted(found['info'], 'note')}"
    if configuration is None:
        return f"conf.d cannot be used: {counts}. The machine is looked at once conf.d is right."
    plan = configuration.plan
    what = f'"{plan.cluster}": {counted(len(plan.services), "service")}, {counted(len(plan.links), "link")}'
    if configuration.set_aside:
        names = ", ".join(aside.service.name for aside in configuration.set_aside)
        return f"hostd would run here without {names}, set aside for a broken or unknown agent ({what}): {counts}."
    if found["error"]:
        return f"conf.d is right and this machine is not ({what}): {counts}."
    return f"Good ({what}): {counts}."
