"""What do we say?  Makes the snapshot that the peer reads, and tells people what
has changed.

Decides nothing.
"""

import msgspec

from hostd.core import situation
from hostd.core.effects import (
    AnyEffect,
    LinkDirection,
    LinkTurned,
    PlansDiffer,
    Publish,
    ResourceTurned,
    ServiceTurned,
    Tell,
)
from hostd.core.services import Ladder
from hostd.core.snapshot import Snapshot
from hostd.core.state import State
from hostd.core.terms import NEVER_BORN, ServiceState
from hostd.core.wants import Want


def publish(state: State, now_ms: int) -> list[AnyEffect]:
    table = state.assignments.table if state.pair.is_coordinator else {}
    known = state.peers.incarnation
    said = Snapshot(
        node=state.me,
        incarnation=state.incarnation,
        version=0,
        phase=state.pair.phase,
        confirmed=state.pair.confirmed,
        view=state.pair.view,
        coordinator=state.pair.coordinator,
        mode=state.mode,
        away_ms=state.away_ms,
        invitation=state.pair.invitation,
        services=state.reports(),
        assignments=dict(table),
        heard=known if known > NEVER_BORN else None,
        dead=state.peers.dead if state.peers.dead > NEVER_BORN else None,
        wishes=state.wishes.all(),
        digest=state.plan.digest,
        digests={service.name: service.digest for service in state.plan.services},
        fencing=state.plan.fencing,
        stations=state.stations,
        release=state.release,
        view_max=state.pair.view_seen,
        nodes=state.plan.nodes,
        reached=state.reach.word(now_ms),
        watchdog_ms=state.watchdog_ms,
    )
    if said == state.said:
        return []
    state.said = said
    version = state.snapshot.version + 1 if state.snapshot is not None else 1
    ages = {
        name: msgspec.structs.replace(report, since_ms=now_ms - state.ladders[name].since_at_ms)
        for name, report in said.services.items()
    }
    state.snapshot = msgspec.structs.replace(said, version=version, services=ages)
    return [Publish(state.snapshot)]


def tell_service(state: State, ladder: Ladder, want: Want) -> list[AnyEffect]:
    effects: list[AnyEffect] = []
    name = ladder.service.name
    for rung in ladder.rungs:
        key = (name, rung.resource.id)
        if state.told.get(key) is not rung.state:
            state.told[key] = rung.state
            effects.append(Tell(ResourceTurned(name, rung.resource.id, rung.state)))
    if state.told.get((name, "")) is not ladder.state:
        state.told[name, ""] = ladder.state
        ailing = ladder.gave_up or ladder.conflict or ladder.state in (
            ServiceState.RECOVERING, ServiceState.FAILED, ServiceState.BLOCKED,
        )  # fmt: skip
        why, detail = (ladder.why, ladder.detail) if ailing else (want.why, "")
        effects.append(Tell(ServiceTurned(name, ladder.state, why, detail)))
    return effects


def tell_changes(state: State, now_ms: int) -> list[AnyEffect]:
    effects: list[AnyEffect] = [
        Tell(LinkTurned(link.name, LinkDirection.RECEIVE, link.receive_up))
        for link in state.peers.refresh_links(now_ms)
    ]
    for link in state.peers.links:
        if link.send_up != link.send_told:
            link.send_told = link.send_up
            effects.append(Tell(LinkTurned(link.name, LinkDirection.SEND, link.send_up)))
    word = state.peers.word(now_ms)
    if word is None:
        return effects
    differing = situation.differing_services(state.plan, word)
    if (word.nodes, word.digest) != (state.plan.nodes, state.plan.digest):
        differing = ("", *differing)
    effects += [Tell(PlansDiffer(name)) for name in differing if name not in state.differing_told]
    state.differing_told = differing
    return effects
