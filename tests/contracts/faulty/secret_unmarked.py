"""Faulty: a password that is not marked as a secret."""

import contextlib
import fcntl
import os
import signal
from collections.abc import Iterator
from pathlib import Path

from hostd.api import AgentError, Field, Health, Parameters, Resource, hookimpl, servers

BREAKS = ("secrets-marked",)


@hookimpl
def parameters() -> Parameters:
    return Parameters(
        Field("password", str, default="", help="of the service"),
        summary="one sleeping process",
        timeouts={"start": "5s", "stop": "5s", "monitor": "5s"},
    )


@hookimpl
def sandbox(directory: Path) -> dict[str, str]:
    return {}


@hookimpl
def start(resource: Resource) -> None:
    with _alone(resource):
        if not _pid(resource):
            _state(resource).write_text(str(resource.spawn(["sleep", "1000000"])))


@hookimpl
def stop(resource: Resource) -> None:
    with _alone(resource):
        if pid := _pid(resource):
            resource.signal(pid, signal.SIGKILL)
            resource.wait(lambda: not _pid(resource), "the process did not end")
        _state(resource).unlink(missing_ok=True)


@hookimpl
def monitor(resource: Resource) -> Health:
    if _pid(resource):
        return Health.RUNNING
    if _state(resource).exists():
        raise AgentError("the process that start left is gone")
    return Health.STOPPED


@hookimpl
def main_process(resource: Resource) -> int | None:
    return _pid(resource) or None


def _state(resource: Resource) -> Path:
    return resource.run_dir / "pid"


def _pid(resource: Resource) -> int:
    """Of the living process; 0 if there is none."""
    try:
        pid = int(_state(resource).read_text())
    except (OSError, ValueError):
        return 0
    return pid if servers.is_alive(pid) else 0


@contextlib.contextmanager
def _alone(resource: Resource) -> Iterator[None]:
    """One change at a time."""
    folder = os.open(resource.run_dir, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)
