"""Faulty: start of a running service fails."""

from hostd.api import AgentError, Resource, hookimpl
from tests.contracts.sound_agent import launch, living

BREAKS = ("start-running",)


@hookimpl
def start(resource: Resource) -> None:
    with resource.alone():
        if pid := living(resource):
            raise AgentError(f"process {pid} runs already")
        launch(resource)
