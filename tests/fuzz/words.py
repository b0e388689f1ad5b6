"""What is said on this machine: the operator's socket, messages and pipes, files of an earlier life.

Decides what may stand there after a crash, a damaged disk or a client with a
mind of its own, and what must hold.  Files are root's: here it is damage that
is feared, not malice; the socket is open to every member of group hostd.
"""

import asyncio
import atexit
import os
import shutil
import struct
import tempfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, Final

import msgspec

from hostd import action, bulletin, device_child, former_addresses, messages, recorder, state
from hostd.answering import Desk
from hostd.config import Directories
from hostd.control import Control
from hostd.core import snapshot as snapshots
from hostd.core import wire
from hostd.core.effects import AnswerOperator, Publish
from hostd.core.events import AnyCommand, AnyEvent, OperatorAsked, Started
from hostd.core.node import Node
from hostd.core.terms import Incarnation
from hostd.decoding import UNDECODABLE
from hostd.figures import Figures
from hostd.hearing import event_of
from hostd.left_behind import LeftBehind
from hostd.messages import AnyMessage, Reloaded, ReloadOutcome
from hostd.origins import Origins
from hostd.recorder import Timeline
from hostd.records import Records
from hostd.requests import (
    ANSWER_SIZE_MAX,
    AnyAnswer,
    AnyRequest,
    AskStatus,
    Order,
    Rejected,
    decode_answer,
    decode_request,
    encode,
)
from tests.fuzz.frames import PLAN
from tests.fuzz.script import Script
from tests.fuzz.target import Target
from tests.fuzz.typed import NUMBERS, Drawn

WORDS: Final = ("a", "b", "web", "", "dummy", "lan", "c", "192.0.2.1/24", "boot")
LINES_MAX: Final = 8


# -- the operator's socket -----------------------------------------------------------------


class Brain:
    """A desk and the core behind it, joined as the daemon joins them."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop, self._now_ms = loop, 1_000
        self.core = Node(PLAN, "a")
        self.core.step(self._now_ms, Started(Incarnation(9, 9)))
        timeline = Timeline(Path("/nonexistent"), nobody())
        self.desk = Desk(self.core, Figures(), timeline, self._put, self._tell_host, None, Directories())
        self.control = Control(Path("/nonexistent"), self.desk.ask)
        self.failure: BaseException | None = None
        """In a callback, where the loop would only log it."""
        loop.set_exception_handler(lambda _loop, context: setattr(self, "failure", context.get("exception")))

    def _put(self, event: OperatorAsked) -> None:
        self._loop.call_soon(self._step, event)

    def _step(self, event: AnyEvent) -> None:
        self._now_ms += 100
        for effect in self.core.step(self._now_ms, event):
            if isinstance(effect, AnswerOperator):
                self.desk.answer(effect)
            elif isinstance(effect, Publish):
                snapshots.encode(effect.snapshot)

    def _tell_host(self, message: messages.Reload | messages.Drill) -> None:
        if isinstance(message, messages.Reload):
            self._loop.call_soon(self.desk.reloaded, Reloaded(message.request_id, ReloadOutcome.SAME))


@cache
def nobody() -> ThreadPoolExecutor:
    """A disk that is never written to."""
    return ThreadPoolExecutor(1)


@cache
def a_loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


def ask_lines(data: bytes) -> int:
    """Lines of a client, all of one brain: each gets an answer that goes through the socket."""
    loop = a_loop()
    brain = Brain(loop)
    lines = data.split(b"\n")[:LINES_MAX]
    for line in lines:
        try:
            request = decode_request(line)
        except UNDECODABLE:
            request = None
        if request is not None:
            assert decode_request(encode(request)) == request
        answer = loop.run_until_complete(brain.control._answer(line + b"\n"))
        if brain.failure is not None:
            raise brain.failure
        body = encode(answer)
        assert len(body) <= ANSWER_SIZE_MAX and body.count(b"\n") == 1
        assert decode_answer(body) == answer
        assert request is not None or (isinstance(answer, Rejected) and answer.reason == "bad-request")
    return len(lines)


def ask_typed(data: bytes) -> int:
    """Requests that are ones, with any values in them."""
    drawn = Drawn(script := Script(data), WORDS, (*NUMBERS, 2**64, -(2**64), 10**40))  # as JSON carries them
    requests: list[bytes] = []
    while not script.is_over and len(requests) < LINES_MAX:
        request = Order(drawn.value(AnyCommand)) if script.byte() % 2 else drawn.value(AnyRequest)
        requests.append(encode(request).rstrip())
    return ask_lines(b"\n".join(requests))


def line_seeds() -> list[bytes]:
    orders = [
        b'{"type":"Order","command":{"type":"MoveService","service":"web","node":"b"}}',
        b'{"type":"Order","command":{"type":"Detach","for_ms":60000}}',
        b'{"type":"Order","command":{"type":"Detach","for_ms":99999999999999999999}}',
        b'{"type":"Order","command":{"type":"SetStandby","node":"a","standby":true}}',
        b'{"type":"Order","command":{"type":"SetMaintenance","on":true}}',
        b'{"type":"AskLog","since":0.5,"service":"web","limit":3}', b'{"type":"AskDrill","node":"b"}',
        b'{"type":"AskWhy","service":"web"}', b'{"type":"AskLedger"}', b'{"type":"AskReload"}',
        b'{"type":"AskRunning"}',
    ]  # fmt: skip
    return [encode(AskStatus()), *orders, b"\n".join(orders), b"[" * 2_000, b'{"type":"\xff"}']


# -- messages and pipes ---------------------------------------------------------------------


def decode_message(data: bytes) -> int:
    """Any bytes between our processes, and from a child that a broken agent has written through."""
    try:
        message = messages._decoder.decode(data)
    except UNDECODABLE:
        pass
    else:
        assert messages._decoder.decode(messages._encoder.encode(message)) == message
        event_of(message)
    for read in (action._read, device_child._read):
        read(data)
    return 3


def round_trip(data: bytes) -> int:
    """Every structure that is ever encoded comes out as it went in."""
    drawn = Drawn(Script(data), WORDS)
    kinds: tuple[Any, ...] = (AnyMessage, AnyEvent, snapshots.Snapshot, recorder.AnyFrame, AnyRequest, AnyAnswer)
    for kind in kinds:
        value = drawn.value(kind)
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(value), type=kind) == value
    for kind in (AnyRequest, AnyAnswer):
        value = drawn.value(kind)
        assert msgspec.json.decode(msgspec.json.encode(value), type=kind) == value
    return len(kinds) + 2


def message_seeds() -> list[bytes]:
    encode_message = messages._encoder.encode
    return [
        encode_message(messages.Renew(3)),
        encode_message(messages.Identify(Incarnation(1, 2))),
        encode_message(messages.FrameHeard("lan", 1, "b", Incarnation(1, 1), None, 1, 0, False)),
        encode_message(messages.Done(1, True, None, False, 0, "", "", 1, "", None)),
        encode_message(messages.Reloaded(1, ReloadOutcome.DONE)),
        msgspec.msgpack.encode(device_child.Word(ok=True, said="off")),
        b"\x82\xa2ok\xc3\xa4said\xa1\xff",
    ]


# -- files of an earlier life -----------------------------------------------------------------


@cache
def folder() -> Path:
    """A folder of this process's own."""
    made = Path(tempfile.mkdtemp(prefix="hostd-fuzz-"))
    owner = os.getpid()
    atexit.register(lambda: os.getpid() == owner and shutil.rmtree(made, ignore_errors=True))
    return made


def read_files(data: bytes) -> int:
    """What hostd reads at its start, one file of it with these bytes: it starts all the same."""
    script = Script(data)
    read = script.choice(
        (_read_incarnation, _read_wishes, _read_seen, _read_timeline, _read_flight, _read_records, _read_origins,
         _read_note, _read_addresses, _read_told)
    )  # fmt: skip
    read(script.rest())
    return 1


def _read_incarnation(data: bytes) -> None:
    (folder() / state._COUNTER).write_bytes(data)
    drawn = state.next_incarnation(folder())
    assert Incarnation(1_700_000_000, 0) < drawn
    assert drawn.boot <= wire.BOOT_MAX, "no frame can be sealed under it"
    assert state.next_incarnation(folder(), drawn) > drawn


def _read_wishes(data: bytes) -> None:
    (folder() / state._WISHES).write_bytes(data)
    wishes, complaint = state.load_wishes(folder())
    if complaint:
        assert wishes == ()
        return
    state.save_wishes(folder(), wishes)
    assert state.load_wishes(folder()) == (wishes, "")
    core = Node(PLAN, "a")
    for effect in core.step(1_000, Started(Incarnation(9, 9), wishes=wishes)):
        if isinstance(effect, Publish):
            snapshots.encode(effect.snapshot)


def _read_seen(data: bytes) -> None:
    (folder() / state._SEEN).write_bytes(data)
    seen = state.first_seen(folder(), ("web",), 1e9)
    assert list(seen) == ["web"] and seen["web"] <= 1e9
    assert round((1e9 - seen["web"]) * 1_000) >= 0  # as the brain reckons the probation


def _read_timeline(data: bytes) -> None:
    (folder() / "timeline.jsonl").write_bytes(data)
    for entry in recorder.read_timeline(folder()):
        recorder.line_of(entry.fact)


def _read_flight(data: bytes) -> None:
    """As it is, and with a right checksum, which damage in memory has."""
    path = folder() / "flight-00000001.rec"
    for body in (data, struct.pack("<II", len(data), zlib.crc32(data)) + data):
        path.write_bytes(body)
        assert len(list(recorder.read(path))) <= len(body)


def _read_records(data: bytes) -> None:
    place = folder() / "records"
    records = Records(place)
    (place / "one.json").write_bytes(data)
    records.unfinished("boot")


def _read_origins(data: bytes) -> None:
    place = folder() / "origins"
    place.mkdir(exist_ok=True)
    (place / "one.json").write_bytes(data)
    Origins(place, "boot")


def _read_note(data: bytes) -> None:
    (folder() / "may-run").write_bytes(data)
    assert LeftBehind(folder(), ("web",)).services <= {"web"}


def _read_addresses(data: bytes) -> None:
    path = folder() / former_addresses.FILE_NAME
    path.write_bytes(data)
    former_addresses.clear(_NoAddresses(), folder(), PLAN, (), ())  # type: ignore[arg-type]


class _NoAddresses:
    """Of which none is here."""

    def remove_former(self, ip: object) -> tuple[bool, str]:
        return False, ""


def _read_told(data: bytes) -> None:
    path = folder() / "told.json"
    path.write_bytes(data)
    bulletin._read(path)


def file_seeds() -> list[bytes]:
    return [
        b"\x00" + b"1790000000\n", b"\x00" + b"9" * 18, b"\x01" + b'[[4,"web","b",7,"a"]]\n', b"\x01[]",
        b'\x01[[4,"web","b",99999999999999999999,"a"]]',
        b"\x02" + b'{"web":1700000000.5}', b'\x03{"at":1.0,"node":"a","fact":{"type":"PlansDiffer"}}\n',
        b"\x04\x94\xa6Record\x01\x91\xaaTimerFired", b"\x04\x92\xa3Gap\x05",
        b'\x05{"service":"web","resource":"r","action":"start","changes":true,"boot":"boot","token":"t"}',
        b'\x06{"service":"web","resource":"r","agent":"x","written":{},"place":0,"stop_timeout_ms":1,'
        b'"monitor_timeout_ms":1,"boot":"boot"}',
        b'\x07{"boot":"x","services":["web"]}', b'\x08["192.0.2.9/24"]', b'\x08["nonsense"]', b'\x01["\xff"]',
    ]  # fmt: skip


TARGETS: Final = (
    Target("control", "lines of any bytes on the operator's socket", ask_lines, line_seeds, 4_096),
    Target("orders", "requests and orders with any values", ask_typed, lambda: [bytes(range(40)), b"\1" * 40], 512),
    Target("message", "any bytes between our processes", decode_message, message_seeds, 2_048),
    Target(
        "round-trip", "every structure comes out as it went in", round_trip, lambda: [bytes(range(200)), b"\1"], 2_048
    ),
    Target("files", "records and state on the disk, damaged", read_files, file_seeds, 2_048),
)
