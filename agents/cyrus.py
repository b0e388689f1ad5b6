"""Cyrus IMAP 3: master and all that it starts, found by program and ``-C`` configuration.

What Cyrus does not guard itself, and this agent therefore does:

- When master dies, imapd, lmtpd and idled live on and greet clients, and a
  new master starts beside them.  So a greeting counts only at a port that our
  master holds, and orphans are a failure, ended by start and stop.
- Two masters may work on one configdirectory: each locks its own pid file
  only.  So start occupies the directory with a lock that all processes inherit
  (``hostd.api.occupancy``), and refuses while others are at work there.
- ctl_cyrusdb ends with 75 when it cannot recover a database, which master
  takes for well; imapd greets all the same.  So its words count.
- Without mailboxes.db it begins anew, which on an unmounted disk looks to
  every client like all mail deleted.  So that is done only when asked.
- A port that is taken, a directory that is not there: master tells syslog
  and goes on.  So start looks at these things first.
"""

import contextlib
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from hostd.api import (
    AgentError,
    Field,
    Health,
    Parameters,
    Resource,
    access,
    claims,
    hookimpl,
    listening,
    occupancy,
    servers,
)
from hostd.api.cyrus import conf, imap
from hostd.api.cyrus.processes import Processes, children
from hostd.api.cyrus.site import Site

PROGRAMS: Final = ("cyrmaster", "cyrus-master", "/usr/libexec/cyrus-imapd/cyrus-master", "/usr/libexec/master")
CURE: Final = "apt-get install cyrus-imapd, or set program"
SLOW: Final = "see the mail log; imapd is slow while a name server is away: /etc/hosts is asked first"
KILL_RESERVE: Final = 5.0  # seconds before the deadline at which patience with a SIGTERM ends
TELL_AGAIN: Final = 1.0  # seconds between one SIGTERM and the next
ALONE: Final = 1.0  # seconds that a master gets to notice that the last of its children has ended
SETTLE: Final = 2.0  # seconds from the first listener to the last; master makes them one after the other


@hookimpl
def parameters() -> Parameters:
    return Parameters(
        Field("config", Path, default=None, help="imapd.conf (-C), by which a server is known; default: the usual"),
        Field("services", Path, default=None, help="cyrus.conf (-M); default: the usual"),
        Field("program", str, default="", help="Cyrus' master itself; default: as installed"),
        Field("url", str, default="", help="what is asked: imap or imaps, by IP address; default: cyrus.conf's first"),
        Field("user", str, default="", help="who logs in when it is asked; default: nobody, only greeting and NOOP"),
        Field("password", str, default="", secret=True, help="of user"),
        Field("mailbox", str, default="INBOX", help="of user; depth 20 leaves a message there for a moment"),
        # imapd looks up its client's name before it greets; a name server that is away costs 5 to 10 seconds
        Field("request_timeout", float, default=15.0, help="seconds that one conversation may take"),
        Field("initialize", bool, default=False, help="begin anew where there is no mailboxes.db"),
        summary="Cyrus IMAP 3",
        timeouts={"start": "120s", "stop": "120s", "monitor": "30s"},  # start: recovery of large databases
        monitor_interval="10s",
        monitor_depth=10,  # a process that greets nobody is no mail server
        exclusive_storage=True,
    )


@hookimpl
def start(resource: Resource) -> None:
    master = main_process(resource)
    if master is None and (orphans := _processes(resource).look().others):
        resource.log.warning("ending %s, left by a master that is gone", _named(orphans))
        _end(resource, reserve=resource.remaining * 2 / 3)
    launched = _launch(resource) if master is None else None
    if launched is None:  # it runs already, or another start was quicker
        _until_ready(resource, master or main_process(resource) or 0, is_new=False)
        return
    try:
        _until_ready(resource, launched, is_new=True)
    except AgentError:
        _end(resource, reserve=resource.remaining / 2)
        raise


@hookimpl
def stop(resource: Resource) -> None:
    """SIGTERM lets each session end after its command.  Who else works on the data is named, and left alone:
    it is for the storage's own agent to refuse."""
    _end(resource, reserve=min(KILL_RESERVE, resource.remaining / 2))
    _pid_file(resource).unlink(missing_ok=True)
    if strangers := _processes(resource).strangers():
        resource.log.warning("%s, not ours, goes on with the same data", _named(strangers))


@hookimpl
def monitor(resource: Resource) -> Health:
    master = main_process(resource)
    if master is None:
        if orphans := _processes(resource).look().others:
            raise AgentError(f"master is gone; what it left goes on: {_named(orphans)}", cure="start it again")
        return Health.STOPPED
    if resource.depth < 10:
        return Health.RUNNING
    doors = listening.doors(master)
    verdict = _asked(resource, doors)
    if verdict.complaint:
        raise AgentError(f"Cyrus {verdict.complaint}", cure=_login_cure(resource) if verdict.is_final else SLOW)
    if missing := conf.unheard(_services(resource), doors):
        resource.log.warning("master listens nowhere for %s", ", ".join(missing))
        return Health.DEGRADED
    return Health.RUNNING


@hookimpl
def validate(resource: Resource) -> None:
    """What must be true on every node, so nothing of data that may be mounted on the other."""
    site = _site(resource)
    site.check_configuration()
    _door(resource)
    if not any(entry.recovers for entry in site.entries):
        raise AgentError(
            f"{_services(resource)}: START does not run ctl_cyrusdb -r, which recovers after a crash",
            cure=f'recover cmd="ctl_cyrusdb -C {_config(resource)} -r" in START',
        )


@hookimpl
def main_process(resource: Resource) -> int | None:
    masters = _processes(resource).masters()
    if len(masters) > 1:
        raise AgentError(f"{len(masters)} masters run with one configuration: {masters}", cure="stop ends them")
    return masters[0] if masters else None


@hookimpl
def sandbox(directory: Path) -> dict[str, object]:
    """A server of its own on the loopback, with one user and an INBOX."""
    servers.program(PROGRAMS, CURE)
    port, password = servers.free_port(), secrets.token_hex(12)
    config, services, users = directory / "imapd.conf", directory / "cyrus.conf", directory / "sasldb2"
    lines = {
        "configdirectory": f"{directory}/lib",
        "defaultpartition": "default",
        "partition-default": f"{directory}/spool",
        "servername": "localhost",
        "allowplaintext": "yes",
        "autocreate_quota": "0",  # an INBOX at the first login, without a limit
        "sasl_pwcheck_method": "auxprop",
        "sasl_auxprop_plugin": "sasldb",
        "sasl_sasldb_path": str(users),
        "sasl_mech_list": "PLAIN LOGIN",
        "lmtpsocket": f"{directory}/lmtp",
        "idlesocket": f"{directory}/idle",
        "notifysocket": f"{directory}/notify",
    }
    config.write_text("".join(f"{key}: {value}\n" for key, value in lines.items()))
    services.write_text(
        f'START {{\n  recover cmd="ctl_cyrusdb -C {config} -r"\n}}\n'
        f'SERVICES {{\n  imap cmd="imapd -C {config}" listen="127.0.0.1:{port}" prefork=1\n'
        f'  lmtp cmd="lmtpd -C {config}" listen="{directory}/lmtp" prefork=0\n}}\n'
        f'DAEMON {{\n  idled cmd="idled -C {config}"\n}}\n'
        f'EVENTS {{\n  checkpoint cmd="ctl_cyrusdb -C {config} -c" period=30\n}}\n'
    )
    argv = [servers.program(("saslpasswd2",), "apt-get install sasl2-bin"), "-p", "-c"]
    subprocess.run([*argv, "-f", str(users), "-u", "localhost", "hostd"], input=password.encode(), check=True)
    for name in ("lib", "lib/socket", "lib/proc", "lib/log", "lib/msg", "spool"):
        (directory / name).mkdir()
    account = access.account("cyrus")
    for path in (directory, *directory.rglob("*")):
        os.chown(path, account.pw_uid, account.pw_gid)
    return {"config": str(config), "services": str(services), "user": "hostd", "password": password, "initialize": True}


# -- starting it --------------------------------------------------------------------


def _launch(resource: Resource) -> int | None:
    """Start master, once all is there that it needs and nobody else is at work on its data; None if it has
    appeared meanwhile."""
    site = _site(resource)
    site.check_configuration()
    site.check_storage(must_exist=True)
    lock = _occupied(resource, site.directory)
    if lock is None:
        return None
    try:
        site.check_mailboxes(may_begin=resource.params["initialize"])
        site.make_run_directories()
        site.check_ports()
        (resource.run_dir / "output").unlink(missing_ok=True)
        argv = [_program(resource), "-D", "-C", str(_config(resource)), "-M", str(_services(resource))]  # -D: says why
        if _config(resource) != conf.IMAPD_CONF:
            argv += ["-p", str(_pid_file(resource))]  # not the usual one, whose lock keeps the usual server's unit out
        return resource.spawn(argv, keep=[lock])
    finally:
        os.close(lock)


def _occupied(resource: Resource, directory: Path) -> int | None:
    """configdirectory, locked, and proof that nobody is at work there without that lock; None if our own master
    is.  Others whom we see are refused at once; else it may be a dead node's lock, which a cluster filesystem gives
    back when it has recovered."""
    patience, waits = resource.remaining * 2 / 3, False
    while True:
        try:
            lock = occupancy.occupy(directory)
        except OSError as error:
            raise AgentError(f"configdirectory {directory} cannot be locked: {error.strerror}") from error
        others = _processes(resource).in_the_way(directory, lock)
        if lock is not None and not others:
            return lock
        if lock is not None:
            os.close(lock)
        elif _processes(resource).masters():
            return None
        complaint = f"{_named(others)} is at work on configdirectory {directory}"
        if any(pid > 0 for pid in others) or resource.remaining < patience:
            raise AgentError(complaint, cure="stop the other one first: two would ruin the mail")
        if not waits:
            resource.log.warning("waiting: %s", complaint)
            waits = True
        time.sleep(0.2)


def _until_ready(resource: Resource, master: int, *, is_new: bool) -> None:
    """Wait until it serves, telling what it is at; AgentError with its last words if it ends or fails instead."""
    said, listening_since = "", 0.0

    def is_ready() -> bool:
        nonlocal said, listening_since
        _check_life(resource, master, words=servers.last_words(resource, lines=10) if is_new else "")
        doors = listening.doors(master)
        missing = conf.unheard(_services(resource), doors) if is_new else []
        if not doors:
            complaint = f"is in START: {_named(children(master)) or 'nothing runs'}"
        elif missing:
            listening_since = listening_since or time.monotonic()
            complaint = f"listens nowhere for {', '.join(missing)}"
            if time.monotonic() > listening_since + SETTLE:
                raise AgentError(f"Cyrus {complaint}", cure="see what master told syslog")
        else:
            verdict = _asked(resource, doors)
            if verdict.is_final:
                raise AgentError(f"Cyrus {verdict.complaint}", cure=_login_cure(resource))
            complaint = verdict.complaint
        if complaint not in ("", said):
            resource.log.info("Cyrus %s", complaint)  # so that the evidence of a hang shows it
            said = complaint
        return not complaint

    resource.wait(is_ready, "Cyrus did not become ready")


def _check_life(resource: Resource, master: int, words: str) -> None:
    """AgentError if master has ended, or by its words something that it ran has failed."""
    _, failed, why = words.partition("fatal error: ")
    if failed:
        raise AgentError(
            f"Cyrus failed: {why.partition(failed)[0].strip()}",
            cure="if a database is damaged: a copy is in db.backup1 of configdirectory",
        )
    if not servers.is_alive(master):
        status = ""
        with contextlib.suppress(ChildProcessError):  # it was there before us
            status = f" with status {os.waitstatus_to_exitcode(os.waitpid(master, os.WNOHANG)[1])}"
        raise AgentError(f"master ended{status}: {words or 'why, it told syslog alone'}", cure="journalctl -t master")


# -- ending it ----------------------------------------------------------------------


def _end(resource: Resource, reserve: float) -> None:
    """SIGTERM for master, which hands it on, and then for all that is there; SIGKILL for what is there ``reserve``
    seconds before the deadline.  The databases bear it: the next start recovers them."""
    tell_at, alone_since, ours = 0.0, 0.0, _processes(resource)

    def is_over() -> bool:
        nonlocal tell_at, alone_since
        server = ours.look()
        alone_since = 0.0 if server.others else alone_since or time.monotonic()
        if time.monotonic() >= tell_at:
            # again and to all: a child that is just being born misses the first, and master waits for it for ever
            for pid in server.pids if tell_at else server.masters or server.others:
                resource.signal(pid, signal.SIGTERM)
            tell_at = time.monotonic() + TELL_AGAIN
        if server.masters and not server.others and time.monotonic() > alone_since + ALONE:
            # pselect brings it no signal, not even that of its last child's end, while clients wait at its door
            for pid in server.masters:
                resource.signal(pid, signal.SIGKILL)
        return not server.pids or resource.remaining <= reserve

    resource.wait(is_over, "Cyrus did not end", pause=0.1)
    if left := ours.look().pids:
        resource.log.warning("killing what did not end: %s", _named(left))
        servers.kill(resource, lambda: ours.look().pids, "Cyrus' processes")


# -- does it serve? -----------------------------------------------------------------


def _asked(resource: Resource, doors: Sequence[tuple[str, int]]) -> imap.Verdict:
    """A conversation with the IMAP service, at a port that master holds."""
    where = _door(resource) or conf.imap_door(_services(resource), doors)
    if not any(port == where.port and ip in (where.host, "0.0.0.0", "::") for ip, port in doors):
        listed = ", ".join(f"{ip} port {port}" for ip, port in doors) or "nowhere"
        return imap.Verdict(f"does not listen at {where}, but {listed}")
    params, login = resource.params, None
    if params["user"]:
        login = imap.Login(params["user"], params["password"], params["mailbox"] if resource.depth >= 20 else "")
    return imap.ask(where, login, max(0.05, min(params["request_timeout"], resource.remaining - 0.5)))


def _door(resource: Resource) -> imap.Door | None:
    url = resource.params["url"]
    try:
        return imap.door(url) if url else None
    except ValueError as error:
        raise AgentError(f"url: {error}", cure="such as imap://172.23.2.15/, where cyrus.conf has it listen") from error


def _login_cure(resource: Resource) -> str:
    method = conf.settings(_config(resource))["sasl_pwcheck_method"]
    return f"check user and password, and what sasl_pwcheck_method ({method}) of imapd.conf needs"


# -- what is installed and configured -------------------------------------------------


def _site(resource: Resource) -> Site:
    return Site(resource, _config(resource), _services(resource), Path(_program(resource)).resolve().parent)


def _program(resource: Resource) -> str:
    wanted = resource.params["program"]
    return servers.program((wanted,) if wanted else PROGRAMS, CURE)


def _processes(resource: Resource) -> Processes:
    try:
        return Processes(_config(resource), Path(_program(resource)).resolve())
    except AgentError:  # it is not installed here; a copy that runs is known by the usual names
        return Processes(_config(resource), None)


def _pid_file(resource: Resource) -> Path:
    return resource.run_dir / "master.pid"  # nobody reads it


def _config(resource: Resource) -> Path:
    return Path(resource.params["config"] or conf.IMAPD_CONF)


def _services(resource: Resource) -> Path:
    return Path(resource.params["services"] or conf.CYRUS_CONF)


def _named(pids: Sequence[int]) -> str:
    return ", ".join(map(claims.described, pids[:5])) + (f" and {len(pids) - 5} more" if len(pids) > 5 else "")
