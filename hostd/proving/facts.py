"""The verdict for programs: JSON of schema 1."""

import json
from typing import Any

from hostd.proving.findings import Finding, Verdict


def as_json(verdict: Verdict) -> str:
    facts = {
        "schema": 1,
        "agent": verdict.agent,
        "path": verdict.path,
        "verdict": verdict.word,
        "seed": verdict.seed,
        "took_ms": verdict.took_ms,
        "done": list(verdict.done),
        "rules": [_rule(finding) for finding in verdict.findings],
    }
    return json.dumps(facts, indent=2)


def _rule(finding: Finding) -> dict[str, Any]:
    return {
        "id": finding.id,
        "title": finding.title,
        "result": finding.result.value,
        "why": finding.why,
        "expected": finding.expected,
        "came": finding.came,
        "reason": finding.reason,
        "note": finding.note,
        "evidence": finding.evidence,
        "took_ms": finding.took_ms,
    }
