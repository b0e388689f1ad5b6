"""A LAN of network namespaces for the tests of this folder: a switch and machines on it.

Everything is made and deleted here; traffic never leaves the namespaces.
"""

import contextlib
import ctypes
import os
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)
_made = 0


def ip(*words: str, check: bool = True) -> str:
    """Run ``ip`` from iproute2, which shares no code with what is tested."""
    done = subprocess.run(["ip", *words], check=False, capture_output=True, text=True)
    if check:
        assert done.returncode == 0, (words, done.stderr)
    return done.stdout


@contextlib.contextmanager
def inside(namespace: str) -> Iterator[None]:
    """Sockets that this thread makes meanwhile live in ``namespace`` for ever."""
    with Path("/proc/thread-self/ns/net").open() as home, Path(f"/run/netns/{namespace}").open() as there:
        assert _libc.setns(there.fileno(), _CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        try:
            yield
        finally:
            assert _libc.setns(home.fileno(), _CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())


class Machine:
    """A namespace with one cable (eth0) into a switch."""

    def __init__(self, name: str, port: str, switch: str) -> None:
        self.name, self.port, self.switch = name, port, switch

    def ip(self, *words: str, check: bool = True) -> str:
        return ip("-n", self.name, *words, check=check)

    def run(self, *argv: str, check: bool = True) -> str:
        done = subprocess.run(["ip", "netns", "exec", self.name, *argv], check=False, capture_output=True, text=True)
        if check:
            assert done.returncode == 0, (argv, done.stderr)
        return done.stdout

    @property
    def station(self) -> str:
        return self.ip("-o", "link", "show", "eth0").split("link/ether ")[1].split()[0]

    def ping(self, address: str, timeout_s: float = 1.0) -> bool:
        """Does ``address`` answer this machine?"""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        protocol, request, reply, start = (58, 128, 129, 0) if ":" in address else (1, 8, 0, 20)
        with inside(self.name):
            probe = socket.socket(family, socket.SOCK_RAW, protocol)
        with probe:
            checksum = ~((request << 8) + 7) & 0xFFFF  # of type, code 0, identifier 7, sequence 0
            deadline = time.monotonic() + timeout_s
            try:
                probe.sendto(struct.pack("!BBHHH", request, 0, checksum, 7, 0), (address, 0))
                while (left_s := deadline - time.monotonic()) > 0:
                    probe.settimeout(left_s)
                    packet, source = probe.recvfrom(2048)
                    if source[0] == address and packet[start] == reply:
                        return True
            except OSError:  # TimeoutError is one: nobody answers, or nobody has it
                return False
        return False

    def unplug(self) -> None:
        ip("-n", self.switch, "link", "set", self.port, "down")

    def plug(self) -> None:
        ip("-n", self.switch, "link", "set", self.port, "up")

    def neighbour(self, address: str) -> str:
        """The station that its kernel sends to for ``address``, or empty."""
        words = self.ip("neigh", "show", address, "dev", "eth0").split()
        return words[words.index("lladdr") + 1] if "lladdr" in words else ""

    def has(self, address: str) -> bool:
        return f" {address}/" in self.ip("-o", "addr", "show", "to", address)


class Lan:
    """A switch, and the machines on it."""

    def __init__(self, tag: str) -> None:
        global _made
        _made += 1
        self._tag = f"{tag}{os.getpid()}-{_made}"
        self._namespaces: list[str] = []
        self._ports = 0
        self.switch = self._namespace("sw")
        ip("-n", self.switch, "link", "add", "br0", "type", "bridge", "mcast_snooping", "0", "forward_delay", "0")
        ip("-n", self.switch, "link", "set", "br0", "up")

    def _namespace(self, name: str) -> str:
        full = f"{self._tag}-{name}"
        ip("netns", "add", full)
        self._namespaces.append(full)
        ip("-n", full, "link", "set", "lo", "up")
        return full

    def machine(self, name: str, *addresses: str) -> Machine:
        namespace = self._namespace(name)
        self._ports += 1
        machine = Machine(namespace, f"port{self._ports}", self.switch)
        self.cable(machine, "eth0", machine.port)
        for address in addresses:
            words = ["nodad"] if ":" in address else []
            machine.ip("addr", "add", address, "dev", "eth0", *words)
        return machine

    def cable(self, machine: Machine, name: str, port: str) -> None:
        """One more interface for a machine."""
        ip("-n", self.switch, "link", "add", port, "type", "veth", "peer", "name", name, "netns", machine.name)
        machine.ip("link", "set", name, "addrgenmode", "none")  # no link-local address that takes 2 s to settle
        ip("-n", self.switch, "link", "set", port, "master", "br0", "up")
        machine.ip("link", "set", name, "up")

    def close(self) -> None:
        for namespace in self._namespaces:
            ip("netns", "del", namespace, check=False)
