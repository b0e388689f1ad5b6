"""Whole disks and the paths over which this node reaches them.

Decides by what the kernel says (device number, device mapper): the device
itself, or of a multipath device every path.  What is no whole disk is
refused, since a reservation is of the disk.  Asks no disk anything.
"""

from collections.abc import Sequence
from typing import NamedTuple

from hostd.api.errors import AgentError
from hostd.api.storage import mounts
from hostd.api.storage.mounts import Kernel


class Disk(NamedTuple):
    """One disk, and the paths over which this node reaches it."""

    name: str
    paths: list[str]


def disks_of(given: Sequence[object], kernel: Kernel, *, must_exist: bool) -> list[Disk]:
    """The configured disks with their paths; without ``must_exist`` only those that are here."""
    if not given:
        raise AgentError("devices is empty", cure='write devices = ["/dev/disk/by-id/…"]')
    found = []
    for device in given:
        if not isinstance(device, str) or not device.startswith("/"):
            raise AgentError(f"devices has {device!r}, which is no path", cure='write devices = ["/dev/disk/by-id/…"]')
        try:
            number = mounts.number_of(device)
        except OSError as error:
            if must_exist:
                reason = f"{device} is not there: {error.strerror}"
                raise AgentError(reason, cure="is the disk connected? see lsblk -S") from error
            continue  # what cannot be reached cannot be written to from here
        found.append(Disk(device, _paths(device, number, kernel)))
    return found


def _paths(device: str, number: str, kernel: Kernel) -> list[str]:
    """The device itself; of a multipath device, every path."""
    folder = kernel.sys / "dev/block" / number
    uuid = mounts.text(folder / "dm/uuid")
    if not uuid:
        if number and mounts.text(folder / "partition"):
            raise AgentError(f"{device} is a partition; reservations are of whole disks", cure="name the whole disk")
        return [device]
    if not uuid.startswith("mpath-"):
        raise AgentError(
            f"{device} is a layer above disks ({uuid.partition('-')[0]}), not a disk",
            cure="name the disks or multipath devices below it; see lsblk",
        )
    paths = [f"/dev/{slave.name}" for slave in sorted((folder / "slaves").iterdir())]
    if not paths:
        raise AgentError(f"{device} has no path left", cure="see multipath -ll")
    return paths
