"""OpenLDAP slapd, with slapd.conf or cn=config, found by its program and configuration.

A pid file says nothing here: on shared storage it may be the other node's.
slapd itself guards too little: it lets a second server open the same mdb
database, starts when one of an URL's two address families is taken, and makes
an empty database where the file is empty.  So start refuses a database that
another process has open, and then asks for the configured ``base`` at every
URL and has the kernel prove that the answering process is this one.

The question is a search written by hand (RFC 4511, a few bytes of BER):
``ldapsearch`` costs fifty times as much and hangs for ever at a stopped slapd.
"""

import contextlib
import functools
import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import psutil

from hostd.api import AgentError, Field, Health, Parameters, Resource, connections, hookimpl, servers
from hostd.api.ldap import configuration, processes, search, urls, words

USERS: Final = ("openldap", "ldap")  # Debian's, Red Hat's
WRITERS: Final = ("slapd", "slapadd", "slapindex", "slapmodify")  # the other tools only read
CURE: Final = "apt-get install slapd, or set program"
PATIENCE_MIN: Final = 0.25  # seconds that the first question of a start waits for its answer
KILL_RESERVE: Final = 3.0  # seconds before the deadline at which patience with a SIGTERM ends


@hookimpl
def parameters() -> Parameters:
    return Parameters(
        Field("config", Path, default=None, help="slapd.conf, or the folder of cn=config; default: the distribution's"),
        Field("program", str, default="", help="slapd itself; default: as installed"),
        Field("urls", list, default=["ldap:///", "ldapi:///"], help="where it listens: ldap, ldaps and ldapi URLs"),
        Field("ask", list, default=[], help="of these, what start and deep monitors ask; default: all"),
        Field("user", str, default="", help="who it runs as; default: openldap or ldap, whichever exists"),
        Field("group", str, default="", help="its group; default: that user's"),
        Field("base", str, default="", help="the entry that must be found; default: the root DSE, which is no data"),
        Field("bind_dn", str, default="", help="who looks for it; default: nobody, an anonymous search"),
        Field("password", str, default=None, secret=True, help="of bind_dn"),
        Field("search_timeout", float, default=5.0, help="seconds that one answer may take"),
        summary="OpenLDAP slapd",
        timeouts={"start": "60s", "stop": "60s", "monitor": "20s"},
        monitor_interval="10s",
        monitor_depth=10,  # a process that answers nobody is no directory
        exclusive_storage=True,
    )


@hookimpl
def start(resource: Resource) -> None:
    program, config = _program(resource), _config(resource)
    with resource.alone():  # the one that loses would take the winner's ldapi socket away
        found = _servers(resource)
        if not found:
            _refuse_second_writer(config)
            found = [_launch(resource, program, config)]
        _until_ready(resource, found[0], config)


@hookimpl
def stop(resource: Resource) -> None:
    """SIGTERM lets operations under way end and mdb close; SIGKILL, late, costs it nothing that was committed."""
    while found := _servers(resource):
        found += [child for pid in found for child in processes.children(pid)]
        for pid in found:
            resource.signal(pid, signal.SIGTERM)
        left = processes.still_living(found)
        if not servers.gone_within(resource, left, resource.remaining - min(KILL_RESERVE, resource.remaining / 2)):
            resource.log.warning("slapd (%s) does not end; killing it", ", ".join(map(str, left())))
            servers.kill(resource, left, "slapd")


@hookimpl
def monitor(resource: Resource) -> Health:
    # A second one on the same configuration is looked for where it costs little, beside a search.
    found = _server(resource) if resource.depth == 0 else _servers(resource)
    if not found:
        return Health.STOPPED
    if len(found) > 1:
        raise AgentError(f"{len(found)} slapd run with one configuration: {', '.join(map(str, found))}", cure="stop it")
    if resource.depth >= 10:
        for url in _asked(resource):
            complaint = _complaint(resource, url, found[0])
            if complaint:
                raise AgentError(f"slapd {complaint}")
    resource.main_pid = found[0]
    return Health.RUNNING


@hookimpl
def validate(resource: Resource) -> None:
    program, config = _program(resource), _config(resource)
    for url in {*resource.params["urls"], *resource.params["ask"]}:
        if not urls.is_one(url):
            raise AgentError(f"urls: {url!r} is no ldap, ldaps or ldapi URL", cure='such as "ldap://172.23.2.14/"')
    stray = [url for url in resource.params["ask"] if url not in resource.params["urls"]]
    if stray:
        raise AgentError(f"ask: {stray[0]} is not one of urls", cure="name it in urls as well")
    user = _user(resource)
    tested = resource.run([program, "-Ttest", "-u", *configuration.chosen(config)])
    if tested.returncode != 0:
        said = words.plain(tested.stderr)
        raise AgentError(f"{config}: {said}", cure=words.cure(said, config, user))
    for folder in configuration.databases(config):
        for path in (Path(folder), Path(folder, "data.mdb")):
            if user and path.exists() and path.owner() != user:
                raise AgentError(f"{path} belongs to {path.owner()}, not to {user}", cure=f"chown -R {user}: {folder}")


@hookimpl
def main_process(resource: Resource) -> int | None:
    return next(iter(_server(resource)), None)


@hookimpl
def sandbox(directory: Path) -> dict[str, object]:
    """A directory of one entry, on the loopback and a socket of its own."""
    program = servers.program(("slapd",), CURE)
    schema = next((s for s in ("/etc/ldap/schema", "/etc/openldap/schema") if Path(s, "core.schema").exists()), None)
    if schema is None:
        raise AgentError("OpenLDAP's core.schema is not installed here", cure=CURE)
    module = next((m for m in ("/usr/lib/ldap", "/usr/lib64/openldap") if list(Path(m).glob("back_mdb*"))), None)
    database, run, config = directory / "db", directory / "run", directory / "slapd.conf"
    lines = [
        f"include {schema}/core.schema",
        *([f"modulepath {module}", "moduleload back_mdb"] if module else []),  # else it is linked in
        f"pidfile {run}/slapd.pid",
        f"argsfile {run}/slapd.args",
        "database mdb",
        "maxsize 10485760",
        'suffix "o=sandbox"',
        f"directory {database}",
    ]
    config.write_text("\n".join(lines) + "\n")
    entry = directory / "entry.ldif"
    entry.write_text("dn: o=sandbox\nobjectClass: organization\no: sandbox\n")
    user = _default_user()
    for folder in (database, run):
        folder.mkdir()
        _give(folder, user)
    argv = [program, "-Tadd", "-q", "-f", str(config), "-l", str(entry)]
    filled = subprocess.run(argv, user=user or None, capture_output=True, text=True, timeout=60, check=False)
    if filled.returncode != 0:
        raise AgentError(f"slapadd failed: {words.plain(filled.stderr)}", cure=f"let {user} enter {directory}")
    socket_url = f"ldapi://{str(run / 'ldapi').replace('/', '%2F')}"
    listens_at = [f"ldap://127.0.0.1:{servers.free_port()}/", socket_url]
    return {"config": str(config), "urls": listens_at, "base": "o=sandbox"}


# -- starting it --------------------------------------------------------------------


def _launch(resource: Resource, program: str, config: str) -> int:
    (resource.run_dir / "output").unlink(missing_ok=True)
    user, group = _user(resource), resource.params["group"]
    _make_run_folders(resource.params["urls"], config, user)
    argv = [program, "-d", "none"]  # none: in the foreground
    argv += ["-h", " ".join(resource.params["urls"]), *configuration.chosen(config)]
    argv += [*(["-u", user] if user else []), *(["-g", group] if group else [])]
    return resource.spawn(argv)


def _make_run_folders(listens_at: list[str], config: str, user: str) -> None:
    """``/run/slapd`` is gone after a boot, and only the distribution's start script would make it."""
    wanted = [path for url in listens_at if (path := urls.socket_of(url))]
    wanted += configuration.run_files(config)
    for folder in {Path(path).parent for path in wanted}:
        is_volatile = str(folder).removeprefix("/var").startswith("/run/")
        if is_volatile and not folder.exists():
            folder.mkdir(mode=0o755)
            _give(folder, user)


def _refuse_second_writer(config: str) -> None:
    """AgentError if another slapd, or a slapadd, has one of our databases open: mdb would let both write."""
    ours = {os.path.realpath(Path(folder, "data.mdb")) for folder in configuration.databases(config)}
    for writer in servers.find(WRITERS, lambda _: True):
        try:
            held = ours & {file.path for file in psutil.Process(writer.pid).open_files()}
        except psutil.Error:
            continue  # it has just ended
        if held:
            raise AgentError(
                f"{min(held)} is open in process {writer.pid}: {' '.join(writer.argv)}",
                cure="let it end, or stop it; one database belongs to one server",
            )


def _until_ready(resource: Resource, pid: int, config: str) -> None:
    """Wait until it answers at every URL; AgentError with its last words if it ends instead."""
    said, asked, patience = "", _asked(resource), PATIENCE_MIN

    def is_ready() -> bool:
        nonlocal said, patience
        complaint = ""
        while asked and not (complaint := _complaint(resource, asked[0], pid, patience)):
            asked.pop(0)
        patience *= 2  # who answers slowly is waited for; a mute stranger must not hide that slapd has ended
        if complaint and not servers.is_alive(pid):
            last = _last_words(resource) or _how_it_ended(pid)
            raise AgentError(f"slapd ended: {last}", cure=words.cure(last, config, _user(resource)))
        if complaint not in ("", said):
            resource.log.info("slapd %s", complaint)  # so that the evidence of a hang shows it
            said = complaint
        return not asked

    resource.wait(is_ready, "slapd did not become ready")


def _how_it_ended(pid: int) -> str:
    """Of a child that said nothing: the signal, if it crashed."""
    try:
        code = os.waitstatus_to_exitcode(os.waitpid(pid, os.WNOHANG)[1])
    except ChildProcessError:
        return "it said nothing"
    return f"killed by {signal.Signals(-code).name}" if code < 0 else "it said nothing"


def _last_words(resource: Resource) -> str:
    try:
        return words.plain((resource.run_dir / "output").read_text(errors="replace"))
    except OSError:
        return ""


# -- which processes are ours -------------------------------------------------------


def _servers(resource: Resource) -> list[int]:
    """Every slapd with our program and our configuration."""
    found = [process.pid for process in servers.find(_names(resource), _mine(resource))]
    if len(found) == 1:
        servers.note(resource, found[0])
    return found


def _server(resource: Resource) -> list[int]:
    """The same, and nobody else looked for if the one of last time is there."""
    known = servers.known(resource, _names(resource), _mine(resource))
    return [known] if known else _servers(resource)


def _names(resource: Resource) -> tuple[str, ...]:
    wanted = resource.params["program"]
    return (Path(wanted).name if wanted else "slapd",)


def _mine(resource: Resource) -> Callable[[servers.ServerProcess], bool]:
    return functools.partial(processes.serves, config=_configured(resource))


# -- does it serve? -----------------------------------------------------------------


def _asked(resource: Resource) -> list[str]:
    return list(resource.params["ask"] or resource.params["urls"])


def _complaint(resource: Resource, url: str, pid: int, patience: float = 3600.0) -> str:
    """What may yet become good with its service at this URL, or ""; AgentError if waiting does not help."""
    params = resource.params
    until = time.monotonic() + max(0.05, min(patience, params["search_timeout"], resource.remaining - 0.1))
    try:
        with urls.connected(url, until - time.monotonic()) as connection:
            who, password = params["bind_dn"], params["password"] or ""
            found = search.look_for(connection, params["base"], who, password, until=until)
            is_ours = connections.answers(connection, pid)
    except (OSError, EOFError) as error:
        return f"does not answer {url}: {getattr(error, 'strerror', '') or error or type(error).__name__}"
    if not is_ours and connections.listens(pid):
        raise AgentError(f"another process answers {url}", cure="ss -lntp shows which; end it, or change urls")
    if not is_ours:
        return f"is not what answers {url}"
    if found.is_temporary:
        return f"answers {url} with {found}"
    if not found.entries:
        base = params["base"] or "the root DSE"
        raise AgentError(
            f"slapd answers {who or 'anonymous'}, who searched for {base} at {url}, with {found}",
            cure="is it the right database? else set base, bind_dn and password to what may be read",
        )
    return ""


# -- what is installed and configured ---------------------------------------------------


def _program(resource: Resource) -> str:
    return servers.program((resource.params["program"] or "slapd",), CURE)


def _configured(resource: Resource) -> str:
    return str(resource.params["config"] or configuration.usual())


def _config(resource: Resource) -> str:
    config = _configured(resource)
    if not Path(config).exists():
        raise AgentError(f"{config} does not exist", cure="set config to slapd.conf or the folder of cn=config")
    return config


def _user(resource: Resource) -> str:
    """Who it is to run as; "" where we cannot choose."""
    return str(resource.params["user"] or _default_user()) if os.geteuid() == 0 else ""


def _default_user() -> str:
    for user in USERS if os.geteuid() == 0 else ():
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(user).pw_name
    return ""


def _give(folder: Path, user: str) -> None:
    if user:
        shutil.chown(folder, user, pwd.getpwnam(user).pw_gid)
