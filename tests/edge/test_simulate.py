"""``hostd simulate`` as its user meets it: a conf.d on paper, and no daemon anywhere."""

import json
from pathlib import Path

import pytest

from hostd.commands.main import main
from hostd.commands.paper import WIDTH

CONF = """
[cluster]
name = "example"
nodes = ["clustnode1", "clustnode2"]
[[heartbeat.link]]
type = "serial"
device = "/dev/ttyS0"
[[heartbeat.link]]
type = "udp"
interface = "eth0"
address = { clustnode1 = "172.23.2.11", clustnode2 = "172.23.2.12" }
[service.web]
address = "172.23.2.16/24"
agent = "dummy"
primary = "clustnode2"
"""


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    (tmp_path / "all.toml").write_text(CONF)
    return tmp_path


def simulate(conf: Path, *words: str) -> int:
    return main(["simulate", "--config", str(conf), "--node", "clustnode1", *words])


def test_the_table_is_worst_first_and_fits_the_screen(conf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What may run twice comes before what is only interrupted, and no line is wider than a terminal."""
    assert simulate(conf, "--seeds", "3") == 0
    said = capsys.readouterr().out
    assert max(len(line) for line in said.splitlines()) <= WIDTH
    titles = [line.split(",")[0].split(":")[0] for line in said.splitlines() if line[:4].isupper()]
    assert titles.index("MAY RUN TWICE") < titles.index("INTERRUPTED") < titles.index("NO INTERRUPTION")
    assert "udp1 shares the clients' LAN" in said
    assert "clustnode2 loses its power" in said
    assert "3 random schedules" in said
    assert "Assumed" in said


def test_json_has_every_row_with_its_grade(conf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Tools read grades and virtual milliseconds, not sentences."""
    assert simulate(conf, "--seeds", "1", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == 1
    rows = {(row["failure"], row["node"], row["link"], row["service"]): row for row in found["table"]}
    cut = rows["power", "clustnode2", None, None]
    assert cut["grade"] == "interrupted"
    assert cut["runs_on"] == {"web": ["clustnode1"]}
    assert 500 < cut["out_ms"]["web"] < 15_000
    assert rows["daemon_killed", "clustnode2", None, None]["processes_on_both_ms"]["web"] > 0
    assert rows["link", None, "serial1", None]["grade"] == "unhurt"
    assert found["schedules"] == {"runs": 1, "virtual_ms": found["schedules"]["virtual_ms"], "harmed": []}


def test_one_fault_is_told_as_a_timeline(conf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Faults at their times, both nodes in columns, and the end in words."""
    assert simulate(conf, "--fault", "3s: power-off clustnode2", "--fault", "cut serial1") == 0
    lines = capsys.readouterr().out.splitlines()
    struck = [line for line in lines if " -- " in line]
    assert [line.split(" -- ")[1] for line in struck] == ["cut serial1", "power-off clustnode2"]
    seconds = [float(line.split()[0]) for line in struck]
    assert seconds[1] - seconds[0] == pytest.approx(3)
    assert any(line.startswith("web: on clustnode1, served again after") for line in lines)


@pytest.mark.parametrize(
    ("fault", "complaint"),
    [
        ("power-off clustnode3", "clustnode3 is no node of conf.d (clustnode1, clustnode2)"),
        ("cut eth9", "eth9 is no link of conf.d (serial1, udp1)"),
        ("dies ldap clustnode1", "ldap is no service of conf.d (web)"),
        ("explode clustnode1", "no such fault: explode"),
        ("pause clustnode1 SLEEP 10", "SLEEP"),
        ("5 weeks: cut serial1", "5 weeks is no time such as 3s or 500ms"),
        ("", "names no fault"),
    ],
)
def test_a_fault_that_cannot_be_played_says_what_there_is(
    conf: Path, capsys: pytest.CaptureFixture[str], fault: str, complaint: str
) -> None:
    """Exit code 2, the wrong word, and what it could have been."""
    assert simulate(conf, "--fault", fault) == 2
    assert complaint in capsys.readouterr().err


def test_a_seed_is_replayed_with_its_schedule(conf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same seed shows the same schedule and ends in a verdict."""
    told = []
    for _ in range(2):
        assert simulate(conf, "--replay", "4") == 0
        told.append(capsys.readouterr().out)
    assert told[0] == told[1]
    assert told[0].rstrip().endswith("== all well")


def test_a_conf_d_that_cannot_be_used_is_refused(conf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2 and the same complaint as `hostd check`."""
    (conf / "all.toml").write_text(CONF.replace('"clustnode2"\n', '"clustnode9"\n'))
    assert simulate(conf) == 2
    assert "clustnode9" in capsys.readouterr().err


def test_a_cluster_without_services_has_nothing_to_simulate(conf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Said, and not a table of nothing."""
    (conf / "all.toml").write_text(CONF[: CONF.index("[service.web]")])
    assert simulate(conf) == 2
    assert "nothing to simulate" in capsys.readouterr().err
