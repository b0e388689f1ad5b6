"""Two nodes' timelines → one, by one clock.

Decides how far two wall clocks are apart, from what each node wrote down of
the other: a fact is never seen before it happened, so every one that both
have bounds the offset from one side.  Refuses to guess beyond that: without
bounds from both sides it says how sure it is.
"""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from hostd.core.effects import AnyFact, PhaseChanged, ServiceAssigned, ServiceTurned
from hostd.requests import Entry

SEEN_MAX_S: Final = 5.0
"""A fact that was seen later than this, by clocks that may be off by as much as they like to each other's
known bound, is taken for another one of the same kind."""
LATENESS_S: Final = 0.15
"""How late a fact is seen on a link in good order, at most: a keepalive and a bit.  Used where only one side tells."""


class Offset(NamedTuple):
    """What is to be added to the other node's times to get ours, in seconds."""

    seconds: float
    plus_minus: float
    """Half of the room between the bounds."""
    is_known: bool
    """Something told at all."""


def offset(ours: Sequence[Entry], theirs: Sequence[Entry], me: str, other: str) -> Offset:
    """``ours``: the timeline of ``me``, ``theirs`` that of ``other``; each with what it observed."""
    upper = _least_delay(theirs, ours, other)  # seen by us: our clock - their clock ≤ this
    lower = _least_delay(ours, theirs, me)
    if upper is None and lower is None:
        return Offset(0.0, 0.0, False)
    if upper is None or lower is None:
        one = upper if upper is not None else -(lower or 0.0)
        shift = -LATENESS_S / 2 if upper is not None else LATENESS_S / 2
        return Offset(one + shift, LATENESS_S / 2, True)
    return Offset((upper - lower) / 2, abs(upper + lower) / 2, True)


def _least_delay(told: Sequence[Entry], seen: Sequence[Entry], node: str) -> float | None:
    """The smallest time from a fact of ``node`` in its own books to the same fact in the other's, by their clocks."""
    own: dict[object, list[float]] = {}
    for entry in told:
        if entry.node == node and not entry.observed:
            own.setdefault(_same(entry.fact), []).append(entry.at)
    observed: dict[object, list[float]] = {}
    for entry in seen:
        if entry.node == node and entry.observed:
            observed.setdefault(_same(entry.fact), []).append(entry.at)
    delays = []
    for key, times in observed.items():
        happened = own.get(key, []) if key is not None else []
        if len(happened) == len(times):  # else one of them was never seen, and nobody knows which
            delays += [at - was for at, was in zip(times, happened, strict=True)]
    if not delays:
        return None
    middle = sorted(delays)[len(delays) // 2]
    return min(delay for delay in delays if abs(delay - middle) <= SEEN_MAX_S)


def _same(fact: AnyFact) -> object:
    """What is alike in a fact as it was told and as it was seen; None for one that is not seen."""
    match fact:
        case ServiceTurned():
            return ("service", fact.service, fact.state)
        case ServiceAssigned():
            return ("assigned", fact.service, fact.owners)
        case PhaseChanged():
            return ("phase", fact.phase, fact.confirmed, fact.view)
        case _:
            return None


def merged(ours: Iterable[Entry], theirs: Iterable[Entry], me: str, other: str, correction: Offset) -> list[Entry]:
    """One timeline by our clock.  What either only saw of the other gives way to the other's own words, as far as
    these reach."""
    first, second = list(ours), list(theirs)
    reach = {node: _reach(entries, node) for node, entries in ((me, first), (other, second))}
    kept = [entry for entry in first if entry.node == me or not _covered(entry.at - correction.seconds, reach[other])]
    for entry in second:
        at = entry.at + correction.seconds
        if entry.node == other or not _covered(at, reach[me]):
            kept.append(Entry(at, entry.node, entry.fact, entry.observed, entry.silent_ms))
    return sorted(kept, key=lambda entry: entry.at)


def _reach(entries: list[Entry], node: str) -> tuple[float, float] | None:
    own = [entry.at for entry in entries if entry.node == node and not entry.observed]
    return (min(own), max(own)) if own else None


def _covered(at: float, reach: tuple[float, float] | None) -> bool:
    return reach is not None and reach[0] <= at <= reach[1] + SEEN_MAX_S
