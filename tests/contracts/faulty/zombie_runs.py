"""Faulty: kill -0 finds a dead process that nobody has collected, so monitor calls it running."""

import os

from hostd.api import Resource
from tests.contracts.sound_agent import note

BREAKS = ("zombie",)


def living(resource: Resource) -> int:
    """The process that start noted; 0 if nobody has that number."""
    try:
        pid = int(note(resource).read_text())
        os.kill(pid, 0)
    except (OSError, ValueError):
        return 0
    return pid
