"""How a filesystem gets to its directory, and whether it is of use there: for all agents of filesystems.

Decides that a mount is believed when mountinfo and statfs agree, and what a
look at it must find.  All that may hang is asked in a child
(``hostd.api.probes``).  Knows no particular filesystem, not how it gets away
again (``unmounting``), and not what to do about a failure.
"""

import contextlib
import errno
import mmap
import os
import re
import secrets
from pathlib import Path

import msgspec

from hostd.api import probes, servers
from hostd.api.errors import AgentError
from hostd.api.resource import Resource
from hostd.api.storage import mounts, unmounting
from hostd.api.storage.mounts import Kernel, Mount
from hostd.api.storage.places import Found, Wanted, find


class Look(msgspec.Struct, frozen=True):
    """What a look at a mounted filesystem saw."""

    read_only: bool
    full: bool


def mount(resource: Resource, wanted: Wanted, kernel: Kernel) -> Mount:
    """Mount it and prove it.  What was mounted and does not pass is unmounted again."""
    argv = [servers.program(("mount",), unmounting.CURE)]
    argv += ["-t", wanted.fstype] if wanted.fstype else []
    argv += ["-o", ",".join(wanted.options)] if wanted.options else []
    # the very device that was looked at: mount would resolve UUID= anew, from a cache that may be stale
    argv += ["--", wanted.block or wanted.source, wanted.directory]
    done = probes.run(resource, "mount", argv, probes.patience(resource, resource.remaining))
    if done.returncode != 0:
        said = " ".join((done.stderr or done.stdout).split()) or f"mount ended with {done.returncode}"
        raise AgentError(f"{wanted.source} cannot be mounted: {said}", cure="see the kernel's log: dmesg | tail")
    try:
        return verified(resource, wanted, kernel)
    except AgentError:
        with contextlib.suppress(AgentError):  # the first reason is the one to tell
            probes.run(resource, "unmount", unmounting.umount(wanted), probes.patience(resource, 10))
        raise


def verified(resource: Resource, wanted: Wanted, kernel: Kernel) -> Mount:
    """Ours is mounted, on top, answers, and is writable if it shall be; AgentError if not."""
    found = find(wanted, mounts.table(kernel))
    if found.mount is None:
        others = ", ".join(f"{m.source} ({m.fstype})" for m in found.strangers) or "nothing"
        raise AgentError(f"{wanted.source} is not mounted at {wanted.directory}: mountinfo shows {others} there")
    complain(wanted, found)
    seen = look(resource, wanted, 0, probes.patience(resource, 20))
    if seen.read_only and not wanted.is_read_only:
        raise _fell_read_only(wanted)
    return found.mount


def complain(wanted: Wanted, found: Found) -> None:
    """AgentError for what mountinfo alone tells to be wrong with what is ours."""
    assert found.mount is not None
    covers = [m for m in found.above if m.point == wanted.directory]
    if covers:
        raise AgentError(
            f"{wanted.directory} shows {covers[-1].source} ({covers[-1].fstype}), which was mounted over it",
            cure=f"umount {wanted.directory}",
        )
    broken = found.mount.options & {"shutdown", "emergency_ro"}
    if broken:
        raise AgentError(
            f"the kernel has given up on {wanted.source} at {wanted.directory} ({', '.join(sorted(broken))})",
            cure="see dmesg; stop the service and run fsck",
        )
    if "ro" in found.mount.options and not wanted.is_read_only:
        raise _fell_read_only(wanted)


def _fell_read_only(wanted: Wanted) -> AgentError:
    return AgentError(
        f"{wanted.directory} is read-only, and ro is not among its options: the kernel remounts a filesystem so "
        "after an error, and mounts a write-protected device so",
        cure=f"see dmesg for {wanted.source}; stop the service and run fsck, or set options to ro",
    )


def look(resource: Resource, wanted: Wanted, depth: int, limit: float, slot: str = "look") -> Look:
    """Touch the filesystem, in a child: statfs; from depth 10 on a directory and (past the cache) the
    device are read; at depth 20 a small file is written and read back.  AgentError if it fails."""
    name = re.sub(r"[^\w.-]", "_", f".hostd-{resource.node}-{resource.name}")  # two nodes may write at once

    def touch() -> Look:
        read_only = bool(os.statvfs(wanted.directory).f_flag & os.ST_RDONLY)
        if depth >= 10:
            Path(wanted.directory).stat()
            with os.scandir(wanted.directory) as entries:
                next(entries, None)
            if wanted.block:
                _read_device(wanted.block)
        if depth >= 20 and not wanted.is_read_only:
            try:
                _write_and_read(Path(wanted.directory, name))
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                return Look(read_only, full=True)
        return Look(read_only, full=False)

    try:
        return probes.ask(resource, slot, f"a look at {wanted.directory}", touch, Look, limit)
    except OSError as error:
        raise AgentError(
            f"{wanted.directory} cannot be used: {error.strerror}", cure=f"see dmesg for {wanted.source}"
        ) from error


def _read_device(device: str) -> None:
    """One block, not from the cache, which answers long after the disk is gone."""
    handle = os.open(device, os.O_RDONLY | os.O_DIRECT)
    try:
        os.readv(handle, [mmap.mmap(-1, 4096)])  # O_DIRECT wants an aligned buffer
    finally:
        os.close(handle)


def _write_and_read(path: Path) -> None:
    text = secrets.token_bytes(64)
    path.unlink(missing_ok=True)  # of a look that hung
    try:
        with open(path, "w+b", buffering=0, opener=_for_us_alone) as file:
            file.write(text)
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            file.seek(0)
            if file.read() != text:
                raise OSError(errno.EIO, "what was written is not what is read")
    finally:
        path.unlink(missing_ok=True)


def _for_us_alone(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_EXCL | os.O_NOFOLLOW, 0o600)
