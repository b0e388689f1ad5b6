"""The operator's socket: one JSON request a line, one JSON answer a line.

Decides who may ask and how much of the brain's time anybody gets.  Refuses to
know what the answers are: it hands each request to ``ask`` and writes what
comes back.  Input from anyone is untrusted: lines, clients, waiting times and
answers are bounded, and nothing that a client does or fails to do can hurt
the loop.
"""

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import msgspec

from hostd.requests import (
    ANSWER_SIZE_MAX,
    REQUEST_SIZE_MAX,
    AnyAnswer,
    AnyRequest,
    AskReload,
    Rejected,
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

_SO_PEERGROUPS: Final = 59  # asm-generic/socket.h; not in Python's socket module
_GROUP: Final = "hostd"

Ask = Callable[[AnyRequest], Awaitable[AnyAnswer]]


class Control:
    """The listening socket at ``path`` and its clients."""

    def __init__(self, path: Path, ask: Ask) -> None:
        self._path, self._ask = path, ask
        self._gid = group_id()
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.Task[None]] = set()
        self._answering = 0

    async def open(self) -> None:
        """Listen.  A socket that an earlier life left behind is replaced (the
        host's lock excludes a living one).  Raises OSError."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        umask = os.umask(0o117)  # 0660 from the first moment on
        try:
            listener.bind(str(self._path))
        finally:
            os.umask(umask)
        if self._gid is not None and os.geteuid() == 0:
            os.chown(self._path, 0, self._gid)
        self._server = await asyncio.start_unix_server(self._serve, sock=listener, limit=REQUEST_SIZE_MAX)

    async def finish(self) -> None:
        """Let everybody who has asked have the answer, for a moment."""
        until = asyncio.get_running_loop().time() + FINISH_MAX_S
        while self._answering and asyncio.get_running_loop().time() < until:
            await asyncio.sleep(FINISH_LOOK_S)

    async def close(self) -> None:
        """Stop listening, send everybody away, remove the socket."""
        if self._server is None:
            return
        self._server.close()
        clients = list(self._clients)
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
        self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients.add(task)
        try:
            if not self._is_allowed(writer):
                await _turn_away(reader, writer, Rejected("not-allowed"))
            elif len(self._clients) > CLIENTS_MAX:
                await _turn_away(reader, writer, Rejected("busy"))
            else:
                await self._converse(reader, writer)
        except (OSError, TimeoutError, asyncio.CancelledError):
            pass  # it went away, does not read, or we are closing
        finally:
            self._clients.discard(task)
            writer.transport.abort()  # never waits for a client that does not read

    def _is_allowed(self, writer: asyncio.StreamWriter) -> bool:
        """Root, our own user, and members of group hostd, as the kernel names them."""
        end = writer.get_extra_info("socket")
        credentials = end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        _pid, uid, gid = struct.unpack("3i", credentials)
        if uid in (0, os.geteuid()):
            return True
        if self._gid is None:
            return False
        try:
            groups = end.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, 4 * 1024)
        except OSError:  # more than 1,024 groups, or an old kernel
            groups = b""
        return self._gid in (gid, *struct.unpack(f"{len(groups) // 4}i", groups))

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
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
                answer = await self._answer(line)
                await _write(writer, answer)
            finally:
                self._answering -= 1
            if isinstance(answer, Rejected) and answer.reason == "bad-request":
                return

    async def _answer(self, line: bytes) -> AnyAnswer:
        try:
            request = decode_request(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return Rejected("bad-request", str(error)[:200])
        try:
            async with asyncio.timeout(RELOAD_MAX_S if isinstance(request, AskReload) else ANSWER_MAX_S):
                return await self._ask(request)
        except TimeoutError:
            return Rejected("too-slow")


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
