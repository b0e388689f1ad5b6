"""A disk for a sandbox: a file behind a loop device, with a new ext4 on it.

Decides that the device lives as long as its file: the kernel frees it when
nobody has it open any more (losetup(8), -d), and until then a process holds
it, which ends when the file is removed.  AgentError wherever no such disk is
to be had: no loop devices in this kernel or container, no root, no mkfs.ext4.
"""

import os
import subprocess
from pathlib import Path
from typing import Final

from hostd.api import servers
from hostd.api.errors import AgentError

SIZE: Final = 8 << 20
"""Bytes; few of them are used, and mkfs.ext4 makes a journal of this."""
COMMAND_S: Final = 30.0
HOLD: Final = 'while [ -e "$0" ]; do sleep 1; done'


def disk(image: Path) -> str:
    """Make the file ``image`` and return the device that it is behind, until the file is removed."""
    losetup = servers.program(("losetup",), cure="apt-get install mount")
    mkfs = servers.program(("mkfs.ext4",), cure="apt-get install e2fsprogs")
    image.touch()
    os.truncate(image, SIZE)
    _done([mkfs, "-q", "-F", str(image)])
    device = _done([losetup, "--find", "--show", str(image)])
    try:
        _hold(device, image)
    except OSError as error:
        raise AgentError(f"{device} cannot be held open: {error}") from error
    finally:
        _done([losetup, "--detach", device])  # from now on it goes with the last that has it open
    return device


def _hold(device: str, image: Path) -> None:
    """Leave a process behind that has the device open as long as the file is there."""
    handle = os.open(device, os.O_RDONLY)
    try:
        holder = subprocess.Popen(
            ["sh", "-c", HOLD, str(image)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # the group of a hook is killed when it has answered
            pass_fds=(handle,),
        )
        holder.returncode = 0  # it outlives us on purpose: no warning, no reaping at exit
    finally:
        os.close(handle)


def _done(argv: list[str]) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=COMMAND_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise AgentError(f"{argv[0]}: {error}") from error
    if done.returncode != 0:
        raise AgentError(f"{' '.join(argv)}: {done.stderr.strip() or f'exit code {done.returncode}'}")
    return done.stdout.strip()
