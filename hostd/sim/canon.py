"""When are two cores the same?  Steps the real core and names its states.

A state is named by everything in it that can matter: absolute times become
ages (an age past ``AGE_MAX_MS`` is as good as any other), request numbers
become distances from the last one given, version counters are left out.
Each distinct state keeps one real core, and each (state, event) is stepped
once; that is what makes an exhaustive search over the real code possible.
"""

import copy
import enum
import pickle
from collections.abc import Callable
from typing import Any, Final

import msgspec

from hostd.core.effects import AnyEffect
from hostd.core.events import AnyEvent
from hostd.core.peers import Peers
from hostd.core.snapshot import Snapshot, encode

AGE_MAX_MS: Final = 4_000

LEFT_OUT: Final = frozenset(
    {
        # counters that only grow
        "ids",
        # what was told to people, and what it is told from
        "told", "said", "send_told", "detail", "differing_told", "release", "since_at_ms", "heard_at_ms", "receive_up",
        # what follows from the rest
        "stepped_at_ms", "settled_until_ms", "heard_so_far", "decisions", "wants",
        # never changes, or (frame_at_ms) matters only where a link shows the peer's power
        "plan", "frame_at_ms",
    }
)  # fmt: skip
"""Attributes that two states may differ in and still be the same."""

TIMES: Final = frozenset({"failback_since", "failures"})
"""Containers of absolute times whose name does not say so."""


class Engine:
    """The real core as a table: state x event → state and effects."""

    def __init__(self, now_ms: int) -> None:
        self.began_at_ms = now_ms
        self._names: dict[Any, int] = {}
        self._cores: list[tuple[bytes, int]] = [(b"", 0)]
        self._steps: dict[tuple[int, Any], tuple[int, tuple[AnyEffect, ...], int]] = {}
        self._snapshots: dict[bytes, int] = {}
        self.snapshots: list[Snapshot | None] = [None]
        self.stepped = 0

    def states(self) -> int:
        return len(self._cores) - 1

    def load(self, core: int) -> tuple[Any, int]:
        """A fresh copy of the core of that name, and its time."""
        body, now_ms = self._cores[core]
        return pickle.loads(body), now_ms

    def new(self, make: Callable[[], Any]) -> int:
        """Name a core that has not been stepped yet."""
        return self._name(make(), self.began_at_ms)

    def step(
        self, core: int, key: Any, passed_ms: int, event_of: Callable[[Any, int], AnyEvent]
    ) -> tuple[int, tuple[AnyEffect, ...], int]:
        """Step once: new state, effects, and how many request numbers were given.

        ``key`` names the event; ``event_of`` makes it for a real core at its
        own time.  Numbers in the effects are distances back from the last
        one given.
        """
        known = self._steps.get((core, key))
        if known is not None:
            return known
        node, now_ms = self.load(core)
        before = node.ids.last
        now_ms += passed_ms
        effects = node.step(now_ms, event_of(node, now_ms))
        self.stepped += 1
        given = node.ids.last
        outcome = (self._name(node, now_ms), tuple(_distance(e, given) for e in effects), given - before)
        self._steps[core, key] = outcome
        return outcome

    def snapshot(self, snapshot: Snapshot) -> int:
        """Name what a node says, whenever it says it."""
        services = {n: msgspec.structs.replace(r, since_ms=0) for n, r in snapshot.services.items()}
        bare = msgspec.structs.replace(snapshot, version=0, services=services)
        name = self._snapshots.setdefault(encode(bare), len(self.snapshots))
        if name == len(self.snapshots):
            self.snapshots.append(bare)
        return name

    def _name(self, node: Any, now_ms: int) -> int:
        form = _form(node, now_ms, node.ids.last, "")
        name = self._names.setdefault(form, len(self._cores))
        if name == len(self._cores):
            self._cores.append((pickle.dumps(node, pickle.HIGHEST_PROTOCOL), now_ms))
        return name


def _distance(effect: AnyEffect, last: int) -> AnyEffect:
    if hasattr(effect, "request_id"):
        return msgspec.structs.replace(effect, request_id=last - effect.request_id)
    if hasattr(effect, "action_id"):
        return msgspec.structs.replace(effect, action_id=last - effect.action_id)
    return effect


PLAIN: Final = (str, bool, type(None), bytes)


def _form(value: Any, now_ms: int, last: int, name: str) -> Any:
    """The canonical form of one value under its attribute's name."""
    kind = type(value)
    if kind in PLAIN:
        return value
    if kind is int:
        if name in TIMES or name.endswith("_at_ms"):
            return max(value - now_ms, -AGE_MAX_MS)
        if name.endswith("_id"):
            return last - value
        return min(value, 2) if name == "attempts" else value
    if kind is dict:
        return tuple([(k, _form(v, now_ms, last, name)) for k, v in value.items()])
    if kind is list or isinstance(value, tuple):
        return tuple([_form(v, now_ms, last, name) for v in value])
    if isinstance(value, enum.Enum):
        return kind.__name__, value.value
    if kind is Snapshot:
        services = {n: msgspec.structs.replace(r, since_ms=0) for n, r in value.services.items()}
        return encode(msgspec.structs.replace(value, version=0, services=services))
    if kind is Peers:
        # Silence is counted from the later of the two; the earlier one does not matter.
        value = copy.copy(value)
        value.listening_since_at_ms = max(value.listening_since_at_ms, value.echo_at_ms or 0)
        # Version numbers do not matter, but that a newer word was announced does.
        value.version = -1 if value.snapshot is not None and value.snapshot.version >= value.version else -2
    names = _NAMES.get(kind)
    if names is None:
        names = _NAMES[kind] = _names(value)
    return kind, *[_form(getattr(value, n), now_ms, last, n) for n in names]


_NAMES: dict[type[Any], tuple[str, ...]] = {}


def _names(value: Any) -> tuple[str, ...]:
    """The attributes of this kind of thing that matter; all are set when it is made."""
    kind = type(value)
    found: list[str] = []
    for base in reversed(kind.__mro__):
        found += [n for n in getattr(base, "__slots__", ()) if n not in found]
    found += [n for n in getattr(kind, "__struct_fields__", ()) if n not in found]
    found += list(getattr(value, "__dict__", {}))
    return tuple(n for n in found if n not in LEFT_OUT and not n.startswith("__"))
