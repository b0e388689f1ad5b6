"""Real hearts for the tests of this folder: forked processes on a veth cable and
a serial cable, with the test in the place of host and brain."""

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from hostd import heart, messages
from hostd.api import Link, LinkSettings
from hostd.clock import now_ms
from hostd.core import wire
from hostd.core.plan import Timers
from hostd.core.terms import Incarnation
from plugins import serial, udp
from tests.edge.namespaces import Lan, Machine, inside

NODES = ("alpha", "beta")
KEY = bytes(range(32))
CLUSTER = wire.Cluster("test", NODES, (KEY,))
BETA = Incarnation(1, 9)
TIMERS = Timers(keepalive_ms=50, warntime_ms=250, deadtime_ms=2_000)
Kind = TypeVar("Kind", bound=messages.Message)


def open_link(settings: LinkSettings) -> Link | None:
    """What the registry does; type "odd" is a plugin with a bug."""
    if settings.type == "odd":
        raise ZeroDivisionError("an odd plugin")
    return udp.open_link(settings) or serial.open_link(settings)


def udp_link(node: str, *, keepalive_ms: int = TIMERS.keepalive_ms) -> LinkSettings:
    own, peer = ("192.168.1.1", "192.168.1.2") if node == NODES[0] else ("192.168.1.2", "192.168.1.1")
    return LinkSettings(
        "lan", "udp", node, _other(node), "test", keepalive_ms,
        {"interface": "eth0", "address": own, "peer_address": peer},
    )  # fmt: skip


def serial_link(
    node: str, device: str, *, baud: int = 115_200, keepalive_ms: int = TIMERS.keepalive_ms
) -> LinkSettings:
    return LinkSettings("cable", "serial", node, _other(node), "test", keepalive_ms, {"device": device, "baud": baud})


def _other(node: str) -> str:
    return NODES[1 - NODES.index(node)]


class Brain:
    """The test's end of the socket to one heart, and all that the heart has said on it."""

    def __init__(self, end: socket.socket) -> None:
        self.end = end
        self.heard: list[messages.AnyMessage] = []

    def say(self, *said: messages.AnyMessage) -> None:
        for message in said:
            assert messages.send(self.end, message), message

    def listen(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while (received := messages.receive(self.end)) is not None:
                self.heard.append(received[0])

    def all(self, kind: type[Kind]) -> list[Kind]:
        self.listen()
        return [message for message in self.heard if isinstance(message, kind)]

    def beats(self, link: str | None = None) -> list[messages.FrameHeard]:
        return [beat for beat in self.all(messages.FrameHeard) if link in (None, beat.link)]


class Node:
    """One heart, forked into the namespace of ``machine``."""

    def __init__(self, machine: Machine, node: str, links: list[LinkSettings], **changed: object) -> None:
        self.node = node
        self.links = links
        self.boot = 1
        self.brain: Brain | None = None
        self.hands, other_hands = messages.pair()
        given = {
            "cluster": "test", "node": node, "nodes": NODES, "keys": (KEY,), "timers": TIMERS,
            "links": tuple(links), "host_pid": os.getpid(), **changed,
        }  # fmt: skip
        settings = heart.HeartSettings(**given)  # type: ignore[arg-type]
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                self.hands.close()
                with inside(machine.name):
                    code = heart.run(settings, open_link, other_hands, None)
            finally:
                os._exit(code)
        other_hands.close()

    def fork_brain(self) -> Brain:
        """What the host does when it forks a brain."""
        ours, theirs = messages.pair()
        assert messages.send(self.hands, messages.BrainForked(0), [theirs.fileno()])
        theirs.close()
        self.brain = Brain(ours)
        return self.brain

    def wake(self, version: int = 0, body: bytes = b"") -> Brain:
        """A new brain in a new incarnation."""
        brain = self.fork_brain()
        brain.say(messages.Identify(self.incarnation), messages.Renew())
        if version:
            brain.say(messages.Carry(version, body))
        return brain

    @property
    def incarnation(self) -> Incarnation:
        return Incarnation(self.boot, 7)

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
        self.hands.close()
        if self.brain is not None:
            self.brain.end.close()


class Pair:
    """Two machines on one LAN and the hearts on them."""

    def __init__(self) -> None:
        self.lan = Lan("heart")
        self.machines = {
            "alpha": self.lan.machine("a", "192.168.1.1/24"),
            "beta": self.lan.machine("b", "192.168.1.2/24"),
        }
        self.nodes: list[Node] = []

    def heart(self, node: str, links: list[LinkSettings], **changed: object) -> Node:
        made = Node(self.machines[node], node, links, **changed)
        self.nodes.append(made)
        return made

    def until(self, claim: Callable[[], bool], what: str, seconds: float = 10) -> None:
        """Renew every brain until ``claim`` holds."""
        end = time.monotonic() + seconds
        while not claim():
            assert time.monotonic() < end, what
            self.pass_time(0.02)

    def pass_time(self, seconds: float) -> None:
        """Let hearts beat, their brains being well."""
        end = time.monotonic() + seconds
        while True:
            for node in self.nodes:
                if node.brain is not None and node.brain.end.fileno() >= 0:
                    messages.send(node.brain.end, messages.Renew(hears=0))
                    node.brain.listen()
            left = end - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, 0.05))

    def close(self) -> None:
        for node in self.nodes:
            node.end()
        self.lan.close()


class Puppet:
    """The test in the place of beta: reads every frame of alpha's heart, and sends what it likes."""

    def __init__(self, machine: Machine, cluster: wire.Cluster = CLUSTER, life: Incarnation = BETA) -> None:
        with inside(machine.name):
            self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.socket.bind(("192.168.1.2", 694))
        self.sealer = wire.Sealer(cluster, "beta", life, wire.Salt(1, bytes(6)))
        self.opener = wire.Opener(cluster, "alpha")
        self.frames: list[tuple[int, wire.Frame]] = []
        """When, what: all that came, as it was."""

    def send(self, frame: bytes) -> None:
        self.socket.sendto(frame, ("192.168.1.1", 694))

    def beat(self, beat: wire.Heartbeat | None = None) -> None:
        """A beat that echoes what it heard, unless another is given."""
        self.send(self.sealer.seal(beat or wire.Heartbeat(1, echo=self.opener.newest)))

    def listen(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                frame = self.opener.open(self.socket.recv(2_048), "lan")
                assert isinstance(frame, wire.Frame), frame
                self.frames.append((now_ms(), frame))

    def beats(self) -> list[wire.Heartbeat]:
        """All beats so far."""
        self.listen()
        return [frame.payload for _, frame in self.frames if isinstance(frame.payload, wire.Heartbeat)]

    @property
    def newest(self) -> wire.Stamp:
        self.listen()
        return self.opener.newest

    def parts(self) -> list[wire.Part]:
        self.listen()
        return [frame.payload for _, frame in self.frames if isinstance(frame.payload, wire.Part)]

    def forget(self) -> None:
        """Only what comes from now on."""
        self.listen()
        self.frames.clear()


@contextlib.contextmanager
def pair() -> Iterator[Pair]:
    made = Pair()
    try:
        yield made
    finally:
        made.close()


__all__ = [
    "BETA",
    "CLUSTER",
    "KEY",
    "NODES",
    "TIMERS",
    "Brain",
    "Node",
    "Pair",
    "Puppet",
    "now_ms",
    "pair",
    "serial_link",
    "udp_link",
]
