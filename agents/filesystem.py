"""A filesystem on a disk, or a directory at a second place: ext4, xfs, bind mounts, and what else ``mount`` knows.

Known by device number and root in the kernel's mountinfo.  A disk that is in
use anywhere on this machine (another directory, another mount namespace,
swap, device mapper, md) is not mounted; whether it is mounted on the other
node, no node can see: fencing or ``scsi_reservation`` must answer for that.

Whether ext2, 3 and 4 are dirty is read from the superblock: ``s_state`` at
offset 0x3A and ``s_magic`` at 0x38 (Documentation/filesystems/ext4/super.rst
of Linux).  A journal that is to be replayed is what every takeover finds, and
not dirty.  Other filesystems are asked by mounting them.
"""

import os
import re
import stat
import struct
from pathlib import Path

import msgspec

from hostd.api import (
    AgentError,
    Completed,
    Field,
    Health,
    Parameters,
    Resource,
    hookimpl,
    probes,
    servers,
)
from hostd.api.storage import loops, mounting, mounts, places, unmounting
from hostd.api.storage.places import Wanted
from hostd.api.storage.unmounting import Leave

KERNEL = mounts.Kernel()
OTHERS = {"nfs": "nfs", "nfs4": "nfs", "gfs2": "gfs"}
"""Types that have an agent of their own."""
EXPORT = re.compile(r"[^/]*:/")  # host:/path, of NFS
FSCK_DONE = 3  # fsck(8): 1 errors corrected, 2 the system should be rebooted; 4 and more is failure


class Before(msgspec.Struct, frozen=True):
    """What start left in the run directory: how it is known if its device vanishes."""

    device: str
    root: str
    block: str
    errors: int
    """ext4's count of errors when it was mounted; it is kept on the disk."""


BEFORE = msgspec.json.Decoder(Before)


@hookimpl
def parameters() -> Parameters:
    return Parameters(
        Field("device", str, help="the disk (/dev/…, UUID=…, LABEL=…), or the directory of a bind mount"),
        Field("directory", str, help="where it is mounted; it must exist"),
        Field("fstype", str, default="", help='ext4, xfs, bind, …; default: what mount finds; "bind" for a directory'),
        Field("options", str, default="", help='options of mount, as in "noatime,nodev"'),
        Field(
            "fsck",
            str,
            default="never",
            choices=("never", "dirty", "always"),
            help="check it before a mount: if ext2, 3 or 4 call themselves dirty, or always",
        ),
        Field("over", bool, default=False, help="mount even over a directory that is not empty, or over a mount"),
        Field("kill", str, default="never", choices=("never", "term", "kill"), help="what a stop does to its holders"),
        Field("lazy", bool, default=False, help="unmount even if it is held; the stop fails while the disk is in use"),
        Field(
            "patience", places.seconds, default=10.0, help="seconds that a monitor lets the filesystem take to answer"
        ),
        summary="a filesystem on a disk, or a bind mount",
        timeouts={"start": "60s", "stop": "60s", "monitor": "40s"},
        monitor_interval="20s",
        monitor_depth=10,  # a filesystem that does not answer is not there
        mounts="directory",
        exclusive_storage=True,
    )


@hookimpl
def start(resource: Resource) -> None:
    wanted = _wanted(resource)
    probes.refuse_if_hanging(resource, "mount")
    if places.find(wanted, mounts.table(KERNEL)).mount is not None:
        mounting.verified(resource, wanted, KERNEL)
        return
    _record(resource).unlink(missing_ok=True)  # of a mount that is gone: the source may be another by now
    wanted = _wanted(resource)
    _check_source(resource, wanted)
    places.check_place(resource, wanted, mounts.table(KERNEL), over=resource.params["over"])
    if wanted.block:
        _check(resource, wanted)
    mount = mounting.mount(resource, wanted, KERNEL)
    before = Before(mount.device, mount.root, wanted.block, _ext4_errors(mount.device))
    _record(resource).write_bytes(msgspec.json.encode(before))


@hookimpl
def stop(resource: Resource) -> None:
    wanted = _wanted(resource)
    before = _before(resource)
    if before is None and places.find(wanted, mounts.table(KERNEL)).mount is None:
        wanted = wanted._replace(block="")  # not mounted by us: who else uses the disk is not our business
    leave = Leave(kill=resource.params["kill"], lazy=resource.params["lazy"])
    unmounting.unmount(resource, wanted, leave, KERNEL)
    _record(resource).unlink(missing_ok=True)


@hookimpl
def monitor(resource: Resource) -> Health:
    wanted = _wanted(resource)
    found = places.find(wanted, mounts.table(KERNEL))
    if found.mount is None:
        probes.refuse_if_hanging(resource, "mount")
        return Health.STOPPED
    mounting.complain(wanted, found)
    before = _before(resource)
    errors = _ext4_errors(found.mount.device)
    if errors > (before.errors if before else 0):
        raise AgentError(
            f"ext4 has met {errors} errors on {wanted.source}, mounted at {wanted.directory}",
            cure="see dmesg; stop the service and run fsck",
        )
    if resource.depth >= 10:
        limit = probes.patience(resource, resource.params["patience"])
        seen = mounting.look(resource, wanted, resource.depth, limit, slot="monitor")
        if seen.full:
            resource.log.warning("%s is full: nothing can be written", wanted.directory)
            return Health.DEGRADED
    return Health.RUNNING


@hookimpl
def validate(resource: Resource) -> None:
    wanted = _wanted(resource)
    _check_source(resource, wanted)
    places.check_directory(resource, wanted.directory, over=True)
    places.check_fstab(wanted.directory)
    if wanted.fstype not in ("", "none", "auto") and not _is_known(resource, wanted.fstype):
        servers.program((f"mount.{wanted.fstype}",), cure=f'is fstype = "{wanted.fstype}" right? see /proc/filesystems')
    if resource.params["fsck"] != "never":
        _fsck_program()


@hookimpl
def sandbox(directory: Path) -> dict[str, str]:
    """An ext4 on a loop device; where there are none, a bind mount of one directory at another."""
    if os.geteuid() != 0:
        raise AgentError("only root may mount", cure="run the test as root")
    data, mounted = directory / "data", directory / "mounted"
    data.mkdir(parents=True)
    mounted.mkdir()
    try:
        device = loops.disk(data / "disk.img")
    except AgentError as error:
        print(f"no loop device, so a bind mount is tried: {error}")
        return {"device": str(data), "directory": str(mounted), "fstype": "bind"}
    return {"device": device, "directory": str(mounted), "fstype": "ext4"}


# -- what is wanted ----------------------------------------------------------------------


def _wanted(resource: Resource) -> Wanted:
    """What conf.d wants, as far as it can be known without asking a disk."""
    given, fstype = resource.params["device"], resource.params["fstype"]
    directory = places.directory_of(resource.params["directory"])
    options = places.options_of(resource.params["options"])
    if fstype in OTHERS or EXPORT.match(given):
        raise AgentError(f"{given} is not for the agent filesystem", cure=f'set agent = "{OTHERS.get(fstype, "nfs")}"')
    if fstype == "bind" or "bind" in options or "rbind" in options:
        return _bind(resource, given, directory, options)
    if _is_without_device(fstype):
        return Wanted(given, directory, fstype, options, sources=(given,), fstypes=(fstype,))
    before = _before(resource)
    device = places.device_of(resource, given)
    number = ""
    try:
        number = mounts.number_of(device) if device else ""
    except OSError:
        device = ""  # it is gone: what start wrote down tells what it was
    if not number and before is not None:
        number, device = before.device, before.block
    return Wanted(given, directory, fstype, options, device=number, sources=tuple({given, device} - {""}), block=device)


def _bind(resource: Resource, given: str, directory: str, options: tuple[str, ...]) -> Wanted:
    source = places.directory_of(given, "device")
    if mounts.is_within(directory, source):
        raise AgentError(f"{directory} lies in {source}, which it shall show", cure="use a directory elsewhere")
    options = options if {"bind", "rbind"} & set(options) else ("bind", *options)
    before = _before(resource)
    if before is not None:
        return Wanted(source, directory, "", options, device=before.device, root=before.root)
    inner = mounts.containing(mounts.table(KERNEL), source)
    assert inner is not None, "there is always a root"
    below = source[len(inner.point.rstrip("/")) :]
    root = (inner.root.rstrip("/") + below) or "/"
    return Wanted(source, directory, "", options, device=inner.device, root=root)


# -- may it be mounted? --------------------------------------------------------------------


def _check_source(resource: Resource, wanted: Wanted) -> None:
    """AgentError unless what is to be mounted is there."""
    given = resource.params["device"]
    if not wanted.block and wanted.fstype == "" and not wanted.sources:
        return _check_bind(resource, wanted)
    if _is_without_device(wanted.fstype):
        return None
    path = places.device_of(resource, given)
    cure = "is the disk connected? see lsblk and blkid"
    try:
        if path and mounts.number_of(path):
            return None
    except OSError as error:
        raise AgentError(f"{path} is not there: {error.strerror}", cure=cure) from error
    if not path:
        raise AgentError(f"there is no device with {given}", cure=cure)
    kind = "directory" if stat.S_ISDIR(Path(path).stat().st_mode) else "file"
    cure = 'set fstype = "bind"' if kind == "directory" else "set up a loop device (losetup) and name that"
    raise AgentError(f"{path} is a {kind} and no disk", cure=cure)


def _check_bind(resource: Resource, wanted: Wanted) -> None:
    def look() -> str:
        real = Path(wanted.source).resolve(strict=True)
        return str(real) if str(real) != wanted.source else "" if real.is_dir() else "no directory"

    said = places.asked(resource, "source", wanted.source, look)
    if said == "no directory":
        raise AgentError(f"{wanted.source} is no directory", cure="set device to one")
    if said:
        raise AgentError(f"{wanted.source} leads by a link to {said}", cure=f'set device = "{said}"')


def _check(resource: Resource, wanted: Wanted) -> None:
    """AgentError if the disk is in use, or dirty and not to be checked."""
    users = mounts.users_of_device(resource, wanted.device, KERNEL)
    if users:
        raise AgentError(f"{wanted.block} is in use: {'; '.join(users)}", cure="end that use; two would destroy it")
    if mounts.is_claimed(resource, wanted.block):
        raise AgentError(
            f"{wanted.block} is in use: the kernel does not open it for us alone (a partition or a layer of it "
            "may be mounted, or a filesystem that was unmounted lazily goes on)",
            cure="see lsblk",
        )
    when = resource.params["fsck"]
    dirty = _dirty(resource, wanted.block)
    if when == "always" or (dirty and when == "dirty"):
        _fsck(resource, wanted)
    elif dirty:
        raise AgentError(
            f"the filesystem on {wanted.block} {dirty}", cure=f'run fsck {wanted.block}, or set fsck = "dirty"'
        )


def _dirty(resource: Resource, block: str) -> str:
    """What is wrong with an ext filesystem by its own account; "" for a clean one, and for other types."""

    def superblock() -> bytes:
        with open(block, "rb", buffering=0) as disk:
            disk.seek(1024)
            return disk.read(1024)

    limit = probes.patience(resource, 20)
    try:
        data = probes.ask(resource, "superblock", f"a read of {block}", superblock, bytes, limit)
    except OSError as error:
        raise AgentError(f"{block} cannot be read: {error.strerror}", cure="see dmesg") from error
    magic, state = struct.unpack_from("<HH", data, 0x38) if len(data) >= 0x3C else (0, 0)
    if magic != 0xEF53:
        return ""
    if state & 2:
        return "has met errors, and no fsck since"
    return "" if state & 1 else "was not unmounted cleanly, and has no journal"


def _fsck_program() -> str:
    return servers.program(("fsck",), cure="apt-get install util-linux, or set fsck to never")


def _fsck(resource: Resource, wanted: Wanted) -> None:
    """fsck without questions, of what is not mounted.  AgentError if errors are left."""
    kind = ["-t", wanted.fstype] if wanted.fstype else []
    argv = [_fsck_program(), "-T", *kind, wanted.block, "-p"]
    resource.log.warning("running %s", " ".join(argv))
    try:
        done: Completed = probes.run(resource, "fsck", argv, probes.patience(resource, resource.remaining))
    except probes.Hang as hang:
        cure = f'run fsck {wanted.block} by hand, or set timeout = {{ start = "30m" }}'
        raise AgentError(hang.reason, cure=cure) from hang
    resource.log.info("%s", done.stdout)
    if done.returncode & ~FSCK_DONE:
        said = " ".join((done.stdout + " " + done.stderr).split())[-500:]
        raise AgentError(
            f"fsck of {wanted.block} ended with {done.returncode}: {said}", cure=f"run fsck {wanted.block} by hand"
        )


# -- what the kernel knows -------------------------------------------------------------------


def _is_known(resource: Resource, fstype: str) -> bool:
    """The kernel has this type, or a module for it."""
    lines = (KERNEL.proc / "filesystems").read_text().splitlines()
    if any(line.split()[-1] == fstype for line in lines):
        return True
    try:
        modprobe = servers.program(("modprobe",), cure="apt-get install kmod")
    except AgentError:
        return False  # a kernel without modules needs none
    return probes.run(resource, "modprobe", [modprobe, "-n", "-q", f"fs-{fstype}"], 5).returncode == 0


def _is_without_device(fstype: str) -> bool:
    """tmpfs, overlay, cifs, …: the kernel says that it needs no block device."""
    if fstype in ("", "none", "auto"):
        return False
    lines = (KERNEL.proc / "filesystems").read_text().splitlines()
    return any(line.split() == ["nodev", fstype] for line in lines)


def _ext4_errors(device: str) -> int:
    """How many errors ext4 has met since its last fsck; 0 for every other filesystem."""
    try:
        name = (KERNEL.sys / "dev/block" / device).resolve(strict=True).name
        return int((KERNEL.sys / "fs/ext4" / name / "errors_count").read_text())
    except (OSError, ValueError):
        return 0


def _record(resource: Resource) -> Path:
    return resource.run_dir / "mounted"


def _before(resource: Resource) -> Before | None:
    try:
        return BEFORE.decode(_record(resource).read_bytes())
    except (FileNotFoundError, msgspec.DecodeError):
        return None
