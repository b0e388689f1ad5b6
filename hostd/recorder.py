"""What happened: the flight recorder for engineers, the timeline for operators.

The flight recorder keeps every ``(now_ms, event)`` that the core was stepped
with, in a ring of files; each file begins with the plan and, unless it begins
a life, a checkpoint of the core, so that every file by itself can be replayed
through the core and gives the same effects.  The timeline keeps facts.

Decides what is kept and for how long.  Refuses to know what an event means.
The loop only appends to memory; a disk that hangs costs records, which are
counted, and never costs the loop a moment.
"""

import enum
import json
import os
import struct
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Final

import msgspec

from hostd import state
from hostd.core.effects import AnyFact
from hostd.core.events import AnyEvent
from hostd.core.plan import Plan
from hostd.decoding import UNDECODABLE
from hostd.requests import Entry

FORMAT: Final = 1
FILE_SIZE_MAX: Final = 8_000_000
"""About two hours of two nodes with three links; events are about 40 bytes, 30 a second."""
FILES_MAX: Final = 4
PENDING_MAX: Final = 4_000_000
"""Bytes in memory while the disk hangs; then records are dropped and counted."""
TIMELINE_MAX: Final = 5_000
"""Entries in memory; some weeks of an ordinary pair."""
TIMELINE_SIZE_MAX: Final = 1_000_000
"""Bytes of each of the two timeline files: about as many entries as are kept in memory."""

_FRAME = struct.Struct("<II")  # length of the body, its CRC-32


class Header(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The first frame of every file."""

    format: int
    release: str
    node: str
    plan: Plan
    wall: float
    at_ms: int
    checkpoint: bytes = b""
    """Of the core as it stood here (pickle, of this release); empty at the start of a life."""


class Record(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """One step of the core."""

    now_ms: int
    event: AnyEvent


class Gap(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """So many records were lost here because the disk did not keep up."""

    lost: int


AnyFrame = Header | Record | Gap

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[AnyFrame] = msgspec.msgpack.Decoder(AnyFrame)


class Recorder:
    """The flight recorder of one brain.

    ``header``: makes the first frame of a file; called in the loop.
    ``disk``: the brain's one disk thread.  Files that cannot be written are
    counted in ``failures``; the recorder goes on trying.
    """

    def __init__(self, folder: Path, header: Callable[[], Header], disk: Executor) -> None:
        self._folder, self._header, self._disk = folder, header, disk
        self._pending: list[bytes] = []
        self._pending_size = 0
        self._lost = 0
        self._writing: Future[None] | None = None
        self._size = FILE_SIZE_MAX  # so that the first record opens a file
        self.lost_total = 0
        self.failures = 0

    def record(self, now_ms: int, event: AnyEvent) -> None:
        """Keep one step.  Called before the step, so that a step that crashes is on record."""
        if self._pending_size > PENDING_MAX:
            self._lost += 1
            self.lost_total += 1
            return
        if self._size >= FILE_SIZE_MAX:
            self._size = 0
            self._append(b"", _frame(self._header()))
        if self._lost:
            self._append(_frame(Gap(self._lost)))
            self._lost = 0
        self._append(_frame(Record(now_ms, event)))

    def _append(self, *pieces: bytes) -> None:
        # An empty piece marks the beginning of a file: no frame is empty.
        self._pending += pieces
        size = sum(map(len, pieces))
        self._pending_size += size
        self._size += size

    def flush(self) -> Future[None] | None:
        """Hand what is pending to the disk thread, unless it is still busy with the last time."""
        if self._writing is not None and not self._writing.done():
            return self._writing
        if not self._pending:
            return None
        pieces, self._pending, self._pending_size = self._pending, [], 0
        self._writing = self._disk.submit(self._write, pieces)
        return self._writing

    def _write(self, pieces: list[bytes]) -> None:
        """In the disk thread."""
        try:
            start = 0
            for index, piece in enumerate(pieces):
                if not piece:
                    self._extend(pieces[start:index])
                    start = index + 1
                    self._open_next()
            self._extend(pieces[start:])
        except OSError:
            self.failures += 1

    def _extend(self, pieces: list[bytes]) -> None:
        files = flights(self._folder)
        if pieces and files:
            with open(files[-1], "ab", opener=_private) as file:
                file.write(b"".join(pieces))

    def _open_next(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        files = flights(self._folder)
        for old in files[: max(0, len(files) - FILES_MAX + 1)]:
            old.unlink(missing_ok=True)
        number = int(files[-1].stem.removeprefix("flight-")) + 1 if files else 1
        path = self._folder / f"flight-{number:08}.rec"
        path.unlink(missing_ok=True)  # no file of ours has this number
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


def _frame(content: AnyFrame) -> bytes:
    body = _encoder.encode(content)
    return _FRAME.pack(len(body), zlib.crc32(body)) + body


def flights(folder: Path) -> list[Path]:
    """The recorder's files, oldest first."""
    found = (path for path in folder.glob("flight-*.rec") if path.stem[7:].isdecimal())
    return sorted(path for path in found if path.is_file() and not path.is_symlink())


def read(path: Path) -> Iterator[AnyFrame]:
    """The frames of one file.  Ends at the first that is torn or damaged (a
    power cut); raises OSError if the file cannot be read at all."""
    with open(path, "rb") as file:
        while len(head := file.read(_FRAME.size)) == _FRAME.size:
            length, crc = _FRAME.unpack(head)
            if length > 2 * FILE_SIZE_MAX:
                return
            body = file.read(length)
            if len(body) < length or zlib.crc32(body) != crc:
                return
            try:
                yield _decoder.decode(body)
            except UNDECODABLE:  # of another release, or damaged
                return


class Timeline:
    """Facts, newest last: in memory for the operator, on disk for the next life."""

    def __init__(self, folder: Path, disk: Executor, *, wall: Callable[[], float] = time.time) -> None:
        self._path, self._disk, self._wall = folder / "timeline.jsonl", disk, wall
        self._entries: deque[Entry] = deque(read_timeline(folder), maxlen=TIMELINE_MAX)
        self._pending: deque[Entry] = deque(maxlen=TIMELINE_MAX)
        self._writing: Future[None] | None = None
        self.failures = 0

    def add(self, node: str, fact: AnyFact, *, observed: bool = False, silent_ms: int | None = None) -> Entry:
        entry = Entry(self._wall(), node, fact, observed, silent_ms)
        self._entries.append(entry)
        self._pending.append(entry)
        return entry

    def entries(self, *, since: float = 0.0, service: str = "", limit: int = TIMELINE_MAX) -> list[Entry]:
        """The newest ``limit`` after ``since``, oldest first; those of a service and of no service."""
        chosen = [
            entry
            for entry in self._entries
            if entry.at >= since and (not service or getattr(entry.fact, "service", service) == service)
        ]
        return chosen[-limit:] if limit > 0 else []

    def flush(self) -> Future[None] | None:
        if self._writing is not None and not self._writing.done():
            return self._writing
        if not self._pending:
            return None
        entries = list(self._pending)
        self._pending.clear()
        self._writing = self._disk.submit(self._write, entries)
        return self._writing

    def _write(self, entries: list[Entry]) -> None:
        """In the disk thread."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            if self._path.exists() and self._path.stat().st_size > TIMELINE_SIZE_MAX:
                self._path.replace(self._path.with_suffix(".jsonl.1"))
            with open(self._path, "ab", opener=_private) as file:
                file.write(b"".join(msgspec.json.encode(entry) + b"\n" for entry in entries))
        except OSError:
            self.failures += 1


def _private(path: str, flags: int) -> int:
    """Never through a link: nobody but root should be able to put one there, and ours are none."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)


def read_timeline(folder: Path) -> Iterator[Entry]:
    """What the files hold, oldest first; lines that are no entries are passed over."""
    decoder = msgspec.json.Decoder(Entry)
    for name in ("timeline.jsonl.1", "timeline.jsonl"):
        try:
            lines = state.read(folder / name, 2 * TIMELINE_SIZE_MAX).splitlines()
        except OSError:
            continue
        for line in lines:
            try:
                yield decoder.decode(line)
            except UNDECODABLE:
                continue


def line_of(fact: AnyFact) -> str:
    """One line for the log, in names only: ``ServiceTurned service=mysql state=running why=primary``."""
    return " ".join([type(fact).__name__, *_fields(fact)])


def _fields(thing: msgspec.Struct) -> Iterator[str]:
    for name in thing.__struct_fields__:
        value = getattr(thing, name)
        if isinstance(value, msgspec.Struct):
            yield from _fields(value)
        elif isinstance(value, enum.Enum):
            yield f"{name}={value.name.lower()}"
        elif isinstance(value, tuple):
            yield f"{name}={','.join(map(str, value)) or '-'}"
        elif value not in ("", None):
            yield f"{name}={json.dumps(value) if isinstance(value, str) and ' ' in value else value}"
