"""What is still there after a stop: processes, sockets, mounts, files.

All four look at one and the same ordinary life of the service.
"""

from pathlib import Path
from typing import Final

import msgspec

from hostd.api import servers
from hostd.processes import Process
from hostd.proving import traces
from hostd.proving.breaches import Violation
from hostd.proving.findings import Rulebook
from hostd.proving.rules import steps
from hostd.proving.stage import Stage

RULES = Rulebook(is_live=True)

KEPT: Final = ("output", servers.NOTE)
"""Files of a run directory that hostd's own api puts there; neither is believed by anybody."""


class Life(msgspec.Struct, frozen=True):
    """What one start, monitor and stop left."""

    processes: list[Process]
    sockets: frozenset[str]
    mounts: tuple[str, ...]
    files: tuple[str, ...]
    strays: tuple[str, ...]
    """Files outside of the places that are its own."""


def _life(stage: Stage) -> Life:
    """Lived once, remembered for the other rules."""
    if "life" not in stage.memory:
        steps.start(stage)
        began = len(stage.history) - 1
        stage.monitor(depth=stage.subject.depth)
        doors = stage.listening()
        outcome = stage.stop()
        if not outcome.ok:
            raise Violation("stop: success", steps.told(outcome), outcome.evidence)
        run_dir = stage.nodes["a"].run_dir
        files = {name: kind for name, kind in traces.files(run_dir).items() if kind != "folder"}
        written = [name for act in stage.history[began:] for name in act.trace.written]
        stage.memory["life"] = Life(
            stage.processes(),
            traces.still_listening(doors),
            tuple(
                what
                for number, what in traces.mounts().items()
                if number not in stage.mounted and _is_ours(stage, what)
            ),
            tuple(f"{kind} {name}" for name, kind in files.items() if name not in KEPT and not name.endswith(".log")),
            tuple(name for name in dict.fromkeys(written) if _is_stray(stage, name)),
        )
    life: Life = stage.memory["life"]
    return life


def _is_ours(stage: Stage, mount: str) -> bool:
    """In live mode others mount as well: then only what a parameter names counts."""
    values = [str(value) for value in stage.params.values() if isinstance(value, str | Path)]
    return not stage.is_live or any(value.startswith("/") and value in mount for value in values)


def _is_stray(stage: Stage, name: str) -> bool:
    """What lies in the working directory is another rule's."""
    own = [stage.folder / node / "resources" for node in stage.nodes] + ([stage.data] if stage.data else [])
    named = [Path(value) for value in stage.params.values() if isinstance(value, str | Path) and str(value)[:1] == "/"]
    path = (stage.elsewhere / name).resolve()
    return path.is_file() and not any(path.is_relative_to(folder) for folder in (*own, *named, stage.elsewhere))


@RULES.rule(
    "leftover-processes",
    "stop leaves no process",
    why="A worker that lives on serves old data, holds the port, and writes beside the next instance.",
    needs=("start", "stop"),
)
def leftover_processes(stage: Stage) -> str | None:
    left = _life(stage).processes
    if left:
        raise Violation("no process of the service after stop", steps.named(left))
    return None


@RULES.rule(
    "leftover-sockets",
    "stop leaves no socket",
    why="Clients would go on talking to it, and the next start would find its address taken.",
    needs=("start", "stop", "leftover-processes"),
)
def leftover_sockets(stage: Stage) -> str | None:
    left = _life(stage).sockets
    if left:
        raise Violation("none of its sockets after stop", ", ".join(sorted(left)))
    return None


@RULES.rule(
    "leftover-mounts",
    "stop leaves no mount",
    why="What is still mounted here is mounted twice when the other node takes over.",
    needs=("start", "stop"),
)
def leftover_mounts(stage: Stage) -> str | None:
    left = _life(stage).mounts
    if left:
        raise Violation("no new mount after stop", ", ".join(left))
    return None


@RULES.rule(
    "leftover-files",
    "stop leaves no state file, in no place",
    why="A stale pid file, socket or lock is taken for a running service, or blocks the next start.",
    needs=("start", "stop"),
)
def leftover_files(stage: Stage) -> str | None:
    life = _life(stage)
    if life.files:
        raise Violation("nothing but *.log and what hostd's api keeps in its run directory", ", ".join(life.files))
    if life.strays:
        raise Violation("files in its run directory and its own data only", ", ".join(life.strays))
    return None


@RULES.rule(
    "stop-twice",
    "stop again is a success, and start after it",
    why="A stop is repeated when its outcome was lost, and the service comes back later.",
    needs=("start", "start-usable", "stop", "stop-stopped", "leftover-processes"),
)
def stop_twice(stage: Stage) -> str | None:
    steps.start(stage)
    steps.stop(stage)
    steps.stop(stage, when="stop again")
    steps.insist_stopped(stage, "after it")
    steps.start(stage, when="start after it")
    steps.insist_up(stage, "after a second start")
    steps.stop(stage, when="the last stop")
    return None
