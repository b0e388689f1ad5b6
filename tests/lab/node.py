"""A node: a machine with power, two network cards and a serial port.

Decides what switching on and off means here.  Power off: every process is
gone and every carrier dropped at once, as with a dead kernel.  Power on: a
fresh boot, with an empty /run and a new network stack; /etc/hostd and
/var/lib/hostd are kept.  Killing hostd is something else, and so is stopping
all processes while the kernel lives.
"""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.lab.environment import ROOT, VENV
from tests.lab.names import (
    CLIENT,
    CROSSOVER_PREFIX,
    CYRUS_ADDRESS,
    GATEWAY,
    LAN6_PREFIX,
    LAN_PREFIX,
    LDAP_ADDRESS,
    MYSQL_ADDRESS,
    NODES,
    OBSERVER,
    SHARED,
    WEB_ADDRESS,
    NodePlace,
)
from tests.lab.network import Network

HOSTS = "127.0.0.1 localhost\n::1 localhost\n" + "".join(
    f"{address} {name}\n"
    for name, address in (
        *((station.name, station.address) for station in (*NODES, GATEWAY, CLIENT, OBSERVER)),
        ("mysql", MYSQL_ADDRESS),
        ("ldap", LDAP_ADDRESS),
        ("cyrus", CYRUS_ADDRESS),
        ("web", WEB_ADDRESS),
    )
)
"""Who is who, for servers that look up their clients' names: there is no name server here to be waited for."""


class Node:
    """One of the two machines.  Cables belong to the lab, which calls ``boot`` and ``die``."""

    def __init__(self, place: NodePlace, folder: Path, lab_name: str, tty: str) -> None:
        self.place = place
        self.name = place.name
        self.folder = folder
        self.network: Network | None = None
        self.pid = 0
        """Process 1 of the node, as the machine numbers it; 0 without power."""
        self._tty = tty
        self._cgroup = f"{lab_name}-{place.name}"
        self._init: subprocess.Popen[str] | None = None
        self._started: list[subprocess.Popen[str]] = []
        self._undertakers: list[subprocess.Popen[str]] = []
        self._boots = 0
        for kept in ("etc", "state"):
            (folder / kept).mkdir(parents=True, exist_ok=True)

    # -- power ------------------------------------------------------------------

    @property
    def is_on(self) -> bool:
        return self.pid != 0

    @property
    def config(self) -> Path:
        """The node's /etc/hostd, as seen from outside."""
        return self.folder / "etc"

    @property
    def log(self) -> Path:
        """What its hostd has printed, over all boots."""
        return self.folder / "hostd.log"

    def boot(self, network: Network) -> None:
        """Begin to boot into this network; ``booted`` waits for it."""
        assert not self.is_on, f"{self.name} has power already"
        self.network = network
        self._boots += 1
        spec = {
            "network": network.path,
            "name": self.name,
            "keep": str(self.folder),
            "tty": self._tty,
            "hosts": HOSTS,
            "shared": SHARED,
            "cgroup": f"{self._cgroup}.{self._boots}",
        }
        self._init = subprocess.Popen(
            [sys.executable, "-I", "-S", str(Path(__file__).with_name("init.py")), json.dumps(spec)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )

    def booted(self) -> None:
        """Wait for process 1 and do what boot scripts do: addresses and routes."""
        assert self._init and self._init.stdout and self.network
        line = self._init.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} did not boot: exit code {self._init.wait()}")
        self.pid = json.loads(line)["pid"]
        place = self.place
        self.network.ip(
            "link set lo up",
            f"addr add {place.address}/{LAN_PREFIX} dev eth0",
            f"addr add {place.address6}/{LAN6_PREFIX} dev eth0 nodad",
            f"addr add {place.crossover}/{CROSSOVER_PREFIX} dev eth1",
            "link set eth0 up",
            "link set eth1 up",
            f"route add default via {GATEWAY.address}",
        )

    def die(self) -> None:
        """Every process ends at once.  The lab has dropped the carriers before."""
        if self._init is None:
            return
        if self.pid:
            self._kill_and_wait(self.pid)
        else:
            self._init.kill()
        for process in self._started:
            process.wait(10)
        self._started.clear()
        # what started it goes on to remove the node's cgroup; nobody needs to wait for that
        self._undertakers.append(self._init)
        self._init, self.pid = None, 0

    def _kill_and_wait(self, pid: int) -> None:
        """Process 1 is dead when, and only when, every other process of the node is."""
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        try:
            signal.pidfd_send_signal(handle, signal.SIGKILL)
            for process in self._started:
                # an nsenter whose child was stopped has stopped as well, and is needed to reap it
                process.send_signal(signal.SIGCONT)
            if not select.select([handle], [], [], 10)[0]:
                raise RuntimeError(f"{self.name}: its processes did not die")
        except ProcessLookupError:
            pass  # it was dead already
        finally:
            os.close(handle)

    def scrap(self) -> None:
        """Nothing of this boot is left, its network stack neither."""
        self.die()
        if self.network:
            self.network.close()
            self.network = None

    def clear_away(self) -> None:
        """At the end of the lab: wait for what is still clearing away."""
        self.scrap()
        for process in self._undertakers:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout:
                process.stdout.close()
        self._undertakers.clear()

    # -- running things -----------------------------------------------------------

    def command(self, argv: Sequence[str]) -> list[str]:
        """The command line that runs ``argv`` inside this node."""
        assert self.is_on, f"{self.name} has no power"
        namespaces = ["--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup"]
        # nsenter enters the cgroup namespace, but leaves the process in its old cgroup
        join = ["sh", "-c", '{ echo 0 > /sys/fs/cgroup/cgroup.procs; } 2>/dev/null; exec "$@"', "sh"]
        return ["nsenter", f"--target={self.pid}", *namespaces, "--wd=/", "--", *join, *argv]

    def run(
        self, *argv: str, check: bool = True, timeout: float = 30, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end.  ``check``: a failure is an error that shows what it said."""
        done = subprocess.run(
            self.command(argv),
            capture_output=True,
            text=True,
            timeout=timeout,
            input=stdin,
            env=self.environment(),
            check=False,
        )
        if check and done.returncode != 0:
            said = (done.stdout + done.stderr).strip()
            raise RuntimeError(f"{self.name}: {' '.join(argv)} ended with {done.returncode}: {said}")
        return done

    def hostd(self, *argv: str, check: bool = True, timeout: float = 30) -> subprocess.CompletedProcess[str]:
        """Run the operator's command ``hostd``."""
        return self.run(str(VENV / "bin/python"), "-m", "hostd.commands.main", *argv, check=check, timeout=timeout)

    def start(self, *argv: str, log: Path) -> int:
        """Start a program that stays; its process id as the machine numbers it.

        It ends when the node loses power.
        """
        with log.open("ab") as output:
            process = subprocess.Popen(
                self.command(argv),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                text=True,
                env=self.environment(),
                start_new_session=True,  # Ctrl-C is for the test, not for the node
            )
        self._started.append(process)
        return self._child_of(process)

    def start_hostd(self, *options: str) -> int:
        """Start the daemon; the process id of its host."""
        return self.start(str(VENV / "bin/python"), "-m", "hostd.commands.main", "run", *options, log=self.log)

    def _child_of(self, process: "subprocess.Popen[str]") -> int:
        """nsenter forks into the pid namespace: the one that we want is its child."""
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        for _ in range(500):
            with contextlib.suppress(OSError):
                if found := children.read_text().split():
                    return int(found[0])
            if process.poll() is not None:
                raise RuntimeError(f"{self.name}: it ended at once with {process.returncode}")
            time.sleep(0.01)
        raise RuntimeError(f"{self.name}: nsenter started nothing")

    def environment(self) -> Mapping[str, str]:
        """As after a boot: nothing of the test's own, but the checkout's hostd."""
        return {
            "PATH": f"{VENV / 'bin'}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "LANG": "C.UTF-8",
            "TERM": os.environ.get("TERM", "dumb"),
        }

    # -- its processes ---------------------------------------------------------------

    def processes(self) -> list[int]:
        """All processes of the node but its first, as the machine numbers them."""
        if not self.is_on:
            return []
        mine = Path(f"/proc/{self.pid}/ns/pid").readlink()
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if (entry / "ns/pid").readlink() == mine and int(entry.name) != self.pid:
                    found.append(int(entry.name))
        return sorted(found)

    def hostd_tree(self) -> list[int]:
        """hostd's processes (host, heart, brain, actions under way), services excepted."""
        return [pid for pid in self.processes() if b"hostd.commands.main\0run" in command_line(pid)]

    def signal(self, pids: Sequence[int], number: signal.Signals) -> None:
        """Send a signal to each that still lives."""
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def freeze(self) -> None:
        """Stop all userland at once; the kernel lives on and answers ARP."""
        self.signal(self.processes(), signal.SIGSTOP)

    def thaw(self) -> None:
        self.signal(self.processes(), signal.SIGCONT)

    def addresses(self) -> set[str]:
        """The addresses on its LAN interface, without prefix lengths."""
        assert self.network
        shown = json.loads(self.network.run(["ip", "-json", "addr", "show", "dev", "eth0"]))
        return {info["local"] for entry in shown for info in entry["addr_info"]}


def command_line(pid: int) -> bytes:
    """Empty for a process that is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
