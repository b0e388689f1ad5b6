"""Nothing but a state: the template for an agent, and the agent that tests use.

Without ``process`` it only remembers in its run directory that it was
started; with it, a real process sleeps, is watched and can be killed.  The
parameters that make it slow, fail or hang show what hostd does then.
"""

import signal
import time
from pathlib import Path

from hostd.api import AgentError, Field, Health, Parameters, Resource, hookimpl

STATE = "running"


@hookimpl
def parameters() -> Parameters:
    return Parameters(
        Field("process", bool, default=False, help="keep a real process running, which may be killed"),
        Field("seconds", int, default=1_000_000, help="how long that process sleeps before it ends"),
        Field("start_delay", float, default=0.0, help="seconds that a start takes"),
        Field("stop_delay", float, default=0.0, help="seconds that a stop takes"),
        Field("monitor_delay", float, default=0.0, help="seconds that a monitor takes"),
        Field("fail", str, default="", choices=("", "start", "stop", "monitor"), help="the action that fails"),
        Field("hang", str, default="", choices=("", "start", "stop", "monitor"), help="the action that hangs"),
        Field("token", str, default=None, secret=True, help="does nothing; shows that secrets are never shown"),
        summary="does nothing, well; for tests and as a template",
        timeouts={"start": "20s", "stop": "20s", "monitor": "20s"},
        monitor_interval="10s",
    )


@hookimpl
def start(resource: Resource) -> None:
    _misbehave(resource, "start")
    with resource.alone():
        if _is_running(resource):
            return
        if resource.params["process"]:
            pid = resource.spawn(["sleep", str(resource.params["seconds"])])
            _state(resource).write_text(f"{pid} {_started(pid)}\n")
        else:
            _state(resource).write_text("\n")


@hookimpl
def stop(resource: Resource) -> None:
    _misbehave(resource, "stop")
    with resource.alone():
        pid = _process(resource)
        if pid is not None:
            resource.signal(pid, signal.SIGTERM)
            patient_until = resource.remaining / 2
            resource.wait(
                lambda: _process(resource) is None or resource.remaining < patient_until, "the wait did not end"
            )
            if _process(resource) is not None:  # a frozen process does not hear SIGTERM
                resource.signal(pid, signal.SIGKILL)
            resource.wait(lambda: _process(resource) is None, "the process did not end")
        _state(resource).unlink(missing_ok=True)


@hookimpl
def monitor(resource: Resource) -> Health:
    _misbehave(resource, "monitor")
    if not _state(resource).exists():
        return Health.STOPPED
    if not _is_running(resource):
        raise AgentError("the process is gone", cure="start it again")
    return Health.RUNNING


@hookimpl
def validate(resource: Resource) -> None:
    if resource.params["seconds"] < 1:
        raise AgentError("seconds is below 1", cure="set seconds to 1 or more")


@hookimpl
def main_process(resource: Resource) -> int | None:
    return _process(resource)


@hookimpl
def sandbox(directory: Path) -> dict[str, bool]:
    """A process of its own, so that there is something to kill."""
    return {"process": True}


def _misbehave(resource: Resource, action: str) -> None:
    time.sleep(resource.params[f"{action}_delay"])
    if resource.params["hang"] == action:
        resource.run(["sleep", "1000000"], timeout=1_000_000)
    if resource.params["fail"] == action:
        raise AgentError(f"{action} fails as asked", cure='set fail = ""')


def _state(resource: Resource) -> Path:
    return resource.run_dir / STATE


def _is_running(resource: Resource) -> bool:
    if resource.params["process"]:
        return _process(resource) is not None
    return _state(resource).exists()


def _process(resource: Resource) -> int | None:
    """The process that start left, if it lives and is the very one."""
    try:
        pid, started = _state(resource).read_text().split()
    except (FileNotFoundError, ValueError):
        return None
    return int(pid) if _started(int(pid)) == started else None


def _started(pid: int) -> str:
    """When the process started, in clock ticks since boot; "" if it is gone or dead.
    A number that was used again shows another time."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]
