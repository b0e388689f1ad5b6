"""hostd on both machines: conf.d and key, the unit, and what the daemon says.

Decides how the tests meet hostd: by its package, its unit, its files in
``/etc/hostd`` and its commands, as an operator does, and by nothing else.
"""

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.lab.lab import wait_until
from tests.lab.names import NODE1, NODE2
from tests.machines.guest import Guest
from tests.machines.pair import Pair
from tests.machines.steps import step

SERIAL, CROSSOVER, LAN = "serial", "crossover", "lan"
ALL_LINKS = (SERIAL, CROSSOVER, LAN)
TTY = "/dev/ttyS1"

UNHURRIED = {"keepalive": "250ms", "warntime": "4s", "deadtime": "12s", "initdead": "60s"}
"""Emulated processors stall for seconds on a host that does other work."""

WITHIN_S = 300.0
"""Nothing that is waited for takes a tenth of it on a quiet machine."""


@dataclass(frozen=True)
class Service:
    """One service.  ``lines``: of its table in conf.d.  ``resources``: each a table, after the address."""

    name: str
    primary: str
    address: str
    lines: str = ""
    resources: Sequence[str] = ()

    @property
    def text(self) -> str:
        head = f'[service.{self.name}]\nprimary = "{self.primary}"\n{self.lines}\n'
        address = f'"{self.address}/24"'
        if not self.resources:
            return f"{head}address = {address}\n"
        listed = "".join(f"  {resource},\n" for resource in (f"{{ address = {address} }}", *self.resources))
        return f"{head}resources = [\n{listed}]\n"


WEB = Service("web", "clustnode1", "172.23.2.16", 'agent = "httpd"\nparams = { url = "http://172.23.2.16/" }')
IDLE = Service("idle", "clustnode2", "172.23.2.13", 'agent = "dummy"\nparams = { process = true }')

FENCING = """\
[fencing]
mode = "required"
delay = "2s"
[[fencing.device]]
agent = "/usr/local/sbin/fence_machine"
timeout = "60s"
params = { plug = { clustnode1 = "clustnode1", clustnode2 = "clustnode2" } }
"""


@dataclass(frozen=True)
class Settings:
    """What conf.d says beside the services."""

    services: Sequence[Service] = (WEB, IDLE)
    links: Sequence[str] = ALL_LINKS
    baud: int = 115_200
    fenced: bool = False
    further: str = ""
    """Further tables."""
    timers: Mapping[str, str] = field(default_factory=lambda: UNHURRIED)

    @property
    def text(self) -> str:
        link_text = {
            SERIAL: f'type = "serial"\ndevice = "{TTY}"\nbaud = {self.baud}\n',
            CROSSOVER: (
                'type = "udp"\ndirect = true\ninterface = "eth1"\n'
                f'address = {{ clustnode1 = "{NODE1.crossover}", clustnode2 = "{NODE2.crossover}" }}\n'
            ),
            LAN: (
                'type = "udp"\ninterface = "eth0"\n'
                f'address = {{ clustnode1 = "{NODE1.address}", clustnode2 = "{NODE2.address}" }}\n'
            ),
        }
        parts = [
            '[cluster]\nname = "machines"\nnodes = ["clustnode1", "clustnode2"]\naddress_lease = "2m"\n',
            "[heartbeat]\n" + "".join(f'{name} = "{value}"\n' for name, value in self.timers.items()),
            *(f'[[heartbeat.link]]\nname = "{link}"\n{link_text[link]}' for link in self.links),
            FENCING if self.fenced else "",
            self.further,
        ]
        return "\n".join(part for part in parts if part)


class Cluster:
    """hostd on a pair of machines that are up."""

    def __init__(self, pair: Pair, settings: Settings) -> None:
        """Nothing is written or started yet."""
        self.pair, self.settings = pair, settings

    @property
    def primaries(self) -> dict[str, str]:
        return {service.name: service.primary for service in self.settings.services}

    def on(self, node: Guest) -> dict[str, str]:
        """Everything on this node."""
        return dict.fromkeys(self.primaries, node.name)

    # -- files -----------------------------------------------------------------------

    def configure(self) -> None:
        """conf.d and the key, the same on both."""
        node1, node2 = self.pair.nodes
        node1.sh("test -e /etc/hostd/cluster.key || hostd keygen")
        key = node1.sh("base64 -w0 /etc/hostd/cluster.key").encode()
        node2.sh("umask 077; base64 -d > /etc/hostd/cluster.key", stdin=key)
        for node in self.pair.nodes:
            self.write(node)

    def write(self, node: Guest) -> None:
        """conf.d of one node."""
        node.sh("rm -f /etc/hostd/conf.d/*")
        node.write("/etc/hostd/conf.d/00-cluster.toml", self.settings.text)
        for service in self.settings.services:
            node.write(f"/etc/hostd/conf.d/{service.name}.toml", service.text)

    # -- the unit --------------------------------------------------------------------

    def start(self) -> None:
        """``systemctl start hostd`` on both, and every service on its primary."""
        with step("systemctl start hostd on both"):
            for node in self.pair.nodes:
                node.sh("systemctl start --no-block hostd")
            for node in self.pair.nodes:
                self.wait_until(functools.partial(self.is_active, node), f"hostd is active on {node.name}")
        with step("every service on its primary"):
            self.wait_until(self._is_at_home, f"services run as {self.primaries}")

    def _is_at_home(self) -> bool:
        """Every service on its primary; AssertionError at once if one has failed for good."""
        services = self.status(self.pair.node1).get("services", {})
        failed = [name for name, entry in services.items() if entry["state"] == "failed"]
        assert not failed, f"failed on all nodes: {', '.join(failed)}"
        return all(self.owners(node) == self.primaries for node in self.pair.nodes)

    def is_active(self, node: Guest) -> bool:
        """Has the daemon told systemd that it is ready?"""
        state = node.run("systemctl is-active hostd").output.strip()
        assert state != "failed", f"hostd failed on {node.name}\n{self.journal(node)}"
        return state == "active"

    def main_pid(self, node: Guest) -> int:
        """Of the unit."""
        return int(node.sh("systemctl show -P MainPID hostd"))

    def journal(self, node: Guest, lines: int = 40) -> str:
        return node.run(f"journalctl -u hostd -n {lines} --no-pager -o short-monotonic").output

    # -- what the daemon says --------------------------------------------------------

    def status(self, node: Guest) -> dict[str, Any]:
        """``hostd status --json``; empty if the daemon is not reachable."""
        ran = node.run("hostd status --json")
        try:
            found: dict[str, Any] = json.loads(ran.output)
        except ValueError:
            return {}
        return found

    def owners(self, node: Guest) -> dict[str, str]:
        """Where each service with a primary runs, as this node says; empty text: nowhere."""
        services = self.status(node).get("services", {})
        running = {name: entry["node"] for name, entry in services.items() if entry["state"] == "running"}
        return {name: running.get(name, "") for name in self.primaries if name in services}

    def everywhere(self, node: Guest, service: str) -> list[str]:
        """The nodes on which a service of all nodes runs, as this node says."""
        found: list[str] = self.status(node).get("services", {}).get(service, {}).get("nodes", [])
        return found

    def node_states(self, node: Guest) -> list[str]:
        """Of both nodes, in order, as this node says."""
        return [entry["state"] for entry in self.status(node).get("nodes", {}).values()]

    def link(self, node: Guest, name: str) -> dict[str, Any]:
        """How this node sees one link to the other."""
        peer = self.pair.other(node).name
        links: dict[str, dict[str, Any]] = self.status(node).get("nodes", {}).get(peer, {}).get("links", {})
        return links.get(name, {})

    def wait_for(self, owners: Mapping[str, str], *, within_s: float = WITHIN_S) -> float:
        """Until all nodes with power say that services run so; the seconds it took."""
        asked = [node for node in self.pair.nodes if node.is_on]
        return self.wait_until(
            lambda: all(self.owners(node) == owners for node in asked), f"services run as {dict(owners)}", within_s
        )

    def wait_until(self, claim: Callable[[], bool], what: str, within_s: float = WITHIN_S) -> float:
        """As the laboratory's, with the whole picture in the failure."""
        try:
            return wait_until(claim, what, within_s=within_s, pause_s=0.3)
        except AssertionError as late:
            raise AssertionError(f"{late}\n{self.picture()}") from None

    def picture(self) -> str:
        """What each node says and the end of its journal: for the reader of a failure."""
        parts = []
        for node in self.pair.nodes:
            if node.is_on:
                parts += [
                    f"── {node.name} ──",
                    node.run("hostd status").output,
                    "── its journal ──",
                    self.journal(node),
                ]
            else:
                parts += [f"── {node.name}: no power ──"]
        return "\n".join(parts)
