"""Fencing of the storage: a silent node's key is removed from the shared disks, which then refuse its writes.

Decides when a disk counts as taken away: our key is registered, the other
node's is not, and a reservation of registrants only is held.  Which of two
nodes that ask at once is refused, the disk decides: PREEMPT AND ABORT wants a
registration (SPC-4 section 5.12.11.2.6), so a node that has lost its key
takes nothing back.  A node that was never registered takes a disk only if
nobody is, and gives it back if somebody comes between.

Keys are made of the nodes' names, as the agent ``scsi_reservation`` makes
them; a service on both nodes with its ``mode = "registrants"`` registers them.
Knows no service, and switches no power: ``[fencing] mode = "storage"`` says so.
"""

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from hostd.api import AgentError, FenceOrder, Resource, hookimpl
from hostd.api.storage import reservations
from hostd.api.storage.disks import Disk, disks_of
from hostd.api.storage.mounts import Kernel

AGENT: Final = "scsi_reservation"
KNOWN: Final = ("devices", "exclusive_access")
KERNEL = Kernel()

log = logging.getLogger("hostd.fencing")


@hookimpl(tryfirst=True)
def fence(order: FenceOrder) -> bool | None:
    """Take every disk from ``order.node``."""
    if order.agent != AGENT:
        return None
    _judge(order)
    assert order.by and order.by != order.node, (order.by, order.node)
    with _asking(order) as resource:
        for disk in _disks(order):
            _take(order, resource, disk)
    return True


@hookimpl(tryfirst=True)
def drill(order: FenceOrder) -> str | None:
    """Would the disks obey us?  "on": ``order.node`` is registered with all of them."""
    if order.agent != AGENT:
        return None
    _judge(order)
    own, other = reservations.key_of(order.by), reservations.key_of(order.node)
    is_registered = True
    with _asking(order) as resource:
        for disk in _disks(order):
            keys = reservations.ask(resource, disk.paths).keys
            if own not in keys:
                raise AgentError(
                    f"{order.by} is not registered with {disk.name}, which would refuse it",
                    cure='see the service that registers it (scsi_reservation, mode = "registrants")',
                )
            is_registered = is_registered and other in keys
    return "on" if is_registered else "off"


@hookimpl(tryfirst=True)
def check_device(order: FenceOrder) -> list[str] | None:
    """The disks are there, the program is there, and no word is misspelt."""
    if order.agent != AGENT:
        return None
    found = [
        f"{key} is no parameter of {AGENT} here; use {' and '.join(KNOWN)}" for key in order.params if key not in KNOWN
    ]
    for check in (lambda: _judge(order), reservations.check_installed, lambda: _disks(order)):
        try:
            check()
        except AgentError as error:
            found.append(f"{error.reason}; {error.cure}")
    return found


def _judge(order: FenceOrder) -> None:
    if not order.storage:
        raise AgentError(
            f"{AGENT} takes disks away and no power: {order.node} would not be off",
            cure='name a device that switches the power off, or set [fencing] mode = "storage"',
        )


def _disks(order: FenceOrder) -> list[Disk]:
    given = str(order.params.get("devices", "")).replace(",", " ").split()
    return disks_of(given, KERNEL, must_exist=True)


@contextmanager
def _asking(order: FenceOrder) -> Iterator[Resource]:
    """What asks a disk is a resource's action; this one has nothing that it keeps."""
    with tempfile.TemporaryDirectory(prefix="hostd-fencing-") as folder:
        yield Resource(
            name=f"fencing of {order.node}",
            node=order.by,
            params={},
            run_dir=Path(folder),
            deadline=order.deadline,
            log=log,
        )


def _take(order: FenceOrder, resource: Resource, disk: Disk) -> None:
    own, other = reservations.key_of(order.by), reservations.key_of(order.node)
    kind = 6 if order.params.get("exclusive_access") else 5
    seen = reservations.ask(resource, disk.paths)
    if own in seen.keys:
        _remove(resource, disk, own, other, kind, seen)
    elif seen.keys:
        raise AgentError(
            f"{disk.name} has other keys and not that of {order.by}, which it therefore refuses: "
            f"{order.by} may be the one that was cut off",
            cure=f"if {order.node} is off for certain: hostd confirm-down {order.node}",
        )
    else:
        _take_unused(order, resource, disk, own, kind)
    left = reservations.ask(resource, disk.paths)
    if own not in left.keys:
        raise AgentError(f"{disk.name}: {order.node} was quicker, and removed the key of {order.by}")
    if other in left.keys:
        raise AgentError(f"{disk.name}: the key of {order.node} is still registered", cure=f"see {disk.name}")
    if left.holder not in left.keys or left.type not in reservations.TYPES.values():
        raise AgentError(
            f'{disk.name} is not reserved for registrants only ("{left.type or "no reservation"}"), '
            f"so {order.node} may write to it without a key",
            cure=f"see {disk.name} and the service that registers with it",
        )


def _remove(resource: Resource, disk: Disk, own: int, other: int, kind: int, seen: reservations.Reservation) -> None:
    path = disk.paths[0]
    if other in seen.keys:
        log.warning("%s: removing the key 0x%x", disk.name, other)
        try:
            reservations.change(resource, path, "--preempt-abort", rk=own, sark=other, type=kind, may_conflict=True)
        except reservations.NotSupported:
            log.warning("%s knows no PREEMPT AND ABORT; PREEMPT has to do", disk.name)
            reservations.change(resource, path, "--preempt", rk=own, sark=other, type=kind, may_conflict=True)
    if reservations.ask(resource, disk.paths).holder is None:
        reservations.change(resource, path, "--reserve", rk=own, type=kind, may_conflict=True)


def _take_unused(order: FenceOrder, resource: Resource, disk: Disk, own: int, kind: int) -> None:
    """Nobody is registered: both nodes left in good order, or the disk has lost its power."""
    path = disk.paths[0]
    for each in disk.paths:
        reservations.change(resource, each, "--register-ignore", sark=own)
    if set(reservations.ask(resource, disk.paths).keys) != {own}:
        for each in disk.paths:
            reservations.change(resource, each, "--register-ignore", sark=0)
        raise AgentError(
            f"{disk.name}: another node registered at the same moment, so this one gave way",
            cure=f"see hostd status on {order.node}",
        )
    reservations.change(resource, path, "--reserve", rk=own, type=kind, may_conflict=True)
