"""The scsi_reservation agent on a scripted disk that keeps SPC-4's rules, asked by two nodes.

``sg_persist`` is a script (``scripted_lun.py``); a real disk is tried on
emulated machines.  The devices are real block device files, of no use.
"""

import os
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agents import scsi_reservation
from hostd.api import AgentError, Health, NotInstalled
from hostd.api.storage import reservations
from hostd.api.storage.mounts import Kernel
from tests.contracts import mount_room

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="device files need root")

KEYS = {"clustnode1": "0x1", "clustnode2": "0x2"}
OURS, THEIRS = "clustnode1", "clustnode2"
EXCLUSIVE = "Write Exclusive, registrants only"


class Cluster:
    """Two nodes and the disk between them."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self._monkeypatch = folder, monkeypatch
        self.disk = folder / "disk"
        os.mknod(self.disk, stat.S_IFBLK | 0o600, os.makedev(240, 1))
        (folder / "sys/dev/block/240:1").mkdir(parents=True)
        monkeypatch.setattr(scsi_reservation, "KERNEL", Kernel(sys=folder / "sys"))
        monkeypatch.setenv("LUN", str(folder / "lun"))

    def call(self, verb: str, node: str = OURS, *, seconds: float = 20, **given: Any) -> Any:
        self._monkeypatch.setenv("LUN_NODE", node)
        folder = self.folder / node
        folder.mkdir(exist_ok=True)
        params = {"devices": [str(self.disk)], "keys": KEYS} | given
        hook = getattr(scsi_reservation, verb)
        return hook(mount_room.resource(folder, scsi_reservation, params, seconds=seconds, node=node))

    def reservation(self, node: str = OURS) -> tuple[list[int], int | None, str]:
        """Keys, holder and type, as the disk says."""
        self._monkeypatch.setenv("LUN_NODE", node)
        resource = mount_room.resource(self.folder, scsi_reservation, {"devices": [str(self.disk)]}, node=node)
        return tuple(reservations.ask_over(resource, str(self.disk)))

    def multipath(self, *paths: str, uuid: str = "mpath-36001405") -> None:
        """Make the disk a device of the device mapper over these paths."""
        folder = self.folder / "sys/dev/block/240:1"
        (folder / "dm").mkdir()
        (folder / "dm/uuid").write_text(f"{uuid}\n")
        for path in paths:
            (folder / "slaves" / path).mkdir(parents=True)

    def trouble(self, what: str) -> None:
        self._monkeypatch.setenv("LUN_TROUBLE", what)


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    program = Path(mount_room.__file__).with_name("scripted_lun.py")
    with mount_room.programs(tmp_path, sg_persist=f'exec {sys.executable} -I -S {program} "$@"'):
        yield Cluster(tmp_path, monkeypatch)


def test_started_means_reserved_and_stopped_means_unregistered(cluster: Cluster) -> None:
    """Type 5 with our key; twice is as once; after the stop no trace is left."""
    assert cluster.call("monitor") is Health.STOPPED
    for _ in range(2):
        cluster.call("start")
        assert cluster.reservation() == ([1], 1, EXCLUSIVE)
    assert cluster.call("monitor") is Health.RUNNING
    for _ in range(2):
        cluster.call("stop")
        assert cluster.reservation() == ([], None, "")
    assert cluster.call("monitor") is Health.STOPPED


def test_a_takeover_removes_the_old_owner(cluster: Cluster) -> None:
    """Its key is gone, what it had under way is cut off, and it notices and says who has the disk."""
    cluster.call("start", THEIRS)
    cluster.call("start", OURS)
    assert cluster.reservation() == ([1], 1, EXCLUSIVE)
    assert any("--preempt-abort" in call for call in mount_room.calls(cluster.folder))
    with pytest.raises(AgentError, match=r"our key 0x2 \(clustnode2\) was removed; .* reserved by 0x1 \(clustnode1\)"):
        cluster.call("monitor", THEIRS)
    assert cluster.call("monitor", OURS) is Health.RUNNING


def test_the_old_owner_stops_without_harm(cluster: Cluster) -> None:
    """It has nothing any more, and takes nothing from the new one; afterwards it is cleanly stopped."""
    cluster.call("start", THEIRS)
    cluster.call("start", OURS)
    cluster.call("stop", THEIRS)
    assert cluster.reservation() == ([1], 1, EXCLUSIVE)
    assert cluster.call("monitor", THEIRS) is Health.STOPPED


def test_a_monitor_never_registers_again(cluster: Cluster) -> None:
    """Who was removed stays removed, however often it looks."""
    cluster.call("start", THEIRS)
    cluster.call("start", OURS)
    for _ in range(3):
        with pytest.raises(AgentError, match="was removed"):
            cluster.call("monitor", THEIRS)
    assert cluster.reservation() == ([1], 1, EXCLUSIVE)


def test_two_that_share_are_both_registered(cluster: Cluster) -> None:
    """Mode registrants: the second start removes nobody; who is not registered may not write."""
    for node in (OURS, THEIRS):
        cluster.call("start", node, mode="registrants")
    assert cluster.reservation() == ([1, 2], 1, EXCLUSIVE)
    for node in (OURS, THEIRS):
        assert cluster.call("monitor", node, mode="registrants") is Health.RUNNING


def test_when_the_holder_leaves_the_other_takes_the_reservation_on(cluster: Cluster) -> None:
    """Else anybody might write from then on; the service of the other goes on."""
    for node in (OURS, THEIRS):
        cluster.call("start", node, mode="registrants")
    cluster.call("stop", OURS, mode="registrants")
    assert cluster.reservation(THEIRS) == ([2], None, "")
    assert cluster.call("monitor", THEIRS, mode="registrants") is Health.RUNNING
    assert cluster.reservation(THEIRS) == ([2], 2, EXCLUSIVE)


def test_a_lost_reservation_is_noticed(cluster: Cluster) -> None:
    """Somebody cleared it by hand."""
    cluster.call("start")
    cluster._monkeypatch.setenv("LUN_NODE", OURS)
    resource = mount_room.resource(cluster.folder, scsi_reservation, {"devices": [str(cluster.disk)]})
    reservations.change(resource, str(cluster.disk), "--release", rk=1, type=5)
    with pytest.raises(AgentError, match="our reservation is lost; the disk is reserved by nobody"):
        cluster.call("monitor")


def test_another_key_beside_ours_is_a_failure(cluster: Cluster) -> None:
    """Who is registered may write."""
    cluster.call("start", OURS)
    cluster.call("start", THEIRS, mode="registrants")
    with pytest.raises(AgentError, match=r"beside ours 0x2 \(clustnode2\) may write"):
        cluster.call("monitor", OURS)
    cluster.call("start", OURS)
    assert cluster.reservation() == ([1], 1, EXCLUSIVE)


def test_reads_are_refused_only_when_told(cluster: Cluster) -> None:
    """Type 6; a reservation of our own of the other type is replaced."""
    cluster.call("start")
    with pytest.raises(AgentError, match='is reserved as "Write Exclusive, registrants only" and not as "Exclusive'):
        cluster.call("monitor", exclusive_access=True)
    cluster.call("start", exclusive_access=True)
    assert cluster.reservation() == ([1], 1, "Exclusive Access, registrants only")


def test_a_disk_without_preempt_and_abort_is_preempted(cluster: Cluster) -> None:
    """And said in the log."""
    cluster.call("start", THEIRS)
    cluster.trouble("preempt-abort=5")
    cluster.call("start", OURS)
    assert cluster.reservation() == ([1], 1, EXCLUSIVE)


def test_an_attention_is_answered_by_asking_again(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk tells each path once that something happened, instead of doing what was asked."""
    monkeypatch.setenv("LUN_ATTENTION", "1")
    cluster.call("start", THEIRS)
    cluster.call("start", OURS)
    assert cluster.call("monitor") is Health.RUNNING


def test_every_path_of_a_multipath_device_is_registered(cluster: Cluster) -> None:
    """A write over any of them must work; one that lost its registration is told."""
    cluster.multipath("sdc", "sdd")
    cluster.call("start")
    assert mount_room.calls(cluster.folder)[0].endswith("--register-ignore --param-sark=0x1 /dev/sdc")
    assert cluster.call("monitor") is Health.RUNNING
    cluster._monkeypatch.setenv("LUN_NODE", OURS)
    resource = mount_room.resource(cluster.folder, scsi_reservation, {"devices": [str(cluster.disk)]})
    reservations.change(resource, "/dev/sdd", "--register-ignore", sark=0)
    assert cluster.call("monitor") is Health.DEGRADED
    cluster.call("stop")
    assert cluster.reservation() == ([], None, "")


def test_a_takeover_does_not_wait_for_a_path_that_is_down(cluster: Cluster) -> None:
    """The other path does; the monitor says that one is missing.  With no path left the start fails."""
    cluster.multipath("sdc", "sdd")
    cluster.trouble("/dev/sdd=3")
    cluster.call("start")
    assert cluster.reservation() == ([1], 1, EXCLUSIVE)
    assert cluster.call("monitor") is Health.DEGRADED
    cluster.trouble("/dev/sdc=3")
    assert cluster.call("monitor") is Health.DEGRADED, "asked over the other path"
    cluster.trouble("register-ignore=3")
    with pytest.raises(AgentError, match="/dev/sdc: register-ignore failed"):
        cluster.call("start")


def test_a_stop_does_not_wait_for_a_path_that_is_down(cluster: Cluster) -> None:
    """The reservation is released; what the dead path keeps, the next owner removes.  No path: no stop."""
    cluster.multipath("sdc", "sdd")
    cluster.call("start")
    cluster.trouble("/dev/sdd=3")
    cluster.call("stop")
    assert cluster.reservation() == ([1], None, "")
    cluster.trouble("")
    cluster.call("start", THEIRS)
    assert cluster.reservation() == ([2, 2], 2, EXCLUSIVE)
    cluster.trouble("register-ignore=3")
    with pytest.raises(AgentError, match="register-ignore failed"):
        cluster.call("stop", THEIRS)


def test_several_disks_are_all_taken(cluster: Cluster, tmp_path: Path) -> None:
    """And a monitor looks at each."""
    other = tmp_path / "other"
    os.mknod(other, stat.S_IFBLK | 0o600, os.makedev(240, 2))
    (tmp_path / "sys/dev/block/240:2").mkdir()
    devices = [str(cluster.disk), str(other)]
    cluster.call("start", devices=devices)
    taken = [call for call in mount_room.calls(cluster.folder) if "--register-ignore" in call]
    assert [call.split()[-1] for call in taken] == devices


def test_a_disk_that_vanished_is_a_failure_and_can_be_stopped(cluster: Cluster) -> None:
    """What cannot be reached cannot be written to; a node that never had it says stopped."""
    cluster.call("start")
    cluster.disk.unlink()
    with pytest.raises(AgentError, match="is not there"):
        cluster.call("monitor")
    cluster.call("stop")
    assert cluster.call("monitor") is Health.STOPPED
    assert cluster.call("monitor", THEIRS) is Health.STOPPED


def test_without_a_table_the_key_is_of_the_nodes_name(cluster: Cluster) -> None:
    """The same after every start, and another for every node."""
    cluster.call("start", keys={})
    (own,), holder, _ = cluster.reservation()
    assert holder == own and own >> 32 == int.from_bytes(b"host")
    cluster.call("start", THEIRS, keys={})
    (other,), _, _ = cluster.reservation()
    assert other != own


def test_a_disk_that_does_not_answer_is_told_in_time(cluster: Cluster) -> None:
    """By the action itself, with the command that hung."""
    cluster.trouble("read-keys=hang")
    began = time.monotonic()
    with pytest.raises(AgentError, match=r"sg_persist --no-inquiry --in --read-keys .* did not return within"):
        cluster.call("monitor", seconds=4)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        ("read-keys=9", "does not support persistent reservations"),
        ("register-ignore=5", "does not support persistent reservations"),
        ("read-keys=75", "is no SCSI disk"),
        ("register-ignore=24", "refuses register-ignore: reservation conflict"),
        ("read-reservation=3", "read-reservation failed"),
        ("reserve=3", "reserve failed"),
        ("reserve=24", "our reservation is lost; the disk is reserved by nobody"),
    ],
)
def test_what_the_disk_refuses_is_told(cluster: Cluster, trouble: str, said: str) -> None:
    """Each with a cure."""
    cluster.trouble(trouble)
    with pytest.raises(AgentError) as caught:
        cluster.call("start")
    assert said in caught.value.reason and caught.value.cure


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"devices": []}, "devices is empty"),
        ({"devices": ["sdb"]}, "'sdb', which is no path"),
        ({"devices": [3]}, "3, which is no path"),
        ({"devices": ["/dev/no-such-disk"]}, "/dev/no-such-disk is not there"),
        ({"keys": {"clustnode2": "0x2"}}, "keys has no key for clustnode1"),
        ({"keys": {"clustnode1": "0x1", "clustnode2": "1"}}, "gives two nodes the same key"),
        ({"keys": {"clustnode1": "0x0"}}, "is no key"),
        ({"keys": {"clustnode1": "key"}}, "is no key"),
        ({"keys": {"clustnode1": True}}, "is no key"),
        ({"keys": {"clustnode1": "0x10000000000000000"}}, "is no key"),
    ],
)
def test_bad_input_is_told_and_touches_no_disk(cluster: Cluster, params: dict[str, Any], said: str) -> None:
    """By validate and by start alike, each with a cure."""
    for verb in ("validate", "start"):
        with pytest.raises(AgentError) as caught:
            cluster.call(verb, **params)
        assert said in caught.value.reason and caught.value.cure
    assert not any("--out" in call for call in mount_room.calls(cluster.folder))


def test_a_layer_above_disks_is_not_taken_for_one(cluster: Cluster) -> None:
    """A logical volume, and a partition."""
    cluster.multipath("sdc", uuid="LVM-abc")
    with pytest.raises(AgentError, match="is a layer above disks"):
        cluster.call("start")
    (cluster.folder / "sys/dev/block/240:1/dm/uuid").unlink()
    (cluster.folder / "sys/dev/block/240:1/partition").write_text("1\n")
    with pytest.raises(AgentError, match="is a partition"):
        cluster.call("start")


def test_the_real_program_is_understood(cluster: Cluster) -> None:
    """sg_persist itself, at a device that is no SCSI disk: its exit code is the one that we expect."""
    (cluster.folder / "bin/sg_persist").unlink()
    with pytest.raises(AgentError, match="is no SCSI disk"):
        cluster.call("start", devices=["/dev/null"])


def test_a_node_without_sg3_utils_is_stopped_and_says_so(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its probe is no failure; a start says what is missing; what was started is no longer known to be well."""
    cluster.call("start", THEIRS)
    monkeypatch.setattr("hostd.api.servers.SBIN", str(cluster.folder))
    monkeypatch.setenv("PATH", str(cluster.folder))
    assert cluster.call("monitor", OURS) is Health.STOPPED
    cluster.call("stop", OURS)
    for verb, node in (("start", OURS), ("monitor", THEIRS), ("stop", THEIRS)):
        with pytest.raises(NotInstalled, match="sg_persist is not installed") as caught:
            cluster.call(verb, node)
        assert caught.value.cure == "apt-get install sg3-utils"
