"""What was said of each failure in all that went before."""

import re
from typing import Final

from hostd.jobs import Verb
from hostd.proving.breaches import Untried, Violation
from hostd.proving.findings import Rulebook
from hostd.proving.rules import machine
from hostd.proving.stage import Act, Stage

RULES = Rulebook(is_live=True)

REASON_MAX: Final = 400
MISTAKE: Final = "agent's mistake:"
EXITED: Final = re.compile(r"\w+ ended with exit status \d+ before it answered")
"""It ended its own process; one that was killed is another rule's doing."""


@RULES.rule(
    "foreseen-failures",
    "it fails by AgentError, never by a traceback",
    why="A KeyError tells the operator nothing; and whoever did not foresee it did not clean up either.",
    needs=("sandbox",),
)
def foreseen_failures(stage: Stage) -> str | None:
    for act in _failures(stage):
        if act.outcome.reason.startswith(MISTAKE) or EXITED.fullmatch(act.outcome.reason):
            raise Violation("AgentError(reason, cure)", f"{_which(act)}: {act.outcome.reason}")
    return None


@RULES.rule(
    "reasons",
    "each failure has a reason that names something",
    why='"failed" in a log at night is no help. One sentence that names the file, program or port is.',
    needs=("sandbox", "foreseen-failures"),
)
def reasons(stage: Stage) -> str | None:
    found = _failures(stage)
    if not found:
        raise Untried("nothing failed")
    for act in found:
        text = act.outcome.reason.strip()
        if len(text.split()) < 3:
            raise Violation("a sentence", f"{_which(act)}: {text!r}")
        if "\n" in text or len(text) > REASON_MAX:
            raise Violation(f"one line of at most {REASON_MAX} characters", f"{_which(act)}: {text[:200]!r} …")
    return f"{len(found)} failures"


def _failures(stage: Stage) -> list[Act]:
    """By the agent's own word: what hostd killed has hostd's reason.  Some are provoked if there are none."""
    if all(act.outcome.ok for act in stage.history):
        for params in machine.wrong_paths(stage).values():
            stage.start(params=params)
            stage.stop(params=params)
    return [
        act for act in stage.history if not act.outcome.ok and not act.outcome.timed_out and act.outcome.took_ms > 0
    ]


def _which(act: Act) -> str:
    depth = f" (depth {act.ask.depth})" if act.ask.verb is Verb.MONITOR else ""
    return f"{act.ask.verb.value}{depth} while {act.rule} was tried"
