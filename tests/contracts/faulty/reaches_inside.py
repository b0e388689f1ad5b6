"""Faulty: it imports what is hostd's own."""

from hostd import clock
from hostd.api import Resource

BREAKS = ("imports",)


def prepare(resource: Resource) -> None:
    resource.log.info("at %d ms", clock.now_ms())
