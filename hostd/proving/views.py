"""Private views of the disks: full, read-only, or with a program missing.

A view is a mount namespace of its own, held by a process; actions enter it,
and with that process it is gone.  Decides nothing about agents.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from hostd import processes
from hostd.proving.afflictions import CLONE_NEWNS, LIBC
from hostd.proving.breaches import Untried

_MS_REC: Final = 0x4000
_MS_PRIVATE: Final = 1 << 18

COPY_MAX: Final = 400_000_000
"""Bytes of a sandbox that may be copied into memory to fill a disk up."""
FREE_BEFORE_FILLING: Final = 2_000_000
FILLER: Final = "hostd-test-fills-the-disk"


def leave_the_machines() -> bool:
    """Give this process a mount namespace of its own, so that nothing mounted from now
    on is seen by others or outlives us.  False if that is not permitted."""
    if LIBC.unshare(CLONE_NEWNS) != 0:
        return False
    if LIBC.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None) != 0:
        raise OSError(ctypes.get_errno(), "mount: make-rprivate /")
    return True


class FullDisk(NamedTuple):
    """A view with a disk without a free byte."""

    namespace: str
    filler: Path

    def make_room(self) -> None:
        self.filler.unlink()


@contextlib.contextmanager
def full(data: Path, spare: Path) -> Iterator[FullDisk]:
    """A view in which ``data`` is a copy of itself on a full disk.

    ``spare``: an empty folder, where the disk is made.  Raises Untried.
    """
    used = sum(path.lstat().st_blocks * 512 for path in data.rglob("*"))
    if used > COPY_MAX:
        raise Untried(f"the sandbox has {used // 1_000_000} MB: too much for a copy in memory")
    size = (used + used // 10 + FREE_BEFORE_FILLING) // 4096 * 4096
    mode = data.stat()

    def make() -> None:
        _run("mount", "-t", "tmpfs", "-o", f"size={size}", "hostd-full", spare)
        _run("cp", "-a", f"{data}/.", spare)
        os.chown(spare, mode.st_uid, mode.st_gid)
        spare.chmod(mode.st_mode & 0o7777)
        with contextlib.suppress(OSError), (spare / FILLER).open("wb") as file:
            while True:
                file.write(bytes(4096))
                file.flush()
        _run("mount", "--bind", spare, data)

    with _view(make) as namespace:
        yield FullDisk(namespace, Path(namespace).parents[1] / "root" / data.relative_to("/") / FILLER)


@contextlib.contextmanager
def read_only(data: Path) -> Iterator[str]:
    """A view in which ``data`` cannot be written to; its namespace.  Raises Untried."""

    def make() -> None:
        _run("mount", "--bind", data, data)
        _run("mount", "-o", "remount,bind,ro", data)

    with _view(make) as namespace:
        yield namespace


@contextlib.contextmanager
def without(programs: Sequence[Path], nothing: Path) -> Iterator[str]:
    """A view in which these programs cannot be run; its namespace.  ``nothing``: a file to hide them by."""
    nothing.write_bytes(b"")
    nothing.chmod(0)

    def make() -> None:
        for program in programs:
            _run("mount", "--bind", nothing, program)

    with _view(make) as namespace:
        yield namespace


def unmount(place: str) -> None:
    """Also if it is in use; a failure is left to the end of this process's namespace."""
    subprocess.run(["umount", "--lazy", place], check=False, capture_output=True, timeout=60)


def _run(*argv: str | Path) -> None:
    subprocess.run([str(word) for word in argv], check=True, capture_output=True, timeout=60)


@contextlib.contextmanager
def _view(make: Callable[[], None]) -> Iterator[str]:
    reading, writing = os.pipe2(os.O_CLOEXEC)
    parent = os.getpid()
    sys.stdout.flush()
    sys.stderr.flush()
    holder = os.fork()
    if holder == 0:
        try:
            processes.die_with_parent(parent)
            if not leave_the_machines():
                raise PermissionError("a mount namespace is not permitted")
            make()
            os.write(writing, b"ready")
            signal.pause()
        except subprocess.CalledProcessError as error:
            os.write(writing, error.stderr.strip() or b"a command failed")
        except (OSError, subprocess.SubprocessError) as error:
            os.write(writing, str(error).encode())
        finally:
            os._exit(0)
    os.close(writing)
    try:
        with open(reading, "rb") as file:
            said = file.read(5)
            if said != b"ready":
                raise Untried(f"no private view of the disks here: {(said + file.read(500)).decode(errors='replace')}")
        yield f"/proc/{holder}/ns/mnt"
    finally:
        os.kill(holder, signal.SIGKILL)
        os.waitpid(holder, 0)
