"""MariaDB 10 and 11, found by its datadir; MySQL 8 by its documented options (not tested against one).

A server is ours if it was started for our datadir, with our socket and pid
file.  Two servers on one datadir destroy it, so start refuses when the kernel
knows of another: by its arguments, by its working folder (a server's is its
datadir), or by the lock on InnoDB's or Aria's file, which shows a container's
as well.  Stop ends a stranger on our datadir too, unless it lives in other
namespaces: what it answers for is that nobody here serves the data any more.

Whether it serves is asked with a query over its Unix socket, where the kernel
says which process listens before the password is sent.  A server that answers
and only has no place or no rights for our account is degraded and not failed:
a restart would take it from everybody and cure nothing.

SIGKILL costs nothing that was committed: InnoDB recovers from its log.
Sources: the MariaDB server's manual (options, start, InnoDB recovery), and
ocf:heartbeat:mysql for what operators know.
"""

import contextlib
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from hostd.api import (
    AgentError,
    Field,
    Health,
    Parameters,
    Resource,
    access,
    claims,
    hookimpl,
    servers,
)
from hostd.api.mysql import datadirs, install, sessions, words
from hostd.api.servers import ServerProcess
from hostd.api.startlog import StartLog

PROGRAMS: Final = ("mariadbd", "mysqld")
SAFES: Final = ("mysqld_safe", "mariadbd-safe")
"""Shell scripts that start a server again when it dies."""
SHELLS: Final = ("sh", "dash", "bash", "busybox")
CURE: Final = "apt-get install mariadb-server, then systemctl disable --now mariadb: hostd starts it"

SOCKET: Final = Path("/run/mysqld/mysqld.sock")
OWN: Final = ("datadir", "socket", "pid-file", "user", "defaults-file", "defaults-extra-file", "no-defaults")
"""Options that are the agent's business: by some of them a server is known as ours."""

SAY_S: Final = 1.0
"""Before the deadline a start gives up by this, to say what the server was doing."""
KILL_S: Final = 10.0
"""What stop keeps for SIGKILL: a large buffer pool is not freed at once."""


@hookimpl
def parameters() -> Parameters:
    unmounted = "; take it out again: a datadir whose filesystem is not mounted looks empty, too"
    return Parameters(
        Field("datadir", Path, help="where the data are"),
        Field("config", Path, default=None, help="the server's defaults file; default: those it reads by itself"),
        Field("program", str, default="", help="the server itself; default: mariadbd or mysqld, as installed"),
        Field("user", str, default="mysql", help="the system's user that it runs as and who owns the data"),
        Field("socket", Path, default=None, help=f"its Unix socket, of its own; default: {SOCKET}"),
        Field("port", int, default=0, help="its TCP port; 0: as configured, else 3306"),
        Field("bind_address", str, default="", help="where it listens; default: as configured"),
        Field("options", list, default=[], help="further options; never secrets, everybody can read them"),
        Field("initialize", bool, default=False, help="make a database where the datadir is empty" + unmounted),
        Field("login", str, default="root", help="the server's account that asks; below depth 20 it needs no rights"),
        Field("password", str, default=None, secret=True, help="of that account; the system's root may need none"),
        Field("login_file", Path, default=None, help="user and password instead: [client] of a defaults file"),
        Field("table", str, default="hostd.probe", help="what depth 20 writes to, made if the account may"),
        Field("query_timeout", float, default=5.0, help="seconds that an answer may take"),
        summary="MariaDB or MySQL server",
        timeouts={"start": "120s", "stop": "120s", "monitor": "30s"},
        monitor_interval="10s",
        monitor_depth=10,  # a process that answers nobody is not a database
        exclusive_storage=True,
    )


@hookimpl
def start(resource: Resource) -> None:
    program = _program(resource)
    _check_parameters(resource)
    ours, strangers = _servers(resource)
    _refuse_strangers(resource, _safes(resource, strangers) + strangers)
    if ours is not None:
        _until_ready(resource, program, ours)
        return
    datadir, user = resource.params["datadir"], resource.params["user"]
    is_to_be_made = datadirs.check(datadir, user, may_be_empty=resource.params["initialize"])
    datadirs.refuse_second(resource, datadir)
    _check_socket(resource)
    if is_to_be_made:
        resource.log.info("making a new database in %s", datadir)
        install.make(resource.run, program, datadir, user, resource.params["config"], resource.params["options"])
    (resource.run_dir / "output").unlink(missing_ok=True)
    pid = resource.spawn([program, *_arguments(resource)])
    try:
        _until_ready(resource, program, pid)
    except BaseException:  # nothing of a failed start may come up later, whatever failed
        resource.signal(pid, signal.SIGKILL)
        raise


@hookimpl
def stop(resource: Resource) -> None:
    ours, strangers = _servers(resource)
    safes = _safes(resource, strangers)
    for process in safes + strangers:
        resource.log.warning("ending %s, which was not started by hostd", claims.described(process.pid))
    for process in safes:
        resource.signal(process.pid, signal.SIGKILL)  # deaf to all else, and would start the server again
    pids = [process.pid for process in strangers] + ([ours] if ours is not None else [])
    for pid in pids:
        resource.signal(pid, signal.SIGTERM)
    had = resource.remaining
    if not servers.gone_within(resource, lambda: list(filter(servers.is_alive, pids)), had - min(KILL_S, had / 4)):
        resource.log.warning("SIGKILL after %.0f s of SIGTERM; InnoDB will recover", had - resource.remaining)
    servers.kill(resource, lambda: _everybody(resource), "the server's processes")
    # the last threads of a process that is dead to the eye may still have its files
    resource.wait(
        lambda: datadirs.holder(resource.params["datadir"]) not in pids,
        "the locks of the datadir were not released",
    )


@hookimpl
def monitor(resource: Resource) -> Health:
    ours = _remembered(resource)
    if ours is None:
        ours, strangers = _servers(resource)
        _refuse_strangers(resource, strangers)
    if ours is None:
        return Health.STOPPED
    resource.main_pid = ours
    if resource.depth < 10:
        if not claims.listens(ours, _socket(resource)):
            raise AgentError(f"server {ours} does not listen at {_socket(resource)}")
        return Health.RUNNING
    try:
        with _session(resource, ours) as session:
            if resource.depth >= 20:
                sessions.write_and_read(session, resource.params["table"], resource.node)
    except sessions.Unwelcome as refusal:
        resource.log.warning("server %d answers, but not our account: %s", ours, refusal.text)
        return Health.DEGRADED
    return Health.RUNNING


@hookimpl
def validate(resource: Resource) -> None:
    program = _program(resource)
    _check_parameters(resource)
    access.account(resource.params["user"])
    login_file = resource.params["login_file"]
    if login_file is not None and login_file.stat().st_mode & 0o077:
        raise AgentError(f"others than its owner may read {login_file}", cure=f"chmod 600 {login_file}")
    # every file and option is read, nothing is opened that a server would lock
    tested = resource.run([program, *_arguments(resource), "--help", "--verbose"])
    if tested.returncode != 0 or "[ERROR]" in tested.stderr:
        raise words.failure(f"{program} does not take its options", tested.stderr.splitlines())


@hookimpl
def main_process(resource: Resource) -> int | None:
    return _remembered(resource) or _servers(resource)[0]


@hookimpl
def sandbox(directory: Path) -> dict[str, Any]:
    """A small server without TCP (``options = ["--skip-networking=0"]`` brings it back), its database
    made, where the system's root is the account root."""
    return install.sandbox(directory, servers.program(PROGRAMS, CURE))


# -- before a start -----------------------------------------------------------------


def _program(resource: Resource) -> str:
    wanted = resource.params["program"]
    return servers.program((wanted,) if wanted else PROGRAMS, CURE)


def _check_parameters(resource: Resource) -> None:
    """Those that are wrong whatever the machine's state."""
    for option in resource.params["options"]:
        name = str(option).removeprefix("--").partition("=")[0].replace("_", "-")
        if not str(option).startswith("--") or any(own.startswith(name) for own in OWN):  # the server takes a beginning
            raise AgentError(
                f"options has {option!r}, which is not for options",
                cure='write "--name=value"; for the datadir, socket, user and defaults file there are parameters',
            )
    for name in ("config", "login_file"):
        path = resource.params[name]
        if path is not None and not path.is_file():
            raise AgentError(f"{name} = {path} is not a file", cure=f"mount its filesystem, or set {name}")
    if not re.fullmatch(r"\w+\.\w+", resource.params["table"]):
        raise AgentError(f"table = {resource.params['table']!r} is not database.table", cure='such as "hostd.probe"')
    if len(os.fsencode(_socket(resource))) > 107:
        raise AgentError(f"socket = {_socket(resource)} is longer than 107 bytes", cure="use a shorter path")


def _refuse_strangers(resource: Resource, strangers: list[ServerProcess]) -> None:
    if strangers:
        raise AgentError(
            f"{claims.described(strangers[0].pid)} serves {resource.params['datadir']} and was not started by hostd",
            cure="systemctl disable --now mariadb, so that nobody else starts it; a stop by hostd ends it",
        )


def _check_socket(resource: Resource) -> None:
    """Nobody answers there (a server takes away whatever lies at its socket's path), and its folder is fit."""
    path, user = _socket(resource), resource.params["user"]
    pid = claims.listener(path)
    if pid is not None:
        raise AgentError(f"{claims.described(pid)} answers at {path}", cure="give each server a socket of its own")
    if path.exists() and not path.is_socket():
        raise AgentError(f"{path} is not a socket", cure="set socket to a path where nothing else is")
    if not path.parent.is_dir():
        entry = access.account(user)
        try:
            path.parent.mkdir(mode=0o755)
            os.chown(path.parent, entry.pw_uid, entry.pw_gid)
        except OSError as error:
            raise AgentError(
                f"{path.parent} cannot be made: {error.strerror}", cure="make it, or set socket"
            ) from error
    if complaint := access.complaint(path.parent, user, os.W_OK | os.X_OK):
        raise AgentError(complaint, cure=f"chown {user}: {path.parent}")


def _arguments(resource: Resource) -> list[str]:
    params = resource.params
    given = [f"--defaults-file={params['config']}"] if params["config"] is not None else []
    given += [*_marks(resource), f"--user={params['user']}"]
    given += [f"--port={params['port']}"] if params["port"] else []
    given += [f"--bind-address={params['bind_address']}"] if params["bind_address"] else []
    return [*given, *map(str, params["options"])]


# -- which processes are ours -------------------------------------------------------


def _socket(resource: Resource) -> Path:
    return resource.params["socket"] or SOCKET


def _marks(resource: Resource) -> list[str]:
    """Arguments by which a server is known as ours."""
    socket = _socket(resource)
    return [f"--datadir={resource.params['datadir']}", f"--socket={socket}", f"--pid-file={socket}.pid"]


def _servers(resource: Resource) -> tuple[int | None, list[ServerProcess]]:
    """Our server, and the others in our namespaces that serve our datadir."""
    marks, program = set(_marks(resource)), resource.params["program"]
    datadir = resource.params["datadir"]
    try:
        place = datadir.stat()
    except OSError:
        place = None

    def serves(process: ServerProcess) -> bool:
        if process.option("--datadir") == str(datadir):
            return True
        with contextlib.suppress(OSError):  # it ended while we looked
            return place is not None and os.path.samestat(Path(f"/proc/{process.pid}/cwd").stat(), place)
        return False

    found = servers.find({*PROGRAMS, Path(program).name}, serves)
    ours = next((process.pid for process in found if marks <= set(process.argv)), None)
    if ours is not None:
        servers.note(resource, ours)
    return ours, [process for process in found if process.pid != ours]


def _remembered(resource: Resource) -> int | None:
    """Our server, if it is the process that it was at the last look, by what the kernel says of that."""
    marks = set(_marks(resource))
    names = {*PROGRAMS, Path(resource.params["program"]).name}
    return servers.known(resource, names, lambda process: marks <= set(process.argv))


def _safes(resource: Resource, strangers: list[ServerProcess]) -> list[ServerProcess]:
    """The scripts that look after a server on our datadir."""
    datadir, parents = str(resource.params["datadir"]), {process.parent for process in strangers}

    def looks_after(process: ServerProcess) -> bool:
        is_safe = any(Path(word).name in SAFES for word in process.argv[1:2])
        return is_safe and (process.option("--datadir") == datadir or process.pid in parents)

    return servers.find(SHELLS, looks_after)


def _everybody(resource: Resource) -> list[int]:
    ours, strangers = _servers(resource)
    pids = [process.pid for process in _safes(resource, strangers) + strangers]
    return pids + ([ours] if ours is not None else [])


# -- does it serve? -------------------------------------------------------------------


def _until_ready(resource: Resource, program: str, pid: int) -> None:
    """Wait until it answers a query; AgentError with its last words if it ends or takes too long."""
    log = StartLog(pid, f"as process {pid}\n", resource.run_dir / "output")
    give_up = min(SAY_S, resource.remaining / 4)
    complaint = "it was not asked yet"

    def is_ready() -> bool:
        nonlocal complaint
        for line in log.news():
            if words.PROGRESS.search(line):
                resource.log.info("%s", line)
            if words.LOCK_REFUSED.search(line):  # else it would try for another 30 s
                raise datadirs.taken(resource.params["datadir"])
        if not servers.is_alive(pid):
            log.news()
            raise words.failure("the server ended", _said(resource, program, log))
        if resource.remaining <= give_up:
            doing = log.lines[-1] if log.lines else "its log says nothing"
            raise AgentError(
                f"not ready within the time limit: {complaint}; last it said: {doing}",
                cure='if it was recovering, give it more: timeout = { start = "10m" }',
            )
        try:
            with _session(resource, pid, resource.remaining - give_up):
                return True
        except AgentError as error:
            complaint = error.reason
        except sessions.Unwelcome as refusal:
            if not refusal.is_full:
                raise AgentError(
                    f"the server runs, but refuses our account: {refusal.text}",
                    cure="set login with password or login_file; the account needs no rights",
                ) from refusal
            complaint = refusal.text
        return False

    resource.wait(is_ready, "the server did not become ready")


def _said(resource: Resource, program: str, log: StartLog) -> list[str]:
    """What a server that ended had said, also if it ended before its log was seen."""
    if not any("[ERROR]" in line for line in log.lines):
        options = resource.run([program, *_arguments(resource), "--help", "--verbose"]).stdout
        if configured := re.search(r"^log-error +(\S.*)$", options, re.MULTILINE):
            log.follow(resource.params["datadir"] / configured[1])
            log.news()
    return log.lines


@contextlib.contextmanager
def _session(resource: Resource, pid: int, limit: float = 1e9) -> Iterator[sessions.Session]:
    """A session of our account with this server, which says that our datadir is its own."""
    params = resource.params
    patience = max(0.05, min(params["query_timeout"], limit, resource.remaining - SAY_S / 2))
    account = sessions.Account(params["login"], params["password"] or "", params["login_file"])
    try:
        with sessions.session(_socket(resource), pid, account, patience) as session:
            _check_identity(sessions.datadir(session), params["datadir"])
            yield session
    except AgentError as error:
        # MariaDB waits for somebody to make room, and says so in its log only
        if datadirs.has_room(params["datadir"]):
            raise
        full = f"{error.reason}; no space is left in {params['datadir']}"
        raise AgentError(full, cure="free some space there") from error


def _check_identity(said: Path, datadir: Path) -> None:
    try:
        is_ours = said.samefile(datadir)
    except OSError as error:
        raise AgentError(f"{error.filename}: {error.strerror}", cure="is its filesystem still mounted?") from error
    if not is_ours:
        raise AgentError(f"the server's datadir is {said} and not {datadir}", cure="end the server that has the socket")
