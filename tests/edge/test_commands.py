"""The operator's commands: words, exit codes, and what happens without a daemon."""

import asyncio
import io
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hostd.commands import ask, leave, log, main, sentences, status
from hostd.commands.exits import ExitCode
from hostd.commands.paper import WIDTH, Paper
from hostd.control import Control
from hostd.core.effects import (
    AddressChecked,
    AddressDisputed,
    AnyFact,
    CarrierTurned,
    ClearanceTurned,
    LinkDirection,
    LinkOpened,
    LinkTurned,
    PauseNoticed,
    PhaseChanged,
    PlansDiffer,
    ReachTurned,
    Refusal,
    ResourceTurned,
    ServiceAssigned,
    ServiceTurned,
    WishTaken,
)
from hostd.core.events import AnyCommand, ConfirmDown, MoveService, SetStandby, StopService
from hostd.core.snapshot import Wish, WishKind
from hostd.core.terms import Clearance, Phase, ResourceState, ServiceState, Why
from hostd.requests import AnyAnswer, AnyRequest, AskLog, Entry, LogIs, Order, Refused, Rejected, StatusIs, Taken, WhyIs
from hostd.status_form import (
    FencingStatus,
    InstanceStatus,
    LinkStatus,
    NodeStatus,
    Problem,
    ResourceStatus,
    ServiceStatus,
    Status,
)

FACTS: list[AnyFact] = [
    PhaseChanged(Phase.ALONE, False, 3, Why.PEER_FENCED),
    PhaseChanged(Phase.MEMBER, True, 3, Why.PEER_CONFIRMED),
    LinkTurned("serial", LinkDirection.RECEIVE, False),
    LinkTurned("serial", LinkDirection.SEND, True),
    LinkOpened("serial", False, "no such tty"),
    CarrierTurned("udp:eth1", False),
    ServiceAssigned("mysql", (), Why.NO_NODE),
    ServiceTurned("mysql", ServiceState.RUNNING, Why.PRIMARY),
    ResourceTurned("mysql", "mysql", ResourceState.FAILED, "port 3306 is taken"),
    AddressChecked("172.23.2.13/24", True),
    AddressDisputed("172.23.2.13/24", "02:00:00:00:00:01"),
    ClearanceTurned(True, Clearance.NONE),
    PauseNoticed(5_000),
    ReachTurned(False, "no answer from 192.0.2.1 for 2000 ms"),
    *(WishTaken(Wish(kind, "mysql", value, 1, "clustnode1")) for kind in WishKind for value in ("yes", "")),
    PlansDiffer(""),
]


def a_status(**changes: Any) -> Status:
    """A pair in good health, with changes."""
    link = LinkStatus("up", "up", late_max_ms=12, last_heard_ms=40)
    service = ServiceStatus(
        state="running", node="clustnode2", nodes=("clustnode2",), primary="clustnode2",
        since="2026-01-01T00:00:00Z", owners=("clustnode2",), why="primary", addresses=("172.23.2.13/24",),
        resources=(ResourceStatus("172.23.2.13/24", "address", "running", True),),
        instances={"clustnode2": InstanceStatus("running", since="2026-01-01T00:00:00Z")},
    )  # fmt: skip
    fields: dict[str, Any] = {
        "cluster": "example", "node": "clustnode1", "coordinator": "clustnode1", "view": 7, "phase": "member",
        "confirmed": True, "services": {"mysql": service}, "fencing": FencingStatus("required", True),
        "nodes": {
            "clustnode1": NodeStatus("online"),
            "clustnode2": NodeStatus("online", links={"serial:/dev/ttyS0": link, "udp:eth1": link}),
        },
    }  # fmt: skip
    return Status(**fields | changes)


Ask = Callable[[AnyRequest], AnyAnswer]


class Daemon:
    """A control socket in a thread, with answers of the test's making."""

    def __init__(self, runtime: Path) -> None:
        self.runtime = runtime
        self.answers: Ask = lambda _: StatusIs(a_status())
        self.orders: list[AnyCommand] = []
        self._loop = asyncio.new_event_loop()
        self._control = Control(runtime / "hostd.sock", self._ask)
        self._loop.run_until_complete(self._control.open())
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    async def _ask(self, request: AnyRequest) -> AnyAnswer:
        if isinstance(request, Order):
            self.orders.append(request.command)
        return self.answers(request)

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._control.close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path)
    yield daemon
    daemon.close()


def hostd(daemon: Daemon, *words: str) -> int:
    return main.main([*words, "--runtime-dir", str(daemon.runtime)])


def test_help_is_fast_and_shows_every_command_with_an_example() -> None:
    """`hostd --help` needs under 150 ms of processor, on a machine of any load, and imports no asyncio."""
    code = (
        "import sys, time; from hostd.commands.main import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "assert 'asyncio' not in sys.modules and 'msgspec' not in sys.modules\n"
        "print(time.process_time(), file=sys.stderr)"
    )
    best = 9.0
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        best = min(best, float(done.stderr))
    assert best < 0.150
    assert all(f"  {name} " in done.stdout for name in main.COMMANDS)
    assert "examples:" in done.stdout
    assert all(len(line) <= WIDTH for line in done.stdout.splitlines())


@pytest.mark.parametrize("name", main.COMMANDS)
def test_every_command_has_help_with_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each command of the table is registered by its module and shows how it is used."""
    with pytest.raises(SystemExit) as ended:
        main.main([name, "--help"])
    assert ended.value.code == 0
    assert "example" in capsys.readouterr().out


def test_an_options_value_is_not_taken_for_the_command() -> None:
    """`hostd --node status why mysql` asks why."""
    assert main.command_in(["--node", "status", "why", "mysql"]) == "why"
    assert main.command_in(["--node=x", "status", "why"]) == "status"
    assert main.command_in(["nonsense", "status"]) is None


def test_every_cause_refusal_phase_and_state_has_a_sentence() -> None:
    """No enumeration has a member that an operator would see as a bare name."""
    assert set(sentences.WHY) == set(Why)
    assert set(sentences.PHASES) == set(Phase)
    assert set(sentences.STATES) == set(ServiceState)
    assert set(sentences.CLEARANCES) == set(Clearance)
    for reason in Refusal:
        for command in (MoveService("mysql"), SetStandby("clustnode2", True), StopService("mysql")):
            text, code = sentences.refusal(reason, command)
            assert text
            assert code in ExitCode


def test_every_kind_of_fact_has_a_sentence() -> None:
    """All facts of the core can be told, and the list here is complete."""
    assert {type(fact) for fact in FACTS} == set(AnyFact.__args__)
    for fact in FACTS:
        text = sentences.fact(fact)
        assert text
        assert "Why." not in text
        assert "<" not in text


def test_a_healthy_pair_fits_eighty_columns_and_exits_with_0(
    daemon: Daemon, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nodes, links in each direction, services and addresses are there at a glance."""
    assert hostd(daemon, "status") == ExitCode.DONE
    shown = capsys.readouterr().out
    assert "all is well" in shown
    for word in ("clustnode2  online", "serial:/dev/ttyS0", "mysql", "172.23.2.13/24"):
        assert word in shown
    assert all(len(line) <= WIDTH for line in shown.splitlines())
    assert "\x1b" not in shown


def test_problems_come_with_their_cure_and_only_errors_count(
    daemon: Daemon, capsys: pytest.CaptureFixture[str]
) -> None:
    """A warning leaves exit code 0, an error makes it 1; both are shown with text and cure."""
    warning = Problem("warning", "no-fencing")
    daemon.answers = lambda _: StatusIs(a_status(problems=(warning,)))
    assert hostd(daemon, "status") == ExitCode.DONE
    assert "[fencing]" in capsys.readouterr().out
    error = Problem("error", "node-offline", {"node": "clustnode2"})
    daemon.answers = lambda _: StatusIs(a_status(problems=(error, warning)))
    assert hostd(daemon, "status") == ExitCode.NO
    shown = capsys.readouterr().out
    assert "clustnode2 is not heard on any link" in shown
    assert "1 error, 1 warning" in shown
    assert all(len(line) <= WIDTH for line in shown.splitlines())


def test_json_is_schema_1_with_texts(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    """The names of INTERFACES section 5 are all there, and problems have text and cure."""
    about = {"link": "serial", "direction": "receive", "carrier": "down", "node": "clustnode2"}
    daemon.answers = lambda _: StatusIs(a_status(problems=(Problem("warning", "link-down", about),)))
    assert hostd(daemon, "status", "--json") == ExitCode.DONE
    facts = json.loads(capsys.readouterr().out)
    assert facts["schema"] == 1
    assert {"cluster", "node", "coordinator", "view", "phase", "nodes", "services", "fencing", "problems"} <= set(facts)
    assert {"state", "incarnation", "version", "links"} <= set(facts["nodes"]["clustnode2"])
    assert {"send", "receive", "late_max_ms", "last_heard_ms"} <= set(
        facts["nodes"]["clustnode2"]["links"]["serial:/dev/ttyS0"]
    )
    assert {"state", "node", "nodes", "primary", "since", "failures", "resources"} <= set(facts["services"]["mysql"])
    assert facts["fencing"] == {"mode": "required", "ready": True, "clearance": "none", "devices": []}
    assert facts["problems"][0]["text"] == (
        "Link serial is down: clustnode2 hears us, and we do not hear it (no carrier)."
    )
    assert facts["problems"][0]["cure"]


@pytest.mark.parametrize("words", [["status"], ["why", "mysql"], ["move", "mysql"], ["leave"], ["standby"]])
def test_without_a_daemon_the_exit_code_is_3_and_the_text_says_what_to_do(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every command that asks says clearly that nobody answers, and does not wait for ever."""
    monkeypatch.setattr(ask, "RETRY_S", 0.2)
    assert main.main([*words, "--runtime-dir", str(tmp_path)]) == ExitCode.UNREACHABLE
    assert "systemctl status hostd" in capsys.readouterr().err


def test_an_order_that_is_refused_says_why(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit codes: 2 for a wrong name, 1 for "not now", 4 for safety, 0 if nothing is to be done."""
    expected = {
        Refusal.UNKNOWN_SERVICE: ExitCode.WRONG_USE,
        Refusal.NODE_NOT_ELIGIBLE: ExitCode.NO,
        Refusal.PEER_IS_HEARD: ExitCode.UNSAFE,
        Refusal.ALREADY_THERE: ExitCode.DONE,
    }
    for refusal, code in expected.items():
        daemon.answers = lambda request, refusal=refusal: (
            Refused(refusal) if isinstance(request, Order) else StatusIs(a_status())
        )
        assert hostd(daemon, "move", "mysql", "clustnode1") == code
        assert "mysql" in capsys.readouterr().err


def test_a_move_is_followed_until_the_service_runs_there(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    """The command shows what happens on the way and ends when the service runs on its new node."""
    service = a_status().services["mysql"]
    steps = iter(
        [
            ("running", ("clustnode2",)),
            ("stopping", ("clustnode2",)),
            ("starting", ("clustnode1",)),
            ("running", ("clustnode1",)),
        ]
    )
    fields = {name: getattr(service, name) for name in service.__struct_fields__}

    def answers(request: AnyRequest) -> AnyAnswer:
        if isinstance(request, Order):
            return Taken(0, "clustnode1")
        state, nodes = next(steps)
        moved = ServiceStatus(**fields | {"state": state, "nodes": nodes, "node": nodes[0]})
        return StatusIs(a_status(services={"mysql": moved}))

    daemon.answers = answers
    assert hostd(daemon, "move", "mysql") == ExitCode.DONE
    assert daemon.orders == [MoveService("mysql", "")]
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "mysql moves to clustnode1"
    assert shown[1:3] == ["  mysql: stopping on clustnode2", "  mysql: starting on clustnode1"]
    assert "mysql runs on clustnode1 (" in shown[-1]


def test_a_move_that_fails_ends_with_1(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    """A service that failed on its new node is reported, not waited for."""
    service = a_status().services["mysql"]
    fields = {name: getattr(service, name) for name in service.__struct_fields__}
    failed = ServiceStatus(**fields | {"instances": {"clustnode1": InstanceStatus("failed", banned=True)}})
    daemon.answers = lambda request: (
        Taken(0, "clustnode1") if isinstance(request, Order) else StatusIs(a_status(services={"mysql": failed}))
    )
    assert hostd(daemon, "move", "mysql") == ExitCode.NO
    assert "hostd why mysql" in capsys.readouterr().out


def test_confirm_down_wants_the_name_typed(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a terminal nothing is confirmed unless --yes says so; the refusal names the override."""
    daemon.answers = lambda _: Taken()
    assert hostd(daemon, "confirm-down", "clustnode2") == ExitCode.UNSAFE
    assert daemon.orders == []
    assert "--yes" in capsys.readouterr().err
    assert hostd(daemon, "confirm-down", "clustnode2", "--yes") == ExitCode.DONE
    assert daemon.orders == [ConfirmDown("clustnode2")]


def test_standby_without_a_name_means_the_daemons_own_node(daemon: Daemon) -> None:
    """Not `uname -n` of wherever the command runs."""
    daemon.answers = lambda request: Taken() if isinstance(request, Order) else StatusIs(a_status())
    assert hostd(daemon, "standby", "--no-wait") == ExitCode.DONE
    assert daemon.orders == [SetStandby("clustnode1", True)]


def test_why_tells_the_chain_oldest_first_and_how_it_stands(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    """Facts of the service and of the pair, without those of links, and the present cause in words."""
    entries = tuple(Entry(float(number), "clustnode1", fact) for number, fact in enumerate(FACTS))
    daemon.answers = lambda request: WhyIs("mysql", entries, a_status())
    assert hostd(daemon, "why", "mysql", "-n", "50") == ExitCode.DONE
    printed = capsys.readouterr().out
    shown = " ".join(printed.split())
    assert "because its primary can run it" in shown
    assert shown.index("it is confirmed to be off") < shown.index("mysql runs") < shown.index("frozen for 5000 ms")
    assert "serial" not in shown
    assert "now on clustnode2" in shown
    assert all(len(line) <= WIDTH for line in printed.splitlines())
    daemon.answers = lambda request: Rejected("unknown-service", "nosuch")
    assert hostd(daemon, "why", "nosuch") == ExitCode.WRONG_USE


def test_the_log_asks_for_what_was_asked_and_hides_small_steps(
    daemon: Daemon, capsys: pytest.CaptureFixture[str]
) -> None:
    """--since, service and -n go to the daemon; steps of resources that went well show with --all only."""
    asked: list[AnyRequest] = []
    entries = (
        Entry(1.0, "a", ResourceTurned("mysql", "disk", ResourceState.RUNNING)),
        Entry(2.0, "a", ResourceTurned("mysql", "tape", ResourceState.FAILED, "torn")),
    )

    def answers(request: AnyRequest) -> AnyAnswer:
        asked.append(request)
        return LogIs(entries)

    daemon.answers = answers
    assert hostd(daemon, "log", "--since", "2020-01-01T00:00:00+00:00", "-n", "5", "mysql") == ExitCode.DONE
    assert asked == [AskLog(1_577_836_800.0, "mysql", 5)]
    shown = capsys.readouterr().out
    assert "torn" in shown
    assert "disk" not in shown
    assert hostd(daemon, "log", "--all", "--json") == ExitCode.DONE
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["state"] for line in lines] == ["running", "failed"]


def test_durations_and_moments_are_read_with_units() -> None:
    """``60s``, ``5m``, plain seconds; an absurd one is refused by argparse."""
    assert leave.duration_ms("60s") == 60_000
    assert leave.duration_ms("5m") == 300_000
    assert leave.duration_ms("1.5") == 1_500
    for wrong in ("0", "2h", "-1s", "soon"):
        with pytest.raises(ValueError, match=wrong):
            leave.duration_ms(wrong)
    assert abs(log.moment("10m") - (time.time() - 600)) < 5


def test_a_terminal_gets_colours_unless_it_asked_for_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Colour depends on the terminal and on NO_COLOR, never on what is shown."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    coloured = Terminal()
    status.show(a_status(), Paper(coloured))
    assert "\x1b[32m" in coloured.getvalue()
    monkeypatch.setenv("NO_COLOR", "1")
    plain = Terminal()
    status.show(a_status(), Paper(plain))
    assert "\x1b" not in plain.getvalue()


@pytest.mark.parametrize(("command", "danger"), [("fence", "will lose its power"), ("confirm-down", "is NOT off")])
def test_the_name_is_typed_or_it_is_not(
    command: str, danger: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a terminal, exactly the node's name confirms (then no daemon is reached); from a pipe, nothing does."""

    class Keyboard(io.StringIO):
        def isatty(self) -> bool:
            return True

    def ordered() -> int:
        return main.main([command, "clustnode2", "--runtime-dir", str(tmp_path)])

    for typed, code in (("clustnode2\n", ExitCode.UNREACHABLE), ("yes\n", ExitCode.UNSAFE), ("", ExitCode.UNSAFE)):
        monkeypatch.setattr(sys, "stdin", Keyboard(typed))
        assert ordered() == code
        assert danger in capsys.readouterr().out
    monkeypatch.setattr(sys, "stdin", io.StringIO("clustnode2\n"))
    assert ordered() == ExitCode.UNSAFE
    assert "override: --yes" in capsys.readouterr().err
