"""What an operator sees is true: links, delays, carriers, reasons, and a screen that fits."""

import ast
from pathlib import Path

import pytest

from hostd.api import LinkSettings
from hostd.channel import Channel
from hostd.commands import sentences
from hostd.commands.status import fitted
from hostd.core.effects import CarrierTurned, LinkOpened, ServiceAssigned
from hostd.core.snapshot import Assignment, Snapshot
from hostd.core.terms import Carrier, Epoch, Incarnation, Phase, Why
from hostd.figures import Figures
from hostd.messages import LinkState
from hostd.observed import differences
from hostd.requests import Entry
from hostd.status_form import Problem
from tests.edge.test_commands import a_status
from tests.edge.test_status import Scene

HOSTD = Path(__file__).parents[2] / "hostd"
LIFE, NEXT_LIFE = (Incarnation(1, 1), 7), (Incarnation(2, 2), 9)


def a_channel() -> Channel:
    return Channel(0, LinkSettings("cross", "any", "a", "b", "example", 100), lambda _settings: None, 0)


def test_a_late_frame_is_a_delay() -> None:
    """The longest gap between two frames of one life."""
    channel = a_channel()
    for at_ms in (1_000, 1_100, 1_900, 2_000):
        channel.heard(at_ms, LIFE, 2_000)
    assert channel.gap_max.end_second() == 800


@pytest.mark.parametrize(("gap_ms", "life"), [(2_000, LIFE), (60_000, LIFE), (500, NEXT_LIFE)])
def test_an_absence_of_the_peer_is_no_delay(gap_ms: int, life: tuple[Incarnation, int]) -> None:
    """Silence for a deadtime, or a restart of the peer's daemon, is told as such and does not count."""
    channel = a_channel()
    channel.heard(1_000, LIFE, 2_000)
    channel.heard(1_000 + gap_ms, life, 2_000)
    assert channel.gap_max.end_second() == 0


def test_a_dead_node_neither_hears_nor_is_heard() -> None:
    """After a deadtime of silence its last word that it hears us is void, in both columns, and no link is blamed."""
    scene = Scene()
    scene.receive(phase=Phase.MEMBER, confirmed=True)
    scene.hear("cross", "serial")
    assert {(link.send, link.receive) for link in scene.status.nodes["b"].links.values()} == {("up", "up")}
    scene.later(2_000)
    assert {(link.send, link.receive) for link in scene.status.nodes["b"].links.values()} == {("down", "down")}
    assert "link-down" not in scene.codes


def test_a_medium_is_open_or_away_and_its_carrier_is_told_apart() -> None:
    """ "is open" is never said of a cable that lost its carrier, and each turn is told once."""
    assert sentences.fact(LinkOpened("x", True, "")) == "link x is open"
    assert sentences.fact(LinkOpened("x", False, "eth1 is not there")) == "link x cannot be used: eth1 is not there"
    figures = Figures()
    told = [
        figures.carrier_turned(LinkState("x", 1, True, carrier, ""))
        for carrier in (Carrier.UP, Carrier.DOWN, Carrier.DOWN, Carrier.UP, Carrier.UNKNOWN, Carrier.DOWN)
    ]
    assert told == [None, CarrierTurned("x", False), None, CarrierTurned("x", True), None, None]
    assert sentences.fact(CarrierTurned("x", False)) == "link x lost its carrier"


def test_a_service_that_ran_nowhere_is_not_told_as_found_running() -> None:
    """A cold start: the peer's first table has it with nobody, which is no news; that its owner is gone, is."""

    def table(view: int, owners: tuple[str, ...]) -> Snapshot:
        assignments = {"mail": Assignment(owners, Epoch(view, 1), Why.ADOPTED)}
        return Snapshot("b", Incarnation(1, 1), view, Phase.MEMBER, view=view, assignments=assignments)

    def told(before: Snapshot | None, after: Snapshot) -> list[str]:
        assigned = [fact for fact in differences(before, after) if isinstance(fact, ServiceAssigned)]
        return [sentences.entry(Entry(0.0, "b", fact, observed=True)) for fact in assigned]

    assert told(None, table(1, ())) == []
    assert told(None, table(1, ("b",))) == ["mail is assigned to b: it was found running"]
    assert told(table(1, ("b",)), table(2, ())) == ["mail is assigned to no node: it was found running nowhere"]


def test_the_reason_of_an_assignment_travels_with_it() -> None:
    """The node that is not the coordinator tells why, and not only that it was ordered."""
    after = Snapshot(
        "b", Incarnation(1, 1), 1, Phase.MEMBER, assignments={"mail": Assignment(("b",), Epoch(2, 1), Why.MOVED)}
    )
    assigned = [fact for fact in differences(None, after) if isinstance(fact, ServiceAssigned)]
    assert assigned == [ServiceAssigned("mail", ("b",), Why.MOVED)]
    assert sentences.entry(Entry(0.0, "b", assigned[0], observed=True)).endswith("the operator moved it")


@pytest.mark.parametrize(
    ("owner", "told", "shown"),
    [
        ("b", Why.ADOPTED, "primary"),
        ("b", Why.FAILBACK, "primary"),
        ("a", Why.BACKUP, "backup"),  # b, its primary, is not heard
        ("a", Why.ADOPTED, "backup"),
        ("a", Why.WAITS_FOR_FAILBACK, "waits_for_failback"),
    ],
)
def test_how_an_assignment_began_gives_way_to_what_holds_now(owner: str, told: Why, shown: str) -> None:
    """ "It was found running" is no reason for where a service is."""
    scene = Scene()
    scene.core.orders["mail"] = Assignment((owner,), Epoch(2, 1), told)
    service = scene.status.services["mail"]
    assert (service.owners, service.why) == ((owner,), shown)


def test_a_screen_of_24_lines_is_enough() -> None:
    """A watched status drops its cures before it would scroll, and says how much is cut."""
    problem = Problem("warning", "one-link", {}, text="There is only one link. " * 4, cure="Add another. " * 6)
    few, many = (a_status(problems=(problem,) * count) for count in (2, 20))
    assert "→" in fitted(few, 40, False)
    assert "→" not in fitted(few, 20, False)
    assert len(fitted(few, 20, False).splitlines()) < 20
    cut = fitted(many, 24, False).splitlines()
    assert len(cut) == 23
    assert cut[-1].endswith("lines more: hostd status")


def imports(path: Path) -> set[str]:
    """The modules of hostd that a file imports when it is loaded, or for its types."""
    found: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        inner = node.body if isinstance(node, ast.If) else [node]
        for each in inner:
            if isinstance(each, ast.ImportFrom) and each.module and each.module.startswith("hostd"):
                names = {f"{each.module}.{alias.name}" for alias in each.names}
                found |= {each.module} | names
            elif isinstance(each, ast.Import):
                found |= {alias.name for alias in each.names if alias.name.startswith("hostd.")}
    return found


def test_no_two_modules_import_each_other() -> None:
    """Nor do more in a circle: what is imported for types only counts as well."""
    names = {".".join(path.relative_to(HOSTD.parent).with_suffix("").parts): path for path in HOSTD.rglob("[a-z]*.py")}
    graph = {name: imports(path) & names.keys() for name, path in names.items()}
    assert graph["hostd.status"] > {"hostd.problems", "hostd.figures"}
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, f"a circle: {' → '.join((*way[way.index(name) :], name))}"
        if name not in done:
            for other in graph[name]:
                visit(other, (*way, name))
            done.add(name)

    for name in graph:
        visit(name, ())
