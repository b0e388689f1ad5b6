"""What comes from the cables and the LAN: frames, streams, snapshots, ARP.

Decides what strangers, line noise and a peer with the right key may send, in
which order, and what must hold afterwards.  The peer is a true one as to its
seal and may say anything: another release of hostd, or one with a defect.
"""

import zlib
from typing import Final

from hostd import packets
from hostd.core import snapshot as snapshots
from hostd.core import wire
from hostd.core.plan import Link, Plan, Resource, Service
from hostd.core.snapshot import Snapshot
from hostd.core.stream import FRAME_MAX, StreamDecoder, frame_for_stream
from hostd.core.terms import Incarnation
from hostd.ear import Ear
from hostd.hearing import snapshot_of
from hostd.messages import FrameHeard, SnapshotHeard
from tests.fuzz.script import Script
from tests.fuzz.target import Target

KEY, OLD_KEY, OTHER_KEY = (bytes([number]) * wire.KEY_SIZE for number in (1, 2, 3))
NODES: Final = ("a", "b")
CLUSTER: Final = wire.Cluster("fuzz", NODES, (KEY, OLD_KEY))
LINKS: Final = ("lan", "cable", "serial")
SERVICE: Final = Service("web", NODES, (Resource("dummy", "dummy"),))
PLAN: Final = Plan("fuzz", NODES, (SERVICE,), tuple(Link(name) for name in LINKS))
HEAD: Final = wire.FRAME_MIN - 16
STEPS_MAX: Final = 40

# -- frames ---------------------------------------------------------------------------


class Ether:
    """One node's ear, and all who may speak to it."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.ear = Ear(CLUSTER, "b", lambda echo: 7 if echo.sequence < 1_000 else None)
        self.heard: list[bytes] = []
        self._sealers: dict[int, wire.Sealer] = {}
        self._flooded = 0

    def frame(self) -> tuple[bytes, wire.Heartbeat | wire.Part | None]:
        """The next frame, and what it says if it is the peer's own and unharmed."""
        script = self.script
        match script.byte() % 8:
            case 0:
                return script.short(), None
            case 1:
                return self._forged(), None
            case 2:
                return self._anything_sealed(), None
            case 3 if self.heard:
                return self._harmed(script.choice(self.heard)), None
            case 4 if self.heard:
                return script.choice(self.heard), None
            case 5:
                return self._part_of_many()
            case 6:
                part = wire.Part(script.number(4), script.number(1), script.number(1), script.short())
                return self._said(part)
            case _:
                return self._said(self._beat())

    def _said(self, payload: wire.Heartbeat | wire.Part) -> tuple[bytes, wire.Heartbeat | wire.Part]:
        frame = self._sealer().seal(payload, self.script.choice((None, 1, 2, 255)))
        self.heard.append(frame)
        return frame, payload

    def _sealer(self) -> wire.Sealer:
        """The peer in one of some lives, with its newer or its older key; or a sequence that jumps."""
        drawn = self.script.byte()
        if drawn not in self._sealers:
            life = (Incarnation(1, 1), Incarnation(2, 0), Incarnation(wire.BOOT_MAX, wire.NONCE_MAX))[drawn % 3]
            salt = wire.Salt(1 + drawn // 3 % 4, bytes([drawn // 12 % 2]) * wire.RANDOM_SIZE)
            keys = ((KEY,), (OLD_KEY,))[drawn // 24 % 2]
            self._sealers[drawn] = wire.Sealer(wire.Cluster("fuzz", NODES, keys), "b", life, salt)
        sealer = self._sealers[drawn]
        if drawn >= 192:
            sealer.sequence = min(sealer.sequence + 2**39, wire.SEQUENCE_MAX - STEPS_MAX)
        return sealer

    def _beat(self) -> wire.Heartbeat:
        script = self.script
        echo = wire.Stamp(Incarnation(script.number(1), script.number(1)), script.number(1), script.number(2))
        return wire.Heartbeat(script.number(4), echo, script.number(4), script.number(2), bool(script.byte() & 1))

    def _part_of_many(self) -> tuple[bytes, wire.Part]:
        """As the heart splits a snapshot, of which any part may be lost."""
        script = self.script
        if script.byte() % 4 == 0:  # one that never comes to its end
            self._flooded += 1
            frame, payload = self._said(wire.Part(9, self._flooded, 200 + script.byte() % 8, bytes(1_900)))
            assert isinstance(payload, wire.Part)
            return frame, payload
        body = bytes(script.number(2) % 5_000)
        parts = wire.split(1 + script.byte() % 4, body, script.choice((80, 200, 1_400)))
        frame, payload = self._said(script.choice(parts))
        assert isinstance(payload, wire.Part)
        return frame, payload

    def _anything_sealed(self) -> bytes:
        """Behind the seal, where only who has the key can come."""
        script, sealer = self.script, self._sealer()
        honest = sealer.seal(wire.Heartbeat(1))
        head, sequence = honest[:HEAD], honest[HEAD - 5 : HEAD]
        frame = head + sealer._aead.encrypt(wire._nonce(sequence), script.short(), head)
        self.heard.append(frame)
        return frame

    def _forged(self) -> bytes:
        """A header like the peer's, a seal by another key, another cluster or another node."""
        script = self.script
        stranger, node = script.choice(
            ((wire.Cluster("fuzz", NODES, (OTHER_KEY,)), "b"), (wire.Cluster("other", NODES, (KEY,)), "b"),
             (CLUSTER, "a"), (wire.Cluster("fuzz", ("a", "b", "c"), (KEY,)), "c"),
             (wire.Cluster("fuzz", ("a", "bb"), (KEY,)), "bb"))
        )  # fmt: skip
        life = Incarnation(script.number(5), script.number(8))
        return wire.Sealer(stranger, node, life, wire.Salt(1 + script.number(4), b"stolen")).seal(self._beat())

    def _harmed(self, frame: bytes) -> bytes:
        harmed = bytearray(frame)
        for _ in range(1 + self.script.byte() % 3):
            if harmed:
                harmed[self.script.number(2) % len(harmed)] ^= 1 + self.script.byte() % 255
        return bytes(harmed[: self.script.number(2)] if self.script.byte() % 4 == 0 else harmed)


def hear_frames(data: bytes) -> int:
    """A script of frames through the ear of a heart, and from there to the brain's door."""
    ether = Ether(Script(data))
    ear, opener = ether.ear, ether.ear._opener
    honest: set[bytes] = set()
    taken: set[tuple[bytes, str]] = set()
    count = 0
    while not ether.script.is_over and count < STEPS_MAX:
        count += 1
        before = opener.newest
        frame, payload = ether.frame()
        honest.update((frame,) if payload is not None or frame in ether.heard else ())
        link = ether.script.choice(LINKS)
        said = ear.hear(frame, link, count)
        assert opener.newest >= before, "what was heard went back"
        if isinstance(said, wire.Refusal) and said is not wire.Refusal.UNKNOWN:
            assert opener.newest == before
        else:
            assert frame in honest, "somebody else's word was taken for the peer's"
            assert (frame, link) not in taken, "a replay was taken for a word"
            taken.add((frame, link))
        if isinstance(said, FrameHeard):
            assert (said.sender, said.incarnation) == ("b", ear.life[0])
        if isinstance(said, SnapshotHeard):
            assert len(said.body) <= wire.SNAPSHOT_MAX
            take_snapshot(said)
        if isinstance(payload, wire.Heartbeat) and opener.newest > before:
            assert ear.beat == payload, "what was sealed came out as something else"
        splits = ear._assembler._splits.values()
        assert len(splits) <= ear._assembler.SPLITS_MAX
        assert all(sum(map(len, pieces.values())) <= wire.SNAPSHOT_MAX for pieces in splits)
    return count


def frame_seeds() -> list[bytes]:
    beat = bytes((7, 0, 0)) + bytes(20)
    flood = bytes((5, 0, 0, 0, 0, 0)) * STEPS_MAX
    return [
        flood,
        beat * 3,
        bytes((5, 1, 0x10, 0, 0, 0, 1)) * 6,
        bytes((1, 0)) * 9,
        b"\0\x20hb" + bytes(64),
        b"\2" * 60,
    ]


def refuse_frame(data: bytes) -> int:
    """One datagram as it came from anybody: never a word, never an exception."""
    opener = wire.Opener(CLUSTER, "b")
    assert isinstance(opener.open(data, "lan"), wire.Refusal)
    assert opener.newest == wire.NOTHING_HEARD
    if len(data) >= 4:  # a header that fits as far as anybody can know it
        fitting = wire.MAGIC + bytes((1, data[3])) + CLUSTER.tag + bytes((CLUSTER.number("b"),)) + data[4:]
        assert isinstance(opener.open(fitting, "lan"), wire.Refusal)
    return 2


# -- snapshots --------------------------------------------------------------------------


def take_snapshot(heard: SnapshotHeard) -> None:
    """What the brain does with a body: a snapshot of the peer, or nothing."""
    snapshot = snapshot_of(PLAN, "b", heard)
    if snapshot is not None:
        assert (snapshot.node, snapshot.incarnation, snapshot.version) == ("b", heard.incarnation, heard.version)
        assert snapshots.decode(snapshots.encode(snapshot)) == snapshot


def decode_snapshot(data: bytes) -> int:
    """Any body under the seal of the peer."""
    take_snapshot(SnapshotHeard("b", Incarnation(1, 1), 1, data))
    return 1


def snapshot_seeds() -> list[bytes]:
    from hostd.core.snapshot import Assignment, Invitation, Report, Wish, WishKind
    from hostd.core.terms import Epoch, Phase, ResourceState, ServiceState

    life = Incarnation(1, 1)
    full = Snapshot(
        "b", life, 1, Phase.MEMBER, True, 3, "a", invitation=Invitation(3, Incarnation(9, 9)),
        services={"web": Report(ServiceState.RUNNING, Epoch(3, 1), resources=(ResourceState.RUNNING,))},
        assignments={"web": Assignment(("a",), Epoch(3, 2))}, heard=Incarnation(9, 9),
        wishes=(Wish(WishKind.MOVED, "web", "b", 4, "a"),), digest="d", digests={"web": "x"},
        stations=("02:00:00:00:00:01",), release="1", nodes=NODES, reached=True,
    )  # fmt: skip
    return [snapshots.encode(full), snapshots.encode(Snapshot("b", life, 1, Phase.JOINING)), b"\x94\xa1\xff"]


# -- the serial line ----------------------------------------------------------------------


def read_stream(data: bytes) -> int:
    """Noise in any pieces, and a frame after it."""
    script = Script(data)
    pieces = []
    while not script.is_over:
        pieces.append(script.piece(1 + script.number(2) % 3_000) if script.byte() % 8 == 0 else script.short())
    noise = b"".join(pieces)
    whole, halting = StreamDecoder(), StreamDecoder()
    frames = whole.feed(noise)
    assert [frame for piece in pieces for frame in halting.feed(piece)] == frames, "it depends on the pieces"
    assert whole.rejected == halting.rejected
    for decoder in (whole, halting):
        assert len(decoder._tail) <= decoder.CHUNK_MAX
    for frame in frames:
        assert len(frame) <= len(noise) and frame_for_stream(frame).strip(b"\0") in noise
    last = noise[-FRAME_MAX:]
    assert halting.feed(frame_for_stream(last))[-1:] == [last], "a frame after the noise is lost"
    return len(pieces) + 1


def stream_seeds() -> list[bytes]:
    framed = [frame_for_stream(body) for body in (b"", b"\0", b"frame", bytes(300), b"\x01" * 254, b"\xff" * 600)]
    broken = zlib.crc32(b"x").to_bytes(4, "big")
    cut = [b"".join(bytes((1, len(part))) + part for part in _cut(frame, 200)) for frame in framed]
    endless = b"\0\x0b\xb7" + b"\x01" * 3_000
    return [endless, endless + cut[2], *cut, cut[2] + cut[3][:40] + cut[4], b"\1\7\1\1\1" + broken]


def _cut(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


# -- the LAN --------------------------------------------------------------------------------


def read_packet(data: bytes) -> int:
    """What any station of the LAN may send to a packet socket."""
    for heard in (packets.parse_arp(data), packets.parse_nd(data)):
        if heard is not None:
            assert len(packets.station_bytes(heard.station)) == 6
            assert (heard.claims is None) != (heard.probes is None)
    packets.parse_echo_reply(data, 7)
    return 1


def packet_seeds() -> list[bytes]:
    own, v4, v6 = "02:00:00:00:00:01", packets.IPv4("192.0.2.1"), packets.IPv6("fd00::1")
    return [
        packets.arp_probe(own, v4), *packets.arp_announcements(own, v4), packets.nd_probe(own, v6),
        packets.nd_question(own, v6, packets.IPv6("fd00::2")), packets.nd_announcement(own, v6, is_router=True),
        b"\x45" + bytes(19) + bytes((0, 0, 0, 0, 0, 7, 0, 1)),
    ]  # fmt: skip


TARGETS: Final = (
    Target(
        "wire", "sealed and unsealed frames through a heart's ear, with the right key too", hear_frames,
        frame_seeds, 4_096,
    ),
    Target(
        "datagram", "a datagram of any bytes is refused", refuse_frame, lambda: [frame_seeds()[3], bytes(99)],
        FRAME_MAX + 100, (wire.MAGIC, CLUSTER.tag),
    ),
    Target("stream", "noise on a serial line, in any pieces, and a frame after it", read_stream, stream_seeds, 8_192),
    Target("snapshot", "any body under the peer's seal", decode_snapshot, snapshot_seeds, 4_096),
    Target("packet", "ARP, neighbour discovery and ping from any station", read_packet, packet_seeds, 400),
)  # fmt: skip
