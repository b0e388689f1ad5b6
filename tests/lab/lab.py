"""The lab: two nodes, their cables, a client LAN, and who watches it all.

Decides how the rooms fit together::

                 gateway (address of the bridge)     observer
                    │                                   │
      ──────────────┴───────── lan (bridge) ────────────┴──────── client
          │                                 │
         eth0                              eth0
      clustnode1 ─ eth1 ── crossover ── eth1 ─ clustnode2
         ttyS0 ─────────── serial cable ─────────── ttyS0

A lab leaves nothing behind: namespaces end with this process, whatever ends
it, and its folder is removed at the end or, after a SIGKILL, by the next lab.
Any number of labs may stand side by side.  It knows nothing of hostd.
"""

import atexit
import contextlib
import fcntl
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.lab.client import Ask, Client
from tests.lab.names import (
    CLIENT,
    GATEWAY,
    HEARTBEAT_PORT,
    LAN6_PREFIX,
    LAN_PREFIX,
    NODE1,
    NODE2,
    OBSERVER,
    NodePlace,
)
from tests.lab.network import Network
from tests.lab.node import Node
from tests.lab.observer import Observer
from tests.lab.power_switch import PowerSwitch
from tests.lab.serial_cable import SerialCable

FOLDER_PREFIX = "hostd-lab-"
STALE_AFTER_S = 30  # younger folders may belong to a lab that has not locked it yet


class Lab:
    """Two nodes and their world; a context manager that gives them power.

    ``baud``: pace the serial cable to this speed; 0: unpaced.
    """

    def __init__(self, *, baud: int = 0) -> None:
        sweep()
        self.folder = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX))
        self._lock = os.open(self.folder, os.O_RDONLY | os.O_CLOEXEC)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._closing = contextlib.ExitStack()
        self._closing.callback(self._forget_folder)
        atexit.register(self.close)
        try:
            self.folder.chmod(0o755)  # services under users of their own read below it
            self.serial = self._closing.enter_context(SerialCable(baud=baud))
            self.lan = self._network()
            self.client_network = self._network()
            self._lay_cables()
            self.node1 = self._node(NODE1, 0)
            self.node2 = self._node(NODE2, 1)
        except BaseException:
            self.close()
            raise
        self.nodes = (self.node1, self.node2)
        self._mains = threading.RLock()  # the power switch pulls plugs in a thread of its own
        self.switch = PowerSwitch(self.folder / "switch", self._cut)
        self._closing.callback(self.switch.close)
        self.crossover_is_plugged = True
        self._lan_is_plugged = {node.name: True for node in self.nodes}

    def _network(self) -> Network:
        network = Network.new()
        self._closing.callback(network.close)
        return network

    def _node(self, place: NodePlace, end: int) -> Node:
        node = Node(place, self.folder / place.name, self.folder.name, self.serial.ends[end])
        self._closing.callback(node.clear_away)
        return node

    def _lay_cables(self) -> None:
        self.lan.sysctl("ipv6/conf/default/accept_dad", "0")
        self.client_network.sysctl("ipv6/conf/default/accept_dad", "0")
        self.lan.ip(
            "link set lo up",
            f"link add lan address {GATEWAY.mac} type bridge mcast_snooping 0",
            "link add crossover type bridge mcast_snooping 0",
            f"link add {CLIENT.name} type veth peer name eth0 netns {self.client_network.path}",
            f"link add {OBSERVER.name} address {OBSERVER.mac} type veth peer name observer-port",
            f"link set {CLIENT.name} master lan up",
            "link set observer-port master lan up",
            # raw frames only: the kernel must not answer here for its other addresses
            f"link set {OBSERVER.name} arp off up",
            "link set lan up",
            "link set crossover up",
            f"addr add {GATEWAY.address}/{LAN_PREFIX} dev lan",
            f"addr add {GATEWAY.address6}/{LAN6_PREFIX} dev lan nodad",
        )
        self.client_network.ip(
            "link set lo up",
            f"link set eth0 address {CLIENT.mac} up",
            f"addr add {CLIENT.address}/{LAN_PREFIX} dev eth0",
            f"addr add {CLIENT.address6}/{LAN6_PREFIX} dev eth0 nodad",
            f"route add default via {GATEWAY.address}",
        )

    # -- power ---------------------------------------------------------------------

    def node(self, name: str) -> Node:
        return self.node1 if name == self.node1.name else self.node2

    def other(self, node: Node) -> Node:
        return self.node2 if node is self.node1 else self.node1

    def power_on(self, *nodes: Node) -> None:
        """Boot these nodes (default: both), side by side."""
        with self._mains:
            self._power_on(nodes or self.nodes)

    def _power_on(self, wanted: Sequence[Node]) -> None:
        for node in wanted:
            self.switch.show(node.name, on=True)
            network = Network.new()
            network.sysctl("ipv6/conf/default/accept_dad", "0")
            lan, crossover = self._ports(node)
            place, path = node.place, network.path
            self.lan.ip(
                f"link add {lan} type veth peer name eth0 address {place.mac} netns {path}",
                f"link add {crossover} type veth peer name eth1 address {place.crossover_mac} netns {path}",
                f"link set {lan} master lan",
                f"link set {crossover} master crossover",
            )
            node.boot(network)
        for node in wanted:
            node.booted()
            self.serial.power(self.nodes.index(node), on=True)
        self._set_carriers()

    def power_off(self, node: Node) -> None:
        """Pull the plug: no warning, no last word on any wire."""
        with self._mains:
            assert node.is_on, f"{node.name} has no power"
            self._power_off(node)

    def _cut(self, name: str) -> None:
        """The power switch was told to."""
        with self._mains:
            if self.node(name).is_on:
                self._power_off(self.node(name))

    def _power_off(self, node: Node) -> None:
        lan, crossover = self._ports(node)
        self.lan.set_link(crossover, up=False)
        if self.other(node).is_on:
            self.lan.set_link(self._ports(self.other(node))[1], up=False)
        self.lan.set_link(lan, up=False)
        self.serial.power(self.nodes.index(node), on=False)
        node.die()
        self.switch.show(node.name, on=False)
        self.lan.ip(f"link del {lan}", f"link del {crossover}")
        node.scrap()

    # -- cables ----------------------------------------------------------------------

    def pull_crossover(self) -> None:
        """Both ends lose their carrier."""
        self.crossover_is_plugged = False
        self._set_carriers()

    def plug_crossover(self) -> None:
        self.crossover_is_plugged = True
        self._set_carriers()

    def pull_lan(self, node: Node) -> None:
        """This node's cable to the client LAN."""
        self._lan_is_plugged[node.name] = False
        self._set_carriers()

    def plug_lan(self, node: Node) -> None:
        self._lan_is_plugged[node.name] = True
        self._set_carriers()

    def _ports(self, node: Node) -> tuple[str, str]:
        """The far ends of a node's two network cables: at the switch, in the cable."""
        return f"{node.name}-lan", f"{node.name}-x"

    def _set_carriers(self) -> None:
        both_on = all(node.is_on for node in self.nodes)
        for node in self.nodes:
            if node.is_on:
                lan, crossover = self._ports(node)
                self.lan.set_link(crossover, up=self.crossover_is_plugged and both_on)
                self.lan.set_link(lan, up=self._lan_is_plugged[node.name])

    # -- what the switch lets pass ------------------------------------------------------

    def block_lan_heartbeats(self) -> None:
        """UDP heartbeats between the nodes vanish in the switch; ARP and all else passes.

        Only there: the crossover cable stands in the same namespace.
        """
        self._filter(f"iifname {self._lan_ports} udp dport {HEARTBEAT_PORT} drop")

    def block_between_nodes(self) -> None:
        """Nothing passes between the nodes on the client LAN, not even ARP; each still has the clients."""
        self._filter(f"iifname {self._lan_ports} oifname {self._lan_ports} drop")

    @property
    def _lan_ports(self) -> str:
        ports = ", ".join(f'"{self._ports(node)[0]}"' for node in self.nodes)
        return f"{{ {ports} }}"

    def block_from(self, node: Node) -> None:
        """One way only: nothing that this node sends on the client LAN reaches the other node."""
        lan, other = self._ports(node)[0], self._ports(self.other(node))[0]
        self._filter(f'iifname "{lan}" oifname "{other}" drop')

    def block_pings(self, *nodes: Node) -> None:
        """Nobody on the client LAN answers these nodes' echo requests; all else passes."""
        ports = ", ".join(f'"{self._ports(node)[0]}"' for node in nodes)
        self._filter(f"iifname {{ {ports} }} icmp type echo-request drop", hook="prerouting")

    def pass_everything(self) -> None:
        """The switch is a switch again."""
        self.lan.nft("table bridge lab\ndelete table bridge lab\n")

    def _filter(self, rule: str, *, hook: str = "forward") -> None:
        """``hook``: "prerouting" also sees what is for the gateway, which is the switch itself."""
        self.lan.nft(
            "table bridge lab\ndelete table bridge lab\n"
            f"table bridge lab {{\nchain {hook} {{\ntype filter hook {hook} priority 0\n{rule}\n}}\n}}\n"
        )

    # -- watching -------------------------------------------------------------------------

    def observe(self, *addresses: str, interval_ms: float = 5) -> Observer:
        """Who owns these addresses, asked every few ms.  Closed with the lab, or before."""
        return self._closing.enter_context(Observer(self.lan, addresses, interval_ms=interval_ms))

    def ask(self, *asks: Ask) -> Client:
        """A client that asks every few ms.  Closed with the lab, or before."""
        return self._closing.enter_context(Client(self.client_network, asks))

    # -- the end ----------------------------------------------------------------------------

    def close(self) -> None:
        """Everything off and gone; may be called twice."""
        atexit.unregister(self.close)
        self._closing.close()

    def _forget_folder(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self._lock)

    def __enter__(self) -> "Lab":
        try:
            self.power_on()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def sweep() -> None:
    """Remove folders of labs that were killed outright: nobody holds their lock."""
    for folder in Path(tempfile.gettempdir()).glob(FOLDER_PREFIX + "*"):
        with contextlib.suppress(OSError):
            if time.time() - folder.stat().st_mtime < STALE_AFTER_S:
                continue
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(handle)


def wait_until(claim: Callable[[], bool], what: str, *, within_s: float, pause_s: float = 0.02) -> float:
    """Wait for a claim to come true; the seconds it took.  AssertionError with ``what`` otherwise."""
    began = time.monotonic()
    while not claim():
        if time.monotonic() - began > within_s:
            raise AssertionError(f"not within {within_s} s: {what}")
        time.sleep(pause_s)
    return time.monotonic() - began


def always(claim: Callable[[], bool], what: str, *, for_s: float, pause_s: float = 0.05) -> None:
    """The claim holds at every look for this long."""
    for _ in ticks(for_s, pause_s):
        assert claim(), f"it did not stay so for {for_s} s: {what}"


def ticks(for_s: float, pause_s: float) -> Iterator[None]:
    end = time.monotonic() + for_s
    while time.monotonic() < end:
        yield
        time.sleep(pause_s)
