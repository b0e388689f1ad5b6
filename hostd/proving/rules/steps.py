"""Steps that many rules share: bring it up, bring it down, insist on an answer.

Each says what was expected and what came, so that a rule reads as a story.
"""

from typing import Final

from hostd.api import Health
from hostd.jobs import Outcome
from hostd.processes import Process
from hostd.proving.breaches import Untried, Violation
from hostd.proving.stage import Stage

FAST_LIMIT_MS: Final = 3_000
"""A first try of what needs no longer, so that a hang costs seconds and not the agent's own limit."""


NO_PROCESS: Final = "nothing to try: it runs no process of its own that could be killed"
UNMOUNTED: Final = "umount of what it had mounted"
NEVER_STOPPED: Final = "monitor never says STOPPED"


def told(outcome: Outcome) -> str:
    """An outcome in words."""
    if outcome.timed_out:
        return f"{outcome.reason}; it was killed"
    if outcome.ok and outcome.leftovers:
        return f"success after {outcome.took_ms} ms, but {outcome.reason}"
    if outcome.ok:
        return f"{health_word(outcome.health)} after {outcome.took_ms} ms"
    return f"failed after {outcome.took_ms} ms: {outcome.reason or '(no reason given)'}"


def health_word(health: Health | None) -> str:
    return health.name if health else "success"


def named(processes: list[Process]) -> str:
    """Processes for people."""
    return ", ".join(f"{process.name} ({process.pid})" for process in processes[:5]) or "none"


def is_up(outcome: Outcome) -> bool:
    return outcome.ok and outcome.health in (Health.RUNNING, Health.DEGRADED)


def start(stage: Stage, *, node: str = "a", when: str = "start") -> Outcome:
    """Start it; Violation if that fails."""
    outcome = stage.start(node=node)
    if not outcome.ok:
        raise Violation(f"{when}: success", told(outcome), outcome.evidence)
    return outcome


def stop(stage: Stage, *, node: str = "a", when: str = "stop") -> Outcome:
    """Stop it; Violation if that fails or leaves processes."""
    outcome = stage.stop(node=node)
    if not outcome.ok or outcome.leftovers:
        raise Violation(f"{when}: success, and no process left", told(outcome), outcome.evidence)
    return outcome


def insist_up(stage: Stage, when: str, *, node: str = "a", depth: int | None = None) -> Outcome:
    """Its monitor must say RUNNING (or DEGRADED)."""
    depth = stage.subject.depth if depth is None else depth
    outcome = stage.monitor(node=node, depth=depth, is_recurring=True)
    if not is_up(outcome):
        raise Violation(f"{when}: monitor (depth {depth}) says RUNNING", told(outcome), outcome.evidence)
    return outcome


def insist_stopped(stage: Stage, when: str, *, node: str = "a", depth: int = 0) -> None:
    """Its monitor must say STOPPED.  Not asked again where it never does: the rule ``probe`` tells that once."""
    if stage.memory.get(NEVER_STOPPED):
        return
    outcome = stage.monitor(node=node, depth=depth)
    if not outcome.ok or outcome.health is not Health.STOPPED:
        raise Violation(f"{when}: monitor (depth {depth}) says STOPPED", told(outcome), outcome.evidence)


def insist_not_up(stage: Stage, when: str, *, depth: int) -> Outcome:
    """Its monitor may say STOPPED or fail, but neither RUNNING nor DEGRADED nor nothing at all."""
    outcome = stage.monitor(depth=depth, is_recurring=True)
    if outcome.ok and outcome.health is not Health.STOPPED:
        raise Violation(f"{when}: monitor (depth {depth}) fails or says STOPPED", told(outcome))
    if outcome.timed_out:
        raise Violation(f"{when}: monitor (depth {depth}) answers", told(outcome), outcome.evidence)
    return outcome


def insist_same(first: Outcome, second: Outcome) -> None:
    """Both name the same main process; an outcome that names none says nothing."""
    if first.main_pid and second.main_pid and first.main_pid != second.main_pid:
        raise Violation(f"the same main process ({first.main_pid})", f"another one ({second.main_pid})")


def insist_nothing_left(stage: Stage, when: str, *, node: str = "a") -> None:
    """No process of it may live."""
    left = stage.processes(node)
    if left:
        raise Violation(f"{when}: no process of the service is left", named(left))


def victims(stage: Stage) -> list[Process]:
    """The process that main_process named, or all.  Untried if no process of it runs."""
    found = stage.processes()
    main = next((act.outcome.main_pid for act in reversed(stage.history) if act.outcome.main_pid), 0)
    if not found:
        raise Untried(NO_PROCESS)
    return [process for process in found if process.pid == main] or found


def lose(stage: Stage) -> str:
    """The service is lost without a stop: its main process is killed, or all; of one that has no
    process, what it mounted is taken away.  What was done, in words.  Untried if it has neither."""
    if not stage.processes() and stage.unmount():
        return UNMOUNTED
    found = victims(stage)
    stage.kill(found)
    return f"kill -9 of {named(found)}"


def lose_all(stage: Stage) -> str:
    """The same, of everything that it has on node A."""
    if stage.kill_all():
        return "kill -9 of all its processes"
    if stage.unmount():
        return UNMOUNTED
    raise Untried(NO_PROCESS)
