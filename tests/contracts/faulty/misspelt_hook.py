"""Faulty: a hook that nobody calls."""

from hostd.api import Resource, hookimpl
from tests.contracts.sound_agent import living

BREAKS = ("loads",)


@hookimpl
def main_proces(resource: Resource) -> int | None:
    return living(resource) or None
