"""What of conf.d would not work on this machine, before anything is started.

Decides nothing of conf.d itself (``hostd.config`` has accepted it); it looks
at the key, links, addresses, scheduling, fencing and agents as this node has
them now, changes nothing, and gives complaints of the same form.
"""

import asyncio
import errno
import fcntl
import ipaddress
import os
import selectors
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

import psutil

from hostd import device_inspection, hardware, keys, notifier_inspection, realtime, unmounted
from hostd.actions import Actions
from hostd.api import ConfigError, LinkSettings, Note
from hostd.cgroups import Marks
from hostd.confd.complain import Complaints
from hostd.confd.values import bare, duration_text
from hostd.config import Configuration, Directories, ResourceSettings
from hostd.interfaces import Interfaces, NoInterface, ServiceAddress
from hostd.jobs import Job, Outcome, Verb
from hostd.registry import Registry

FLOOR_REALTIME_MS: Final = 500
"""Stalls of a busy machine reach 0.3 to 0.5 s with real-time scheduling (measured) ..."""
FLOOR_MS: Final = 2_000
"""... and 1.5 to 2 s without."""
VALIDATE_MAX_MS: Final = 20_000


class Inspection:
    """One look at this machine.  Complaints go to ``complaints``."""

    def __init__(
        self,
        configuration: Configuration,
        registry: Registry,
        directories: Directories,
        complaints: Complaints,
        tell: Callable[[str], None] = lambda _what: None,
    ) -> None:
        self._configuration, self._plan = configuration, configuration.plan
        self._registry, self._directories = registry, directories
        self._complaints, self._tell = complaints, tell
        self.is_running = daemon_runs(directories.runtime)
        """hostd runs here now: what it holds is no complaint."""

    def everything(self) -> None:
        self.key()
        for number, settings in enumerate(self._configuration.links):
            self.link(number, settings)
        self.shared_parts()
        asyncio.run(self.addresses())
        self.scheduling()
        self.fencing()
        types, folder = self._registry.notify_types(), self._directories.config
        notifier_inspection.everything(self._configuration.notifiers, types, folder, self._complaints)
        self.secrets()
        self.agents()

    def key(self) -> None:
        try:
            keys.read(self._configuration.key)
        except ConfigError as error:
            file = str(self._configuration.key)
            rule, _, cure = str(error).removeprefix(f"{file}: ").partition("; ")
            cure = cure or "make one with hostd keygen, the same for both nodes"
            self._complaints.error(("cluster", "key"), rule, cure, value=file)

    # -- links -------------------------------------------------------------------

    def link(self, number: int, settings: LinkSettings) -> None:
        path = ("heartbeat", "link", number)
        sentences = self._registry.check_link(settings)
        for sentence in sentences:
            rule, _, cure = sentence.removeprefix(f"{settings.name}: ").partition("; ")
            rule = f"({settings.name}): {rule}"
            add = self._complaints.warn if isinstance(sentence, Note) else self._complaints.error
            add(path, rule, cure or "see above")
        device, address = settings.settings.get("device"), settings.settings.get("address")
        if isinstance(device, str):
            self._console((*path, "device"), device)
        if isinstance(address, str) and not sentences:
            self._own_address((*path, "address"), address, settings)

    def _console(self, path: tuple[str | int, ...], device: str) -> None:
        getty = hardware.getty_on(device)
        if getty is not None:
            name = Path(device).resolve().name
            rule = f"has a login prompt on it (process {getty}), which reads what the peer sends"
            self._complaints.error(path, rule, f"systemctl disable --now serial-getty@{name}", value=device)
        if hardware.is_kernel_console(device):
            rule = "is a console of the kernel, whose messages garble heartbeats"
            cure = "take console=… for it out of the kernel's command line"
            self._complaints.error(path, rule, cure, value=device)

    def _own_address(self, path: tuple[str | int, ...], address: str, settings: LinkSettings) -> None:
        """The link's address is on this node, and its port is free (or hostd's)."""
        port = settings.settings.get("port")
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as trial:
            try:
                trial.bind((address.partition("%")[0], port if isinstance(port, int) else 0))
            except OSError as error:
                if error.errno == errno.EADDRNOTAVAIL:
                    cure = f"give it to {settings.settings.get('interface', 'the interface')}, or correct it"
                    self._complaints.error(path, "is not an address of this node", cure, value=address)
                elif error.errno == errno.EADDRINUSE and not self.is_running:
                    rule = f"{port} is in use by {_holder_of(port)}"
                    self._complaints.error((*path[:-1], "port"), rule, "stop that, or use another port on both")
                # else: not allowed to try (no root, link-local): hostd will say so itself

    def shared_parts(self) -> None:
        """Two media that share a card are one medium when it fails."""
        parts: dict[str, str] = {}
        for number, settings in enumerate(self._configuration.links):
            device, interface = settings.settings.get("device"), settings.settings.get("interface")
            mine = hardware.parts_of_tty(device) if isinstance(device, str) else ()
            mine += hardware.parts_of_interface(interface) if isinstance(interface, str) else ()
            for part in mine:
                first = parts.setdefault(part, settings.name)
                if first != settings.name:
                    rule = f"({settings.name}) shares {part} with {first}: if that fails, both are gone"
                    cure = "use media that share neither card nor chip"
                    self._complaints.warn(("heartbeat", "link", number), rule, cure)
                    break

    # -- addresses -----------------------------------------------------------------

    async def addresses(self) -> None:
        """Each service address has an interface here, and nobody else put it there."""
        interfaces = Interfaces(lambda: None)
        interfaces.open()
        try:
            self._link_addresses()
            texts = [(s.name, text) for s in self._plan.services for text in s.addresses]
            services = [ServiceAddress.parse(text).ip for _name, text in texts]
            for name, text in texts:
                self._address(interfaces, name, ServiceAddress.parse(text), services)
        finally:
            interfaces.close()

    def _address(
        self,
        interfaces: Interfaces,
        service: str,
        address: ServiceAddress,
        services: list[ipaddress.IPv4Address | ipaddress.IPv6Address],
    ) -> None:
        path = self._path(service, "address")
        try:
            interface = interfaces.serving(address, services)
        except NoInterface as error:
            rule, _, cure = str(error).removeprefix(f"{address.text}: ").partition("; ")
            self._complaints.error(path, f"cannot be carried: {rule}", cure, value=address.text)
            return
        if not interface.is_usable:
            rule = f"goes to {interface.name}, which is down or has no carrier"
            self._complaints.warn(path, rule, f"ip link set {interface.name} up, look at its cable", value=address.text)
        if interfaces.placed(address.ip) and not self.is_running:
            rule = "is on this node already, and hostd does not run here"
            cure = "unless a detached hostd left it, take it out of the system's network configuration"
            self._complaints.warn(path, rule, cure, value=address.text)

    def _link_addresses(self) -> None:
        """A node's own address must not move with a service."""
        for service in self._plan.services:
            for address in map(bare, service.addresses):
                for settings in self._configuration.links:
                    if address in (settings.settings.get("address"), settings.settings.get("peer_address")):
                        rule = f"is also the node's own address on link {settings.name}"
                        cure = "give the service an address of its own, which no node has"
                        self._complaints.error(self._path(service.name, "address"), rule, cure, value=address)

    def _path(self, service: str, key: str) -> tuple[str | int, ...]:
        """Where the service's ``address`` or ``params`` stand: by themselves, or somewhere in its resources."""
        resources = ("service", service, "resources")
        return resources if resources in self._complaints.places else ("service", service, key)

    # -- the machine -----------------------------------------------------------------

    def scheduling(self) -> None:
        is_granted = realtime_is_granted()
        floor_ms = FLOOR_REALTIME_MS if is_granted else FLOOR_MS
        deadtime_ms = self._plan.timers.deadtime_ms
        if deadtime_ms < floor_ms:
            granted = "with the real-time scheduling that" if is_granted else "without real-time scheduling, which"
            whether = "this machine grants" if is_granted else "this machine refuses"
            rule = f"is below {duration_text(floor_ms)}, the floor {granted} {whether}"
            cure = f"use {duration_text(floor_ms)} or more, or know that a busy machine looks dead"
            value = duration_text(deadtime_ms)
            self._complaints.warn(("heartbeat", "deadtime"), rule, cure, value=value)

    def fencing(self) -> None:
        devices = self._configuration.fencing_devices
        if devices:
            self._tell("asking the fence agents about their parameters")
        device_inspection.fencing(self._configuration, self._registry, self._complaints)
        watchdog = self._configuration.watchdog
        if watchdog is not None:
            device_inspection.timer(watchdog, self._complaints, is_running=self.is_running)

    def secrets(self) -> None:
        """An agent's secret stands in conf.d itself: then nobody but root may read that file."""
        for settings in self._configuration.resources:
            for name in settings.secrets:
                path = ("service", settings.service, "params", name)
                open_to = notifier_inspection.readable(self._directories.config / self._complaints.place(path).file)
                if settings.written.get(name) and open_to is not None:
                    rule = f"({settings.resource}) is a secret, and others may read {open_to}"
                    self._complaints.warn(path, rule, f"chmod 600 {open_to}")

    # -- agents ------------------------------------------------------------------------

    def agents(self) -> None:
        """Each agent's own opinion of its parameters, in a child and under a limit."""
        node = self._configuration.node
        here = {s.name for s in self._plan.services if node in s.candidates}
        with tempfile.TemporaryDirectory(prefix="hostd-check-") as scratch, selectors.DefaultSelector() as selector:
            actions = Actions(
                self._registry,
                Marks(f"hostd-check-{os.getpid()}"),
                node=node,
                runtime=Path(scratch),
                state=Path(scratch),
                selector=selector,
            )
            for settings in self._configuration.resources:
                if settings.service not in here:
                    continue
                self._tell(f"asking {settings.agent} about {settings.service}")
                job = Job(
                    service=settings.service,
                    resource=settings.resource,
                    agent=settings.agent,
                    verb=Verb.VALIDATE,
                    params=settings.params,
                    timeout_ms=VALIDATE_MAX_MS,
                )
                outcome = _outcome(actions, job, selector)
                if not outcome.ok:
                    self._unfit(settings, outcome)

    def _unfit(self, settings: ResourceSettings, outcome: Outcome) -> None:
        """What an agent says against its parameters: a mistake, unless it misses what is not mounted yet."""
        path = self._path(settings.service, "params")
        place = unmounted.place_of(outcome.reason, settings, self._configuration, self._registry.parameters)
        if place is not None:
            rule = f"({settings.resource}) cannot be checked before {place.mounted_by} mounts {place.directory}"
            cure = "run hostd check on the node where it is mounted, or once it is"
            self._complaints.note(path, f"{rule}: {outcome.reason}", cure)
            return
        reason = "took too long" if outcome.timed_out else outcome.reason
        rule = f"({settings.resource}) does not fit this machine: {reason}"
        self._complaints.error(path, rule, outcome.cure or f"see hostd-agent show {settings.agent}")


def _outcome(actions: Actions, job: Job, selector: selectors.BaseSelector) -> Outcome:
    outcomes: list[Outcome] = []
    actions.start(job, outcomes.append)
    while not outcomes:
        for ready, _events in selector.select(0.1):
            ready.data()
        actions.tick()
    return outcomes[0]


def realtime_is_granted() -> bool:
    """Tried in a child, which the trial cannot outlive.  The service may be granted
    something else than this shell: systemd has limits of its own."""
    child = os.fork()
    if child == 0:
        os._exit(0 if realtime.schedule() else 1)
    return os.waitpid(child, 0)[1] == 0


def daemon_runs(runtime: Path) -> bool:
    """Somebody holds the lock of this runtime directory."""
    try:
        lock = os.open(runtime / "lock", os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def _holder_of(port: object) -> str:
    for connection in psutil.net_connections("udp"):
        if connection.laddr and connection.laddr.port == port and connection.pid:
            return f"{psutil.Process(connection.pid).name()} (process {connection.pid})"
    return "another program"
