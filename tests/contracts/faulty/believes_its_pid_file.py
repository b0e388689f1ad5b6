"""Faulty: a pid file that a crash left keeps it from starting."""

from hostd.api import AgentError, Resource
from tests.contracts.sound_agent import note

BREAKS = ("start-after-crash",)


def prepare(resource: Resource) -> None:
    if note(resource).exists():
        raise AgentError(f"{note(resource)} exists: is it running?")
