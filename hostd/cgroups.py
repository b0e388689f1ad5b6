"""Which processes belong to a service, and to one action on it.

Decides where the processes of a resource are counted and killed.  With
cgroup v2: one cgroup per resource under that of its service, and one inside
it for each running action, whose daemons move up when the action has ended.
Without: sessions, and a mark in the environment that commands inherit.  It
does not decide when to kill.

    BASE/service-web/resource-httpd/           daemons
    BASE/service-web/resource-httpd/action-…   one running action

No controller is enabled, so processes may stay in inner cgroups.
"""

import contextlib
import hashlib
import logging
import os
import subprocess
from pathlib import Path
from typing import Final, Protocol

from hostd import processes
from hostd.processes import Process
from hostd.records import file_name

log = logging.getLogger("hostd.cgroups")

ROUNDS_MAX: Final = 50
"""How often a group that forks while it is killed or moved is gone through."""

ACTION_MARK: Final = "HOSTD_ACTION"
RESOURCE_MARK: Final = "HOSTD_RESOURCE"


class Place:
    """Where one action and what it starts are found again."""

    def __init__(self, service: str, resource: str, token: str, cgroup: str = "") -> None:
        self.service, self.resource, self.token, self.cgroup = service, resource, token, cgroup


class Groups(Protocol):
    """The two ways to tell whose a process is."""

    description: str
    """Which way, for the log."""

    def open(self, service: str, resource: str, token: str) -> Place:
        """Make the place for one action; called in the host before the fork."""
        ...

    def enter(self, place: Place) -> None:
        """Called first of all in the child that runs the action."""
        ...

    def in_action(self, place: Place, session: int) -> list[Process]:
        """The living processes of one action, daemons that it started included."""
        ...

    def in_resource(self, service: str, resource: str) -> list[Process]:
        """The living processes of a resource, its running actions included."""
        ...

    def kill(self, place: Place, session: int, *, daemons: bool) -> None:
        """SIGKILL for the action's own processes (of its session), with
        ``daemons`` for all that it started."""
        ...

    def close(self, place: Place) -> None:
        """The action has ended: what it left running belongs to the resource."""
        ...

    def tidy(self) -> None:
        """Remove what is empty."""
        ...


class Cgroups:
    """cgroup v2: nothing escapes by forking, and one write kills all."""

    def __init__(self, base: Path, own_mount: Path | None = None) -> None:
        """``own_mount``: where we mounted the hierarchy ourselves, to be undone at the end."""
        self.base = base
        self.description = f"cgroup v2 at {base}"
        self._own_mount = own_mount

    def open(self, service: str, resource: str, token: str) -> Place:
        cgroup = self._of_resource(service, resource) / f"action-{token}"
        cgroup.mkdir(parents=True, exist_ok=True)
        return Place(service, resource, token, str(cgroup))

    def enter(self, place: Place) -> None:
        processes.put(f"{place.cgroup}/cgroup.procs", b"0")

    def in_action(self, place: Place, session: int) -> list[Process]:
        return _members(Path(place.cgroup))

    def in_resource(self, service: str, resource: str) -> list[Process]:
        top = self._of_resource(service, resource)
        return [process for folder, _, _ in os.walk(top) for process in _members(Path(folder))]

    def kill(self, place: Place, session: int, *, daemons: bool) -> None:
        cgroup = Path(place.cgroup)
        if daemons:
            with contextlib.suppress(OSError):  # before Linux 5.14 there is no such file: one by one, below
                (cgroup / "cgroup.kill").write_text("1")
                return
        for _ in range(ROUNDS_MAX):
            victims = [p for p in _members(cgroup) if daemons or p.session == session]
            if not victims or all(p.state == "D" for p in victims):
                return
            for process in victims:
                processes.kill(process)

    def close(self, place: Place) -> None:
        cgroup = Path(place.cgroup)
        for _ in range(ROUNDS_MAX):
            pids = _pids(cgroup)
            for pid in pids:
                with contextlib.suppress(OSError):  # it ended meanwhile
                    (cgroup.parent / "cgroup.procs").write_text(str(pid))
            if not pids:
                break
        with contextlib.suppress(OSError):  # busy, and so are those above: it holds daemons, or an unkillable action
            for folder in (cgroup, cgroup.parent, cgroup.parent.parent):
                folder.rmdir()

    def tidy(self) -> None:
        for folder, _, _ in os.walk(self.base, topdown=False):
            with contextlib.suppress(OSError):  # busy
                Path(folder).rmdir()
        if self._own_mount is not None:  # the groups themselves stay: a new mount shows them again
            subprocess.run(["umount", str(self._own_mount)], capture_output=True, timeout=10, check=False)

    def _of_resource(self, service: str, resource: str) -> Path:
        return self.base / f"service-{file_name(service)}" / f"resource-{file_name(resource)}"


class Marks:
    """Sessions and environments: for a machine without a cgroup v2 that we may write.

    NB: a daemon that was forked without exec into a session of its own, or
    that overwrites its environment, is not found.
    """

    description = "sessions and marks in the environment (no writable cgroup v2 here)"

    def __init__(self, instance: str) -> None:
        self._instance = instance

    def open(self, service: str, resource: str, token: str) -> Place:
        return Place(service, resource, token)

    def enter(self, place: Place) -> None:
        os.environ[ACTION_MARK] = place.token
        os.environ[RESOURCE_MARK] = self._of_resource(place.service, place.resource)

    def in_action(self, place: Place, session: int) -> list[Process]:
        mark = f"{ACTION_MARK}={place.token}"
        return [p for p in processes.everyone() if p.is_alive and (p.session == session or _marked(p, mark))]

    def in_resource(self, service: str, resource: str) -> list[Process]:
        mark = f"{RESOURCE_MARK}={self._of_resource(service, resource)}"
        return [p for p in processes.everyone() if p.is_alive and _marked(p, mark)]

    def kill(self, place: Place, session: int, *, daemons: bool) -> None:
        for _ in range(ROUNDS_MAX):
            victims = [p for p in self.in_action(place, session) if daemons or p.session == session]
            if not victims or all(p.state == "D" for p in victims):
                return
            for process in victims:
                processes.kill(process)

    def close(self, place: Place) -> None:
        pass

    def tidy(self) -> None:
        pass

    def _of_resource(self, service: str, resource: str) -> str:
        return f"{self._instance}/{file_name(service, resource)}"


def choose(node: str, runtime: Path) -> Groups:
    """The best way that this machine offers.

    The name holds node, runtime directory and pid namespace, so that two
    hosts on one machine (containers, tests) never count or kill each
    other's, and a restarted host finds its own again.
    """
    place = f"{runtime.resolve()} {Path('/proc/self/ns/pid').readlink()}"
    instance = f"hostd-{file_name(node)}-{hashlib.blake2b(place.encode(), digest_size=4).hexdigest()}"
    own_mount = None
    parent = _existing()
    if parent is None:
        parent = own_mount = _mount(runtime / "cgroup")
    if parent is not None:
        base = parent / instance
        try:
            base.mkdir(exist_ok=True)
            if os.access(base / "cgroup.procs", os.W_OK):
                return Cgroups(base, own_mount)
        except OSError as error:
            log.warning("no cgroup of our own at %s: %s", base, error.strerror)
    return Marks(instance)


def _mounts() -> list[Path]:
    """Where cgroup v2 is mounted writable."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        mount, _, source = line.partition(" - ")
        fields = mount.split()
        if source.split()[0] == "cgroup2" and "rw" in fields[5].split(","):
            found.append(Path(fields[4]))
    return found


def _existing() -> Path | None:
    """The cgroup that systemd gave us to keep (Delegate=yes), else the root of what is mounted."""
    for mount in _mounts():
        own = next((e[3:] for e in Path("/proc/self/cgroup").read_text().splitlines() if e.startswith("0::")), "/")
        cgroup = mount / own.lstrip("/")
        for attribute in ("trusted.delegate", "user.delegate"):
            with contextlib.suppress(OSError):
                if os.getxattr(cgroup, attribute) == b"1":
                    return cgroup
        if os.access(mount / "cgroup.procs", os.W_OK):  # not so where another mount covers this one
            return mount
    return None


def _mount(target: Path) -> Path | None:
    """A mount of cgroup v2 of our own, on a machine that has version 1 only."""
    try:
        target.mkdir(mode=0o700, parents=True, exist_ok=True)
        done = subprocess.run(
            ["mount", "-t", "cgroup2", "hostd", str(target)], capture_output=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return target if done.returncode == 0 else None


def _pids(cgroup: Path) -> list[int]:
    try:
        with open(f"{cgroup}/cgroup.procs", "rb", buffering=0) as file:
            return [int(line) for line in file.read().split()]
    except OSError:
        return []


def _members(cgroup: Path) -> list[Process]:
    found = (processes.look(pid) for pid in _pids(cgroup))
    return [process for process in found if process is not None and process.is_alive]


def _marked(process: Process, mark: str) -> bool:
    try:
        environment = Path(f"/proc/{process.pid}/environ").read_bytes()
    except OSError:
        return False
    return mark.encode() in environment.split(b"\0")
