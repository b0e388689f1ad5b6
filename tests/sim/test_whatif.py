"""What-if plays: a site's own plan, one failure, and what becomes of it."""

import itertools
from collections.abc import Iterator

import msgspec
import pytest

from hostd.core.plan import Link, Plan, Resource, Service, Timers
from hostd.core.terms import Phase
from hostd.sim import faults as f
from hostd.sim import random_schedules
from hostd.sim.faults import Conduct, Stop, Timed
from hostd.sim.singles import FOR_EVER_MS, What, singles
from hostd.sim.whatif import ASSUMED_MS, Course, NotWellError, Site, at_once, play

NODES = ("n12", "n21")
"""Names of the same letters: nothing in the simulator may take one for the other."""


def service(name: str, primary: int, octet: int) -> Service:
    address = f"172.23.2.{octet}/24"
    resources = (Resource(id=address, agent="address", address=address), Resource(id=name, agent="dummy"))
    return Service(name, NODES[::-1] if primary else NODES, resources)


def site(*, fencing: bool, tiebreaker: bool = False) -> Site:
    plan = Plan(
        cluster="what-if",
        nodes=NODES,
        services=(service("web", 0, 16), service("db", 1, 13)),
        links=(Link("null-modem"), Link("cross", direct=True), Link("clients")),
        fencing=fencing,
        tiebreaker=tiebreaker,
    )
    return Site(plan, on_lan=("clients",), levels=dict.fromkeys(NODES, (1, 2)) if fencing else {})


def after(fault: f.AnyFault, *more: f.AnyFault, fencing: bool = True) -> Course:
    return play(site(fencing=fencing), at_once(fault, *more))


def test_a_power_cut_with_fencing_moves_what_ran_there() -> None:
    """The survivor shoots, then serves all; the silence is at least warntime and the whole under ten seconds."""
    course = after(f.PowerOff("n12"))
    assert course.before == {"web": ("n12",), "db": ("n21",)}
    assert course.after == {"web": ("n21",), "db": ("n21",)}
    assert course.shot == ("n12",)
    assert Timers().warntime_ms < course.out_ms["web"] < 10_000
    assert "db" not in course.out_ms
    assert not (course.twice_ms or course.owners_ms or course.waits or course.harm)


def test_a_device_that_fails_leaves_the_survivor_waiting() -> None:
    """No confirmation, no takeover: the node waits, and the service runs nowhere."""
    course = after(f.Fencing("n12", Conduct.FAIL), f.PowerOff("n12"))
    assert course.waits == ("n21",)
    assert course.after["web"] == ()
    assert course.phases == {"n12": None, "n21": Phase.PEER_LOST}


def test_a_killed_daemon_without_fencing_may_run_twice() -> None:
    """Nobody ends the processes that it leaves, and the play says that it stays so."""
    course = after(f.KillHost("n12"), fencing=False)
    assert course.twice_ms["web"] > 0
    assert "web" in course.for_good
    assert not course.owners_ms


def test_a_killed_daemon_with_fencing_never_runs_twice() -> None:
    """The node is shot before its service starts elsewhere."""
    course = after(f.KillHost("n12"))
    assert course.twice_ms == {}
    assert course.after["web"] == ("n21",)


def test_a_split_without_fencing_is_told_with_its_two_owners() -> None:
    """Neither links nor ARP: both own the address, and nothing ends that."""
    cuts = [f.Cut(link) for link in ("null-modem", "cross", "clients")]
    course = after(*cuts, f.ArpBlock(), fencing=False)
    assert set(course.owners_ms) == {"172.23.2.16/24", "172.23.2.13/24"}
    assert set(course.owners_ms) < set(course.for_good)


def test_only_the_named_links_share_the_fate_of_the_clients_lan() -> None:
    """A node without its LAN is still heard on the others; with all links on the LAN it is lost."""
    here = site(fencing=False)
    assert play(here, at_once(f.LanCut("n12"))).phases == {"n12": Phase.MEMBER, "n21": Phase.MEMBER}
    everything = msgspec.structs.replace(here, on_lan=("null-modem", "cross", "clients"))
    assert Phase.ALONE in play(everything, at_once(f.LanCut("n12"))).phases.values()


def test_a_stop_that_fails_is_told_as_blocked() -> None:
    """Without fencing the operator is needed."""
    course = after(f.Stops("web", "n12", Conduct.FAIL), f.Ask("n12", "move", "web", "n21"), fencing=False)
    assert course.blocked == (("web", "n12"),)


def test_the_time_of_an_outage_follows_the_timers_of_the_plan() -> None:
    """A deadtime that is 8 s longer costs 8 s more (all of userland hangs, which no carrier shows)."""
    hang = at_once(f.Pause("n12", Stop.USERLAND, FOR_EVER_MS))
    usual = site(fencing=True)
    slow = msgspec.structs.replace(usual.plan, timers=Timers(deadtime_ms=10_000))
    quick_ms = play(usual, hang).out_ms["web"]
    slow_ms = play(msgspec.structs.replace(usual, plan=slow), hang).out_ms["web"]
    assert 7_000 <= slow_ms - quick_ms <= 9_000


def test_what_comes_back_is_waited_for() -> None:
    """A node that is switched on again gets its service back, within the play."""
    schedule = (Timed(0, f.PowerOff("n12")), Timed(20_000, f.PowerOn("n12")))
    assert play(site(fencing=True), schedule).after == {"web": ("n12",), "db": ("n21",)}


def test_a_play_is_the_same_each_time() -> None:
    """No dice: the same plan and faults give the same course."""
    assert after(f.PowerOff("n21")) == after(f.PowerOff("n21"))


def test_a_plan_that_never_comes_up_is_refused() -> None:
    """A start that exceeds every limit: the play says what is missing instead of a table of nonsense."""
    here = site(fencing=True)
    web = here.plan.services[0]
    starved = msgspec.structs.replace(web, resources=(msgspec.structs.replace(web.resources[1], start_timeout_ms=0),))
    plan = msgspec.structs.replace(here.plan, services=(starved,))
    with pytest.raises(NotWellError, match="web"):
        play(msgspec.structs.replace(here, plan=plan), ())


def named() -> Iterator[tuple[What, str, str, str]]:
    here = site(fencing=True, tiebreaker=True)
    return ((s.what, s.node, s.link, s.service) for s in singles(here))


def test_every_kind_of_failure_is_in_the_table() -> None:
    """Each kind, and each node, link and service of the site."""
    rows = list(named())
    assert {what for what, *_ in rows} == set(What)
    assert len(rows) == len(set(rows))
    for node, link in itertools.product(NODES, ("null-modem", "cross", "clients")):
        assert (What.LINK_ONE_WAY, node, link, "") in rows
    assert {s for what, _, _, s in rows if what is What.DIES_UNSEEN} == {"web", "db"}


def test_without_fencing_and_tiebreaker_nothing_is_said_of_them() -> None:
    """A table has no row for what the site does not have."""
    what = {single.what for single in singles(site(fencing=False))}
    assert not what & {What.FENCE_FAILS, What.FENCE_LEVEL_FAILS, What.TIEBREAKER_NODE, What.TIEBREAKER_BOTH}


@pytest.mark.parametrize("fencing", [True, False], ids=["fencing", "no-fencing"])
def test_random_schedules_of_a_site_find_no_harm(fencing: bool) -> None:
    """Twenty seeds on names, links and timers that are not the simulator's own."""
    here = site(fencing=fencing, tiebreaker=True)
    outcome = random_schedules.Outcome()
    for seed in range(20):
        outcome.add(random_schedules.play(here, seed))
    assert [(verdict.seed, verdict.harm) for verdict in outcome.harmed] == []
    assert outcome.runs == 20


def test_what_is_assumed_of_agents_is_less_than_any_usual_limit() -> None:
    """Else a play would show time limits that nobody has seen."""
    usual = Resource(id="x", agent="dummy")
    limit_ms = min(usual.start_timeout_ms, usual.stop_timeout_ms, usual.monitor_timeout_ms)
    assert max(ASSUMED_MS.values()) < limit_ms
