"""Faulty: it ends its process instead of answering."""

import sys
from pathlib import Path

from hostd.api import Field, Resource, hookimpl

BREAKS = ("process-safe", "foreseen-failures")
FIELDS = [Field("config", Path, default=None, help="read at each start")]


@hookimpl
def sandbox(directory: Path) -> dict[str, str]:
    (directory / "config").write_text("seconds = 1000000\n")
    return {"config": str(directory / "config")}


def prepare(resource: Resource) -> None:
    if not resource.params["config"].exists():
        sys.exit("the configuration is not there")
