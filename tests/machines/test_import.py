"""Heartbeat's files of the example, imported and run as they are: servers, a site's own script, an init script.

The machines are as a site left them that ran Heartbeat: the servers installed,
with data of their own on each node, started now by nobody, and ``/etc/ha.d``.
"""

import pytest

from tests.machines.cluster import Cluster, Service, Settings
from tests.machines.guest import Guest
from tests.machines.pair import Pair
from tests.machines.steps import note, step

HA_CF = """\
# The cluster of the example: a serial cable, a crossover cable, and the LAN.
logfacility local0
keepalive 500ms
warntime 5
deadtime 12
initdead 60
baud 115200
serial /dev/ttyS1
udpport 694
bcast eth1
ucast eth0 172.23.2.11
ucast eth0 172.23.2.12
auto_failback on
node clustnode1 clustnode2
respawn hacluster /usr/lib/heartbeat/ipfail
ping 172.23.2.1
"""
HARESOURCES = """\
clustnode2 172.23.2.13 mysql
clustnode1 172.23.2.14 ldap
clustnode2 172.23.2.15 cyrus
# the web server, behind what this site does before it, and a mirror by its init script
clustnode1 172.23.2.16/24/eth0 notice::web \\
           apache2
clustnode1 172.23.2.17 rsync
"""
AUTHKEYS = "auth 1\n1 sha1 HI!\n"
NOTICE = """\
#!/bin/sh
# notice NAME start|stop|status: a file says that the node serves
case $2 in
start) echo "served by $(uname -n)" > /run/notice-$1 ;;
stop) rm -f /run/notice-$1 ;;
status) if [ -e /run/notice-$1 ]; then echo running; else echo stopped; fi ;;
esac
"""

MYSQL = Service("mysql", "clustnode2", "172.23.2.13")
LDAP = Service("ldap", "clustnode1", "172.23.2.14")
CYRUS = Service("cyrus", "clustnode2", "172.23.2.15")
WEB = Service("apache2", "clustnode1", "172.23.2.16")
MIRROR = Service("rsync", "clustnode1", "172.23.2.17")
SETTINGS = Settings(services=(MYSQL, LDAP, CYRUS, WEB, MIRROR))
"""What the files must have become; none of it is written by the test."""


@pytest.fixture(scope="module")
def cluster(pair: Pair) -> Cluster:
    """Imported on one node, copied to the other, checked, started."""
    with step("a site that ran Heartbeat"):
        for node in pair.nodes:
            node.write("/etc/ha.d/ha.cf", HA_CF)
            node.write("/etc/ha.d/haresources", HARESOURCES)
            node.write("/etc/ha.d/authkeys", AUTHKEYS, mode="600")
            node.write("/etc/ha.d/resource.d/notice", NOTICE, mode="755")
            # Debian's names servers that are packages of their own; hostd check wants them installed or out
            node.sh("sed -i -E '/cmd=\"(pop3d|nntpd|httpd) /d' /etc/cyrus.conf")
            node.sh("systemctl start cyrus-imapd slapd; systemctl stop cyrus-imapd slapd", timeout_s=600)
            node.write("/etc/rsyncd.conf", "[documents]\npath = /usr/share/doc\n")
            node.sh("sed -i s/RSYNC_ENABLE=false/RSYNC_ENABLE=true/ /etc/default/rsync; systemctl disable -q rsync")
    with step("hostd import"):
        note(pair.node1.sh("hostd import /etc/ha.d -o /etc/hostd/conf.d", timeout_s=300))
        # the one thing that emulated processors need and Heartbeat's files know nothing of
        pair.node1.sh("sed -i '/^\\[cluster]/a address_lease = \"2m\"' /etc/hostd/conf.d/00-cluster.toml")
        packed = pair.node1.sh("tar -C /etc/hostd -c conf.d | base64 -w0").encode()
        pair.node2.sh("base64 -d | tar -C /etc/hostd -xp", stdin=packed)
    for node in pair.nodes:
        checked = node.run("hostd check", timeout_s=300)
        note(checked.output)
        assert checked.status == 0
    made = Cluster(pair, SETTINGS)
    made.start()
    return made


def talk(node: Guest, address: str, port: int, say: str = "") -> str:
    """What a server says at an address, first or after one line."""
    program = (
        "import socket\n"
        f"with socket.create_connection(('{address}', {port}), 60) as server:\n"
        f"    server.sendall({say!r}.encode())\n"
        "    print(server.recv(4096).decode(errors='replace'))\n"
    )
    return node.sh(f"python3 - << 'END'\n{program}END", timeout_s=120)


def assert_served(cluster: Cluster, owners: dict[str, str]) -> None:
    """Each server answers at its address, asked by the node that does not have it; the script has done its work."""
    where = {name: next(node for node in cluster.pair.nodes if node.name == owner) for name, owner in owners.items()}
    asks = {name: cluster.pair.other(node) if cluster.pair.other(node).is_on else node for name, node in where.items()}
    assert "supportedLDAPVersion: 3" in asks["ldap"].sh(
        f"ldapsearch -x -LLL -H ldap://{LDAP.address}/ -b '' -s base +", timeout_s=120
    )
    assert talk(asks["cyrus"], CYRUS.address, 143).startswith("* OK")
    assert "200 OK" in talk(asks["apache2"], WEB.address, 80, "GET / HTTP/1.0\r\n\r\n")
    assert where["apache2"].sh("cat /run/notice-web") == f"served by {where['apache2'].name}"
    assert talk(asks["rsync"], MIRROR.address, 873).startswith("@RSYNCD:")
    # as Debian configures it, it answers on its own machine only
    assert where["mysql"].sh("mariadb -N --batch -e 'SELECT 40 + 2'", timeout_s=120) == "42"


def test_the_example_runs_as_it_was_imported(cluster: Cluster) -> None:
    """Each group on the node that haresources names, each server answers at its address, all media are up."""
    for node in cluster.pair.nodes:
        assert cluster.node_states(node) == ["online", "online"]
        links = cluster.status(node)["nodes"][cluster.pair.other(node).name]["links"]
        assert len(links) == 3 and all(link["receive"] == "up" for link in links.values()), links
        assert cluster.status(node)["nodes"][node.name]["reached"] is True, "the gateway answers pings"
    assert_served(cluster, cluster.primaries)
    listed = cluster.status(cluster.pair.node1)["services"]["apache2"]["resources"]
    assert [resource["agent"] for resource in listed] == ["address", "script:notice web", "httpd"]


@pytest.mark.long
def test_a_dead_node_s_groups_are_taken_over_and_go_back(cluster: Cluster) -> None:
    """As with Heartbeat: everything on the other node, in order; ``auto_failback on`` brings it back."""
    pair, (victim, survivor) = cluster.pair, cluster.pair.nodes
    for node in pair.nodes:
        node.sh("systemctl enable -q hostd; sync")
    with step(f"{victim.name} loses its power, everything on {survivor.name}"):
        pair.power_off(victim)
        cluster.wait_for(cluster.on(survivor))
    assert_served(cluster, cluster.on(survivor))
    pair.power_on(victim)
    with step("joined, and failback"):
        cluster.wait_for(cluster.primaries, within_s=600)
    assert_served(cluster, cluster.primaries)
