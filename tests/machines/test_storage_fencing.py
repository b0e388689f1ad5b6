"""``[fencing] mode = "storage"``: no power switch, and a node that has lost its key on the disk writes nothing.

Both machines are registered with the disk; the file system on it is mounted
on one.  No board and no outlet: the old owner lives on, so its writes can be
seen to fail.
"""

import time

import pytest

from tests.machines.cluster import Cluster, Service, Settings
from tests.machines.guest import Guest
from tests.machines.pair import Pair
from tests.machines.steps import note, step

pytestmark = pytest.mark.long

DISK = "/dev/sda"
DISK_MIB = 64
FILESYSTEM_MIB = 48
PLACE = "/srv/data"
DATA = Service(
    "data",
    "clustnode2",
    "172.23.2.15",
    'requires = ["disk"]',
    (
        f'{{ agent = "filesystem", params = {{ device = "{DISK}", directory = "{PLACE}", fstype = "ext4" }} }}',
        '{ agent = "dummy", params = { process = true } }',
    ),
)
FENCING = f"""\
[fencing]
mode = "storage"
[[fencing.device]]
agent = "scsi_reservation"
params = {{ devices = "{DISK}" }}
[service.disk]
on = "all"
agent = "scsi_reservation"
params = {{ devices = ["{DISK}"], mode = "registrants" }}
timeout = {{ start = "120s", stop = "120s" }}
monitor = {{ timeout = "120s" }}
"""
SETTINGS = Settings(services=(DATA,), further=FENCING)


@pytest.fixture(scope="module")
def cluster(pair: Pair) -> Cluster:
    """The data on the disk, hostd started, the file system mounted on its primary."""
    with step("the disk, with a file system on it"):
        pair.share_disk(mib=DISK_MIB, holds="var/lib/dpkg/info", filesystem_mib=FILESYSTEM_MIB)
        for node in pair.nodes:
            node.sh(f"mkdir -p {PLACE}")
    made = Cluster(pair, SETTINGS)
    made.configure()
    for node in pair.nodes:
        note(node.run("hostd check").output)
    made.start()
    return made


def can_write(node: Guest) -> bool:
    """A sector beyond the file system, past all caches."""
    where = (DISK_MIB - 8) * 2048
    return node.run(f"dd if=/dev/urandom of={DISK} bs=512 count=1 seek={where} oflag=direct").status == 0


def keys(node: Guest) -> int:
    """How many are registered."""
    return node.sh(f"sg_persist -n --in --read-keys {DISK}").count("    0x")


def test_both_are_registered_and_a_drill_says_so(cluster: Cluster) -> None:
    """Either may write, by the disk; hostd mounts it on one."""
    node1, node2 = cluster.pair.nodes
    assert keys(node1) == 2 and can_write(node1) and can_write(node2)
    for node in (node1, node2):
        other = cluster.pair.other(node).name
        note(node.sh(f"hostd fence {other} --check", timeout_s=300))
    assert keys(node1) == 2
    assert node2.run(f"mountpoint -q {PLACE}").status == 0 and node1.run(f"mountpoint -q {PLACE}").status != 0


def test_a_partitioned_owner_loses_the_disk_first(cluster: Cluster) -> None:
    """Cut off from everything, its writes fail before the other mounts; healed, it gives way and registers anew."""
    pair, (taker, owner) = cluster.pair, cluster.pair.nodes
    owner.sh(f"echo before > {PLACE}/proof && sync")
    with step("the owner is cut off from the LAN and both cables; the other takes over"):
        pair.pull_lan(owner)
        pair.pull_crossover()
        pair.cable.unplug()
        cut_at_s = time.monotonic()
        cluster.wait_until(lambda: cluster.owners(taker).get("data") == taker.name, "the other has the data", 600)
        note(f"after {time.monotonic() - cut_at_s:.0f} s: {taker.run('hostd log | tail -15').output}")
    assert (can_write(owner), can_write(taker), keys(taker)) == (False, True, 1)
    note(owner.run(f"echo after > {PLACE}/proof; sync; dmesg | grep -iE 'reservation conflict' | tail -2").output)
    assert taker.sh(f"cat {PLACE}/proof").strip() == "before"
    taker.sh(f"echo taken > {PLACE}/proof && sync")
    with step("plugged again: one cluster, the file system on one node"):
        pair.plug_lan(owner)
        pair.plug_crossover()
        pair.cable.plug()
        cluster.wait_for(cluster.primaries, within_s=900)
    assert owner.sh(f"cat {PLACE}/proof").strip() == "taken"
    assert keys(owner) == 2


def test_a_node_without_power_loses_the_disk_too(cluster: Cluster) -> None:
    """The takeover by which most clusters live; when it is back, it registers anew and gets its service."""
    pair, (taker, owner) = cluster.pair, cluster.pair.nodes
    with step("power cut of the owner"):
        pair.power_off(owner)
        cluster.wait_until(lambda: cluster.owners(taker).get("data") == taker.name, "the other has the data", 600)
    assert keys(taker) == 1 and can_write(taker)
    with step("power on"):
        pair.power_on(owner)
        cluster.wait_until(lambda: cluster.is_active(owner), "hostd is active again", 600)
        cluster.wait_for(cluster.primaries, within_s=900)
    assert keys(owner) == 2 and owner.sh(f"cat {PLACE}/proof").strip() == "taken"
