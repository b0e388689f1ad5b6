"""Who is a member?  The table of PROTOCOL.md section 2, cell by cell, and the ◆ rules below it."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostd.core.pair import Pair, Sight, Turn
from hostd.core.snapshot import Invitation, Snapshot
from hostd.core.terms import NEVER_BORN, Clearance, Incarnation, Phase, ServiceState, Why
from tests.core.builders import LATER, MINE, THEIRS, TIMERS, plan, report, service, word

VIEW = 4
PLAN = plan(service())
RUNS = {"mysql": report(ServiceState.RUNNING)}
INVITES_US = Invitation(VIEW, MINE)

JOINING = Turn(Phase.JOINING, Why.STARTED)
STARTUP = Turn(Phase.STARTUP_FENCING, Why.STARTED)
UNCONFIRMED = Turn(Phase.MEMBER, Why.STARTED, view=VIEW, coordinator="b")
CONFIRMED = Turn(Phase.MEMBER, Why.STARTED, confirmed=True, view=VIEW, coordinator="b")
LOST = Turn(Phase.PEER_LOST, Why.STARTED, view=VIEW, coordinator="b")
ALONE = Turn(Phase.ALONE, Why.STARTED, view=VIEW, coordinator="a")
LEFT = Turn(Phase.LEFT, Why.STARTED)


def sight(said: Snapshot | None = None, **changes: object) -> Sight:
    """We are MINE; the peer says this now, or nothing."""
    seen = Sight(
        incarnation=MINE,
        word=said,
        last_word=said,
        peer_incarnation=said.incarnation if said is not None else THEIRS,
        silence_ms=0,
        silence_limit_ms=TIMERS.deadtime_ms,
        clearance=Clearance.NONE,
        cleared=NEVER_BORN,
        may_form=True,
    )
    return msgspec.structs.replace(seen, **changes)


def silent(for_ms: int = TIMERS.deadtime_ms, **changes: object) -> Sight:
    return sight(None, silence_ms=for_ms, **changes)


def pair(turn: Turn, me: str = "a") -> Pair:
    """A node that stands there, its view formed with THEIRS."""
    built = Pair(PLAN, me)
    built._enter(turn)
    built.partner = THEIRS
    return built


def says(phase: Phase, view: int = 0, **changes: object) -> Sight:
    return sight(word(phase=phase, view=view, **changes))


CELLS = [
    # me, what is heard, (phase, confirmed, yields) of the turn or None for a wait
    ("joining hears an invitation", JOINING, "b", says(Phase.JOINING, invitation=INVITES_US), (Phase.MEMBER, 0, 0)),
    ("joining is first: invites", JOINING, "a", says(Phase.JOINING), None),
    ("joining is first: no accepting", JOINING, "a", says(Phase.JOINING, invitation=INVITES_US), None),
    ("joining hears member", JOINING, "a", says(Phase.MEMBER, VIEW), None),
    ("joining hears peer lost", JOINING, "a", says(Phase.PEER_LOST, VIEW), None),
    ("joining hears alone", JOINING, "a", says(Phase.ALONE, VIEW), None),
    ("joining, alone invites", JOINING, "a", says(Phase.ALONE, 2, invitation=INVITES_US), (Phase.MEMBER, 0, 0)),
    ("joining hears left", JOINING, "a", says(Phase.LEFT), (Phase.ALONE, 0, 0)),
    ("joining, silent", JOINING, "a", silent(TIMERS.initdead_ms - 1), None),
    ("joining, initdead", JOINING, "a", silent(TIMERS.initdead_ms), (Phase.STARTUP_FENCING, 0, 0)),
    ("startup hears joining", STARTUP, "a", says(Phase.JOINING), (Phase.JOINING, 0, 0)),
    ("startup hears startup", STARTUP, "a", says(Phase.STARTUP_FENCING), (Phase.JOINING, 0, 0)),
    ("startup hears member", STARTUP, "a", says(Phase.MEMBER, VIEW), (Phase.JOINING, 0, 0)),
    ("startup hears peer lost", STARTUP, "a", says(Phase.PEER_LOST, VIEW), (Phase.JOINING, 0, 0)),
    ("startup hears alone", STARTUP, "a", says(Phase.ALONE, VIEW), (Phase.JOINING, 0, 0)),
    ("startup hears left", STARTUP, "a", says(Phase.LEFT), (Phase.ALONE, 0, 0)),
    ("startup, silent for ever", STARTUP, "a", silent(10**9), None),
    ("startup, cleared", STARTUP, "a", silent(clearance=Clearance.GUARD), (Phase.ALONE, 0, 0)),
    ("unconfirmed, invited", UNCONFIRMED, "a", says(Phase.JOINING, invitation=INVITES_US), None),
    ("unconfirmed, invited by alone", UNCONFIRMED, "a", says(Phase.ALONE, 2, invitation=INVITES_US), None),
    ("unconfirmed, joining", UNCONFIRMED, "a", says(Phase.JOINING), (Phase.JOINING, 0, 0)),
    (
        "unconfirmed, invited to another view",
        UNCONFIRMED,
        "a",
        says(Phase.JOINING, invitation=Invitation(VIEW + 1, MINE)),
        (Phase.JOINING, 0, 0),
    ),
    ("unconfirmed hears my view", UNCONFIRMED, "a", says(Phase.MEMBER, VIEW), (Phase.MEMBER, 1, 0)),
    (
        "unconfirmed, another life in my view",
        UNCONFIRMED,
        "a",
        says(Phase.MEMBER, VIEW, incarnation=LATER),
        (Phase.JOINING, 0, 0),
    ),
    ("unconfirmed hears another view", UNCONFIRMED, "a", says(Phase.MEMBER, VIEW + 2), (Phase.JOINING, 0, 0)),
    ("unconfirmed hears peer lost", UNCONFIRMED, "a", says(Phase.PEER_LOST, VIEW), (Phase.JOINING, 0, 0)),
    ("unconfirmed hears alone", UNCONFIRMED, "a", says(Phase.ALONE, VIEW), (Phase.JOINING, 0, 0)),
    ("unconfirmed hears left", UNCONFIRMED, "a", says(Phase.LEFT), (Phase.ALONE, 0, 0)),
    ("unconfirmed, quiet", UNCONFIRMED, "a", silent(TIMERS.deadtime_ms - 1), None),
    ("unconfirmed, silent", UNCONFIRMED, "a", silent(), (Phase.JOINING, 0, 0)),
    ("confirmed hears joining", CONFIRMED, "a", says(Phase.JOINING, incarnation=LATER), (Phase.ALONE, 0, 0)),
    ("confirmed hears startup", CONFIRMED, "a", says(Phase.STARTUP_FENCING, incarnation=LATER), (Phase.ALONE, 0, 0)),
    ("confirmed hears my view", CONFIRMED, "a", says(Phase.MEMBER, VIEW), None),
    ("confirmed hears peer lost", CONFIRMED, "a", says(Phase.PEER_LOST, VIEW), None),
    ("confirmed hears alone", CONFIRMED, "a", says(Phase.ALONE, VIEW + 1), (Phase.JOINING, 0, 1)),
    ("confirmed hears left", CONFIRMED, "a", says(Phase.LEFT), (Phase.ALONE, 0, 0)),
    ("confirmed, quiet", CONFIRMED, "a", silent(TIMERS.deadtime_ms - 1), None),
    ("confirmed, silent", CONFIRMED, "a", silent(), (Phase.PEER_LOST, 0, 0)),
    ("lost hears joining", LOST, "a", says(Phase.JOINING, incarnation=LATER), (Phase.ALONE, 0, 0)),
    ("lost hears startup", LOST, "a", says(Phase.STARTUP_FENCING, incarnation=LATER), (Phase.ALONE, 0, 0)),
    ("lost hears my view", LOST, "a", says(Phase.MEMBER, VIEW), (Phase.MEMBER, 1, 0)),
    ("lost, another life in my view", LOST, "a", says(Phase.MEMBER, VIEW, incarnation=LATER), None),
    ("lost hears lost", LOST, "a", says(Phase.PEER_LOST, VIEW), (Phase.MEMBER, 1, 0)),
    ("lost hears another view", LOST, "a", says(Phase.MEMBER, VIEW + 2), None),
    ("lost hears alone", LOST, "a", says(Phase.ALONE, VIEW + 1), (Phase.JOINING, 0, 1)),
    ("lost hears left", LOST, "a", says(Phase.LEFT), (Phase.ALONE, 0, 0)),
    ("lost, silent for ever", LOST, "a", silent(10**9), None),
    ("lost, cleared", LOST, "a", silent(clearance=Clearance.FENCED), (Phase.ALONE, 0, 0)),
    ("alone hears joining", ALONE, "a", says(Phase.JOINING), None),
    ("alone hears a member", ALONE, "a", says(Phase.MEMBER, VIEW), None),
    ("alone hears peer lost", ALONE, "a", says(Phase.PEER_LOST, VIEW), None),
    ("alone is first", ALONE, "a", says(Phase.ALONE, VIEW + 1), None),
    ("alone is second", ALONE, "b", sight(word(node="a", phase=Phase.ALONE, view=VIEW + 1)), (Phase.JOINING, 0, 1)),
    ("alone hears left", ALONE, "a", says(Phase.LEFT), None),
    ("left is final", LEFT, "a", says(Phase.JOINING, invitation=INVITES_US), None),
    ("left, silent", LEFT, "a", silent(10**9, clearance=Clearance.FENCED), None),
]


@pytest.mark.parametrize(("start", "me", "seen", "expected"), [c[1:] for c in CELLS], ids=[c[0] for c in CELLS])
def test_the_table_of_the_pair(start, me, seen, expected):
    """Every cell: the phase it leads to, or a wait."""
    turn = pair(start, me).decide(seen)
    assert (turn and (turn.phase, int(turn.confirmed), int(turn.yields))) == expected


# -- invitations -------------------------------------------------------------------


def test_the_first_in_order_invites_one_incarnation():
    """To a number higher than any that either of them has seen."""
    first = pair(JOINING)
    first.decide(says(Phase.JOINING, view_max=9))
    assert first.invitation is not None
    assert first.invitation.to == THEIRS and first.invitation.view > 9


def test_the_second_in_order_invites_nobody_while_it_joins():
    """Two inviters would make two views."""
    second = pair(JOINING, "b")
    second.decide(sight(word(node="a")))
    assert second.invitation is None


def test_an_invitation_to_another_life_is_not_accepted():
    """It was meant for somebody who is gone."""
    said = word(phase=Phase.ALONE, invitation=Invitation(9, Incarnation(MINE.boot - 1, 1)))
    assert pair(JOINING).decide(sight(said)) is None


def test_a_stale_invitation_is_not_accepted_twice():
    """◆ Story 3: only numbers above every view that this incarnation has held or accepted."""
    joining = pair(UNCONFIRMED)
    joining.decide(silent())
    assert joining.phase is Phase.JOINING
    assert joining.decide(says(Phase.ALONE, 2, invitation=INVITES_US)) is None
    turn = joining.decide(says(Phase.ALONE, 2, invitation=Invitation(VIEW + 1, MINE)))
    assert turn is not None and turn.view == VIEW + 1


def test_going_alone_makes_older_invitations_void():
    """◆ It takes a new number, higher than every one ever seen."""
    lost = pair(LOST)
    lost.decide(silent(clearance=Clearance.GUARD))
    assert lost.view > VIEW
    lost.decide(sight(word(phase=Phase.JOINING, invitation=Invitation(VIEW + 1, MINE))))
    assert lost.phase is Phase.ALONE


def test_an_acceptance_confirms_the_inviter():
    """It hears the named life as MEMBER of the view that it offered."""
    inviter = pair(ALONE)
    inviter.decide(says(Phase.JOINING))
    offer = inviter.invitation
    assert offer is not None
    turn = inviter.decide(says(Phase.MEMBER, offer.view, coordinator="a"))
    assert turn is not None and turn.confirmed and turn.view == offer.view
    assert inviter.is_coordinator and inviter.invitation is None


@pytest.mark.parametrize(
    "wrong", [{"incarnation": LATER}, {"coordinator": "b"}, {"view": 99}], ids=["life", "coordinator", "view"]
)
def test_an_acceptance_of_something_else_confirms_nothing(wrong):
    """Life, view and coordinator have to be those of the standing offer."""
    inviter = pair(ALONE)
    inviter.decide(says(Phase.JOINING))
    offer = inviter.invitation
    assert offer is not None
    said = {"view": offer.view, "coordinator": "a", **wrong}
    assert inviter.decide(sight(word(phase=Phase.MEMBER, **said))) is None


def test_the_inviter_that_is_alone_goes_on_serving():
    """An offer alone changes nothing."""
    inviter = pair(ALONE)
    inviter.decide(says(Phase.JOINING))
    assert inviter.invitation is not None and inviter.is_coordinator and inviter.phase is Phase.ALONE


def test_an_offer_stands_while_it_is_waited_for():
    """A new number with every heartbeat would never be accepted."""
    inviter = pair(ALONE)
    inviter.decide(says(Phase.JOINING))
    offer = inviter.invitation
    inviter.decide(says(Phase.JOINING))
    inviter.decide(says(Phase.JOINING, view_max=offer.view))
    assert inviter.invitation == offer


def test_a_peer_that_let_the_offer_lapse_gets_a_higher_one():
    """It has accepted that number before and may not accept it again."""
    inviter = pair(ALONE)
    inviter.decide(says(Phase.JOINING))
    offer = inviter.invitation
    inviter.decide(says(Phase.JOINING, offer.view))
    assert inviter.invitation.view > offer.view


def test_a_new_life_gets_a_new_offer():
    """An invitation is addressed to one incarnation."""
    inviter = pair(ALONE)
    inviter.decide(says(Phase.JOINING))
    inviter.decide(says(Phase.JOINING, incarnation=LATER))
    assert inviter.invitation.to == LATER


def test_nothing_is_invited_or_accepted_while_something_is_unknown():
    """A view that begins with what runs has to know it."""
    inviter, invited = pair(JOINING), pair(JOINING, "b")
    inviter.decide(sight(word(), may_form=False))
    assert inviter.invitation is None
    offered = word(node="a", invitation=INVITES_US)
    assert invited.decide(sight(offered, may_form=False)) is None


def test_an_offer_is_withdrawn_when_it_no_longer_makes_sense():
    """Somebody who must not form a view any more does not accept an acceptance."""
    inviter = pair(ALONE)
    inviter.decide(says(Phase.JOINING))
    offer = inviter.invitation
    accepted = word(phase=Phase.MEMBER, view=offer.view, coordinator="a")
    assert inviter.decide(sight(accepted, may_form=False)) is None
    assert inviter.invitation is None


# -- view numbers --------------------------------------------------------------------


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_view_numbers_are_never_shared_by_two_coordinators(seen_by_a, seen_by_b):
    """Whatever each of them has heard: Invariant 3."""
    views = []
    for me, seen in (("a", seen_by_a), ("b", seen_by_b)):
        lost = pair(LOST, me)
        lost.decide(sight(word(phase=Phase.MEMBER, view=VIEW, view_max=seen)))
        lost.decide(silent())
        turn = lost.decide(silent(clearance=Clearance.GUARD))
        assert turn is not None and turn.view > seen
        views.append(turn.view)
    assert views[0] != views[1]


def test_differing_node_orders_do_not_make_them_shared():
    """◆ Story 15: the parity is of sorted names, not of the configured order."""
    turned = plan(service(), nodes=("b", "a"))
    mine, theirs = Pair(PLAN, "a"), Pair(turned, "b")
    assert mine._go_alone(Why.PEER_LEFT).view % 2 != theirs._go_alone(Why.PEER_LEFT).view % 2


def test_a_new_life_starts_above_all_views_ever_seen():
    """Its own memory of what it accepted is gone, the numbers are not."""
    reborn = pair(ALONE)
    reborn.begin_life()
    assert (reborn.phase, reborn.view_max) == (Phase.JOINING, 0)
    assert reborn._go_alone(Why.PEER_LEFT).view > VIEW


# -- silence after ALONE, fencing on purpose --------------------------------------------


@pytest.mark.parametrize(
    ("last", "phase"),
    [
        (word(incarnation=LATER, services=RUNS), Phase.PEER_LOST),
        (word(incarnation=LATER, services={"mysql": report()}), Phase.ALONE),
        (word(incarnation=LATER, phase=Phase.LEFT), Phase.ALONE),
        (None, Phase.PEER_LOST),
    ],
    ids=["ran something", "all stopped", "left", "said nothing yet"],
)
def test_a_newcomer_that_falls_silent_is_lost_unless_all_was_stopped(last, phase):
    """◆ Story 12: the peer dies while JOINING with a service running."""
    alone = pair(ALONE)
    alone.decide(silent(last_word=last, peer_incarnation=LATER))
    assert alone.phase is phase


def test_a_life_that_was_cleared_is_not_lost_again():
    """The clearance that made us ALONE covers it."""
    alone = pair(LOST)
    alone.decide(silent(clearance=Clearance.GUARD, cleared=THEIRS))
    assert alone.phase is Phase.ALONE
    assert alone.decide(silent(10**9)) is None


def test_a_life_heard_after_the_request_is_not_covered_by_it():
    """◆ Story 16: fencing that hits a peer that has just come back."""
    alone = pair(LOST)
    alone.decide(silent(0, clearance=Clearance.FENCED, cleared=THEIRS, peer_incarnation=LATER))
    turn = alone.decide(silent(peer_incarnation=LATER))
    assert turn is not None and turn.phase is Phase.PEER_LOST


def blocked(phase=Phase.MEMBER, **changes):
    return sight(word(phase=phase, view=VIEW), peer_blocked=True, **changes)


def test_a_peer_that_failed_to_stop_is_lost_on_purpose_and_not_resumed():
    """With fencing: it has to be fenced though it is heard."""
    member = pair(CONFIRMED)
    turn = member.decide(blocked())
    assert turn is not None and turn.phase is Phase.PEER_LOST
    assert member.decide(blocked()) is None
    assert member.decide(blocked(Phase.PEER_LOST)) is None
    turn = member.decide(blocked(clearance=Clearance.FENCED))
    assert turn is not None and turn.phase is Phase.ALONE


def test_a_peer_that_was_cured_before_the_shot_is_not_shot():
    """An operator's cleanup, while the device failed or while we could not have gone on (seed 321)."""
    member = pair(CONFIRMED)
    member.decide(blocked())
    turn = member.decide(says(Phase.MEMBER, VIEW))
    assert turn is not None and (turn.phase, turn.confirmed) == (Phase.MEMBER, True)


def test_an_unconfirmed_member_never_seeks_clearance():
    """It has started nothing; nor does a member, or who is ALONE already."""
    seeking = [turn for turn in (JOINING, STARTUP, UNCONFIRMED, CONFIRMED, LOST, ALONE) if pair(turn).seeks_clearance]
    assert seeking == [STARTUP, LOST]


def test_only_a_confirmed_coordinator_or_alone_assigns():
    """Section 3."""
    mine = Turn(Phase.MEMBER, Why.STARTED, confirmed=True, view=VIEW, coordinator="a")
    waiting = Turn(Phase.MEMBER, Why.STARTED, view=VIEW, coordinator="a")
    lost = Turn(Phase.PEER_LOST, Why.STARTED, view=VIEW, coordinator="a")
    turns = (JOINING, STARTUP, waiting, CONFIRMED, mine, lost, ALONE, LEFT)
    assert [turn for turn in turns if pair(turn).is_coordinator] == [mine, ALONE]


@pytest.mark.parametrize("clearance", [c for c in Clearance if c is not Clearance.NONE])
def test_each_clearance_ends_a_loss(clearance):
    """And says which it was."""
    turn = pair(LOST).decide(silent(clearance=clearance))
    whys = {Why.PEER_FENCED, Why.PEER_CONFIRMED_DOWN, Why.PEER_GUARDED, Why.PEER_LEFT, Why.PEER_DISKS_CUT}
    assert turn is not None and turn.phase is Phase.ALONE and turn.why in whys


def test_a_node_that_joins_takes_the_operators_word_before_initdead():
    """``confirm-down`` is valid in every phase while the peer is unheard."""
    turn = pair(JOINING).decide(silent(0, clearance=Clearance.CONFIRMED))
    assert turn is not None and (turn.phase, turn.why) == (Phase.ALONE, Why.PEER_CONFIRMED_DOWN)


def test_an_invitation_is_void_once_a_higher_view_was_taken():
    """◆ Even for the life that it was meant for: it had left meanwhile, which is final."""
    first = pair(JOINING)
    first.decide(says(Phase.JOINING))
    offer = first.invitation
    assert offer is not None
    first.decide(says(Phase.LEFT))
    assert first.phase is Phase.ALONE and first.view > offer.view
    turn = first.decide(sight(word(phase=Phase.MEMBER, view=offer.view, coordinator="a")))
    assert turn is None and first.phase is Phase.ALONE
