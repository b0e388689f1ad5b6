"""Faulty: stop forgets the process and says that it has ended."""

from hostd.api import Resource, hookimpl
from tests.contracts.sound_agent import note

BREAKS = ("stop",)


@hookimpl
def stop(resource: Resource) -> None:
    note(resource).unlink(missing_ok=True)
