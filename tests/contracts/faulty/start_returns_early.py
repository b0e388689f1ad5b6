"""Faulty: start returns before the service is usable, and monitor knows."""

import os
import signal
from pathlib import Path

from hostd.api import AgentError, Health, Resource, hookimpl
from tests.contracts.sound_agent import health, living, note

BREAKS = ("start-usable",)


def launch(resource: Resource) -> None:
    ready(resource).unlink(missing_ok=True)
    argv = ["sh", "-c", 'sleep 0.5; touch "$0"; exec sleep 1000000', str(ready(resource))]
    note(resource).write_text(str(resource.spawn(argv)))


def end(resource: Resource, pid: int) -> None:
    os.killpg(pid, signal.SIGKILL)
    resource.wait(lambda: not living(resource), "the process did not end")
    ready(resource).unlink(missing_ok=True)


@hookimpl
def monitor(resource: Resource) -> Health:
    if living(resource) and not ready(resource).exists():
        raise AgentError("the process is not ready to serve")
    return health(resource)


def ready(resource: Resource) -> Path:
    return resource.run_dir / "ready"
