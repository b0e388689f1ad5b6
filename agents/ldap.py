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
import encodings.idna  # noqa: F401 - getaddrinfo would import it in each child anew, for 6 ms
import os
import pwd
import re
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

import psutil

from hostd.api import AgentError, Field, Health, Parameters, Resource, connections, hookimpl, ldap_search, servers

CONFIGS: Final = ("/etc/ldap/slapd.d", "/etc/ldap/slapd.conf", "/etc/openldap/slapd.d", "/etc/openldap/slapd.conf")
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
        found += [child for pid in found for child in _children(pid)]
        for pid in found:
            resource.signal(pid, signal.SIGTERM)
        left = _still_living(found)
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
    return Health.RUNNING


@hookimpl
def validate(resource: Resource) -> None:
    program, config = _program(resource), _config(resource)
    for url in {*resource.params["urls"], *resource.params["ask"]}:
        if urlsplit(url).scheme not in ("ldap", "ldaps", "ldapi") or len(url.split()) != 1:
            raise AgentError(f"urls: {url!r} is no ldap, ldaps or ldapi URL", cure='such as "ldap://172.23.2.14/"')
    stray = [url for url in resource.params["ask"] if url not in resource.params["urls"]]
    if stray:
        raise AgentError(f"ask: {stray[0]} is not one of urls", cure="name it in urls as well")
    user = _user(resource)
    tested = resource.run([program, "-Ttest", "-u", *_chosen(config)])
    if tested.returncode != 0:
        words = _plain(tested.stderr)
        raise AgentError(f"{config}: {words}", cure=_cure(words, config, user))
    for folder in _databases(config):
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
        raise AgentError(f"slapadd failed: {_plain(filled.stderr)}", cure=f"let {user} enter {directory}")
    socket_url = f"ldapi://{str(run / 'ldapi').replace('/', '%2F')}"
    urls = [f"ldap://127.0.0.1:{servers.free_port()}/", socket_url]
    return {"config": str(config), "urls": urls, "base": "o=sandbox"}


# -- starting it --------------------------------------------------------------------


def _launch(resource: Resource, program: str, config: str) -> int:
    (resource.run_dir / "output").unlink(missing_ok=True)
    user, group = _user(resource), resource.params["group"]
    _make_run_folders(resource.params["urls"], config, user)
    argv = [program, "-d", "none", "-h", " ".join(resource.params["urls"]), *_chosen(config)]  # none: in the foreground
    argv += [*(["-u", user] if user else []), *(["-g", group] if group else [])]
    return resource.spawn(argv)


def _make_run_folders(urls: list[str], config: str, user: str) -> None:
    """``/run/slapd`` is gone after a boot, and only the distribution's start script would make it."""
    wanted = [unquote(urlsplit(url).netloc) or "/run/slapd/ldapi" for url in urls if url.startswith("ldapi:")]
    wanted += _settings(config, "pidfile|argsfile", "olcPidFile|olcArgsFile")
    for folder in {Path(path).parent for path in wanted}:
        is_volatile = str(folder).removeprefix("/var").startswith("/run/")
        if is_volatile and not folder.exists():
            folder.mkdir(mode=0o755)
            _give(folder, user)


def _refuse_second_writer(config: str) -> None:
    """AgentError if another slapd, or a slapadd, has one of our databases open: mdb would let both write."""
    ours = {os.path.realpath(Path(folder, "data.mdb")) for folder in _databases(config)}
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
            words = _last_words(resource) or _how_it_ended(pid)
            raise AgentError(f"slapd ended: {words}", cure=_cure(words, config, _user(resource)))
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


# -- its words ----------------------------------------------------------------------

NOISE: Final = re.compile(r"@\(#\)|Maintainers|slapd st(opped|arting)|connections_destroy")
CURES: Final = (
    (r"Address already in use", "ss -lntp shows who listens there; end it, or change urls"),
    (r"Cannot assign requested address", "an address of urls is not on this node: list it before this agent"),
    (r"bind\(\d+\) failed errno=2 ", "create the folder of the ldapi socket"),
    (r"getaddrinfo", "name addresses in urls, not names"),
    (r"URL .* parse error", 'urls are such as "ldap://172.23.2.14/"'),
    (r"No (passwd|group) entry", "set user and group"),
    (r"Permission denied", "chown -R {user}: {folders}"),
    (r"invalid path: No such file", "mount or create the folder of the database for {user}: {folders}"),
    (r"MDB_|bi_db_open failed|mdb_", "the database in {folders} is damaged: move it away, load a backup by slapadd"),
    (r"line \d+|config", "slaptest -u {chosen}"),
)


def _cure(words: str, config: str, user: str) -> str:
    cure = next((cure for pattern, cure in CURES if re.search(pattern, words)), "see its log")
    return cure.format(user=user or "its user", folders=" ".join(_databases(config)), chosen=" ".join(_chosen(config)))


def _last_words(resource: Resource) -> str:
    try:
        return _plain((resource.run_dir / "output").read_text(errors="replace"))
    except OSError:
        return ""


def _plain(output: str, lines: int = 4) -> str:
    """The last lines that say something, without slapd's stamps of time and thread."""
    said = [re.sub(r"^[0-9a-f.]+ 0x[0-9a-f]+ ", "", line).strip() for line in output.splitlines()]
    return "; ".join([line for line in said if line and not NOISE.search(line)][-lines:])


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
    config = os.path.realpath(_configured(resource))

    def serves(process: servers.ServerProcess) -> bool:
        if any(word.startswith("-T") for word in process.argv):
            return False  # slapd -Tcat and its like are tools
        given = _option(process.argv, "-F") or _option(process.argv, "-f")
        return os.path.realpath(given or _first_existing()) == config

    return serves


def _option(argv: tuple[str, ...], name: str) -> str:
    """What follows ``name``, as the next word or in the same."""
    for here, word in enumerate(argv):
        if word.startswith(name):
            return word.removeprefix(name) or next(iter(argv[here + 1 :]), "")
    return ""


def _children(pid: int) -> list[int]:
    try:
        return [child.pid for child in psutil.Process(pid).children(recursive=True)]
    except psutil.Error:
        return []


def _still_living(pids: list[int]) -> Callable[[], list[int]]:
    return lambda: [pid for pid in pids if _has_a_living_thread(pid)]


def _has_a_living_thread(pid: int) -> bool:
    """A process whose first thread has ended is a zombie to most tools, and may still write."""
    try:
        return any(servers.is_alive(int(thread.name)) for thread in Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return False


# -- does it serve? -----------------------------------------------------------------


def _asked(resource: Resource) -> list[str]:
    return list(resource.params["ask"] or resource.params["urls"])


def _complaint(resource: Resource, url: str, pid: int, patience: float = 3600.0) -> str:
    """What may yet become good with its service at this URL, or ""; AgentError if waiting does not help."""
    params = resource.params
    until = time.monotonic() + max(0.05, min(patience, params["search_timeout"], resource.remaining - 0.1))
    try:
        with _connected(url, until - time.monotonic()) as connection:
            who, password = params["bind_dn"], params["password"] or ""
            found = ldap_search.look_for(connection, params["base"], who, password, until=until)
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


def _connected(url: str, patience: float) -> socket.socket:
    parts = urlsplit(url)
    if parts.scheme == "ldapi":
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(patience)
        try:
            connection.connect(unquote(parts.netloc) or "/run/slapd/ldapi")
        except OSError:
            connection.close()
            raise
        return connection
    host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(parts.hostname or "", parts.hostname)
    default = 636 if parts.scheme == "ldaps" else 389
    connection = socket.create_connection((host, parts.port or default), patience)
    if parts.scheme != "ldaps":
        return connection
    # the kernel proves who answers, which is more than a certificate could
    return ssl._create_unverified_context().wrap_socket(connection)


# -- what is installed and configured ---------------------------------------------------


def _program(resource: Resource) -> str:
    return servers.program((resource.params["program"] or "slapd",), CURE)


def _first_existing() -> str:
    return next((config for config in CONFIGS if Path(config).exists()), CONFIGS[0])


def _configured(resource: Resource) -> str:
    return str(resource.params["config"] or _first_existing())


def _config(resource: Resource) -> str:
    config = _configured(resource)
    if not Path(config).exists():
        raise AgentError(f"{config} does not exist", cure="set config to slapd.conf or the folder of cn=config")
    return config


def _chosen(config: str) -> tuple[str, str]:
    return ("-F" if Path(config).is_dir() else "-f"), config


def _databases(config: str) -> list[str]:
    """The folders of its databases."""
    return _settings(config, "directory", "olcDbDirectory")


def _settings(config: str, directives: str, attributes: str) -> list[str]:
    """The values of these directives of slapd.conf and what it includes, or of these attributes of cn=config."""
    if Path(config).is_dir():
        text = "\n".join(path.read_text(errors="replace") for path in sorted(Path(config).rglob("*.ldif")))
        return re.findall(rf"^(?:{attributes}): (\S+)$", text.replace("\n ", ""), re.MULTILINE)
    try:
        text = Path(config).read_text(errors="replace")
    except OSError:
        return []  # slapd will say it
    found = re.findall(rf"^(?:{directives})\s+\"?([^\"\s]+)", text, re.MULTILINE | re.IGNORECASE)
    for included in re.findall(r"^include\s+\"?([^\"\s]+)", text, re.MULTILINE | re.IGNORECASE):
        found += _settings(included, directives, attributes) if included != config else []
    return found


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
