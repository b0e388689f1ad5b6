"""The operator's socket: one JSON request a line, one JSON answer a line.

Decides who may ask what, and how much of the brain's time anybody gets.
Refuses to know what the answers are: it hands each request to ``ask`` and
writes what comes back.  Input from anyone is untrusted: lines, clients,
waiting times and answers are bounded, and nothing that a client does or fails
to do can hurt the loop.

Members are root, our own user and group hostd: they may ask and order
everything.  If conf.d says so, there is a second socket for everyone.  Who
comes by it is a reader, may ask how things stand, and shares a small part of
our time with all other readers; who floods it keeps no member out, since the
kernel's queue of the first socket is another one.
"""

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Final

from hostd.decoding import UNDECODABLE
from hostd.requests import (
    ANSWER_SIZE_MAX,
    READERS_SOCKET_NAME,
    REQUEST_SIZE_MAX,
    AnyAnswer,
    AnyRequest,
    AskLedger,
    AskLog,
    AskReload,
    AskStatus,
    AskWhy,
    Rejected,
    Request,
    decode_request,
    encode,
)

CLIENTS_MAX: Final = 32
"""At once.  Commands are short; a display asks once a second and keeps one open."""
IDLE_MAX_S: Final = 60.0
"""A client that asks nothing for so long is sent away."""
WRITE_MAX_S: Final = 5.0
"""A client that does not read its answer for so long is sent away."""
TURN_AWAY_S: Final = 1.0
"""How long a client that is to be refused has for its request."""
ANSWER_MAX_S: Final = 10.0
"""The core answers in one step; longer means that the brain is in trouble."""

RELOAD_MAX_S: Final = 120.0
"""Reading conf.d, and starts and stops under way, have limits of their own, which come first."""
FINISH_MAX_S: Final = 0.5
FINISH_LOOK_S: Final = 0.005

READERS_MAX: Final = 8
"""At once; a little more are told that it is so."""
READER_PAUSE_S: Final = 0.05
"""After each answer to a reader: all of them together get 20 a second, of some milliseconds each."""
READING: Final = (AskStatus, AskLog, AskWhy, AskLedger)
"""What a reader may ask.  Not AskRunning: its digests of parameters come with their salt, and a short
password could be guessed from them."""

_SO_PEERGROUPS: Final = 59  # asm-generic/socket.h; not in Python's socket module
_PEERGROUPS_SIZE: Final = 1_024
"""Bytes, for 256 groups: Python's getsockopt takes no more."""
_GROUP: Final = "hostd"

Ask = Callable[[AnyRequest], Awaitable[AnyAnswer]]
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Control:
    """The listening socket at ``path``, perhaps the readers' one beside it, and their clients."""

    def __init__(self, path: Path, ask: Ask, *, status_for_everyone: bool = False) -> None:
        self._path, self._ask = path, ask
        self._readers_path = path.with_name(READERS_SOCKET_NAME)
        self._status_for_everyone = status_for_everyone
        self._readers = 0
        self._readers_turn = asyncio.Lock()
        self._gid = group_id()
        self._servers: list[asyncio.Server] = []
        self._clients: set[asyncio.Task[None]] = set()
        self._answering = 0

    async def open(self) -> None:
        """Listen.  A socket that an earlier life left behind is replaced (the
        host's lock excludes a living one).  Raises OSError."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        listener = _listener(self._path, 0o660)
        if self._gid is not None and os.geteuid() == 0:
            os.chown(self._path, 0, self._gid)
        self._servers.append(
            await asyncio.start_unix_server(
                partial(self._serve, self._serve_caller), sock=listener, limit=REQUEST_SIZE_MAX
            )
        )
        self._readers_path.unlink(missing_ok=True)
        if self._status_for_everyone:
            listener = _listener(self._readers_path, 0o666)
            serve = partial(self._serve, self._serve_reader)
            limit, backlog = REQUEST_SIZE_MAX, READERS_MAX  # of a flood, so few are taken in one turn of the loop
            self._servers.append(await asyncio.start_unix_server(serve, sock=listener, limit=limit, backlog=backlog))

    async def finish(self) -> None:
        """Let everybody who has asked have the answer, for a moment."""
        until = asyncio.get_running_loop().time() + FINISH_MAX_S
        while self._answering and asyncio.get_running_loop().time() < until:
            await asyncio.sleep(FINISH_LOOK_S)

    async def close(self) -> None:
        """Stop listening, send everybody away, remove the sockets."""
        if not self._servers:
            return
        for server in self._servers:
            server.close()
        clients = list(self._clients)
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
        for path in (self._path, self._readers_path):
            path.unlink(missing_ok=True)

    async def _serve(self, serve: Serve, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients.add(task)
        try:
            await serve(reader, writer)
        except (OSError, TimeoutError, asyncio.CancelledError):
            pass  # it went away, does not read, or we are closing
        finally:
            self._clients.discard(task)
            writer.transport.abort()  # never waits for a client that does not read
            with contextlib.suppress(OSError):  # else it may be told to the log that it broke
                await writer.wait_closed()

    async def _serve_caller(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._is_member(writer):
            await _turn_away(reader, writer, Rejected("not-allowed"))
        elif len(self._clients) - self._readers > CLIENTS_MAX:
            await _turn_away(reader, writer, Rejected("busy"))
        else:
            await self._converse(reader, writer, self._answer)

    async def _serve_reader(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._readers += 1
        try:
            if self._readers <= READERS_MAX:
                await self._converse(reader, writer, self._answer_reader)
            elif self._readers <= 2 * READERS_MAX:  # beyond it is a flood: no word, no open file for it
                await _turn_away(reader, writer, Rejected("busy"))
        finally:
            self._readers -= 1

    def _is_member(self, writer: asyncio.StreamWriter) -> bool:
        """Root, our own user, and members of group hostd, as the kernel names them."""
        end = writer.get_extra_info("socket")
        credentials = end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        _pid, uid, gid = struct.unpack("3i", credentials)
        if uid in (0, os.geteuid()):
            return True
        if self._gid is None:
            return False
        try:
            groups = end.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _PEERGROUPS_SIZE)
        except OSError:  # of more groups than fit
            groups = b""
        return self._gid in (gid, *struct.unpack(f"{len(groups) // 4}i", groups))

    async def _converse(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        answered: Callable[[bytes], Awaitable[AnyAnswer]],
    ) -> None:
        while True:
            try:
                async with asyncio.timeout(IDLE_MAX_S):
                    line = await reader.readuntil(b"\n")
            except asyncio.IncompleteReadError:
                return
            except asyncio.LimitOverrunError:
                await _write(writer, Rejected("bad-request", f"longer than {REQUEST_SIZE_MAX} bytes"))
                return
            self._answering += 1
            try:
                answer = await answered(line)
                await _write(writer, answer)
            finally:
                self._answering -= 1
            if isinstance(answer, Rejected) and answer.reason == "bad-request":
                return

    async def _answer_reader(self, line: bytes) -> AnyAnswer:
        async with self._readers_turn:
            await asyncio.sleep(READER_PAUSE_S)
            return await self._answer(line, may=READING)

    async def _answer(self, line: bytes, may: tuple[type[Request], ...] = (Request,)) -> AnyAnswer:
        try:
            request = decode_request(line)
        except UNDECODABLE as error:
            return Rejected("bad-request", str(error)[:200])
        if not isinstance(request, may):
            return Rejected("not-allowed")
        try:
            async with asyncio.timeout(RELOAD_MAX_S if isinstance(request, AskReload) else ANSWER_MAX_S):
                return await self._ask(request)
        except TimeoutError:
            return Rejected("too-slow")


def _listener(path: Path, mode: int) -> socket.socket:
    """Bound, with this mode from the first moment on."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    umask = os.umask(0o777 & ~mode)
    try:
        listener.bind(str(path))
    finally:
        os.umask(umask)
    return listener


async def _turn_away(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: Rejected) -> None:
    """Answer after the request was read: a client whose request is cut off never sees the answer."""
    with contextlib.suppress(TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        async with asyncio.timeout(TURN_AWAY_S):
            await reader.readuntil(b"\n")
    await _write(writer, answer)


async def _write(writer: asyncio.StreamWriter, answer: AnyAnswer) -> None:
    body = encode(answer)
    assert len(body) <= ANSWER_SIZE_MAX, len(body)
    writer.transport.set_write_buffer_limits(high=0)  # so that drain() waits for the last byte
    writer.write(body)
    async with asyncio.timeout(WRITE_MAX_S):
        await writer.drain()


def group_id() -> int | None:
    """The id of group hostd, or None.  From /etc/group itself: a look-up by way
    of a name service may wait for the very directory server that we manage."""
    try:
        lines = Path("/etc/group").read_text(errors="replace").splitlines()
    except OSError:
        return None
    for line in lines:
        name, _, rest = line.partition(":")
        number = rest.split(":")[1:2]
        if name == _GROUP and number and number[0].isdigit():
            return int(number[0])
    return None
