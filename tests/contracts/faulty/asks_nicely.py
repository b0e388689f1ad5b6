"""Faulty: stop sends SIGTERM and waits for ever; a frozen service never hears it."""

import signal

from hostd.api import Resource
from tests.contracts.sound_agent import living

BREAKS = ("frozen-stop",)


def end(resource: Resource, pid: int) -> None:
    resource.signal(pid, signal.SIGTERM)
    resource.wait(lambda: not living(resource), "the process did not end")
