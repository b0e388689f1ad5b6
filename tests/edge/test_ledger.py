"""The recovery ledger: what a recovery is, how its time divides, and what it should have taken."""

from pathlib import Path

import pytest

from hostd.commands import main
from hostd.commands.exits import ExitCode
from hostd.core.effects import AddressChecked, AnyFact, PhaseChanged, ResourceTurned, ServiceTurned
from hostd.core.plan import Plan, Resource, Service
from hostd.core.terms import Phase, ResourceState, ServiceState, Why
from hostd.ledger import Ledger, is_address
from hostd.requests import Entry, LedgerIs
from hostd.status_form import Recovery
from tests.edge.test_commands import Daemon, daemon

ADDRESS = "192.0.2.1/24"
PLAN = Plan(
    "example",
    ("a", "b"),
    (Service("web", ("b", "a"), (Resource(ADDRESS, "address", ADDRESS), Resource("httpd", "httpd"))),),
)
_ = daemon  # a fixture: pytest finds it by this import

S, R = ServiceState, ResourceState


class Story:
    """A timeline of node a, written line by line."""

    def __init__(self) -> None:
        self.at = 1_000.0
        self.ledger = Ledger("a", PLAN)

    def after(self, ms: int) -> "Story":
        self.at += ms / 1_000
        return self

    def fact(self, fact: AnyFact, *, node: str = "a", silent_ms: int | None = None) -> bool:
        return self.ledger.take(Entry(self.at, node, fact, node != "a", silent_ms))

    def service(self, state: S, why: Why = Why.BACKUP) -> bool:
        return self.fact(ServiceTurned("web", state, why))

    def peer(self, state: S) -> None:
        self.fact(ServiceTurned("web", state, Why.ORDERED), node="b")

    def phase(self, phase: Phase, silent_ms: int | None = None) -> None:
        self.fact(PhaseChanged(phase, phase is Phase.MEMBER, 2, Why.PEER_SILENT), silent_ms=silent_ms)

    def resource(self, name: str, state: R) -> None:
        self.fact(ResourceTurned("web", name, state))

    def climbs(self, address_ms: int = 60, start_ms: int = 300) -> bool:
        """As the core tells it: a rung first, then the service, all at one time."""
        self.resource(ADDRESS, R.STARTING)
        self.service(S.STARTING)
        self.after(address_ms).resource(ADDRESS, R.RUNNING)
        self.resource("httpd", R.STARTING)
        self.after(start_ms).resource("httpd", R.RUNNING)
        return self.service(S.RUNNING)

    def takes_over(self, *, clear_ms: int = 250, start_ms: int = 300) -> None:
        self.phase(Phase.MEMBER)
        self.peer(S.RUNNING)
        self.after(2_000).phase(Phase.PEER_LOST, silent_ms=2_000)
        self.after(clear_ms).phase(Phase.ALONE)
        assert self.after(10).climbs(start_ms=start_ms)

    @property
    def last(self) -> Recovery:
        return self.ledger.newest(1)[0]

    @property
    def times(self) -> dict[str, int]:
        return {phase.name: phase.took_ms for phase in self.last.phases}


def test_a_takeover_is_divided_into_its_phases_without_a_rest() -> None:
    """From the last word of the lost node to a service that runs: the phases add up to the whole."""
    story = Story()
    story.takes_over()
    assert (story.last.kind, story.last.node, story.last.why) == ("takeover", "a", "backup")
    assert story.times == {"detect": 2_000, "clear": 250, "decide": 10, "start": 300, "address": 60}
    assert story.last.took_ms == sum(story.times.values()) == 2_620
    assert story.after(40).fact(AddressChecked(ADDRESS, True))
    assert story.times["verify"] == 40
    assert not story.fact(AddressChecked(ADDRESS, True))
    assert story.ledger.totals["web"]["takeover"].total_ms == 2_620


def test_an_address_that_is_seen_before_all_of_it_runs_took_no_time_to_verify() -> None:
    """A neighbour may be quicker than an agent."""
    story = Story()
    story.phase(Phase.MEMBER)
    story.peer(S.RUNNING)
    story.phase(Phase.PEER_LOST, silent_ms=500)
    story.phase(Phase.ALONE)
    story.resource(ADDRESS, R.STARTING)
    story.service(S.STARTING)
    story.resource(ADDRESS, R.RUNNING)
    story.resource("httpd", R.STARTING)
    story.after(5).fact(AddressChecked(ADDRESS, True))
    story.after(95).resource("httpd", R.RUNNING)
    story.service(S.RUNNING)
    assert story.times == {"detect": 500, "start": 100, "verify": 0}


def test_a_restart_begins_when_the_failure_was_noticed() -> None:
    """Stop and start of what failed; a later failure is a recovery of its own."""
    story = Story()
    for _ in range(2):
        story.resource("httpd", R.FAILED)
        story.service(S.RECOVERING, Why.PROCESS_EXITED)
        story.resource("httpd", R.STOPPING)
        story.after(70).resource("httpd", R.STOPPED)
        story.after(5).resource("httpd", R.STARTING)
        story.after(200).resource("httpd", R.RUNNING)
        story.service(S.RUNNING)
        story.after(60_000)
    assert [(r.kind, r.why, r.took_ms) for r in story.ledger.newest(9)] == [("restart", "process_exited", 275)] * 2
    assert story.times == {"decide": 5, "stop": 70, "start": 200}


@pytest.mark.parametrize(("on_the_way", "kind"), [(S.RECOVERING, "failover"), (S.STOPPING, "move")])
def test_a_service_that_comes_from_a_living_node_failed_there_or_was_moved(on_the_way: S, kind: str) -> None:
    """Its stop there is part of it, as far as this node saw it."""
    story = Story()
    story.phase(Phase.MEMBER)
    story.peer(S.RUNNING)
    story.after(5_000).peer(on_the_way)
    story.after(400).peer(S.FAILED if kind == "failover" else S.STOPPED)
    assert story.after(20).climbs()
    assert (story.last.kind, story.last.took_ms) == (kind, 780)
    assert story.times == {"decide": 20, "stop": 400, "start": 300, "address": 60}


def test_an_ordinary_start_is_no_recovery() -> None:
    """At boot, after an operator's start, and of a service that the lost node did not run."""
    story = Story()
    story.phase(Phase.MEMBER)
    story.climbs()
    story.service(S.STOPPED, Why.OPERATOR_STOPPED)
    story.climbs()
    story.service(S.STOPPED, Why.OPERATOR_STOPPED)
    story.peer(S.STOPPED)
    story.phase(Phase.PEER_LOST, silent_ms=2_000)
    story.phase(Phase.ALONE)
    story.climbs()
    assert story.ledger.newest(9) == ()


def test_a_takeover_that_fails_is_none() -> None:
    """Given up here: nothing was brought back, and the next attempt does not inherit its time."""
    story = Story()
    story.phase(Phase.MEMBER)
    story.peer(S.RUNNING)
    story.phase(Phase.PEER_LOST, silent_ms=2_000)
    story.phase(Phase.ALONE)
    story.service(S.STARTING)
    story.after(100).service(S.FAILED, Why.START_FAILED)
    story.after(100_000).climbs()
    assert story.ledger.newest(9) == ()


def test_budgets_come_from_the_configuration_first_and_then_from_history() -> None:
    """Deadtime and time limits; after three of a kind twice their median, never more than the limit."""
    story = Story()
    for start_ms in (300, 400, 200):
        story.takes_over(start_ms=start_ms)
        budgets = {phase.name: (phase.budget_ms, phase.basis) for phase in story.last.phases}
        assert budgets["detect"] == (2_200, "configuration")
        assert budgets["start"] == (20_000, "configuration")
        assert budgets["clear"] == (None, "") and story.last.budget_ms is None
        story.phase(Phase.MEMBER)
        story.service(S.STOPPED)
    story.takes_over(start_ms=900)
    budgets = {phase.name: (phase.budget_ms, phase.basis) for phase in story.last.phases}
    assert budgets["start"] == (600, "history") and story.times["start"] == 900
    assert budgets["detect"] == (2_200, "history")  # its median twice is more than conf.d allows
    assert budgets["clear"] == (500, "history") and budgets["decide"] == (100, "history")
    assert story.last.budget_ms == 2_200 + 500 + 100 + 600 + 120


def test_ids_tell_addresses_from_agents() -> None:
    """Of both families, with a length and an interface; a resource may be called what it likes."""
    assert all(map(is_address, ("192.0.2.1/24", "192.0.2.1", "fd00::1/64@eth0")))
    assert not any(map(is_address, ("httpd", "1", "filesystem", "ocf:heartbeat:apache")))


def test_hostd_ledger_shows_what_took_too_long(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    """Each phase with its budget, lateness marked; for tools with a schema."""
    story = Story()
    for start_ms in (300, 300, 300, 900):
        story.takes_over(start_ms=start_ms)
        story.phase(Phase.MEMBER)
        story.service(S.STOPPED)
    daemon.answers = lambda _: LedgerIs((story.last,))
    assert main.main(["ledger", "--runtime-dir", str(daemon.runtime)]) == ExitCode.DONE
    shown = capsys.readouterr().out
    assert "start 900 ms of 600 ms !" in shown and "detect 2000 ms of 2200 ms  " in shown
    assert all(len(line) <= 80 for line in shown.splitlines())
    assert main.main(["ledger", "--json", "--runtime-dir", str(daemon.runtime)]) == ExitCode.DONE
    assert '"schema": 1' in capsys.readouterr().out


def test_without_a_daemon_the_timeline_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Said so; nothing on record is no error."""
    words = ["ledger", "--runtime-dir", str(tmp_path), "--state-dir", str(tmp_path), "--node", "a"]
    assert main.main(words) == ExitCode.DONE
    caught = capsys.readouterr()
    assert "no daemon" in caught.err and "no recovery is on record" in caught.out
