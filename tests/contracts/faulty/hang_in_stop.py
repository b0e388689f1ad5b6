"""Faulty: stop of a running service never returns."""

import signal
import time

from hostd.api import Resource

BREAKS = ("stop",)
LIMITS = {"start": "5s", "stop": "1s", "monitor": "5s"}


def end(resource: Resource, pid: int) -> None:
    resource.signal(pid, signal.SIGKILL)
    time.sleep(1_000_000)
