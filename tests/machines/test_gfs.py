"""GFS2 on both machines at once, services with their data on it, each on its primary; a power cut; the way back."""

import pytest

from tests.machines import cluster_filesystem
from tests.machines.cluster import Cluster, Settings
from tests.machines.guest import Guest
from tests.machines.pair import Pair
from tests.machines.shared_services import ALL, APACHE, BASE, CYRUS, FILLED, LDAP, PAGE, PLACE, WEB
from tests.machines.steps import note, step

pytestmark = pytest.mark.long

DISK = "/dev/sda"
DISK_MIB = 768

GFS = f"""\
[service.gfs]
on = "all"
agent = "gfs"
params = {{ device = "{DISK}", directory = "{PLACE}", patience = 30.0 }}
timeout = {{ start = "300s", stop = "300s" }}
monitor = {{ timeout = "120s" }}
"""
SETTINGS = Settings(services=ALL, fenced=True, further=GFS)


@pytest.fixture(scope="module")
def cluster(pair: Pair) -> Cluster:
    """Corosync and DLM up, the disk filled, hostd started, every service on its primary."""
    pair.share_disk(mib=DISK_MIB)
    cluster_filesystem.start(pair.nodes)
    cluster_filesystem.make(pair.node1, DISK, PLACE, FILLED)
    for node in pair.nodes:
        node.sh(f"mkdir -p {PLACE}; systemctl enable -q hostd")
        node.write("/etc/apache2/conf-enabled/shared.conf", APACHE)
    made = Cluster(pair, SETTINGS)
    made.configure()
    note(pair.node1.run("hostd check").output)
    made.start()
    return made


def sql(node: Guest, statement: str) -> str:
    """Ask the server on this node."""
    return node.sh(f"mariadb -N --batch -e '{statement}'", timeout_s=300)


def assert_served(node: Guest) -> None:
    """What a client on this node sees of the web, the directory and the mail service at their addresses."""
    page = f"import urllib.request as u; print(u.urlopen('http://{WEB.address}/shared/', timeout=60).read().decode())"
    assert node.sh(f'python3 -c "{page}"') == PAGE
    assert f"dn: {BASE}" in node.sh(f"ldapsearch -x -LLL -H ldap://{LDAP.address}/ -b {BASE} -s base")
    greeting = f"import socket; print(socket.create_connection(('{CYRUS.address}', 143), 60).recv(200).decode())"
    assert node.sh(f'python3 -c "{greeting}"').startswith("* OK")


def test_both_nodes_have_the_disk_and_work(cluster: Cluster) -> None:
    """Mounted on both by the agent; each node serves from it what is its own; what one writes, the other reads."""
    node1, node2 = cluster.pair.nodes
    assert cluster.everywhere(node1, "gfs") == ["clustnode1", "clustnode2"]
    node1.sh(f"echo from one > {PLACE}/one")
    assert node2.sh(f"cat {PLACE}/one; echo from two > {PLACE}/two") == "from one"
    assert node1.sh(f"cat {PLACE}/two") == "from two"
    sql(node2, "CREATE DATABASE proof; CREATE TABLE proof.rows (n INT PRIMARY KEY) ENGINE=InnoDB")
    sql(node2, "INSERT INTO proof.rows VALUES (1), (2), (3)")
    assert_served(node2)


def test_a_power_cut_loses_nothing(cluster: Cluster) -> None:
    """The victim is off for sure, DLM has recovered, everything is on the survivor with all that was committed."""
    pair, (survivor, victim) = cluster.pair, cluster.pair.nodes
    with step(f"{victim.name} loses its power, everything on {survivor.name}"):
        victim.background('i=10; while mariadb -e "INSERT INTO proof.rows VALUES ($i)"; do i=$((i+1)); done')
        victim.until("[ $(mariadb -N --batch -e 'SELECT COUNT(*) FROM proof.rows') -gt 5 ]")
        committed = int(sql(victim, "SELECT MAX(n) FROM proof.rows"))
        pair.power_off(victim)
        cluster.wait_until(lambda: cluster.owners(survivor) == cluster.on(survivor), "everything here", 900)
    note("\n".join(pair.switch.journal))
    assert f"{survivor.name}: off {victim.name}: done" in pair.switch.journal
    recovered = survivor.sh("dmesg | grep -E 'recover|[Jj]ournal' | tail -8; dlm_tool ls")
    note(recovered)
    assert "wait" not in survivor.sh("dlm_tool ls | grep -i 'wait fencing' || true")
    found = int(sql(survivor, "SELECT MAX(n) FROM proof.rows"))
    note(f"committed before the cut: up to {committed}; there: up to {found}")
    assert found >= committed
    assert sql(survivor, "CHECK TABLE proof.rows").endswith("OK")
    assert_served(survivor)


def test_back_after_its_boot_it_has_its_own(cluster: Cluster) -> None:
    """Corosync, DLM and hostd start at boot; the disk is mounted on both again; failback."""
    pair, victim = cluster.pair, cluster.pair.node2
    pair.power_on(victim)
    with step("joined, mounted, and failback"):
        cluster.wait_for(cluster.primaries, within_s=900)
    assert cluster.everywhere(victim, "gfs") == ["clustnode1", "clustnode2"]
    assert int(sql(victim, "SELECT COUNT(*) FROM proof.rows")) > 5
