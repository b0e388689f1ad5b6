"""Faulty: monitor burns a tenth of a processor."""

import time

from hostd.api import Health, Resource, hookimpl
from tests.contracts.sound_agent import health

BREAKS = ("monitor-cost",)
INTERVAL = "1s"


@hookimpl
def monitor(resource: Resource) -> Health:
    began = time.process_time()
    while time.process_time() - began < 0.12:
        pass
    return health(resource)
