"""Faulty: it fails without a word."""

from pathlib import Path

from hostd.api import AgentError, Field, Resource, hookimpl

BREAKS = ("reasons",)
FIELDS = [Field("config", Path, default=None, help="read at each start")]


@hookimpl
def sandbox(directory: Path) -> dict[str, str]:
    (directory / "config").write_text("seconds = 1000000\n")
    return {"config": str(directory / "config")}


def prepare(resource: Resource) -> None:
    if not resource.params["config"].exists():
        raise AgentError("failed")
