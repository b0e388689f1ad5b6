"""The ldap agent against a real slapd, a private instance on the loopback."""

import contextlib
import datetime
import ipaddress
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from hostd import processes
from hostd.api import Health, connections
from hostd.api.ldap.search import Found, look_for
from hostd.config import Directories
from hostd.jobs import Outcome, Verb
from hostd.registry import Registry
from tests.contracts.bench import Bench


@pytest.fixture
def slapd(tmp_path: Path) -> Iterator[Bench]:
    """A private instance that the user openldap can read."""
    directory = tmp_path / "slapd"
    directory.mkdir(mode=0o755)
    params = Registry.load(Directories(), system=tmp_path / "none").agent("ldap").sandbox(directory)
    assert params is not None
    bench = Bench(tmp_path, "ldap", params)
    yield bench
    bench.close()


def config_of(slapd: Bench) -> Path:
    return Path(slapd.params["config"])


def database_of(slapd: Bench) -> Path:
    return config_of(slapd).with_name("db")


def port_of(slapd: Bench) -> int:
    return urlsplit(slapd.params["urls"][0]).port or 0


def search(slapd: Bench, base: str = "o=sandbox") -> Found:
    with socket.create_connection(("127.0.0.1", port_of(slapd)), 5) as connection:
        return look_for(connection, base, until=time.monotonic() + 5)


def refused(outcome: Outcome, *words: str, within_ms: int = 5_000) -> bool:
    """It failed at once, with a cure, and its reason holds these words."""
    assert not outcome.ok and not outcome.timed_out and outcome.cure, outcome
    assert outcome.took_ms < within_ms
    for word in words:
        assert word in outcome.reason, outcome
    return True


# -- started and stopped --------------------------------------------------------------


def test_started_means_searchable_and_stopped_means_gone(slapd: Bench) -> None:
    """The entry is found when start returns; port and process are gone when stop returns."""
    assert slapd.run(Verb.MONITOR).health is Health.STOPPED
    started = slapd.run(Verb.START)
    assert started.ok, started
    assert search(slapd).entries == 1
    main = processes.look(started.main_pid)
    assert main is not None and main.name == "slapd" and main.session == main.pid
    assert Path(f"/proc/{main.pid}").owner() == "openldap"
    monitored = slapd.run(Verb.MONITOR, depth=10)
    assert (monitored.health, monitored.main_pid) == (Health.RUNNING, started.main_pid)
    stopped = slapd.run(Verb.STOP)
    assert stopped.ok and stopped.leftovers == 0 and "killing" not in stopped.output
    assert slapd.left() == []
    with pytest.raises(ConnectionRefusedError):
        search(slapd)
    assert slapd.run(Verb.MONITOR).health is Health.STOPPED


def test_start_and_stop_twice_are_as_once(slapd: Bench) -> None:
    """Already running and already stopped are successes; the second start starts nothing."""
    first, second = slapd.run(Verb.START), slapd.run(Verb.START)
    assert second.ok and second.main_pid == first.main_pid and len(slapd.left()) == 1
    assert slapd.run(Verb.STOP).ok and slapd.run(Verb.STOP).ok


def test_a_killed_server_is_noticed_and_started_again(slapd: Bench) -> None:
    """The main process is its own, a stale pid file stands in nobody's way, and the data is there."""
    started = slapd.run(Verb.START)
    watch = os.pidfd_open(started.main_pid)
    os.kill(started.main_pid, signal.SIGKILL)
    signal.pidfd_send_signal(watch, 0)  # not collected yet: a zombie
    os.close(watch)
    assert slapd.run(Verb.MONITOR).health is Health.STOPPED
    assert config_of(slapd).with_name("run").joinpath("slapd.pid").exists()
    again = slapd.run(Verb.START)
    assert again.ok and again.main_pid != started.main_pid
    assert search(slapd).entries == 1


def test_a_hung_server_fails_the_deep_monitor_in_time(slapd: Bench) -> None:
    """Stopped in its tracks: the port still accepts, nobody answers, and the process is there."""
    started = slapd.run(Verb.START)
    os.kill(started.main_pid, signal.SIGSTOP)
    assert slapd.run(Verb.MONITOR, depth=0).health is Health.RUNNING
    outcome = slapd.run(Verb.MONITOR, depth=10, search_timeout=0.5)
    assert not outcome.ok and not outcome.timed_out and "does not answer ldap://" in outcome.reason
    assert outcome.took_ms < 5_000


def test_a_server_that_does_not_end_is_killed_before_the_deadline_and_that_is_said(slapd: Bench) -> None:
    """A stopped process hears no SIGTERM."""
    started = slapd.run(Verb.START)
    os.kill(started.main_pid, signal.SIGSTOP)
    stopped = slapd.run(Verb.STOP, timeout_ms=3_000)
    assert stopped.ok and stopped.leftovers == 0 and slapd.left() == []
    assert f"slapd ({started.main_pid}) does not end; killing it" in stopped.output
    assert slapd.run(Verb.START).ok and search(slapd).entries == 1, "what was written is there"


def test_stop_waits_for_the_last_thread(slapd: Bench, tmp_path: Path) -> None:
    """A process whose first thread has ended looks dead to most, and its other threads may still write."""
    program, proof = tmp_path / "slapd-slow", tmp_path / "proof"
    shutil.copy(Path(sys.executable).resolve(), program)
    code = (
        "import ctypes, pathlib, signal, threading, time\n"
        f"def work(): time.sleep(1); pathlib.Path({str(proof)!r}).touch()\n"
        "signal.sigwait([signal.SIGTERM])\n"
        "threading.Thread(target=work).start()\n"
        "ctypes.CDLL(None).pthread_exit(None)\n"
    )
    code = f"import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM]); print(flush=True)\n{code}"
    argv = [str(program), "-c", code, "-f", str(config_of(slapd))]
    env = {**os.environ, "PYTHONHOME": sys.base_prefix}
    with subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, start_new_session=True) as slow:
        try:
            assert slow.stdout is not None and slow.stdout.readline() == b"\n"
            assert slapd.run(Verb.MONITOR, program=str(program)).health is Health.RUNNING
            stopped = slapd.run(Verb.STOP, program=str(program))
            assert stopped.ok and stopped.took_ms > 900 and "killing" not in stopped.output
            assert proof.exists()
        finally:
            slow.kill()


# -- configurations and URLs -------------------------------------------------------------


def test_cn_config_is_as_good_as_slapd_conf(slapd: Bench) -> None:
    """A folder of cn=config is validated, started, known again and stopped."""
    folder = config_of(slapd).with_name("slapd.d")
    folder.mkdir()
    assert refused(slapd.run(Verb.VALIDATE, config=folder), "bad configuration directory"), "it is empty"
    shutil.chown(folder, "openldap", "openldap")
    convert = ["slaptest", "-f", str(config_of(slapd)), "-F", str(folder)]
    subprocess.run(convert, user="openldap", group="openldap", check=True, capture_output=True)
    slapd.params["config"] = folder
    assert slapd.run(Verb.VALIDATE).ok
    started = slapd.run(Verb.START)
    assert started.ok and search(slapd).entries == 1
    assert slapd.run(Verb.MONITOR, depth=10).main_pid == started.main_pid
    other = slapd.run(Verb.MONITOR, config=config_of(slapd).with_name("slapd.conf"))
    assert other.health is Health.STOPPED, "another configuration is another server"
    assert slapd.run(Verb.STOP).ok and slapd.left() == []


def test_every_url_is_asked_ldaps_too(slapd: Bench) -> None:
    """A URL at which a stranger answers fails, even if all others are well."""
    certificate_for(config_of(slapd))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    slapd.params["urls"] = [*slapd.params["urls"], f"ldaps://127.0.0.1:{port}/"]
    assert slapd.run(Verb.START).ok
    assert slapd.run(Verb.MONITOR, depth=10).health is Health.RUNNING
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        more = [*slapd.params["urls"], f"ldaps://127.0.0.1:{stranger.getsockname()[1]}/"]
        outcome = slapd.run(Verb.MONITOR, depth=10, urls=more, search_timeout=0.5)
        assert f"does not answer {more[-1]}" in outcome.reason
        assert slapd.run(Verb.MONITOR, depth=10, urls=more, ask=more[:3]).health is Health.RUNNING


def certificate_for(config: Path) -> None:
    """TLS for this server, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "sandbox")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now.replace(2100))
    builder = builder.add_extension(
        x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
    )
    pem = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    pem += key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file = config.with_name("tls.pem")
    file.write_bytes(pem)
    lines = f"TLSCertificateFile {file}\nTLSCertificateKeyFile {file}\n"
    config.write_text(config.read_text().replace("database mdb", f"{lines}database mdb"))


def test_without_a_base_the_root_dse_is_asked(slapd: Bench) -> None:
    """Nothing has to be configured for a monitor that asks."""
    assert slapd.run(Verb.START, base="").ok
    assert slapd.run(Verb.MONITOR, depth=10, base="").health is Health.RUNNING


def test_a_base_that_is_not_there_fails_start_and_deep_monitor_at_once(slapd: Bench) -> None:
    """The server answers: waiting would not make it the right database."""
    assert refused(slapd.run(Verb.START, base="o=other"), "o=other", "noSuchObject")
    assert refused(slapd.run(Verb.MONITOR, depth=10, base="o=other"), "o=other", "noSuchObject")


def test_an_entry_that_only_one_may_read_is_found_by_him_and_his_password_is_never_shown(slapd: Bench) -> None:
    """The secret is in no argument list and in nothing that is printed."""
    config = config_of(slapd)
    config.write_text(config.read_text() + 'rootdn "cn=hostd,o=sandbox"\nrootpw tEn_sheKels\naccess to * by * none\n')
    who: dict[str, Any] = {"bind_dn": "cn=hostd,o=sandbox", "password": "tEn_sheKels"}
    started = slapd.run(Verb.START, **who)
    assert started.ok, started
    assert refused(slapd.run(Verb.MONITOR, depth=10), "anonymous", "noSuchObject")
    wrong = slapd.run(Verb.MONITOR, depth=10, **{**who, "password": "tEn_sheKelz"})
    assert refused(wrong, "invalidCredentials")
    right = slapd.run(Verb.MONITOR, depth=10, **who)
    assert right.health is Health.RUNNING
    told = [str(outcome) for outcome in (started, wrong, right)]
    told += [Path(f"/proc/{process.pid}/cmdline").read_text() for process in slapd.left()]
    assert len(told) == 4 and not any("tEn_sheKel" in text for text in told)


def test_a_run_folder_that_a_boot_took_away_is_made_again_for_user_and_group(slapd: Bench) -> None:
    """Only the distribution's start script would make it, and hostd does not call that."""
    folder = Path(f"/run/hostd-test-{os.getpid()}")
    slapd.params["urls"] = [slapd.params["urls"][0], f"ldapi://{str(folder / 'ldapi').replace('/', '%2F')}"]
    try:
        started = slapd.run(Verb.START, group="nogroup")
        assert started.ok, started
        assert (folder.owner(), Path(f"/proc/{started.main_pid}").group()) == ("openldap", "nogroup")
        assert slapd.run(Verb.STOP).ok
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# -- what goes wrong, each with its cure -------------------------------------------------


def test_a_taken_port_is_told_and_nothing_is_left(slapd: Bench) -> None:
    """slapd's own words reach the operator."""
    with socket.create_server(("127.0.0.1", port_of(slapd))):
        assert refused(slapd.run(Verb.START), "Address already in use")
    assert slapd.left() == []


def test_a_port_taken_in_one_address_family_is_told(slapd: Bench) -> None:
    """slapd starts all the same, at the other family, and somebody else answers the clients."""
    other: dict[str, Any] = {"urls": [f"ldap://:{port_of(slapd)}/"]}
    with socket.create_server(("127.0.0.1", port_of(slapd))) as stranger:
        thread = threading.Thread(target=answer_as_a_root_dse, args=(stranger,), daemon=True)
        thread.start()
        assert refused(slapd.run(Verb.START, base="", **other), "another process answers")
        thread.join(5)


def answer_as_a_root_dse(server: socket.socket) -> None:
    """What another directory server would say, to all that come within the next moments."""
    server.settimeout(1)
    while True:
        try:
            connection = server.accept()[0]
        except OSError:
            return
        with connection:
            connection.recv(1000)
            connection.sendall(bytes.fromhex("3009 020102 6404 0400 3000  300c 020102 6507 0a0100 0400 0400"))


def test_a_bad_line_is_told(slapd: Bench) -> None:
    """By validate, and by a start at once, with the number of the line."""
    config_of(slapd).write_text(config_of(slapd).read_text().replace("suffix", "sufix"))
    for verb in (Verb.VALIDATE, Verb.START):
        outcome = slapd.run(verb)
        assert refused(outcome, "unknown directive <sufix>", "line ")
        assert outcome.cure == f"slaptest -u -f {config_of(slapd)}"
    assert slapd.left() == []


def test_a_missing_folder_of_the_database_is_told(slapd: Bench) -> None:
    """As when the shared disk is not mounted."""
    database_of(slapd).rename(database_of(slapd).with_name("away"))
    for verb in (Verb.VALIDATE, Verb.START):
        outcome = slapd.run(verb)
        assert refused(outcome, "invalid path: No such file or directory") and str(database_of(slapd)) in outcome.cure


def test_a_database_of_the_wrong_owner_is_told(slapd: Bench) -> None:
    """The classic: slapadd was run as root.  slapd would have the backup restored; a chown is enough."""
    os.chown(database_of(slapd) / "data.mdb", 0, 0)
    assert refused(slapd.run(Verb.VALIDATE), "belongs to root, not to openldap")
    outcome = slapd.run(Verb.START)
    assert refused(outcome, "Permission denied")
    assert outcome.cure == f"chown -R openldap: {database_of(slapd)}"


@pytest.mark.parametrize(("from_page", "pages"), [(0, 2), (2, 20)])
def test_a_damaged_database_is_told_and_not_replaced(slapd: Bench, from_page: int, pages: int) -> None:
    """Garbage in its first pages, or behind them: nothing is started, nothing is written."""
    data = database_of(slapd) / "data.mdb"
    with data.open("r+b") as file:
        file.seek(from_page * 4096)
        file.write(b"\xa5" * pages * 4096)
    before = data.read_bytes()
    outcome = slapd.run(Verb.START)
    assert refused(outcome, "MDB_") and "slapadd" in outcome.cure
    assert slapd.left() == [] and data.read_bytes() == before


def test_an_emptied_database_is_not_taken_for_the_right_one(slapd: Bench) -> None:
    """slapd makes a new, empty one of it and is content; with ``base`` the start is not."""
    os.truncate(database_of(slapd) / "data.mdb", 0)
    assert refused(slapd.run(Verb.START), "searched for o=sandbox", "noSuchObject")


def test_a_missing_user_is_told(slapd: Bench) -> None:
    """Before it could run as root instead."""
    assert refused(slapd.run(Verb.START, user="nobody-here"), "No passwd entry for user nobody-here")


def test_a_missing_configuration_is_told(slapd: Bench) -> None:
    """And a node without it, as while the shared disk is elsewhere, is simply stopped."""
    assert refused(slapd.run(Verb.START, config=Path("/nowhere/slapd.conf")), "/nowhere/slapd.conf does not exist")
    assert slapd.run(Verb.MONITOR, config=Path("/nowhere/slapd.conf")).health is Health.STOPPED
    assert slapd.run(Verb.STOP, config=Path("/nowhere/slapd.conf")).ok


@pytest.mark.parametrize("urls", [["http://127.0.0.1/"], ["ldap://127.0.0.1/ ldap:///"]])
def test_a_url_that_is_none_is_told(slapd: Bench, urls: list[str]) -> None:
    """By validate; slapd has just one argument for all of them."""
    assert refused(slapd.run(Verb.VALIDATE, urls=urls), "is no ldap, ldaps or ldapi URL")
    assert refused(slapd.run(Verb.VALIDATE, ask=["ldap:///"]), "is not one of urls")


def test_a_good_configuration_is_valid(slapd: Bench) -> None:
    """And asking for it starts nothing."""
    assert slapd.run(Verb.VALIDATE).ok and slapd.left() == []


def test_where_it_is_not_installed_it_is_stopped(slapd: Bench) -> None:
    """The probe of a node without slapd is no failure; a start is, with the cure."""
    assert slapd.run(Verb.MONITOR, program="/nowhere/slapd").health is Health.STOPPED
    assert refused(slapd.run(Verb.START, program="/nowhere/slapd"), "is not installed")


# -- never two ---------------------------------------------------------------------------


def test_a_second_server_on_the_same_database_is_refused(slapd: Bench, tmp_path: Path) -> None:
    """Another configuration and another port: slapd itself would let both write."""
    other = config_of(slapd).with_name("other.conf")
    shutil.copy(config_of(slapd), other)
    first = slapd.run(Verb.START)
    second: dict[str, Any] = {"config": other, "urls": ["ldap://127.0.0.1:0/"]}
    outcome = slapd.run(Verb.START, **second)
    assert refused(outcome, "data.mdb is open in process", str(first.main_pid))
    assert len(slapd.left()) == 1
    assert slapd.run(Verb.MONITOR, depth=10).health is Health.RUNNING


def test_a_tool_is_no_server_and_one_that_writes_keeps_the_server_from_starting(slapd: Bench) -> None:
    """slapadd is the same program under another name, and has the database open."""
    with subprocess.Popen(
        ["slapadd", "-f", str(config_of(slapd))], stdin=subprocess.PIPE, user="openldap", group="openldap"
    ) as tool:
        try:
            until = time.monotonic() + 10
            while not holds(tool.pid, database_of(slapd) / "data.mdb") and time.monotonic() < until:
                time.sleep(0.02)
            assert slapd.run(Verb.MONITOR).health is Health.STOPPED
            assert refused(slapd.run(Verb.START), "data.mdb is open in process", "slapadd")
            assert slapd.run(Verb.STOP).ok and tool.poll() is None, "it is not ours to stop"
        finally:
            assert tool.stdin is not None
            tool.stdin.close()
            tool.wait(10)
    assert slapd.run(Verb.START).ok


def holds(pid: int, file: Path) -> bool:
    """Files come and go while one looks."""
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            if str(link.readlink()) == str(file):
                return True
    return False


def test_a_server_in_another_network_is_left_alone(slapd: Bench) -> None:
    """The same program and configuration in a container is not ours to stop."""
    argv = ["unshare", "--net", "slapd", "-d", "none", "-u", "openldap", "-h", "ldapi://%2Fdev%2Fnull%2Fnone"]
    argv[-1] = slapd.params["urls"][1]
    other = subprocess.Popen([*argv, "-f", str(config_of(slapd))], start_new_session=True, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 10
        while (look := processes.look(other.pid)) and look.name != "slapd" and time.monotonic() < until:
            time.sleep(0.02)
        assert slapd.run(Verb.MONITOR).health is Health.STOPPED
        assert slapd.run(Verb.STOP).ok
        assert other.poll() is None
    finally:
        os.killpg(other.pid, signal.SIGKILL)
        other.wait()


# -- who answers ---------------------------------------------------------------------------


def test_the_kernel_tells_who_is_at_the_other_end() -> None:
    """Of a connection over IPv4, over IPv6, over both at once, and of a Unix socket."""
    for family, address, dual in ((socket.AF_INET, "127.0.0.1", False), (socket.AF_INET6, "::1", False),
                                  (socket.AF_INET6, "::", True)):  # fmt: skip
        server = socket.create_server((address, 0), family=family, dualstack_ipv6=dual)
        host = "127.0.0.1" if dual else address
        with server, socket.create_connection((host, server.getsockname()[1])) as connection:
            assert not connections.answers(connection, os.getpid()), "it waits to be accepted"
            with server.accept()[0]:
                assert connections.answers(connection, os.getpid())
                assert not connections.answers(connection, os.getppid())
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert connections.answers(ours, os.getpid()) and not connections.answers(ours, os.getppid())


# -- the search by hand --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", ConnectionError),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", ConnectionError),
        (bytes.fromhex("30 0c 020102 6507"), ConnectionError),
        (bytes.fromhex("30 03 020102"), EOFError),
        (bytes.fromhex("30 84ffffffff 020102"), ConnectionError),
        (bytes.fromhex("30 09 020102 6504 0a0100 04"), EOFError),
    ],
)
def test_what_is_no_answer_is_an_error(answer: bytes, error: type[Exception]) -> None:
    """Garbage, halves and silence end in the two errors that an agent expects."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(answer)
        theirs.shutdown(socket.SHUT_WR)
        with pytest.raises(error):
            look_for(ours, "", until=time.monotonic() + 5)


def test_a_silent_server_costs_the_time_limit_and_no_more() -> None:
    """However slowly it dribbles."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(bytes.fromhex("30 0c"))
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            look_for(ours, "", until=began + 0.2)
        assert time.monotonic() - began < 2


def test_a_long_name_is_asked_for_as_it_is(slapd: Bench) -> None:
    """Lengths of more than one byte are written, and read, right."""
    assert slapd.run(Verb.START).ok
    assert search(slapd, f"ou={'x' * 300},o=sandbox").code == 32
    assert search(slapd, "no name").code == 34
