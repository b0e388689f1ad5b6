"""Faulty: monitor calls a service that was never started a failed one."""

from hostd.api import AgentError, Health, Resource, hookimpl
from tests.contracts.sound_agent import living

BREAKS = ("probe",)


@hookimpl
def monitor(resource: Resource) -> Health:
    if living(resource):
        return Health.RUNNING
    raise AgentError("the process is not there", cure="start it")
