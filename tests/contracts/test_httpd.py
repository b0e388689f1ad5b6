"""The httpd agent against a real Apache, a private instance on the loopback."""

import datetime
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from hostd import processes
from hostd.api import Health
from hostd.config import Directories
from hostd.jobs import Verb
from hostd.registry import Registry
from tests.contracts.bench import Bench


@pytest.fixture
def sandbox(tmp_path: Path) -> dict[str, Any]:
    """Parameters of a private instance that www-data can read."""
    directory = tmp_path / "apache"
    directory.mkdir(mode=0o755)
    agent = Registry.load(Directories(), system=tmp_path / "none").agent("httpd")
    params = agent.sandbox(directory)
    assert params is not None
    return params


@pytest.fixture
def apache(tmp_path: Path, sandbox: dict[str, Any]) -> Iterator[Bench]:
    bench = Bench(tmp_path, "httpd", sandbox)
    yield bench
    bench.close()


def fetch(apache: Bench) -> str:
    parts = urlsplit(apache.params["url"])
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=5)
    try:
        connection.request("GET", "/")
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def test_started_means_usable_and_stopped_means_gone(apache: Bench) -> None:
    """The page is there when start returns; port and processes are free when stop returns."""
    assert apache.run(Verb.MONITOR).health is Health.STOPPED
    started = apache.run(Verb.START)
    assert started.ok, started
    assert "sandbox" in fetch(apache)
    main = processes.look(started.main_pid)
    assert main is not None and main.name in ("apache2", "httpd") and main.session == main.pid
    monitored = apache.run(Verb.MONITOR, depth=10)
    assert (monitored.health, monitored.main_pid) == (Health.RUNNING, started.main_pid)
    stopped = apache.run(Verb.STOP)
    assert stopped.ok and stopped.leftovers == 0
    assert apache.left() == []
    with pytest.raises(ConnectionRefusedError):
        fetch(apache)
    assert apache.run(Verb.MONITOR).health is Health.STOPPED


def test_start_and_stop_twice_are_as_once(apache: Bench) -> None:
    """Already running and already stopped are successes; the second start starts nothing."""
    first, second = apache.run(Verb.START), apache.run(Verb.START)
    assert second.ok and second.main_pid == first.main_pid
    assert apache.run(Verb.STOP).ok and apache.run(Verb.STOP).ok


def test_workers_of_a_killed_parent_are_a_failure_and_do_not_stop_the_next_start(apache: Bench) -> None:
    """They go on answering and hold the port: the monitor is not fooled, start clears them away."""
    started = apache.run(Verb.START)
    os.kill(started.main_pid, signal.SIGKILL)
    assert "sandbox" in fetch(apache), "the orphans answer, which is the trap"
    outcome = apache.run(Verb.MONITOR)
    assert not outcome.ok and "orphaned workers" in outcome.reason
    again = apache.run(Verb.START)
    assert again.ok and again.main_pid != started.main_pid
    assert apache.run(Verb.MONITOR, depth=10).health is Health.RUNNING


def test_workers_of_a_killed_parent_are_stopped(apache: Bench) -> None:
    """Stop leaves nothing, whatever it finds."""
    started = apache.run(Verb.START)
    os.kill(started.main_pid, signal.SIGKILL)
    stopped = apache.run(Verb.STOP)
    assert stopped.ok and stopped.leftovers == 0 and apache.left() == []


def test_a_parent_that_does_not_react_is_killed_with_all_workers(apache: Bench) -> None:
    """A stopped parent hears no SIGTERM."""
    started = apache.run(Verb.START)
    os.kill(started.main_pid, signal.SIGSTOP)
    stopped = apache.run(Verb.STOP, timeout_ms=3_000)
    assert stopped.ok and stopped.leftovers == 0 and apache.left() == []


def test_a_graceful_stop_lets_a_request_end(apache: Bench) -> None:
    """With ``graceful`` a stop still ends in time and leaves nothing."""
    apache.run(Verb.START)
    stopped = apache.run(Verb.STOP, graceful=3.0)
    assert stopped.ok and stopped.leftovers == 0 and apache.left() == []


def test_a_hung_server_fails_the_deep_monitor_in_time(apache: Bench) -> None:
    """All processes stopped: the port still accepts, nobody answers."""
    apache.run(Verb.START)
    for process in apache.left():
        os.kill(process.pid, signal.SIGSTOP)
    outcome = apache.run(Verb.MONITOR, depth=10, request_timeout=0.5)
    assert not outcome.ok and not outcome.timed_out and "does not answer" in outcome.reason
    assert outcome.took_ms < 5_000


def test_another_programs_answer_is_not_taken_for_ours(apache: Bench) -> None:
    """Identity is proven: the port of the url must be one that our parent listens on."""
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        url = f"http://127.0.0.1:{stranger.getsockname()[1]}/"
        apache.run(Verb.START)
        outcome = apache.run(Verb.MONITOR, depth=10, url=url)
    assert not outcome.ok and "does not listen at port" in outcome.reason


def test_a_taken_port_is_told_and_nothing_is_left(apache: Bench) -> None:
    """httpd's own words reach the operator."""
    with socket.create_server(("127.0.0.1", urlsplit(apache.params["url"]).port or 0)):
        outcome = apache.run(Verb.START)
    assert not outcome.ok and "Address already in use" in outcome.reason
    assert apache.left() == []


def test_a_bad_configuration_is_told(apache: Bench) -> None:
    """By validate, and by a start at once, not at the time limit."""
    with Path(apache.params["config"]).open("a") as config:
        config.write("NoSuchDirective on\n")
    for verb in (Verb.VALIDATE, Verb.START):
        outcome = apache.run(verb)
        assert not outcome.ok and "NoSuchDirective" in outcome.reason, outcome
        assert outcome.took_ms < 5_000


def test_a_good_configuration_is_valid(apache: Bench) -> None:
    """And asking for it starts nothing."""
    assert apache.run(Verb.VALIDATE).ok and apache.left() == []


def test_a_stale_pid_file_with_a_living_number_does_not_matter(apache: Bench) -> None:
    """On shared storage it comes from the other node; httpd itself would call that "already running"."""
    pid_file = Path(apache.params["config"]).with_name("httpd.pid")
    pid_file.write_text(f"{os.getpid()}\n")
    assert apache.run(Verb.MONITOR).health is Health.STOPPED
    assert apache.run(Verb.START).ok and "sandbox" in fetch(apache)


def test_the_pid_file_of_another_httpd_is_not_removed(apache: Bench, tmp_path: Path) -> None:
    """Two configurations that share a pid file are the operator's mistake, and told."""
    other = tmp_path / "apache" / "other.conf"
    port = urlsplit(apache.params["url"]).port or 0
    text = Path(apache.params["config"]).read_text()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        other.write_text(text.replace(f":{port}", f":{free.getsockname()[1]}"))
    assert apache.run(Verb.START).ok
    outcome = apache.run(Verb.START, config=other, url="")
    assert not outcome.ok and "an httpd with another configuration" in outcome.reason
    assert apache.run(Verb.MONITOR, depth=10).health is Health.RUNNING


def test_a_wrong_page_fails_start_and_deep_monitor(apache: Bench) -> None:
    """The pattern is looked for in what is served."""
    failed = apache.run(Verb.START, timeout_ms=1_500, pattern="no such words")
    assert not failed.ok and "without 'no such words'" in failed.output and apache.left() == []
    assert apache.run(Verb.START).ok
    assert "without 'no such words'" in apache.run(Verb.MONITOR, depth=10, pattern="no such words").reason
    assert apache.run(Verb.MONITOR, depth=10, status=404).reason.endswith("with status 200")


def test_a_page_is_asked_for_over_tls(apache: Bench, tmp_path: Path) -> None:
    """With a certificate that nobody has signed: that it is ours, the kernel says.  A plain question is no answer."""
    certificate = tmp_path / "self-signed.pem"
    certificate.write_bytes(self_signed())
    config = Path(apache.params["config"])
    modules = next(line for line in config.read_text().splitlines() if "mod_dir" in line).split()[2]
    with config.open("a") as file:
        file.write(f"LoadModule ssl_module {modules.replace('mod_dir', 'mod_ssl')}\n")
        file.write(f"SSLEngine on\nSSLCertificateFile {certificate}\n")
    plain = apache.params["url"]
    secure = plain.replace("http:", "https:")
    assert apache.run(Verb.START, url=secure).ok
    assert apache.run(Verb.MONITOR, depth=10, url=secure).health is Health.RUNNING
    assert "without 'zzz'" in apache.run(Verb.MONITOR, depth=10, url=secure, pattern="zzz").reason
    assert "with status 400" in apache.run(Verb.MONITOR, depth=10, url=plain).reason


def self_signed() -> bytes:
    """A key and its certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    signed = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    formats = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, *formats) + signed


@pytest.mark.parametrize(("pattern", "found"), [("box$", True), ("hostd's [sS]andbox", True), ("sand.{9}box", False)])
def test_a_pattern_is_a_regular_expression(apache: Bench, pattern: str, found: bool) -> None:
    """Plain words are looked for without one, all else is compiled."""
    assert apache.run(Verb.START).ok
    monitored = apache.run(Verb.MONITOR, depth=10, pattern=pattern)
    assert monitored.ok is found, monitored


def test_without_a_url_the_port_that_it_listens_on_is_asked(apache: Bench) -> None:
    """Nothing has to be configured for a start that is worth its name."""
    assert apache.run(Verb.START, url="").ok
    assert apache.run(Verb.MONITOR, depth=10, url="").health is Health.RUNNING


def test_where_it_is_not_installed_it_is_stopped(apache: Bench) -> None:
    """The probe of a node without Apache is no failure; a start is, with the cure."""
    assert apache.run(Verb.MONITOR, program="/nowhere/httpd").health is Health.STOPPED
    outcome = apache.run(Verb.START, program="/nowhere/httpd")
    assert "is not installed" in outcome.reason and outcome.cure


def test_a_server_in_another_network_is_left_alone(apache: Bench) -> None:
    """The same program and configuration in a container is not ours to stop."""
    argv = ["unshare", "--net", "sh", "-c", 'ip link set lo up; exec "$@"', "sh", "apache2", "-f"]
    argv += [str(apache.params["config"]), "-DFOREGROUND"]
    other = subprocess.Popen(argv, start_new_session=True, stdout=sys.stderr)
    try:
        until = time.monotonic() + 10
        while (look := processes.look(other.pid)) and look.name != "apache2" and time.monotonic() < until:
            time.sleep(0.02)
        assert apache.run(Verb.MONITOR).health is Health.STOPPED
        assert apache.run(Verb.STOP).ok
        assert other.poll() is None
    finally:
        os.killpg(other.pid, signal.SIGKILL)
        other.wait()
