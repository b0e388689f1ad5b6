"""Faulty: it leaves a lock file in a place that it was not given."""

from pathlib import Path

from hostd.api import Resource

BREAKS = ("leftover-files",)


def prepare(resource: Resource) -> None:
    Path("/dev/shm/hostd-faulty-agent.lock").write_text("locked")
