"""``hostd-agent list``: which agents and plugins are found, from where, and what is broken."""

import argparse
import json
import sys

from hostd.commands import options
from hostd.commands.exits import ExitCode


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = options.add(
        subparsers,
        "list",
        "what is found, and from where",
        epilog="example: hostd-agent list --json",
    )
    parser.add_argument("--json", action="store_true", help="print facts for programs (schema 1)")
    parser.set_defaults(run=run)


def run(namespace: argparse.Namespace) -> int:
    """The exit code: 0, also if something is broken, since the list is what was asked for."""
    from hostd.registry import Registry

    registry = Registry.load(options.directories(namespace))
    if namespace.json:
        facts = {
            "schema": 1,
            "agents": [
                {"name": a.name, "path": a.path, "summary": a.summary} for _, a in sorted(registry.agents.items())
            ],
            "plugins": [{"name": n, "path": p} for n, p in sorted(registry.plugins.items())],
            "broken": [
                {"name": b.name, "kind": b.kind[:-1], "path": b.path, "reason": b.reason} for b in registry.broken
            ],
            "warnings": list(registry.warnings),
        }
        print(json.dumps(facts, indent=2))
        return ExitCode.DONE
    rows = [(a.name, a.summary, a.path) for _, a in sorted(registry.agents.items())]
    _print_rows("agents", rows)
    _print_rows("plugins", [(n, "", p) for n, p in sorted(registry.plugins.items())])
    for broken in registry.broken:
        print(f"\nbroken {broken.kind[:-1]} {broken.name} ({broken.path})\n  {broken.reason}")
    for warning in registry.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    return ExitCode.DONE


def _print_rows(title: str, rows: list[tuple[str, str, str]]) -> None:
    if not rows:
        print(f"{title}: none")
        return
    print(f"{title}:")
    width = max(len(name) for name, _, _ in rows)
    for name, summary, path in rows:
        print(f"  {name:<{width}}  {summary}".rstrip())
        print(f"  {'':<{width}}  {path}")
