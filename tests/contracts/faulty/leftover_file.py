"""Faulty: stop leaves the file with the number of a process that is gone."""

from hostd.api import Health, Resource, hookimpl
from tests.contracts.sound_agent import end, health, living, note

BREAKS = ("leftover-files",)


@hookimpl
def stop(resource: Resource) -> None:
    with resource.alone():
        if pid := living(resource):
            end(resource, pid)
        if note(resource).exists():
            note(resource).write_text("stopped")


@hookimpl
def monitor(resource: Resource) -> Health:
    is_stopped = note(resource).exists() and note(resource).read_text() == "stopped"
    return Health.STOPPED if is_stopped else health(resource)
