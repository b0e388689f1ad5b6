"""``hostd simulate`` as its user meets it: a conf.d on paper, and no daemon anywhere."""

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hostd.commands.main import main
from hostd.commands.paper import WIDTH
from hostd.commands.progress import GUESS_AFTER_S, Progress

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
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert found["schema"] == 1
    assert not said.err  # no progress where there is no terminal
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
        ("power-off clusternode1", "clusternode1 is no node of conf.d; did you mean clustnode1?"),
        ("power-off b", "b is no node of conf.d; use clustnode1 or clustnode2"),
        ("power-off", "power-off takes node; add node"),
        ("power-off clustnode1 now", 'power-off takes node; remove "now"'),
        ("cut eth9", "eth9 is no link of conf.d; use serial1 or udp1"),
        ("cut serail1", "did you mean serial1?"),
        ("dies ldap clustnode1", "ldap is no service of conf.d; use web"),
        ("poweroff clustnode1", "no such fault: poweroff; did you mean power-off?"),
        ("explode clustnode1", "no such fault: explode; use one of arp-block, "),
        ("pause clustnode1 FREZE 10", "FREZE is no stop; did you mean FREEZE?"),
        ("pause clustnode1 BRAIN long", "long is no for_ms; use a number"),
        ("starts web clustnode1 never", "never is no conduct; use one of WELL, FAIL, "),
        ("ask clustnode1 mov web", "no such command: mov; did you mean move?"),
        ("ask clustnode1 move wbe", "wbe is no service of conf.d; did you mean web?"),
        ("ask clustnode1 stop", "nothing is no service of conf.d"),
        ("ask clustnode1 detach soon", "soon is no number of milliseconds"),
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


class OnTerminal:
    """``hostd simulate --json`` with a terminal as its standard error, and what it shows there."""

    def __init__(self, conf: Path, *words: str) -> None:
        argv = [sys.executable, "-m", "hostd.commands.main", "simulate", "--config", str(conf), "--node", "clustnode1"]
        argv = ["env", "--default-signal=INT", *argv]  # whoever runs the tests in the background ignores it
        self.ours, theirs = pty.openpty()
        self.process = subprocess.Popen([*argv, "--json", *words], stdout=subprocess.PIPE, stderr=theirs)
        os.close(theirs)
        self.shown = b""

    def read(self, until: bytes = b"") -> None:
        """To its end, or until something is shown."""
        while not until or until not in self.shown:
            try:
                self.shown += os.read(self.ours, 4096)
            except OSError:  # EIO: nobody has the other end any more
                return

    def end(self) -> bytes:
        """What it printed."""
        out, _ = self.process.communicate(timeout=60)
        os.close(self.ours)
        return out


def test_progress_is_shown_on_a_terminal_and_json_stays_clean(conf: Path) -> None:
    """How far it is, from the first moment, on standard error; the line is free again at the end."""
    simulation = OnTerminal(conf, "--seeds", "1")
    simulation.read()
    rows = len(json.loads(simulation.end())["table"])
    for line in (f"0 of {rows} failures", f"{rows} of {rows} failures", "0 of 1 schedules", "1 of 1 schedules"):
        assert line in simulation.shown.decode()
    assert simulation.shown.endswith(b"\r\x1b[K")


def test_ctrl_c_ends_it_at_once(conf: Path) -> None:
    """Its workers, too: they ignore a terminal's SIGINT, so that the parent may say it once."""
    simulation = OnTerminal(conf, "--seeds", "9999")
    simulation.read(until=b" failures")
    simulation.process.send_signal(signal.SIGINT)
    simulation.read()  # returns once parent and workers have let go of the terminal
    simulation.end()
    assert simulation.process.returncode == 130


def test_the_time_left_is_guessed_from_the_time_until_now() -> None:
    """Not before there is something to go by."""
    now_s = [0.0]
    progress = Progress("failures", 44, clock=lambda: now_s[0])
    assert progress.text() == "0 of 44 failures"
    now_s[0] = GUESS_AFTER_S / 2
    progress.step()
    assert progress.text() == "1 of 44 failures"
    now_s[0] = 20.0
    for _ in range(10):
        progress.step()
    assert progress.text() == "11 of 44 failures, about 60 s more"
