"""``hostd plan``: what would a reload of the present files do?  Changes nothing.

Reads conf.d as the daemon would, in this process, and compares it with what
the daemon says that it runs by.
"""

import argparse
import json
from pathlib import Path
from typing import Any, Final

from hostd.commands import ask, foretold, options
from hostd.commands.exits import ExitCode
from hostd.commands.paper import Paper
from hostd.requests import AskRunning, RunningIs

INDENT: Final = 2

EPILOG: Final = """\
Compares the files with what the running daemon was started or last reloaded
with, and says per difference what `hostd reload` would do, and on which node.
A service that differs between the nodes goes on as it is: what has to be
restarted for new parameters is restarted once both nodes have them. So change
the files on both, look at `hostd plan`, and reload one after the other.

examples:
  hostd plan && hostd reload
  hostd plan --json | jq .changes

exit code: 0 a reload would take the files, or has nothing to do; 2 conf.d
cannot be used; 3 the daemon is not reachable; 4 both nodes must be restarted"""


def register(subparsers: Any) -> None:
    """Add this command to ``hostd``."""
    parser = options.add(subparsers, "plan", "what a reload of the present files would do", epilog=EPILOG)
    parser.add_argument("--json", action="store_true", help="facts for tools")
    parser.set_defaults(run=run)


def run(namespace: argparse.Namespace) -> int:
    """The exit code."""
    try:
        running = ask.ask(options.runtime(namespace), AskRunning())
    except ask.Unanswered as error:
        return ask.complain(error)
    assert isinstance(running, RunningIs), running
    facts = compare(namespace, running)
    if namespace.json:
        print(json.dumps(facts, indent=2))
    else:
        show(facts)
    return _code(facts["outcome"])


def compare(namespace: argparse.Namespace, running: RunningIs) -> dict[str, Any]:
    """The difference and what it does, as JSON, schema 1."""
    # Imported here: agents and plugins take a moment, which `hostd --help` need not
    from hostd import changes, config, description, keys
    from hostd.api import ConfigError
    from hostd.registry import Registry

    directories = _directories(namespace, running)
    facts: dict[str, Any] = {
        "schema": 1,
        "config": str(directories.config),
        "node": running.status.node,
        "outcome": "bad",
        "complaints": [],
        "changes": [],
    }
    registry = Registry.load(directories)
    try:
        found = config.load(
            directories.config, running.status.node, registry.parameters, registry.link_types(), registry.notify_types()
        )
        secrets = keys.read(found.key)
    except ConfigError as error:
        return facts | {"complaints": str(error).split("\n\n")}
    if running.description is None:
        return facts | {"complaints": ["this daemon does not say what it runs by; restart it: hostd detach"]}
    fresh = description.describe(found, registry, secrets, running.description.salt)
    different = changes.between(running.description, fresh)
    picture = foretold.Picture(running.status, running.peer, running.peer_digests, fresh.services)
    facts["outcome"] = "same"
    if different:
        is_bad = bool(changes.spoiled(different))
        facts["outcome"] = "forbidden" if changes.forbidden(different) else "bad" if is_bad else "different"
    facts["changes"] = [
        {
            "kind": change.kind.value,
            "subject": change.subject,
            "what": list(change.what),
            "text": foretold.headline(change),
            "effect": foretold.effect(change, picture),
        }
        for change in different
    ]
    facts["notes"] = _notes(running)
    return facts


def _directories(namespace: argparse.Namespace, running: RunningIs) -> Any:
    """Those that the daemon would read, unless others are named here."""
    from hostd.config import Directories

    given = options.directories(namespace).absolute()
    return Directories(
        given.config if options.names_config(namespace) else Path(running.config),
        given.agents or tuple(Path(folder) for folder in running.agents),
        given.plugins or tuple(Path(folder) for folder in running.plugins),
        given.runtime,
        given.state,
    )


def _notes(running: RunningIs) -> list[str]:
    if running.peer_digests is not None:
        return []
    return [
        f"{running.peer} is not heard. After a reload this node has to find out again whether {running.peer} is off, "
        "as after a restart: its services go on, and it takes over nothing more meanwhile."
    ]


def show(facts: dict[str, Any]) -> None:
    """One paragraph per change."""
    paper = Paper()
    for complaint in facts["complaints"]:
        paper.wrapped("error", complaint, indent=9, colour="red")
    for change in facts["changes"]:
        paper.line(paper.colour(change["text"], "bold"))
        paper.wrapped("", change["effect"], indent=INDENT)
    for note in facts.get("notes", []) if facts["changes"] else []:
        paper.wrapped("note", note, indent=9, colour="yellow")
    paper.line(foretold.VERDICTS[facts["outcome"]])


def _code(outcome: str) -> ExitCode:
    return {"bad": ExitCode.WRONG_USE, "forbidden": ExitCode.UNSAFE}.get(outcome, ExitCode.DONE)
