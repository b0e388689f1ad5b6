"""Faulty: it logs the password."""

from hostd.api import Field, Resource

BREAKS = ("secrets",)
FIELDS = [Field("password", str, default="", secret=True, help="of the service")]


def prepare(resource: Resource) -> None:
    resource.log.info("starting with %s", dict(resource.params))
