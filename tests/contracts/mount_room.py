"""A private mount namespace for a test, disks that are files, and a filesystem whose server can die.

Nothing that is mounted in here is seen by, or survives, anybody else: the
namespace ends with the test.
"""

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hostd.api import Resource

CLONE_NEWNS = 0x00020000
_libc = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def private_mounts() -> Iterator[None]:
    """This process, and what it forks, sees mounts of its own until the block ends."""
    outside, here = os.open("/proc/self/ns/mnt", os.O_RDONLY), os.open(".", os.O_RDONLY)
    try:
        _succeed(_libc.unshare(CLONE_NEWNS), "unshare")
        subprocess.run(["mount", "--make-rprivate", "/"], check=True)
        yield
    finally:
        _succeed(_libc.setns(outside, CLONE_NEWNS), "setns")
        os.fchdir(here)
        os.close(outside)
        os.close(here)


@contextlib.contextmanager
def disk(folder: Path, fstype: str, *, name: str = "disk", megabytes: int = 8) -> Iterator[str]:
    """A loop device with a new filesystem on it."""
    image = folder / f"{name}.img"
    image.touch()
    os.truncate(image, megabytes << 20)
    if fstype:
        flags = ["-q", "-F"] if fstype.startswith("ext") else ["-q", "-f"]
        subprocess.run([f"mkfs.{fstype}", *flags, str(image)], check=True)
    made = subprocess.run(["losetup", "-f", "--show", str(image)], check=True, capture_output=True, text=True)
    device = made.stdout.strip()
    try:
        yield device
    finally:
        subprocess.run(["losetup", "-d", device], check=True)


@contextlib.contextmanager
def dying_server(point: Path) -> Iterator["DyingServer"]:
    """A filesystem served by a process; it is mounted at ``point``."""
    point.mkdir()
    server = DyingServer(point)
    try:
        yield server
    finally:
        server.end()


class DyingServer:
    """A FUSE server that can be told to answer no more: what looks then hangs in state D."""

    def __init__(self, point: Path) -> None:
        program = Path(__file__).with_name("fuse_server.py")
        self._process = subprocess.Popen(
            [sys.executable, "-I", str(program), str(point)], stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "mounted\n"

    def fall_silent(self) -> None:
        """It goes on reading requests and answers none."""
        assert self._process.stdout is not None
        os.kill(self._process.pid, signal.SIGUSR1)
        assert self._process.stdout.readline() == "silent\n"

    def end(self) -> None:
        """The connection breaks: what hung returns with an error."""
        self._process.kill()
        self._process.wait()


def _succeed(result: int, what: str) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), what)


def resource(
    folder: Path, agent: Any, given: dict[str, Any], *, seconds: float = 20, depth: int = 0, node: str = "clustnode1"
) -> Resource:
    """What the agent's module is handed when it is called without a host around it."""
    params = {field.name: field.default for field in agent.parameters().fields} | given
    run_dir = folder / "run"
    run_dir.mkdir(exist_ok=True)
    deadline = time.monotonic() + seconds
    return Resource(name="r", node=node, params=params, run_dir=run_dir, deadline=deadline, depth=depth)


@contextlib.contextmanager
def programs(folder: Path, **scripts: str) -> Iterator[Path]:
    """Scripts that stand before the real programs; ``exec $REAL`` goes on to the real one.

    Each appends its arguments, one line per call, to the file ``calls``.
    """
    place, before = folder / "bin", os.environ["PATH"]
    place.mkdir(exist_ok=True)
    for name, text in scripts.items():
        name = name.replace("_", ".", 1) if name.startswith("mount_") else name
        real = shutil.which(name) or f"/usr/sbin/{name}"
        script = place / name
        script.write_text(f'#!/bin/sh\nREAL={real}\necho "{name} $*" >> {folder}/calls\n{text}\n')
        script.chmod(0o755)
    os.environ["PATH"] = f"{place}:{before}"
    try:
        yield place
    finally:
        os.environ["PATH"] = before


def calls(folder: Path) -> list[str]:
    """What the scripts were called with."""
    path = folder / "calls"
    return path.read_text().splitlines() if path.exists() else []
