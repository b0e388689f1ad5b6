"""The hands of one simulated node: which effect is whose.

Decides who carries an effect out, and what of it a death of hostd or of the
machine ends.  Every effect that acts is answered by exactly one outcome,
unless the process that asked is gone.  Knows nothing of phases, views or
assignments; agent actions, addresses, probes and fencing devices have rooms
of their own.
"""

from collections.abc import Callable
from typing import Any, Protocol

from hostd.core.effects import (
    AddAddress,
    AnnounceAddress,
    AnyEffect,
    CancelFence,
    CancelProbe,
    Exit,
    ExitKind,
    FencePeer,
    ProbeAddresses,
    Publish,
    RemoveAddress,
    RenewAddress,
    RenewIncarnation,
    RunAction,
    SaveWishes,
)
from hostd.core.events import IncarnationRenewed, WishesSaved
from hostd.core.terms import Incarnation
from hostd.sim import actions, addresses, devices, machine, probes


class World(machine.Surroundings, actions.World, addresses.World, probes.World, devices.World, Protocol):
    """What hands reach beyond their own machine."""

    def exited(self, machine: machine.Machine, kind: ExitKind) -> None: ...


class Hands:
    """The hands of one machine."""

    __slots__ = ("_acts", "actions", "addresses", "devices", "machine", "probes", "world")

    def __init__(self, world: World, machine: machine.Machine) -> None:
        self.world = world
        self.machine = machine
        self.actions = actions.Actions(world, machine)
        self.addresses = addresses.Addresses(world, machine)
        self.probes = probes.Probes(world, machine)
        self.devices = devices.Devices(world, machine)
        self._acts: dict[type[AnyEffect], Callable[[Any], None]] = {
            Publish: self._publish,
            RenewIncarnation: self._renew_incarnation,
            RunAction: self.actions.run,
            AddAddress: self.addresses.add,
            RemoveAddress: self.addresses.remove,
            RenewAddress: self.addresses.renew,
            AnnounceAddress: self.addresses.announce,
            ProbeAddresses: self.probes.probe,
            CancelProbe: self.probes.cancel,
            FencePeer: self.devices.fence,
            CancelFence: self.devices.cancel,
            SaveWishes: self._save,
            Exit: self._exit,
        }
        """Effects that act.  AnswerOperator and Tell act on people only."""

    def perform(self, effect: AnyEffect) -> None:
        act = self._acts.get(type(effect))
        if act is not None:
            act(effect)

    # -- lives ---------------------------------------------------------------------

    def power_lost(self) -> None:
        self.actions.power_lost()
        self.addresses.power_lost()
        self.host_lost()

    def host_lost(self) -> None:
        """Nobody waits for an outcome any more."""
        self.addresses.host_lost()
        self.probes.host_lost()
        self.devices.host_lost()

    def begin_host(self) -> tuple[str, ...]:
        """Kill what an earlier life left under way; which services did not finish?"""
        return self.actions.begin_host()

    def present(self) -> tuple[str, ...]:
        return tuple(self.addresses.held)

    def kernel_resumed(self) -> None:
        self.addresses.kernel_resumed()

    # -- what needs the machine alone -------------------------------------------------

    def _publish(self, effect: Publish) -> None:
        if self.machine.heart is not None:
            self.machine.heart.carry(effect.snapshot)

    def _renew_incarnation(self, effect: RenewIncarnation) -> None:
        self.machine.boots += 1
        self.machine.answer(8, IncarnationRenewed(Incarnation(self.machine.boots, self.world.draw_nonce())))

    def _save(self, effect: SaveWishes) -> None:
        well = self.machine.disk_well
        if well:
            self.machine.saved = effect.wishes
        self.machine.answer(5, WishesSaved(well, "" if well else "no space left"))

    def _exit(self, effect: Exit) -> None:
        self.machine.kill_host()
        self.machine.exited = True
        self.world.exited(self.machine, effect.kind)
