"""A cluster in the lab: conf.d for both nodes, the daemon on each, and what it says.

Decides how the lab meets hostd: by its command line, its configuration files
and ``hostd status --json``, as an operator does, and by nothing else.
"""

import json
import shutil
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.lab.lab import Lab, wait_until
from tests.lab.names import GATEWAY, HEARTBEAT_PORT, NODE1, NODE2, NODES
from tests.lab.node import Node
from tests.lab.power_switch import PASSWORD, Fencing

SERIAL, CROSSOVER, LAN = "serial", "crossover", "lan"
ALL_LINKS = (SERIAL, CROSSOVER, LAN)

QUICK_START = {"initdead": "4s"}
"""A node that boots alone does not have to wait for half a minute in a test."""

LINK_TEXT = {
    SERIAL: '[[heartbeat.link]]\nname = "serial"\ntype = "serial"\ndevice = "/dev/ttyS0"\nbaud = 115200\n',
    CROSSOVER: (
        '[[heartbeat.link]]\nname = "crossover"\ntype = "udp"\ndirect = true\ninterface = "eth1"\n'
        f'address = {{ clustnode1 = "{NODE1.crossover}", clustnode2 = "{NODE2.crossover}" }}\n'
        f"port = {HEARTBEAT_PORT}\n"
    ),
    LAN: (
        '[[heartbeat.link]]\nname = "lan"\ntype = "udp"\ninterface = "eth0"\n'
        f'address = {{ clustnode1 = "{NODE1.address}", clustnode2 = "{NODE2.address}" }}\n'
        f"port = {HEARTBEAT_PORT}\n"
    ),
}


@dataclass(frozen=True)
class LabService:
    """One service of the lab.  ``lines``: further lines of its table in conf.d."""

    name: str
    primary: str
    address: str
    lines: str = ""

    @property
    def text(self) -> str:
        length = 64 if ":" in self.address else 24
        return f'[service.{self.name}]\nprimary = "{self.primary}"\naddress = "{self.address}/{length}"\n{self.lines}\n'


@dataclass(frozen=True)
class Settings:
    """What conf.d says beside the services.  ``timers``: of the heartbeat, by their names."""

    links: Sequence[str] = ALL_LINKS
    timers: Mapping[str, str] = field(default_factory=lambda: QUICK_START)
    cluster: str = ""
    """Further lines of [cluster]."""
    fencing: Fencing | None = None
    """By the lab's power switch."""

    @property
    def text(self) -> str:
        times = "".join(f'{name} = "{value}"\n' for name, value in self.timers.items())
        return (
            '[cluster]\nname = "lab"\nnodes = ["clustnode1", "clustnode2"]\nkey = "/etc/hostd/cluster.key"\n'
            f"{self.cluster}\n[heartbeat]\n{times}\n"
            + "\n".join(LINK_TEXT[link] for link in self.links)
            + f'\n[tiebreaker]\nping = ["{GATEWAY.address}"]\n'
        )


class Cluster:
    """hostd on both nodes of a lab."""

    def __init__(self, lab: Lab, services: Sequence[LabService], settings: Settings | None = None) -> None:
        """Write conf.d and a key for both nodes; nothing is started yet."""
        self.lab = lab
        self.services = {service.name: service for service in services}
        self.settings = settings or Settings()
        self.hosts: dict[str, int] = {}
        """Process id of the host per node, of the newest start."""
        fencing = lab.switch.text(self.settings.fencing) if self.settings.fencing else ""
        for node in lab.nodes:
            folder = node.config / "conf.d"
            folder.mkdir(exist_ok=True)
            (folder / "00-cluster.toml").write_text(f"{self.settings.text}\n{fencing}")
            (node.config / "switch").touch(mode=0o600)
            (node.config / "switch").write_text(PASSWORD + "\n")
            for service in services:
                (folder / f"{service.name}.toml").write_text(service.text)
        lab.node1.hostd("keygen", "/etc/hostd/cluster.key")
        # by hand, as the operator copies it; copy2 keeps its mode
        shutil.copy2(lab.node1.config / "cluster.key", lab.node2.config / "cluster.key")

    # -- the daemon ---------------------------------------------------------------

    def start(self, *nodes: Node) -> None:
        """Start hostd there (default: on both)."""
        for node in nodes or self.lab.nodes:
            self.hosts[node.name] = node.start_hostd()

    def kill_host(self, node: Node) -> None:
        """SIGKILL the first process of hostd; the others die with it, services stay."""
        node.signal([self.hosts[node.name]], signal.SIGKILL)

    def kill_all_of_hostd(self, node: Node) -> None:
        """SIGKILL host, heart, brain and actions at once; services stay."""
        node.signal(node.hostd_tree(), signal.SIGKILL)

    # -- what it says ---------------------------------------------------------------

    def status(self, node: Node) -> dict[str, Any]:
        """``hostd status --json`` there; empty if the daemon is not reachable."""
        if not node.is_on:
            return {}
        done = node.hostd("status", "--json", check=False)
        if done.returncode not in (0, 1):
            return {}
        status: dict[str, Any] = json.loads(done.stdout)
        assert status["schema"] == 1
        return status

    def owners(self, node: Node) -> dict[str, str]:
        """Where each service runs, as this node says; empty text: nowhere."""
        services = self.status(node).get("services", {})
        return {
            name: entry["node"] if entry["state"] == "running" else ""
            for name, entry in services.items()
            if name in self.services  # and not what runs on both
        }

    @property
    def primaries(self) -> dict[str, str]:
        return {service.name: service.primary for service in self.services.values()}

    def on(self, node: Node) -> dict[str, str]:
        """Everything on this node."""
        return dict.fromkeys(self.services, node.name)

    def is_pair(self, node: Node) -> bool:
        """Does this node say that both are online?"""
        nodes = self.status(node).get("nodes", {})
        return [entry["state"] for entry in nodes.values()] == ["online", "online"]

    def link(self, node: Node, name: str) -> dict[str, Any]:
        """How this node sees one link to the other."""
        peer = self.lab.other(node).name
        links: dict[str, dict[str, Any]] = self.status(node).get("nodes", {}).get(peer, {}).get("links", {})
        return links.get(name, {})

    # -- waiting ---------------------------------------------------------------------

    def wait_for(self, owners: Mapping[str, str], *, within_s: float = 20, nodes: Sequence[Node] = ()) -> float:
        """Until the nodes (default: all with power) say that services run so; the seconds it took."""
        asked = nodes or [node for node in self.lab.nodes if node.is_on]
        try:
            return wait_until(
                lambda: all(self.owners(node) == owners for node in asked),
                f"services run as {dict(owners)}",
                within_s=within_s,
            )
        except AssertionError as late:
            raise AssertionError(f"{late}\n{self.picture()}") from None

    def wait_for_pair(self, *, within_s: float = 20) -> float:
        """Until both nodes say that both are online."""
        try:
            return wait_until(
                lambda: all(self.is_pair(node) for node in self.lab.nodes), "both online", within_s=within_s
            )
        except AssertionError as late:
            raise AssertionError(f"{late}\n{self.picture()}") from None

    def up(self) -> "Cluster":
        """Start both and wait until every service runs on its primary."""
        self.start()
        self.wait_for_pair()
        self.wait_for(self.primaries)
        return self

    def picture(self) -> str:
        """What each node says and the end of its log: for the reader of a failure."""
        parts = []
        for node in self.lab.nodes:
            said = node.hostd("status", check=False) if node.is_on else None
            log = node.log.read_text(errors="replace").splitlines() if node.log.exists() else []
            parts += [
                f"── {node.name} ──",
                (said.stdout + said.stderr) if said else "no power",
                "── its log, last lines ──",
                *log[-25:],
            ]
        return "\n".join(parts)


APACHE = """\
ServerRoot /run
ServerName {service}.example
Listen {address}:80
PidFile /run/{service}-httpd.pid
ErrorLog /run/{service}-httpd.log
DefaultRuntimeDir /run
Mutex file:/run
{modules}
User www-data
Group www-data
DocumentRoot {folder}
DirectoryIndex index.html
<Directory {folder}>
    Require all granted
</Directory>
StartServers 1
ServerLimit 2
ThreadsPerChild 8
MaxRequestWorkers 16
MinSpareThreads 1
"""
PAGE = "<!doctype html><title>{service}</title><p>{service} is served by {node}\n"
MODULES = ("mpm_event", "authz_core", "dir", "unixd")
MODULES_FOLDER = Path("/usr/lib/apache2/modules")


def apache(lab: Lab, name: str, primary: str, address: str) -> LabService:
    """A service that is real Apache, with a page on each node that names the node."""
    inside = f"/etc/hostd/apache/{name}"
    modules = "\n".join(
        f"LoadModule {module}_module {MODULES_FOLDER}/mod_{module}.so"
        for module in MODULES
        if (MODULES_FOLDER / f"mod_{module}.so").exists()  # some are linked in
    )
    listen = f"[{address}]" if ":" in address else address
    for node, place in zip(lab.nodes, NODES, strict=True):
        folder = node.config / "apache" / name
        folder.mkdir(parents=True)
        (folder / "index.html").write_text(PAGE.format(service=name, node=place.name))
        (folder / "httpd.conf").write_text(APACHE.format(service=name, address=listen, modules=modules, folder=inside))
    lines = f'agent = "httpd"\nparams = {{ config = "{inside}/httpd.conf", url = "http://{listen}/" }}'
    return LabService(name, primary, address, lines)
