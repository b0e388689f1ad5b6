"""What survives a restart of the brain."""

import itertools
from pathlib import Path

import pytest

from hostd import state
from hostd.core.snapshot import Wish, WishKind
from hostd.core.terms import Incarnation

WISHES = (
    Wish(WishKind.STOPPED, "mysql", "yes", 3, "clustnode1"),
    Wish(WishKind.STANDBY, "clustnode2", "", 4, "clustnode2"),
)


def test_every_life_is_higher_than_the_one_before(tmp_path: Path) -> None:
    """Ten incarnations in a row grow strictly, though they are drawn within one second."""
    drawn = [state.next_incarnation(tmp_path) for _ in range(10)]
    assert all(later.boot > earlier.boot for earlier, later in itertools.pairwise(drawn))


def test_a_clock_that_went_back_does_not_lower_the_incarnation(tmp_path: Path) -> None:
    """A stored counter from the future is exceeded, whatever the wall clock says."""
    (tmp_path / "incarnation").write_text("9999999999\n")
    assert state.next_incarnation(tmp_path).boot == 10_000_000_000


def test_a_lost_counter_is_replaced_by_the_wall_clock(tmp_path: Path) -> None:
    """Garbage in the counter's file gives an incarnation of about now, above small counters."""
    (tmp_path / "incarnation").write_text("garbage")
    assert state.next_incarnation(tmp_path).boot > 1_700_000_000


def test_a_disk_that_cannot_be_written_still_gives_a_higher_life(tmp_path: Path) -> None:
    """Without a place to store it, an incarnation is higher than the present one all the same."""
    nowhere = tmp_path / "file"
    nowhere.write_text("")  # a file where the folder should be
    first = state.next_incarnation(nowhere)
    second = state.next_incarnation(nowhere, first)
    assert second > first
    assert state.unstored_incarnation(second) > second > Incarnation(0, 0)


def test_wishes_come_back_as_they_were_saved(tmp_path: Path) -> None:
    """Saving and loading is the identity, and no other file is left behind."""
    state.save_wishes(tmp_path, WISHES)
    assert state.load_wishes(tmp_path) == (WISHES, "")
    assert [path.name for path in tmp_path.iterdir()] == ["wishes.json"]


def test_damaged_wishes_are_none_and_are_complained_of(tmp_path: Path) -> None:
    """A torn file never raises: it counts as no wishes, with the reason."""
    assert state.load_wishes(tmp_path) == ((), "")
    (tmp_path / "wishes.json").write_text('[[1,"mysql"')
    wishes, complaint = state.load_wishes(tmp_path)
    assert wishes == ()
    assert "wishes.json is damaged" in complaint


def test_services_are_new_once(tmp_path: Path) -> None:
    """Noted when first seen, kept over restarts, forgotten when gone, never in the future."""
    assert state.first_seen(tmp_path, ("web",), 100.0) == {"web": 100.0}
    assert state.first_seen(tmp_path, ("mail", "web"), 200.0) == {"mail": 200.0, "web": 100.0}
    assert state.first_seen(tmp_path, ("mail",), 300.0) == {"mail": 200.0}
    assert state.first_seen(tmp_path, ("mail", "web"), 150.0) == {"mail": 150.0, "web": 150.0}


@pytest.mark.parametrize("body", [b"", b"{", b'{"web": "yesterday"}', b"[]"])
def test_a_damaged_list_of_services_makes_all_of_them_new(tmp_path: Path, body: bytes) -> None:
    """It costs availability, never safety; and it is mended."""
    (tmp_path / "services.json").write_bytes(body)
    assert state.first_seen(tmp_path, ("web",), 100.0) == {"web": 100.0}
    assert state.first_seen(tmp_path, ("web",), 200.0) == {"web": 100.0}
