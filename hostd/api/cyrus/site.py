"""Is everything there that Cyrus IMAP needs before master is started?

Cyrus tells of most that is missing only in syslog and goes on without it, so
decides beforehand: each question raises AgentError with what is missing and
what cures it, or returns.  Knows no processes but the owner of a taken port.
"""

import contextlib
import errno
import os
import shutil
import socket
from pathlib import Path
from typing import Any, Final

import psutil

from hostd.api import access, servers
from hostd.api.cyrus import conf
from hostd.api.cyrus.conf import Entry
from hostd.api.errors import AgentError
from hostd.api.resource import Resource

VOLATILE: Final = (Path("/run"), Path("/var/run"))
"""What is below is emptied at boot, holds no data, and may be made anew."""
BACKENDS: Final = ("twoskip", "skiplist")
MAGIC: Final = b"\xa1\x02\x8b\x0d"
"""With which the files of these database backends begin."""
SOCKET_PATH_MAX: Final = 107
"""Bytes, of ``sun_path``; master disables a service with a longer one."""
MODULES: Final = ("usr/lib/*/sasl2", "usr/lib64/sasl2", "usr/lib/sasl2")
SASLAUTHD: Final = "/run/saslauthd"


class Site:
    """One imapd.conf and cyrus.conf, and what they need on this machine.

    ``programs``: the folder of Cyrus' own programs.  AgentError if a file
    cannot be read.
    """

    def __init__(self, resource: Resource, config: Path, services: Path, programs: Path) -> None:
        self._resource, self._config, self._services, self._programs = resource, config, services, programs
        self.conf = conf.settings(config)
        self.entries = conf.entries(services)
        self.directory = Path(self.conf.get("configdirectory", "/nonexistent"))
        self._user = self.conf["cyrus_user"]

    def check_configuration(self) -> None:
        """What must be true on every node, with the data or without."""
        access.account(self._user)  # first: Cyrus has no words for it
        self._check_syntax()
        for entry in self.entries:
            self._check_command(entry, f"{self._services}: {entry.name} in {entry.section}")
        if "servername" not in self.conf:
            self._resource.log.warning("%s: without servername, names and realms change with the node", self._config)
        self._check_sasl()
        self.check_storage(must_exist=False)

    def check_storage(self, *, must_exist: bool) -> None:
        """Directories and databases are the user's, and not full; without
        ``must_exist`` only what is there is looked at."""
        names = ["configdirectory", *(key for key in self.conf if key.startswith(("partition-", "metapartition-")))]
        for name in names:
            path = Path(self.conf.get(name) or "/nonexistent")
            if path.is_dir():
                self._check_directory(name, path)
            elif must_exist:
                raise AgentError(
                    f"{name} {path} does not exist",
                    cure=f"is its filesystem mounted here? else make it, owned by {self._user}",
                )

    def check_mailboxes(self, *, may_begin: bool) -> None:
        """The list of mailboxes is there, and where it has any, so is the partition that they are on."""
        listed = Path(self.conf["mboxlist_db_path"])
        if not listed.exists() and may_begin:
            self._resource.log.warning("%s does not exist: beginning anew, as asked", listed)
            return
        if not listed.exists() or listed.stat().st_size == 0:
            copy = self.directory / "db.backup1" / listed.name
            raise AgentError(
                f"{listed} {'is empty' if listed.exists() else 'does not exist'}: "
                "to begin anew would hide all mail from its owners",
                cure="is the right filesystem mounted? "
                + (f"a copy is {copy}" if copy.exists() else "start a new server once with initialize = true"),
            )
        for kind, file in (("mboxlist", listed), ("annotation", self.directory / "annotations.db")):
            if self.conf.get(f"{kind}_db", "twoskip") in BACKENDS and _is_damaged(file):
                raise AgentError(
                    f"{file} is damaged", cure=f"a copy may be {self.directory / 'db.backup1' / file.name}"
                )
        for name, path in self.conf.items():
            if name.startswith("partition-") and not any(Path(path).iterdir()):
                argv = [str(self._programs / "ctl_mboxlist"), "-C", str(self._config), "-d", "-p"]
                if self._resource.run([*argv, name.removeprefix("partition-")]).stdout.strip("{} \n"):
                    raise AgentError(
                        f"{name} {path} is empty, though {listed} has mailboxes there",
                        cure="is its filesystem mounted here?",
                    )

    def make_run_directories(self) -> None:
        """Where sockets and process notes go: what a boot has emptied is made again, the rest must be there."""
        sockets = [self.conf.get(f"{name}socket", "") for name in ("lmtp", "idle", "notify")]
        sockets += [entry.socket for entry in self.entries]
        wanted = {Path(self.conf["proc_path"]), Path(self.conf["mboxname_lockpath"])}
        account = access.account(self._user)
        for path in sorted(wanted | {Path(one).parent for one in sockets if one}):
            if path.exists() or path.is_relative_to(self.directory):
                continue  # Cyrus makes what it wants in its own directory
            if not any(path.is_relative_to(folder) for folder in VOLATILE):
                raise AgentError(f"{path} does not exist", cure=f"mkdir {path}; chown {self._user}: {path}")
            for folder in (*reversed(path.parents), path):
                if not folder.exists():
                    folder.mkdir(mode=0o755)
                    os.chown(folder, account.pw_uid, account.pw_gid)

    def check_ports(self) -> None:
        """Nobody else has them, and the addresses are here.  master would go on without the service."""
        for entry in self.entries:
            if entry.inet is None:
                continue
            host, port = entry.inet
            where = f"{self._services}: {entry.name} is to listen at {entry.options['listen']}"
            if port == 0:
                raise AgentError(f"{where}, which is no port", cure="a number, or a name of /etc/services")
            try:
                found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            except socket.gaierror as error:
                raise AgentError(f"{where}, which is nowhere: {error.strerror}", cure="name an address") from error
            codes = [_bind(socket.AddressFamily(family), address) for family, _, _, _, address in found]
            if errno.EADDRINUSE in codes:
                raise AgentError(f"{where}, but {_who_has(port)} is there already", cure="end it, or move it")
            if all(codes):  # of two families one may be absent
                raise AgentError(
                    f"{where}: {os.strerror(codes[0])}",
                    cure="give the service that address before the agent",
                )

    def _check_syntax(self) -> None:
        """Cyrus itself reads both files."""
        argv = [str(self._programs / "cyr_info"), "-C", str(self._config), "-M", str(self._services), "conf-lint"]
        checked = self._resource.run(argv)
        if checked.returncode != 0:
            said = checked.stderr.strip().removeprefix("fatal error: ")
            raise AgentError(f"Cyrus refuses its configuration: {said}", cure="mend that line")
        for line in checked.stdout.splitlines():
            self._resource.log.warning("%s: Cyrus does not know %s", self._config, line.strip())

    def _check_command(self, entry: Entry, where: str) -> None:
        """It is installed and works on this configdirectory: master hands its ``-C`` on to nothing that it runs."""
        if not entry.command:
            raise AgentError(f"{where} has no cmd", cure=f'{entry.name} cmd="…"')
        program = self._programs / entry.command[0]  # an absolute path stays as it is
        if not program.exists() and shutil.which(entry.command[0], path=servers.SBIN) is None:
            raise AgentError(f"{where}: {entry.command[0]} is not installed", cure="install it, or take the line out")
        is_cyrus = program.parent == self._programs or program.name == "cyrus"  # Debian's wrapper of the tools
        if is_cyrus and entry.config.resolve() != self._config.resolve():
            theirs = _directory_of(entry.config)
            if theirs != str(self.directory):
                raise AgentError(
                    f"{where} reads {entry.config}, with {theirs or 'no'} configdirectory instead of {self.directory}",
                    cure=f"put -C {self._config} into its cmd",
                )
        if len(entry.socket.encode()) > SOCKET_PATH_MAX:
            raise AgentError(f"{where}: the path {entry.socket} is too long for a socket", cure="choose a shorter one")

    def _check_sasl(self) -> None:
        """Passwords can be checked at all."""
        methods = self.conf["sasl_pwcheck_method"].split()
        if methods == ["saslauthd"]:
            mux = Path(self.conf.get("sasl_saslauthd_path", SASLAUTHD))
            mux = mux if mux.name == "mux" else mux / "mux"
            try:
                with socket.socket(socket.AF_UNIX) as probe:
                    probe.settimeout(min(2.0, self._resource.remaining))
                    probe.connect(str(mux))
            except OSError as error:
                raise AgentError(
                    f"sasl_pwcheck_method is saslauthd, which does not answer at {mux}: {error.strerror or error}",
                    cure="install sasl2-bin, say START=yes in /etc/default/saslauthd, start it, on both nodes",
                ) from error
        if "auxprop" in methods and self.conf.get("sasl_auxprop_plugin") == "sasldb":
            users = Path(self.conf.get("sasl_sasldb_path", "/etc/sasldb2"))
            if not any(list(Path("/").glob(f"{folder}/libsasldb.so*")) for folder in MODULES):
                raise AgentError("SASL's module sasldb is not installed", cure="apt-get install libsasl2-modules-db")
            if not users.exists():
                if users.parent.exists():
                    raise AgentError(
                        f"{users} does not exist: nobody could log in", cure="saslpasswd2 -c USER makes it"
                    )
            elif complaint := access.complaint(users, self._user, os.R_OK):
                raise AgentError(f"sasldb: {complaint}", cure=f"chgrp sasl {users}; adduser {self._user} sasl")

    def _check_directory(self, name: str, path: Path) -> None:
        databases = sorted(path.glob("*.db")) if name == "configdirectory" else []
        wanted = [(path, os.R_OK | os.W_OK | os.X_OK), *((one, os.R_OK | os.W_OK) for one in databases)]
        for one, mode in wanted:
            if complaint := access.complaint(one, self._user, mode):
                raise AgentError(f"{name}: {complaint}", cure=f"chown {self._user}: {one}, or mount it writable")
        if os.statvfs(path).f_bavail == 0:
            raise AgentError(f"{name} {path}: no space left on its filesystem", cure="make room there")


def _is_damaged(database: Path) -> bool:
    """Not a database at all, as after a crash of the disk; imapd would end without a word, or serve nobody."""
    try:
        with database.open("rb") as file:
            return file.read(len(MAGIC)) not in (MAGIC, b"")
    except FileNotFoundError:
        return False


def _bind(family: socket.AddressFamily, address: Any) -> int:
    """Try as master will; the error number, or 0."""
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind(address)
            probe.listen()
    except OSError as error:
        return error.errno or errno.EINVAL
    return 0


def _who_has(port: int) -> str:
    for connection in psutil.net_connections("tcp"):
        is_there = connection.status == psutil.CONN_LISTEN and getattr(connection.laddr, "port", 0) == port
        if is_there and connection.pid:
            with contextlib.suppress(psutil.Error):
                return f"{psutil.Process(connection.pid).name()} ({connection.pid})"
    return "somebody"


def _directory_of(config: Path) -> str:
    try:
        return conf.settings(config).get("configdirectory", "")
    except AgentError:
        return ""
