"""Faulty: monitor of a frozen service waits for it, without a limit of its own."""

import time
from pathlib import Path

from hostd.api import Health, Resource, hookimpl
from tests.contracts.sound_agent import health, living

BREAKS = ("frozen-monitor",)
LIMITS = {"start": "5s", "stop": "5s", "monitor": "2s"}


@hookimpl
def monitor(resource: Resource) -> Health:
    if pid := living(resource):
        while " T " in Path(f"/proc/{pid}/stat").read_text():
            time.sleep(0.05)
    return health(resource)
