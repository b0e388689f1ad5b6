"""The mysql agent against a real MariaDB, private instances on Unix sockets of their own."""

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pymysql
import pytest

from hostd import processes
from hostd.api import Health, claims, servers
from hostd.config import Directories
from hostd.jobs import Verb
from hostd.registry import Registry
from tests.contracts.bench import Bench, folder_for_servers

ROOT = Path(__file__).parents[2]
SECRET = "not-to-be-seen-4711"


@pytest.fixture(scope="module")
def pristine() -> Iterator[dict[str, Any]]:
    """Parameters of a private instance that is never started: every test gets a copy."""
    with folder_for_servers() as folder:
        agent = Registry.load(Directories(), system=folder / "none").agent("mysql")
        params = agent.sandbox(folder / "it")
        assert params is not None
        yield params


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that the server's user may enter."""
    with folder_for_servers() as folder:
        yield folder


@pytest.fixture
def mariadb(place: Path, pristine: dict[str, Any]) -> Iterator[Bench]:
    bench = Bench(place, "mysql", copy(pristine, place / "it"))
    yield bench
    bench.close()


def copy(pristine: dict[str, Any], to: Path) -> dict[str, Any]:
    """An instance of its own, with the same data."""
    origin = pristine["datadir"].parent
    subprocess.run(["cp", "-a", origin, to], check=True)
    moved = {name: to / pristine[name].relative_to(origin) for name in ("datadir", "config", "socket")}
    return pristine | moved


def sql(server: Bench, *statements: str, **login: Any) -> Sequence[Any]:
    """What the last of these statements returns."""
    account = {"user": "root"} | login
    with pymysql.connect(unix_socket=str(server.params["socket"]), ssl_disabled=True, **account) as connection:
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            rows = cursor.fetchall()
        connection.commit()
    return rows


def by_hand(server: Bench, *options: str, prefix: Sequence[str] = ()) -> "subprocess.Popen[bytes]":
    """A server on the same datadir that hostd knows nothing of; it is there when this returns."""
    other = server.params["socket"].with_name("other")
    program = servers.program(("mariadbd", "mysqld"), "")
    config, user = server.params["config"], server.params["user"]
    argv = [*prefix, program, f"--defaults-file={config}", f"--user={user}", f"--socket={other}", *options]
    process = subprocess.Popen(argv, start_new_session=True, stdout=sys.stderr)
    wait_for(lambda: claims.listener(other) is not None)
    return process


def end(process: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def wait_for(fact: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not fact():
        assert time.monotonic() < until, "it did not come about"
        time.sleep(0.02)


# -- start, stop, monitor --------------------------------------------------------------


def test_started_means_usable_and_stopped_means_gone(mariadb: Bench) -> None:
    """A query is answered when start returns; process, socket and locks are gone when stop returns."""
    assert mariadb.run(Verb.MONITOR).health is Health.STOPPED
    started = mariadb.run(Verb.START)
    assert started.ok, started
    assert sql(mariadb, "SELECT 1") == ((1,),)
    main = processes.look(started.main_pid)
    assert main is not None and main.name in ("mariadbd", "mysqld") and main.session == main.pid
    for depth in (0, 10, 20, 20):
        outcome = mariadb.run(Verb.MONITOR, depth=depth)
        assert (outcome.health, outcome.main_pid) == (Health.RUNNING, started.main_pid), outcome
    stopped = mariadb.run(Verb.STOP)
    assert stopped.ok and stopped.leftovers == 0 and mariadb.left() == []
    assert claims.lock_holder(mariadb.params["datadir"] / "ibdata1") is None
    assert mariadb.run(Verb.MONITOR, depth=10).health is Health.STOPPED


def test_start_and_stop_twice_are_as_once(mariadb: Bench) -> None:
    """Already running and already stopped are successes; the second start starts nothing."""
    first, second = mariadb.run(Verb.START), mariadb.run(Verb.START)
    assert second.ok and second.main_pid == first.main_pid
    assert mariadb.run(Verb.STOP).ok and mariadb.run(Verb.STOP).ok


def test_what_was_committed_before_a_kill_is_there_after_the_next_start(mariadb: Bench) -> None:
    """InnoDB recovers within the start, which shows it; what was not committed is gone, and neither
    the stale socket nor the stale pid file is in the way."""
    started = mariadb.run(Verb.START)
    sql(mariadb, "CREATE DATABASE d", "CREATE TABLE d.t (i INT)", "INSERT INTO d.t VALUES (1)")
    with pymysql.connect(unix_socket=str(mariadb.params["socket"]), user="root", ssl_disabled=True) as open_one:
        open_one.cursor().execute("INSERT INTO d.t VALUES (2)")
        os.kill(started.main_pid, signal.SIGKILL)
        wait_for(lambda: not servers.is_alive(started.main_pid))
    assert mariadb.run(Verb.MONITOR).health is Health.STOPPED
    socket_path = mariadb.params["socket"]
    pid_file = socket_path.with_name(f"{socket_path.name}.pid")
    assert socket_path.exists() and pid_file.exists(), "they are stale, which is the trap"
    pid_file.write_text(f"{os.getpid()}\n")  # as bad as it gets: the number of somebody alive
    again = mariadb.run(Verb.START)
    assert again.ok and "crash recovery" in again.output
    assert sql(mariadb, "SELECT i FROM d.t") == ((1,),)


def test_a_clean_stop_leaves_nothing_to_recover(mariadb: Bench) -> None:
    """SIGTERM lets InnoDB flush, so the next start, maybe on the other node, is a short one."""
    mariadb.run(Verb.START)
    sql(mariadb, "CREATE DATABASE d", "CREATE TABLE d.t (i INT)", "INSERT INTO d.t VALUES (1)")
    assert mariadb.run(Verb.STOP).output == ""
    again = mariadb.run(Verb.START)
    assert again.ok and "recovery" not in again.output
    assert sql(mariadb, "SELECT i FROM d.t") == ((1,),)


def test_a_server_that_does_not_react_is_killed_in_time_and_loses_nothing(mariadb: Bench) -> None:
    """A stopped process hears no SIGTERM: SIGKILL before the limit, with a warning."""
    started = mariadb.run(Verb.START)
    sql(mariadb, "CREATE DATABASE d", "CREATE TABLE d.t (i INT)", "INSERT INTO d.t VALUES (1)")
    os.kill(started.main_pid, signal.SIGSTOP)
    stopped = mariadb.run(Verb.STOP, timeout_ms=2_000)
    assert stopped.ok and stopped.leftovers == 0 and mariadb.left() == []
    assert "WARNING SIGKILL" in stopped.output
    assert mariadb.run(Verb.START).ok
    assert sql(mariadb, "SELECT i FROM d.t") == ((1,),)


def test_a_hung_server_fails_the_deep_monitor_in_time(mariadb: Bench) -> None:
    """Its socket still accepts, nobody answers."""
    started = mariadb.run(Verb.START)
    os.kill(started.main_pid, signal.SIGSTOP)
    outcome = mariadb.run(Verb.MONITOR, depth=10, query_timeout=0.3)
    assert not outcome.ok and not outcome.timed_out and "answers no query" in outcome.reason
    assert outcome.took_ms < 5_000


def test_a_start_that_takes_too_long_says_what_the_server_was_doing(mariadb: Bench, place: Path) -> None:
    """The limit stands whatever the log says, and nothing comes up later."""
    slow = place / "slow.sql"
    slow.write_text("SELECT SLEEP(60);\n")
    outcome = mariadb.run(Verb.START, timeout_ms=3_000, options=[f"--init-file={slow}"])
    assert not outcome.ok and not outcome.timed_out
    assert outcome.reason.startswith("not ready within the time limit: server"), outcome.reason
    assert "last it said: " in outcome.reason and "timeout = {" in outcome.cure
    wait_for(lambda: mariadb.left() == [])


def test_another_process_at_the_socket_is_not_taken_for_the_server(mariadb: Bench) -> None:
    """The kernel says who listens, before anything is sent."""
    mariadb.run(Verb.START)
    mariadb.params["socket"].unlink()
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.bind(str(mariadb.params["socket"]))
        stranger.listen()
        outcome = mariadb.run(Verb.MONITOR, depth=10)
    assert not outcome.ok and f"answers process {os.getpid()} " in outcome.reason


def test_without_its_socket_it_is_not_running_well(mariadb: Bench) -> None:
    """Depth 0 looks for the process and its socket, and does so without connecting."""
    mariadb.run(Verb.START)
    before = sql(mariadb, "SHOW STATUS LIKE 'Connections'")
    assert mariadb.run(Verb.MONITOR).health is Health.RUNNING
    [(_, after)] = sql(mariadb, "SHOW STATUS LIKE 'Connections'")
    assert int(after) == int(before[0][1]) + 1, "ours alone"


# -- one server on one datadir ------------------------------------------------------------


def test_a_server_started_by_hand_is_refused_told_and_ended(mariadb: Bench) -> None:
    """It serves the datadir of its configuration, which its arguments do not show: start refuses,
    monitor fails, and both name it; stop ends it."""
    with mariadb.params["config"].open("a") as config:
        config.write(f"datadir={mariadb.params['datadir']}\n")
    other = by_hand(mariadb)
    try:
        for verb in (Verb.START, Verb.MONITOR):
            outcome = mariadb.run(verb)
            assert not outcome.ok and outcome.reason.startswith(f"process {other.pid} (mariadbd"), outcome
            assert "was not started by hostd" in outcome.reason and "systemctl" in outcome.cure
        stopped = mariadb.run(Verb.STOP)
        assert stopped.ok and f"WARNING ending process {other.pid}" in stopped.output
        assert other.wait(5) == 0, "a clean end"
    finally:
        end(other)


def test_a_server_in_another_network_is_refused_and_left_alone(mariadb: Bench) -> None:
    """Here it stands for a container or for the other node: not ours to stop, but the datadir is taken."""
    unshare = ["unshare", "--net"]
    other = by_hand(mariadb, f"--datadir={mariadb.params['datadir']}", prefix=unshare)
    try:
        assert mariadb.run(Verb.MONITOR).health is Health.STOPPED
        outcome = mariadb.run(Verb.START)
        assert f"process {other.pid} (mariadbd in another network namespace) has" in outcome.reason, outcome
        assert "two servers would destroy it" in outcome.reason and str(other.pid) in outcome.cure
        assert outcome.took_ms < 10_000, "the server itself would try for 30 s"
        assert mariadb.run(Verb.STOP).ok
        assert other.poll() is None
    finally:
        end(other)


def test_a_lock_on_the_datadir_is_enough_to_refuse(mariadb: Bench) -> None:
    """Whoever has it: a backup, a server of another name."""
    data = mariadb.params["datadir"] / "ibdata1"
    with data.open("r+b") as locked:
        fcntl.lockf(locked, fcntl.LOCK_EX | fcntl.LOCK_NB)
        outcome = mariadb.run(Verb.START)
        assert f"process {os.getpid()} (" in outcome.reason and "locked" in outcome.reason, outcome
    assert mariadb.run(Verb.START).ok


def test_a_lock_of_somebody_who_cannot_be_seen_is_waited_for_and_then_refused(mariadb: Bench, place: Path) -> None:
    """A container's, or a dead node's until its filesystem has recovered: it may be gone soon."""
    argv = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", sys.executable]
    argv += ["-m", "hostd.commands.agent_main", "run", "mysql", "start", "--timeout", "5s"]
    argv += [f"--{kind}-dir={place / kind}" for kind in ("runtime", "state")]
    argv += [f"{name}={mariadb.params[name]}" for name in ("datadir", "config", "socket", "user")]
    with (mariadb.params["datadir"] / "ibdata1").open("r+b") as locked:
        fcntl.lockf(locked, fcntl.LOCK_EX | fcntl.LOCK_NB)
        refused = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=ROOT)
        assert refused.returncode == 1 and "a process that cannot be seen from here" in refused.stdout, refused
        for path in place.rglob("*+start"):
            path.unlink()
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=ROOT) as waiting:
            wait_for(lambda: any("waiting" in path.read_text() for path in place.rglob("*+start")))
            fcntl.lockf(locked, fcntl.LOCK_UN)
            started = waiting.stdout.read() if waiting.stdout is not None else ""
    assert waiting.returncode == 0 and "waiting for the lock" in started, started


def test_a_server_that_takes_the_datadir_meanwhile_is_told_at_once(mariadb: Bench, place: Path) -> None:
    """Between the look and the start another may come: MariaDB's own retries are not waited for."""
    data = mariadb.params["datadir"] / "aria_log_control"
    wrapper = place / "mariadbd"
    wrapper.write_text(
        f"#!{sys.executable}\nimport fcntl, os, sys, time\n"
        f"other = open({str(data)!r}, 'r+b')\nparent = os.getpid()\n"
        "if os.fork() == 0:\n"
        "    fcntl.lockf(other, fcntl.LOCK_EX)\n    time.sleep(4)\n    os._exit(0)\n"
        "time.sleep(0.3)\n"
        f"os.execv({servers.program(('mariadbd',), '')!r}, sys.argv)\n"
    )
    wrapper.chmod(0o755)
    outcome = mariadb.run(Verb.START, program=str(wrapper))
    assert not outcome.ok and "two servers would destroy it" in outcome.reason, outcome
    assert outcome.took_ms < 10_000


def test_a_script_that_starts_it_again_is_refused_and_ended_first(mariadb: Bench, place: Path) -> None:
    """mysqld_safe ignores SIGTERM and starts another server for each that dies."""
    safe = place / "mysqld_safe"
    program = servers.program(("mariadbd", "mysqld"), "")
    safe.write_text(f"#!/bin/sh\ntrap '' 1 2 3 15\nwhile :; do {program} \"$@\"; done\n")
    safe.chmod(0o755)
    params = mariadb.params
    other = params["socket"].with_name("other")
    options = [f"--defaults-file={params['config']}", f"--user={params['user']}", f"--datadir={params['datadir']}"]
    script = subprocess.Popen([safe, *options, f"--socket={other}"], start_new_session=True, stdout=sys.stderr)
    try:
        wait_for(lambda: claims.listener(other) is not None)
        server = claims.listener(other)
        assert server is not None
        os.kill(server, signal.SIGKILL)
        wait_for(lambda: claims.listener(other) not in (None, server))
        refused = mariadb.run(Verb.START)
        assert f"process {script.pid} (mysqld_safe) serves" in refused.reason, refused
        assert mariadb.run(Verb.STOP).ok
        assert script.wait(5) == -signal.SIGKILL and claims.listener(other) is None
    finally:
        end(script)


def test_two_datadirs_live_side_by_side(mariadb: Bench, pristine: dict[str, Any], place: Path) -> None:
    """Each has its own socket, TCP port and data; the end of one is nothing to the other."""
    (place / "two").mkdir()
    second = Bench(place / "two", "mysql", copy(pristine, place / "two" / "it"))
    try:
        ports = []
        for bench in (mariadb, second):
            ports.append(servers.free_port())
            tcp = {"port": ports[-1], "bind_address": "127.0.0.1", "options": ["--skip-networking=0"]}
            bench.params |= tcp
            assert bench.run(Verb.START).ok
        sql(second, "CREATE DATABASE only_here")
        assert sql(mariadb, "SHOW DATABASES LIKE 'only_here'") == ()
        for port in ports:
            socket.create_connection(("127.0.0.1", port), 5).close()
        assert mariadb.run(Verb.STOP).ok
        assert second.run(Verb.MONITOR, depth=20).health is Health.RUNNING
    finally:
        second.close()


def test_a_socket_that_somebody_answers_is_not_taken_away(
    mariadb: Bench, pristine: dict[str, Any], place: Path
) -> None:
    """A server removes whatever lies at its socket's path: two services with one socket are refused."""
    mariadb.run(Verb.START)
    (place / "two").mkdir()
    second = Bench(place / "two", "mysql", copy(pristine, place / "two" / "it"))
    try:
        outcome = second.run(Verb.START, socket=mariadb.params["socket"])
        assert not outcome.ok and "answers at" in outcome.reason and "socket of its own" in outcome.cure
    finally:
        second.close()
    assert mariadb.run(Verb.MONITOR, depth=10).health is Health.RUNNING


# -- accounts and secrets ---------------------------------------------------------------------


def test_a_wrong_password_is_told_at_the_start_and_degrades_a_running_server(mariadb: Bench) -> None:
    """Who answers "access denied" is alive; nobody is served by a restart."""
    mariadb.run(Verb.START)
    sql(mariadb, f"CREATE USER watch@localhost IDENTIFIED BY '{SECRET}'")
    account = {"login": "watch", "password": SECRET}
    assert mariadb.run(Verb.MONITOR, depth=10, **account).health is Health.RUNNING
    degraded = mariadb.run(Verb.MONITOR, depth=10, login="watch", password="wrong")
    assert degraded.health is Health.DEGRADED and "Access denied for user 'watch'" in degraded.output
    may_not = mariadb.run(Verb.MONITOR, depth=20, **account)
    assert may_not.health is Health.DEGRADED and "denied" in may_not.output
    mariadb.run(Verb.STOP)
    refused = mariadb.run(Verb.START, login="watch", password="wrong")
    assert not refused.ok and "Access denied" in refused.reason and "login_file" in refused.cure
    wait_for(lambda: mariadb.left() == [])
    assert mariadb.run(Verb.START, **account).ok


def test_a_server_without_a_free_connection_is_degraded(mariadb: Bench) -> None:
    """A restart would end all the work that fills it."""
    mariadb.params["options"] = ["--max-connections=10"]
    mariadb.run(Verb.START)
    sql(mariadb, "CREATE USER watch@localhost")
    path = str(mariadb.params["socket"])
    with contextlib.ExitStack() as crowd:
        for _ in range(11):
            with contextlib.suppress(pymysql.MySQLError):
                crowd.enter_context(pymysql.connect(unix_socket=path, user="watch", ssl_disabled=True))
        outcome = mariadb.run(Verb.MONITOR, depth=10, login="watch")
    assert outcome.health is Health.DEGRADED and "Too many connections" in outcome.output


def test_a_login_file_is_used_and_never_shown(mariadb: Bench, place: Path) -> None:
    """Name and password as MariaDB's own programs read them; others must not."""
    mariadb.run(Verb.START)
    sql(mariadb, f"CREATE USER watch@localhost IDENTIFIED BY '{SECRET}'")
    login = place / "login.cnf"
    login.write_text(f"[client]\nuser=watch\npassword={SECRET}\n")
    login.chmod(0o644)
    assert mariadb.run(Verb.MONITOR, depth=10, login_file=login).health is Health.RUNNING
    refused = mariadb.run(Verb.VALIDATE, login_file=login)
    assert not refused.ok and "others than its owner may read" in refused.reason
    login.chmod(0o600)
    assert mariadb.run(Verb.VALIDATE, login_file=login).ok
    login.write_text(f"{SECRET}\n")
    broken = mariadb.run(Verb.MONITOR, depth=10, login_file=login)
    assert not broken.ok and "is not a defaults file" in broken.reason
    assert SECRET not in f"{broken.reason} {broken.cure} {broken.output}"


def test_the_password_is_in_no_argument_list_environment_or_output(mariadb: Bench, place: Path) -> None:
    """Looked for all the time, from before the start until after the stop."""
    mariadb.run(Verb.START)
    sql(mariadb, f"CREATE USER watch@localhost IDENTIFIED BY '{SECRET}'", "GRANT ALL ON *.* TO watch@localhost")
    mariadb.run(Verb.STOP)
    assert "cmdline" in where_the_secret_was_seen(
        place, lambda: subprocess.run(["sh", "-c", "sleep 1", SECRET], check=True)
    ), "the looker sees"
    mariadb.params |= {"login": "watch", "password": SECRET}
    outcomes = []

    def all_of_it() -> None:
        outcomes.append(mariadb.run(Verb.START))
        outcomes.extend(mariadb.run(Verb.MONITOR, depth=depth) for depth in (0, 10, 20))
        outcomes.append(mariadb.run(Verb.MONITOR, depth=10, login="nobody-else"))
        outcomes.append(mariadb.run(Verb.STOP))

    assert where_the_secret_was_seen(place, all_of_it) == ""
    assert [outcome.ok for outcome in outcomes] == [True] * 6
    assert SECRET not in str(outcomes)
    grep = subprocess.run(["grep", "-rl", SECRET, place / "run", place / "state"], capture_output=True, check=False)
    assert grep.stdout == b""


LOOKER = """
import pathlib, sys
secret, seen = sys.stdin.readline().strip().encode(), set()
print("looking", flush=True)
while not pathlib.Path(sys.argv[1]).exists():
    for path in (*pathlib.Path("/proc").glob("[0-9]*/cmdline"), *pathlib.Path("/proc").glob("[0-9]*/environ")):
        try:
            seen |= {str(path)} if secret in path.read_bytes() else set()
        except OSError:
            pass
print(*seen)
"""


def where_the_secret_was_seen(folder: Path, act: Callable[[], object]) -> str:
    """The files of /proc that held it while ``act`` ran.  A process looks, not a thread: the bench forks."""
    over = folder / "over"
    over.unlink(missing_ok=True)
    with subprocess.Popen(
        [sys.executable, "-c", LOOKER, over], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as looker:
        assert looker.stdin is not None and looker.stdout is not None
        looker.stdin.write(f"{SECRET}\n")
        looker.stdin.flush()
        looker.stdout.readline()
        try:
            act()
        finally:
            over.touch()
        return looker.stdout.read().strip()


# -- what the world does ----------------------------------------------------------------------------


def test_an_empty_datadir_is_initialised_only_when_asked(mariadb: Bench) -> None:
    """An unmounted filesystem looks empty, too.  What is then made is a database that works."""
    datadir = mariadb.params["datadir"]
    shutil.rmtree(datadir)
    datadir.mkdir()
    (datadir / "lost+found").mkdir()
    shutil.chown(datadir, mariadb.params["user"])
    outcome = mariadb.run(Verb.START)
    assert not outcome.ok and f"{datadir} is empty" in outcome.reason and "mounted?" in outcome.cure
    assert [path.name for path in datadir.iterdir()] == ["lost+found"]
    assert mariadb.run(Verb.START, initialize=True, timeout_ms=60_000).ok
    assert mariadb.run(Verb.MONITOR, depth=20).health is Health.RUNNING
    assert mariadb.run(Verb.STOP).ok and mariadb.run(Verb.START, initialize=True).ok


def test_an_initialisation_that_fails_or_is_cut_off_is_told(mariadb: Bench) -> None:
    """Half a database is never started."""
    datadir = mariadb.params["datadir"]
    shutil.rmtree(datadir)
    datadir.mkdir()
    shutil.chown(datadir, mariadb.params["user"])
    failed = mariadb.run(Verb.START, initialize=True, options=["--no-such-option=1"], timeout_ms=60_000)
    assert not failed.ok and "could not be initialised" in failed.reason and "no-such-option" in failed.reason, failed
    again = mariadb.run(Verb.START, initialize=True)
    assert not again.ok and "was cut off" in again.reason and "empty it" in again.cure


def test_a_datadir_that_is_unfit_is_told_with_its_cure(mariadb: Bench, place: Path) -> None:
    """Missing, somebody else's, closed above, or no datadir at all: nothing is started."""
    datadir, user = mariadb.params["datadir"], mariadb.params["user"]
    missing = mariadb.run(Verb.START, datadir=place / "nowhere")
    assert "does not exist" in missing.reason and "mount its filesystem" in missing.cure
    wrong = mariadb.run(Verb.START, datadir=place)
    assert f"{place} is not a datadir: it has it" in wrong.reason, wrong
    nobody = mariadb.run(Verb.START, user="no-such-user")
    assert "there is no user 'no-such-user'" in nobody.reason and nobody.cure
    os.chown(datadir / "ibdata1", 4711, 4711)
    strange = mariadb.run(Verb.START)
    assert f"user {user} may not" in strange.reason and "ibdata1 (owner uid 4711" in strange.reason, strange
    assert f"chown -R {user}: {datadir}" in strange.cure
    shutil.chown(datadir / "ibdata1", user)
    os.chown(datadir, 0, 0)
    datadir.chmod(0o700)
    roots = mariadb.run(Verb.START)
    assert f"{datadir} (owner root, mode 0700)" in roots.reason, roots
    shutil.chown(datadir, user)
    place.chmod(0o700)
    closed = mariadb.run(Verb.START)
    assert f"may not enter {place} (owner root, mode 0700)" in closed.reason, closed
    place.chmod(0o711)
    shutil.move(datadir / "mysql", place / "kept")
    no_datadir = mariadb.run(Verb.START)
    assert "is not a datadir: it has" in no_datadir.reason
    shutil.move(place / "kept", datadir / "mysql")
    assert mariadb.run(Verb.START).ok


def fill(folder: Path) -> None:
    with (folder / "filler").open("ab", buffering=0) as filler, contextlib.suppress(OSError):
        while filler.write(bytes(65_536)):
            pass


def test_a_datadir_that_was_taken_away_is_told_and_its_server_stopped(mariadb: Bench, place: Path) -> None:
    """As by a lazy unmount: the server goes on with what it has open, and must be found all the same."""
    assert mariadb.run(Verb.START).ok
    mariadb.params["datadir"].rename(place / "away")
    outcome = mariadb.run(Verb.MONITOR, depth=10)
    assert not outcome.ok and "No such file" in outcome.reason and "mounted?" in outcome.cure, outcome
    stopped = mariadb.run(Verb.STOP)
    assert stopped.ok and stopped.leftovers == 0


def test_a_full_disk_is_told(mariadb: Bench, place: Path) -> None:
    """By the start, in the server's own words, and by a monitor that writes."""
    small = place / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40M,mode=0755", "tmpfs", small], check=True)
    try:
        datadir = small / "data"
        subprocess.run(["cp", "-a", mariadb.params["datadir"], datadir], check=True)
        mariadb.params["datadir"] = datadir
        assert mariadb.run(Verb.START).ok
        assert mariadb.run(Verb.MONITOR, depth=20).health is Health.RUNNING
        fill(small)
        outcome = mariadb.run(Verb.MONITOR, depth=20, table="other.probe")
        assert not outcome.ok and "no space is left" in outcome.reason, outcome
        assert mariadb.run(Verb.STOP).ok
        fill(small)
        outcome = mariadb.run(Verb.START)
        assert not outcome.ok and "free some space" in outcome.cure, outcome
    finally:
        mariadb.close()
        subprocess.run(["umount", "--lazy", small], check=True)


@pytest.mark.parametrize("has_log", [False, True])
def test_a_bad_option_is_told(mariadb: Bench, has_log: bool) -> None:
    """By validate and by a start, at once, wherever the configuration sends the log."""
    with mariadb.params["config"].open("a") as config:
        config.write("innodb_bufer_pool_size=1G\n")
        if has_log:
            log = mariadb.params["socket"].with_name("error.log")
            log.write_text("2026-01-01  0:00:00 0 [ERROR] of an earlier start\n")
            shutil.chown(log, mariadb.params["user"])
            config.write(f"log_error={log}\n")
    for verb in (Verb.VALIDATE, Verb.START):
        outcome = mariadb.run(verb)
        assert not outcome.ok and "innodb_bufer_pool_size" in outcome.reason, outcome
        assert "correct it" in outcome.cure and outcome.took_ms < 10_000
        assert "earlier" not in outcome.reason
    assert mariadb.left() == []


def test_options_that_are_the_agents_own_are_refused(mariadb: Bench) -> None:
    """By these a server is known as ours, and MariaDB takes them abbreviated."""
    for option in ("--datadir=/tmp", "--sock=/tmp/s", "--pid_file=/x", "--user=root", "datadir=/tmp"):
        for verb in (Verb.VALIDATE, Verb.START):
            outcome = mariadb.run(verb, options=[option])
            assert not outcome.ok and option in outcome.reason and "parameters" in outcome.cure, option


def test_parameters_that_cannot_be_right_are_told(mariadb: Bench, place: Path) -> None:
    """Before anything is started."""
    wrong = {
        "config = ": {"config": place / "no.cnf"},
        "login_file = ": {"login_file": place / "no.cnf"},
        "table = ": {"table": "drop table"},
        "longer than 107 bytes": {"socket": place / ("s" * 108)},
        "there is no user": {"user": "no-such-user"},
    }
    for text, params in wrong.items():
        outcome = mariadb.run(Verb.VALIDATE, **params)
        assert not outcome.ok and text in outcome.reason and outcome.cure, outcome
    assert mariadb.run(Verb.VALIDATE).ok and mariadb.left() == []


def test_a_file_at_the_sockets_path_is_not_taken_away(mariadb: Bench) -> None:
    """A server removes it unseen; the folder is made where /run was emptied by a boot."""
    mariadb.params["socket"].write_text("somebody's\n")
    outcome = mariadb.run(Verb.START)
    assert not outcome.ok and "is not a socket" in outcome.reason
    assert mariadb.params["socket"].read_text() == "somebody's\n"
    folder = mariadb.params["socket"].parent
    shutil.rmtree(folder)
    os.chown(folder.parent, 0, 0)
    assert mariadb.run(Verb.START).ok and folder.owner() == mariadb.params["user"]


def test_a_taken_port_is_told_and_nothing_is_left(mariadb: Bench) -> None:
    """In MariaDB's own words."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        tcp = {"port": taken.getsockname()[1], "bind_address": "127.0.0.1", "options": ["--skip-networking=0"]}
        outcome = mariadb.run(Verb.START, **tcp)
    assert not outcome.ok and "Address already in use" in outcome.reason and "ss -ltnp" in outcome.cure, outcome
    assert mariadb.left() == []


def test_depth_20_makes_its_table_and_fails_where_nothing_can_be_written(mariadb: Bench) -> None:
    """A database that only reads serves nobody who writes."""
    mariadb.run(Verb.START)
    assert mariadb.run(Verb.MONITOR, depth=20, table="one.two").health is Health.RUNNING
    [(row, _)] = sql(mariadb, "SELECT * FROM one.two")
    assert row == "bench"
    sql(mariadb, "DROP TABLE one.two")
    assert mariadb.run(Verb.MONITOR, depth=20, table="one.two").health is Health.RUNNING
    sql(mariadb, "CREATE USER watch@localhost", "GRANT ALL ON one.* TO watch@localhost", "SET GLOBAL read_only=1")
    outcome = mariadb.run(Verb.MONITOR, depth=20, table="one.two", login="watch")
    assert not outcome.ok and "read-only" in outcome.reason, outcome


def test_where_it_is_not_installed_it_is_stopped(mariadb: Bench) -> None:
    """The probe of a node without MariaDB is no failure; a start is, with the cure."""
    assert mariadb.run(Verb.MONITOR, program="/nowhere/mariadbd").health is Health.STOPPED
    outcome = mariadb.run(Verb.START, program="/nowhere/mariadbd")
    assert "is not installed" in outcome.reason and outcome.cure
