"""``hostd-agent export``: one of our agents as an OCF agent, for Pacemaker."""

import argparse
import os
import sys
from pathlib import Path

from hostd.commands import options
from hostd.commands.agent_show import find
from hostd.commands.exits import ExitCode


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = options.add(
        subparsers,
        "export",
        "an OCF agent (API 1.1) that runs ours, for Pacemaker",
        description="Writes an OCF resource agent that runs one of hostd's without hostd's daemon. It uses this "
        "very installation of hostd, by its absolute paths: install hostd at the same place on every node.",
        epilog="example: hostd-agent export mysql          (then, with pcs: pcs resource create db ocf:hostd:mysql …)\n"
        "         hostd-agent export cyrus ./agents     (writes ./agents/cyrus)",
    )
    parser.add_argument("name", metavar="NAME", help="as after `agent =` in conf.d, or the path of a file")
    parser.add_argument("directory", metavar="DIR", nargs="?", type=Path, help="default: /usr/lib/ocf/resource.d/hostd")
    parser.set_defaults(run=run)


def run(namespace: argparse.Namespace) -> int:
    """The exit code."""
    from hostd import export, loading
    from hostd.api import ConfigError
    from hostd.registry import Registry

    folder = namespace.directory or export.PROVIDER
    try:
        agent, reference = find(Registry.load(options.directories(namespace)), namespace.name)
        if ":" in reference:
            raise ConfigError(f"{reference} is not hostd's own; Pacemaker runs such a resource itself")
        parameters = agent.parameters(reference)
        path = Path(agent.path).absolute()
        summary = parameters.summary or agent.summary or agent.name
        text = export.script(agent.name, path, parameters, summary=summary)
        target = _write(folder, agent.name, text)
        complaint = loading.loose(path)
    except ConfigError as error:
        print(f"hostd-agent: {error}", file=sys.stderr)
        return ExitCode.WRONG_USE
    except OSError as error:
        print(f"hostd-agent: {error.filename}: {error.strerror}; run it as root or name another DIR", file=sys.stderr)
        return ExitCode.WRONG_USE
    if complaint:
        print(f"warning: Pacemaker will run code as root that others may change: {complaint}", file=sys.stderr)
    print(target)
    return ExitCode.DONE


def _write(folder: Path, name: str, text: str) -> Path:
    """In one step: a cluster manager may be running the earlier one."""
    folder.mkdir(parents=True, exist_ok=True)
    target, draft = folder / name, folder / f".{name}.{os.getpid()}"
    try:
        draft.write_text(text)
        draft.chmod(0o755)
        draft.rename(target)
    finally:
        draft.unlink(missing_ok=True)
    return target
