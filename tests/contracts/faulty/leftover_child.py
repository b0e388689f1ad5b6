"""Faulty: stop ends the main process and forgets its worker."""

from hostd.api import Resource
from tests.contracts.sound_agent import COMMAND, note

BREAKS = ("leftover-processes",)


def launch(resource: Resource) -> None:
    note(resource).write_text(str(resource.spawn(COMMAND)))
    resource.spawn(COMMAND)
