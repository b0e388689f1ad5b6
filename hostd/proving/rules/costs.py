"""What a monitor costs: it runs every few seconds for years."""

import statistics
from typing import Final

from hostd.jobs import Verb
from hostd.proving.breaches import Violation
from hostd.proving.findings import Rulebook
from hostd.proving.rules import steps
from hostd.proving.stage import Stage

RULES = Rulebook(is_live=True)

LOOKS: Final = 3
CPU_SHARE_MAX: Final = 0.05
"""Of one processor, at the default interval; ten services would need half of it."""
TIME_SHARE_MAX: Final = 0.5
"""Of its time limit; a machine under load is twice as slow, and more."""


@RULES.rule(
    "monitor-cost",
    "monitor is cheap and quick",
    why="A busy monitor takes the processor from the service; a slow one times out when the machine is busy.",
    needs=("start", "start-usable", "stop"),
)
def monitor_cost(stage: Stage) -> str | None:
    steps.start(stage)
    depth = stage.subject.depth
    took, cpu = [], []
    for _ in range(LOOKS):
        outcome = steps.insist_up(stage, "while it runs", depth=depth)
        took.append(outcome.took_ms)
        cpu.append(stage.last.trace.cpu_ms)
    cpu_ms, took_ms = statistics.median(cpu), statistics.median(took)
    figures = f"{cpu_ms} ms CPU, {took_ms} ms (median of {LOOKS}, depth {depth})"
    allowed_ms = stage.subject.interval_ms * CPU_SHARE_MAX
    if cpu_ms > allowed_ms:
        raise Violation(f"at most {allowed_ms:.0f} ms of CPU time ({CPU_SHARE_MAX:.0%} of its interval)", figures)
    if took_ms > stage.subject.limit_ms(Verb.MONITOR) * TIME_SHARE_MAX:
        raise Violation(f"at most half of its time limit ({stage.subject.limit_ms(Verb.MONITOR)} ms)", figures)
    return figures
