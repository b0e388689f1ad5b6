"""Faulty: it writes its log where it happens to be run."""

from hostd.api import Resource

BREAKS = ("working-directory",)


def prepare(resource: Resource) -> None:
    with open("faulty.log", "a") as log:
        log.write("starting\n")
