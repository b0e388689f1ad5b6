"""Snapshots in parts: any size over any link, in any order, within bounds."""

from hypothesis import given
from hypothesis import strategies as st

from hostd.core import wire
from hostd.core.terms import Incarnation
from hostd.core.wire import Assembler, Cluster, Part, Salt, Sealer, split

LIFE = Incarnation(2, 1)
mtus = st.integers(144, 1_200)


def assembled(assembler, parts, life=LIFE):
    """The bodies that come out, in order."""
    return [body for part in parts if (body := assembler.add(life, part)) is not None]


@given(st.binary(max_size=5_000), mtus, st.randoms(use_true_random=False))
def test_a_snapshot_comes_through_in_any_order_and_twice(body, mtu, dice):
    """Exactly once, whatever order the parts take and however often they come."""
    parts = split(7, body, mtu) * 2
    dice.shuffle(parts)
    assembler = Assembler()
    assert assembled(assembler, parts) == [body]
    assert assembler.complete == (LIFE, 7)


@given(st.binary(max_size=5_000), mtus)
def test_every_part_fits_the_link(body, mtu):
    """The sealed frame, not only the piece of the body."""
    sender = Sealer(Cluster("site", ("a", "b"), (bytes(32),)), "a", LIFE, Salt(1, bytes(6)))
    frames = [sender.seal(part) for part in split(1, body, mtu)]
    assert max(map(len, frames)) <= mtu
    assert len(body) <= sum(map(len, frames))


def test_the_largest_snapshot_goes_over_the_narrowest_line():
    """65,536 bytes at 9600 baud: within the number of parts that are accepted."""
    body = bytes(range(256)) * (wire.SNAPSHOT_MAX // 256)
    assert assembled(Assembler(), split(1, body, 160)) == [body]


@given(st.binary(min_size=600, max_size=3_000), st.randoms(use_true_random=False))
def test_links_that_split_differently_do_not_disturb_each_other(body, dice):
    """The parts of a serial line and of Ethernet in between each other."""
    parts = split(1, body, 144) + split(1, body, 1_200)
    dice.shuffle(parts)
    assert assembled(Assembler(), parts) == [body]


def test_a_newer_version_replaces_what_was_begun():
    """And the parts of the older one do not come back."""
    assembler = Assembler()
    old, new = split(1, b"o" * 300, 160), split(2, b"n" * 300, 160)
    assert assembled(assembler, [old[0], new[0], *old, *new[1:]]) == [b"n" * 300]
    assert assembled(assembler, old) == []


def test_a_newer_life_starts_at_any_version():
    """Versions count within an incarnation."""
    assembler = Assembler()
    assert assembled(assembler, split(900, b"old", 160)) == [b"old"]
    assert assembled(assembler, split(1, b"new", 160), Incarnation(3, 0)) == [b"new"]
    assert assembled(assembler, split(901, b"old", 160)) == []


@given(
    st.lists(
        st.builds(Part, st.integers(0, 3), st.integers(0, 2**16), st.integers(0, 2**16), st.binary(max_size=50)),
        max_size=60,
    )
)
def test_senseless_numbers_do_no_harm(parts):
    """A peer gone mad costs neither an exception nor more than a bounded memory,
    and the next version comes through."""
    assembler = Assembler()
    assembled(assembler, parts)
    assert len(assembler._splits) <= Assembler.SPLITS_MAX
    assert assembled(assembler, split(9, b"sane" * 100, 160)) == [b"sane" * 100]


def test_parts_without_end_are_given_up():
    """More bytes than a snapshot may have are dropped with all that belongs to them."""
    assembler = Assembler()
    total = 100
    for number in range(total):
        assert assembler.add(LIFE, Part(1, number, total, bytes(1_000))) is None
    kept = sum(len(piece) for pieces in assembler._splits.values() for piece in pieces.values())
    assert kept <= wire.SNAPSHOT_MAX
