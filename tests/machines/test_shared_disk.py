"""One SCSI disk at both machines, no cluster filesystem: only one of them may write, whatever the other believes.

The service: a SCSI-3 reservation, then ext4, then MariaDB with its data there.
No fencing, so that an old owner lives on and its writes can be seen to fail.
"""

import time

import pytest

from tests.machines.cluster import IDLE, Cluster, Service, Settings
from tests.machines.guest import Guest
from tests.machines.pair import Pair
from tests.machines.steps import note, step

pytestmark = pytest.mark.long

DISK = "/dev/sda"
DISK_MIB = 512
FILESYSTEM_MIB = 480
PLACE = "/srv/db"
DB = Service(
    "db",
    "clustnode2",
    "172.23.2.15",
    'timeout = { start = "300s", stop = "300s" }',
    (
        f'{{ agent = "scsi_reservation", params = {{ devices = ["{DISK}"] }} }}',
        f'{{ agent = "filesystem", params = {{ device = "{DISK}", directory = "{PLACE}", fstype = "ext4" }} }}',
        f'{{ agent = "mysql", params = {{ datadir = "{PLACE}/mysql", query_timeout = 30.0 }} }}',
    ),
)
SETTINGS = Settings(services=(DB, IDLE))


@pytest.fixture(scope="module")
def cluster(pair: Pair) -> Cluster:
    """The data on the disk, hostd started, the database on its primary."""
    with step("the disk, with a database on it"):
        pair.share_disk(mib=DISK_MIB, holds="var/lib/mysql", filesystem_mib=FILESYSTEM_MIB)
        for node in pair.nodes:
            node.sh(f"mkdir -p {PLACE}")
    made = Cluster(pair, SETTINGS)
    made.configure()
    for node in pair.nodes:
        note(node.run("hostd check").output)
    made.start()
    return made


def sql(node: Guest, statement: str) -> str:
    """Ask the server on this node."""
    return node.sh(f"mariadb -N --batch -e '{statement}'", timeout_s=300)


def can_write(node: Guest) -> bool:
    """A sector beyond the filesystem, past all caches."""
    where = (DISK_MIB - 8) * 2048
    return node.run(f"dd if=/dev/urandom of={DISK} bs=512 count=1 seek={where} oflag=direct").status == 0


def rows(node: Guest) -> list[int]:
    return [int(line) for line in sql(node, "SELECT n FROM proof.rows ORDER BY n").split()]


def test_only_the_owner_can_write(cluster: Cluster) -> None:
    """The other node's writes are refused by the disk itself."""
    other, owner = cluster.pair.nodes
    note(owner.sh(f"sg_persist -n --in --read-full-status {DISK} || sg_persist -n --in --read-reservation {DISK}"))
    sql(owner, "CREATE DATABASE proof; CREATE TABLE proof.rows (n INT PRIMARY KEY) ENGINE=InnoDB")
    sql(owner, "INSERT INTO proof.rows VALUES (1)")
    assert can_write(owner)
    assert not can_write(other)


def test_a_move_turns_the_reservation(cluster: Cluster) -> None:
    """Moved in good order: the data is there, the one that could write cannot any more, and back."""
    node1, node2 = cluster.pair.nodes
    with step("hostd move db clustnode1"):
        node1.sh("hostd move db clustnode1")
        cluster.wait_for({"db": "clustnode1", "idle": "clustnode2"})
    assert rows(node1) == [1]
    sql(node1, "INSERT INTO proof.rows VALUES (2)")
    assert (can_write(node1), can_write(node2)) == (True, False)
    with step("hostd move db"):
        node1.sh("hostd move db clustnode2")
        cluster.wait_for(cluster.primaries)
    assert rows(node2) == [1, 2]


def test_a_partitioned_owner_gets_errors_and_not_the_disk(cluster: Cluster) -> None:
    """Cut off from everything, its key is removed: its writes fail, the data of the new owner is sound."""
    pair, (taker, owner) = cluster.pair, cluster.pair.nodes
    with step("the owner is cut off from the LAN and both cables; the other takes over"):
        pair.pull_lan(owner)
        pair.pull_crossover()
        pair.cable.unplug()
        cut_at_s = time.monotonic()
        cluster.wait_until(lambda: cluster.owners(taker).get("db") == taker.name, "the other has the database", 600)
        note(f"after {time.monotonic() - cut_at_s:.0f} s")
    assert not can_write(owner) and can_write(taker)
    old = owner.run("mariadb -e 'INSERT INTO proof.rows VALUES (666)'", timeout_s=300)
    note(f"the old owner's insert: exit code {old.status}: {old.output.strip()[-300:]}")
    note(owner.run("dmesg | grep -iE 'reservation conflict|I/O error|EXT4-fs|Remounting' | tail -5").output)
    sql(taker, "INSERT INTO proof.rows VALUES (3)")
    with step("plugged again: one cluster, the database on one node, its rows there"):
        pair.plug_lan(owner)
        pair.plug_crossover()
        pair.cable.plug()
        cluster.wait_for(cluster.primaries, within_s=600)
    assert rows(owner) == [1, 2, 3]
    assert (can_write(owner), can_write(taker)) == (True, False)
    checked = sql(owner, "CHECK TABLE proof.rows")
    assert checked.endswith("OK"), checked
