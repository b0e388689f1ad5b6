"""How a filesystem gets to its directory and away from it: for all agents of filesystems.

Decides what counts as ours (device and root in mountinfo, not a path that
somebody typed), that a mount is believed when mountinfo and statfs agree, and
an unmount when the mount is gone and the device is released.  All that may
hang is asked in a child (``hostd.api.probes``).  Knows no particular
filesystem, and not what to do about a failure.
"""

import contextlib
import errno
import mmap
import os
import re
import secrets
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from hostd.api import mounts, probes, servers
from hostd.api.errors import AgentError
from hostd.api.mounts import Kernel, Mount
from hostd.api.resource import Resource

CURE: Final = "apt-get install mount"
_TAGS: Final = {"UUID": "by-uuid", "LABEL": "by-label", "PARTUUID": "by-partuuid", "PARTLABEL": "by-partlabel"}
RELEASE_S: Final = 10.0
"""How long the kernel may take after an unmount to let go of the device."""


class Wanted(NamedTuple):
    """What is to be mounted, and where."""

    source: str
    """As ``mount`` takes it: a device, ``host:/path``, a directory."""
    directory: str
    fstype: str = ""
    options: tuple[str, ...] = ()
    device: str = ""
    """``major:minor`` by which it is known once it is mounted, if that is known."""
    root: str = "/"
    """What of it is mounted; "" if any part will do."""
    sources: tuple[str, ...] = ()
    """Sources in mountinfo that mean it, where the device number is not known before."""
    fstypes: tuple[str, ...] = ()
    """The types that it may be mounted as; empty: any."""
    block: str = ""
    """The block device that only one may hold, "" if there is none."""

    @property
    def is_read_only(self) -> bool:
        return "ro" in self.options

    def is_it(self, mount: Mount) -> bool:
        if self.fstypes and mount.fstype not in self.fstypes:
            return False
        if self.root not in ("", mount.root) and mount.fstype != "btrfs":  # which shows its subvolume there
            return False
        return mount.device == self.device or mount.source in self.sources


class Found(NamedTuple):
    """What stands at the directory."""

    mount: Mount | None
    """Ours, the uppermost if there are several."""
    above: list[Mount]
    """What is mounted on ours, in it or over it."""
    strangers: list[Mount]
    """What is mounted at the directory and is not ours."""


class Look(msgspec.Struct, frozen=True):
    """What a look at a mounted filesystem saw."""

    read_only: bool
    full: bool


def find(wanted: Wanted, table: list[Mount]) -> Found:
    """What stands at the directory."""
    here = [mount for mount in table if mount.point == wanted.directory]
    ours = [mount for mount in here if wanted.is_it(mount)]
    mount = ours[-1] if ours else None
    strangers = [other for other in here if other not in ours]
    if mount is None:
        return Found(None, [], strangers)
    later = table[table.index(mount) + 1 :]
    return Found(mount, [m for m in later if mounts.is_within(m.point, mount.point)], strangers)


# -- what conf.d says ------------------------------------------------------------------


def seconds(given: float | str) -> float:
    """A patience: seconds from 0.1 to 600.  ValueError for anything else."""
    number = float(given)
    if not 0.1 <= number <= 600:
        raise ValueError("must be from 0.1 to 600 seconds")
    return number


def directory_of(given: str, name: str = "directory") -> str:
    """The directory as mountinfo will show it.  AgentError if it cannot be that."""
    path = os.path.normpath(given) if given else ""
    if not path.startswith("/") or path.startswith("//"):
        raise AgentError(f'{name} = "{given}" is no absolute path', cure=f'write it from the root: {name} = "/srv"')
    if path == "/":
        raise AgentError(f'{name} = "{given}" is the root of this machine', cure="use a directory of its own")
    if re.search(r"[\0\n]", path):
        raise AgentError(f"{name} contains a line break", cure="use another directory")
    return path


def options_of(given: str) -> tuple[str, ...]:
    """Mount options as a list.  AgentError for what is none or would not mount but change something."""
    options = tuple(given.split(",")) if given else ()
    for option in options:
        if not option or re.search(r"\s", option):
            raise AgentError(f'options = "{given}" has an empty or blank item', cure='write "noatime,nodev"')
        if option.startswith("-") or option.partition("=")[0] in ("remount", "move"):
            raise AgentError(f'options = "{given}": {option} is no option of a new mount', cure=f"remove {option}")
    if "ro" in options and "rw" in options:
        raise AgentError(f'options = "{given}" has both ro and rw', cure="keep one of them")
    return options


def device_of(resource: Resource, given: str) -> str:
    """The path of the device that is named by path or tag; "" if no such device is here now."""
    tag, equals, value = given.partition("=")
    if not equals or tag not in _TAGS:
        if not given.startswith("/"):
            listed = ", ".join(f"{tag}=" for tag in _TAGS)
            raise AgentError(f'device = "{given}" is no path', cure=f"use a path in /dev, or {listed}")
        return given
    value = value.strip('"')
    if not value:
        raise AgentError(f'device = "{given}" names nothing', cure=f"see blkid; write {tag}=…")
    link = Path("/dev/disk", _TAGS[tag], re.sub(r"[^\w#+.:=@-]", lambda c: f"\\x{ord(c[0]):02x}", value))
    if link.is_symlink():
        return str(link.resolve())
    blkid = servers.program(("blkid",), cure="apt-get install util-linux")
    # without its cache, which may tell what was on the disk before
    argv = [blkid, "-c", "/dev/null", "-o", "device", "-t", f"{tag}={value}"]
    found = probes.run(resource, "blkid", argv, probes.patience(resource, 10)).stdout.split()
    if len(found) > 1:
        raise AgentError(f"{given} means {' and '.join(found)}", cure="name one of them by its path")
    return found[0] if found else ""


def check_directory(resource: Resource, directory: str, *, over: bool) -> None:
    """AgentError unless it is there, no link leads to it, and it is empty (or ``over``)."""

    def look() -> str:
        path = Path(directory)
        if not path.exists():
            return "missing"
        if os.path.realpath(directory) != directory:
            return os.path.realpath(directory)
        if not path.is_dir():
            return "no directory"
        return "" if over or not any(path.iterdir()) else "not empty"

    said = asked(resource, "directory", directory, look)
    if said == "missing":
        raise AgentError(f"{directory} does not exist", cure=f"mkdir -p {directory}")
    if said == "no directory":
        raise AgentError(f"{directory} is no directory", cure="set directory to one")
    if said == "not empty":
        raise AgentError(
            f"{directory} is not empty: a mount would hide what is in it",
            cure="empty it, use another directory, or set over = true",
        )
    if said:
        raise AgentError(f"{directory} leads by a link to {said}", cure=f'set directory = "{said}"')


def check_fstab(directory: str, fstab: Path = Path("/etc/fstab")) -> None:
    """AgentError if the system itself mounts something at the directory when it boots."""
    try:
        lines = fstab.read_text(errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        fields = line.split("#")[0].split()
        if len(fields) > 3 and os.path.normpath(fields[1]) == directory and "noauto" not in fields[3].split(","):
            raise AgentError(
                f"{directory} is in {fstab}: the system mounts {fields[0]} there at boot, on both nodes",
                cure="remove that line, or add noauto to its options",
            )


def asked(resource: Resource, slot: str, path: str, look: Callable[[], str]) -> str:
    """A look at a path that is not ours yet.  AgentError if it cannot be looked at."""
    try:
        return probes.ask(resource, slot, f"a look at {path}", look, str, probes.patience(resource, 10))
    except OSError as error:
        raise AgentError(f"{path} cannot be looked at: {error.strerror}", cure="is what it lies on there?") from error


# -- mounting --------------------------------------------------------------------------


def mount(resource: Resource, wanted: Wanted, kernel: Kernel) -> Mount:
    """Mount it and prove it.  What was mounted and does not pass is unmounted again."""
    argv = [servers.program(("mount",), CURE)]
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
            probes.run(resource, "unmount", _umount(wanted), probes.patience(resource, 10))
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


# -- unmounting ------------------------------------------------------------------------


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
        done = probes.run(resource, "unmount", _umount(wanted), probes.patience(resource, limit))
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
        done = probes.run(resource, "unmount-force", _umount(wanted, ["-i", "-f"]), probes.patience(resource, 10))
        if done.returncode == 0 or resource.remaining <= until:
            return
        time.sleep(0.1)


def _umount_or_fail(resource: Resource, wanted: Wanted, slot: str, flags: list[str]) -> None:
    done = probes.run(resource, slot, _umount(wanted, flags), probes.patience(resource, 10))
    if done.returncode != 0:
        raise AgentError(f"umount {' '.join(flags)} {wanted.directory} failed: {' '.join(done.stderr.split())}")


def _umount(wanted: Wanted, flags: Iterable[str] = ()) -> list[str]:
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
