"""What hands, heart and brain say to each other, typed.

Three socketpairs (AF_UNIX, SOCK_SEQPACKET: one message a packet, nothing
queues for ever): host-brain, host-heart and heart-brain.  The last one is
made anew by the host whenever a heart or a brain is forked, and its end is
handed to the survivor with ``SCM_RIGHTS`` beside ``BrainForked`` or
``HeartForked``; so nobody reads a word that was meant for an earlier life,
and the end of file tells each that the other is gone.

Messages are msgpack of tagged structures.  They stay on this machine and
between processes of one parent, so they need no version.
"""

import array
import enum
import socket
from collections.abc import Sequence
from typing import Final

import msgspec

from hostd.changes import Change
from hostd.core.effects import AnyFact
from hostd.core.terms import Action, Carrier, Health, Incarnation

SIZE_MAX: Final = 200_000
"""A socket buffer's default (net.core.wmem_default is 212,992); a longer message is our bug."""


class Message(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The root of all messages."""


# -- brain → heart -------------------------------------------------------------


class Identify(Message, frozen=True):
    """The life to speak for, first thing and whenever it changes.  The heart
    draws a new salt, starts its sequence at 1 and forgets the old snapshot."""

    incarnation: Incarnation


class Renew(Message, frozen=True):
    """The brain is well: beat for another ``warntime``.  Sent every half of it.

    ``hears``: bit i set if the peer is heard on link i of the plan.
    """

    hears: int = 0


class Carry(Message, frozen=True):
    """The snapshot to bring to the peer from now on (``snapshot.encode``)."""

    version: int
    body: bytes


# -- heart → brain -------------------------------------------------------------


class FrameHeard(Message, frozen=True):
    """``events.FrameReceived``, to the letter."""

    link: str
    at_ms: int
    sender: str
    incarnation: Incarnation
    echo_sent_at_ms: int | None
    version: int
    hears: int
    brain_gone: bool


class SnapshotHeard(Message, frozen=True):
    """All parts of a snapshot arrived.  Not yet decoded: the brain does it.

    A heart that outlived its brain hands the last one to the new brain again.
    """

    sender: str
    incarnation: Incarnation
    version: int
    body: bytes


class LinkState(Message, frozen=True):
    """``events.LinkChanged``, to the letter."""

    link: str
    at_ms: int
    usable: bool
    carrier: Carrier
    detail: str


class HeartFigures(Message, frozen=True):
    """Once a second: what this heart measured and refused since it started."""

    realtime: bool
    locked: bool
    late_max_ms: int
    """The worst lateness of a beat of ours in the last minute."""
    rejected: dict[str, int]
    """Per link: frames that were no frames, forged, replayed or from another cluster."""
    gap_max_ms: dict[str, int]
    """Per link: the longest time between two frames of the peer in the last minute."""
    beat_at_ms: int = 0
    """When the heart last kept time with a brain that was well, on whatever links there are; 0: never."""


# -- brain → host --------------------------------------------------------------


class Do(Message, frozen=True):
    """``effects.RunAction``, to the letter."""

    action_id: int
    service: str
    resource: str
    action: Action
    timeout_ms: int
    depth: int
    recurring: bool


class Shoot(Message, frozen=True):
    """``effects.FencePeer``: run the fencing devices for ``node``."""

    request_id: int
    node: str
    delay_ms: int


class HoldFire(Message, frozen=True):
    """``effects.CancelFence``: kill the fencing agent if it still runs."""

    request_id: int


class Drill(Message, frozen=True):
    """Try every device that could power ``node`` off, harmlessly.  Answered by
    one ``Drilled`` a device; the last says that it is over."""

    drill_id: int
    node: str


class Goodbye(Message, frozen=True):
    """The brain is done: the host ends heart and itself with this exit code."""

    exit_code: int


class Alive(Message, frozen=True):
    """The brain's loop turned; the host passes it on to systemd's watchdog."""

    status: str
    """One line for ``systemctl status``."""
    ready: bool
    at_ms: int = 0
    """When it was said: words that queued while the host stood still feed no watchdog."""
    beat_at_ms: int = 0
    """``HeartFigures.beat_at_ms``, as the heart said last; 0 if there is no heart."""


class Reload(Message, frozen=True):
    """Read conf.d again.  Answered by one ``Reloaded``."""

    request_id: int


# -- host → brain --------------------------------------------------------------


class HeartForked(Message, frozen=True):
    """A heart runs; the socket to it comes along."""

    pid: int


class HeartGone(Message, frozen=True):
    detail: str


class Unfinished(Message, frozen=True):
    """The first message to a new brain: services with an action of an earlier
    life that did not finish; all that was left of those actions is killed."""

    services: tuple[str, ...]
    outdated: tuple[str, ...] = ()
    """Services of which something was started under another definition than conf.d's."""


class Done(Message, frozen=True):
    """``events.ActionFinished`` and what only people want to know."""

    action_id: int
    ok: bool
    health: Health | None
    timed_out: bool
    leftovers: int
    reason: str
    cure: str
    took_ms: int
    evidence: str
    """Path of the evidence file in the state directory, or empty."""
    pid: int | None
    """The process that is now watched for this resource."""


class Exited(Message, frozen=True):
    """``events.ProcessExited``: a watched process is gone."""

    service: str
    resource: str
    pid: int


class Shot(Message, frozen=True):
    """``events.FenceFinished``."""

    request_id: int
    confirmed: bool
    detail: str


class Trial(msgspec.Struct, frozen=True, array_like=True):
    """What a drill found of one device."""

    device: int
    """Its number in conf.d, from 0."""
    agent: str
    level: int
    ok: bool
    power: str
    """Of the node, as the device says: ``on`` or ``off``; empty if it failed or cannot tell."""
    reason: str
    cure: str
    took_ms: int
    at: float
    """Wall clock, seconds since 1970."""


class Drilled(Message, frozen=True):
    """All trials of a drill so far.  ``drill_id`` 0: nobody asked for it.
    ``detail``: why it ended before its time."""

    drill_id: int
    node: str
    trials: tuple[Trial, ...]
    is_over: bool
    detail: str = ""


class WatchdogIs(Message, frozen=True):
    """How the watchdog of conf.d is.  Before ``Unfinished`` to a new brain, and when it changes."""

    timeout_ms: int
    """Of the device, 0 if it is not armed."""
    bound_ms: int
    """At the latest so long after the last beat of a healthy heart this machine resets itself; 0: not armed."""
    identity: str
    """As its driver calls it."""
    detail: str
    """Why it is not armed."""


class ReloadOutcome(enum.Enum):
    """What came of reading conf.d again; the value is what tools see."""

    DONE = "done"
    SAME = "same"  # nothing differs from what hostd runs by
    BAD = "bad"  # it goes on by the old one
    FORBIDDEN = "forbidden"  # only a restart of both nodes can do that
    BUSY = "busy"  # not now; nothing was changed


class News(Message, frozen=True):
    """Something happened that somebody in conf.d is to be told of, at most once."""

    serial: int
    at: float
    """Wall clock, seconds since 1970."""
    fact: AnyFact


class Notified(Message, frozen=True):
    """What came of the delivery to one ``[[notify]]``: told, or ``failure``; or ``dropped`` before it was tried."""

    name: str
    failure: str = ""
    dropped: int = 0


class Reloaded(Message, frozen=True):
    """``text``: complaints, or why not.  After DONE this brain is about to be relieved."""

    request_id: int
    outcome: ReloadOutcome
    changes: tuple[Change, ...] = ()
    text: str = ""


class Unstopped(Message, frozen=True):
    """Services that conf.d no longer has and that could not be stopped, and why: all of them, whenever that changes."""

    services: dict[str, str]


class Relieved(Message, frozen=True):
    """Another brain is about to be forked, by a new configuration: close the books and end."""


class Signalled(Message, frozen=True):
    """The host got a signal that the brain must answer: TERM or INT (leave)."""

    signal: int


# -- host → heart --------------------------------------------------------------


class BrainForked(Message, frozen=True):
    """A brain runs; the socket to it comes along."""

    pid: int


class BrainGone(Message, frozen=True):
    """Say so in the heartbeat for at most ``warntime``, then be silent."""


AnyMessage = (
    Identify | Renew | Carry
    | FrameHeard | SnapshotHeard | LinkState | HeartFigures
    | Do | Shoot | HoldFire | Drill | Goodbye | Alive | Reload
    | HeartForked | HeartGone | Unfinished | Done | Exited | Shot | Signalled
    | News | Notified
    | Reloaded | Relieved | Unstopped | Drilled | WatchdogIs
    | BrainForked | BrainGone
)  # fmt: skip

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[AnyMessage] = msgspec.msgpack.Decoder(AnyMessage)


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected ends, both non-blocking and closed on exec."""
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    one.setblocking(False)
    other.setblocking(False)
    return one, other


def send(end: socket.socket, message: AnyMessage, fds: Sequence[int] = ()) -> bool:
    """Send one message, with open files beside it.

    False if the other end is gone or its buffer is full: both sides are
    built to do without any single message or are about to be replaced.
    """
    body = _encoder.encode(message)
    assert len(body) <= SIZE_MAX, (type(message).__name__, len(body))
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    try:
        end.sendmsg([body], ancillary)
    except (BlockingIOError, BrokenPipeError, ConnectionResetError):
        return False
    return True


def receive(end: socket.socket) -> tuple[AnyMessage, list[int]] | None:
    """The next message and the files that came with it.

    Raises ``BlockingIOError`` if there is none now; None at the end of file.
    """
    try:
        body, fds, _flags, _address = socket.recv_fds(end, SIZE_MAX, 4)
    except ConnectionResetError:
        return None
    if not body:
        return None
    return _decoder.decode(body), fds
