"""Who may run what now?  Decides the table of assignments of a coordinator.

From: where each service should run (``placement``) and what each member
reports.  Refuses to know why a service should move and how it is moved.

A service changes its node in two steps (PROTOCOL.md section 3): assigned to
nobody, and when **every** member reports it stopped *having obeyed that
epoch*, assigned to its new owner.  A "stopped" under an older epoch proves
nothing: an order to start may still be under way.
"""

import msgspec

from hostd.core.effects import ServiceAssigned
from hostd.core.placement import Decision
from hostd.core.plan import Plan
from hostd.core.snapshot import Assignment, Report
from hostd.core.terms import Epoch, Why


class Members(msgspec.Struct, frozen=True):
    """What the coordinator knows of where services run."""

    reports: dict[str, dict[str, Report]]
    """Per member of the view (ourselves included), per service."""
    outside: dict[str, Report] | None = None
    """A peer that is JOINING while we are ALONE: what it still runs stays there.
    None: there is no such peer, or it is cleared."""
    outside_unknown: bool = False
    """A new life of the peer was heard whose reports have not arrived."""
    provable: tuple[str, ...] | None = None
    """Services that may be started on the clearance that we have; None: all."""


class Assignments:
    """The coordinator's table."""

    __slots__ = ("counter", "plan", "table", "view")

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.table: dict[str, Assignment] = {}
        self.view = 0
        self.counter = 0

    def form(self, view: int, reports: dict[str, dict[str, Report]], first: str) -> list[ServiceAssigned]:
        """A new view begins with what runs: whoever may be running a service
        owns it.  If both may (the end of a split), ``first`` keeps it."""
        assert view > self.view, (view, self.view)
        self.view = view
        self.counter = 0
        self.table = {}
        facts = []
        for service in self.plan.services:
            holders = tuple(n for n in self.plan.nodes if n in reports and _may_run(reports[n].get(service.name)))
            if not service.everywhere and len(holders) > 1:
                holders = (first,) if first in holders else holders[:1]
            facts.append(self._assign(service.name, holders, Why.ADOPTED))
        return [fact for fact in facts if fact.owners]

    def update(self, decisions: dict[str, Decision], members: Members) -> list[ServiceAssigned]:
        """Take every step towards ``decisions`` that is safe now."""
        facts = []
        for service in self.plan.services:
            decision = decisions[service.name]
            now = self.table.get(service.name)
            owners = now.owners if now is not None else ()
            if set(owners) == set(decision.owners) and now is not None:
                continue
            if now is None or (owners and not service.everywhere):
                if now is None or owners:
                    facts.append(self._assign(service.name, (), decision.why))
            elif service.everywhere or self._all_stopped(service.name, now.epoch, members):
                facts.append(self._assign(service.name, decision.owners, decision.why))
        return facts

    def _all_stopped(self, name: str, epoch: Epoch, members: Members) -> bool:
        """Everybody who could run it says that it is stopped, knowing this epoch."""
        for reports in members.reports.values():
            report = reports.get(name)
            if report is None or not report.state.is_stopped or report.obeyed < epoch:
                return False
        if members.outside_unknown:
            return False
        if members.outside is not None and _may_run(members.outside.get(name)):
            return False
        return members.provable is None or name in members.provable

    def _assign(self, name: str, owners: tuple[str, ...], why: Why) -> ServiceAssigned:
        self.counter += 1
        self.table[name] = Assignment(owners, Epoch(self.view, self.counter), why)
        return ServiceAssigned(name, owners, why)


def _may_run(report: Report | None) -> bool:
    return report is not None and not report.state.is_stopped
