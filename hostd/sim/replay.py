"""From a seed to a run, again and again the same.

Decides how a seed becomes a plan and a schedule, and how a schedule that
finds harm is made smaller.
"""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from hostd.core.node import Node
from hostd.core.plan import Plan
from hostd.sim import draws, faults, mutants, plans
from hostd.sim.machine import Brain
from hostd.sim.run import Verdict, simulate
from hostd.sim.trace import Trace

OVER_MS = 30_000
"""Faults fall within this span; then peace until all is well."""

Show = Callable[[str], None]


class Outcome(msgspec.Struct):
    """What came of many runs."""

    runs: int = 0
    virtual_ms: int = 0
    well_after_ms_max: int = 0
    overlap_ms_max: int = 0
    harmed: list[Verdict] = []
    digest: str = ""


def make_brain(plan: Plan, node: str) -> Brain:
    """The real core."""
    return Node(plan, node)


def drawn(seed: int, fencing: bool | None) -> tuple[Plan, faults.Schedule]:
    """The plan and the schedule of a seed."""
    plan = plans.draw(seed, fencing)
    return plan, draws.draw(seed, plan, faults=4 + seed % 17, over_ms=OVER_MS)


def many(
    seeds: Iterable[int],
    *,
    fencing: bool | None = None,
    mutant: str | None = None,
    keep_going: bool = False,
    digest: bool = False,
    show: Show | None = None,
) -> Outcome:
    """Run every seed; ends at the first harm unless told to keep going."""
    outcome = Outcome()
    digests = hashlib.sha256()
    with mutants.applied(mutant):
        for seed in seeds:
            plan, schedule = drawn(seed, fencing)
            trace = Trace()
            watchers = (trace,) if digest else ()
            verdict = simulate(plan, schedule, seed, make_brain, over_ms=OVER_MS, observers=watchers)
            outcome.runs += 1
            outcome.virtual_ms += verdict.at_ms
            outcome.well_after_ms_max = max(outcome.well_after_ms_max, verdict.well_after_ms)
            outcome.overlap_ms_max = max(outcome.overlap_ms_max, verdict.overlap_ms)
            digests.update(trace.digest().encode())
            if not verdict.harm:
                continue
            outcome.harmed.append(verdict)
            if show is not None:
                show(f"seed {seed}: {verdict.harm}\n    {command(seed, fencing, mutant)}")
            if not keep_going:
                break
    outcome.digest = digests.hexdigest()[:16]
    return outcome


def command(seed: int, fencing: bool | None, mutant: str | None) -> str:
    """What to type to see this run again."""
    words = ["python -m hostd.sim replay", str(seed)]
    if fencing is not None:
        words.append("--fencing" if fencing else "--no-fencing")
    if mutant:
        words.append(f"--mutant {mutant}")
    return " ".join(words)


def one(
    seed: int,
    *,
    fencing: bool | None = None,
    mutant: str | None = None,
    shrink: bool = False,
    facts: bool = False,
    schedule: str | None = None,
    show: Show,
) -> Verdict:
    """Replay one seed and show it."""
    plan, drawn_schedule = drawn(seed, fencing)
    if schedule is not None:
        drawn_schedule = read_schedule(Path(schedule).read_text())
    with mutants.applied(mutant):
        if shrink:
            drawn_schedule = shrunk(plan, drawn_schedule, seed)
        trace = Trace(facts)
        verdict = simulate(plan, drawn_schedule, seed, make_brain, over_ms=OVER_MS, observers=(trace,))
    show(f"fencing {'required' if plan.fencing else 'none'}; " + "; ".join(_told(plan)))
    for at_ms, fault in drawn_schedule:
        show(f"    {at_ms / 1000:.3f} {faults.words(fault)}")
    for line in trace.lines():
        show(line)
    show(f"{verdict.at_ms / 1000:9.3f} == {verdict.harm or 'all well'}")
    if verdict.harm:
        show(f"again: {command(seed, fencing, mutant)}")
    return verdict


def _told(plan: Plan) -> list[str]:
    told = []
    for s in plan.services:
        words = [s.name, "on all" if s.everywhere else f"primary {s.primary}"]
        words += [f"requires {r}" for r in s.requires] + [f"after {a}" for a in s.after]
        words += [r.address or r.agent for r in s.resources]
        words.append(f"failback {s.failback_after_ms}")
        told.append(" ".join(words))
    return told


def read_schedule(text: str) -> faults.Schedule:
    """Lines of "seconds fault", as :func:`one` shows them."""
    timed = []
    for line in text.splitlines():
        if line.strip():
            at, rest = line.split(maxsplit=1)
            timed.append(faults.Timed(round(float(at) * 1000), faults.parse(rest)))
    return tuple(timed)


def shrunk(plan: Plan, schedule: faults.Schedule, seed: int) -> faults.Schedule:
    """Drop faults while the same rule is broken; greedy, halves first."""
    rule = _rule(simulate(plan, schedule, seed, make_brain, over_ms=OVER_MS))
    size = max(1, len(schedule) // 2)
    while rule and size:
        start = 0
        while start < len(schedule):
            fewer = schedule[:start] + schedule[start + size :]
            if _rule(simulate(plan, fewer, seed, make_brain, over_ms=OVER_MS)) == rule:
                schedule = fewer
            else:
                start += size
        size //= 2
    return schedule


def _rule(verdict: Verdict) -> str:
    """The number of the broken invariant, or the place of a failed assertion."""
    return verdict.harm.split(" ")[0] + (verdict.harm.split(" ")[1] if verdict.harm.startswith("assert") else "")
