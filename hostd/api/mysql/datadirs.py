"""Is this datadir fit for a start of MariaDB or MySQL, and is nobody else on it?

Decides by what lies there, by what the server's user may do there, and by
the locks on the files that a running server holds locked: on this machine,
containers included, and on other nodes where the filesystem passes locks on.
Changes nothing.  Knows no processes but those that have a lock.
"""

import contextlib
import os
from pathlib import Path
from typing import Final

from hostd.api import access, claims
from hostd.api.errors import AgentError
from hostd.api.mysql.install import UNFINISHED
from hostd.api.resource import Resource

_LOCKED: Final = ("ibdata1", "aria_log_control")
"""InnoDB's file, and Aria's, which MariaDB alone has."""


def check(datadir: Path, user: str, *, may_be_empty: bool) -> bool:
    """Whether it is empty and to be initialised; AgentError if no server of this user can run on it."""
    entry = access.account(user)
    if not datadir.is_dir():
        raise AgentError(
            f"{datadir} does not exist", cure="mount its filesystem first (requires, or a resource before), or mkdir it"
        )
    names = sorted({path.name for path in datadir.iterdir()} - {"lost+found"})
    if UNFINISHED in names:
        raise AgentError(
            f"the initialisation of {datadir} was cut off", cure="it holds no data yet: empty it, and start again"
        )
    if not names and not may_be_empty:
        raise AgentError(
            f"{datadir} is empty", cure="is its filesystem mounted? For a new database set initialize = true, once"
        )
    if names and "mysql" not in names:
        raise AgentError(
            f"{datadir} is not a datadir: it has {', '.join(names[:3])} and no folder mysql", cure="set datadir"
        )
    for path in (datadir, *(datadir / name for name in _LOCKED)):
        mode = os.R_OK | os.W_OK | (os.X_OK if path == datadir else 0)
        if path.exists() and (complaint := access.complaint(path, user, mode)):
            raise AgentError(
                complaint, cure=f"chown -R {user}: {datadir}; on both nodes {user} must be uid {entry.pw_uid}"
            )
    return not names


def holder(datadir: Path) -> int | None:
    """Who has a lock on it, as ``claims.lock_holder`` says it; None: nobody that this kernel knows of."""
    for name in _LOCKED:
        with contextlib.suppress(OSError):  # a file that cannot be opened is told of by check
            if (found := claims.lock_holder(datadir / name)) is not None:
                return found
    return None


def has_room(datadir: Path) -> bool:
    """Is there any space left for others than root?  True also if that cannot be known."""
    try:
        return os.statvfs(datadir).f_bavail > 0
    except OSError:
        return True


def refuse_second(resource: Resource, datadir: Path) -> None:
    """AgentError if somebody has it locked.

    A lock may outlive its owner a little, and a takeover must not fail for
    that: a dying server's until its memory is freed, a dead node's until the
    cluster filesystem has recovered or the NFS server's lease is over.  So
    half of the time that is left is spent on waiting for these.
    """
    give_up = resource.remaining / 2

    def is_decided() -> bool:
        found = holder(datadir)
        if found is None or resource.remaining <= give_up:
            return True
        return found > 0 and Path(f"/proc/{found}/exe").exists()

    if not is_decided():
        resource.log.info("waiting for the lock on %s of %s", datadir, claims.described(holder(datadir) or 0))
        resource.wait(is_decided, f"the lock on {datadir} was not released", pause=0.1)
    if holder(datadir) is not None:
        raise taken(datadir)


def taken(datadir: Path) -> AgentError:
    """The error that somebody else has it."""
    found = holder(datadir)
    who = "another server" if found is None else claims.described(found)
    return AgentError(
        f"{who} has {datadir} locked: two servers would destroy it",
        cure="end that server" + (f": kill {found}" if found is not None and found > 0 else ""),
    )
