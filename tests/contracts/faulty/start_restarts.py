"""Faulty: start of a running service restarts it."""

from hostd.api import Resource, hookimpl
from tests.contracts.sound_agent import launch, stop

BREAKS = ("start-running",)


@hookimpl
def start(resource: Resource) -> None:
    stop(resource)
    with resource.alone():
        launch(resource)
