"""Every effect that acts has one number and one outcome; nobody waits for ever and nobody counts twice."""

from hypothesis import given, settings
from hypothesis import strategies as st

from hostd.core.events import (
    AddressCause,
    AddressLost,
    CleanUp,
    Leave,
    MoveService,
    ProcessExited,
    SetMaintenance,
    SetStandby,
    StartService,
    StopService,
)
from hostd.core.terms import Action
from tests.core.builders import (
    ADDRESS,
    AWAITED,
    Bench,
    address,
    agent,
    alone,
    coordinator,
    everywhere,
    of,
    service,
    settle,
)

SERVICES = (everywhere(), service(resources=(address(), agent()), requires=("gfs",)), service("web"))
commands = st.sampled_from(
    [
        StopService("mysql"), StartService("mysql"), MoveService("mysql"), MoveService("web"), CleanUp("mysql"),
        StopService("gfs"), StartService("gfs"), SetMaintenance(on=True), SetMaintenance(on=False),
        SetStandby("a", standby=True), SetStandby("a", standby=False), SetStandby("b", standby=True),
    ]
)  # fmt: skip
troubles = st.sampled_from(
    [ProcessExited("mysql", "mysql"), ProcessExited("gfs", "gfs"), AddressLost(ADDRESS, AddressCause.REMOVED)]
)
days = st.lists(st.tuples(st.one_of(commands, troubles), st.sampled_from([0, 300, 20_000]), st.booleans()), max_size=8)


def live(bench: Bench, day: list) -> None:
    """What the operator and fate do; some outcomes are held back until the next entry."""
    for entry, after_ms, slow in day:
        bench.holds = (lambda effect: isinstance(effect, AWAITED)) if slow else (lambda _: False)
        if isinstance(entry, ProcessExited | AddressLost):
            bench.step(entry)
        else:
            bench.ask(entry)
        bench.run(after_ms)
        release(bench)
        if bench.says is not None:
            bench.say(services=bench.obeys())


def release(bench: Bench) -> None:
    """All outcomes that were held back."""
    bench.holds = lambda _: False
    while bench.open:
        bench.finish(bench.open[0])


def numbers(bench: Bench) -> list[int]:
    asked = [effect for effect in bench.seen if isinstance(effect, AWAITED)]
    ids = [getattr(effect, "action_id", None) or getattr(effect, "request_id", None) for effect in asked]
    return [number for number in ids if number is not None]


@settings(max_examples=40, deadline=None)
@given(days, st.booleans())
def test_every_request_has_a_number_of_its_own(day, paired):
    """Over all machines: an outcome can be taken for one request only."""
    bench = coordinator(*SERVICES) if paired else alone(*SERVICES)
    live(bench, day)
    asked = numbers(bench)
    assert len(asked) == len(set(asked))


@settings(max_examples=40, deadline=None)
@given(days)
def test_nobody_waits_for_an_outcome_that_was_told(day):
    """Whatever came in between: with everything answered, no rung and no lease waits."""
    bench = alone(*SERVICES)
    live(bench, day)
    for ladder in bench.node.ladders.values():
        assert [rung.request_id for rung in ladder.rungs] == [None] * len(ladder.rungs)
        assert [rung.monitor_id for rung in ladder.rungs] == [None] * len(ladder.rungs)
    assert [lease.request_id for lease in bench.node.leases.held.values()] == [None] * len(bench.node.leases.held)


@settings(max_examples=40, deadline=None)
@given(days)
def test_once_the_operator_is_content_everything_runs_again(day):
    """Liveness: all wishes taken back and failures forgotten, every service runs where it should."""
    bench = coordinator(*SERVICES)
    live(bench, day)
    for node in ("a", "b"):
        bench.ask(SetStandby(node, standby=False))
    bench.ask(SetMaintenance(on=False))
    for name in ("gfs", "mysql", "web"):
        bench.ask(StartService(name))
        bench.ask(CleanUp(name))
    for _ in range(3):
        settle(bench)
        bench.run(2_000)
    assert bench.owners["gfs"] == ("a", "b")
    assert all(bench.owners[name] in (("a",), ("b",)) for name in ("mysql", "web"))
    here = [name for name, owners in bench.owners.items() if "a" in owners]
    assert {name: bench.states[name].name for name in here} == dict.fromkeys(here, "RUNNING")


def test_an_outcome_that_nobody_asked_for_changes_nothing():
    """A second one of the same action, or one of an earlier life."""
    bench = alone(*SERVICES)
    done = [bench._outcome(effect) for effect in of(AWAITED, bench.seen)]
    before = (bench.states, bench.owners)
    for outcome in done:
        bench.node.step(bench.now_ms, outcome)
    assert (bench.states, bench.owners) == before


def test_an_outcome_of_a_start_after_leaving_began_is_still_taken():
    """What was started meanwhile is stopped before LEFT is said."""
    bench = alone(service())
    bench.ask(StopService("mysql"))
    bench.holds = lambda effect: getattr(effect, "action", None) is Action.START
    bench.ask(StartService("mysql"))
    bench.ask(Leave())
    bench.run(2_000)
    assert bench.phase.name == "ALONE"
    release(bench)
    bench.run(1_000)
    assert bench.phase.name == "LEFT" and "mysql" not in bench.running
