"""The UDP link on real cables in namespaces, and what happens to interfaces."""

import select
import socket
import time

import pytest

from hostd.api import Carrier, ConfigError, LinkSettings
from plugins import udp
from tests.edge.namespaces import Lan, inside, ip

V4 = ("192.168.1.1", "192.168.1.2")
V6 = ("fd00::1", "fd00::2")


@pytest.fixture
def lan():
    """A switch with machines a and b on it."""
    made = Lan("udp")
    try:
        made.a = made.machine("a", f"{V4[0]}/24", f"{V6[0]}/64")
        made.b = made.machine("b", f"{V4[1]}/24", f"{V6[1]}/64")
        yield made
    finally:
        made.close()


def settings(own=None, peer=None, **more):
    given = {"interface": "eth0", **more}
    if own:
        given |= {"address": own, "peer_address": peer}
    return LinkSettings("lan", "udp", "a", "b", "test", 100, given)


class Ends:
    """A link on each machine."""

    def __init__(self, lan, a, b):
        self.lan, self.links = lan, []
        for machine, given in ((lan.a, a), (lan.b, b)):
            with inside(machine.name):
                self.links.append(udp.open_link(given))

    def tick(self, now_ms):
        for machine, link in zip((self.lan.a, self.lan.b), self.links, strict=True):
            with inside(machine.name):
                link.tick(now_ms)

    def close(self):
        for link in self.links:
            link.close()


@pytest.fixture
def ends(lan):
    """Makes the two ends; closes them."""
    made = []

    def make(a, b):
        made.append(Ends(lan, a, b))
        return made[-1]

    yield make
    for pair in made:
        pair.close()


def arrived(link, seconds=1.0):
    """What comes in within a time, as soon as something does."""
    select.select([link], [], [], seconds)
    return link.received()


def until(claim, seconds=3.0):
    end = time.monotonic() + seconds
    while not claim():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.02)


MODES = [
    pytest.param(settings(*V4), settings(*V4[::-1]), id="unicast 4"),
    pytest.param(settings(*V6), settings(*V6[::-1]), id="unicast 6"),
    pytest.param(settings(mode="broadcast"), settings(mode="broadcast"), id="broadcast"),
    pytest.param(settings(mode="multicast"), settings(mode="multicast"), id="multicast 4"),
    pytest.param(
        settings(mode="multicast", group="ff02::694"), settings(mode="multicast", group="ff02::694"), id="multicast 6"
    ),
    pytest.param(
        settings(*V4, mode="multicast"), settings(*V4[::-1], mode="multicast"), id="multicast, peer known"
    ),
]  # fmt: skip


@pytest.mark.parametrize(("a", "b"), MODES)
def test_frames_pass_both_ways(ends, lan, a, b):
    """In every mode, of every size up to the mtu."""
    for machine in (lan.a, lan.b):
        # A multicast of IPv6 needs a link-local source; given without the wait for duplicates.
        machine.ip("addr", "add", f"fe80::{machine.port[-1]}/64", "dev", "eth0", "nodad")
    pair = ends(a, b)
    one, other = pair.links
    assert one.usable and other.usable, (one.detail, other.detail)
    assert one.send(b"x" * udp.MTU) and one.send(b"second")
    until(lambda: select.select([other], [], [], 0)[0])
    time.sleep(0.05)
    assert other.received() == [b"x" * udp.MTU, b"second"]
    assert other.send(b"back")
    assert b"back" in arrived(one)


def test_what_another_sender_says_is_dropped_and_counted(ends, lan):
    """Only the peer's address is listened to in unicast."""
    pair = ends(settings(*V4), settings(*V4[::-1]))
    lan.b.ip("addr", "add", "192.168.1.9/24", "dev", "eth0")
    with inside(lan.b.name):
        stranger = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with stranger:
        stranger.bind(("192.168.1.9", 694))
        stranger.sendto(b"hello", (V4[0], 694))
        assert arrived(pair.links[0]) == []
    assert pair.links[0].rejected == 1


def test_our_own_broadcast_is_no_garbage(ends):
    """It comes back to its sender; the heart knows it by its number, or the peer's address."""
    pair = ends(settings(*V4, mode="broadcast"), settings(*V4[::-1], mode="broadcast"))
    pair.links[0].send(b"to all")
    assert arrived(pair.links[1]) == [b"to all"]
    assert pair.links[0].received() == [] and pair.links[0].rejected == 0


def test_the_link_never_moves_to_another_interface(ends, lan):
    """The address now sits on a second card with a good cable: nothing passes there."""
    lan.cable(lan.a, "eth1", "extra")
    pair = ends(settings(*V4), settings(*V4[::-1]))
    lan.a.ip("addr", "del", f"{V4[0]}/24", "dev", "eth0")
    lan.a.ip("addr", "add", f"{V4[0]}/24", "dev", "eth1")
    lan.a.unplug()
    pair.links[0].send(b"by the other card?")
    pair.links[1].send(b"by the other card?")
    assert arrived(pair.links[1], 0.2) == []
    assert arrived(pair.links[0], 0.2) == []


def test_an_interface_that_was_never_there_is_opened_when_it_comes(ends, lan):
    """No error at start: the link says why it is not usable, and heals itself."""
    pair = ends(settings(*V4, interface="late0"), settings(*V4[::-1]))
    link = pair.links[0]
    assert not link.usable and link.fileno() == -1 and not link.send(b"x") and link.received() == []
    assert link.detail == "interface late0 is not there"
    lan.a.ip("link", "set", "eth0", "down")
    lan.a.ip("link", "set", "eth0", "name", "late0", "up")
    pair.tick(10_000)
    assert link.usable and link.detail == ""
    link.send(b"now")
    assert arrived(pair.links[1]) == [b"now"]


def test_an_interface_that_is_taken_away_and_given_back_is_used_again(ends, lan):
    """Under its old name it is another one; retried with a growing pause of at most a second."""
    pair = ends(settings(mode="broadcast"), settings(mode="broadcast"))
    link = pair.links[0]
    lan.a.ip("link", "del", "eth0")
    assert not link.send(b"x")
    pair.tick(0)
    with inside(lan.a.name):
        assert not link.usable and link.carrier() is Carrier.DOWN
    for now in range(0, 5_000, 100):
        pair.tick(now)
    lan.cable(lan.a, "eth0", "port9")
    lan.a.ip("addr", "add", f"{V4[0]}/24", "dev", "eth0")
    pair.tick(5_999)
    assert link.usable, link.detail
    until(lambda: link.send(b"again") and b"again" in arrived(pair.links[1], 0.1))


def test_an_address_that_vanishes_hurts_nobody(ends, lan):
    """Sends fail, are dropped and told; with the address back, they pass again."""
    pair = ends(settings(*V4), settings(*V4[::-1]))
    link = pair.links[0]
    lan.a.ip("addr", "del", f"{V4[0]}/24", "dev", "eth0")
    for _ in range(udp.FAILURES_MAX):
        assert not link.send(b"x")
    assert not link.usable and link.detail.startswith("sending on eth0 fails: ")
    pair.tick(100)
    lan.a.ip("addr", "add", f"{V4[0]}/24", "dev", "eth0")
    pair.tick(10_000)
    until(lambda: link.send(b"y"))
    assert link.usable and link.detail == ""
    assert b"y" in arrived(pair.links[1])


def test_a_packet_filter_at_the_sender_hurts_nobody(ends, lan):
    """nft makes sendto raise EPERM."""
    pair = ends(settings(*V4), settings(*V4[::-1]))
    lan.a.run("nft", "add table inet t; add chain inet t o { type filter hook output priority 0; policy drop; }")
    for _ in range(udp.FAILURES_MAX):
        assert not pair.links[0].send(b"x")
    assert not pair.links[0].usable and "not permitted" in pair.links[0].detail
    lan.a.run("nft", "delete table inet t")
    assert pair.links[0].send(b"x") and pair.links[0].usable


def test_a_pulled_cable_shows_in_the_carrier_and_nowhere_else(ends, lan):
    """The socket stays open and works again with the cable."""
    pair = ends(settings(*V4), settings(*V4[::-1]))
    link = pair.links[0]

    def carrier():
        with inside(lan.a.name):
            return link.carrier()

    assert carrier() is Carrier.UP
    lan.a.unplug()
    until(lambda: carrier() is Carrier.DOWN)
    link.send(b"lost")
    pair.tick(100)
    lan.a.plug()
    until(lambda: carrier() is Carrier.UP)
    until(lambda: link.send(b"found") and b"found" in arrived(pair.links[1], 0.1))
    assert link.usable


def test_an_interface_set_down_has_no_carrier(ends, lan):
    """By the operator, not by the cable; and it comes back."""
    pair = ends(settings(*V4), settings(*V4[::-1]))
    lan.a.ip("link", "set", "eth0", "down")
    with inside(lan.a.name):
        assert pair.links[0].carrier() is Carrier.DOWN
    pair.links[0].send(b"x")
    assert pair.links[0].received() == []
    lan.a.ip("link", "set", "eth0", "up")
    until(lambda: pair.links[0].send(b"up") and b"up" in arrived(pair.links[1], 0.1))


def test_a_flood_is_read_in_bounded_pieces(ends):
    """One reading never takes longer than 512 datagrams: the beats go on."""
    pair = ends(settings(*V4), settings(*V4[::-1]))
    for _ in range(3_000):
        pair.links[1].send(b"flood")
    assert 0 < len(pair.links[0].received()) <= udp.DATAGRAMS_MAX


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        (settings(), "address is missing for one of the nodes"),
        (settings("1.2.3", V4[1]), 'address = "1.2.3" is no IP address'),
        (settings(V4[0], V4[0]), "is given for both nodes"),
        (settings(V4[0], V6[1]), "of two families"),
        (settings(*V6, mode="broadcast"), "not in IPv6"),
        (settings(mode="multicast", group="192.168.1.1"), "is no multicast address"),
        (settings(mode="multicast", group="all"), "is no multicast address"),
        (settings(*V4, interface="nosuch0"), "interface nosuch0 does not exist"),
    ],
)
def test_check_names_what_is_wrong(given, complaint):
    """With the link's name and a cure; what cannot work at all is refused by open_link too."""
    (said,) = udp.check_link(given)
    assert said.startswith("lan: ") and complaint in said
    if "nosuch0" not in complaint:
        with pytest.raises(ConfigError):
            udp.open_link(given)


def test_links_of_other_types_are_left_to_others():
    """None is pluggy's word for: not mine."""
    other = LinkSettings("x", "serial", "a", "b", "test", 100, {})
    assert udp.open_link(other) is None and udp.check_link(other) is None


def test_check_is_silent_about_a_good_link(lan):
    """And complains of an interface without carrier."""
    with inside(lan.a.name):
        assert udp.check_link(settings(*V4)) == []
        lan.a.unplug()
        until(lambda: udp.check_link(settings(*V4)) != [])
        assert "no carrier" in udp.check_link(settings(*V4))[0]


def test_sysfs_of_another_namespace_is_not_believed(lan):
    """A mount of sysfs may show other interfaces of the same name."""
    tag = f"udps{lan.switch[-6:]}"[-15:]
    ip("link", "add", tag, "type", "veth", "peer", "name", f"{tag}p"[-15:])
    try:
        index = socket.if_nametoindex(tag)
        fd = udp._open_carrier(tag, index)
        assert fd >= 0
        socket.close(fd)
        assert udp._open_carrier(tag, index + 1_000) == -1
    finally:
        ip("link", "del", tag)
