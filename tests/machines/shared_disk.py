"""One SCSI disk at both machines, with persistent reservations.

Decides how: the SCSI target of Debian's ``tgt`` as an ordinary process, and
each machine's QEMU as an initiator of its own name, so that the target tells
the two apart as it would two host adapters.  The machines see ``/dev/sda``.
"""

import json
import os
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from tests.machines.debian import run
from tests.machines.guest import Guest

NAME = "iqn.2026-01.lab.hostd:disk"
LOOPBACK = "127.0.0.1"
READY_WITHIN_S = 60.0


class SharedDisk:
    """Closed with the pair.  Its data is in a file of the pair's folder."""

    def __init__(self, folder: Path, base: Path, *, mib: int) -> None:
        self._folder = folder
        with socket.socket() as free:
            free.bind((LOOPBACK, 0))
            self._portal = f"{LOOPBACK}:{free.getsockname()[1]}"
        self.data = folder / "disk"
        with open(self.data, "wb") as data:
            data.truncate(mib << 20)
        self._tgtadm = base / "usr/sbin/tgtadm"
        self._environment = {**os.environ, "TGT_IPC_SOCKET": str(folder / "tgt")}
        with open(folder / "tgtd.log", "wb") as log:
            self._tgtd = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", base / "usr/sbin/tgtd", "-f", "--iscsi", f"portal={self._portal}"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment,
            )
        try:
            self._tell(f"--mode target --op new --tid 1 -T {NAME}", until_ready=True)
            self._tell(f"--mode logicalunit --op new --tid 1 --lun 1 --backing-store {self.data}")
            self._tell("--mode target --op bind --tid 1 -I ALL")
        except BaseException:
            self.close()
            raise

    def plug(self, node: Guest) -> None:
        """Into a machine that runs, and into each of its later lives."""
        node.disks.append(["-blockdev", json.dumps(self._blockdev(node)), "-device", json.dumps(DEVICE)])
        node.monitor.command("blockdev-add", **self._blockdev(node))
        node.monitor.command("device_add", **DEVICE)
        node.until("test -b /dev/sda", what="the shared disk is there")

    def fill(self, base: Path, holds: str, *, mib: int) -> None:
        """Make an ext4 of this size on it, in it this folder of the machines' root file system, by its last name."""
        with tempfile.TemporaryDirectory(dir=self._folder) as place:
            run("tar", "-C", place, "--numeric-owner", "-xf", str(base / "root.tar"), f"./{holds}")
            above = str(Path(place, holds).parent)
            run("mke2fs", "-q", "-F", "-t", "ext4", "-d", above, str(self.data), f"{mib}M")

    def close(self) -> None:
        self._tgtd.kill()
        self._tgtd.wait()

    def _blockdev(self, node: Guest) -> dict[str, object]:
        return {
            "driver": "iscsi",
            "node-name": "shared",
            "transport": "tcp",
            "portal": self._portal,
            "target": NAME,
            "lun": 1,
            "initiator-name": f"{NAME}.{node.name}",
            "cache": {"direct": True},
        }

    def _tell(self, words: str, *, until_ready: bool = False) -> None:
        end = time.monotonic() + READY_WITHIN_S
        while True:
            done = subprocess.run(
                [self._tgtadm, "--lld", "iscsi", *words.split()],
                env=self._environment,
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode == 0:
                return
            said = (self._folder / "tgtd.log").read_text(errors="replace")[-1000:]
            assert until_ready and time.monotonic() < end, f"tgtadm {words}: {done.stderr}\n{said}"
            time.sleep(0.2)


DEVICE = {"driver": "scsi-block", "id": "disk-shared", "bus": "scsi.0", "drive": "shared", "share-rw": True}
