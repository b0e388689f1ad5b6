"""What changed at the peer between two of its snapshots, as facts for the timeline.

So that either node can tell the story of both.  Decides which changes are
worth a line.  Causes are what the peer says of them, as far as it does.
"""

from hostd.core.effects import AnyFact, PhaseChanged, ServiceAssigned, ServiceTurned
from hostd.core.snapshot import Snapshot
from hostd.core.terms import Why


def differences(before: Snapshot | None, after: Snapshot) -> list[AnyFact]:
    """The facts that lead from one snapshot of the peer to a newer one, in a fixed order."""
    facts: list[AnyFact] = []
    if before is None or before.incarnation != after.incarnation:
        before = Snapshot(after.node, after.incarnation, 0, after.phase)
        facts.append(PhaseChanged(after.phase, after.confirmed, after.view, Why.STARTED))
    elif (before.phase, before.confirmed, before.view) != (after.phase, after.confirmed, after.view):
        facts.append(PhaseChanged(after.phase, after.confirmed, after.view, Why.ORDERED))
    for service, assignment in sorted(after.assignments.items()):
        old = before.assignments.get(service)
        if assignment.owners != (old.owners if old is not None else ()):
            facts.append(ServiceAssigned(service, assignment.owners, assignment.why))
    for service, report in sorted(after.services.items()):
        earlier = before.services.get(service)
        if earlier is None or earlier.state is not report.state:
            facts.append(ServiceTurned(service, report.state, Why.ORDERED))
    return facts
