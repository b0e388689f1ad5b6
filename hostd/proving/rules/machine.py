"""A machine that is not as it should be: no program, wrong values, no room, no right to write."""

import contextlib
import os
from pathlib import Path
from typing import Any, Final

from hostd.api import Health
from hostd.proving import traces, views
from hostd.proving.afflictions import Circumstances
from hostd.proving.breaches import Untried, Violation
from hostd.proving.findings import Rulebook
from hostd.proving.rules import steps
from hostd.proving.stage import Stage
from hostd.proving.subject import takes_text

RULES = Rulebook(is_live=True)

INTERPRETERS: Final = ("python", "bash", "dash", "sh", "perl", "busybox", "ruby", "env")
"""Hidden, nothing at all would run: neither the agent nor the shell that it calls."""
USER_NAMES: Final = ("user", "username", "run_as", "runas", "owner")
NO_USER: Final = "hostd-no-such-user"


@RULES.rule(
    "program-missing",
    "without its program it is STOPPED, start says why",
    why="A node where the package was removed must say so, and must be a place where the service is not.",
    needs=("start", "stop", "stop-stopped", "leftover-processes"),
)
def program_missing(stage: Stage) -> str | None:
    if os.geteuid() != 0:
        raise Untried("needs root")
    steps.start(stage)
    programs = _programs(stage)
    steps.stop(stage)
    if not programs:
        raise Untried("nothing to try: it runs no program of its own that could be hidden")
    names = ", ".join(path.name for path in programs)
    with views.without(programs, stage.folder / "nothing") as namespace:
        under = Circumstances(namespace=namespace, path="")
        probed = stage.monitor(under=under)
        knows_stopped = not stage.memory.get(steps.NEVER_STOPPED)
        if knows_stopped and (not probed.ok or probed.health is not Health.STOPPED):
            raise Violation(f"without {names}: monitor says STOPPED", steps.told(probed), probed.evidence)
        started = stage.start(under=under)
        if started.ok or started.timed_out:
            raise Violation(f"without {names}: start fails with its reason", steps.told(started), started.evidence)
        stopped = stage.stop(under=under)
        if not stopped.ok:
            raise Violation(f"without {names}: stop of what is stopped succeeds", steps.told(stopped), stopped.evidence)
    return names


def _programs(stage: Stage) -> list[Path]:
    """What the service's processes run; of one that has none, what its start has run.  Interpreters aside."""
    found = []
    for process in stage.processes():
        with contextlib.suppress(OSError):
            found.append(Path(f"/proc/{process.pid}/exe").readlink())
    if not found:
        found = [Path(command.split()[0]).resolve() for command in stage.last.trace.commands if command[:1] == "/"]
    return [
        program
        for program in dict.fromkeys(found)
        if program.is_file() and not program.name.rstrip("0123456789.").startswith(INTERPRETERS)
    ]


@RULES.rule(
    "bad-parameter",
    "a path that is not there is told by start",
    why="A mistyped path is the commonest mistake: it must be named, and not end at the time limit.",
    needs=("start", "stop", "stop-stopped", "leftover-processes"),
)
def bad_parameter(stage: Stage) -> str | None:
    tried = wrong_paths(stage)
    if not tried:
        raise Untried("nothing to try: none of its parameters is the path of something that exists")
    for name, params in tried.items():
        wrong = params[name]
        started = stage.start(params=params)
        if started.timed_out:
            raise Violation(f"{name} = {wrong}: start fails at once", steps.told(started), started.evidence)
        if started.ok and not steps.is_up(stage.monitor(params=params)):
            raise Violation(f"{name} = {wrong}: start fails, or it runs", f"{steps.told(started)}, and it does not run")
        stopped = stage.stop(params=params)
        if not stopped.ok or stopped.leftovers:
            raise Violation(f"{name} = {wrong}: stop succeeds", steps.told(stopped), stopped.evidence)
        steps.insist_nothing_left(stage, f"after {name} = {wrong}")
    return ", ".join(tried)


def wrong_paths(stage: Stage) -> dict[str, dict[str, Any]]:
    """Each parameter that is the path of something: the same, as the path of nothing."""
    wrong = str(stage.folder / "spare" / "hostd-not-there" / "x")
    found: dict[str, dict[str, Any]] = {}
    for name, value in stage.params.items():
        first = value[0] if isinstance(value, list) and value else value
        if isinstance(first, str | Path) and str(first)[:1] == "/" and Path(first).exists():
            found[name] = {name: [wrong] if isinstance(value, list) else type(value)(wrong)}
    return found


@RULES.rule(
    "shell-safe",
    "a parameter is data, never a piece of shell",
    why="A blank, a quote or a $( in a path must not become a command run by root.",
    needs=("sandbox", "stop"),
)
def shell_safe(stage: Stage) -> str | None:
    texts = [field.name for field in stage.subject.parameters.fields if takes_text(field)]
    if not texts:
        raise Untried("nothing to try: it has no parameter that is a text")
    proof = stage.folder / "spare" / "shell-was-here"
    for text in (f"x$(touch {proof})", f"x; touch {proof} #", f"x' ; touch {proof} '", f'x"; touch {proof} "'):
        params = {name: Path(text) if isinstance(stage.params.get(name), Path) else text for name in texts}
        stage.monitor(params=params)
        if "validate" in stage.subject.agent.hooks:
            stage.validate(params=params)
        if proof.exists():
            proof.unlink()
            named = ", ".join(texts)
            raise Violation("each text is passed on as it is", f"{text!r}, given for {named}, was run by a shell")
    return None


@RULES.rule(
    "wrong-user",
    "a user that does not exist is told by start",
    why="On the second node the package may be missing, and its user with it.",
    needs=("start", "stop"),
)
def wrong_user(stage: Stage) -> str | None:
    names = [field.name for field in stage.subject.parameters.fields if field.name in USER_NAMES]
    names = [name for name in names if stage.params.get(name) or name != "owner"]
    if not names:
        raise Untried("nothing to try: it has no parameter for the user that the service runs as")
    params = {names[0]: NO_USER}
    outcome = stage.start(params=params)
    if outcome.ok or outcome.timed_out:
        raise Violation(f"{names[0]} = {NO_USER}: start fails with its reason", steps.told(outcome), outcome.evidence)
    steps.insist_nothing_left(stage, "after that")
    return None


@RULES.rule(
    "full-disk",
    "a full disk: a clear failure, and no damage",
    why="It happens to everybody once: start must say so or serve, and all be well when there is room again.",
    needs=("start", "start-usable", "stop", "stop-stopped", "leftover-processes"),
)
def full_disk(stage: Stage) -> str | None:
    data = stage.private_view()
    with views.full(data, stage.folder / "spare") as disk:
        note = _life_in(stage, disk.namespace, "on a full disk")
        disk.make_room()
        under = Circumstances(namespace=disk.namespace)
        again = stage.start(under=under)
        if not again.ok:
            raise Violation("start when there is room again", steps.told(again), again.evidence)
        stopped = stage.stop(under=under)
        if not stopped.ok or stopped.leftovers:
            raise Violation("stop when there is room again", steps.told(stopped), stopped.evidence)
        return note


@RULES.rule(
    "read-only",
    "a read-only disk: a clear failure, no damage",
    why="A disk with errors is made read-only by the kernel; a hang there is worse than a failure.",
    needs=("start", "start-usable", "stop", "stop-stopped", "leftover-processes"),
)
def read_only(stage: Stage) -> str | None:
    data = stage.private_view()
    with views.read_only(data) as namespace:
        note = _life_in(stage, namespace, "on a read-only disk")
    steps.start(stage, when="start when the disk is well again")
    steps.insist_up(stage, "when the disk is well again")
    return note


def _life_in(stage: Stage, namespace: str, where: str) -> str:
    """Start, monitor and stop in this view of the disks."""
    under = Circumstances(namespace=namespace)
    started = stage.start(under=under)
    if started.timed_out:
        raise Violation(f"{where}: start succeeds or fails within its limit", steps.told(started), started.evidence)
    monitored = stage.monitor(under=under, depth=stage.subject.depth)
    if monitored.timed_out:
        raise Violation(f"{where}: monitor answers", steps.told(monitored), monitored.evidence)
    if started.ok and monitored.health is Health.STOPPED:
        raise Violation(f"{where}: start fails, or it runs", "start succeeded, and monitor says STOPPED")
    stopped = stage.stop(under=under)
    if not stopped.ok or stopped.leftovers:
        raise Violation(f"{where}: stop succeeds", steps.told(stopped), stopped.evidence)
    return "it starts there" if started.ok else "start fails there"


@RULES.rule(
    "working-directory",
    "it writes nothing where it happens to be run",
    why="hostd runs actions in the root directory: a core, a pid file or a log there is found by nobody.",
    needs=("start", "stop", "leftover-processes"),
)
def working_directory(stage: Stage) -> str | None:
    steps.start(stage)
    stage.monitor(depth=stage.subject.depth)
    steps.stop(stage)
    found = traces.files(stage.elsewhere)
    if found:
        listed = ", ".join(f"{kind} {name}" for name, kind in found.items())
        raise Violation("nothing in the working directory of its actions", listed)
    return None
