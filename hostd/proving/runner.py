"""Tries the rules in turn, and gathers the verdict.

Decides what is skipped: a rule that needs one that failed says nothing new,
and where no instance may be touched no live rule is tried.  Between two live
rules the stage is brought back to "stopped".  Knows no particular rule but
``sandbox``, which opens the stage for all live ones.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from hostd.proving import evidence
from hostd.proving.breaches import Untried, Violation
from hostd.proving.findings import Finding, Result, Rule, Verdict
from hostd.proving.stage import Stage

OPENS_THE_STAGE: Final = "sandbox"
WITHOUT_A_STAGE: Final = f"says nothing without {OPENS_THE_STAGE}"
"""Why every live rule is skipped where there is no instance to be tried."""


def chosen(rules: Sequence[Rule], only: Sequence[str]) -> list[Rule]:
    """The rules asked for, and the one that they all stand on; all if none is named."""
    if not only:
        return list(rules)
    is_live = any(rule.is_live for rule in rules if rule.id in only)
    return [rule for rule in rules if rule.id in only or (is_live and rule.id == OPENS_THE_STAGE)]


def prove(
    stage: Stage,
    rules: Sequence[Rule],
    *,
    refusal: str,
    keep_in: Path,
    seed: int,
    began: Callable[[Rule], None],
    ended: Callable[[Finding], None],
) -> Verdict:
    """Try these rules.  ``refusal``: why no live rule may be tried, or "".

    ``keep_in`` gets a file of evidence for each rule that failed; ``began`` and
    ``ended`` are told of each rule.
    """
    at = time.monotonic()
    findings: list[Finding] = []
    roots: dict[str, list[str]] = {}  # skipped rule → the rules that failed and made it so
    broken = ""  # why the stage cannot be used any more
    for rule in rules:
        began(rule)
        obstacle = (refusal or broken) if rule.is_live else ""
        if not obstacle:
            obstacle = _without(rule, findings, roots)
        finding = _skipped(rule, obstacle) if obstacle else _tried(stage, rule, keep_in)
        if rule.id == OPENS_THE_STAGE and finding.result is not Result.OK:
            broken = WITHOUT_A_STAGE
        elif rule.is_live and not obstacle:
            try:
                stage.reset(thoroughly=finding.result is Result.FAILED)
            except Untried as untried:
                broken = str(untried)
        findings.append(finding)
        ended(finding)
    done = tuple(verb for verb in ("start", "stop", "monitor") if verb in stage.done)
    took_ms = round((time.monotonic() - at) * 1000)
    subject = stage.subject
    return Verdict(subject.reference, subject.agent.path, seed, tuple(findings), done, took_ms)


def _without(rule: Rule, findings: Sequence[Finding], roots: dict[str, list[str]]) -> str:
    """Why the rule says nothing new after what failed or could not be tried, or ""."""
    bad = [finding for finding in findings if finding.id in rule.needs and finding.result is not Result.OK]
    if not bad:
        return ""
    causes = [cause for finding in bad for cause in roots.get(finding.id, [finding.id])]
    roots[rule.id] = list(dict.fromkeys(causes))
    was_tried = any(finding.id in roots[rule.id] and finding.result is Result.FAILED for finding in findings)
    return f"says nothing without {', '.join(roots[rule.id])}{'' if was_tried else ', which was skipped'}"


def _skipped(rule: Rule, reason: str) -> Finding:
    return Finding(rule.id, rule.title, rule.why, Result.SKIPPED, reason=reason)


def _tried(stage: Stage, rule: Rule, keep_in: Path) -> Finding:
    at = time.monotonic()
    stage.turn_to(rule.id)
    acts_before = len(stage.history)
    try:
        note = rule.check(stage) or ""
        finding = Finding(rule.id, rule.title, rule.why, Result.OK, note=note)
    except Untried as untried:
        finding = _skipped(rule, str(untried))
    except Violation as violation:
        kept = evidence.write(keep_in, rule, violation, stage, stage.history[acts_before:])
        finding = Finding(
            rule.id, rule.title, rule.why, Result.FAILED, violation.expected, violation.came, evidence=str(kept or "")
        )
    return _with_time(finding, at)


def _with_time(finding: Finding, at: float) -> Finding:
    return msgspec.structs.replace(finding, took_ms=round((time.monotonic() - at) * 1000))
