"""Metrics: names by the conventions, written for the collector without anybody waiting, and a dashboard of them."""

import json
import os
import re
import subprocess
import threading
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hostd import loading
from hostd.commands import main
from hostd.commands.exits import ExitCode
from hostd.config import Directories
from hostd.metrics import INTERVAL_MS, Textfile, replace_for_all
from hostd.registry import Registry
from hostd.requests import StatusIs, plain
from hostd.status_form import HeartStatus, PhaseOfRecovery, Problem, Recovery, RecoveryTotal, Status
from tests.edge.test_commands import Daemon, a_status, daemon

ROOT = Path(__file__).parents[2]
BOARD = ROOT / "packaging" / "grafana" / "hostd.json"
LINE = re.compile(r'([a-zA-Z_:][a-zA-Z0-9_:]*)(\{(?:[a-z_]+="(?:[^"\\\n]|\\["\\n])*",?)*\})? (-?[0-9.e+-]+)')
_ = daemon  # a fixture: pytest finds it by this import


def full() -> Status:
    """A status in which every metric has something to say."""
    recovery = Recovery(
        "mysql", "clustnode1", "takeover", "backup", 1_000.0, 1_002.5, 2_500,
        (PhaseOfRecovery("detect", 2_000, 2_200, "configuration"), PhaseOfRecovery("start", 500)),
    )  # fmt: skip
    nodes = {name: msgspec.structs.replace(node, reached=True) for name, node in a_status().nodes.items()}
    return a_status(
        nodes=nodes,
        heart=HeartStatus(True, True, 3),
        recoveries=(recovery,),
        recovered={"mysql": {"takeover": RecoveryTotal(2, 5_000), "move": RecoveryTotal(1, 700)}},
        problems=(Problem("error", "node-offline", {"node": "clustnode2"}), Problem("warning", "one-link")),
        figures={"records_lost": 7},
    )


@pytest.fixture(scope="module")
def plugin() -> types.ModuleType:
    return loading.load_file(ROOT / "plugins" / "prometheus.py", checked=False)


@pytest.fixture(scope="module")
def text() -> str:
    return Registry.load(Directories()).metrics(plain(full()))


def samples(text: str) -> dict[str, float]:
    """Each line less its comment: name and labels → value.  A line that is no sample is an error."""
    found = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            match = LINE.fullmatch(line)
            assert match, line
            found[match[1] + (match[2] or "")] = float(match[3])
    return found


def test_every_line_is_of_the_format_and_every_metric_is_explained_once(text: str) -> None:
    """HELP and TYPE stand once before the samples of their metric; no sample comes twice."""
    assert text.endswith("\n")
    described: list[str] = []
    for line in text.splitlines():
        if line.startswith("# HELP "):
            assert re.fullmatch(r"# HELP \S+ \S.*\.", line), line
            described.append(line.split()[2])
        elif line.startswith("# TYPE "):
            assert line.split()[2] == described[-1] and line.split()[3] in ("gauge", "counter", "summary")
        else:
            name = line.partition("{")[0].partition(" ")[0]
            assert name in (described[-1], f"{described[-1]}_sum", f"{described[-1]}_count"), line
    assert len(described) == len(set(described)) > 30
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert len(samples(text)) == len(lines)


def test_names_keep_the_conventions(text: str) -> None:
    """hostd_ and base units; _total for counters and for nothing else."""
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            assert re.fullmatch(r"hostd_[a-z_]+", name)
            assert name.endswith("_total") == (kind == "counter"), name
            assert not re.search(r"_(ms|milliseconds|percent|minutes)(_|$)", name)


def test_what_the_status_says_is_what_the_metrics_say(text: str) -> None:
    """One state of each is 1 and the others 0; milliseconds become seconds; takeovers are failovers, moves are not."""
    found = samples(text)
    states = {key: value for key, value in found.items() if key.startswith('hostd_service_state{service="mysql"')}
    assert sum(states.values()) == 1 and len(states) == 8
    assert found['hostd_service_state{service="mysql",state="running"}'] == 1
    assert found['hostd_service_running{service="mysql",node="clustnode2"}'] == 1
    assert found['hostd_service_running{service="mysql",node="clustnode1"}'] == 0
    assert found['hostd_link_up{link="udp:eth1",peer="clustnode2",direction="send"}'] == 1
    assert found['hostd_link_lateness_seconds{link="udp:eth1",peer="clustnode2"}'] == 0.012
    assert found['hostd_service_failovers_total{service="mysql"}'] == 2
    assert found['hostd_recovery_duration_seconds_sum{service="mysql",kind="takeover"}'] == 5
    assert found['hostd_last_recovery_phase_seconds{service="mysql",kind="takeover",phase="start"}'] == 0.5
    assert found['hostd_problems{severity="error"}'] == 1
    assert found["hostd_recorder_lost_records_total"] == 7
    assert found["hostd_heart_lateness_seconds"] == 0.003


def test_a_text_in_a_label_cannot_break_the_format(plugin: types.ModuleType) -> None:
    """Quotes, backslashes and line breaks of a name are escaped."""
    service = a_status().services["mysql"]
    hostile = plain(a_status(services={'a"} 1\nhostd_up\\': service}))
    assert any('a\\"} 1\\nhostd_up\\\\' in name for name in samples(plugin.metrics(hostile)))


def test_prometheus_own_tool_finds_nothing_to_mend(text: str) -> None:
    """`promtool check metrics` reads the file and judges its names, and says so of one that is wrong."""

    def checked(text: str) -> tuple[int, str]:
        done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    assert checked(text) == (0, "")
    code, said = checked(text + "# HELP hostd_moves Moves.\n# TYPE hostd_moves counter\nhostd_moves 1\n")
    assert code != 0 and 'hostd_moves counter metrics should have "_total" suffix' in said


def queries() -> list[str]:
    """All that the dashboard asks Prometheus."""
    board = json.loads(BOARD.read_text())
    found = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    return found + [note["expr"] for note in board["annotations"]["list"]]


def test_prometheus_understands_every_query_of_the_dashboard(tmp_path: Path) -> None:
    """As rules, which its own tool parses; the variables of Grafana have values there."""
    asked = [query.replace("$__range", "1h").replace("$instance", ".*") for query in queries()]

    def checked(queries: list[str]) -> tuple[int, str]:
        rules = [{"record": f"query{number}", "expr": query} for number, query in enumerate(queries)]
        (tmp_path / "rules.json").write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
        argv = ["promtool", "check", "rules", tmp_path / "rules.json"]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    code, said = checked(asked)
    assert code == 0 and f"SUCCESS: {len(asked)} rules found" in said, said
    assert checked([*asked, "sum by (node (hostd_node_state)"])[0] != 0


def test_every_panel_says_what_it_shows_and_in_which_unit(plugin: types.ModuleType) -> None:
    """A title, a unit, and in its legend only labels that its metrics have."""
    known = {
        family.name + sample.suffix: {key for key, _ in sample.labels} | {"instance"}
        for family in plugin.families(plain(full()))
        for sample in family.samples
    }
    panels = json.loads(BOARD.read_text())["panels"]
    assert len({panel["title"].strip() for panel in panels} - {""}) == len(panels)
    for panel in panels:
        unit = panel["fieldConfig"]["defaults"]["unit"]
        is_time = any("_seconds" in target["expr"] for target in panel["targets"])
        assert unit == ("s" if is_time else "short"), panel["title"]
        for target in panel["targets"]:
            names = re.findall(r"hostd_[a-z_]+", target["expr"])
            labels = set.union(*(known[name] for name in names))
            assert set(re.findall(r"{{(\w+)}}", target.get("legendFormat", ""))) <= labels, panel["title"]


def test_the_dashboard_asks_for_nothing_that_is_not_there(plugin: types.ModuleType) -> None:
    """Every name in a query of packaging/grafana/hostd.json is a metric, and its labels are some of it."""
    known: dict[str, set[str]] = {}
    for family in plugin.families(plain(full())):
        for sample in family.samples:
            known.setdefault(family.name + sample.suffix, set()).update(key for key, _ in sample.labels)
    variables = json.loads(BOARD.read_text())["templating"]["list"]
    asked = queries() + [variable["query"]["query"] for variable in variables if variable["name"] == "instance"]
    assert len(asked) > 12
    for query in asked:
        names = re.findall(r"hostd_[a-z_]+", query)
        assert names
        labels = {label for name in names for label in known[name]}  # KeyError: there is no such metric
        used = set(re.findall(r"([a-z_]+)=~?\"", query)) | {
            label for group in re.findall(r"by \(([^)]*)\)", query) for label in re.split(r", *", group)
        }
        assert used - {"instance"} <= labels, query


def test_the_file_is_replaced_whole_and_everybody_may_read_it(tmp_path: Path) -> None:
    """The collector never sees half a file, whatever the umask of the daemon; nothing is left beside it."""
    path = tmp_path / "hostd.prom"
    before = os.umask(0o022)
    try:
        replace_for_all(path, "one 1\n")
        inode = path.stat().st_ino
        replace_for_all(path, "two 2\n")
    finally:
        os.umask(before)
    assert path.read_text() == "two 2\n" and path.stat().st_ino != inode
    assert path.stat().st_mode & 0o777 == 0o644
    assert [p.name for p in tmp_path.iterdir()] == ["hostd.prom"]


def written(textfile: Textfile, now_ms: int) -> None:
    assert textfile.is_due(now_ms)
    textfile.write(full())
    assert textfile._thread is not None
    textfile._thread.join(10)


def test_it_is_written_every_15_seconds(tmp_path: Path) -> None:
    """At once, and then when the time has come, and not before."""
    textfile = Textfile(tmp_path / "hostd.prom", lambda status: f"# {status['view']}\n")
    written(textfile, 1_000)
    assert (tmp_path / "hostd.prom").read_text() == "# 7\n"
    assert not textfile.is_due(1_000 + INTERVAL_MS - 1)
    assert textfile.is_due(1_000 + INTERVAL_MS)


def test_a_writing_that_hangs_is_not_waited_for(tmp_path: Path) -> None:
    """Neither the loop nor a second thread hangs with it; it is counted and said, and when it ends all is well."""
    hang = threading.Event()

    def hangs(_status: dict[str, Any]) -> str:
        hang.wait(20)
        return "late 1\n"

    textfile = Textfile(tmp_path / "hostd.prom", hangs)
    assert textfile.is_due(0)
    textfile.write(full())
    assert not textfile.is_due(INTERVAL_MS) and textfile.failures == 1 and textfile.failure
    hang.set()
    assert textfile._thread is not None
    textfile._thread.join(10)
    assert textfile.is_due(2 * INTERVAL_MS) and not textfile.failure


@pytest.mark.parametrize(
    ("folder", "format_", "says"),
    [("none", lambda _status: "x 1\n", "No such file"), (".", lambda status: status["nonsense"], "KeyError")],
)
def test_what_goes_wrong_is_said(
    tmp_path: Path, folder: str, format_: Callable[[dict[str, Any]], str], says: str
) -> None:
    """A folder that is not there, a plugin that raises: a reason for the status, and the thread ends well."""
    textfile = Textfile(tmp_path / folder / "hostd.prom", format_)
    written(textfile, 0)
    assert textfile.failures == 1 and says in textfile.failure


def test_hostd_metrics_prints_them(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    """By way of the control socket, so it works wherever a command can be run."""
    daemon.answers = lambda _: StatusIs(full())
    assert main.main(["metrics", "--runtime-dir", str(daemon.runtime)]) == ExitCode.DONE
    assert samples(capsys.readouterr().out)["hostd_view"] == 7
