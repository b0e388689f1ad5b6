"""The cluster key: a file of one or two lines that only root may read.

Decides whether a key file is fit for use, and how a new key is made.  It does
not know what is sealed with it.

The file: one key a line (base64 of 32 bytes), newest first, ``#`` begins a
comment.  Frames are sealed with the first and opened with both; so a key is
replaced without a break by adding the new one *below* the old on both nodes,
then above it, then dropping the old.
"""

import base64
import binascii
import os
import stat
from pathlib import Path
from typing import Final

from hostd.api import ConfigError

KEY_SIZE: Final = 32
KEYS_MAX: Final = 2
FILE_MAX: Final = 4_096
"""Two keys and a page of comments; anything longer is another file."""


def read(path: Path) -> tuple[bytes, ...]:
    """The keys, newest first.  Raises ConfigError if the file is unfit; never
    shows anything of its content."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: the cluster key is missing; make it with hostd keygen {path}, then copy it to the other node"
        ) from None
    except OSError as error:
        raise ConfigError(
            f"{path}: the cluster key cannot be read: {error.strerror}; run as root, or set [cluster] key"
        ) from error
    try:
        _check_access(path, os.fstat(fd))
        return _parse(path, os.read(fd, FILE_MAX + 1))
    finally:
        os.close(fd)


def _check_access(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ConfigError(f"{path}: is no regular file; set [cluster] key to the file made by hostd keygen")
    if status.st_uid not in (0, os.geteuid()):
        raise ConfigError(f"{path}: belongs to user {status.st_uid}; the cluster key must be root's: chown root {path}")
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o077:
        raise ConfigError(
            f"{path}: has mode {mode:04o}; nobody but its owner may read the cluster key: chmod 600 {path}"
        )


def _parse(path: Path, content: bytes) -> tuple[bytes, ...]:
    if len(content) > FILE_MAX:
        raise ConfigError(f"{path}: is longer than {FILE_MAX} bytes; a key file holds one or two lines")
    keys = []
    for number, line in enumerate(content.splitlines(), 1):
        text = line.partition(b"#")[0].strip()
        if not text:
            continue
        try:
            key = base64.b64decode(text, validate=True)
        except binascii.Error:
            key = b""
        if len(key) != KEY_SIZE:
            raise ConfigError(
                f"{path}: line {number} is no key; a key is {KEY_SIZE} bytes in base64,"
                " as hostd keygen writes it: copy the file again"
            )
        keys.append(key)
    if not 1 <= len(keys) <= KEYS_MAX:
        raise ConfigError(
            f"{path}: has {len(keys)} keys; it must have one, or two while a key is being replaced (newest first)"
        )
    if len(set(keys)) < len(keys):
        raise ConfigError(f"{path}: has the same key twice; remove one line")
    return tuple(keys)


def make(path: Path) -> None:
    """Write a new key to a new file of mode 0600.  Raises ConfigError if the file
    is there already (a key is never overwritten) or cannot be written."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        raise ConfigError(
            f"{path}: is there already and is not overwritten; the other node may use it: remove it yourself"
            " if it is not needed"
        ) from None
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be written: {error.strerror}; name a file in a directory that exists"
        ) from error
    with open(fd, "wb") as file:
        os.fchmod(fd, 0o600)  # whatever the umask left
        file.write(b"# hostd cluster key: the same file on both nodes, mode 0600\n")
        file.write(base64.b64encode(os.urandom(KEY_SIZE)) + b"\n")
        file.flush()
        os.fsync(fd)
