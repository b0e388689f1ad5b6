"""The nouns: a rule, what came of trying it, and the verdict over all.

Decides when an agent has passed: no rule failed, and start, stop and monitor
were really run.  Knows nothing of how a rule is tried.
"""

import enum
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import msgspec

if TYPE_CHECKING:
    from hostd.proving.stage import Stage


Check = Callable[["Stage"], str | None]
"""Tries one rule; returns a figure worth showing, or None.  Raises Violation or Untried."""


class Rule(NamedTuple):
    """One sentence that an agent must fulfil."""

    id: str
    title: str
    """The claim, at most 46 characters: it stands in one line with its verdict."""
    why: str
    """What goes wrong in a cluster with an agent that breaks it."""
    check: Check
    is_live: bool
    needs: tuple[str, ...]
    """Rules without which this one says nothing new: it is skipped if one of them failed."""


class Rulebook:
    """The rules of one family, in the order in which they are tried."""

    def __init__(self, *, is_live: bool) -> None:
        self.rules: list[Rule] = []
        self._is_live = is_live

    def rule(self, id: str, title: str, *, why: str, needs: tuple[str, ...] = ()) -> Callable[[Check], Check]:  # noqa: A002 - the noun of a rule
        """Enters the function below as the check of a new rule."""

        def enter(check: Check) -> Check:
            self.rules.append(Rule(id, title, why, check, self._is_live, needs))
            return check

        return enter


class Result(enum.Enum):
    """What came of one rule."""

    OK = "ok"
    FAILED = "failed"
    SKIPPED = "skipped"  # it cannot be tried here, or says nothing after another's failure


class Finding(msgspec.Struct, frozen=True):
    """One rule, tried."""

    id: str
    title: str
    why: str
    result: Result
    expected: str = ""
    came: str = ""
    reason: str = ""
    """Why it was skipped."""
    note: str = ""
    """A figure worth showing."""
    evidence: str = ""
    """A file with everything that was done and said."""
    took_ms: int = 0


class Verdict(msgspec.Struct, frozen=True):
    """All findings about one agent."""

    agent: str
    path: str
    seed: int
    findings: tuple[Finding, ...]
    done: tuple[str, ...]
    """Which of start, stop and monitor were run and went well at least once."""
    took_ms: int = 0

    def of(self, result: Result) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.result is result)

    @property
    def missing(self) -> tuple[str, ...]:
        """Of start, stop and monitor, what was not run."""
        return tuple(verb for verb in ("start", "stop", "monitor") if verb not in self.done)

    @property
    def is_passed(self) -> bool:
        return not self.of(Result.FAILED) and not self.missing

    @property
    def word(self) -> str:
        """passed, failed, or incomplete (nothing failed, but not enough was tried)."""
        if self.of(Result.FAILED):
            return "failed"
        return "incomplete" if self.missing else "passed"
