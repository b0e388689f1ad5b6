"""The ocf agent: against agents of resource-agents as they are, and against scripts that misbehave on purpose."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hostd.api import ConfigError, Health
from hostd.api.foreign import ocf
from hostd.config import Directories
from hostd.jobs import Outcome, Verb
from hostd.registry import Registry
from tests.contracts.bench import Bench

STOCK = Path("/usr/lib/ocf/resource.d/heartbeat")

META_DATA = """<?xml version="1.0"?>
<resource-agent name="probe" version="1.0"><version>1.1</version>
<shortdesc lang="en">does as it is told</shortdesc>
<parameters>
<parameter name="code" required="1"><longdesc/><shortdesc>what to answer</shortdesc>
<content type="integer"/></parameter>
<parameter name="flag"><longdesc/><shortdesc>a flag</shortdesc><content type="boolean" default="false"/></parameter>
<parameter name="password"><longdesc/><shortdesc>a word</shortdesc><content type="string"/></parameter>
</parameters>
<actions>
<action name="start" timeout="11s"/><action name="stop" timeout="12"/>
<action name="monitor" timeout="14s" interval="7s" depth="10"/>
<action name="monitor" timeout="13s" interval="3s" depth="0"/>
<action name="validate-all" timeout="5s"/><action name="meta-data" timeout="5s"/>
</actions></resource-agent>
"""

Benches = Callable[..., Bench]


@pytest.fixture
def benches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Benches]:
    """Makes a bench for an agent whose body is given; ``ocf:test:probe`` in a tree of its own."""
    made: list[Bench] = []
    folder = tmp_path / "ocf" / "resource.d" / "test"
    folder.mkdir(parents=True)
    monkeypatch.setenv("OCF_ROOT", str(tmp_path / "ocf"))
    monkeypatch.setenv("HOSTD_STATE_DIR", "/nowhere")

    def make(body: str, **params: Any) -> Bench:
        script = folder / "probe"
        said = f"if [ \"$1\" = meta-data ]; then cat <<'END'\n{META_DATA}END\nexit 0; fi\n"
        script.write_text(f"#!/bin/sh\n{said}{body}\n")
        script.chmod(0o755)
        made.append(Bench(tmp_path, "ocf:test:probe", {"code": "0"} | params))
        return made[-1]

    yield make
    for bench in made:
        bench.close()


@pytest.fixture
def stock(tmp_path: Path) -> Iterator[Benches]:
    """A bench for an agent of resource-agents."""
    made: list[Bench] = []

    def make(kind: str, **params: Any) -> Bench:
        assert (STOCK / kind).exists(), "install resource-agents"
        made.append(Bench(tmp_path, f"ocf:heartbeat:{kind}", params))
        return made[-1]

    yield make
    for bench in made:
        bench.close()


def test_the_stock_dummy_goes_through_its_life(stock: Benches) -> None:
    """Start and stop twice, monitors between, its state in the private run directory."""
    dummy = stock("Dummy")
    assert dummy.run(Verb.VALIDATE).ok
    assert dummy.run(Verb.MONITOR).health is Health.STOPPED
    assert dummy.run(Verb.START).ok and dummy.run(Verb.START).ok
    assert dummy.run(Verb.MONITOR).health is Health.RUNNING
    assert dummy.run(Verb.STOP).ok and dummy.run(Verb.STOP).ok
    assert dummy.run(Verb.MONITOR).health is Health.STOPPED


def test_the_stock_apache_runs_a_real_server(stock: Benches, tmp_path: Path) -> None:
    """A private instance: started, watched by its main process, stopped without a trace."""
    (tmp_path / "web").mkdir(mode=0o755)
    sandbox = Registry.load(Directories(), system=tmp_path / "none").agent("httpd").sandbox(tmp_path / "web")
    assert sandbox is not None
    apache = stock("apache", configfile=sandbox["config"], testurl=sandbox["url"], testregex="sandbox", envfiles="")
    assert apache.run(Verb.MONITOR).health is Health.STOPPED
    started = apache.run(Verb.START, timeout_ms=40_000)
    assert started.ok, started
    assert Path(f"/proc/{started.main_pid}/comm").read_text().strip() == "apache2"
    assert apache.run(Verb.MONITOR).health is Health.RUNNING
    stopped = apache.run(Verb.STOP, timeout_ms=40_000)
    assert stopped.ok and apache.left() == [], stopped


@pytest.mark.parametrize(
    ("code", "health", "reason"),
    [
        (0, Health.RUNNING, ""),
        (7, Health.STOPPED, ""),
        (5, Health.STOPPED, ""),  # a probe where it is not installed
        (8, Health.RUNNING, ""),
        (190, Health.DEGRADED, ""),
        (191, Health.DEGRADED, ""),
        (1, None, "because I say so (monitor: exit code 1, failed)"),
        (2, None, "exit code 2, a parameter does not fit this machine"),
        (3, None, "exit code 3, the agent does not know this action"),
        (4, None, "exit code 4, a permission is missing"),
        (6, None, "exit code 6, its parameters are wrong on any machine"),
        (9, None, "exit code 9, failed in the promoted role"),
        (77, None, "exit code 77, which means nothing in OCF"),
    ],
)
def test_each_exit_code_has_its_meaning(benches: Benches, code: int, health: Health | None, reason: str) -> None:
    """All of API 1.1; what fails says why, in the agent's own words, and what cures it."""
    bench = benches('echo "ocf-exit-reason:because I say so" >&2; exit $OCF_RESKEY_code', code=str(code))
    outcome = bench.run(Verb.MONITOR)
    assert (outcome.ok, outcome.health) == (health is not None, health)
    assert reason in outcome.reason
    assert bool(outcome.cure) == (health is None)


def test_the_environment_is_that_of_the_api_and_nothing_of_ours(benches: Benches) -> None:
    """Parameters, meta attributes in milliseconds, private scratch; a fixed PATH, and no variable of hostd's."""
    bench = benches('env > "$HA_RSCTMP/seen"; id -u >> "$HA_RSCTMP/seen"; exit 7', flag=True, password="hush")
    assert bench.run(Verb.MONITOR, depth=10, timeout_ms=9_000).ok
    (seen,) = bench_run_dirs(bench)[0].rglob("seen")
    lines = dict(line.split("=", 1) for line in seen.read_text().splitlines() if "=" in line)
    expected = {
        "OCF_RESKEY_code": "0",
        "OCF_RESKEY_flag": "true",
        "OCF_RESKEY_password": "hush",
        "OCF_RESOURCE_INSTANCE": "s-r",
        "OCF_RESOURCE_TYPE": "probe",
        "OCF_RESOURCE_PROVIDER": "test",
        "OCF_RA_VERSION_MAJOR": "1",
        "OCF_CHECK_LEVEL": "10",
        "OCF_RESKEY_CRM_meta_interval": "0",
        "OCF_RESKEY_CRM_meta_name": "monitor",
        "OCF_RESKEY_CRM_meta_on_node": "bench",
        "OCF_EXIT_REASON_PREFIX": "ocf-exit-reason:",
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": "C",
    }
    assert {name: lines.get(name) for name in expected} == expected
    assert 8_000 < int(lines["OCF_RESKEY_CRM_meta_timeout"]) <= 9_300
    assert Path(lines["HA_RSCTMP"]).parent.stat().st_mode & 0o777 == 0o700
    assert "HOSTD_STATE_DIR" not in lines and "VIRTUAL_ENV" not in lines


def bench_run_dirs(bench: Bench) -> list[Path]:
    return [path for path in bench.run_dirs.iterdir() if path.is_dir()]


def test_conf_d_is_read_without_running_the_agent(benches: Benches, tmp_path: Path) -> None:
    """Names, types and limits come from the text of the file; the agent leaves no trace of having run."""
    bench = benches(f"touch {tmp_path}/ran")
    (tmp_path / "ocf/resource.d/test/probe").write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\ncat <<END\n{META_DATA}END\n")
    said = bench.registry.parameters("ocf:test:probe")
    assert [(f.name, f.type.__name__, f.is_required, f.secret) for f in said.fields] == [
        ("code", "integer", True, False), ("flag", "boolean", False, False), ("password", "string", False, True),
    ]  # fmt: skip
    assert said.timeouts == {"start": "11s", "stop": "12s", "monitor": "13s"}
    assert (said.monitor_interval, said.summary) == ("3s", "does as it is told")
    assert not (tmp_path / "ran").exists()


def test_the_stock_agents_can_be_read_without_running_them() -> None:
    """The file's text and the meta-data it prints agree, for those that a cluster uses most."""
    for kind, start in (
        ("apache", "40s"),
        ("Filesystem", "60s"),
        ("mysql", "120s"),
        ("slapd", "20s"),
        ("pgsql", "120s"),
    ):
        described = ocf.read_source((STOCK / kind).read_text())
        assert described.timeouts["start"] == start, kind
        assert described.parameters and described.summary


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("ocf", "write ocf:PROVIDER:TYPE"),
        ("ocf:", "write ocf:PROVIDER:TYPE"),
        ("ocf:a:b:c", "write ocf:PROVIDER:TYPE"),
        ("ocf:heartbeat:../../bin/sh", "write ocf:PROVIDER:TYPE"),
        ("ocf:heartbeat:apach", "did you mean apache?"),
        ("ocf:filesystem", "did you mean Filesystem?"),
        ("ocf:hearbeat:apache", "did you mean heartbeat?"),
    ],
)
def test_a_reference_to_nothing_names_what_may_be_meant(reference: str, said: str, tmp_path: Path) -> None:
    """The operator's mistake is told when conf.d is read."""
    with pytest.raises(ConfigError, match=r"ocf|agent|provider") as caught:
        Registry.load(Directories(), system=tmp_path / "none").parameters(reference)
    assert said in str(caught.value)


def test_validate_asks_the_agent_itself(benches: Benches) -> None:
    """A name that its meta-data does not have, one that is missing, and what validate-all says."""
    bench = benches('[ "$1" != validate-all ] || { echo ocf-exit-reason:no such disk >&2; exit 2; }')
    assert "did you mean flag?" in bench.run(Verb.VALIDATE, flagg="1").reason
    assert "needs its parameter code" in bench.run(Verb.VALIDATE, code=None).reason
    assert bench.run(Verb.VALIDATE).reason.startswith("no such disk (validate-all: exit code 2")


def test_an_agent_without_proper_meta_data_is_not_valid(benches: Benches, tmp_path: Path) -> None:
    """Nor one that others may write to: it runs as root."""
    bench = benches("exit 0")
    script = tmp_path / "ocf/resource.d/test/probe"
    script.write_text("#!/bin/sh\necho '<resource-agent><oops></resource-agent>'\n")
    assert "no XML" in bench.run(Verb.VALIDATE).reason
    script.write_text("#!/bin/sh\nexit 0\n")
    assert "printed no meta-data" in bench.run(Verb.VALIDATE).reason
    script.chmod(0o777)
    assert "may be changed by others" in bench.run(Verb.VALIDATE).reason


@pytest.mark.parametrize("verb", [Verb.START, Verb.MONITOR])
def test_a_hang_ends_at_the_time_limit_with_evidence(benches: Benches, verb: Verb) -> None:
    """And everything that the agent had started is gone."""
    bench = benches("echo about to hang; sleep 1000 & sleep 1000")
    outcome = bench.run(verb, timeout_ms=700)
    assert outcome.timed_out and outcome.evidence and bench.left() == []
    assert outcome.took_ms < 8_000


@pytest.mark.parametrize("verb", [Verb.START, Verb.MONITOR])
def test_endless_output_is_bounded(benches: Benches, verb: Verb) -> None:
    """Megabytes of it neither fill the run directory nor hide the reason at their end."""
    flood = "head -c 30000000 /dev/zero | tr '\\0' x; echo; echo ocf-exit-reason:at the end >&2; exit 1"
    bench = benches(flood)
    outcome = bench.run(verb)
    assert outcome.reason.startswith("at the end"), outcome.reason[:200]
    files = [path for path in bench_run_dirs(bench)[0].rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 3_000_000


def test_a_daemon_that_keeps_the_output_open_neither_hangs_the_start_nor_dies(benches: Benches) -> None:
    """Its later words go to a file: a closed pipe would kill it with SIGPIPE."""
    bench = benches("setsid sh -c 'sleep 0.5; echo later; sleep 1000' & exit 0")
    started = bench.run(Verb.START)
    assert started.ok and started.took_ms < 5_000
    until = time.monotonic() + 10
    output = bench_run_dirs(bench)[0] / "output"
    while "later" not in output.read_text() and time.monotonic() < until:
        time.sleep(0.05)
    assert "later" in output.read_text() and bench.left()


def test_the_one_process_that_all_others_descend_from_is_watched(benches: Benches) -> None:
    """So a crash is noticed at once; of two daemons side by side none is the main one."""
    one = benches("[ $1 != start ] || { setsid sh -c 'sleep 1000 & wait' & sleep 0.3; }; exit 0")
    started = one.run(Verb.START)
    assert started.main_pid in {process.pid for process in one.left()}, started
    assert one.run(Verb.MONITOR).main_pid == started.main_pid
    again = one.run(Verb.START)
    assert again.ok and again.main_pid == 0, "two now"


def test_what_is_only_sent_into_the_background_is_not_watched(benches: Benches) -> None:
    """As IPaddr2 does with its announcements: that it ends is no crash."""
    bench = benches("[ $1 != start ] || sleep 1000 & exit 0")
    assert bench.run(Verb.START).main_pid == 0 and bench.left()
    assert bench.run(Verb.MONITOR).main_pid == 0


def test_an_agent_that_is_gone_is_told(benches: Benches, tmp_path: Path) -> None:
    """conf.d was read when it was there."""
    bench = benches("exit 0")
    (tmp_path / "ocf/resource.d/test/probe").unlink()
    for verb in (Verb.START, Verb.STOP, Verb.MONITOR):
        outcome: Outcome = bench.run(verb)
        assert 'no agent "probe"' in outcome.reason


def test_a_script_that_cannot_be_run_says_what_is_wrong_with_it(benches: Benches, tmp_path: Path) -> None:
    """No interpreter, not executable."""
    bench = benches("exit 0")
    script = tmp_path / "ocf/resource.d/test/probe"
    script.write_text("exit 0\n")
    assert "#!/bin/sh" in bench.run(Verb.START).cure
    script.chmod(0o644)
    assert "chmod 755" in bench.run(Verb.START).cure
    assert "not executable" in bench.run(Verb.VALIDATE).reason
    assert os.access(script, os.R_OK)
