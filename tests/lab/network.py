"""Network namespaces held by file descriptors, and what is done inside them.

Decides how the lab reaches into a network of its own: a namespace lives as
long as its descriptor and the processes in it, so when this process dies, by
whatever death, nothing is left on the machine.  Knows nothing of nodes.
"""

import array
import contextlib
import ctypes
import fcntl
import os
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator, Sequence

CLONE_NEWNET = 0x40000000
SIOCGIFFLAGS, SIOCSIFFLAGS, SIOCETHTOOL = 0x8913, 0x8914, 0x8946
ETHTOOL_GLINK = 0x0A
IFF_UP = 0x1

libc = ctypes.CDLL(None, use_errno=True)


def checked(result: int, what: str) -> None:
    """The C library's -1 as an OSError."""
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


class Network:
    """One network namespace.  Not even loopback is up in a new one."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._controls: socket.socket | None = None

    @classmethod
    def new(cls) -> "Network":
        """An empty one.  Made in a thread that ends, since a thread cannot
        leave a namespace without another one to go to."""
        made: list[int] = []

        def make() -> None:
            checked(libc.unshare(CLONE_NEWNET), "unshare(CLONE_NEWNET)")
            made.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))

        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        if not made:
            raise OSError("no network namespace could be made: this needs root (CAP_SYS_ADMIN)")
        return cls(made[0])

    @property
    def path(self) -> str:
        """Its name for other processes, valid while this process holds it."""
        return f"/proc/{os.getpid()}/fd/{self.descriptor}"

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """This thread is inside; sockets opened in the block stay inside for life."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            checked(libc.setns(self.descriptor, CLONE_NEWNET), "setns")
            try:
                yield
            finally:
                checked(libc.setns(home, CLONE_NEWNET), "setns back")
        finally:
            os.close(home)

    def run(self, argv: Sequence[str], *, stdin: str | None = None) -> str:
        """Run a command inside; its output.  A failure shows what it said."""
        done = subprocess.run(
            ["nsenter", f"--net={self.path}", "--", *argv],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(argv)} failed ({done.returncode}): {done.stderr}\n{stdin or ''}")
        return done.stdout

    def ip(self, *lines: str) -> None:
        """Run lines of ``ip`` in one batch."""
        self.run(["ip", "-batch", "-"], stdin="\n".join(lines) + "\n")

    def nft(self, rules: str) -> None:
        """Load nftables rules."""
        self.run(["nft", "-f", "-"], stdin=rules)

    def sysctl(self, key: str, value: str) -> None:
        """Set a setting of this namespace; the machine's own are untouched."""
        # /proc/sys/net shows the namespace of the thread that opens it
        with self.entered(), open(f"/proc/sys/net/{key}", "w") as setting:
            setting.write(value)

    def set_link(self, interface: str, *, up: bool) -> None:
        """Set an interface up or down at once, without starting a process."""
        flags = self._flags(interface)
        wanted = flags | IFF_UP if up else flags & ~IFF_UP
        fcntl.ioctl(self._control, SIOCSIFFLAGS, struct.pack("16sH14x", interface.encode(), wanted))

    def has_carrier(self, interface: str) -> bool:
        """Is the interface up with a living other end?  Asked of the driver, since
        the flags of the interface follow it up to a second later."""
        answer = array.array("I", [ETHTOOL_GLINK, 0])
        request = struct.pack("16sP", interface.encode(), answer.buffer_info()[0])
        fcntl.ioctl(self._control, SIOCETHTOOL, request)
        return bool(answer[1])

    def _flags(self, interface: str) -> int:
        answer = fcntl.ioctl(self._control, SIOCGIFFLAGS, struct.pack("16sH14x", interface.encode(), 0))
        flags: int = struct.unpack("16sH14x", answer)[1]
        return flags

    @property
    def _control(self) -> socket.socket:
        if self._controls is None:
            with self.entered():
                self._controls = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        return self._controls

    def close(self) -> None:
        """Let go; the namespace ends with the last process in it."""
        if self._controls is not None:
            self._controls.close()
            self._controls = None
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
