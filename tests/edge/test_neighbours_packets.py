"""ARP and neighbour discovery frames, there and back."""

import ipaddress

from hypothesis import given
from hypothesis import strategies as st

from hostd import packets
from hostd.packets import Heard

OWN, OTHER = "02:00:00:00:00:01", "02:00:00:00:00:02"
A4, B4 = ipaddress.IPv4Address("10.0.0.1"), ipaddress.IPv4Address("10.0.0.2")
A6, B6 = ipaddress.IPv6Address("fd00::1"), ipaddress.IPv6Address("fd00::2")


def test_each_frame_of_ours_is_understood_as_it_was_meant() -> None:
    """Probe, question, and the announcements."""
    assert packets.parse_arp(packets.arp_probe(OWN, A4)) == Heard(OWN, probes=A4)
    assert packets.parse_arp(packets.arp_question(OWN, A4, B4, OTHER)) == Heard(OWN, claims=A4)
    for frame in packets.arp_announcements(OWN, A4):
        assert packets.parse_arp(frame) == Heard(OWN, claims=A4)
    assert packets.parse_nd(packets.nd_probe(OWN, A6)) == Heard(OWN, probes=A6)
    assert packets.parse_nd(packets.nd_question(OWN, A6, B6, OTHER)) == Heard(OWN, claims=A6)
    assert packets.parse_nd(packets.nd_announcement(OWN, A6, is_router=False)) == Heard(OWN, claims=A6)


def test_the_gratuitous_reply_names_our_own_station_as_target() -> None:
    """With ff:ff:ff:ff:ff:ff there Linux ignores it for a second."""
    request, reply = packets.arp_announcements(OWN, A4)
    assert request[20:22] == b"\x00\x01" and request[32:38] == bytes(6)
    assert reply[20:22] == b"\x00\x02" and reply[32:38] == packets.station_bytes(OWN)


def test_an_unasked_advertisement_overrides_and_tells_routers_from_hosts() -> None:
    """Flags: override always, router as given, solicited never; hop limit 255, to all nodes."""
    for is_router, flags in ((False, 0x20), (True, 0xA0)):
        frame = packets.nd_announcement(OWN, A6, is_router=is_router)
        assert frame[58] == flags
        assert frame[21] == 255 and frame[:6] == bytes.fromhex("333300000001")


def test_an_advertisement_from_behind_a_router_is_not_believed() -> None:
    """Its hop limit is below 255: it did not come from this LAN."""
    frame = bytearray(packets.nd_announcement(OWN, A6, is_router=False))
    frame[21] = 254
    assert packets.parse_nd(bytes(frame)) is None


def test_an_echo_reply_is_told_from_others() -> None:
    """By type and identifier; cut packets are nobody's."""
    header = bytes([0x45]) + bytes(11) + A4.packed + B4.packed
    reply = b"\x00" + packets.echo_request(77, 1)[1:]
    assert packets.parse_echo_reply(header + reply, 77) == (A4, B4)
    assert packets.parse_echo_reply(header + reply, 78) is None
    assert packets.parse_echo_reply(header + packets.echo_request(77, 1), 77) is None
    assert packets.parse_echo_reply(header + reply[:4], 77) is None


@given(st.binary(max_size=120), st.integers(0, 120))
def test_no_frame_of_whatever_bytes_breaks_the_reader(noise: bytes, cut: int) -> None:
    """Anybody on the LAN may send anything."""
    for parse in (packets.parse_arp, packets.parse_nd):
        parse(noise)
        for frame in (packets.nd_announcement(OWN, A6, is_router=False), packets.arp_probe(OWN, A4)):
            parse(frame[:cut] + noise + frame[cut:])
    packets.parse_echo_reply(noise, 7)
