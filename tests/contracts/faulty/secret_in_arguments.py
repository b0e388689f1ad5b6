"""Faulty: it hands the password to a command as an argument, for all to read."""

from hostd.api import Field, Health, Resource, hookimpl
from tests.contracts.sound_agent import health, living

BREAKS = ("secrets",)
FIELDS = [Field("password", str, default="", secret=True, help="of the service")]


@hookimpl
def monitor(resource: Resource) -> Health:
    if living(resource):
        resource.run(["true", f"--password={resource.params['password']}"])
    return health(resource)
