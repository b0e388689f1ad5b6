"""Faulty: what it did not foresee ends in a traceback."""

from pathlib import Path

from hostd.api import Field, Resource, hookimpl
from tests.contracts.sound_agent import note

BREAKS = ("foreseen-failures",)
FIELDS = [Field("config", Path, default=None, help="read at each start")]


@hookimpl
def sandbox(directory: Path) -> dict[str, str]:
    (directory / "config").write_text("seconds = 1000000\n")
    return {"config": str(directory / "config")}


def launch(resource: Resource) -> None:
    seconds = resource.params["config"].read_text().split()[2]
    note(resource).write_text(str(resource.spawn(["sleep", seconds])))
