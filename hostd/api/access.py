"""May this user use this path?  If not, where does it end, and whose is it?

Decides by asking the kernel as that user, so that access lists, read-only
mounts and a root-squashing NFS server count as well.  Knows no service.
"""

import contextlib
import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path

from hostd.api.errors import AgentError


def account(user: str) -> pwd.struct_passwd:
    """The system's entry of this user.  AgentError if there is none."""
    try:
        return pwd.getpwnam(user)
    except KeyError:
        raise AgentError(
            f"there is no user {user!r} on this machine", cure=f"useradd --system {user}, or set user"
        ) from None


def exists(user: str) -> bool:
    """Is there such a user on this machine?"""
    return user in (entry.pw_name for entry in pwd.getpwall())


def complaint(path: Path, user: str, mode: int) -> str:
    """Why ``user`` may not use ``path`` in this way (``os.R_OK``, ``os.W_OK``, ``os.X_OK``), or "" if he may.

    Every folder above must let him pass, too.  The path must exist.
    """
    if mode & os.W_OK and os.statvfs(path).f_flag & os.ST_RDONLY:
        return f"{path} is on a filesystem that is mounted read-only"
    with _as_user(user):
        for folder in reversed(path.absolute().parents):
            if not os.access(folder, os.X_OK, effective_ids=True):
                return f"user {user} may not enter {folder} ({_ownership(folder)})"
        if not os.access(path, mode, effective_ids=True):
            wanted = "write to" if mode & os.W_OK else "read" if mode & os.R_OK else "enter"
            return f"user {user} may not {wanted} {path} ({_ownership(path)})"
    return ""


def _ownership(path: Path) -> str:
    try:
        found = path.stat()
    except OSError as error:
        return str(error.strerror)
    try:
        owner = pwd.getpwuid(found.st_uid).pw_name
    except KeyError:
        owner = f"uid {found.st_uid}, nobody's on this machine"
    return f"owner {owner}, mode {stat.S_IMODE(found.st_mode):04o}"


@contextlib.contextmanager
def _as_user(user: str) -> Iterator[None]:
    """Look with the user's eyes.  Only for one thread: all of a process change their identity.
    Without root's rights we look with our own."""
    entry = account(user)
    if os.geteuid() != 0:
        yield
        return
    before, own_group = os.getgroups(), os.getegid()
    try:
        os.setgroups(os.getgrouplist(user, entry.pw_gid))
        os.setegid(entry.pw_gid)
        os.seteuid(entry.pw_uid)
        yield
    finally:
        os.seteuid(0)
        os.setegid(own_group)
        os.setgroups(before)
