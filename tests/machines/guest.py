"""One emulated machine: its hardware, its power switch, and a way to save it and restore it.

Decides the devices of a guest, always the same ones, since a saved guest can
only be restored into equal hardware.  A power cut is SIGKILL of QEMU: what the
guest had flushed to its disk is there afterwards, everything else is gone.
"""

import os
import shutil
import subprocess
import time
from pathlib import Path

from tests.lab.names import NodePlace
from tests.machines.debian import run
from tests.machines.guest_agent import GuestAgent
from tests.machines.hub import Port
from tests.machines.image import Image
from tests.machines.monitor import Monitor

MEMORY_MIB = 1024
NICENESS = 5
"""Emulation takes all that it gets; the tests themselves must stay prompt."""
BOOT_WITHIN_S = 600.0
"""A boot takes 20 s on a quiet machine."""

KERNEL_ARGUMENTS = "console=ttyS0,115200 quiet mitigations=off nokaslr audit=0 net.ifnames=0 panic=1"

CARDS = ("eth0", "eth1")


class Guest(GuestAgent):
    """A machine of the pair.  ``ports``: of its two network cards, in order; ``cable``: its end of the serial cable."""

    def __init__(self, place: NodePlace, image: Image, folder: Path, ports: list[Port], cable: Path) -> None:
        super().__init__(place.name, folder / "agent")
        self.place, self.image, self.folder = place, image, folder
        self.disks: list[list[str]] = []
        """QEMU's arguments for further disks, plugged in at every start."""
        self._ports, self._cable = ports, cable
        self._qemu: subprocess.Popen[bytes] | None = None
        self._monitor: Monitor | None = None
        folder.mkdir()

    # -- power ---------------------------------------------------------------------

    @property
    def is_on(self) -> bool:
        return self._qemu is not None and self._qemu.poll() is None

    def power_on(self) -> None:
        """Begin to boot from its own disk; ``wait`` waits for it."""
        self._launch()

    def power_off(self) -> None:
        """Pull the plug."""
        self.close()
        if self._monitor:
            self._monitor.close()
            self._monitor = None
        if self._qemu:
            self._qemu.kill()
            self._qemu.wait()
            self._qemu = None

    def wait(self, *, within_s: float = BOOT_WITHIN_S) -> float:
        """Until it answers; the seconds it took."""
        began = time.monotonic()
        while not self.answers(within_s=2):
            self._assert_runs()
            took_s = time.monotonic() - began
            assert took_s < within_s, f"{self.name} did not boot within {within_s:.0f} s; see {self.console}"
            time.sleep(0.2)
        return time.monotonic() - began

    @property
    def console(self) -> Path:
        """What it has printed on its first serial port, over all boots."""
        return self.folder / "console.log"

    @property
    def monitor(self) -> Monitor:
        """Its hardware."""
        if self._monitor is None:
            self._assert_runs()
            self._monitor = Monitor(self.folder / "monitor")
        return self._monitor

    def set_carrier(self, card: str, *, up: bool) -> None:
        """What its network card sees of the cable."""
        self.monitor.command("set_link", name=f"card-{card}", up=up)

    @property
    def power_port(self) -> Path:
        """The socket of a channel from the guest to the lab, for its fence agent."""
        return self.folder / "power"

    # -- saved ----------------------------------------------------------------------

    def save(self, place: Path) -> None:
        """Freeze a guest that has booted: memory and disk.  It is off afterwards."""
        place.mkdir()
        self.sh("sync")
        self.monitor.command("stop")
        self.monitor.command("migrate-set-parameters", **{"max-bandwidth": 1 << 40})
        self.monitor.command("migrate", uri=f"exec:cat > {place}/memory")
        while (state := self.monitor.command("query-migrate").get("status")) not in ("completed", "failed"):
            time.sleep(0.1)
        self.power_off()
        assert state == "completed", state
        shutil.copy(self.folder / "root.qcow2", place)

    def restore(self) -> None:
        """Go on where the saved guest of the image was, under this one's own name and addresses."""
        saved = self.image.saved
        shutil.copy(saved / "root.qcow2", self.folder)
        self._launch("-incoming", f"exec:cat {saved}/memory")
        while self.monitor.command("query-status")["status"] == "inmigrate":
            time.sleep(0.05)
        self.monitor.command("cont")
        self.wait()
        self.sh(
            f"date -s @{time.time():.3f} > /dev/null\n"
            f"echo {self.name} > /etc/hostname; hostname {self.name}\n"
            "systemctl restart machine-network"
        )

    # -- QEMU -----------------------------------------------------------------------

    def _assert_runs(self) -> None:
        said = (self.folder / "qemu.log").read_text(errors="replace")[-2000:]
        assert self.is_on, f"{self.name} has no power: {said or 'it was switched off'}"

    def _launch(self, *arguments: str) -> None:
        assert not self.is_on, f"{self.name} has power already"
        disk = self.folder / "root.qcow2"
        if not disk.exists():
            run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(self.image.root), str(disk))
        for port in self._ports:
            port.theirs.unlink(missing_ok=True)
        with open(self.folder / "qemu.log", "ab") as log:
            self._qemu = subprocess.Popen(
                # QEMU ends with us, however we end
                ["setpriv", "--pdeathsig", "KILL", "nice", "-n", str(NICENESS), *self._qemu_command(), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "LC_ALL": "C"},
            )

    def _qemu_command(self) -> list[str]:
        folder = self.folder
        command = [
            "qemu-system-x86_64 -accel tcg,thread=multi,tb-size=256 -machine pc,usb=off,vmport=off,hpet=off",
            f"-cpu qemu64 -smp 1 -m {MEMORY_MIB} -nodefaults -no-user-config -display none",
            f"-kernel {self.image.kernel} -initrd {self.image.initramfs}",
            # not flushed to this machine's disk, only to its memory: the end of QEMU loses nothing of it
            f"-drive if=none,id=root,file={folder}/root.qcow2,cache=unsafe -device virtio-blk-pci,drive=root",
            "-object rng-random,id=rng,filename=/dev/urandom -device virtio-rng-pci,rng=rng",
            f"-chardev file,id=console,path={self.console},append=on -device isa-serial,chardev=console,index=0",
            f"-chardev socket,id=cable,path={self._cable},reconnect=1 -device isa-serial,chardev=cable,index=1",
            f"-qmp unix:{folder}/monitor,server=on,wait=off",
            "-device virtio-serial-pci,id=channels",
            f"-chardev socket,id=agent,path={folder}/agent,server=on,wait=off",
            "-device virtserialport,bus=channels.0,nr=1,chardev=agent,name=org.qemu.guest_agent.0",
            f"-chardev socket,id=power,path={self.power_port},server=on,wait=off",
            "-device virtserialport,bus=channels.0,nr=2,chardev=power,name=lab.power",
            "-device virtio-scsi-pci,id=scsi",
            "-device i6300esb -action watchdog=reset",
        ]
        for card, port, mac in zip(CARDS, self._ports, (self.place.mac, self.place.crossover_mac), strict=True):
            command += [
                f"-netdev dgram,id=net-{card},local.type=unix,local.path={port.theirs},"
                f"remote.type=unix,remote.path={port.ours}",
                f"-device virtio-net-pci,netdev=net-{card},id=card-{card},romfile=,mac={mac}",
            ]
        words = [word for line in command for word in line.split()]
        return [*words, "-append", KERNEL_ARGUMENTS, *(word for disk in self.disks for word in disk)]
