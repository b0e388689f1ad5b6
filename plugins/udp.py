"""The heartbeat over Ethernet: ``[[heartbeat.link]] type = "udp"``.

Decides how datagrams leave and arrive on one interface, whatever happens to
it: taken away, given back under the same name, without its address, behind a
packet filter.  Refuses to know what a frame says.

The socket is bound to its interface (SO_BINDTODEVICE): a heartbeat that
moved to another card when its own went away would hide the loss.
"""

import contextlib
import errno
import fcntl
import ipaddress
import os
import socket
import struct
from pathlib import Path
from typing import Any, Final

import msgspec

from hostd.api import REQUIRED, Carrier, ConfigError, Field, Link, LinkSettings, Parameters, hookimpl

PORT: Final = 694
"""IANA's ha-cluster."""
MTU: Final = 1_200
"""Passes unfragmented through tunnels and VLANs (IPv6 guarantees 1280)."""
DATAGRAM_MAX: Final = 2_048
DATAGRAMS_MAX: Final = 512
"""Per wake-up: more than a socket buffer of the default size holds, so a wake-up
after a pause drains all, and a flood cannot hold up the beats."""
BURST: Final = 1_024
FAILURES_MAX: Final = 3
"""A link whose sends fail so often in a row is not usable; one success heals it."""
REOPEN_FIRST_MS: Final = 100
REOPEN_MAX_MS: Final = 1_000
GROUP: Final = "239.255.6.94"
"""The default group: administratively scoped (RFC 2365)."""
TOS_CONTROL: Final = 0xC0
"""Class selector 6: routers and queues treat it as network control."""

SIOCGIFFLAGS: Final = 0x8913
SIOCGIFINDEX: Final = 0x8933
IFF_RUNNING: Final = 0x40

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


@hookimpl
def link_types() -> dict[str, Parameters]:
    return {
        "udp": Parameters(
            Field("interface", str, default=REQUIRED, help="the network interface, for example eth1"),
            Field("mode", str, default="unicast", choices=["unicast", "broadcast", "multicast"],
                  help="how the other node is reached"),
            Field("address", str, default=None,
                  help="this node's IP address on the interface, as a table of both nodes (unicast)"),
            Field("port", int, default=PORT, help="UDP port, the same on both nodes"),
            Field("group", str, default=GROUP, help="multicast group, IPv4 or IPv6"),
            Field("ttl", int, default=1, help="how many routers a multicast may pass, and one more"),
            summary="a crossover cable or a LAN",
        )
    }  # fmt: skip


@hookimpl
def open_link(settings: LinkSettings) -> Link | None:
    if settings.type != "udp":
        return None
    return UdpLink(route_of(settings), settings.keepalive_ms)


@hookimpl
def check_link(settings: LinkSettings) -> list[str] | None:
    if settings.type != "udp":
        return None
    try:
        route = route_of(settings)
    except ConfigError as error:
        return [str(error)]
    try:
        socket.if_nametoindex(route.interface)
    except OSError:
        return [f"{settings.name}: interface {route.interface} does not exist; name one of this node"]
    if carrier_of(route.interface) is not Carrier.UP:
        return [f"{settings.name}: interface {route.interface} has no carrier; plug the cable in, set it up"]
    return []


class Route(msgspec.Struct, frozen=True):
    """From where to where, checked."""

    interface: str
    mode: str
    family: socket.AddressFamily
    local: str
    """To bind to; empty: any."""
    remote: str
    """To send to: the peer, the group or everybody."""
    peer: str
    """The only sender to listen to; empty: any on this interface."""
    port: int
    ttl: int


def route_of(settings: LinkSettings) -> Route:
    """What the settings come to.  Raises ConfigError if they do not fit together."""
    given = settings.settings
    mode = given.get("mode", "unicast")
    own, peer = (_address(settings, key) for key in ("address", "peer_address"))
    if mode == "unicast" and (own is None or peer is None):
        raise ConfigError(
            f"{settings.name}: address is missing for one of the nodes; unicast needs both:"
            f' address = {{ {settings.node} = "192.168.1.1", {settings.peer} = "192.168.1.2" }}'
        )
    if own is not None and own == peer:
        raise ConfigError(f"{settings.name}: address = {own} is given for both nodes; give each its own")
    if own is not None and peer is not None and own.version != peer.version:
        raise ConfigError(f"{settings.name}: address {own} and {peer} are of two families; use one")
    if mode == "broadcast" and own is not None and own.version == 6:
        raise ConfigError(f'{settings.name}: mode = "broadcast" is not in IPv6; use multicast')
    remote = peer
    if mode == "broadcast":
        remote = ipaddress.IPv4Address("255.255.255.255")
    elif mode == "multicast":
        remote = _group(settings)
    assert remote is not None
    return Route(
        interface=given["interface"],
        mode=mode,
        family=socket.AF_INET if remote.version == 4 else socket.AF_INET6,
        local={"unicast": str(own), "broadcast": "", "multicast": str(remote)}[mode],
        remote=str(remote),
        peer=str(peer) if peer is not None and peer.version == remote.version else "",
        port=given.get("port", PORT),
        ttl=given.get("ttl", 1),
    )


def _address(settings: LinkSettings, key: str) -> IPAddress | None:
    text = settings.settings.get(key)
    if text is None:
        return None
    try:
        return ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        raise ConfigError(
            f'{settings.name}: address = "{text}" is no IP address; write it as 192.168.1.1 or fe80::1'
        ) from None


def _group(settings: LinkSettings) -> IPAddress:
    text = settings.settings.get("group", GROUP)
    try:
        group = ipaddress.ip_address(text)
    except ValueError:
        group = None
    if group is None or not group.is_multicast:
        raise ConfigError(
            f'{settings.name}: group = "{text}" is no multicast address; use one such as {GROUP} or ff02::694'
        )
    return group


class UdpLink:
    """One socket on one interface.  It is open, or away and tried again by ``tick``."""

    mtu = MTU
    burst = BURST

    def __init__(self, route: Route, keepalive_ms: int) -> None:
        self.keepalive_ms = keepalive_ms
        self._route = route
        self._socket: socket.socket | None = None
        self._index = 0
        self._carrier_fd = -1
        self._remote: tuple[Any, ...] = ()
        self._failures = 0
        self._rejected = 0
        self._detail = "not yet opened"
        self._reopen_at_ms = 0
        self._backoff_ms = REOPEN_FIRST_MS
        self._open()

    # -- open and away -----------------------------------------------------------

    def _open(self) -> None:
        route = self._route
        try:
            index = socket.if_nametoindex(route.interface)
        except OSError:
            self._detail = f"interface {route.interface} is not there"
            return
        link = socket.socket(route.family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            _configure(link, route, index)
        except OSError as error:
            link.close()
            self._detail = f"{route.interface} {route.local}: {os.strerror(error.errno or 0)}"
            return
        self._socket, self._index, self._detail = link, index, ""
        self._carrier_fd = _open_carrier(route.interface, index)
        self._remote = _sockaddr(route, route.remote, index)
        self._failures = 0
        self._backoff_ms = REOPEN_FIRST_MS

    def _shut(self, detail: str) -> None:
        if self._socket is not None:
            self._socket.close()
        if self._carrier_fd >= 0:
            os.close(self._carrier_fd)
        self._socket, self._carrier_fd = None, -1
        self._detail = detail

    def tick(self, now_ms: int) -> None:
        # An interface that was taken away and came back under its name is
        # another one: the socket would stay bound to nothing.
        if self._socket is not None and _index_of(self._route.interface, self._socket) != self._index:
            self._shut(f"interface {self._route.interface} is not there")
        if self._socket is None and now_ms >= self._reopen_at_ms:
            self._reopen_at_ms = now_ms + self._backoff_ms
            self._backoff_ms = min(2 * self._backoff_ms, REOPEN_MAX_MS)
            self._open()

    def close(self) -> None:
        self._shut("closed")

    # -- frames ------------------------------------------------------------------

    def fileno(self) -> int:
        return -1 if self._socket is None else self._socket.fileno()

    def send(self, frame: bytes) -> bool:
        assert len(frame) <= self.mtu, (len(frame), self.mtu)
        if self._socket is None:
            return False
        try:
            self._socket.sendto(frame, self._remote)
        except OSError as error:
            # A full queue, a packet filter (EPERM), no route, no address, no
            # interface: all pass, and none may hold up the beats.
            self._failures += 1
            if self._failures == FAILURES_MAX:
                self._detail = f"sending on {self._route.interface} fails: {os.strerror(error.errno or 0)}"
            if error.errno in (errno.ENODEV, errno.EBADF, errno.ENXIO):
                self._shut(f"{self._route.interface}: {os.strerror(error.errno)}")
            return False
        if self._failures:
            self._failures, self._detail = 0, ""
        return True

    def received(self) -> list[bytes]:
        frames: list[bytes] = []
        for _ in range(DATAGRAMS_MAX):
            if self._socket is None:
                break
            try:
                frame, sender = self._socket.recvfrom(DATAGRAM_MAX)
            except BlockingIOError:
                break
            except OSError as error:
                # The pending error of an earlier send; anything that lasts
                # would make the heart spin on a socket that is always ready.
                if error.errno not in (errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH):
                    self._shut(f"{self._route.interface}: {os.strerror(error.errno or 0)}")
                break
            if self._route.peer and sender[0].partition("%")[0] != self._route.peer:
                self._rejected += self._route.mode != "broadcast"  # a broadcast comes back to its sender
                continue
            frames.append(frame)
        return frames

    # -- what it says of itself --------------------------------------------------

    def carrier(self) -> Carrier:
        if self._carrier_fd >= 0:
            with contextlib.suppress(OSError):  # EINVAL: set down; ENODEV: taken away
                return Carrier.UP if os.pread(self._carrier_fd, 2, 0) == b"1\n" else Carrier.DOWN
        if self._socket is not None:
            return _running(self._route.interface, self._socket)
        return carrier_of(self._route.interface)

    @property
    def usable(self) -> bool:
        return self._socket is not None and self._failures < FAILURES_MAX

    @property
    def detail(self) -> str:
        return self._detail

    @property
    def rejected(self) -> int:
        return self._rejected


def _configure(link: socket.socket, route: Route, index: int) -> None:
    """Bind to the interface first, so that nothing of another one ever arrives."""
    link.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, route.interface.encode())
    if route.family is socket.AF_INET6:
        link.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        link.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, TOS_CONTROL)
    else:
        link.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, TOS_CONTROL)
    if route.mode == "broadcast":
        link.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    link.bind(_sockaddr(route, route.local, index))
    if route.mode != "multicast":
        return
    group = ipaddress.ip_address(route.remote).packed
    if route.family is socket.AF_INET6:
        link.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
        link.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, route.ttl)
        link.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 0)
        link.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group + struct.pack("@I", index))
    else:
        here = struct.pack("@4s4si", group, bytes(4), index)  # struct ip_mreqn
        link.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, here)
        link.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, route.ttl)
        link.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 0)
        link.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, here)


def _sockaddr(route: Route, address: str, index: int) -> tuple[Any, ...]:
    if route.family is socket.AF_INET:
        return (address, route.port)
    ip = ipaddress.ip_address(address)
    return (address, route.port, 0, index if ip.is_link_local or ip.is_multicast else 0)


def carrier_of(interface: str) -> Carrier:
    """What the interface's flags say; DOWN also for one that is not there."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        return _running(interface, asker)


def _running(interface: str, asker: socket.socket) -> Carrier:
    try:
        answer = fcntl.ioctl(asker, SIOCGIFFLAGS, struct.pack("16s16x", interface.encode()))
    except OSError:
        return Carrier.DOWN
    (flags,) = struct.unpack_from("H", answer, 16)
    return Carrier.UP if flags & IFF_RUNNING else Carrier.DOWN


def _index_of(interface: str, asker: socket.socket) -> int:
    """0 if it is not there.  Asked in every beat, so over a socket that is open anyway."""
    try:
        answer = fcntl.ioctl(asker, SIOCGIFINDEX, struct.pack("16s16x", interface.encode()))
    except OSError:
        return 0
    index: int = struct.unpack_from("i", answer, 16)[0]
    return index


def _open_carrier(interface: str, index: int) -> int:
    """The open file that tells the carrier, or -1.

    sysfs answers at once, while the flags may lag behind the cable by up to a
    second.  But a mount of sysfs shows the network namespace that it was
    mounted in, so it is asked only if it means the same interface.
    """
    here = Path("/sys/class/net", interface)
    try:
        if int((here / "ifindex").read_text()) == index:
            return os.open(here / "carrier", os.O_RDONLY | os.O_CLOEXEC)
    except (OSError, ValueError):
        pass  # no sysfs here: the flags will do
    return -1
