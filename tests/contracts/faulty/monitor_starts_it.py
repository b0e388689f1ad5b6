"""Faulty: monitor starts what it needs, on every node that is probed."""

from hostd.api import Health, Resource, hookimpl
from tests.contracts.sound_agent import COMMAND, health

BREAKS = ("probe-harmless",)


@hookimpl
def monitor(resource: Resource) -> Health:
    found = health(resource)
    if found is Health.STOPPED and resource.depth == 20:
        resource.spawn(COMMAND)
    return found
