"""Faulty: monitor fails where the program is not installed."""

import os

from hostd.api import AgentError, Health, Resource, hookimpl
from tests.contracts.sound_agent import health

BREAKS = ("program-missing",)


@hookimpl
def monitor(resource: Resource) -> Health:
    if not os.access("/usr/bin/sleep", os.X_OK):
        raise AgentError("/usr/bin/sleep is not installed", cure="install coreutils")
    return health(resource)
