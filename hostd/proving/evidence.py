"""What is kept of a rule that failed: one text file, each action with what it said.

Decides what a person needs who was not there.  Secrets are hidden as
everywhere.  Evidence is a luxury: where it cannot be written, the verdict
stands without it.
"""

import os
import shutil
import time
from pathlib import Path
from typing import Final

from hostd.proving.breaches import Violation
from hostd.proving.findings import Rule
from hostd.proving.stage import Act, Stage

RUNS_MAX: Final = 20
"""How many tests' evidence is kept."""
FOLDER: Final = "agent-test"


def new_folder(state: Path, agent: str) -> Path:
    """Where the evidence of one test goes, below the state directory; not made before it is needed."""
    top = state / FOLDER
    if top.is_dir():
        for old in sorted(top.iterdir())[: -(RUNS_MAX - 1)]:
            shutil.rmtree(old, ignore_errors=True)
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
    return top / f"{stamp}-{agent.replace('/', '_')}-{os.getpid()}"


def write(folder: Path, rule: Rule, violation: Violation, stage: Stage, acts: list[Act]) -> Path | None:
    """Write the file; None if it cannot be written."""
    path = folder / f"{rule.id}.txt"
    lines = [
        f"{stage.subject.reference} breaks the rule {rule.id}: {rule.title}",
        f"  expected  {violation.expected}",
        f"  came      {violation.came}",
        f"  why       {rule.why}",
        f"  with      {stage.subject.shown(stage.params) or 'no parameters'}",
        "",
        "What was done, in this order:",
    ]
    for act in acts:
        lines += _told(act, stage)
    output = stage.folder / "hook-output"
    if not acts and output.exists():
        lines += ["", "What its hook printed:", output.read_text(errors="replace")[-20_000:]]
    if violation.evidence and Path(violation.evidence).is_file():
        lines += ["", "Evidence of the time limit:", Path(violation.evidence).read_text(errors="replace")]
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n")
    except OSError:
        return None
    return path


def _told(act: Act, stage: Stage) -> list[str]:
    ask, outcome = act.ask, act.outcome
    where = f" on node {ask.node}" if ask.node != "a" else ""
    depth = f" (depth {ask.depth})" if ask.depth else ""
    health = f", {outcome.health.name}" if outcome.health else ""
    lines = ["", f"- {ask.verb.value}{depth}{where}: {'ok' if outcome.ok else 'failed'}{health}, {outcome.took_ms} ms"]
    facts = {
        "begun": f"{ask.delay_ms} ms after the action before" if ask.delay_ms else "",
        "with": stage.subject.shown(ask.params),
        "reason": outcome.reason,
        "cure": outcome.cure,
        "left over": f"{outcome.leftovers} processes" if outcome.leftovers else "",
        "main process": str(outcome.main_pid or ""),
        "printed": outcome.output,
    }
    lines += [f"    {name}: " + text.replace("\n", "\n      ") for name, text in facts.items() if text]
    return lines + [f"    ran: {_hidden(command, stage)}" for command in act.trace.commands[:20]]


def _hidden(text: str, stage: Stage) -> str:
    for name in stage.subject.secrets:
        value = stage.params.get(name)
        if isinstance(value, str) and value:
            text = text.replace(value, "(hidden)")
    return text
