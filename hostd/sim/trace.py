"""A run as a picture: one aligned line per change, one column per node.

Decides only what a line looks like.  A column reads

    member 4/a  web=running@ db=stopping!running

phase, view and coordinator (``?``: not confirmed, ``~``: paused), then per
service what the node reports; ``@`` where the kernel holds its address; and
after ``!`` what is true, where that is something else.
"""

import hashlib

from hostd.core.effects import AnswerOperator, AnyEffect, Tell
from hostd.core.events import AnyEvent
from hostd.core.snapshot import Snapshot
from hostd.core.terms import Phase, ServiceState
from hostd.sim.actions import Truth
from hostd.sim.faults import AnyFault, words
from hostd.sim.machine import Machine
from hostd.sim.world import World

ABSENT = "-"

PHASES = {
    Phase.JOINING: "joining",
    Phase.STARTUP_FENCING: "startup",
    Phase.MEMBER: "member",
    Phase.PEER_LOST: "lost",
    Phase.ALONE: "alone",
    Phase.LEFT: "left",
}

SAME = {
    ServiceState.STOPPED: "stopped",
    ServiceState.FAILED: "stopped",
    ServiceState.STARTING: "starting",
    ServiceState.RUNNING: "running",
    ServiceState.STOPPING: "stopping",
}
"""The truth that a report leads one to expect; the others promise nothing."""


class Trace:
    """An observer that keeps every change of what is said and what is true."""

    def __init__(self, facts: bool = False) -> None:
        self._rows: list[tuple[int, str, tuple[str, ...]]] = []
        self._last: tuple[str, ...] = ()
        self._facts = facts

    # -- watching ------------------------------------------------------------

    def struck(self, world: World, fault: AnyFault) -> None:
        self._rows.append((world.queue.now_ms, words(fault), ()))

    def shot(self, world: World, node: str) -> None:
        self._rows.append((world.queue.now_ms, f"   {node} is shot", ()))

    def stepped(self, world: World, machine: Machine, event: AnyEvent, effects: list[AnyEffect]) -> None:
        if not effects:
            return
        for effect in effects:
            if isinstance(effect, AnswerOperator) and effect.refusal is not None:
                self._rows.append((world.queue.now_ms, f"   {machine.name} refuses: {effect.refusal.name}", ()))
        if self._facts:
            for effect in effects:
                if isinstance(effect, Tell):
                    self._rows.append((world.queue.now_ms, f"   {machine.name}: {effect.fact!r}", ()))
        self._look(world)

    def changed(self, world: World) -> None:
        self._look(world)

    def _look(self, world: World) -> None:
        columns = tuple(_column(world, machine) for machine in world.machines.values())
        if columns == self._last:
            return
        self._last = columns
        rows = self._rows
        if rows and rows[-1][0] == world.queue.now_ms and rows[-1][2]:
            rows.pop()  # several changes of one millisecond make one line
        rows.append((world.queue.now_ms, "", columns))

    # -- telling ---------------------------------------------------------------

    def lines(self) -> list[str]:
        wide = max((len(columns[0]) for _, _, columns in self._rows if columns), default=0)
        told: list[str] = []
        before: tuple[str, ...] = ()
        for at_ms, note, columns in self._rows:
            clock = f"{at_ms / 1000:9.3f}"
            if note:
                told.append(f"{clock} -- {note}")
            elif columns != before:
                told.append(f"{clock}    {columns[0]:<{wide}} | {columns[1]}".rstrip())
                before = columns
        return told

    def digest(self) -> str:
        """The same for the same run, whatever the order of hashes."""
        return hashlib.sha256("\n".join(self.lines()).encode()).hexdigest()[:16]


def _column(world: World, machine: Machine) -> str:
    if not machine.powered:
        return "off"
    word = machine.published if machine.brain is not None else None
    if not machine.host_runs:
        head = "no hostd"
    elif machine.brain is None:
        head = "no brain"
    elif word is None:
        head = "starting"
    else:
        head = _phase(word)
    paused = "~" if machine.stop is not None else ""
    return f"{head}{paused}  " + " ".join(_service(world, machine, word, s.name) for s in world.plan.services)


def _phase(word: Snapshot) -> str:
    if word.phase in (Phase.MEMBER, Phase.PEER_LOST):
        doubt = "?" if word.phase is Phase.MEMBER and not word.confirmed else ""
        return f"{PHASES[word.phase]}{doubt} {word.view}/{word.coordinator}"
    if word.phase is Phase.ALONE:
        return f"alone {word.view}"
    return PHASES[word.phase]


def _service(world: World, machine: Machine, word: Snapshot | None, name: str) -> str:
    hands = world.hands(machine.name)
    here = [truth for (service, _), truth in hands.actions.truth.items() if service == name]
    service = world.plan.service(name)
    held = [address in hands.addresses.held for address in service.addresses]
    report = word.services.get(name) if word is not None else None
    said = report.state if report is not None else None
    true = _true(here)
    if said is None:
        text = ABSENT if true in ("", "stopped") else f"!{true}"
    else:
        text = said.name.lower()
        if true and SAME.get(said, true) != true:
            text = f"{text}!{true}"
    mark = "@" if held and all(held) else ("%" if any(held) else "")
    return f"{name}={text}{mark}"


def _true(here: list[Truth]) -> str:
    """One word for the processes of a service; empty for a service that is only an address."""
    for truth in (Truth.ORPHANS, Truth.REMAINS, Truth.STOPPING, Truth.STARTING):
        if truth in here:
            return truth.name.lower()
    if not here:
        return ""
    if all(truth is Truth.RUNNING for truth in here):
        return "running"
    return "stopped" if Truth.RUNNING not in here else "partly"
