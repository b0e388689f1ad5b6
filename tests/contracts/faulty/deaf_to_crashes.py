"""Faulty: monitor believes its own notes, whatever has become of the process."""

from hostd.api import Health, Resource, hookimpl
from tests.contracts.sound_agent import note

BREAKS = ("crash-noticed",)


@hookimpl
def monitor(resource: Resource) -> Health:
    return Health.RUNNING if note(resource).exists() else Health.STOPPED
