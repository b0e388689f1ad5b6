"""The cyrus agent against a real Cyrus IMAP, a private instance on the loopback."""

import contextlib
import imaplib
import os
import re
import shutil
import signal
import smtplib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from hostd import processes
from hostd.api import Health, servers
from hostd.jobs import Outcome, Verb
from tests.contracts.bench import Bench


class Cyrus(Bench):
    """A bench with what a mail client and an administrator do."""

    @property
    def directory(self) -> Path:
        return Path(self.params["config"]).parent

    @property
    def data(self) -> Path:
        return self.directory / "lib"

    @property
    def port(self) -> int:
        line = next(line for line in self.conf("services").splitlines() if 'imap cmd="imapd' in line)
        return int(line.partition("127.0.0.1:")[2].partition('"')[0])

    def conf(self, name: str) -> str:
        return Path(self.params[name]).read_text()

    def edit(self, name: str, old: str, new: str) -> None:
        """Change a configuration file; "" stands for its end."""
        text = self.conf(name)
        assert old in text
        Path(self.params[name]).write_text(text.replace(old, new) if old else text + new)

    def session(self) -> imaplib.IMAP4:
        session = imaplib.IMAP4("127.0.0.1", self.port, timeout=10)
        session.login(self.params["user"], self.params["password"])
        return session

    def subjects(self) -> list[str]:
        """Of all messages in the INBOX."""
        with self.session() as session:
            session.select("INBOX", readonly=True)
            numbers = session.search(None, "ALL")[1][0].split()
            texts = [session.fetch(number, "(BODY.PEEK[HEADER.FIELDS (SUBJECT)])")[1][0][1] for number in numbers]
            return [text.decode().partition(":")[2].strip() for text in texts]

    def append(self, subject: str) -> None:
        with self.session() as session:
            assert session.append("INBOX", "", "", f"Subject: {subject}\r\n\r\nhello\r\n".encode())[0] == "OK"

    def deliver(self, subject: str) -> None:
        """By LMTP, as a mail transport agent does."""
        with smtplib.LMTP(str(self.directory / "lmtp")) as lmtp:
            text = f"Subject: {subject}\r\nMessage-ID: <{subject}@localhost>\r\n\r\nhello\r\n"
            assert lmtp.sendmail("sender@localhost", [self.params["user"]], text) == {}

    def by_hand(
        self, *before: str, config: Path | None = None, pid_file: str = "by-hand.pid"
    ) -> subprocess.Popen[bytes]:
        """A master started outside of hostd."""
        argv = [*before, "cyrmaster", "-D", "-C", str(config or self.params["config"])]
        argv += ["-M", str(self.params["services"]), "-p", str(self.directory / "by-hand.pid")]
        return subprocess.Popen(argv, start_new_session=True, stdin=subprocess.DEVNULL, stderr=sys.stderr)

    def fails(self, verb: Verb, words: str, cure: str = "", **params: Any) -> Outcome:
        """It does, soon, with these words and nothing left."""
        outcome = self.run(verb, **params)
        assert not outcome.ok and words in outcome.reason, outcome
        assert cure in outcome.cure and outcome.cure, outcome
        assert not outcome.timed_out and outcome.took_ms < 8_000, outcome
        assert self.left() == []
        return outcome


@pytest.fixture
def cyrus(tmp_path: Path) -> Iterator[Cyrus]:
    """A private instance, stopped."""
    directory = tmp_path / "c"
    directory.mkdir()
    bench = Cyrus(tmp_path, "cyrus", {})
    params = bench.registry.agent("cyrus").sandbox(directory)
    assert params is not None
    bench.params |= params
    yield bench
    bench.close()


@pytest.fixture
def served(cyrus: Cyrus) -> Cyrus:
    """The same, started, with a mail in it, and stopped again."""
    assert cyrus.run(Verb.START).ok
    cyrus.append("first")
    assert cyrus.run(Verb.STOP).ok
    return cyrus


def until(claim: Callable[[], object], seconds: float = 10) -> None:
    give_up = time.monotonic() + seconds
    while not claim():
        assert time.monotonic() < give_up, "it did not come about"
        time.sleep(0.02)


def greets(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 5) as connection:
            return connection.recv(100).startswith(b"* OK")
    except OSError:
        return False


def end(process: "subprocess.Popen[bytes]") -> None:
    """All of its session: what it has started does not end with it."""
    while found := session_of(process.pid):
        for one in found:
            with contextlib.suppress(psutil.NoSuchProcess):  # those of a namespace end with its first
                one.kill()
        psutil.wait_procs(found, 5)
    process.wait()


def session_of(pid: int) -> list[psutil.Process]:
    """Everything alive in the session that this process leads or has led."""
    found = []
    for one in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            if os.getsid(one.pid) == pid and one.status() != psutil.STATUS_ZOMBIE:
                found.append(one)
    return found


# -- as it should be ----------------------------------------------------------------


def test_started_means_usable_and_stopped_means_gone(cyrus: Cyrus) -> None:
    """A user can log in when start returns; port and processes are free when stop returns."""
    assert cyrus.run(Verb.VALIDATE).ok
    assert cyrus.run(Verb.MONITOR).health is Health.STOPPED
    started = cyrus.run(Verb.START)
    assert started.ok, started
    cyrus.append("hello")
    assert cyrus.subjects() == ["hello"]
    main = processes.look(started.main_pid)
    assert main is not None and main.name in ("cyrmaster", "master") and main.session == main.pid
    for depth in (0, 10, 20):
        monitored = cyrus.run(Verb.MONITOR, depth=depth)
        assert (monitored.health, monitored.main_pid) == (Health.RUNNING, started.main_pid), monitored
    assert cyrus.subjects() == ["hello"], "the message of the monitor is gone again"
    stopped = cyrus.run(Verb.STOP)
    assert stopped.ok and stopped.leftovers == 0 and cyrus.left() == []
    assert not greets(cyrus.port)
    assert cyrus.run(Verb.MONITOR).health is Health.STOPPED


def test_start_and_stop_twice_are_as_once(cyrus: Cyrus) -> None:
    """Already running and already stopped are successes; the second start starts nothing."""
    first, second = cyrus.run(Verb.START), cyrus.run(Verb.START)
    assert second.ok and second.main_pid == first.main_pid
    assert cyrus.run(Verb.STOP).ok and cyrus.run(Verb.STOP).ok


def test_without_a_user_a_greeting_and_noop_are_asked_for(cyrus: Cyrus) -> None:
    """Nothing but the two files has to be configured."""
    assert cyrus.run(Verb.START, user="").ok
    assert cyrus.run(Verb.MONITOR, depth=10, user="").health is Health.RUNNING
    assert cyrus.run(Verb.MONITOR, depth=20, user="").health is Health.RUNNING


def test_imaps_is_asked_as_well(cyrus: Cyrus) -> None:
    """An imapd -s, the only one or named by ``url``."""
    key, port = cyrus.directory / "key.pem", cyrus.port
    argv = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-subj",
        "/CN=localhost",
        "-days",
        "1",
    ]
    subprocess.run([*argv, "-keyout", key, "-out", key], check=True, capture_output=True)
    shutil.chown(key, "cyrus")
    cyrus.edit("config", "", f"tls_server_cert: {key}\ntls_server_key: {key}\nimap_allowplaintext: no\n")
    cyrus.edit("services", 'imap cmd="imapd', 'imap cmd="imapd -s')
    assert cyrus.run(Verb.START).ok
    assert cyrus.run(Verb.MONITOR, depth=20, url=f"imaps://127.0.0.1:{port}/").health is Health.RUNNING
    outcome = cyrus.run(Verb.MONITOR, depth=10, url=f"imap://127.0.0.1:{port}/", request_timeout=1.0)
    assert not outcome.ok and "does not answer" in outcome.reason


def test_a_login_goes_through_starttls_where_it_must(cyrus: Cyrus) -> None:
    """``allowplaintext: no``, Cyrus' own default, forbids a password in the clear."""
    key = cyrus.directory / "key.pem"
    argv = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-subj",
        "/CN=localhost",
        "-days",
        "1",
    ]
    subprocess.run([*argv, "-keyout", key, "-out", key], check=True, capture_output=True)
    shutil.chown(key, "cyrus")
    cyrus.edit("config", "", f"tls_server_cert: {key}\ntls_server_key: {key}\n")
    cyrus.edit("config", "allowplaintext: yes", "allowplaintext: no")
    assert cyrus.run(Verb.START).ok
    assert cyrus.run(Verb.MONITOR, depth=20).health is Health.RUNNING


# -- crashes ------------------------------------------------------------------------


def test_mail_taken_before_a_crash_is_there_after_it(cyrus: Cyrus) -> None:
    """Master killed, and then everything: what a client or an MTA was told is safe, is."""
    started = cyrus.run(Verb.START)
    cyrus.append("by IMAP")
    cyrus.deliver("by-LMTP")
    os.kill(started.main_pid, signal.SIGKILL)
    assert cyrus.run(Verb.START).ok
    cyrus.deliver("later")
    for process in cyrus.left():
        os.kill(process.pid, signal.SIGKILL)
    until(lambda: not cyrus.left())
    assert cyrus.run(Verb.MONITOR).health is Health.STOPPED
    assert cyrus.run(Verb.START).ok
    assert cyrus.subjects() == ["by IMAP", "by-LMTP", "later"]


def test_a_crash_in_the_middle_of_writing_loses_nothing_that_was_acknowledged(cyrus: Cyrus) -> None:
    """Everything killed while a client leaves one message after the other."""
    assert cyrus.run(Verb.START).ok
    acknowledged: list[str] = []

    def write() -> None:
        session = cyrus.session()
        with contextlib.suppress(imaplib.IMAP4.abort, OSError):
            while True:
                subject = f"mail-{len(acknowledged)}"
                if session.append("INBOX", "", "", f"Subject: {subject}\r\n\r\nhello\r\n".encode())[0] == "OK":
                    acknowledged.append(subject)

    client = threading.Thread(target=write)
    client.start()
    until(lambda: len(acknowledged) >= 10)
    for process in cyrus.left():
        os.kill(process.pid, signal.SIGKILL)
    client.join()
    assert cyrus.run(Verb.START).ok
    assert set(acknowledged) <= set(cyrus.subjects())
    assert cyrus.run(Verb.MONITOR, depth=20).health is Health.RUNNING


def test_orphans_are_a_failure_and_do_not_stop_the_next_start(cyrus: Cyrus) -> None:
    """They go on greeting: the monitor is not fooled, and start ends them, sessions and idled included."""
    started = cyrus.run(Verb.START)
    session = cyrus.session()
    os.kill(started.main_pid, signal.SIGKILL)
    assert greets(cyrus.port), "the orphans answer, which is the trap"
    before = {process.pid for process in cyrus.left()}
    outcome = cyrus.run(Verb.MONITOR)
    assert not outcome.ok and "imapd" in outcome.reason and "idled" in outcome.reason, outcome
    again = cyrus.run(Verb.START)
    with pytest.raises((imaplib.IMAP4.abort, OSError)):
        session.noop()
    assert again.ok and again.main_pid != started.main_pid
    assert "left by a master that is gone" in again.output
    assert before.isdisjoint(process.pid for process in cyrus.left())


def test_orphans_are_stopped(cyrus: Cyrus) -> None:
    """Stop leaves nothing, whatever it finds."""
    started = cyrus.run(Verb.START)
    os.kill(started.main_pid, signal.SIGKILL)
    stopped = cyrus.run(Verb.STOP)
    assert stopped.ok and stopped.leftovers == 0 and cyrus.left() == []


def test_a_session_does_not_hold_up_a_stop(cyrus: Cyrus) -> None:
    """It is told BYE."""
    cyrus.run(Verb.START)
    session = cyrus.session()
    stopped = cyrus.run(Verb.STOP)
    assert stopped.ok and stopped.took_ms < 8_000 and "killing" not in stopped.output
    with pytest.raises((imaplib.IMAP4.abort, OSError)):
        session.noop()


def test_a_master_that_does_not_hear_that_it_is_alone_is_not_waited_for(cyrus: Cyrus) -> None:
    """As one is whose clients go on connecting after its SIGTERM: nothing is at work on the mail any more."""
    master = cyrus.run(Verb.START).main_pid
    assert master is not None
    os.kill(master, signal.SIGSTOP)
    for process in cyrus.left():
        if process.pid != master:
            os.kill(process.pid, signal.SIGKILL)
    stopped = cyrus.run(Verb.STOP)
    assert stopped.ok and stopped.took_ms < 8_000, stopped
    assert cyrus.left() == []


def test_what_does_not_react_is_killed_late_and_with_a_warning(cyrus: Cyrus) -> None:
    """Everything stopped by a signal hears no SIGTERM."""
    cyrus.run(Verb.START)
    for process in cyrus.left():
        os.kill(process.pid, signal.SIGSTOP)
    stopped = cyrus.run(Verb.STOP, timeout_ms=6_000)
    assert stopped.ok and stopped.leftovers == 0 and cyrus.left() == []
    assert "WARNING killing what did not end: process" in stopped.output
    assert stopped.took_ms >= 2_000


def test_recovery_is_shown_and_counts_against_the_limit(cyrus: Cyrus) -> None:
    """A start that hangs in START is cut off, with what it was at; nothing is left."""
    cyrus.edit("services", "START {", 'START {\n  slow cmd="/bin/sleep 60"')
    outcome = cyrus.run(Verb.START, timeout_ms=1_500)
    assert outcome.timed_out and re.search(r"is in START: process \d+ \(sleep\)", outcome.output), outcome
    assert cyrus.left() == []


def test_a_damaged_database_is_told(served: Cyrus) -> None:
    """Cyrus itself goes on after a failed recovery, and greets or keeps silent."""
    for name in ("mailboxes.db", "annotations.db"):
        database = served.data / name
        before = database.read_bytes()
        database.write_bytes(bytes(len(before)))
        served.fails(Verb.START, f"{name} is damaged", "db.backup1")
        database.write_bytes(before)
    (served.data / "mailboxes.db").write_bytes(before[:20] + b"garbage" * 50)
    served.fails(Verb.START, "Cyrus failed: can't read mailboxes file", "db.backup1")


def test_a_hung_server_fails_the_deep_monitor_in_time(cyrus: Cyrus) -> None:
    """All processes stopped: the port still accepts, nobody answers."""
    cyrus.run(Verb.START)
    for process in cyrus.left():
        os.kill(process.pid, signal.SIGSTOP)
    outcome = cyrus.run(Verb.MONITOR, depth=10, request_timeout=0.5)
    assert not outcome.ok and not outcome.timed_out and "does not answer" in outcome.reason
    assert outcome.took_ms < 5_000


# -- one server on one configdirectory ----------------------------------------------


def test_a_master_started_by_hand_is_ours(cyrus: Cyrus) -> None:
    """It is known by its configuration, with or without its master, and stopped down to the last child."""
    for victim in ("nobody", "master"):
        by_hand = cyrus.by_hand()
        try:
            until(lambda: greets(cyrus.port))
            assert cyrus.run(Verb.MONITOR, depth=10).health is Health.RUNNING
            assert cyrus.run(Verb.START).main_pid == by_hand.pid
            children = psutil.Process(by_hand.pid).children()
            if victim == "master":
                by_hand.kill()
                until(lambda master=by_hand.pid: not servers.is_alive(master))
                assert "orphan" in (found := cyrus.run(Verb.MONITOR)).reason or "master is gone" in found.reason
            assert cyrus.run(Verb.STOP).ok
            assert not any(servers.is_alive(child.pid) for child in children) and not greets(cyrus.port)
        finally:
            end(by_hand)


def test_two_masters_of_one_configuration_are_a_failure_that_stop_ends(cyrus: Cyrus) -> None:
    """Cyrus does not mind: each has a pid file of its own."""
    started = cyrus.run(Verb.START)
    by_hand = cyrus.by_hand()
    try:
        until(lambda: any("idled" in str(one) for one in session_of(by_hand.pid)))
        for verb in (Verb.MONITOR, Verb.START):
            outcome = cyrus.run(verb)
            assert not outcome.ok and "2 masters run with one configuration" in outcome.reason, outcome
        assert cyrus.run(Verb.STOP).ok and by_hand.wait(5) == 0
        assert not servers.is_alive(started.main_pid)
    finally:
        end(by_hand)


def test_a_master_of_another_configuration_keeps_ours_away(served: Cyrus) -> None:
    """Same configdirectory, other imapd.conf: refused and left alone, its orphans too."""
    other = served.directory / "other.conf"
    other.write_text(served.conf("config"))
    served.edit("services", str(served.params["config"]), str(other))
    by_hand = served.by_hand(config=other)
    try:
        until(lambda: greets(served.port))
        served.edit("services", str(other), str(served.params["config"]))
        assert served.run(Verb.MONITOR).health is Health.STOPPED
        served.fails(Verb.START, "is at work on configdirectory", "stop the other one")
        by_hand.kill()
        served.fails(Verb.START, "is at work on configdirectory")
        assert "not ours" in served.run(Verb.STOP).output and greets(served.port)
    finally:
        end(by_hand)


def test_a_server_in_another_namespace_keeps_ours_away(served: Cyrus) -> None:
    """The same configuration in a container is not ours to stop, and not to be joined."""
    by_hand = served.by_hand("unshare", "--net", "--pid", "--fork", "sh", "-c", 'ip link set lo up; exec "$@"', "sh")
    try:
        until(lambda: any("imapd" in str(one) for one in session_of(by_hand.pid)))
        assert served.run(Verb.MONITOR).health is Health.STOPPED
        served.fails(Verb.START, "is at work on configdirectory", "stop the other one")
        assert served.run(Verb.STOP).ok and by_hand.poll() is None
    finally:
        end(by_hand)


def start_in_a_namespace(cyrus: Cyrus, limit: str) -> "subprocess.Popen[str]":
    """From where nothing is seen of the others."""
    argv = ["unshare", "--pid", "--net", "--fork", "--kill-child", "--mount-proc"]
    argv += ["sh", "-c", 'ip link set lo up; exec "$@"', "sh", sys.executable, "-m", "hostd.commands.agent_main"]
    argv += ["run", "--runtime-dir", f"{cyrus.directory}/ns", "--state-dir", f"{cyrus.directory}/ns"]
    argv += ["--timeout", limit, "cyrus", "start"]
    argv += [f"{name}={cyrus.params[name]}" for name in ("config", "services")]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)


def test_a_server_that_cannot_be_seen_keeps_ours_away(cyrus: Cyrus) -> None:
    """The lock is seen from every namespace, and held by the last orphan too."""
    started = cyrus.run(Verb.START)
    os.kill(started.main_pid, signal.SIGKILL)
    said, _ = start_in_a_namespace(cyrus, "4s").communicate(timeout=60)
    assert "reason: a process that cannot be seen from here" in said and "at work on configdirectory" in said, said
    assert greets(cyrus.port)


def test_the_lock_of_a_dead_node_is_waited_for(cyrus: Cyrus) -> None:
    """A cluster filesystem gives it back when it has recovered."""
    assert cyrus.run(Verb.START).ok
    with start_in_a_namespace(cyrus, "60s") as other:
        with pytest.raises(subprocess.TimeoutExpired):
            other.wait(2)
        assert cyrus.run(Verb.STOP).ok
        said, _ = other.communicate(timeout=60)
    assert other.returncode == 0, said


def test_an_administrators_tool_is_left_alone(served: Cyrus) -> None:
    """It is no orphan, so it is not killed; but no server starts beside it."""
    argv = ["/usr/lib/cyrus/bin/idled", "-d", "-C", str(served.params["config"])]
    tool = subprocess.Popen(argv, start_new_session=True)
    try:
        until(lambda: (served.directory / "idle").exists())
        assert served.run(Verb.MONITOR).health is Health.STOPPED
        served.fails(Verb.START, f"process {tool.pid} (idled) is at work on configdirectory")
        assert served.run(Verb.STOP).ok and tool.poll() is None
    finally:
        end(tool)


def test_another_programs_answer_is_not_taken_for_ours(cyrus: Cyrus) -> None:
    """Identity is proven: the port must be one that our master listens on."""
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        url = f"imap://127.0.0.1:{stranger.getsockname()[1]}/"
        cyrus.run(Verb.START)
        outcome = cyrus.run(Verb.MONITOR, depth=10, url=url)
    assert not outcome.ok and "does not listen at" in outcome.reason


# -- what is missing or wrong -------------------------------------------------------


def test_a_taken_port_is_told(cyrus: Cyrus) -> None:
    """With who has it.  master itself would go on without the service."""
    with socket.create_server(("127.0.0.1", cyrus.port)):
        cyrus.fails(Verb.START, f"({os.getpid()}) is there already")


def test_an_address_that_is_not_here_is_told(cyrus: Cyrus) -> None:
    """The service's address comes first, in conf.d."""
    cyrus.edit("services", "127.0.0.1:", "192.0.2.1:")
    cyrus.fails(Verb.START, "Cannot assign requested address", "before the agent")


@pytest.mark.parametrize(
    ("file", "old", "new", "words"),
    [
        ("config", "", "this is no setting\n", "invalid option name on line"),
        ("config", "servername: localhost\n", "servername:\n", "empty option value on line"),
        ("services", "prefork=1", "prefork", "bad character"),
        ("services", 'cmd="imapd -C', 'cmd="nosuchd -C', "nosuchd is not installed"),
        ("services", "127.0.0.1:", "127.0.0.1:x", "which is no port"),
        ("config", "sasl_pwcheck_method: auxprop", "sasl_pwcheck_method: saslauthd", "does not answer at"),
        ("config", "/sasldb2", "/sasldb3", "nobody could log in"),
        ("config", "", "cyrus_user: nosuchuser\n", "nosuchuser"),
    ],
)
def test_a_bad_configuration_is_told(cyrus: Cyrus, file: str, old: str, new: str, words: str) -> None:
    """By a start at once, not at the time limit; and not by syslog alone, as Cyrus does."""
    cyrus.edit(file, old, new)
    cyrus.fails(Verb.START, words)
    if "port" not in words:
        cyrus.fails(Verb.VALIDATE, words)


def test_a_url_that_cannot_be_asked_is_told(cyrus: Cyrus) -> None:
    """Another scheme, or a name, which says nothing of who listens where."""
    for url in ("http://127.0.0.1/", "imap://localhost/", "imap://127.0.0.1:x/"):
        cyrus.fails(Verb.VALIDATE, f"url: '{url}' is not of the form imap://ADDRESS", "such as", url=url)


def test_a_service_without_our_configuration_is_told(cyrus: Cyrus) -> None:
    """master does not hand its -C on: imapd would serve /etc/imapd.conf."""
    cyrus.edit("services", f'cmd="imapd -C {cyrus.params["config"]}"', 'cmd="imapd -U 30"')
    for verb in (Verb.VALIDATE, Verb.START):
        cyrus.fails(verb, "imap in SERVICES reads /etc/imapd.conf", f"-C {cyrus.params['config']}")


def test_a_start_without_recovery_is_told(cyrus: Cyrus) -> None:
    """After a crash somebody has to run ctl_cyrusdb -r."""
    cyrus.edit("services", " -r", " -c")
    cyrus.fails(Verb.VALIDATE, "does not run ctl_cyrusdb -r", "recover cmd=")


def test_an_unmounted_disk_is_told(served: Cyrus) -> None:
    """A missing or empty directory never becomes a new, empty server; not even where a new one was asked for."""
    for name in ("lib", "spool"):
        folder, away = served.directory / name, served.directory / "away"
        folder.rename(away)
        served.fails(Verb.START, f"{folder} does not exist", "mounted")
        assert served.run(Verb.VALIDATE).ok, "the other node may have the disk"
        folder.mkdir()
        shutil.chown(folder, "cyrus", "mail")
        words = "does not exist: to begin anew would hide all mail" if name == "lib" else "is empty, though"
        served.fails(Verb.START, words, "mounted", initialize=name == "spool")
        folder.rmdir()
        away.rename(folder)
    assert served.run(Verb.START, initialize=False).ok and served.subjects() == ["first"]


def test_an_empty_list_of_mailboxes_is_told(served: Cyrus) -> None:
    """What a full disk may leave; Cyrus would take it for a new server."""
    (served.data / "mailboxes.db").write_bytes(b"")
    served.fails(Verb.START, "mailboxes.db is empty")


def test_a_wrong_owner_is_told(served: Cyrus) -> None:
    """Of a directory, or of a database that was touched as root."""
    for path in (served.data, served.directory / "spool", served.data / "mailboxes.db"):
        mode = path.stat().st_mode
        os.chown(path, 0, 0)
        path.chmod(0o700)
        served.fails(Verb.START, f"may not write to {path}", f"chown cyrus: {path}")
        shutil.chown(path, "cyrus", "mail")
        path.chmod(mode)
    assert served.run(Verb.START).ok


def test_a_full_or_read_only_disk_is_told(cyrus: Cyrus) -> None:
    """Before anything is written to it."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m,mode=755", "tmpfs", cyrus.data], check=True)
    try:
        shutil.chown(cyrus.data, "cyrus", "mail")
        assert cyrus.run(Verb.START).ok and cyrus.run(Verb.STOP).ok
        with pytest.raises(OSError, match="No space left"), (cyrus.data / "ballast").open("wb", 0) as file:
            while True:
                file.write(b"0" * 65_536)
        cyrus.fails(Verb.START, "no space left", "make room")
        (cyrus.data / "ballast").unlink()
        subprocess.run(["mount", "-o", "remount,ro", cyrus.data], check=True)
        cyrus.fails(Verb.START, "read-only")
    finally:
        cyrus.close()
        subprocess.run(["umount", "-l", cyrus.data], check=True)


def test_a_service_that_master_lost_is_degraded(cyrus: Cyrus) -> None:
    """IMAP is served, another port of cyrus.conf is not: that is reported, and no reason to move."""
    assert cyrus.run(Verb.START).ok
    cyrus.edit(
        "services", "SERVICES {", f'SERVICES {{\n  sieve cmd="timsieved -C {cyrus.params["config"]}" listen="4190"'
    )
    outcome = cyrus.run(Verb.MONITOR, depth=10)
    assert outcome.health is Health.DEGRADED and "sieve (4190)" in outcome.output
    assert cyrus.run(Verb.MONITOR).health is Health.RUNNING
    assert cyrus.run(Verb.START).ok, "already running"


def test_a_login_that_is_refused_fails_at_once_and_tells_no_secret(cyrus: Cyrus) -> None:
    """Of start and deep monitor; nothing that the server runs or writes contains the password either."""
    cyrus.edit("config", "", "failedloginpause: 0\n")
    cyrus.fails(Verb.START, "refuses the login of hostd", "sasl_pwcheck_method", password="wr0ng")
    started = cyrus.run(Verb.START)
    outcome = cyrus.run(Verb.MONITOR, depth=20, password="wr0ng")
    assert "refuses the login of hostd" in outcome.reason and "wr0ng" not in str(outcome)
    words = [" ".join(psutil.Process(process.pid).cmdline()) for process in cyrus.left()]
    assert cyrus.params["password"] not in f"{started}{words}{cyrus.run(Verb.MONITOR, depth=20)}"


def test_a_mailbox_that_cannot_be_written_fails_at_depth_20(cyrus: Cyrus) -> None:
    """And only there."""
    assert cyrus.run(Verb.START).ok
    outcome = cyrus.run(Verb.MONITOR, depth=20, mailbox="no such box")
    assert not outcome.ok and "does not take a message into no such box" in outcome.reason
    assert cyrus.run(Verb.MONITOR, depth=10, mailbox="no such box").health is Health.RUNNING


def test_where_it_is_not_installed_it_is_stopped(cyrus: Cyrus) -> None:
    """The probe of a node without Cyrus is no failure; a start is, with the cure."""
    assert cyrus.run(Verb.MONITOR, program="/nowhere/cyrmaster").health is Health.STOPPED
    cyrus.fails(Verb.START, "is not installed", "apt-get install", program="/nowhere/cyrmaster")
    assert cyrus.run(Verb.STOP, program="/nowhere/cyrmaster").ok


def test_a_configuration_on_a_disk_that_is_away_is_stopped(cyrus: Cyrus) -> None:
    """The probe of the other node does not see it, and that is no failure."""
    away = {"config": "/nowhere/imapd.conf", "services": "/nowhere/cyrus.conf"}
    assert cyrus.run(Verb.MONITOR, **away).health is Health.STOPPED
    cyrus.fails(Verb.START, "/nowhere/imapd.conf cannot be read", "mounted", **away)
    assert cyrus.run(Verb.STOP, **away).ok


def test_run_directories_that_a_boot_has_emptied_are_made_again(cyrus: Cyrus) -> None:
    """Others than those of /run must be there."""
    folder = Path(f"/run/hostd-test-{os.getpid()}")
    cyrus.edit("config", "", f"proc_path: {folder}/proc\nmboxname_lockpath: {folder}/lock\n")
    try:
        assert cyrus.run(Verb.START).ok
        assert (folder / "proc").owner() == "cyrus"
        assert cyrus.run(Verb.STOP).ok
        cyrus.edit("config", str(folder), "/srv/nowhere")
        cyrus.fails(Verb.START, "/srv/nowhere/lock does not exist", "mkdir")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
