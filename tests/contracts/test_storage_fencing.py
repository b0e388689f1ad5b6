"""The plugin storage_fencing on a scripted disk that keeps SPC-4's rules: who may take it from whom.

The registrations are made by the agent scsi_reservation itself, without keys
of the operator's, as a service on both nodes makes them.
"""

import os
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agents import scsi_reservation
from hostd.api import AgentError, FenceOrder, Health
from hostd.api.storage import reservations
from hostd.api.storage.mounts import Kernel
from plugins import storage_fencing
from tests.contracts import mount_room

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="device files need root")

OURS, THEIRS = "clustnode1", "clustnode2"
SHARED = "Write Exclusive, registrants only"


class Cluster:
    """Two nodes, the disk between them, and the device that takes it away."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.monkeypatch = folder, monkeypatch
        self.disk = folder / "disk"
        os.mknod(self.disk, stat.S_IFBLK | 0o600, os.makedev(240, 1))
        for place in (scsi_reservation, storage_fencing):
            monkeypatch.setattr(place, "KERNEL", Kernel(sys=folder / "sys"))
        monkeypatch.setenv("LUN", str(folder / "lun"))

    def resource(self, verb: str, node: str) -> object:
        """The agent of the service that registers a node, on that node."""
        self.monkeypatch.setenv("LUN_NODE", node)
        (self.folder / node).mkdir(exist_ok=True)
        params = {"devices": [str(self.disk)], "mode": "registrants"}
        hook = getattr(scsi_reservation, verb)
        return hook(mount_room.resource(self.folder / node, scsi_reservation, params, node=node))

    def order(self, victim: str = THEIRS, **changes: object) -> FenceOrder:
        """An order as ``victim``'s peer would get it; what runs afterwards runs on that peer."""
        by = OURS if victim == THEIRS else THEIRS
        self.monkeypatch.setenv("LUN_NODE", by)
        said = {"agent": "scsi_reservation", "params": {"devices": str(self.disk)}, "storage": True} | changes
        return FenceOrder(node=victim, by=by, secrets={}, deadline=time.monotonic() + 20, **said)  # type: ignore[arg-type]

    def keys(self) -> list[str]:
        """Who is registered, by name."""
        names = {reservations.key_of(node): node for node in (OURS, THEIRS)}
        params = {"devices": [str(self.disk)]}
        resource = mount_room.resource(self.folder, scsi_reservation, params, node=OURS)
        return [names[key] for key in reservations.ask_over(resource, str(self.disk)).keys]


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    program = Path(mount_room.__file__).with_name("scripted_lun.py")
    with mount_room.programs(tmp_path, sg_persist=f'exec {sys.executable} -I -S {program} "$@"'):
        yield Cluster(tmp_path, monkeypatch)


@pytest.fixture
def shared(cluster: Cluster) -> Cluster:
    """Both nodes are registered; the first holds the reservation."""
    for node in (OURS, THEIRS):
        cluster.resource("start", node)
    return cluster


@pytest.mark.parametrize("victim", [THEIRS, OURS])
def test_a_node_loses_the_disk_and_notices(shared: Cluster, victim: str) -> None:
    """Whether it held the reservation or not: what it had under way is cut off, and its service fails."""
    assert storage_fencing.fence(shared.order(victim)) is True
    other = OURS if victim == THEIRS else THEIRS
    assert shared.keys() == [other]
    assert any("--preempt-abort" in call for call in mount_room.calls(shared.folder))
    with pytest.raises(AgentError, match=r"our key .* was removed"):
        shared.resource("monitor", victim)
    assert shared.resource("monitor", other) is Health.RUNNING


def test_who_was_cut_off_cuts_nobody_off(shared: Cluster) -> None:
    """Two nodes that ask at once: the disk obeys one of them."""
    storage_fencing.fence(shared.order(THEIRS))
    with pytest.raises(AgentError, match="may be the one that was cut off") as caught:
        storage_fencing.fence(shared.order(OURS))
    assert caught.value.cure == "if clustnode1 is off for certain: hostd confirm-down clustnode1"
    assert shared.keys() == [OURS]


def test_twice_is_as_once(shared: Cluster) -> None:
    """A node that has lost the disk already, or never had it, is confirmed again."""
    for _ in range(2):
        assert storage_fencing.fence(shared.order()) is True
    assert shared.keys() == [OURS]


def test_a_disk_that_nobody_uses_may_be_taken(cluster: Cluster) -> None:
    """Both left in good order, and one is back: afterwards nobody without a key may write."""
    assert storage_fencing.fence(cluster.order()) is True
    assert cluster.keys() == [OURS]
    resource = mount_room.resource(cluster.folder, scsi_reservation, {"devices": [str(cluster.disk)]}, node=OURS)
    assert reservations.ask_over(resource, str(cluster.disk)).type == SHARED


def test_a_newcomer_between_is_given_way_to(cluster: Cluster) -> None:
    """Two nodes find the disk unused at the same moment: neither takes it from the other."""
    real = reservations.change

    def change(resource: object, path: str, act: str, **words: object) -> None:
        real(resource, path, act, **words)  # type: ignore[arg-type]
        if words.get("sark") == reservations.key_of(OURS):
            cluster.resource("start", THEIRS)
            cluster.monkeypatch.setenv("LUN_NODE", OURS)

    cluster.monkeypatch.setattr(storage_fencing.reservations, "change", change)
    with pytest.raises(AgentError, match="registered at the same moment"):
        storage_fencing.fence(cluster.order())
    assert cluster.keys() == [THEIRS]


def test_a_disk_that_cannot_abort_is_preempted_all_the_same(shared: Cluster) -> None:
    """Some targets know PREEMPT only; the key is gone, and that is looked at afterwards."""
    shared.monkeypatch.setenv("LUN_TROUBLE", "preempt-abort=5")
    assert storage_fencing.fence(shared.order()) is True
    assert shared.keys() == [OURS]


def test_a_node_may_check_the_device_that_is_for_itself(shared: Cluster) -> None:
    """hostd check looks at all devices of conf.d."""
    order = shared.order()
    order.node = order.by
    assert storage_fencing.check_device(order) == []


def test_a_key_that_stays_is_no_success(shared: Cluster) -> None:
    """The disk did not do it: nothing is cleared."""
    shared.monkeypatch.setenv("LUN_TROUBLE", "preempt-abort=24")
    with pytest.raises(AgentError, match="key of clustnode2 is still registered"):
        storage_fencing.fence(shared.order())


def test_without_a_reservation_a_key_proves_nothing(shared: Cluster) -> None:
    """A disk that is not reserved lets everybody write."""
    shared.monkeypatch.setenv("LUN_TROUBLE", "reserve=24")
    shared.resource("stop", OURS)
    shared.monkeypatch.setenv("LUN_NODE", THEIRS)
    with pytest.raises(AgentError, match="not reserved for registrants only"):
        storage_fencing.fence(shared.order(OURS))


def test_a_drill_removes_nothing(shared: Cluster) -> None:
    """ "on" while the other node is registered, "off" when it is not, an error if the disk would refuse us."""
    assert storage_fencing.drill(shared.order()) == "on"
    assert shared.keys() == [OURS, THEIRS]
    shared.resource("stop", THEIRS)
    assert storage_fencing.drill(shared.order(THEIRS)) == "off"
    with pytest.raises(AgentError, match="clustnode2 is not registered with"):
        storage_fencing.drill(shared.order(OURS))


def test_it_is_never_taken_for_a_power_switch(shared: Cluster) -> None:
    """mode = "required" means power; nothing is done."""
    with pytest.raises(AgentError, match="takes disks away and no power"):
        storage_fencing.fence(shared.order(storage=False))
    assert shared.keys() == [OURS, THEIRS]


def test_check_names_every_mistake(cluster: Cluster) -> None:
    """A misspelt word, a disk that is not there; all well: nothing."""
    assert storage_fencing.check_device(cluster.order()) == []
    params = {"devices": str(cluster.folder / "none"), "keys": "x"}
    found = storage_fencing.check_device(cluster.order(params=params))
    assert found is not None and [text.split(";")[0] for text in found] == [
        "keys is no parameter of scsi_reservation here",
        f"{cluster.folder}/none is not there: No such file or directory",
    ]


def test_other_agents_are_for_other_plugins(cluster: Cluster) -> None:
    """None: the next plugin is asked."""
    order = cluster.order(agent="fence_ipmilan")
    assert storage_fencing.fence(order) is storage_fencing.drill(order) is storage_fencing.check_device(order) is None
