"""Faulty: it leaves the name of the node in the data, and refuses them on another."""

import contextlib
from pathlib import Path

from hostd.api import AgentError, Field, Resource, hookimpl

BREAKS = ("two-nodes",)
FIELDS = [Field("data", Path, default=None, help="where its data are")]


@hookimpl
def sandbox(directory: Path) -> dict[str, str]:
    return {"data": str(directory)}


def prepare(resource: Resource) -> None:
    owner = resource.params["data"] / "owner"
    if not owner.parent.is_dir():
        raise AgentError(f"{owner.parent} is not there")
    with contextlib.suppress(OSError):
        if not owner.exists():
            owner.write_text(resource.node)
    if owner.exists() and owner.read_text() != resource.node:
        raise AgentError(f"{owner} says that another node owns the data")
