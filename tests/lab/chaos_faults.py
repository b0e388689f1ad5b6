"""What chaos does to a cluster of the lab, as data: drawn from a seed, printed, and struck.

Decides which faults there are, how often each comes, and how everything is
repaired in the end.  Knows nothing of what is right or wrong afterwards.
"""

import contextlib
import os
import random
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from hostd import keys
from tests.lab import chaos_clock
from tests.lab.cluster import Cluster
from tests.lab.lab import wait_until
from tests.lab.names import HEARTBEAT_PORT
from tests.lab.node import Node

SERVERS: Final = ("apache2", "mariadbd", "mysqld")
PARTS: Final = ("host", "brain", "heart")


class Strike(NamedTuple):
    """One fault: ``at_s`` seconds after the beginning of its round."""

    at_s: float
    verb: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.at_s:6.2f}  {' '.join((self.verb, *self.words))}"


def draw(seed: int, services: tuple[str, ...], over_s: float) -> list[Strike]:
    """A schedule; the same seed and services draw the same.

    Each plays with a few kinds only: of everything at once, the third fault
    of one kind would never meet the second.
    """
    rng = random.Random(f"chaos {seed}")
    kinds = rng.sample(sorted(HARMFUL), rng.randrange(2, 6))
    repairs = [REPAIRED_BY[kind] for kind in kinds if kind in REPAIRED_BY]
    strikes, at_s = [], rng.uniform(0, over_s / 4)
    for _ in range(rng.randrange(4, 10)):
        verb = rng.choice(repairs if strikes and repairs and rng.random() < 0.25 else kinds)
        strikes.append(Strike(round(at_s, 2), verb, DECK[verb](rng, services)))
        at_s += rng.choice((0.0, 0.05, 0.3, 0.8, 2.0, 3.5)) + rng.uniform(0, 0.3)
        if at_s > over_s:
            break
    return strikes


def _node(rng: random.Random) -> str:
    return rng.choice(("clustnode1", "clustnode2"))


def _seconds(rng: random.Random) -> str:
    """Around half of deadtime, deadtime and the lease of an address."""
    return f"{rng.choice((0.4, 0.9, 1.8, 2.3, 4.0, 6.5)) + rng.uniform(0, 0.3):.2f}"


CLOCKS: Final = (-50 * 31_557_600, -86_400 * 400, -3_600, -2, 2, 45, 3_600, 10 * 31_557_600)
"""Seconds: a battery that is empty, summer time, a correction by hand, a typing error."""

Draws = Callable[[random.Random, tuple[str, ...]], tuple[str, ...]]

LINKS: Final = ("serial", "crossover", "lan-heartbeats")

HARMFUL: Final[dict[str, Draws]] = {
    "power-off": lambda r, _s: (_node(r),),
    "power-cycle": lambda r, _s: (_node(r),),
    "cut": lambda r, _s: (r.choice(LINKS),),
    "split": lambda _r, _s: (),
    "lan-cut": lambda r, _s: (_node(r),),
    "one-way": lambda r, _s: (r.choice(("lan", "crossover")), _node(r)),
    "loss": lambda r, _s: (r.choice(("lan", "crossover")), str(r.choice((10, 40, 80)))),
    "kill": lambda r, _s: (_node(r), r.choice((*PARTS, "all"))),
    "stop": lambda r, _s: (_node(r), r.choice(PARTS), _seconds(r)),
    "freeze": lambda r, _s: (_node(r), _seconds(r)),
    "kill-servers": lambda r, _s: (_node(r),),
    "stop-servers": lambda r, _s: (_node(r), _seconds(r)),
    "remove-address": lambda r, s: (_node(r), r.choice(s)),
    "full-disk": lambda r, _s: (_node(r),),
    "noise-serial": lambda r, _s: (_node(r), str(r.choice((1, 60, 400, 3_000)))),
    "noise-udp": lambda r, _s: (_node(r), str(r.choice((1, 40, 300)))),
    "wrong-key": lambda r, _s: (_node(r),),
    "set-clock": lambda r, _s: (_node(r), str(r.choice(CLOCKS))),
    "move": lambda r, s: (_node(r), r.choice(s)),
    "standby": lambda r, _s: (_node(r),),
}
"""Fault → its words."""

REPAIRS: Final[dict[str, Draws]] = {
    "power-on": lambda r, _s: (_node(r),),
    "start-hostd": lambda r, _s: (_node(r),),
    "mend": lambda r, _s: (r.choice(LINKS),),
    "mend-links": lambda _r, _s: (),
    "lan-mend": lambda r, _s: (_node(r),),
    "free-disk": lambda r, _s: (_node(r),),
    "online": lambda r, _s: (_node(r),),
    "right-clock": lambda r, _s: (_node(r),),
}

DECK: Final = HARMFUL | REPAIRS

REPAIRED_BY: Final = {
    "power-off": "power-on",
    "cut": "mend",
    "split": "mend-links",
    "lan-cut": "lan-mend",
    "kill": "start-hostd",
    "full-disk": "free-disk",
    "standby": "online",
    "set-clock": "right-clock",
    "freeze": "power-on",  # with fencing it is shot
}
"""Only what can have happened is repaired within a round."""


class Hand:
    """Does it, to one cluster.  A fault that cannot be (no such power, no such process) does nothing.

    ``arp_passes``: can each node ask the other on the clients' LAN?
    """

    def __init__(self, cluster: Cluster, seed: int) -> None:
        self.cluster, self.lab = cluster, cluster.lab
        self._rng = random.Random(f"noise {seed}")
        self._rules: dict[str, str] = {}
        self._later: list[tuple[float, Callable[[], None]]] = []
        self.lan_is_cut: dict[str, bool] = {node.name: False for node in self.lab.nodes}
        self.arp_passes = True
        self.wrong_key: str = ""

    def strike(self, strike: Strike) -> None:
        verb = strike.verb.replace("-", "_")
        getattr(self, f"_{verb}")(*strike.words)
        self.arp_passes = not any(self.lan_is_cut.values()) and not any(rule.startswith("lan ") for rule in self._rules)

    def tick(self) -> None:
        """End what was to end by now."""
        now = time.monotonic()
        for due in [entry for entry in self._later if entry[0] <= now]:
            self._later.remove(due)
            due[1]()

    # -- power ---------------------------------------------------------------------

    def _power_off(self, name: str) -> None:
        with contextlib.suppress(AssertionError):  # the power switch may have been first
            self.lab.power_off(self.lab.node(name))

    def _power_on(self, name: str) -> None:
        node = self.lab.node(name)
        if not node.is_on:
            self.lab.power_on(node)
            self._start(node)

    def _start(self, node: Node) -> None:
        """Start hostd; the power switch may cut the node off in the middle of that."""
        try:
            self.cluster.start(node)
        except (AssertionError, RuntimeError):
            with contextlib.suppress(AssertionError):
                wait_until(lambda: not node.is_on, "it has no power", within_s=2)
            if node.is_on:
                raise

    def _power_cycle(self, name: str) -> None:
        self._power_off(name)
        self._power_on(name)

    # -- cables --------------------------------------------------------------------

    def _cut(self, link: str) -> None:
        if link == "serial":
            self.lab.serial.unplug()
        elif link == "crossover":
            self.lab.pull_crossover()
        else:
            self._filter("lan-heartbeats", f"iifname {self._ports('lan')} udp dport {HEARTBEAT_PORT} drop")

    def _mend(self, link: str) -> None:
        if link == "serial":
            self.lab.serial.plug()
        elif link == "crossover":
            self.lab.plug_crossover()
        else:
            self._filter("lan-heartbeats", "")

    def _split(self) -> None:
        for link in ("serial", "crossover", "lan-heartbeats"):
            self._cut(link)

    def _mend_links(self) -> None:
        for link in ("serial", "crossover", "lan-heartbeats"):
            self._mend(link)

    def _lan_cut(self, name: str) -> None:
        self.lan_is_cut[name] = True
        self.lab.pull_lan(self.lab.node(name))

    def _lan_mend(self, name: str) -> None:
        self.lan_is_cut[name] = False
        self.lab.plug_lan(self.lab.node(name))

    def _one_way(self, net: str, name: str) -> None:
        """Nothing that this node sends there reaches the other one."""
        other = self.lab.other(self.lab.node(name)).name
        ends = {"lan": "lan", "crossover": "x"}[net]
        self._filter(f"{net} one way", f'iifname "{name}-{ends}" oifname "{other}-{ends}" drop')

    def _loss(self, net: str, percent: str) -> None:
        """Of everything between the nodes, ARP too."""
        ports = self._ports({"lan": "lan", "crossover": "x"}[net])
        self._filter(f"{net} loss", f"iifname {ports} oifname {ports} numgen random mod 100 < {percent} drop")

    def _ports(self, end: str) -> str:
        return "{ " + ", ".join(f'"{node.name}-{end}"' for node in self.lab.nodes) + " }"

    def _filter(self, name: str, rule: str) -> None:
        self._rules.pop(name, None)
        if rule:
            self._rules[name] = rule
        rules = "\n".join(self._rules.values())
        self.lab.lan.nft(
            "table bridge chaos\ndelete table bridge chaos\ntable bridge chaos {\nchain forward {\n"
            f"type filter hook forward priority 1\n{rules}\n}}\n}}\n"
        )

    # -- processes -------------------------------------------------------------------

    def _kill(self, name: str, part: str) -> None:
        node = self.lab.node(name)
        if part == "all":
            node.signal(hostd_of(node), signal.SIGKILL)
        else:
            node.signal(self._part(node, part), signal.SIGKILL)

    def _stop(self, name: str, part: str, seconds: str) -> None:
        node = self.lab.node(name)
        self._for(node, self._part(node, part), float(seconds))

    def _freeze(self, name: str, seconds: str) -> None:
        node = self.lab.node(name)
        self._for(node, alive(node), float(seconds))

    def _kill_servers(self, name: str) -> None:
        node = self.lab.node(name)
        node.signal(self._servers(node), signal.SIGKILL)

    def _stop_servers(self, name: str, seconds: str) -> None:
        node = self.lab.node(name)
        self._for(node, self._servers(node), float(seconds))

    def _for(self, node: Node, pids: list[int], seconds: float) -> None:
        handles = []
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                handles.append(Held(pid))
        for handle in handles:
            handle.signal(signal.SIGSTOP)
        self._later.append((time.monotonic() + seconds, lambda: [h.resume() for h in handles] and None))

    def _part(self, node: Node, part: str) -> list[int]:
        tree = hostd_of(node)
        if part == "host":
            return [pid for pid in tree if pid == self.cluster.hosts.get(node.name)]
        return [pid for pid in tree if comm(pid) == f"hostd-{part}"]

    def _servers(self, node: Node) -> list[int]:
        return [pid for pid in alive(node) if comm(pid) in SERVERS]

    def _start_hostd(self, name: str) -> None:
        node = self.lab.node(name)
        if node.is_on and not hostd_of(node):
            self._start(node)

    # -- the rest ----------------------------------------------------------------------

    def _remove_address(self, name: str, service: str) -> None:
        node, address = self.lab.node(name), self.cluster.services[service].address
        if node.is_on and node.network:
            with contextlib.suppress(RuntimeError):  # it is not there
                node.network.run(["ip", "addr", "del", f"{address}/{128 if ':' in address else 32}", "dev", "eth0"])

    def _full_disk(self, name: str) -> None:
        """The file system of /var/lib/hostd: a small one (``chaos.py`` mounts it)."""
        with contextlib.suppress(OSError), self._ballast(name).open("wb", buffering=0) as ballast:
            while True:
                ballast.write(bytes(4096))

    def _free_disk(self, name: str) -> None:
        self._ballast(name).unlink(missing_ok=True)

    def _ballast(self, name: str) -> Path:
        return self.lab.node(name).folder / "state" / "ballast"

    def _noise_serial(self, name: str, size: str) -> None:
        self.lab.serial.garbage(self.lab.nodes.index(self.lab.node(name)), self._rng.randbytes(int(size)))

    def _noise_udp(self, name: str, count: str) -> None:
        """Datagrams of any length from where the true heartbeats come from."""
        node = self.lab.node(name)
        other = self.lab.other(node)
        if not (node.is_on and other.is_on and other.network):
            return
        with other.network.entered():
            sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with sender:
            for _ in range(int(count)):
                to = self._rng.choice((node.place.address, node.place.crossover))
                with contextlib.suppress(OSError):
                    sender.sendto(self._rng.randbytes(self._rng.choice((0, 1, 40, 120, 1400))), (to, HEARTBEAT_PORT))

    def _set_clock(self, name: str, seconds: str) -> None:
        chaos_clock.put(self.lab.node(name), int(seconds))

    def _right_clock(self, name: str) -> None:
        chaos_clock.right(self.lab.node(name))

    def _wrong_key(self, name: str) -> None:
        """Its hostd is killed and comes back with another key: alive, and not understood by the other."""
        node = self.lab.node(name)
        if not node.is_on or self.wrong_key:
            return
        self.wrong_key = name
        key = node.config / "cluster.key"
        key.rename(node.config / "right.key")
        keys.make(key)
        self._anew(node)

    def _right_key(self) -> None:
        if self.wrong_key:
            node = self.lab.node(self.wrong_key)
            (node.config / "right.key").replace(node.config / "cluster.key")
            self.wrong_key = ""
            if node.is_on:
                self._anew(node)

    def _anew(self, node: Node) -> None:
        node.signal(hostd_of(node), signal.SIGKILL)
        with contextlib.suppress(AssertionError):
            wait_until(lambda: not hostd_of(node), "hostd is gone", within_s=5)
        self._start(node)

    def _move(self, name: str, service: str) -> None:
        self._say_aside(name, "move", service)

    def _standby(self, name: str) -> None:
        self._say_aside(name, "standby")

    def _online(self, name: str) -> None:
        self._say_aside(name, "online")

    def _say_aside(self, name: str, *words: str) -> None:
        """The next fault does not wait for the answer."""
        threading.Thread(target=self._say, args=(name, *words), daemon=True).start()

    def _say(self, name: str, *words: str) -> None:
        """The node may lose its power while it is asked, or be frozen: the answer is not needed."""
        with contextlib.suppress(AssertionError, OSError, subprocess.SubprocessError):
            self.lab.node(name).hostd(*words, check=False, timeout=8)

    # -- the end of a round ---------------------------------------------------------------

    def repair(self) -> None:
        """Everything mended, switched on and started, as a diligent operator would."""
        for _, act in self._later:
            act()
        self._later.clear()
        self._rules.clear()
        self._filter("", "")
        self.lab.serial.plug()
        self.lab.plug_crossover()
        for node in self.lab.nodes:
            self._lan_mend(node.name)
            self._free_disk(node.name)
            self._right_clock(node.name)
        self.arp_passes = True
        self._right_key()
        for node in self.lab.nodes:
            self._power_on(node.name)
            self._start_hostd(node.name)

    def ask_for_all(self) -> None:
        """Undo by commands what was ordered, or has failed, during the faults; look after power and daemons."""
        for node in self.lab.nodes:
            self._power_on(node.name)
            self._start_hostd(node.name)
        first = self.lab.node1.name
        for node in self.lab.nodes:
            self._say(first, "online", node.name)
        for service in self.cluster.services.values():
            self._say(first, "cleanup", service.name)
            status = self.cluster.status(self.lab.node1).get("services", {}).get(service.name, {})
            if status.get("node") not in ("", None, service.primary):
                self._say(first, "move", service.name, service.primary)


class Held:
    """A process by its handle: a number may have become another process's by the time it is let go."""

    def __init__(self, pid: int) -> None:
        self._handle = os.pidfd_open(pid)
        self._close = lambda: os.close(self._handle)

    def signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._handle, number)

    def resume(self) -> bool:
        self.signal(signal.SIGCONT)
        self._close()
        return True


def alive(node: Node) -> list[int]:
    """All its processes; none if the power switch was first."""
    try:
        return node.processes()
    except FileNotFoundError:
        return []


def hostd_of(node: Node) -> list[int]:
    """Its processes of hostd, likewise."""
    try:
        return node.hostd_tree()
    except FileNotFoundError:
        return []


def comm(pid: int) -> str:
    """Its name; empty for a process that is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""
