"""Makes the database of a new MariaDB or MySQL server, for use or for a sandbox.

Decides how each of the two is told to, and that what was cut off is known
for it.  Whether a datadir may be initialised is decided elsewhere: this must
be called for an empty one only.
"""

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from hostd.api import access, servers
from hostd.api.command import Completed, run_command
from hostd.api.errors import AgentError
from hostd.api.mysql import words

UNFINISHED: Final = ".hostd-initializing"
"""Lies in a datadir while it is initialised: until it is gone, the rest is of no use."""

_INSTALLERS: Final = ("mariadb-install-db", "mysql_install_db")
_MEMORY: Final = Path("/dev/shm")
"""Where a sandbox is made: on a disk, the installer waits some eight hundred times for it."""
_SANDBOX_MAX_S: Final = 60.0  # it takes one second

_SMALL: Final = (
    "skip-networking", "skip-log-bin", "loose-innodb-undo-tablespaces=0", "performance-schema=0",
    "innodb-buffer-pool-size=8M", "innodb-log-file-size=4M", "innodb-data-file-path=ibdata1:5M:autoextend",
    "innodb-autoextend-increment=1", "loose-innodb-temp-data-file-path=ibtmp1:2M:autoextend", "max-connections=50",
)  # fmt: skip
"""Settings of a sandbox: a datadir of 15 MB and a start within a second."""


def make(
    run: Callable[[Sequence[str]], Completed],
    program: str,
    datadir: Path,
    user: str,
    config: Path | None,
    options: Sequence[str] = (),
) -> None:
    """Initialise this empty datadir for the server ``program``; ``run`` runs a command to its end.

    The account root may then log in without a password: with MariaDB from the
    system's account root alone, with MySQL from any account of this machine.
    AgentError if it fails; then, and if it is cut off, UNFINISHED stays there.
    """
    given = [f"--defaults-file={config}"] if config is not None else []
    given += [f"--datadir={datadir}", f"--user={user}", *map(str, options)]
    if "MariaDB" in run([program, "--version"]).stdout:
        argv = [servers.program(_INSTALLERS, "apt-get install mariadb-server"), *given, "--skip-test-db"]
    else:
        argv = [program, *given, "--initialize-insecure"]  # not tried: there was no MySQL to try it with
    (datadir / UNFINISHED).touch()
    made = run(argv)
    if made.returncode != 0:
        raise words.failure(f"{datadir} could not be initialised", (made.stdout + made.stderr).splitlines())
    (datadir / UNFINISHED).unlink()


def sandbox(directory: Path, program: str) -> dict[str, Any]:
    """A small server's configuration, sockets' folder and datadir below ``directory``: the agent's parameters."""
    users = [user for user in ("mysql", "nobody") if access.exists(user)]  # mysql comes with Debian's full package
    owner = access.account(users[0] if users else "mysql")
    datadir, sockets, config = directory / "data", directory / "run", directory / "my.cnf"
    for folder in (datadir, sockets):
        folder.mkdir(parents=True)
        os.chown(folder, owner.pw_uid, owner.pw_gid)
        if complaint := access.complaint(folder, owner.pw_name, os.W_OK | os.X_OK):
            raise AgentError(complaint, cure="let everybody pass the folders above a sandbox: mode 0711")
    config.write_text("\n".join(("[mysqld]", *_SMALL)) + "\n")

    def run(argv: Sequence[str]) -> Completed:
        return run_command(argv, _SANDBOX_MAX_S, None, None)

    with tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else directory) as quick:
        made = Path(quick, "data")
        made.mkdir()
        for folder in (Path(quick), made):
            os.chown(folder, owner.pw_uid, owner.pw_gid)
        make(run, program, made, owner.pw_name, config)
        run(["cp", "-a", f"{made}/.", str(datadir)])
    return {"datadir": datadir, "config": config, "socket": sockets / "s", "user": owner.pw_name}
