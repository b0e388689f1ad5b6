"""Apache httpd 2.4, found by what the kernel says of it and not by a pid file.

A server is ours if its program and its ``-f`` configuration are; its parent
is the one of these that leads its session.  So neither a stale pid file (on
shared storage it may come from the other node) nor an orphaned worker, which
goes on answering and holds the port when the parent was killed, is taken for
a running server.

httpd reads and checks its whole configuration before it binds or forks, so
start leaves that to it; ``validate`` asks for the check alone.
"""

import functools
import re
import signal
import socket
import ssl
import time
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import psutil

from hostd.api import AgentError, Field, Health, Parameters, Resource, connections, hookimpl, http_get, servers

PROGRAMS = ("apache2", "httpd")
CONFIGS = ("/etc/apache2/apache2.conf", "/etc/httpd/conf/httpd.conf")
CURE = "apt-get install apache2, or set program"
BODY_MAX = 100_000  # bytes of an answer that are searched for the pattern
SPECIAL = frozenset(r"\.^$*+?{}[]|()")  # what means more than itself in a regular expression


@hookimpl
def parameters() -> Parameters:
    return Parameters(
        Field("config", Path, default=None, help="httpd's configuration; default: the distribution's"),
        Field("program", str, default="", help="httpd itself; default: apache2 or httpd, as installed"),
        Field("url", str, default="", help="what a start and a deep monitor ask for, by IP address"),
        Field("status", int, default=0, help="the status expected; 0: any from 200 to 399"),
        Field("pattern", str, default="", help="a regular expression that the answer must contain"),
        Field("request_timeout", float, default=5.0, help="seconds that the answer may take"),
        Field("graceful", float, default=0.0, help="seconds that requests under way get when it is stopped"),
        summary="Apache httpd 2.4",
        timeouts={"start": "40s", "stop": "60s", "monitor": "20s"},
        monitor_interval="10s",
        monitor_depth=10,  # a process that answers nobody is not a web server
    )


class Server(NamedTuple):
    """All processes of the server at the time of the look."""

    parent: int | None
    workers: list[int]

    @property
    def pids(self) -> list[int]:
        return ([self.parent] if self.parent else []) + self.workers


@hookimpl
def start(resource: Resource) -> None:
    program, config = _program(resource), _config(resource)
    server = _server(resource)
    if server.parent is not None:
        _until_ready(resource, server.parent)
        return
    if server.workers:
        resource.log.warning("killing %d workers of a parent that is gone", len(server.workers))
        servers.kill(resource, lambda: _server(resource).pids, "httpd's processes")
    try:
        _until_ready(resource, _launch(resource, program, config))
    except AgentError as error:
        if "already running" not in error.reason:
            raise
        _remove_stale_pid_file(resource, program, config)
        _until_ready(resource, _launch(resource, program, config))


@hookimpl
def stop(resource: Resource) -> None:
    server = _server(resource)
    graceful = min(resource.params["graceful"], resource.remaining / 2)
    if server.parent and graceful > 0:
        resource.signal(server.parent, signal.SIGWINCH)
        servers.gone_within(resource, lambda: _server(resource).pids, graceful)
    server = _server(resource)
    if server.parent:
        resource.signal(server.parent, signal.SIGTERM)
        servers.gone_within(resource, lambda: _server(resource).pids, resource.remaining / 2)
    servers.kill(resource, lambda: _server(resource).pids, "httpd's processes")


@hookimpl
def monitor(resource: Resource) -> Health:
    parent = _parent(resource)
    if parent is None:
        if (server := _server(resource)).workers:
            number = len(server.workers)
            raise AgentError(f"the parent process is gone; {number} orphaned workers hold its ports")
        return Health.STOPPED
    if resource.depth >= 10:
        complaint = _complaint(resource, parent)
        if complaint:
            raise AgentError(f"httpd {complaint}")
    resource.main_pid = parent
    return Health.RUNNING


@hookimpl
def validate(resource: Resource) -> None:
    program, config = _program(resource), _config(resource)
    tested = resource.run(_with_envvars(config, [program, "-t", "-f", config]))
    if tested.returncode != 0:
        raise AgentError(f"{config}: {tested.stderr.strip()}", cure=f"{program} -t -f {config}")
    try:
        re.compile(resource.params["pattern"])
    except re.error as error:
        raise AgentError(f"pattern is no regular expression: {error}") from error


@hookimpl
def main_process(resource: Resource) -> int | None:
    return _parent(resource)


@hookimpl
def sandbox(directory: Path) -> dict[str, str]:
    """A server of its own on the loopback, with one page."""
    servers.program(PROGRAMS, CURE)
    modules = next((m for m in ("/usr/lib/apache2/modules", "/etc/httpd/modules") if Path(m).is_dir()), None)
    if modules is None:
        raise AgentError("Apache's modules are not installed here", cure=CURE)
    port = servers.free_port()
    (directory / "htdocs").mkdir(parents=True)
    (directory / "htdocs" / "index.html").write_text("hostd's sandbox\n")
    user = "www-data" if "/apache2/" in modules else "apache"
    config = directory / "httpd.conf"
    loaded = ("mpm_event", "authz_core", "dir", "unixd")
    lines = [
        f"LoadModule {name}_module {modules}/mod_{name}.so"
        for name in loaded
        if Path(modules, f"mod_{name}.so").exists()  # some are linked in
    ]
    lines += [
        f"ServerRoot {directory}",
        "ServerName localhost",
        f"Listen 127.0.0.1:{port}",
        f"PidFile {directory}/httpd.pid",
        f"DefaultRuntimeDir {directory}",
        f"ErrorLog {directory}/error.log",
        f"User {user}",
        f"Group {user}",
        f"DocumentRoot {directory}/htdocs",
    ]
    config.write_text("\n".join(lines) + "\n")
    return {"config": str(config), "url": f"http://127.0.0.1:{port}/", "pattern": "sandbox"}


# -- starting it --------------------------------------------------------------------


def _launch(resource: Resource, program: str, config: str) -> int:
    (resource.run_dir / "output").unlink(missing_ok=True)
    return resource.spawn(_with_envvars(config, [program, "-f", config, "-DFOREGROUND"]))


DEBIAN_START = """\
. "$0"
[ -z "$APACHE_RUN_DIR" ] || mkdir -p "$APACHE_RUN_DIR"
[ -z "$APACHE_LOCK_DIR" ] || [ -d "$APACHE_LOCK_DIR" ] || install -d -o "${APACHE_RUN_USER:-root}" "$APACHE_LOCK_DIR"
exec "$@"
"""
"""What its apachectl does: after a boot, the folders in /run are not there."""


def _with_envvars(config: str, argv: list[str]) -> list[str]:
    """Debian's configuration does not work without the variables of the file beside it, and the folders they name."""
    envvars = Path(config).with_name("envvars")
    return ["sh", "-c", DEBIAN_START, str(envvars), *argv] if envvars.exists() else argv


def _until_ready(resource: Resource, parent: int) -> None:
    """Wait until it serves; AgentError with its last words if it ends instead."""
    said = ""

    def is_ready() -> bool:
        nonlocal said
        if not servers.is_alive(parent):
            raise AgentError(
                f"httpd ended: {servers.last_words(resource) or 'it said nothing'}", cure="see its ErrorLog"
            )
        complaint = _complaint(resource, parent) if _server(resource).parent else "is not there yet"
        if complaint not in ("", said):
            resource.log.info("httpd %s", complaint)  # so that the evidence of a hang shows it
            said = complaint
        return not complaint

    resource.wait(is_ready, "httpd did not become ready")


def _remove_stale_pid_file(resource: Resource, program: str, config: str) -> None:
    """httpd refuses to start while the number in its pid file is anybody's.

    That happens after a crash, and on shared storage where the file comes
    from the other node.  Our own parent is not there, that is proven already.
    """
    dumped = resource.run(_with_envvars(config, [program, "-f", config, "-t", "-D", "DUMP_RUN_CFG"])).stdout
    found = re.search(r'^PidFile: "(.+)"$', dumped, re.MULTILINE)
    path = Path(found[1]) if found else None
    if path is None or not path.exists():
        raise AgentError("httpd says that it is already running, and its pid file is not found")
    number = path.read_text().strip()
    try:
        name = Path(f"/proc/{int(number)}/exe").readlink().name
    except (OSError, ValueError):
        name = ""  # gone, or dead and not yet collected
    if name in PROGRAMS:
        raise AgentError(
            f"{path} names process {number}, an httpd with another configuration",
            cure="give each server a PidFile of its own",
        )
    resource.log.warning("removing the stale pid file %s (%s %s)", path, number, name)
    path.unlink()


# -- which processes are ours -------------------------------------------------------


def _names(resource: Resource) -> tuple[str, ...]:
    wanted = resource.params["program"]
    return (Path(wanted).name,) if wanted else PROGRAMS


def _serves(resource: Resource, process: servers.ServerProcess) -> bool:
    given, config = process.option("-f"), _configured(resource)
    return given == config if given else config in CONFIGS  # started by the distribution, which needs no -f


def _server(resource: Resource) -> Server:
    """The server with our program and our configuration."""
    found = servers.find(_names(resource), functools.partial(_serves, resource))
    parents = [process.pid for process in found if process.leads]
    if parents:
        servers.note(resource, parents[-1])
    return Server(parents[-1] if parents else None, [process.pid for process in found if not process.leads])


def _parent(resource: Resource) -> int | None:
    """Its parent alone, looked for where it was last."""
    known = servers.known(resource, _names(resource), lambda process: process.leads and _serves(resource, process))
    return known or _server(resource).parent


# -- does it serve? -------------------------------------------------------------------


def _complaint(resource: Resource, parent: int) -> str:
    """What is wrong with what it serves, or ""."""
    url = resource.params["url"]
    if url and connections.is_listener(parent, *_door(url)):
        return _unanswered(resource, url)
    try:
        listening = psutil.Process(parent).net_connections("tcp")
    except psutil.Error:
        return "has just ended"
    doors = [c.laddr for c in listening if c.status == psutil.CONN_LISTEN]
    if not doors:
        return "listens nowhere"
    if url and _door(url)[1] not in {door.port for door in doors}:
        listed = ", ".join(map(str, sorted({door.port for door in doors})))
        return f"does not listen at port {_door(url)[1]} of {url}, but at {listed}"
    if url:
        return _unanswered(resource, url)
    try:
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(doors[0].ip, doors[0].ip)
        socket.create_connection((host, doors[0].port), _patience(resource)).close()
    except OSError as error:
        return f"does not accept connections at port {doors[0].port}: {error}"
    return ""


def _door(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def _unanswered(resource: Resource, url: str) -> str:
    parts, until = urlsplit(url), time.monotonic() + _patience(resource)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        with _connected(url, until - time.monotonic()) as connection:
            host = parts.netloc.rpartition("@")[2]
            answer = http_get.get(connection, host, target, until=until, body_max=BODY_MAX)
    except (OSError, ValueError) as error:
        return f"does not answer {url}: {error or type(error).__name__}"
    expected = resource.params["status"]
    if answer.status != expected if expected else not 200 <= answer.status < 400:
        return f"answers {url} with status {answer.status}"
    if not _contains(answer.body.decode(errors="replace"), resource.params["pattern"]):
        return f"answers {url} without {resource.params['pattern']!r}"
    return ""


def _connected(url: str, patience: float) -> socket.socket:
    connection = connections.connected(*_door(url), patience)
    if urlsplit(url).scheme != "https":
        return connection
    # the kernel has said who listens there, which is more than a certificate could
    return ssl._create_unverified_context().wrap_socket(connection, server_hostname=_door(url)[0])


def _contains(body: str, pattern: str) -> bool:
    if SPECIAL.isdisjoint(pattern):  # most are plain words, and each monitor would compile them anew
        return pattern in body
    return re.search(pattern, body) is not None


def _patience(resource: Resource) -> float:
    return float(max(0.05, min(resource.params["request_timeout"], resource.remaining - 0.1)))


# -- what is installed ------------------------------------------------------------------


def _program(resource: Resource) -> str:
    wanted = resource.params["program"]
    return servers.program((wanted,) if wanted else PROGRAMS, CURE)


def _configured(resource: Resource) -> str:
    return str(resource.params["config"] or next((c for c in CONFIGS if Path(c).exists()), CONFIGS[0]))


def _config(resource: Resource) -> str:
    config = _configured(resource)
    if not Path(config).exists():
        raise AgentError(f"{config} does not exist", cure="set config to httpd's configuration file")
    return config
