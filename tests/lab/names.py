"""The lab's floor plan: who stands where, with which addresses and MACs.

Decides the names and numbers that all rooms of the lab share, after the
example of the mission: two nodes on a client LAN 172.23.2.0/24 with a
crossover cable 192.168.1.0/30 between them.  Every lab is closed in network
namespaces of its own, so the numbers may be the same in all of them.
"""

from dataclasses import dataclass

LAN_PREFIX = 24
LAN6_PREFIX = 64
CROSSOVER_PREFIX = 24
HEARTBEAT_PORT = 694


@dataclass(frozen=True)
class Station:
    """Something with a place on the client LAN."""

    name: str
    address: str
    address6: str
    mac: str


@dataclass(frozen=True)
class NodePlace(Station):
    """A node's place: ``eth0`` on the LAN, ``eth1`` at the crossover cable."""

    crossover: str
    crossover_mac: str


NODE1 = NodePlace(
    "clustnode1", "172.23.2.11", "fd00:172:23:2::11", "52:54:00:00:01:00", "192.168.1.1", "52:54:00:00:01:01"
)
NODE2 = NodePlace(
    "clustnode2", "172.23.2.12", "fd00:172:23:2::12", "52:54:00:00:02:00", "192.168.1.2", "52:54:00:00:02:01"
)
NODES = (NODE1, NODE2)
GATEWAY = Station("gateway", "172.23.2.1", "fd00:172:23:2::1", "52:54:00:00:00:01")
CLIENT = Station("client", "172.23.2.100", "fd00:172:23:2::100", "52:54:00:00:00:64")
OBSERVER = Station("observer", "172.23.2.250", "fd00:172:23:2::250", "52:54:00:00:00:fa")
"""Nobody's kernel holds the observer's addresses: it speaks by raw frames only,
so that no neighbour cache but the asked node's ever learns from its questions."""

MYSQL_ADDRESS, LDAP_ADDRESS, CYRUS_ADDRESS, WEB_ADDRESS = (f"172.23.2.{last}" for last in (13, 14, 15, 16))
"""Where the services of the mission are reached."""

SHARED = "/srv/gfs"
"""Where a node mounts the disk that both share; an empty folder after a boot."""

NODE_OF_MAC = {place.mac: place.name for place in NODES}
