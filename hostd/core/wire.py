"""Heartbeats and snapshots ↔ frames: sealing, opening, ordering, splitting.

Decides which bytes are an authentic, not yet outdated word of the peer; it
knows neither when a frame arrived nor what a snapshot says.  Nothing in here
raises for what came from outside: it is refused with a :class:`Refusal`.

A frame (PROTOCOL.md section 6)::

    magic layout speaks cluster sender  boot nonce  generation random  sequence | payload, sealed
      2     1      1       4      1      5     8        5        6        5     |  ...       16
                                        incarnation        salt                  (tag included)

The header is in clear and authenticated as associated data.  The key comes
by HKDF from (cluster key; cluster, sender, incarnation; salt), the nonce is
the sequence, which counts sealed frames: no pair of both is ever used twice,
because every start of a heart and every new incarnation draws a new salt.
Frames of one sender are ordered by (incarnation, generation, sequence).

``layout`` is the layout of this frame, ``speaks`` the newest one its sender
can read.  A node reads its own layout and the one before, and writes the
older of its own and what the peer was last heard to speak.  Payloads are
fixed structures that may grow at the end: a reader ignores what it does not
know yet.
"""

import enum
import hashlib
import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from hostd.core.stream import FRAME_MAX
from hostd.core.terms import NEVER_BORN, Incarnation

MAGIC: Final = b"hb"
LAYOUT: Final = 1
"""The newest layout of frames that this release speaks."""

KEY_SIZE: Final = 32
KEYS_MAX: Final = 2
"""One to seal with, and during a rotation a second one to open with."""

_HEAD = struct.Struct(">2sBB4sB5s8s5s6s5s")
_HEARTBEAT = struct.Struct(">BBI5s8s5s5sIH")
_PART = struct.Struct(">BIHH")
_TAG_SIZE = 16

RANDOM_SIZE: Final = 6
GENERATION_MAX: Final = 2**40 - 1
"""As milliseconds: 34 years of uptime."""
SEQUENCE_MAX: Final = 2**40 - 1
"""34 years at a thousand frames a second."""
BOOT_MAX: Final = 2**40 - 1
NONCE_MAX: Final = 2**64 - 1
LINKS_MAX: Final = 16
"""The bits of a heartbeat's ``hears``."""

FRAME_MIN: Final = _HEAD.size + _TAG_SIZE
BEAT_SIZE: Final = FRAME_MIN + _HEARTBEAT.size
"""Below 100 bytes with the delimiters and the CRC of a serial line: so 19200
baud carry ten beats a second at 60 % duty."""
SNAPSHOT_MAX: Final = 65_536
"""The largest snapshot: a hundred services take about 20 kB."""
PARTS_MAX: Final = 1_024
"""A snapshot of the largest size on the narrowest serial line takes 700."""
LATE_MAX: Final = 256
"""How many frames a link may lag behind the fastest one: a serial line at
9600 baud lags one or two beats, snapshots in between count too."""


class Cluster(NamedTuple):
    """What both ends must share to understand each other.

    ``nodes`` in any order: they are numbered by their sorted names, so that
    nodes whose conf.d differs in order still hear each other and can say so.
    ``keys``: newest first, at most two.
    """

    name: str
    nodes: tuple[str, ...]
    keys: tuple[bytes, ...]

    @property
    def tag(self) -> bytes:
        """Four bytes that tell clusters on one wire apart."""
        return hashlib.sha256(b"hostd cluster\0" + self.name.encode()).digest()[:4]

    def number(self, node: str) -> int:
        return sorted(self.nodes).index(node)


class Salt(NamedTuple):
    """Drawn at every start of a heart and for every incarnation it speaks for.

    ``generation`` is higher than any before under the same incarnation;
    ``random`` is RANDOM_SIZE bytes from the kernel.
    """

    generation: int
    random: bytes


class Stamp(NamedTuple):
    """Names one frame of one sender; a higher one is newer."""

    incarnation: Incarnation
    generation: int
    sequence: int


NOTHING_HEARD: Final = Stamp(NEVER_BORN, 0, 0)


class Heartbeat(NamedTuple):
    """The small word, said every keepalive.

    ``version``: of the sender's newest snapshot.  ``echo``: the newest frame
    heard of the receiver, or NOTHING_HEARD.  ``holds``: version of the newest
    complete snapshot of ``echo.incarnation`` that the sender has, or 0.
    ``hears``: bit i for link i of the plan.
    """

    version: int
    echo: Stamp = NOTHING_HEARD
    holds: int = 0
    hears: int = 0
    brain_gone: bool = False


class Part(NamedTuple):
    """Piece ``number`` (from 0) of ``total`` of the sender's snapshot ``version``."""

    version: int
    number: int
    total: int
    body: bytes


class Frame(NamedTuple):
    """An authentic word of the peer.  ``newest``: no later one came on any link."""

    stamp: Stamp
    payload: Heartbeat | Part
    newest: bool
    speaks: int


class Refusal(enum.Enum):
    """Why a piece of bytes is not a word of the peer's."""

    NO_FRAME = 1  # too short, too long, other magic
    OTHER_LAYOUT = 2  # a release too far from ours
    OTHER_CLUSTER = 3
    OTHER_NODE = 4  # not our peer: somebody else's number
    OWN = 5  # our own frame came back (broadcast does that)
    FORGED = 6  # does not open with any of our keys
    REPLAYED = 7  # not newer than what this link brought before, or of an earlier life
    UNKNOWN = 8  # authentic, but of a kind that this release does not know


# -- sealing and opening ---------------------------------------------------------


def _aead(cluster: Cluster, key: bytes, node: str, incarnation: Incarnation, salt: bytes) -> AESGCM:
    life = b"%d\0%d" % incarnation
    info = b"\0".join((b"hostd frame", cluster.name.encode(), node.encode(), life))
    return AESGCM(HKDF(SHA256(), KEY_SIZE, salt, info).derive(key))


def _nonce(sequence: bytes) -> bytes:
    return sequence.rjust(12, b"\0")


class Sealer:
    """Makes the frames of one node in one incarnation under one salt."""

    def __init__(self, cluster: Cluster, node: str, incarnation: Incarnation, salt: Salt, speaks: int = LAYOUT) -> None:
        assert 1 <= len(cluster.keys) <= KEYS_MAX, len(cluster.keys)
        assert len(salt.random) == RANDOM_SIZE and 0 < salt.generation <= GENERATION_MAX, salt
        assert 0 <= incarnation.boot <= BOOT_MAX and 0 <= incarnation.nonce <= NONCE_MAX, incarnation
        self.incarnation = incarnation
        self.generation = salt.generation
        self.sequence = 0
        """Of the newest sealed frame; the first is 1."""
        self._speaks = speaks
        self._identity = (
            cluster.tag,
            cluster.number(node),
            incarnation.boot.to_bytes(5, "big"),
            incarnation.nonce.to_bytes(8, "big"),
            salt.generation.to_bytes(5, "big"),
            salt.random,
        )
        self._aead = _aead(cluster, cluster.keys[0], node, incarnation, b"".join(self._identity[4:]))

    def seal(self, payload: Heartbeat | Part, peer_speaks: int | None = None) -> bytes:
        """The next frame.  ``peer_speaks``: the newest layout the peer was heard
        to speak; None before it was heard, then the oldest one that we know."""
        assert self.sequence < SEQUENCE_MAX
        self.sequence += 1
        sequence = self.sequence.to_bytes(5, "big")
        oldest = max(1, self._speaks - 1)
        layout = oldest if peer_speaks is None else max(oldest, min(self._speaks, peer_speaks))
        head = _HEAD.pack(MAGIC, layout, self._speaks, *self._identity, sequence)
        return head + self._aead.encrypt(_nonce(sequence), _encode(payload), head)


class Opener:
    """Opens the frames of the peer, and only those, each at most once per link.

    Keeps the newest life of the peer it has opened a frame of; an unproven
    header changes nothing in here.
    """

    def __init__(self, cluster: Cluster, peer: str, speaks: int = LAYOUT) -> None:
        assert 1 <= len(cluster.keys) <= KEYS_MAX, len(cluster.keys)
        self.newest: Stamp = NOTHING_HEARD
        """Of all frames opened; what our heartbeats echo."""
        self._cluster = cluster
        self._tag = cluster.tag
        self._peer = peer
        self._number = cluster.number(peer)
        self._numbers = range(len(cluster.nodes))
        self._speaks = speaks
        self._life: tuple[bytes, AESGCM] | None = None
        """Incarnation and salt as they stand in the header, and their cipher."""
        self._sequences: dict[str, int] = {}
        """Per link, the newest sequence of this life that it brought."""

    def open(self, frame: bytes, link: str) -> Frame | Refusal:
        """What ``frame``, as it came from ``link``, says; or why it says nothing.

        The copy of a frame that a second link brings is authentic and says
        that this link works, too: it is opened, but not ``newest`` any more.
        """
        if not FRAME_MIN <= len(frame) <= FRAME_MAX:
            return Refusal.NO_FRAME
        head = frame[: _HEAD.size]
        magic, layout, speaks, tag, number, boot, nonce, generation, random, sequence = _HEAD.unpack(head)
        if magic != MAGIC:
            return Refusal.NO_FRAME
        if not max(1, self._speaks - 1) <= layout <= self._speaks:
            return Refusal.OTHER_LAYOUT
        if tag != self._tag:
            return Refusal.OTHER_CLUSTER
        if number != self._number:
            return Refusal.OWN if number in self._numbers else Refusal.OTHER_NODE
        stamp = Stamp(
            Incarnation(int.from_bytes(boot, "big"), int.from_bytes(nonce, "big")),
            int.from_bytes(generation, "big"),
            int.from_bytes(sequence, "big"),
        )
        life = boot + nonce + generation + random
        if self._is_outdated(stamp, life, link):
            return Refusal.REPLAYED
        plain = self._decrypt(stamp.incarnation, life, sequence, frame[_HEAD.size :], head)
        if plain is None:
            return Refusal.FORGED
        is_newest = stamp > self.newest
        self._sequences[link] = stamp.sequence
        if is_newest:
            self.newest = stamp
        payload = _decode(plain)
        return Refusal.UNKNOWN if payload is None else Frame(stamp, payload, is_newest, speaks)

    def _is_outdated(self, stamp: Stamp, life: bytes, link: str) -> bool:
        if self._life is None:
            return False
        if life != self._life[0]:
            return stamp[:2] <= self.newest[:2]
        return stamp.sequence <= max(self._sequences.get(link, 0), self.newest.sequence - LATE_MAX)

    def _decrypt(
        self, incarnation: Incarnation, life: bytes, sequence: bytes, sealed: bytes, head: bytes
    ) -> bytes | None:
        if self._life is not None and self._life[0] == life:
            try:
                return self._life[1].decrypt(_nonce(sequence), sealed, head)
            except InvalidTag:
                return None
        salt = life[13:]
        for key in self._cluster.keys:
            aead = _aead(self._cluster, key, self._peer, incarnation, salt)
            try:
                plain = aead.decrypt(_nonce(sequence), sealed, head)
            except InvalidTag:
                continue
            self._life = (life, aead)
            self._sequences.clear()
            return plain
        return None


# -- payloads --------------------------------------------------------------------

_KIND_HEARTBEAT = 1
_KIND_PART = 2
_FLAG_BRAIN_GONE = 1


def _encode(payload: Heartbeat | Part) -> bytes:
    if isinstance(payload, Part):
        return _PART.pack(_KIND_PART, *payload[:3]) + payload.body
    (boot, nonce), generation, sequence = payload.echo
    return _HEARTBEAT.pack(
        _KIND_HEARTBEAT,
        _FLAG_BRAIN_GONE if payload.brain_gone else 0,
        payload.version,
        boot.to_bytes(5, "big"),
        nonce.to_bytes(8, "big"),
        generation.to_bytes(5, "big"),
        sequence.to_bytes(5, "big"),
        payload.holds,
        payload.hears,
    )


def _decode(plain: bytes) -> Heartbeat | Part | None:
    if plain[:1] == bytes((_KIND_PART,)) and len(plain) >= _PART.size:
        _kind, version, number, total = _PART.unpack_from(plain)
        return Part(version, number, total, plain[_PART.size :])
    if plain[:1] == bytes((_KIND_HEARTBEAT,)) and len(plain) >= _HEARTBEAT.size:
        _kind, flags, version, boot, nonce, generation, sequence, holds, hears = _HEARTBEAT.unpack_from(plain)
        incarnation = Incarnation(int.from_bytes(boot, "big"), int.from_bytes(nonce, "big"))
        echo = Stamp(incarnation, int.from_bytes(generation, "big"), int.from_bytes(sequence, "big"))
        return Heartbeat(version, echo, holds, hears, bool(flags & _FLAG_BRAIN_GONE))
    return None


# -- snapshots in parts ----------------------------------------------------------


def part_room(mtu: int) -> int:
    """How many bytes of a snapshot go into one frame of at most ``mtu`` bytes."""
    room = mtu - FRAME_MIN - _PART.size
    assert room > 0, mtu
    return room


def split(version: int, body: bytes, mtu: int) -> list[Part]:
    """``body`` in parts whose sealed frames are at most ``mtu`` bytes long."""
    assert len(body) <= SNAPSHOT_MAX, len(body)
    room = part_room(mtu)
    pieces: Sequence[bytes] = [body[i : i + room] for i in range(0, len(body), room)] or [b""]
    return [Part(version, number, len(pieces), piece) for number, piece in enumerate(pieces)]


class Assembler:
    """Puts the peer's newest snapshot together; parts may come in any order,
    twice, from several links, and in differing splits."""

    SPLITS_MAX: Final = 4
    """Links of differing mtu split differently; more than four kinds are dropped."""

    def __init__(self) -> None:
        self.complete: tuple[Incarnation, int] = (NEVER_BORN, 0)
        """Whose snapshot, and which version, was put together last."""
        self._pending = self.complete
        self._splits: dict[int, dict[int, bytes]] = {}
        """Of the pending version: total → number → piece."""

    def add(self, incarnation: Incarnation, part: Part) -> bytes | None:
        """The whole snapshot if ``part`` was the last one missing.  Parts of an
        older or of the complete version, and senseless totals, are dropped."""
        version = (incarnation, part.version)
        is_senseless = part.number >= part.total or part.total > PARTS_MAX
        if is_senseless or version <= self.complete or version < self._pending:
            return None
        if version > self._pending:
            self._pending = version
            self._splits.clear()
        pieces = self._splits.setdefault(part.total, {})
        pieces[part.number] = part.body
        if len(self._splits) > self.SPLITS_MAX or sum(map(len, pieces.values())) > SNAPSHOT_MAX:
            del self._splits[part.total]
            return None
        if len(pieces) < part.total:
            return None
        self.complete = version
        self._splits.clear()
        return b"".join(pieces[number] for number in range(part.total))
