"""Hangs: in each action, and of the service itself.

A hang is forced from outside of the agent (the action never ends; every
process of the service is stopped by SIGSTOP), so that any agent can be tried.
"""

from pathlib import Path
from typing import Final

from hostd.jobs import Outcome, Verb
from hostd.proving.afflictions import Circumstances
from hostd.proving.breaches import Untried, Violation
from hostd.proving.findings import Rulebook
from hostd.proving.rules import steps
from hostd.proving.stage import Stage

RULES = Rulebook(is_live=True)

SLACK_MS: Final = 5_000
"""Of a kill after the limit: two seconds each for evidence and death, and a busy machine."""
SHORT_MS: Final = 300
ATTEMPTS_MAX: Final = 5
"""To kill a start before it has ended."""


def _insist_struck(outcome: Outcome, limit_ms: int) -> None:
    """The limit struck in time, with evidence."""
    if not outcome.timed_out:
        raise Violation(f"killed at its limit of {limit_ms} ms", steps.told(outcome))
    if outcome.took_ms > limit_ms + SLACK_MS:
        raise Violation(f"dead within {limit_ms + SLACK_MS} ms", f"dead after {outcome.took_ms} ms", outcome.evidence)
    if not outcome.evidence or not Path(outcome.evidence).read_text(errors="replace"):
        raise Violation("evidence of what it did", "none")


@RULES.rule(
    "hang-start",
    "after a start that hung, stop and start work",
    why="A start over its limit is killed in the middle; if stop cannot clear that up, the node is fenced.",
    needs=("start", "start-usable", "stop", "stop-stopped"),
)
def hang_start(stage: Stage) -> str | None:
    limit_ms = 3 * max(stage.usually_ms(Verb.START), stage.took_ms[Verb.START]) + SHORT_MS
    outcome = stage.start(limit_ms=limit_ms, under=Circumstances(hang="after"))
    _insist_struck(outcome, limit_ms)
    steps.insist_nothing_left(stage, "after the kill")
    steps.stop(stage, when="stop after it")
    steps.insist_stopped(stage, "after that stop")
    steps.start(stage, when="start after that")
    return f"killed after {outcome.took_ms} ms of {limit_ms} ms"


@RULES.rule(
    "killed-start",
    "after a start killed half-way, stop and start work",
    why="The power goes, or the limit strikes, at any moment: half of a start must not block the next.",
    needs=("start", "start-usable", "stop", "stop-stopped", "leftover-processes"),
)
def killed_start(stage: Stage) -> str | None:
    moment_ms = max(3, round(stage.usually_ms(Verb.START) * stage.dice.uniform(0.1, 0.9)))
    for _ in range(ATTEMPTS_MAX):
        outcome = stage.start(cut_ms=moment_ms)
        if not outcome.ok:
            stage.kill_all()  # what it was forking at that very moment goes as well
            break
        steps.stop(stage, when="stop after a start that was too quick to be killed")
        moment_ms = max(1, moment_ms // 2)  # it was slower when its time was taken
    else:
        raise Untried("its start is too quick to be killed half-way")
    steps.stop(stage, when=f"stop after a start that was killed after {moment_ms} ms")
    steps.insist_stopped(stage, "after that stop")
    steps.start(stage, when="start after that")
    steps.insist_up(stage, "after that start")
    return f"after {moment_ms} ms"


@RULES.rule(
    "hang-stop",
    "after a stop that hung, stop works",
    why="A stop that failed is repeated by `hostd cleanup`; only a second one that works spares the node.",
    needs=("start", "stop", "leftover-processes"),
)
def hang_stop(stage: Stage) -> str | None:
    steps.start(stage)
    outcome = stage.stop(limit_ms=SHORT_MS, under=Circumstances(hang="before"))
    _insist_struck(outcome, SHORT_MS)
    steps.stop(stage, when="stop after it")
    steps.insist_stopped(stage, "after that stop")
    return None


@RULES.rule(
    "hang-monitor",
    "a monitor that hung costs nothing but itself",
    why="A monitor that is killed at its limit must not take the service with it.",
    needs=("start", "start-usable", "stop"),
)
def hang_monitor(stage: Stage) -> str | None:
    first = steps.start(stage)
    outcome = stage.monitor(limit_ms=SHORT_MS, under=Circumstances(hang="before"))
    _insist_struck(outcome, SHORT_MS)
    second = steps.insist_up(stage, "after it")
    steps.insist_same(first, second)
    return None


@RULES.rule(
    "frozen-monitor",
    "monitor of a frozen service answers in time",
    why="A hung service is an outage: a monitor that hangs with it tells of it late, and without a reason.",
    needs=("start", "start-usable", "stop"),
)
def frozen_monitor(stage: Stage) -> str | None:
    steps.start(stage)
    frozen = stage.freeze()
    if not frozen:
        raise Untried("nothing to try: it runs no process of its own that could be frozen")
    depth = stage.subject.depth
    outcome = stage.monitor(depth=depth, is_recurring=True)
    if outcome.timed_out:
        raise Violation(
            f"an answer within {stage.subject.limit_ms(Verb.MONITOR)} ms", steps.told(outcome), outcome.evidence
        )
    if depth >= 10 and steps.is_up(outcome):
        raise Violation(f"a monitor of depth {depth} that fails, for nobody is answered", steps.told(outcome))
    return f"after {outcome.took_ms} ms"


@RULES.rule(
    "frozen-stop",
    "stop ends a frozen service",
    why="A hung service does not hear SIGTERM. If stop does not go on to SIGKILL, the node is fenced for it.",
    needs=("start", "stop", "leftover-processes"),
)
def frozen_stop(stage: Stage) -> str | None:
    limit_ms = stage.subject.limit_ms(Verb.STOP)
    fast_ms = min(limit_ms, max(steps.FAST_LIMIT_MS, 4 * stage.took_ms[Verb.STOP]))
    outcome = Outcome(ok=False)
    for allowed_ms in dict.fromkeys((fast_ms, limit_ms)):
        steps.start(stage)
        if not stage.freeze():
            raise Untried("nothing to try: it runs no process of its own that could be frozen")
        outcome = stage.stop(limit_ms=allowed_ms)
        if outcome.ok and not outcome.leftovers:
            return f"after {outcome.took_ms} ms"
        stage.reset()
    raise Violation(f"success within {limit_ms} ms, and no process left", steps.told(outcome), outcome.evidence)
