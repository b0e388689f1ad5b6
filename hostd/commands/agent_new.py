"""``hostd-agent new``: writes a commented agent to start from.

Decides nothing but the text: a whole agent, for a service so small that it is
there on every machine (``tail -f`` on a file), that passes ``hostd-agent
test`` as it is.  So whoever changes it sees at once which change broke what.
"""

import argparse
import re
import sys
from pathlib import Path
from typing import Final

from hostd.commands import options
from hostd.commands.exits import ExitCode

NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")

TEMPLATE: Final = '''"""@NAME@: `tail -f` on one file, in the place of the service that you have in mind.

Say here what the agent runs, what it takes for proof that it runs, and where
you know that from (the service's manual, another agent).  The first line is
what `hostd-agent list` shows.

    hostd-agent test ./@NAME@.py        proves it, on an instance that sandbox() makes
    hostd-agent run ./@NAME@.py start config=/srv/@NAME@.conf

Copy it to /etc/hostd/agents/ on both nodes when it passes.
"""

import contextlib
import fcntl
import os
import signal
from collections.abc import Iterator
from pathlib import Path

from hostd.api import AgentError, Field, Health, Parameters, Resource, hookimpl, servers

PROGRAMS = ("tail",)  # file names of the server's program, the usual one first
CURE = "apt-get install coreutils"


@hookimpl
def parameters() -> Parameters:
    """What an operator may set in conf.d.  Must not act, and must answer where nothing is installed."""
    return Parameters(
        Field("config", Path, help="the file that makes this instance different from any other"),
        # Field("port", int, default=8080, help="a default is used where conf.d says nothing"),
        # Field("password", str, default="", secret=True, help="never shown, never in a command's arguments"),
        summary="an agent that was just begun",
        timeouts={"start": "20s", "stop": "20s", "monitor": "20s"},  # of the slowest machine, and then some
        monitor_interval="10s",
        monitor_depth=0,  # 10: ask the service something, every time
        exclusive_storage=False,  # True: two nodes must never write its data at once
    )


@hookimpl
def start(resource: Resource) -> None:
    """Return when it is usable.  Already running is a success."""
    with _alone(resource):
        if _pids(resource):
            return
        program = servers.program(PROGRAMS, CURE)
        config = resource.params["config"]
        if not config.is_file():
            raise AgentError(f"{config} does not exist", cure="set config to the file that is to be followed")
        # A server in the foreground: hostd keeps its output and sees its end.  A shell is not needed.
        pid = resource.spawn([program, "-f", str(config)])

        def is_ready() -> bool:
            if not servers.is_alive(pid):
                said = servers.last_words(resource) or "it said nothing"
                raise AgentError(f"{program} ended at once: {said}")
            return pid in _pids(resource) and not _complaint(resource)

        resource.wait(is_ready, f"{program} did not become ready")


@hookimpl
def stop(resource: Resource) -> None:
    """Return when it is proven to have ended, children and all.  Already stopped is a success."""
    with _alone(resource):
        for pid in _pids(resource):
            resource.signal(pid, signal.SIGTERM)
        if not servers.gone_within(resource, lambda: _pids(resource), resource.remaining / 2):
            resource.log.warning("it does not end when asked; killing it")
        # A frozen service does not hear SIGTERM, and hostd has the node fenced if stop fails.
        servers.kill(resource, lambda: _pids(resource), "the process")


@hookimpl
def monitor(resource: Resource) -> Health:
    """RUNNING, DEGRADED, or STOPPED (cleanly: as before the first start); AgentError for all else."""
    if not _pids(resource):
        return Health.STOPPED
    if resource.depth >= 10 and (complaint := _complaint(resource)):
        raise AgentError(f"it runs, but {complaint}")
    return Health.RUNNING


@hookimpl
def validate(resource: Resource) -> None:
    """Optional: do the parameters fit this machine?  Asked by `hostd check`; starts nothing."""
    servers.program(PROGRAMS, CURE)
    if not resource.params["config"].is_file():
        raise AgentError(f"{resource.params['config']} does not exist", cure="set config to a file")


@hookimpl
def main_process(resource: Resource) -> int | None:
    """Optional: the process whose end is a crash.  hostd watches it and need not wait for monitor."""
    return next(iter(_pids(resource)), None)


@hookimpl
def sandbox(directory: Path) -> dict[str, str]:
    """Optional, for `hostd-agent test`: a private instance in this directory; its parameters."""
    config = directory / "@NAME@.conf"
    config.write_text("nothing yet\\n")
    return {"config": str(config)}


def _pids(resource: Resource) -> list[int]:
    """The processes of this instance.  By what the kernel says of them, never by a pid file:
    after a crash its number may be anybody's, and on shared storage it may come from the other node."""
    config = str(resource.params["config"])
    return [process.pid for process in servers.find(PROGRAMS, lambda process: process.argv[-1] == config)]


def _complaint(resource: Resource) -> str:
    """What is wrong with what it serves, or "".  Ask as a client would, with a limit of your own:
    a hung service must not hang its monitor."""
    return ""


@contextlib.contextmanager
def _alone(resource: Resource) -> Iterator[None]:
    """One change at a time: of two starts at once, the second finds what the first has started."""
    folder = os.open(resource.run_dir, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)
'''


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = options.add(
        subparsers,
        "new",
        "a commented agent to start from",
        description="Writes NAME.py: a commented agent that passes `hostd-agent test` as it is.",
        epilog="example: hostd-agent new squid && hostd-agent test ./squid.py",
    )
    parser.add_argument("name", metavar="NAME", help="of the agent: letters, digits and _")
    parser.add_argument("--directory", type=Path, default=Path(), metavar="DIR", help="default: here")
    parser.set_defaults(run=run)


def run(namespace: argparse.Namespace) -> int:
    """The exit code."""
    name, path = namespace.name, namespace.directory / f"{namespace.name}.py"
    if not NAME.fullmatch(name):
        return _wrong(f'"{name}" is no name for an agent; use letters, digits and _, a letter first')
    try:
        with path.open("x") as file:  # never over somebody's work
            file.write(TEMPLATE.replace("@NAME@", name))
    except FileExistsError:
        return _wrong(f"{path} is there already; choose another name, or move it away")
    except OSError as error:
        return _wrong(f"{path}: {error.strerror}")
    shown = path if path.parts[:-1] else f"./{path}"
    print(f"{path} is written; it passes as it is: hostd-agent test {shown}")
    return ExitCode.DONE


def _wrong(text: str) -> int:
    print(f"hostd-agent: {text}", file=sys.stderr)
    return ExitCode.WRONG_USE
