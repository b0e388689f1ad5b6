"""The flight recorder run through the core again: the same events, and the same effects?

Decides what "the same" means where only events were recorded: every outcome
on record answers something that the replayed core asked for; what the replay
tells is what the node's timeline holds; and at the end of each file the core
stands as the next file says that it stood.  Refuses to know files of a report
(``commands/replay``) and how anything is shown.

A file of somebody else's is input like any other: a checkpoint is a pickle,
so nothing but the core's own types is ever made of it.
"""

import enum
import importlib
import io
import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

import hostd
from hostd import recorder
from hostd.core.effects import (
    AddAddress,
    AnnounceAddress,
    AnyEffect,
    AnyFact,
    CarrierTurned,
    FencePeer,
    ProbeAddresses,
    RemoveAddress,
    RenewAddress,
    RunAction,
    Tell,
)
from hostd.core.events import (
    ActionFinished,
    AddressFinished,
    AddressVerified,
    AnyEvent,
    FenceFinished,
    ProbeFinished,
)
from hostd.core.node import Node
from hostd.recorder import FORMAT, Gap, Header, Record

ASKS: Final = (RunAction, AddAddress, RemoveAddress, RenewAddress, AnnounceAddress, ProbeAddresses, FencePeer)
ANSWERS: Final = (ActionFinished, AddressFinished, AddressVerified, ProbeFinished, FenceFinished)
_BUILTINS: Final = ("set", "frozenset", "bytearray", "complex")


class Unreplayable(Exception):
    """This file cannot be run through this release's core; the text says why."""


class Step(NamedTuple):
    now_ms: int
    at: float
    """Wall clock, seconds since 1970, as far as the file's header tells."""
    event: AnyEvent
    effects: Sequence[AnyEffect]


class Differs(NamedTuple):
    """Something that did not come out as it was."""

    at: float
    what: str


class _CoreOnly(pickle.Unpickler):
    """Makes the core's own types, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if module == "builtins" and name in _BUILTINS:
            return super().find_class(module, name)
        if module.startswith("hostd.core.") and "." not in name:
            found = getattr(importlib.import_module(module), name, None)
            if isinstance(found, type) and found.__module__ == module:
                return found
        raise pickle.UnpicklingError(f"{module}.{name} is no part of a core")


class Flight:
    """One file, from its header on.  Iterate once; ``differs`` is filled meanwhile."""

    def __init__(self, path: Path) -> None:
        """Raises OSError, and :class:`Unreplayable`."""
        self.path = path
        self._frames = recorder.read(path)
        header = next(self._frames, None)
        if not isinstance(header, Header):
            raise Unreplayable(f"{path.name} does not begin as a flight recorder's file of this release does")
        if header.format != FORMAT or header.release != hostd.__version__:
            raise Unreplayable(f"{path.name} was written by hostd {header.release}, and this is {hostd.__version__}")
        self.header = header
        self.core = _core(path, header)
        self.differs: list[Differs] = []
        self.facts: list[AnyFact] = []
        self.lost = 0
        """Records that the disk did not take; the replay ends there."""
        self.began_at = self.ended_at = header.wall

    @property
    def begins_a_life(self) -> bool:
        return not self.header.checkpoint

    def steps(self) -> Iterator[Step]:
        """Each recorded event, stepped."""
        asked = _asked_before(self.core)
        base_ms = self.header.at_ms
        for frame in self._frames:
            if isinstance(frame, Gap):
                self.lost = frame.lost
                return
            if not isinstance(frame, Record):
                continue
            base_ms = base_ms or frame.now_ms
            at = self.ended_at = self.header.wall + (frame.now_ms - base_ms) / 1_000
            if isinstance(frame.event, ANSWERS):
                number = _number(frame.event)
                if number not in asked:
                    self.differs.append(Differs(at, f"{type(frame.event).__name__} {number} answers nothing"))
            try:
                effects = self.core.step(frame.now_ms, frame.event)
            except Exception as error:  # noqa: BLE001 - the edge: a step that crashed is what is looked for
                self.differs.append(Differs(at, f"the core crashes: {error!r}"))
                return
            for effect in effects:
                if isinstance(effect, ASKS):
                    asked.add(_number(effect))
                elif isinstance(effect, Tell):
                    self.facts.append(effect.fact)
            yield Step(frame.now_ms, at, frame.event, effects)


class _Before(set[int]):
    """All numbers up to the last one that the checkpoint had given, and what is added."""

    def __init__(self, last: int) -> None:
        super().__init__()
        self._last = last

    def __contains__(self, number: object) -> bool:
        return isinstance(number, int) and (0 < number <= self._last or super().__contains__(number))


def _asked_before(core: Node) -> set[int]:
    return _Before(core.ids.last)


def _number(thing: Any) -> int:
    number: int = thing.action_id if isinstance(thing, RunAction | ActionFinished) else thing.request_id
    return number


def _core(path: Path, header: Header) -> Node:
    if not header.checkpoint:
        return Node(header.plan, header.node)
    try:
        core = _CoreOnly(io.BytesIO(header.checkpoint)).load()
    except Exception as error:  # the edge: what a damaged pickle raises is anybody's guess
        raise Unreplayable(f"the checkpoint of {path.name} cannot be used: {error}") from error
    if not isinstance(core, Node):
        raise Unreplayable(f"the checkpoint of {path.name} is no core")
    return core


def same_core(one: Any, other: Any) -> str:
    """Where two cores differ first, as a path of names; empty if nowhere."""
    return _difference(one, other, "core")


def _difference(one: Any, other: Any, where: str) -> str:
    if type(one) is not type(other):
        return where
    if isinstance(one, dict):
        if list(one) != list(other):
            return where
        return next((d for key in one if (d := _difference(one[key], other[key], f"{where}[{key!r}]"))), "")
    if isinstance(one, list | tuple) and not isinstance(one, msgspec.Struct):
        if len(one) != len(other):
            return where
        pairs = enumerate(zip(one, other, strict=True))
        return next((d for i, (a, b) in pairs if (d := _difference(a, b, f"{where}[{i}]"))), "")
    fields = None if isinstance(one, enum.Enum) else _fields(one)
    if fields is None:
        return "" if one == other else where
    pairs_of = ((name, getattr(one, name, None), getattr(other, name, None)) for name in fields)
    return next((d for name, a, b in pairs_of if (d := _difference(a, b, f"{where}.{name}"))), "")


def _fields(thing: Any) -> list[str] | None:
    """The attributes of an object of the core that has no equality of its own."""
    if "__eq__" in {name for kind in type(thing).__mro__[:-1] for name in vars(kind)}:
        return None
    slots = [name for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ())]
    return [*vars(thing)] if hasattr(thing, "__dict__") else slots or None


def told_the_same(replayed: list[AnyFact], timeline: list[AnyFact]) -> str:
    """Where the facts of a replay and those of the timeline part; empty if nowhere.

    Either may begin or end earlier than the other: both rings are bounded,
    and a crash costs the last second.  Carriers are told by the brain beside
    the core, so no replay tells them.
    """
    told = [fact for fact in timeline if not isinstance(fact, CarrierTurned)]
    if not told or not replayed:
        return "" if not told else "the timeline has facts, and the replay tells none"
    best = 0
    for start in range(len(told)):
        for offset in range(len(replayed)) if start == 0 else (0,):
            length = _alike(replayed[offset:], told[start:])
            if length == min(len(replayed) - offset, len(told) - start):
                return ""
            best = max(best, length if start == 0 or offset == 0 else 0)
    return (
        f"after {best} facts that agree, the timeline goes on with {recorder.line_of(told[min(best, len(told) - 1)])}"
    )


def _alike(one: Sequence[AnyFact], other: Sequence[AnyFact]) -> int:
    pairs = zip(one, other, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
