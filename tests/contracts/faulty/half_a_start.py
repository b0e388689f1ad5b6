"""Faulty: a start that is killed leaves a lock that no stop removes."""

import time

from hostd.api import AgentError, Resource
from tests.contracts.sound_agent import COMMAND, note

BREAKS = ("killed-start",)


def launch(resource: Resource) -> None:
    lock = resource.run_dir / "starting"
    try:
        lock.mkdir()
    except FileExistsError:
        raise AgentError(f"{lock} exists: another start is under way") from None
    try:
        time.sleep(0.3)
        note(resource).write_text(str(resource.spawn(COMMAND)))
    finally:
        lock.rmdir()
