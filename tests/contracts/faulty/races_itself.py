"""Faulty: between its look and its start another start fits in."""

import time

from hostd.api import Resource, hookimpl
from tests.contracts.sound_agent import launch, living

BREAKS = ("race-start-start",)


@hookimpl
def start(resource: Resource) -> None:
    if not living(resource):
        time.sleep(0.1)
        launch(resource)
