"""Which kind of news is a fact, and what makes it the same news again?

Decides the words of ``[[notify]] for`` and the subject of each fact, so that a
restart of the brain does not tell anew what stands as it was told before.
"""

from typing import Any, assert_never

import msgspec

from hostd.core.effects import (
    AddressChecked,
    AddressDisputed,
    AnyFact,
    CarrierTurned,
    ClearanceTurned,
    LinkOpened,
    LinkTurned,
    PauseNoticed,
    PhaseChanged,
    PlansDiffer,
    ReachTurned,
    ResourceTurned,
    ServiceAssigned,
    ServiceTurned,
    WishTaken,
)
from hostd.core.terms import ResourceState, ServiceState


def kind_of(fact: AnyFact) -> str:
    """One of ``hostd.confd.telling.KINDS``."""
    match fact:
        case PhaseChanged() | ReachTurned() | PauseNoticed():
            return "node"
        case ServiceAssigned() | ServiceTurned():
            return "service"
        case ResourceTurned():
            return "resource"
        case LinkTurned() | LinkOpened() | CarrierTurned():
            return "link"
        case AddressChecked() | AddressDisputed():
            return "address"
        case ClearanceTurned():
            return "fencing"
        case WishTaken():
            return "operator"
        case PlansDiffer():
            return "configuration"
        case _:
            assert_never(fact)


def standing(fact: AnyFact) -> tuple[str, str] | None:
    """What the fact is about and how that now stands; None for an event that leaves nothing standing."""
    match fact:
        case ServiceTurned():
            return f"service {fact.service}", fact.state.name.lower()
        case ServiceAssigned():
            return f"owners of {fact.service}", " ".join(fact.owners)
        case ResourceTurned():
            return f"resource {fact.service} {fact.resource}", fact.state.name.lower()
        case LinkTurned():
            return f"link {fact.link} {fact.direction.name.lower()}", str(fact.up)
        case LinkOpened():
            return f"medium {fact.link}", f"{fact.usable} {fact.detail}"
        case AddressChecked():
            return f"address {fact.address}", str(fact.verified)
        case ReachTurned():
            return "reach", str(fact.reached)
        case _:
            return None


def is_passing(fact: AnyFact) -> bool:
    """Is it only the look that every new brain takes?  What it finds is news, if it is."""
    match fact:
        case ServiceTurned():
            return fact.state is ServiceState.UNKNOWN
        case ResourceTurned():
            return fact.state is ResourceState.UNKNOWN
        case _:
            return False


def named(fact: AnyFact) -> dict[str, Any]:
    """The fact by its names, enumerations in lower case: as ``hostd log --json`` prints it."""
    fields: dict[str, Any] = {}
    for name in fact.__struct_fields__:
        value = getattr(fact, name)
        if isinstance(value, msgspec.Struct):
            fields[name] = {key: _plain(getattr(value, key)) for key in value.__struct_fields__}
        else:
            fields[name] = _plain(value)
    return fields


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return value.name.lower() if hasattr(value, "name") else value
