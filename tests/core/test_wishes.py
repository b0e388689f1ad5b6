"""What the operator wants: the newest wish wins, in whatever order it is learnt."""

from hypothesis import given
from hypothesis import strategies as st

from hostd.core.snapshot import Wish, WishKind
from hostd.core.wishes import Wishes


def made(kind, subject, serial, node):
    """A wish as some node made it: one stamp belongs to one wish, so the value follows from it."""
    return Wish(kind, subject, "yes" if (serial + len(node)) % 2 else "", serial, node)


wishes = st.builds(
    made,
    st.sampled_from(WishKind),
    st.sampled_from(["", "mysql", "ldap", "a"]),
    st.integers(1, 6),
    st.sampled_from(["a", "bb"]),
)
lists = st.lists(wishes, max_size=12).map(tuple)


def merged(*parts):
    known = Wishes()
    for part in parts:
        known.merge(part)
    return known


@given(lists, lists)
def test_merging_is_commutative(mine, theirs):
    """Both nodes come to the same, whoever hears of it first."""
    assert merged(mine, theirs).all() == merged(theirs, mine).all()


@given(lists, lists, lists)
def test_merging_is_associative(first, second, third):
    """So it does not matter through whom a wish travelled."""
    assert merged(merged(first, second).all(), third).all() == merged(first, merged(second, third).all()).all()


@given(lists)
def test_merging_is_idempotent(some):
    """A wish that comes again is no news."""
    known = merged(some)
    before = known.all()
    assert known.merge(some) == []
    assert known.all() == before


@given(lists)
def test_a_new_wish_is_newer_than_all_that_are_known(some):
    """What the operator types now beats whatever was merged before."""
    known = merged(some)
    wish = known.make("a", WishKind.STOPPED, "mysql", "yes")
    assert all(wish.stamp > other.stamp for other in some)
    assert merged(known.all(), some).value(WishKind.STOPPED, "mysql") == "yes"


@given(lists, st.randoms(use_true_random=False))
def test_what_is_published_depends_on_nothing_but_the_wishes(some, dice):
    """Otherwise equal snapshots would differ and be sent again."""
    shuffled = list(some)
    dice.shuffle(shuffled)
    assert merged(tuple(shuffled)).all() == merged(some).all()


def test_equal_serials_are_ordered_by_node():
    """Two commands at the same moment on both nodes: one of them, the same everywhere."""
    known = merged((Wish(WishKind.MOVED, "mysql", "x", 3, "b"), Wish(WishKind.MOVED, "mysql", "y", 3, "a")))
    assert known.value(WishKind.MOVED, "mysql") == "x"


def test_a_wish_taken_back_is_no_wish_but_is_still_known():
    """The empty value has to win over an older "yes" of the peer."""
    known = Wishes()
    known.make("a", WishKind.STANDBY, "b", "yes")
    known.make("a", WishKind.STANDBY, "b", "")
    assert not known.has(WishKind.STANDBY, "b")
    assert known.merge((Wish(WishKind.STANDBY, "b", "yes", 1, "b"),)) == []
    assert not known.has(WishKind.STANDBY, "b")


def test_merging_tells_only_what_was_news():
    """The node acts and tells once for each wish."""
    known = Wishes()
    old, new = Wish(WishKind.STOPPED, "x", "yes", 1, "a"), Wish(WishKind.STOPPED, "x", "", 2, "a")
    assert known.merge((old,)) == [old]
    assert known.merge((old, new)) == [new]


def test_maintenance_of_everything_covers_each_service():
    """The empty subject stands for all."""
    known = Wishes()
    known.make("a", WishKind.MAINTENANCE, "", "yes")
    assert known.in_maintenance("mysql")
    known.make("a", WishKind.MAINTENANCE, "", "")
    known.make("a", WishKind.MAINTENANCE, "ldap", "yes")
    assert known.in_maintenance("ldap") and not known.in_maintenance("mysql")


def test_a_subject_without_a_wish_has_the_lowest_stamp():
    """So that any cleanup is newer than none."""
    assert Wishes().stamp(WishKind.CLEANUP, "mysql") < merged((made(WishKind.CLEANUP, "mysql", 1, "a"),)).stamp(
        WishKind.CLEANUP, "mysql"
    )
