"""A sound agent: one sleeping process.  The faulty agents are this one, but for what each does otherwise.

Keeps every rule of ``hostd-agent test`` as it stands.  Each file in
``faulty/`` defines anew what it breaks; ``faults.py`` puts the two together.
"""

import signal
from pathlib import Path

from hostd.api import AgentError, Field, Health, Parameters, Resource, hookimpl, servers

FIELDS: list[Field] = []
LIMITS = {"start": "5s", "stop": "5s", "monitor": "5s"}
INTERVAL = "10s"
EXCLUSIVE_STORAGE = False
COMMAND = ["sleep", "1000000"]


@hookimpl
def parameters() -> Parameters:
    return Parameters(
        *FIELDS,
        summary="one sleeping process",
        timeouts=LIMITS,
        monitor_interval=INTERVAL,
        exclusive_storage=EXCLUSIVE_STORAGE,
    )


@hookimpl
def sandbox(directory: Path) -> dict[str, str]:
    return {}


@hookimpl
def start(resource: Resource) -> None:
    with resource.alone():
        if not living(resource):
            prepare(resource)
            launch(resource)


@hookimpl
def stop(resource: Resource) -> None:
    with resource.alone():
        if pid := living(resource):
            end(resource, pid)
        note(resource).unlink(missing_ok=True)


@hookimpl
def monitor(resource: Resource) -> Health:
    return health(resource)


@hookimpl
def main_process(resource: Resource) -> int | None:
    return living(resource) or None


def prepare(resource: Resource) -> None:
    """What a start does first: nothing."""


def launch(resource: Resource) -> None:
    note(resource).write_text(str(resource.spawn(COMMAND)))


def end(resource: Resource, pid: int) -> None:
    resource.signal(pid, signal.SIGKILL)
    resource.wait(lambda: not living(resource), "the process did not end")


def health(resource: Resource) -> Health:
    if living(resource):
        return Health.RUNNING
    if note(resource).exists():
        raise AgentError("the process that start left is gone")
    return Health.STOPPED


def note(resource: Resource) -> Path:
    """Where start notes the number of its process."""
    return resource.run_dir / "pid"


def living(resource: Resource) -> int:
    """The process that start noted; 0 if it does not live."""
    try:
        pid = int(note(resource).read_text())
    except (OSError, ValueError):
        return 0
    return pid if servers.is_alive(pid) else 0
