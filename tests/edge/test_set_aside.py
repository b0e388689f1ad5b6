"""One broken agent never stops the daemon: its services are set aside, the others run."""

import argparse
import io
from pathlib import Path

import pytest

from hostd import config
from hostd.api import ConfigError, Parameters
from hostd.commands import complaints, run, status
from hostd.commands.exits import ExitCode
from hostd.commands.paper import WIDTH, Paper
from hostd.config import Configuration
from hostd.core.events import HeartReturned, SnapshotReceived, Started, TimerFired
from hostd.core.node import Node
from hostd.core.snapshot import Report, Snapshot
from hostd.core.terms import Incarnation, Phase, ResourceState, ServiceState
from hostd.figures import Figures
from hostd.left_behind import FILE_NAME, LeftBehind
from hostd.processes import boot_id
from hostd.status import one_line, status_of
from hostd.status_form import Status

CONF = """
[cluster]
name = "example"
nodes = ["a", "b"]
[[heartbeat.link]]
type = "any"
[[heartbeat.link]]
type = "any"
[service.disk]
agent = "broken"
[service.mail]
agent = "good"
requires = ["disk"]
[service.news]
agent = "good"
requires = ["mail"]
[service.web]
agent = "good"
after = ["news"]
"""
NOW_MS = 100_000


def agents(reference: str) -> Parameters:
    if reference == "broken":
        raise ConfigError("agents/broken.py does not load (SyntaxError: invalid syntax); mend it")
    return Parameters(any_others=True)


def read(folder: Path, node: str = "a", text: str = CONF) -> Configuration:
    (folder / "all.toml").write_text(text)
    return config.load(folder, node, agents, {"any": Parameters(any_others=True)})


def seen(configuration: Configuration, *, peer_runs: bool = False, left: str = "") -> Status:
    """The status of node a, which hears b or has heard nobody yet."""
    core = Node(configuration.plan, "a")
    figures = Figures.of(configuration)
    figures.left_behind = frozenset({left} if left else ())
    core.step(NOW_MS, Started(Incarnation(9, 9)))
    core.step(NOW_MS, HeartReturned())
    if peer_runs:
        running = Report(ServiceState.RUNNING, resources=(ResourceState.RUNNING,))
        word = Snapshot("b", Incarnation(5, 5), 1, Phase.ALONE, services={"disk": running}, nodes=("a", "b"))
        core.step(NOW_MS, SnapshotReceived(word))
    core.step(NOW_MS + 100, TimerFired())
    assert "2 services" not in one_line(core, figures, NOW_MS + 100)
    assert "3 set aside" in one_line(core, figures, NOW_MS + 100)
    return status_of(core, figures, NOW_MS + 100, 1_000.0)


def test_a_broken_agent_costs_its_services_and_those_that_require_them(tmp_path: Path) -> None:
    """The core gets the others only; each that is set aside keeps its reason; ``after`` one of them is void."""
    loaded = read(tmp_path)
    assert [service.name for service in loaded.plan.services] == ["web"]
    assert loaded.plan.service("web").after == ()
    assert {settings.service for settings in loaded.resources} == {"web"}
    assert [(aside.service.name, aside.reason) for aside in loaded.set_aside] == [
        ("disk", 'agent = "broken" cannot be used: agents/broken.py does not load (SyntaxError: invalid syntax)'),
        ("mail", "it requires disk, which is set aside"),
        ("news", "it requires mail, which is set aside"),
    ]


def test_what_runs_on_is_the_same_service_as_before(tmp_path: Path) -> None:
    """Its digest does not depend on what is set aside, so the other node, whose agents work, agrees."""
    aside = read(tmp_path)
    whole = read(tmp_path, "b", CONF.replace('"broken"', '"good"'))
    assert aside.plan.service("web").digest == whole.plan.service("web").digest
    assert aside.plan.digest == whole.plan.digest


def test_check_still_calls_it_an_error(tmp_path: Path) -> None:
    """A complaint with its place, and no warning; but the configuration can be used."""
    (tmp_path / "all.toml").write_text(CONF)
    examined = config.examine(tmp_path, "a", agents, {"any": Parameters(any_others=True)})
    assert examined.configuration is not None
    (error,) = (complaint for complaint in examined.complaints if not complaint.is_warning)
    assert (error.place, error.sets_aside) == ("all.toml:10", "disk")
    assert not any("broken" in warning for warning in examined.configuration.warnings)


def test_wrong_parameters_are_the_operators_mistake_and_refused(tmp_path: Path) -> None:
    """Setting aside is for agents, not for what conf.d gives them."""
    (tmp_path / "all.toml").write_text(CONF.replace('agent = "good"\nafter', 'agent = "good"\nparams = 3\nafter'))
    with pytest.raises(config.BadConfiguration, match="must be a table"):
        config.load(tmp_path, "a", agents, {"any": Parameters(any_others=True)})


def test_the_status_shows_it_with_reason_and_cure(tmp_path: Path) -> None:
    """An error for each: failed here, unknown if it may still run; the others are shown as ever."""
    facts = complaints.with_texts(seen(read(tmp_path), left="disk"))
    assert list(facts.services) == ["disk", "mail", "news", "web"]
    assert (facts.services["disk"].state, facts.services["disk"].nodes) == ("unknown", ("a",))
    assert (facts.services["mail"].state, facts.services["mail"].nodes) == ("failed", ())
    assert facts.services["web"].set_aside == ""
    problems = {p.about["service"]: p for p in facts.problems if p.code == "agent-broken"}
    assert problems.keys() == {"disk", "mail", "news"}
    assert problems["disk"].severity == "error"
    assert "It may run here still" in problems["disk"].text and "It may run" not in problems["mail"].text
    assert "SyntaxError" in problems["disk"].text and problems["disk"].cure.startswith("Mend it")
    others = [p for p in facts.problems if p.code in ("service-unknown", "service-down", "service-missing")]
    assert {p.about["service"] for p in others} <= {"web"}
    out = io.StringIO()
    status.show(facts, Paper(out))
    assert "set aside here" in out.getvalue()
    assert max(map(len, out.getvalue().splitlines())) <= WIDTH


def test_it_is_shown_where_the_other_node_runs_it(tmp_path: Path) -> None:
    """What is set aside here may run there, and then it is there."""
    disk = seen(read(tmp_path), peer_runs=True).services["disk"]
    assert (disk.state, disk.nodes, disk.instances["a"].state) == ("unknown", ("b",), "failed")
    assert "agents/broken.py" in disk.set_aside


def word(**services: ServiceState) -> Snapshot:
    reports = {name: Report(state) for name, state in services.items()}
    return Snapshot("a", Incarnation(9, 9), 1, Phase.MEMBER, services=reports)


def test_what_an_earlier_daemon_left_running_is_told_to_the_peer_as_unknown(tmp_path: Path) -> None:
    """Else "not known" would read as "does not run", and the peer would start a second one."""
    before = LeftBehind(tmp_path, ())
    ran = word(disk=ServiceState.RUNNING, mail=ServiceState.STOPPED, web=ServiceState.RUNNING)
    assert before.told(ran) == ran
    after = LeftBehind(tmp_path, ("disk", "mail"))
    assert after.told(word(web=ServiceState.RUNNING)).services == {
        "web": Report(ServiceState.RUNNING),
        "disk": Report(ServiceState.UNKNOWN),
    }
    assert after.with_unfinished(("mail", "web")) == {"disk", "mail"}
    again = LeftBehind(tmp_path, ("disk", "mail"))  # a brain that dies and comes back knows it, too
    assert again.services == {"disk"}


def test_nothing_is_left_behind_over_a_reboot_or_a_stop(tmp_path: Path) -> None:
    """A note of another boot is void; a service that was stopped is not in it any more."""
    before = LeftBehind(tmp_path, ())
    before.told(word(disk=ServiceState.RUNNING))
    before.told(word(disk=ServiceState.STOPPED))
    assert LeftBehind(tmp_path, ("disk",)).services == frozenset()
    before.told(word(disk=ServiceState.RUNNING))
    note = tmp_path / FILE_NAME
    note.write_text(note.read_text().replace(boot_id(), "another"))
    assert LeftBehind(tmp_path, ("disk",)).services == frozenset()


def test_a_note_that_cannot_be_read_counts_as_running(tmp_path: Path) -> None:
    """Nobody starts it elsewhere for want of a readable file."""
    (tmp_path / FILE_NAME).write_text("{")
    assert LeftBehind(tmp_path, ("disk",)).services == {"disk"}


BROKEN_AGENT = "from hostd.api import hookimpl\n@hookimpl\ndef start(resource):\n"


def test_run_starts_all_the_same_and_says_what_would_not_work(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """With a broken agent and a link that cannot be opened it gets as far as the key, having said both."""
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "bad.py").write_text(BROKEN_AGENT)
    text = (
        '[cluster]\nname = "example"\nnodes = ["a", "b"]\nkey = "nokey"\n'
        '[[heartbeat.link]]\ntype = "udp"\ninterface = "nonesuch0"\n'
        'address = { a = "192.0.2.1", b = "192.0.2.2" }\n'
        '[service.web]\nagent = "bad"\n[service.mail]\nagent = "dummy"\n'
    )
    (tmp_path / "all.toml").write_text(text)
    namespace = argparse.Namespace(
        config=tmp_path, agents=[tmp_path / "agents"], node="a", runtime_dir=tmp_path / "r", state_dir=tmp_path / "s"
    )
    assert run.run(namespace) is ExitCode.WRONG_USE  # for the key, not for the agent
    said = capfd.readouterr().err
    assert "service web is set aside, the others run" in said
    assert "nonesuch0 does not exist" in said
    assert "nokey" in said.splitlines()[-1]
