"""Faulty: stop of a stopped service fails, as in many an init script."""

from hostd.api import AgentError, Resource, hookimpl
from tests.contracts.sound_agent import end, living, note

BREAKS = ("stop-stopped",)


@hookimpl
def stop(resource: Resource) -> None:
    with resource.alone():
        if pid := living(resource):
            end(resource, pid)
        elif not note(resource).exists():
            raise AgentError("there is no process to be stopped")
        note(resource).unlink(missing_ok=True)
