"""keepalive, warntime, deadtime, initdead and deadping: Heartbeat's times → hostd's.

Decides which of them make sense together, by Heartbeat's own rules and then
by hostd's, and what stands in for one that does not.  What is not in the
file is filled in as Heartbeat would have, so that a failover is noticed as
late (or as soon) as before, until somebody decides otherwise.
"""

import re
from typing import Final

from hostd.confd.values import duration_text
from hostd.importing.fates import Ledger, Line
from hostd.importing.hacf import Directive

_TIME: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{0,9})?|\.[0-9]{1,9})(ms|msec|us|usec)?", re.ASCII | re.IGNORECASE)
_UNITS_MS: Final = {"ms": 1.0, "msec": 1.0, "us": 0.001, "usec": 0.001, "": 1_000.0}
_SECONDS: Final = re.compile(r"(?i:s|sec)$")
"""A unit that Heartbeat 3.0.6 does not know, though it is what one would write."""
KEEPALIVE_MS: Final = 1_000
DEADTIME_MS: Final = 30_000
LIMITS_MS: Final = {
    "keepalive": (10, 60_000),
    "warntime": (10, 3_600_000),
    "deadtime": (20, 3_600_000),
    "initdead": (20, 86_400_000),
    "deadping": (20, 3_600_000),
}
"""hostd's own limits ([heartbeat] in conf.d)."""


def milliseconds(word: str) -> int | None:
    """Heartbeat's time: a number of seconds, or one with the suffix ms, msec, us or usec; None if it is none."""
    found = _TIME.fullmatch(word)
    return round(float(found[1]) * _UNITS_MS[(found[2] or "").lower()]) if found else None


class Times:
    """The times of one ha.cf.  After :meth:`settle` all four of [heartbeat] have a value that hostd takes."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._given: dict[str, tuple[Line, int]] = {}
        self.keepalive_ms = KEEPALIVE_MS
        self.deadtime_ms = DEADTIME_MS
        self.warntime_ms = DEADTIME_MS // 2
        self.initdead_ms = DEADTIME_MS
        self.deadping_ms: int | None = None

    def take(self, directive: Directive) -> None:
        """One directive; judged when all are known."""
        word = directive.arguments[-1]
        given_ms = milliseconds(word)
        if given_ms is None and (given_ms := milliseconds(_SECONDS.sub("", word))) is not None:
            reason = f"{word} has a unit that Heartbeat does not know (it would not start): taken for seconds"
            self._ledger.warned(directive.line, directive.name, "", reason)
        low, high = LIMITS_MS[directive.name]
        if given_ms is None:
            self._refuse(directive.line, directive.name, f"{word} is no time", "use 10, 1.5 or 1500ms")
        elif not low <= given_ms <= high:
            reason = f"{word} is not between {duration_text(low)} and {duration_text(high)}"
            self._refuse(directive.line, directive.name, reason, "use a time within")
        else:
            self._given[directive.name] = (directive.line, given_ms)

    def settle(self) -> None:
        """Judge them against each other, and tell the fate of each."""
        self.keepalive_ms = self._chosen("keepalive", KEEPALIVE_MS, "")
        keepalive = duration_text(self.keepalive_ms)
        usual_ms = max(DEADTIME_MS, 4 * self.keepalive_ms)
        least_ms = 2 * self.keepalive_ms
        rule = f"is at most twice the keepalive of {keepalive}: Heartbeat would not start"
        is_fit = self._of("deadtime", usual_ms) > least_ms
        self.deadtime_ms = self._chosen("deadtime", usual_ms, "" if is_fit else rule)
        half_ms = (self.deadtime_ms + 1) // 2
        late_ms = self._of("warntime", half_ms)
        rule = f"is not between keepalive ({keepalive}) and deadtime ({duration_text(self.deadtime_ms)})"
        is_fit = self.keepalive_ms < late_ms < self.deadtime_ms
        self.warntime_ms = self._chosen("warntime", half_ms, "" if is_fit else rule)
        first_ms = _usual_initdead_ms(self.deadtime_ms)
        rule = "is shorter than deadtime: Heartbeat would not start"
        is_fit = self._of("initdead", first_ms) >= self.deadtime_ms
        self.initdead_ms = self._chosen("initdead", first_ms, "" if is_fit else rule)
        if "deadping" in self._given:
            rule = f"is at most twice the keepalive of {keepalive}: Heartbeat would not start"
            is_fit = self._of("deadping", 0) > least_ms
            ping_ms = self._chosen("deadping", self.deadtime_ms, "" if is_fit else rule, "[tiebreaker] deadtime")
            self.deadping_ms = ping_ms if is_fit else None

    def table(self) -> dict[str, str]:
        """For [heartbeat]."""
        return {
            "keepalive": duration_text(self.keepalive_ms),
            "warntime": duration_text(self.warntime_ms),
            "deadtime": duration_text(self.deadtime_ms),
            "initdead": duration_text(self.initdead_ms),
        }

    def _of(self, name: str, usual_ms: int) -> int:
        return self._given[name][1] if name in self._given else usual_ms

    def _chosen(self, name: str, usual_ms: int, complaint: str, key: str = "") -> int:
        """The given value if nothing is wrong with it, else the usual one; its fate is told."""
        if name not in self._given:
            return usual_ms
        line, given_ms = self._given[name]
        if complaint:
            cure = f"{duration_text(usual_ms)} stands in for it: use another if you like"
            if key:
                cure = "deadtime stands in for it"
            self._refuse(line, name, f"{duration_text(given_ms)} {complaint}", cure)
            return usual_ms
        self._ledger.converted(line, name, f'{key or f"[heartbeat] {name}"} = "{duration_text(given_ms)}"')
        return given_ms

    def _refuse(self, line: Line, name: str, reason: str, cure: str) -> None:
        self._ledger.refused(line, name, reason, cure)


def _usual_initdead_ms(deadtime_ms: int) -> int:
    """What Heartbeat takes where the file says nothing."""
    if deadtime_ms > 10_000:
        return deadtime_ms
    return 12_000 if deadtime_ms < 6_000 else 2 * deadtime_ms
