"""Messages of heart and host → events of the core.

Decides what is fit for the core: a snapshot that does not decode, or that
says other things of its sender than the frame it came in, is no event.
"""

from typing import Final

from hostd.core import snapshot as snapshots
from hostd.core.events import (
    ActionFinished,
    AnyEvent,
    FenceFinished,
    FrameReceived,
    LinkChanged,
    ProcessExited,
)
from hostd.core.plan import Plan
from hostd.core.snapshot import Snapshot
from hostd.core.wire import BOOT_MAX, NONCE_MAX
from hostd.decoding import UNDECODABLE
from hostd.messages import AnyMessage, Done, Exited, FrameHeard, LinkState, Shot, SnapshotHeard
from hostd.state import SERIAL_MAX

AWAY_MAX_MS: Final = 86_400_000
"""A day; nobody detaches a daemon for longer, and no watchdog waits for longer."""
COUNTER_MAX: Final = SERIAL_MAX
"""Of views and epochs, too."""
SINCE_MAX_MS: Final = 100 * 365 * 86_400_000
"""A hundred years."""


def event_of(message: AnyMessage) -> AnyEvent | None:
    """The event that a message stands for, letter for letter; None if it stands for none."""
    match message:
        case FrameHeard():
            return FrameReceived(
                link=message.link,
                at_ms=message.at_ms,
                sender=message.sender,
                incarnation=message.incarnation,
                echo_sent_at_ms=message.echo_sent_at_ms,
                version=message.version,
                hears=message.hears,
                brain_gone=message.brain_gone,
            )
        case LinkState():
            return LinkChanged(message.link, message.at_ms, message.usable, message.carrier, message.detail)
        case Done():
            return ActionFinished(
                action_id=message.action_id,
                ok=message.ok,
                health=message.health,
                timed_out=message.timed_out,
                leftovers=message.leftovers,
                reason=message.reason,
                cure=message.cure,
            )
        case Exited():
            return ProcessExited(message.service, message.resource)
        case Shot():
            return FenceFinished(message.request_id, message.confirmed, message.detail)
        case _:
            return None


def snapshot_of(plan: Plan, peer: str, message: SnapshotHeard) -> Snapshot | None:
    """The peer's snapshot if it is one and is consistent, else None.

    The frames were authentic; this guards against another release of hostd
    and against our own defects, before anything reaches the core.
    """
    try:
        snapshot = snapshots.decode(message.body)
    except UNDECODABLE:
        return None
    says_who_it_is = (
        snapshot.node == message.sender == peer
        and snapshot.incarnation == message.incarnation
        and snapshot.version == message.version
    )
    owners = (owner for assignment in snapshot.assignments.values() for owner in assignment.owners)
    names_are_known = snapshot.coordinator in ("", *plan.nodes) and all(owner in plan.nodes for owner in owners)
    return snapshot if says_who_it_is and names_are_known and _is_in_bounds(snapshot) else None


def _is_in_bounds(snapshot: Snapshot) -> bool:
    """Every number in it can be counted on from, put into a snapshot of ours and shown."""
    reports, assignments = snapshot.services.values(), snapshot.assignments.values()
    epochs = [*(report.obeyed for report in reports), *(assignment.epoch for assignment in assignments)]
    counters = [
        *(snapshot.view, snapshot.view_max, snapshot.version, *(number for epoch in epochs for number in epoch)),
        *(wish.serial for wish in snapshot.wishes),
        *(report.failures for report in reports),
    ]
    if snapshot.invitation is not None:
        counters.append(snapshot.invitation.view)
    times = [snapshot.away_ms, snapshot.watchdog_ms]
    lives = [life for life in (snapshot.heard, snapshot.dead) if life is not None]
    return (
        all(0 <= counter <= COUNTER_MAX for counter in counters)
        and all(0 <= time_ms <= AWAY_MAX_MS for time_ms in times)
        and all(0 <= report.since_ms <= SINCE_MAX_MS for report in reports)
        and all(0 <= life.boot < BOOT_MAX and 0 <= life.nonce <= NONCE_MAX for life in lives)
    )
