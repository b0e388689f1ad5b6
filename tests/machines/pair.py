"""Two emulated machines and what lies between them.

Decides how the parts fit together::

                 station (gateway, observer)
                    │
      ──────────────┴────────── lan (hub) ─────────────────
          │                                 │
         eth0                              eth0
      clustnode1 ─ eth1 ── crossover ── eth1 ─ clustnode2
         ttyS1 ────── null-modem cable ──────── ttyS1
          │                                 │
         sda ──── one disk, if there is one ── sda

Everything is unix sockets in one folder, which is gone at the end.  It knows
nothing of hostd.
"""

import contextlib
import shutil
import tempfile
import threading
from pathlib import Path

from tests.lab.names import NODES
from tests.machines.debian import CACHE
from tests.machines.guest import Guest
from tests.machines.hub import Hub
from tests.machines.image import RUN_PREFIX, Image
from tests.machines.null_modem import NullModem
from tests.machines.power_switch import PowerSwitch
from tests.machines.shared_disk import SharedDisk
from tests.machines.station import Station
from tests.machines.steps import step


class Pair:
    """A context manager; the machines are off at first."""

    def __init__(self, image: Image) -> None:
        self.image = image
        self._closing = contextlib.ExitStack()
        self.folder = Path(tempfile.mkdtemp(prefix=RUN_PREFIX, dir=CACHE))
        self._closing.callback(shutil.rmtree, self.folder, ignore_errors=True)
        try:
            self.lan, self.crossover = self._hub("lan"), self._hub("x")
            self.cable = NullModem(self.folder)
            self._closing.callback(self.cable.close)
            self.station = Station(self.lan)
            self._closing.callback(self.station.close)
            self.node1, self.node2 = self.nodes = (self._guest(0), self._guest(1))
            self._mains = threading.RLock()  # the power switch pulls plugs in threads of its own
            self.switch = PowerSwitch(self.nodes, self.power_off)
            self._closing.callback(self.switch.close)
        except BaseException:
            self.close()
            raise

    def _hub(self, name: str) -> Hub:
        hub = Hub(self.folder, name)
        self._closing.callback(hub.close)
        return hub

    def _guest(self, end: int) -> Guest:
        place = NODES[end]
        ports = [self.lan.port(place.name), self.crossover.port(place.name)]
        guest = Guest(place, self.image, self.folder / place.name, ports, self.cable.path(end))
        self._closing.callback(guest.power_off)
        return guest

    def other(self, node: Guest) -> Guest:
        return self.node2 if node is self.node1 else self.node1

    # -- power ---------------------------------------------------------------------

    def restore(self) -> None:
        """Both up and running, hostd not yet."""
        if not self.image.saved.exists():
            self._save()
        with step("both machines restored"):
            for node in self.nodes:
                node.restore()

    def _save(self) -> None:
        """Boot a machine that is neither of the two, and save it for all."""
        node = self.node1
        with step("a machine booted"):
            node.power_on()
            node.wait()
            node.sh("systemctl is-system-running --wait || systemctl --failed", timeout_s=600)
            node.run("hostd check", timeout_s=600)  # its code is in the page cache of all that follow
        with step("saved"):
            half = self.image.folder / "saving"
            shutil.rmtree(half, ignore_errors=True)
            node.save(half)
            half.rename(self.image.saved)

    def power_off(self, node: Guest) -> None:
        """Pull the plug: no warning, no last word on any wire."""
        with self._mains:
            node.power_off()
            other = self.other(node)
            if other.is_on:
                other.set_carrier("eth1", up=False)

    def power_on(self, node: Guest) -> None:
        """Boot it from its own disk."""
        with step(f"{node.name} booted"):
            with self._mains:
                node.power_on()
                if self.other(node).is_on:
                    self.other(node).set_carrier("eth1", up=True)
            node.wait()

    def share_disk(self, *, mib: int, holds: str = "", filesystem_mib: int = 0) -> None:
        """One disk at both, as ``/dev/sda``; on it an ext4 with a folder of the machines' root, if one is named."""
        disk = SharedDisk(self.folder, self.image.base, mib=mib)
        self._closing.callback(disk.close)
        if holds:
            disk.fill(self.image.base, holds, mib=filesystem_mib)
        for node in self.nodes:
            disk.plug(node)

    # -- cables ----------------------------------------------------------------------

    def pull_crossover(self) -> None:
        """Both ends lose their carrier."""
        for node in self.nodes:
            self.crossover.unplug(node.name)
            if node.is_on:
                node.set_carrier("eth1", up=False)

    def plug_crossover(self) -> None:
        for node in self.nodes:
            self.crossover.plug(node.name)
            if node.is_on:
                node.set_carrier("eth1", up=all(n.is_on for n in self.nodes))

    def pull_lan(self, node: Guest) -> None:
        """This node's cable to the client LAN."""
        self.lan.unplug(node.name)
        node.set_carrier("eth0", up=False)

    def plug_lan(self, node: Guest) -> None:
        self.lan.plug(node.name)
        node.set_carrier("eth0", up=True)

    # -- the end ---------------------------------------------------------------------

    def close(self) -> None:
        self._closing.close()

    def __enter__(self) -> "Pair":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
