"""Process 1 of a node: makes the node's world, then only buries the dead.

Run as a script with one JSON argument: ``network`` (path of the namespace to
join), ``name`` (what ``uname -n`` is to print), ``keep`` (folder that holds
``etc`` and ``state``, which outlive a power cut), ``tty`` (the serial cable's
end), ``hosts`` (text), ``shared`` (where a shared disk may be mounted),
``cgroup`` (a name unique on this machine).  It joins the network, makes mount, UTS, IPC, pid
and cgroup namespaces, prints ``{"pid": …}`` once the node is booted, and
dies with whoever started it, as do all processes of the node.

Standard library only: this runs before there is anything else.
"""

import contextlib
import ctypes
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS = 0x00020000, 0x02000000, 0x04000000
CLONE_NEWIPC, CLONE_NEWPID, CLONE_NEWNET = 0x08000000, 0x20000000, 0x40000000
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000
PR_SET_PDEATHSIG = 1

OUTSIDE = Path("/run/outside")
"""Where the machine's own folders stay reachable when a node's stand in front."""

libc = ctypes.CDLL(None, use_errno=True)


def checked(result: int, what: str) -> None:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def mount(source: str, target: str | Path, kind: str = "", flags: int = 0, options: str = "") -> None:
    result = libc.mount(
        source.encode(), str(target).encode(), kind.encode() or None, ctypes.c_ulong(flags), options.encode()
    )
    checked(result, f"mount {source} on {target}")


def bind(source: str | Path, target: str | Path) -> None:
    mount(str(source), target, flags=MS_BIND | MS_REC)


def die_with_parent() -> None:
    parent = os.getppid()
    checked(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")
    if os.getppid() != parent:
        os._exit(1)  # it died before we asked


# -- the node's world ------------------------------------------------------------


def furnish(spec: dict[str, Any]) -> None:
    """Mounts: an empty /run, a /dev with the serial line, /etc and /var/lib with the node's own folders."""
    mount("none", "/", flags=MS_REC | MS_PRIVATE)
    mount("proc", "/proc", "proc")
    bring_own_sys()
    mount("run", "/run", "tmpfs", options="mode=755")
    for folder in ("lock", "outside/dev", "outside/etc", "outside/lib"):
        (Path("/run") / folder).mkdir(parents=True)
    stand_in_front("/dev", OUTSIDE / "dev", leave_out={"ttyS0"})
    if spec["tty"]:
        Path("/dev/ttyS0").symlink_to(spec["tty"])
    keep = Path(spec["keep"])
    stand_in_front("/etc", OUTSIDE / "etc", leave_out={"hostd", "hosts", "hostname"})
    Path("/etc/hostname").write_text(spec["name"] + "\n")
    Path("/etc/hosts").write_text(spec["hosts"])
    stand_in_front("/var/lib", OUTSIDE / "lib", leave_out={"hostd"})
    for folder, own in (("/etc/hostd", keep / "etc"), ("/var/lib/hostd", keep / "state")):
        Path(folder).mkdir()
        bind(own, folder)
    place = Path(spec["shared"])
    mount("srv", place.parent, "tmpfs", options="mode=755")
    place.mkdir()
    checked(libc.sethostname(spec["name"].encode(), len(spec["name"])), "sethostname")


def stand_in_front(folder: str, outside: Path, leave_out: set[str]) -> None:
    """An own copy of a folder's top level that shows the machine's entries by
    links.  Not overlayfs, which not every kernel and not every root file
    system allows; and no empty folder has to be made on the machine itself."""
    bind(folder, outside)
    entries = [entry for entry in outside.iterdir() if entry.name not in leave_out]
    mount("own", folder, "tmpfs", options="mode=755")
    for entry in entries:
        target = entry.readlink() if entry.is_symlink() else entry
        (Path(folder) / entry.name).symlink_to(target)


def bring_own_sys() -> None:
    """/sys shows the network of whoever mounted it, so the node mounts its own."""
    mount("sysfs", "/sys", "sysfs")
    with contextlib.suppress(OSError):  # without cgroup2 here, hostd does with process groups
        mount("cgroup2", "/sys/fs/cgroup", "cgroup2")


# -- the node's cgroup --------------------------------------------------------------


class Cgroup:
    """The node's own piece of the cgroup tree, so that two nodes do not meet there.

    ``tree`` is a folder of the lab on which the whole tree is mounted, seen by
    this process only.
    """

    def __init__(self, name: str, tree: Path) -> None:
        self.tree = tree
        self.own = tree / name

    def make(self) -> bool:
        """False if this kernel or container has no cgroup2 for us."""
        try:
            self.tree.mkdir(exist_ok=True)
            mount("cgroup2", self.tree, "cgroup2")
            self._sweep()
            self.own.mkdir()
        except OSError:
            return False
        return True

    def join(self) -> None:
        """Go in, with all that is forked from here on, and take it for the whole tree."""
        (self.own / "cgroup.procs").write_text("0")
        checked(libc.unshare(CLONE_NEWCGROUP), "unshare(CLONE_NEWCGROUP)")

    def remove(self) -> None:
        """Once the node is dead.  Its last processes may take a moment to go."""
        for _ in range(50):
            with contextlib.suppress(OSError):
                self._remove(self.own)
            if not self.own.exists():
                return
            time.sleep(0.02)

    def _sweep(self) -> None:
        """Remove what labs that were killed outright have left: their folder is gone.

        Nodes of other labs, and our own other one, may be booting right now.
        """
        labs = self.tree.parents[2]
        for stale in self.tree.glob("hostd-lab-*"):
            with contextlib.suppress(OSError):
                if not (labs / stale.name.rsplit("-", 1)[0]).exists():
                    self._remove(stale)

    def _remove(self, folder: Path) -> None:
        for below in sorted(folder.rglob("*"), key=lambda path: -len(path.parts)):
            if below.is_dir():
                below.rmdir()
        folder.rmdir()


# -- process 1 --------------------------------------------------------------------


def reap_for_ever() -> NoReturn:
    """What an init does when nothing is asked of it."""
    awaited = {signal.SIGCHLD}
    signal.pthread_sigmask(signal.SIG_BLOCK, awaited)
    while True:
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        signal.sigwait(awaited)


def first_process(spec: dict[str, Any], tell: int, cgroup: Cgroup | None) -> NoReturn:
    die_with_parent()
    os.setsid()
    if cgroup:
        cgroup.join()
    checked(libc.unshare(CLONE_NEWNS), "unshare(CLONE_NEWNS)")  # the parent's view stays as it is
    if cgroup:
        checked(libc.umount2(str(cgroup.tree).encode(), 0), "umount of the cgroup tree")
    furnish(spec)
    os.chdir("/")
    os.write(tell, b"booted")
    os.close(tell)
    reap_for_ever()


def main() -> int:
    spec = json.loads(sys.argv[1])
    die_with_parent()
    network = os.open(spec["network"], os.O_RDONLY)
    checked(libc.setns(network, CLONE_NEWNET), "setns")
    os.close(network)
    checked(libc.unshare(CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID), "unshare")
    mount("none", "/", flags=MS_REC | MS_PRIVATE)
    cgroup = Cgroup(spec["cgroup"], Path(spec["keep"]) / "cgroup")
    has_cgroup = cgroup.make()
    booted, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(booted)
        first_process(spec, tell, cgroup if has_cgroup else None)
    os.close(tell)
    if os.read(booted, 16) == b"booted":
        print(json.dumps({"pid": pid, "cgroup": has_cgroup}), flush=True)
    status = os.waitpid(pid, 0)[1]
    if has_cgroup:
        cgroup.remove()
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main())
