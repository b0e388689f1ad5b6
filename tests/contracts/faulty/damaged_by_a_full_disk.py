"""Faulty: it empties its file before it knows that there is room for the new one."""

from pathlib import Path

from hostd.api import AgentError, Field, Resource, hookimpl

BREAKS = ("full-disk",)
FIELDS = [Field("history", Path, default=None, help="of the starts")]
LAST = "end\n"


@hookimpl
def sandbox(directory: Path) -> dict[str, str]:
    (directory / "history").write_text(LAST)
    return {"history": str(directory / "history")}


def prepare(resource: Resource) -> None:
    history = resource.params["history"]
    try:
        text = history.read_text()
        if not text.endswith(LAST):
            raise AgentError(f"{history} is damaged: its end is missing")
        history.write_text(text.removesuffix(LAST) + "it was started\n" * 1000 + LAST)
    except OSError as error:
        raise AgentError(f"{history}: {error.strerror}") from error
