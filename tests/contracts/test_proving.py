"""``hostd-agent test``: its verdict, its words and exit codes, and that it bites.

Each file of ``faulty/`` is one fault of an agent that is sound otherwise
(``faults.py``); its ``BREAKS`` names the rules that are meant to catch it.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import psutil
import pytest

from hostd import lock
from hostd.proving.findings import Result
from hostd.proving.rules import RULES
from hostd.requests import SOCKET_NAME, StatusIs, encode
from hostd.status_form import FencingStatus, ResourceStatus, ServiceStatus, Status
from tests.contracts import faults
from tests.contracts.faults import NAMES, breaks

REPOSITORY = Path(__file__).parents[2]
RULES_BROKEN = {name: breaks(name) for name in NAMES}
SIDE_BY_SIDE = 2
AN_AGENT = """
from hostd.api import Health, hookimpl
@hookimpl
def start(resource): pass
@hookimpl
def stop(resource): pass
@hookimpl
def monitor(resource): return Health.STOPPED
"""

Proved = Callable[..., subprocess.CompletedProcess[str]]


def environment(folder: Path) -> dict[str, str]:
    return os.environ | {
        "HOSTD_CONFIG": str(folder / "conf.d"),
        "HOSTD_RUNTIME_DIR": str(folder / "run"),
        "HOSTD_STATE_DIR": str(folder / "state"),
        "HOSTD_NODE": "a",
        "PYTHONPATH": str(REPOSITORY),
        "TMPDIR": str(folder),
    }


def argv(*words: str) -> list[str]:
    return [sys.executable, "-m", "hostd.commands.agent_main", "test", *words]


def proved_in(folder: Path, *words: str, limit_s: float = 100) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        argv(*words), env=environment(folder), capture_output=True, text=True, timeout=limit_s, check=False
    )


@pytest.fixture
def proved(tmp_path: Path) -> Proved:
    return lambda *words: proved_in(tmp_path, *words)


def facts(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.stdout, done.stderr
    answer = json.loads(done.stdout)
    assert answer["schema"] == 1
    return answer


def failed(done: subprocess.CompletedProcess[str]) -> list[str]:
    return [rule["id"] for rule in facts(done)["rules"] if rule["result"] == Result.FAILED.value]


# -- it bites ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def caught(tmp_path_factory: pytest.TempPathFactory) -> dict[str, "Future[subprocess.CompletedProcess[str]]"]:
    """Every faulty agent under the rules meant for it, two at a time."""
    pool = ThreadPoolExecutor(SIDE_BY_SIDE)

    def prove(agent: Path, rules: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
        return proved_in(agent.parent, str(agent), "--json", "--seed", "7", "--only", ",".join(rules))

    # put together here: ast of Python 3.11 fails in two threads at once
    agents = {name: faults.write(name, tmp_path_factory.mktemp(name)) for name in NAMES}
    return {name: pool.submit(prove, agent, RULES_BROKEN[name]) for name, agent in agents.items()}


@pytest.mark.parametrize("name", NAMES)
def test_a_faulty_agent_is_caught_by_the_rule_meant_for_it(
    name: str, caught: dict[str, "Future[subprocess.CompletedProcess[str]]"]
) -> None:
    """With exit code 1, what was expected, what came, and evidence."""
    done = caught[name].result()
    assert done.returncode == 1, done.stderr
    assert failed(done) == list(RULES_BROKEN[name])
    for rule in facts(done)["rules"]:
        if rule["result"] == Result.FAILED.value:
            assert rule["expected"] and rule["came"] and rule["why"]
            assert "What was done" in Path(rule["evidence"]).read_text()


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_a_faulty_agent_is_caught_by_no_other_rule(name: str, proved: Proved, tmp_path: Path) -> None:
    """So that what is shown is the fault, and not its consequences."""
    assert failed(proved(str(faults.write(name, tmp_path)), "--json", "--seed", "7")) == list(RULES_BROKEN[name])


def test_without_its_fault_an_agent_passes(proved: Proved) -> None:
    """What all faulty agents share breaks no rule."""
    done = proved(str(faults.SOUND), "--json", "--seed", "7")
    assert failed(done) == [] and done.returncode == 0


def test_every_fault_and_every_family_has_its_agent() -> None:
    """At least fifteen faults, and a rule for each."""
    named = {rule for name in NAMES for rule in RULES_BROKEN[name]}
    assert len(NAMES) >= 15 and named <= {rule.id for rule in RULES}
    families = {rule.check.__module__.rpartition(".")[2] for rule in RULES if rule.id in named}
    assert families == {rule.check.__module__.rpartition(".")[2] for rule in RULES}


# -- the verdict -----------------------------------------------------------------------------


def test_the_dummy_passes_every_rule(proved: Proved, tmp_path: Path) -> None:
    """Exit code 0; start, stop and monitor were run; JUnit says the same; nothing is left behind."""
    junit = tmp_path / "junit.xml"
    done = proved("dummy", "--json", "--junit", str(junit))
    answer = facts(done)
    assert failed(done) == [] and done.returncode == 0
    assert answer["verdict"] == "passed" and answer["done"] == ["start", "stop", "monitor"]
    assert [rule["id"] for rule in answer["rules"]] == [rule.id for rule in RULES]
    suite = ElementTree.parse(junit).getroot()[0]
    assert suite.get("failures") == "0" and len(suite.findall("testcase")) == len(RULES)
    assert list(tmp_path.glob("hostd-agent-test-*")) == []


def test_the_verdict_is_told_in_eighty_columns(proved: Proved, tmp_path: Path) -> None:
    """One line per rule, what failed explained, the verdict last."""
    done = proved(
        str(faults.write("stop_that_lies", tmp_path)), "--only", "start,stop,secrets,stop-twice", "--seed", "3"
    )
    lines = done.stdout.splitlines()
    assert [line for line in lines if len(line) > 80 and "evidence" not in line and "/" not in line] == []
    assert any(line.startswith("ok       start ") for line in lines)
    assert any(line.startswith("FAILED   stop ") for line in lines)
    assert any(line.startswith("skipped  secrets ") for line in lines)
    assert any(line.startswith("skipped  stop-twice ") and "says nothing without stop" in line for line in lines)
    for label in ("expected", "came", "why", "evidence"):
        assert any(line.startswith(f"  {label} ") for line in lines), label
    assert lines[-1] == "stop_that_lies: FAILED, it breaks stop" and "seed 3" in lines[-2]


def test_a_file_that_cannot_be_loaded_fails_and_is_no_wrong_use(proved: Proved, tmp_path: Path) -> None:
    """Exit code 1: the answer is no, with the reason."""
    torn = tmp_path / "torn.py"
    torn.write_text("def (")
    done = proved(str(torn), "--json")
    assert done.returncode == 1 and failed(done) == ["loads"]
    assert "SyntaxError" in facts(done)["rules"][0]["came"]


def test_wrong_use_is_told(proved: Proved) -> None:
    """Exit code 2 and the nearest name; nothing is run."""
    for words, told in (
        (("htpd",), "did you mean httpd"),
        (("dummy", "--only", "zombi"), "did you mean zombie"),
        (("dummy", "sceonds=3"), "is no parameter of dummy"),
        (("dummy", "seconds"), "write key=value"),
    ):
        done = proved(*words)
        assert done.returncode == 2 and told in done.stderr, (words, done.stderr)


def test_a_rule_alone_is_no_proof(proved: Proved) -> None:
    """Exit code 0 needs start, stop and monitor to have run."""
    done = proved("dummy", "--only", "help")
    assert done.returncode == 1 and "incomplete, not tried: start, stop, monitor" in done.stdout
    done = proved("dummy", "--only", "stop-twice")
    assert done.returncode == 0 and "passed" in done.stdout


def test_the_same_seed_chooses_the_same_moments(proved: Proved) -> None:
    """Whatever other rules are tried, so that a failure is repeated by --only and --seed."""
    notes = []
    for only in ("killed-start", "help,killed-start"):
        answer = facts(proved("dummy", "start_delay=0.5", "--json", "--seed", "11", "--only", only))
        notes.append(next(rule["note"] for rule in answer["rules"] if rule["id"] == "killed-start"))
    moments = [int(note.split()[1]) for note in notes]
    assert 100 <= moments[0] <= 900 and abs(moments[0] - moments[1]) < 150  # of a start that takes 500 ms and more


# -- whose service it is ------------------------------------------------------------------------


def test_without_a_sandbox_nothing_is_started(proved: Proved, tmp_path: Path) -> None:
    """Exit code 4; its text is judged all the same, and --live is named."""
    bare = tmp_path / "bare.py"
    bare.write_text('"""An agent without a sandbox, whose monitor says that it is stopped."""\n' + AN_AGENT)
    done = proved(str(bare))
    assert done.returncode == 4 and "--live" in done.stderr and "ok       loads" in done.stdout
    live = proved(str(bare), "--live", "--only", "probe,start-usable", "--json")
    assert live.returncode == 1 and failed(live) == ["start-usable"]


def test_what_to_give_an_agent_without_a_sandbox_is_told(proved: Proved) -> None:
    """What kind of thing, and the command to be copied; what was given already is kept in it."""
    done = proved("nfs", "export=server:/srv")
    assert done.returncode == 4
    assert "give it an export and a directory that nobody uses" in done.stderr
    assert done.stderr.endswith(": hostd-agent test nfs export=server:/srv directory=… --live\n")
    assert """devices='["…"]' --live""" in proved("scsi_reservation").stderr


def test_a_sandbox_that_cannot_be_made_is_told_once(proved: Proved, tmp_path: Path) -> None:
    """Its reason and cure in one line, and not forty times that nothing else could be tried."""
    lacking = tmp_path / "lacking.py"
    refusal = 'raise AgentError("there is no room for it", cure="make some")'
    lacking.write_text(faults.SOUND.read_text().replace("    return {}\n", f"    {refusal}\n"))
    done = proved(str(lacking))
    told = " ".join(done.stdout.split())
    assert done.returncode == 1 and "cannot be made here: there is no room for it; make some" in told
    assert "says nothing without sandbox" not in told and told.endswith("not tried: start, stop, monitor")
    assert f"hostd-agent test {lacking} --live" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_what_has_no_process_is_lost_by_losing_its_mounts(proved: Proved) -> None:
    """A filesystem is unmounted behind the agent's back where a server would be killed."""
    rules = ("crash-noticed", "start-after-crash", "recovery", "after-power-cut")
    done = proved(
        "filesystem", "--json", "--only", f"start,start-usable,stop,leftover-processes,two-nodes,{','.join(rules)}"
    )
    results = {rule["id"]: rule["result"] for rule in facts(done)["rules"]}
    assert {rule: results[rule] for rule in rules} == dict.fromkeys(rules, "ok")


def test_a_service_that_runs_already_is_left_alone(proved: Proved, tmp_path: Path) -> None:
    """--live stops and kills nothing that it did not start itself."""
    running = tmp_path / "running.py"
    running.write_text(
        '"""An agent whose service was started by somebody else, long ago."""\n'
        + AN_AGENT.replace("def stop(resource): pass", f'def stop(resource): open("{tmp_path}/stopped", "w")').replace(
            "STOPPED", "RUNNING"
        )
    )
    done = proved(str(running), "--live")
    assert done.returncode == 1 and "the service runs already" in done.stdout
    assert not (tmp_path / "stopped").exists()


# -- nothing is left ------------------------------------------------------------------------------


def sleeping(seconds: int) -> list[int]:
    """Processes that the dummy started for this run, by their arguments."""
    wanted = f"sleep\0{seconds}\0".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if (entry / "cmdline").read_bytes() == wanted:
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


@pytest.fixture
def running(tmp_path: Path) -> Iterator[tuple["subprocess.Popen[bytes]", int]]:
    """A test in the middle of its work, and what tells the processes of its service."""
    seconds = 2_000_000 + os.getpid() * 100 + int(time.monotonic()) % 100
    test = subprocess.Popen(
        argv("dummy", f"seconds={seconds}", "stop_delay=1.0"),
        env=environment(tmp_path),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    until = time.monotonic() + 30
    while not sleeping(seconds) and time.monotonic() < until:
        time.sleep(0.05)
    assert sleeping(seconds)
    yield test, seconds
    if test.poll() is None:
        test.terminate()
    test.communicate(timeout=30)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_test_leaves_nothing(
    number: signal.Signals, running: tuple["subprocess.Popen[bytes]", int], tmp_path: Path
) -> None:
    """No process, no folder: the keeper ends what the test had started."""
    test, seconds = running
    os.killpg(test.pid, number)
    test.communicate(timeout=30)
    assert test.returncode == 128 + number
    assert sleeping(seconds) == [] and list(tmp_path.glob("hostd-agent-test-*")) == []


def test_a_killed_test_leaves_nothing(running: tuple["subprocess.Popen[bytes]", int], tmp_path: Path) -> None:
    """Even kill -9 of the process that tries the rules; it is told."""
    test, seconds = running
    for child in psutil.Process(test.pid).children():
        if child.cmdline()[:2] == psutil.Process(test.pid).cmdline()[:2]:
            child.kill()
    _, said = test.communicate(timeout=30)
    assert test.returncode == 128 + signal.SIGKILL and b"killed by SIGKILL" in said
    assert sleeping(seconds) == [] and list(tmp_path.glob("hostd-agent-test-*")) == []


# -- whose hands it is in ---------------------------------------------------------------------------


CONF_D = """
[cluster]
name = "x"
nodes = ["a", "b"]
[[heartbeat.link]]
type = "udp"
interface = "lo"
address = { a = "127.0.0.1", b = "127.0.0.2" }
[service.web]
agent = "filesystem"
params = { device = "/srv/data", directory = "/srv/shown", fstype = "bind" }
"""


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[None]:
    """What a running hostd answers that manages one resource of the agent filesystem."""
    resource = ResourceStatus("filesystem", "filesystem", "running")
    service = ServiceStatus("running", "a", ("a", "b"), "a", resources=(resource,))
    status = Status("x", "a", "a", 1, "alone", {}, {"web": service}, FencingStatus("none", True))
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "x.toml").write_text(CONF_D)
    (tmp_path / "run").mkdir()
    held = lock.acquire(tmp_path / "run" / "lock")
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "run" / SOCKET_NAME))
    server.listen()

    def answer() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                connection.recv(65_536)
                connection.sendall(encode(StatusIs(status)))

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    yield
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join()
    os.close(held)


def test_what_a_running_hostd_manages_is_never_tried_live(proved: Proved, daemon: None) -> None:
    """Exit code 4, whatever is given on the command line; another instance may be tried."""
    words = ("filesystem", "--live", "--only", "probe", "device=/srv/data", "fstype=bind")
    same = proved(*words, "directory=/srv/shown")
    assert same.returncode == 4 and "the hostd that runs here manages web" in same.stderr
    overlapping = proved(*words, "directory=/srv/elsewhere")
    assert overlapping.returncode == 4, overlapping.stdout
    other = proved("filesystem", "--live", "--only", "probe", "device=/mnt/a", "directory=/mnt/b", "fstype=bind")
    assert other.returncode != 4, other.stderr
