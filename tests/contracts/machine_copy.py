"""This machine once more: namespaces of its own over a copy-on-write view of its files.

Decides how they are made so that nothing in them can touch what is here: the
root is an overlay whose changes go to memory; /tmp, /run, /var/log and
systemd's units are empty (but for this checkout, read-only, if it lies there);
processes, cgroups, network, hostname and shared memory are its own.  What its
process 1 does, the caller says.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

BOOT = """
set -e
mount --make-rprivate /
mount -t tmpfs none $1
mkdir $1/up $1/work $1/root
mount -t overlay overlay -o lowerdir=/,upperdir=$1/up,workdir=$1/work $1/root
cd $1/root
for folder in tmp run var/tmp var/log etc/systemd/system; do mount -t tmpfs none $folder; done
[ -e ".$4" ] || { mkdir -p ".$4"; mount --bind "$4" ".$4"; mount -o remount,bind,ro ".$4"; }
mount --rbind /dev dev
mount -t sysfs none sys
mountpoint -q sys/fs/cgroup || mount -t tmpfs none sys/fs/cgroup
mount -t cgroup2 none sys/fs/cgroup
mkdir sys/fs/cgroup/$2
echo $$ > sys/fs/cgroup/$2/cgroup.procs
mkdir -p old
pivot_root . old
exec unshare --cgroup --pid --fork --mount-proc --kill-child sh -ec "$3"
"""
ENTER = """
umount -l /old
umount /sys/fs/cgroup
mount -t cgroup2 none /sys/fs/cgroup
"""
"""First of all in process 1: from here on nothing of the outside is left."""
UP_S = 60.0
CHECKOUT = Path(__file__).resolve().parents[2]


class MachineCopy:
    """``run`` does something in it; ``close`` ends all of it."""

    def __init__(self, folder: Path, init: str, is_up: "Callable[[MachineCopy], bool]") -> None:
        """``init``: the shell text of process 1.  Returns when ``is_up`` says so."""
        self._name = f"hostd-copy-{os.getpid()}-{folder.name}"
        folder.mkdir()
        self._log = folder.with_suffix(".log")
        argv = ["unshare", "--mount", "--net", "--uts", "--ipc", "sh", "-c", BOOT, "sh", str(folder), self._name]
        with self._log.open("wb") as log:
            self._top = subprocess.Popen(
                [*argv, ENTER + init, str(CHECKOUT)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.init = 0
        until = time.monotonic() + UP_S
        try:
            while not (self._has_entered() and is_up(self)):
                assert self._top.poll() is None and time.monotonic() < until, self._log.read_text()[-5_000:]
                time.sleep(0.1)
        except BaseException:
            self.close()
            raise

    def inside(self, argv: Sequence[str]) -> list[str]:
        """The command line that runs ``argv`` in it."""
        return ["nsenter", "-t", str(self.init), "-m", "-u", "-i", "-n", "-p", "-C", *argv]

    def run(self, *argv: str, timeout: float = 60) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(self.inside(argv), capture_output=True, text=True, timeout=timeout, check=False)

    def file(self, path: str, text: str) -> None:
        done = self.run("sh", "-c", 'printf %s "$0" > "$1"', text, path)
        assert done.returncode == 0, done.stderr

    def close(self) -> None:
        os.killpg(self._top.pid, signal.SIGKILL)  # --kill-child: process 1 goes with it, and all of its namespace
        self._top.wait()
        until = time.monotonic() + 10
        while self.init and Path(f"/proc/{self.init}").exists() and time.monotonic() < until:
            time.sleep(0.05)
        mounts = [
            line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines() if " cgroup2 " in line
        ]
        for mount in mounts:
            for folder, _, _ in os.walk(Path(mount) / self._name, topdown=False):
                Path(folder).rmdir()

    def _has_entered(self) -> bool:
        """Its process 1 has left the outside: only then may anything be run there."""
        children = Path(f"/proc/{self._top.pid}/task/{self._top.pid}/children").read_text().split()
        if not children or Path(f"/proc/{self._top.pid}/comm").read_text().strip() != "unshare":
            return False
        self.init = int(children[0])
        mounts = Path(f"/proc/{self.init}/mountinfo").read_text()
        return " /old" not in mounts and " / / " in mounts
