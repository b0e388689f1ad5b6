"""What is mounted where on this machine, and who holds it.

Decides by what the kernel says (mountinfo, mount ids of open files, working
directories, programs, mapped files, swap, loop devices, NFS exports, other
mount namespaces), and never by a look at the filesystem itself, which may
hang.  Looks that may wait for a lock of another process run in a child all
the same.  Ends holders, on demand, but never init, sshd, hostd, what hostd
descends from, or kernel threads.  Does not decide whether anybody is ended.
"""

import contextlib
import errno
import os
import re
import signal
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from hostd.api import probes
from hostd.api.resource import Resource

SHOWN_MAX: Final = 5
"""How many holders a reason names; the rest is a number."""

_ESCAPE: Final = re.compile(r"\\([0-7]{3})")
_PF_KTHREAD: Final = 0x00200000
_NEVER_ENDED: Final = frozenset({"sshd", "sshd-session", "systemd", "init"})


class Kernel(NamedTuple):
    """Where the kernel tells of itself; elsewhere in tests."""

    proc: Path = Path("/proc")
    sys: Path = Path("/sys")


class Mount(msgspec.Struct, frozen=True):
    """One line of mountinfo (proc(5))."""

    id: int
    parent: int
    device: str
    """``major:minor`` of what ``stat`` shows of its files."""
    root: str
    """What of the filesystem is mounted: ``/``, or a directory of it (a bind mount)."""
    point: str
    options: frozenset[str]
    """Of this mount and of the filesystem: read-only if either is."""
    fstype: str
    source: str


# -- the table -----------------------------------------------------------------------


def table(kernel: Kernel, pid: str = "self") -> list[Mount]:
    """All mounts that this process sees, later ones over earlier ones.  Never hangs."""
    return parse((kernel.proc / pid / "mountinfo").read_text(errors="surrogateescape"))


def parse(text: str) -> list[Mount]:
    """mountinfo, line by line; lines that are none are left out."""
    found = []
    for line in text.splitlines():
        mount, dash, filesystem = line.partition(" - ")
        fields, kinds = mount.split(" "), filesystem.split(" ")
        if not dash or len(fields) < 6 or len(kinds) < 2:
            continue
        options = frozenset(fields[5].split(",") + (kinds[2].split(",") if len(kinds) > 2 else []))
        number, parent = int(fields[0]), int(fields[1])
        root, point, source = (_unescaped(text) for text in (fields[3], fields[4], kinds[1]))
        found.append(Mount(number, parent, fields[2], root, point, options, kinds[0], source))
    return found


def containing(mounts: Iterable[Mount], path: str) -> Mount | None:
    """The mount that ``path`` lies in: the deepest one, of several at one place the uppermost."""
    found: Mount | None = None
    for mount in mounts:
        if is_within(path, mount.point) and (found is None or len(mount.point) >= len(found.point)):
            found = mount
    return found


def is_within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(lambda found: chr(int(found[1], 8)), text) if "\\" in text else text


# -- who holds it ------------------------------------------------------------------------


class Holder(msgspec.Struct, frozen=True):
    """Something that keeps a filesystem from being unmounted."""

    how: str
    """In words: "open file", "working directory", "swap file", …"""
    file: str
    pid: int = 0
    """0: not a process."""
    started: int = 0
    command: str = ""
    user: str = ""
    spared: str = ""
    """Why it is never ended; "" if it may be."""


def holders(resource: Resource, mount: Mount, kernel: Kernel) -> list[Holder]:
    """Who holds ``mount``: processes first, one entry each.  Raises Hang."""
    what = f"the search for holders of {mount.point}"
    limit = probes.patience(resource, 10)
    return probes.ask(resource, "holders", what, lambda: list(_holders(mount, kernel)), list[Holder], limit)


def described(found: list[Holder]) -> str:
    """Them for people: process, command, user, file."""
    if not found:
        return "nobody that could be found"
    shown = []
    for holder in found[:SHOWN_MAX]:
        who = f"{holder.command} (pid {holder.pid}, {holder.user}): " if holder.pid else ""
        shown.append(f"{who}{holder.how} {holder.file}" + (f" [{holder.spared}]" if holder.spared else ""))
    more = f" and {len(found) - SHOWN_MAX} more" if len(found) > SHOWN_MAX else ""
    return "; ".join(shown) + more


def end(resource: Resource, found: list[Holder], *, hard: bool) -> int:
    """SIGTERM, or SIGKILL if ``hard``, for those that may be ended; how many got it."""
    number = 0
    for holder in _endable(found):
        resource.log.warning("ending %s", described([holder]))
        with contextlib.suppress(ProcessLookupError):
            pidfd = os.pidfd_open(holder.pid)
            try:
                if probes.alive_since(holder.pid) == holder.started:
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL if hard else signal.SIGTERM)
                    number += 1
            finally:
                os.close(pidfd)
    return number


def gone_within(resource: Resource, found: list[Holder], seconds: float) -> None:
    """Wait until those that may be ended are gone, but no longer than this."""
    until = resource.remaining - seconds
    resource.wait(
        lambda: resource.remaining <= until or not any(probes.alive_since(h.pid) == h.started for h in _endable(found)),
        "the wait did not end",
    )


def _endable(found: list[Holder]) -> list[Holder]:
    return [holder for holder in found if holder.pid and not holder.spared]


def _holders(mount: Mount, kernel: Kernel) -> Iterator[Holder]:
    here = table(kernel)
    own = _namespace(kernel, "self")
    for pid in _pids(kernel):
        if pid != os.getpid() and _namespace(kernel, str(pid)) == own:
            grip = next(_grips(kernel.proc / str(pid), mount, here), None)
            if grip is not None:
                yield _holder(kernel, pid, *grip)
    yield from _kernels_holders(mount, here, kernel)


def _grips(process: Path, mount: Mount, here: list[Mount]) -> Iterator[tuple[str, str]]:
    """How a process of our mount namespace holds it, and by which file."""
    for how, link in (("working directory", "cwd"), ("root directory", "root"), ("program", "exe")):
        with contextlib.suppress(OSError):
            path = str((process / link).readlink())
            if _lies_in(path, mount, here):
                yield how, path
    with contextlib.suppress(OSError):
        for handle in (process / "fdinfo").iterdir():
            with contextlib.suppress(OSError):
                if f"mnt_id:\t{mount.id}\n" in handle.read_text():
                    yield "open file", str((process / "fd" / handle.name).readlink())
    with contextlib.suppress(OSError):
        for line in (process / "maps").read_text(errors="surrogateescape").splitlines():
            path = line.split(maxsplit=5)[5] if line.count("/") else ""
            if path.startswith("/") and _lies_in(path, mount, here):
                yield "mapped file", path


def _lies_in(path: str, mount: Mount, here: list[Mount]) -> bool:
    inner = containing(here, path.removesuffix(" (deleted)"))
    return inner is not None and inner.id == mount.id


def _kernels_holders(mount: Mount, here: list[Mount], kernel: Kernel) -> Iterator[Holder]:
    """What the kernel itself holds: mounts, swap, loop devices, exports."""
    for other in here:
        if other.parent == mount.id:
            yield Holder("a mount on it,", f"{other.source} at {other.point}")
    for line in _lines(kernel.proc / "swaps")[1:]:
        if _lies_in(_unescaped(line.split()[0]), mount, here):
            yield Holder("swap file", line.split()[0])
    for backing in sorted((kernel.sys / "block").glob("loop*/loop/backing_file")):
        path = "".join(_lines(backing))
        if _lies_in(path, mount, here):
            yield Holder(f"loop device {backing.parts[-3]} on", path)
    for line in _lines(kernel.proc / "fs/nfsd/exports"):
        path = _unescaped(line.partition("\t")[0])
        if path.startswith("/") and _lies_in(path, mount, here):
            yield Holder("NFS export", path)


def _holder(kernel: Kernel, pid: int, how: str, file: str) -> Holder:
    status = dict(line.split(":\t", 1) for line in _lines(kernel.proc / str(pid) / "status") if ":\t" in line)
    user = _user(status.get("Uid", "?").split()[0])
    command = _command(kernel, pid)
    return Holder(how, file, pid, probes.alive_since(pid), command, user, _spared(kernel, pid, command))


def _spared(kernel: Kernel, pid: int, command: str) -> str:
    """Why this process is never ended; "" if it may be."""
    if pid == 1 or command in _NEVER_ENDED:
        return f"{command} is never ended"
    stat = _stat(kernel, pid)
    if len(stat) > 6 and int(stat[6]) & _PF_KTHREAD:
        return "a kernel thread"
    ancestors = _ancestors(kernel)
    if pid in ancestors:
        return "hostd, or what started it"
    with contextlib.suppress(OSError):  # heart, brain and actions are forks of one process: the same command line
        ours = (kernel.proc / "self" / "cmdline").read_bytes()
        if (kernel.proc / str(pid) / "cmdline").read_bytes() == ours:
            return "hostd itself"
    return ""


def _ancestors(kernel: Kernel) -> set[int]:
    found, pid = set[int](), os.getpid()
    while pid > 0 and pid not in found:
        found.add(pid)
        stat = _stat(kernel, pid)
        pid = int(stat[1]) if len(stat) > 1 else 0
    return found


# -- who uses a block device ---------------------------------------------------------------


def users_of_device(resource: Resource, device: str, kernel: Kernel) -> list[str]:
    """Who has this device (``major:minor``): mounts in any namespace, swap, dm, md; each a few words."""
    what = f"the search for users of device {device}"
    limit = probes.patience(resource, 10)
    return probes.ask(resource, "users", what, lambda: list(_users(device, kernel)), list[str], limit)


def is_claimed(resource: Resource, path: str) -> bool:
    """Does somebody hold this block device for himself: a filesystem (lazily unmounted ones too, in any
    namespace), swap, dm, md?  The kernel is asked by opening it exclusively, as mkfs does."""

    def is_busy() -> bool:
        try:
            os.close(os.open(path, os.O_RDONLY | os.O_EXCL))
        except OSError as error:
            return error.errno == errno.EBUSY
        return False

    return probes.ask(resource, "claim", f"a look at {path}", is_busy, bool, probes.patience(resource, 10))


def _users(device: str, kernel: Kernel) -> Iterator[str]:
    for mount in table(kernel):
        if mount.device == device:
            yield f"mounted at {mount.point} ({mount.fstype})"
    others = list(_elsewhere(device, kernel))
    for point, pid in others[:SHOWN_MAX]:
        yield f"mounted at {point} in the mount namespace of process {pid} ({_command(kernel, pid)})"
    if len(others) > SHOWN_MAX:
        yield f"mounted in {len(others) - SHOWN_MAX} more mount namespaces"
    for line in _lines(kernel.proc / "swaps")[1:]:
        with contextlib.suppress(OSError):
            if line.startswith("/dev/") and number_of(_unescaped(line.split()[0])) == device:
                yield "used as swap"
    for holder in sorted((kernel.sys / "dev/block" / device / "holders").glob("*")):
        name = "".join(_lines(holder / "dm/name"))
        yield f"a part of {f'/dev/mapper/{name}' if name else f'/dev/{holder.name}'}"


def _elsewhere(device: str, kernel: Kernel) -> Iterator[tuple[str, int]]:
    """Mount point and a process of every other mount namespace that has the device mounted."""
    seen = {_namespace(kernel, "self"), ""}
    for pid in _pids(kernel):
        namespace = _namespace(kernel, str(pid))
        if namespace not in seen:
            seen.add(namespace)
            with contextlib.suppress(OSError):
                for mount in table(kernel, str(pid)):
                    if mount.device == device:
                        yield mount.point, pid
                        break


def number_of(path: str) -> str:
    """``major:minor`` of a block device's file; "" if it is none.  OSError if it is not there."""
    status = Path(path).stat()
    is_block = (status.st_mode & 0o170000) == 0o060000
    return f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}" if is_block else ""


# -- what /proc says -------------------------------------------------------------------------


def _pids(kernel: Kernel) -> list[int]:
    return sorted(int(entry.name) for entry in kernel.proc.iterdir() if entry.name.isdigit())


def _namespace(kernel: Kernel, pid: str) -> str:
    try:
        return str((kernel.proc / pid / "ns/mnt").readlink())
    except OSError:
        return ""


def _stat(kernel: Kernel, pid: int) -> list[str]:
    """Fields of ``/proc/PID/stat`` from the state on."""
    return "".join(_lines(kernel.proc / str(pid) / "stat")).rpartition(")")[2].split()


def _command(kernel: Kernel, pid: int) -> str:
    return "".join(_lines(kernel.proc / str(pid) / "comm"))


def _user(uid: str) -> str:
    # not by getpwuid, which may ask an LDAP server that is on the disk in question
    names = (line.split(":") for line in _lines(Path("/etc/passwd")))
    return next((fields[0] for fields in names if len(fields) > 2 and fields[2] == uid), f"uid {uid}")


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return []


def text(path: Path) -> str:
    """What a file of the kernel says; "" if it is not there."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
