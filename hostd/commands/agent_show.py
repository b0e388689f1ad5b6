"""``hostd-agent show``: what may be set for one agent, defaults and time limits."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hostd.commands import options
from hostd.commands.exits import ExitCode

if TYPE_CHECKING:
    from hostd.api import Field, Parameters
    from hostd.registry import Agent, Registry


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = options.add(
        subparsers,
        "show",
        "parameters, defaults and time limits of one agent",
        epilog="example: hostd-agent show httpd",
    )
    parser.add_argument("name", metavar="NAME", help="as after `agent =` in conf.d, or the path of a file")
    parser.add_argument("--json", action="store_true", help="print facts for programs (schema 1)")
    parser.set_defaults(run=run)


def run(namespace: argparse.Namespace) -> int:
    """The exit code."""
    from hostd.api import ConfigError
    from hostd.registry import Registry

    registry = Registry.load(options.directories(namespace))
    try:
        agent, reference = find(registry, namespace.name)
        parameters = agent.parameters(reference)
    except ConfigError as error:
        print(f"hostd-agent: {error}", file=sys.stderr)
        return ExitCode.WRONG_USE
    if namespace.json:
        print(json.dumps(_facts(agent, reference, parameters), indent=2))
    else:
        _print(agent, reference, parameters)
    return ExitCode.DONE


def find(registry: "Registry", name: str) -> "tuple[Agent, str]":
    """The agent of a name or file, and its reference.  Raises ConfigError."""
    is_reference = name.partition(":")[0] in registry.agents  # as in "script:Filesystem /dev/sdb1 /data"
    if not is_reference and ("/" in name or name.endswith(".py")):
        agent = registry.add_agent_file(Path(name))
        return agent, agent.name
    return registry.agent(name), name


def type_name(field: "Field") -> str:
    return getattr(field.type, "__name__", str(field.type)).lower()


def _default(field: "Field") -> Any:
    """As it may be shown; None where there is none."""
    if field.is_required or field.default is None:
        return None
    if isinstance(field.default, Path):
        return str(field.default)
    return "(hidden)" if field.secret else field.default


def _facts(agent: "Agent", reference: str, parameters: "Parameters") -> dict[str, Any]:
    return {
        "schema": 1,
        "name": reference,
        "path": agent.path,
        "summary": parameters.summary or agent.summary,
        "parameters": [
            {
                "name": f.name,
                "type": type_name(f),
                "required": f.is_required,
                "default": _default(f),
                "help": f.help,
                "secret": f.secret,
                "choices": list(f.choices),
            }
            for f in parameters.fields
        ],
        "other_parameters": parameters.any_others,
        "timeouts": parameters.timeouts,
        "monitor_interval": parameters.monitor_interval,
        "monitor_depth": parameters.monitor_depth,
        "exclusive_storage": parameters.exclusive_storage,
        "guards_storage": parameters.guards_storage,
        "mounts": parameters.mounts,
        "hooks": sorted(agent.hooks),
    }


def _print(agent: "Agent", reference: str, parameters: "Parameters") -> None:
    print(f"{reference}: {parameters.summary or agent.summary}\n  {agent.path}")
    print("\nparameters:" if parameters.fields else "\nno parameters")
    for f in parameters.fields:
        default = _default(f)
        word = "required" if f.is_required else "optional" if default is None else f"default {json.dumps(default)}"
        traits = [type_name(f), word] + (["secret"] if f.secret else [])
        print(f"  {f.name} ({', '.join(traits)})")
        if f.help:
            print(f"      {f.help}")
        if f.choices:
            print(f"      one of {', '.join(json.dumps(c) for c in f.choices)}")
    if parameters.any_others:
        print("  and any others, passed on as they are")
    limits = ", ".join(f"{action} {limit}" for action, limit in parameters.timeouts.items())
    print(f"\ntime limits: {limits}; monitored every {parameters.monitor_interval}, depth {parameters.monitor_depth}")
    if parameters.exclusive_storage:
        print("writes data that two nodes must never write at once")
    if parameters.guards_storage:
        needed = " and ".join(f"{name} = {json.dumps(value)}" for name, value in parameters.guards_storage_with.items())
        print(f"{f'with {needed}: ' if needed else ''}while it is started, the storage refuses the other node's writes")
    print(f"answers: {', '.join(sorted(agent.hooks))}")
