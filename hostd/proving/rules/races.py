"""Two actions at once.  The moments are random, from the seed.

hostd itself never runs two changes of one resource at a time; an operator's
``hostd-agent run`` beside it, or a second hostd, does.
"""

from hostd.api import Health
from hostd.jobs import Outcome, Verb
from hostd.proving.breaches import Violation
from hostd.proving.findings import Rulebook
from hostd.proving.rules import steps
from hostd.proving.stage import Ask, Stage

RULES = Rulebook(is_live=True)

ROUNDS = 2
SLOW_MS = 2_000
"""A service whose start takes this long is raced once only."""


def _rounds(stage: Stage) -> range:
    return range(1 if stage.took_ms[Verb.START] > SLOW_MS else ROUNDS)


def _moment_ms(stage: Stage, verb: Verb) -> int:
    """Some time within this action."""
    return round(stage.dice.uniform(0.05, 0.95) * max(10, stage.usually_ms(verb)))


def _insist_ended(what: str, outcome: Outcome) -> None:
    if outcome.timed_out:
        raise Violation(f"{what} ends within its limit", steps.told(outcome), outcome.evidence)


@RULES.rule(
    "race-start-start",
    "two starts at once end in one instance",
    why="Two instances on one set of data corrupt it; and what one start spawned, no stop finds again.",
    needs=("start", "start-usable", "stop", "leftover-processes", "start-running"),
)
def race_start_start(stage: Stage) -> str | None:
    for number in _rounds(stage):
        delay_ms = 0 if number == 0 else _moment_ms(stage, Verb.START)
        first, second = stage.together(Ask(Verb.START), Ask(Verb.START, delay_ms, hand=1))
        when = f"after two starts, {delay_ms} ms apart"
        for outcome in (first, second):
            _insist_ended("each start", outcome)
        if not first.ok and not second.ok:
            raise Violation("one of two starts succeeds", f"{steps.told(first)}; {steps.told(second)}")
        steps.insist_up(stage, when)
        steps.stop(stage, when=f"stop {when}")
        steps.insist_stopped(stage, "after that stop")
    return None


@RULES.rule(
    "race-start-monitor",
    "a monitor during start disturbs nothing",
    why="A probe may come at any time; a monitor that meets half a start must neither break nor repair it.",
    needs=("start", "start-usable", "stop", "leftover-processes"),
)
def race_start_monitor(stage: Stage) -> str | None:
    for _ in _rounds(stage):
        delay_ms = _moment_ms(stage, Verb.START)
        started, monitored = stage.together(Ask(Verb.START), Ask(Verb.MONITOR, delay_ms, hand=1))
        _insist_ended("the monitor", monitored)
        if not started.ok:
            expected = f"start succeeds, a monitor {delay_ms} ms after it began"
            raise Violation(expected, steps.told(started), started.evidence)
        steps.insist_up(stage, "afterwards")
        steps.stop(stage)
    return None


@RULES.rule(
    "race-stop-monitor",
    "a monitor during stop disturbs nothing",
    why="The recurring monitor is under way when the operator says stop: it must not call half a stop a crash and act.",
    needs=("start", "start-usable", "stop", "leftover-processes"),
)
def race_stop_monitor(stage: Stage) -> str | None:
    for _ in _rounds(stage):
        steps.start(stage)
        delay_ms = _moment_ms(stage, Verb.STOP)
        stopped, monitored = stage.together(
            Ask(Verb.STOP), Ask(Verb.MONITOR, delay_ms, hand=1, depth=stage.subject.depth, is_recurring=True)
        )
        _insist_ended("the monitor", monitored)
        if not stopped.ok:
            expected = f"stop succeeds, a monitor {delay_ms} ms after it began"
            raise Violation(expected, steps.told(stopped), stopped.evidence)
        steps.insist_nothing_left(stage, "afterwards")
        steps.insist_stopped(stage, "afterwards")
    return None


@RULES.rule(
    "race-start-stop",
    "a stop during start: one more stop ends it",
    why="Whichever wins, the end must be one that a stop can clear up, and that monitor tells truly.",
    needs=("start", "start-usable", "stop", "stop-stopped", "leftover-processes"),
)
def race_start_stop(stage: Stage) -> str | None:
    for _ in _rounds(stage):
        delay_ms = _moment_ms(stage, Verb.START)
        started, stopped = stage.together(Ask(Verb.START), Ask(Verb.STOP, delay_ms, hand=1))
        when = f"after a stop {delay_ms} ms into a start"
        for outcome in (started, stopped):
            _insist_ended("each of start and stop", outcome)
        health = stage.monitor(depth=0).health
        if health is Health.STOPPED and stage.processes():
            raise Violation(f"{when}: STOPPED only if nothing runs", f"STOPPED, with {steps.named(stage.processes())}")
        steps.stop(stage, when=f"stop {when}")
        steps.insist_stopped(stage, "after that stop")
        steps.start(stage, when="start after that")
        steps.insist_up(stage, "after that start")
        steps.stop(stage, when="the last stop")
    return None
