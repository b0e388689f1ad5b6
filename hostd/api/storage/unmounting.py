"""How a filesystem gets away from its directory: for all agents of filesystems.

Decides that an unmount is believed when the mount is gone from mountinfo and
the device is released, and how far it goes against who holds it: as far as
it was allowed to (``Leave``).  All that may hang is asked in a child
(``hostd.api.probes``).  Knows no particular filesystem.
"""

import time
from collections.abc import Iterable
from typing import Final, NamedTuple

from hostd.api import probes, servers
from hostd.api.errors import AgentError
from hostd.api.resource import Resource
from hostd.api.storage import mounts
from hostd.api.storage.mounts import Kernel
from hostd.api.storage.places import Wanted, find

CURE: Final = "apt-get install mount"
RELEASE_S: Final = 10.0
"""How long the kernel may take after an unmount to let go of the device."""


class Leave(NamedTuple):
    """How far an unmount may go."""

    kill: str = "never"
    """What is done to processes that hold it: "never", "term" or "kill"."""
    lazy: bool = False
    """Take it out of the tree although it is held, or hangs."""
    force: bool = False
    """Give up requests to a dead server (``umount -f``, of use for NFS only)."""


def unmount(resource: Resource, wanted: Wanted, leave: Leave, kernel: Kernel) -> None:
    """Unmount it, and prove that it is gone.  AgentError names who holds it."""
    probes.refuse_if_hanging(resource, "mount")  # it would mount after we said that nothing is mounted
    asked_to_end = forced = False
    reason = f"{wanted.directory} cannot be unmounted"
    while (found := find(wanted, mounts.table(kernel))).mount is not None:
        # umount would take the uppermost, which is not ours if something covers it
        if any(m.point == wanted.directory for m in found.above) or (found.above and not leave.lazy):
            on_it = ", ".join(f"{m.source} ({m.fstype}) at {m.point}" for m in found.above[:5])
            raise AgentError(f"{reason}: on it is mounted {on_it}", cure="stop or unmount that first")
        if resource.remaining < 0.5:
            raise AgentError(f"{reason} within the time limit: umount ends well, and it is still mounted")
        if _try(resource, wanted, leave):
            continue
        held = mounts.holders(resource, found.mount, kernel)
        by_whom = f"{reason}, it is held by {mounts.described(held)}"
        if leave.kill != "never" and resource.remaining > 1:
            number = mounts.end(resource, held, hard=asked_to_end and leave.kill == "kill")
            if number:
                patience = min(5.0, resource.remaining / 3)
                mounts.gone_within(resource, held, patience)
                if leave.kill == "kill" or not asked_to_end:
                    asked_to_end = True
                    continue
        if leave.force and not forced:
            resource.log.warning("%s: its requests are given up, as configured", by_whom)
            _give_up_requests(resource, wanted)
            forced = True
            continue
        if not leave.lazy:
            raise AgentError(by_whom, cure=_cure(held, leave))
        resource.log.warning("%s: it is unmounted lazily, as configured", by_whom)
        _umount_or_fail(resource, wanted, "unmount-lazily", ["-i", "-l"])
    _await_release(resource, wanted, kernel)


def _try(resource: Resource, wanted: Wanted, leave: Leave) -> bool:
    """One attempt; False if it is busy.  One that hangs is followed by what is allowed then."""
    try:
        # to write back what is in memory may take its time
        limit = resource.remaining * (0.6 if leave.force or leave.lazy else 1)
        done = probes.run(resource, "unmount", umount(wanted), probes.patience(resource, limit))
    except probes.Hang as hang:
        if leave.force:
            resource.log.warning("%s: its requests are given up, as configured", hang.reason)
            _umount_or_fail(resource, wanted, "unmount-force", ["-i", "-f", *(["-l"] if leave.lazy else [])])
            return True
        if leave.lazy:
            resource.log.warning("%s: it is unmounted lazily, as configured", hang.reason)
            _umount_or_fail(resource, wanted, "unmount-lazily", ["-i", "-l"])
            return True
        raise
    if done.returncode == 0 or "not mounted" in done.stderr:
        return True
    if "busy" not in done.stderr:
        raise AgentError(f"{wanted.directory} cannot be unmounted: {' '.join(done.stderr.split())}")
    return False


def _give_up_requests(resource: Resource, wanted: Wanted) -> None:
    """``umount -f`` until it is unmounted, or for two seconds.

    It ends the requests under way, each with an error; the process that waited for one
    may make another, and holds the mount until it has seen to the error itself.
    """
    until = resource.remaining - min(2.0, resource.remaining / 3)
    while True:
        done = probes.run(resource, "unmount-force", umount(wanted, ["-i", "-f"]), probes.patience(resource, 10))
        if done.returncode == 0 or resource.remaining <= until:
            return
        time.sleep(0.1)


def _umount_or_fail(resource: Resource, wanted: Wanted, slot: str, flags: list[str]) -> None:
    done = probes.run(resource, slot, umount(wanted, flags), probes.patience(resource, 10))
    if done.returncode != 0:
        raise AgentError(f"umount {' '.join(flags)} {wanted.directory} failed: {' '.join(done.stderr.split())}")


def umount(wanted: Wanted, flags: Iterable[str] = ()) -> list[str]:
    """The words of the command."""
    # -c: the path is final already, and to look at it may hang
    return [servers.program(("umount",), CURE), "-c", *flags, "--", wanted.directory]


def _cure(held: list[mounts.Holder], leave: Leave) -> str:
    if any(holder.pid and not holder.spared for holder in held) and leave.kill != "kill":
        stronger = "term" if leave.kill == "never" else "kill"
        return f'end them, let the service that uses it require this one, or set kill = "{stronger}"'
    return "end them by hand, then run hostd cleanup"


def _await_release(resource: Resource, wanted: Wanted, kernel: Kernel) -> None:
    """After an unmount, nobody on this machine may write to the device any more."""
    if not wanted.block:
        return
    until = resource.remaining - probes.patience(resource, RELEASE_S)
    resource.wait(
        lambda: resource.remaining <= until or not mounts.is_claimed(resource, wanted.block),
        "the device was not released",
        pause=0.1,
    )
    if mounts.is_claimed(resource, wanted.block):
        users = mounts.users_of_device(resource, wanted.device, kernel)
        raise AgentError(
            f"{wanted.directory} is unmounted, but {wanted.block} is still in use: "
            f"{'; '.join(users) or 'a filesystem that was unmounted lazily goes on while a process holds it'}",
            cure="end what uses it, or reboot this node; it must not be mounted elsewhere before",
        )
