"""The operator's socket against clients of every kind."""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from hostd import control
from hostd.control import Control
from hostd.core.events import Leave
from hostd.requests import (
    REQUEST_SIZE_MAX,
    AnyAnswer,
    AnyRequest,
    AskLog,
    LogIs,
    Order,
    Rejected,
    Taken,
    decode_answer,
    encode,
)


async def answer(request: AnyRequest) -> AnyAnswer:
    return Taken(7) if isinstance(request, Order) else LogIs(())


def run(path: Path, talk: Callable[[], Awaitable[None]], ask: control.Ask = answer) -> None:
    """``talk`` while a control socket is open at ``path``."""

    async def whole() -> None:
        listening = Control(path, ask)
        await listening.open()
        try:
            async with asyncio.timeout(20):
                await talk()
        finally:
            await listening.close()
        assert not path.exists()

    asyncio.run(whole())


async def converse(path: Path, *lines: bytes) -> list[AnyAnswer]:
    """Write all lines, read answers until the other side has no more or there is one for each."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(b"".join(lines))
    answers = []
    for _ in lines:
        try:
            line = await reader.readline()
        except ConnectionResetError:
            break
        if not line:
            break
        answers.append(decode_answer(line))
    writer.close()
    return answers


def test_one_request_a_line_one_answer_a_line_in_order(tmp_path: Path) -> None:
    """Several requests on one connection are answered one after the other."""
    path = tmp_path / "hostd.sock"

    async def talk() -> None:
        answers = await converse(path, encode(AskLog()), encode(Order(Leave())), encode(AskLog()))
        assert answers == [LogIs(()), Taken(7), LogIs(())]

    run(path, talk)


@pytest.mark.parametrize(
    "garbage",
    [
        b"\n",
        b"\x00\xff\xfe\n",
        b"[[[[\n",
        b'{"type":"AskWhy"}\n',
        b'{"type":"Order","command":{"type":"Nothing"}}\n',
        b"[" * 60_000 + b"\n",
        b'{"type":"AskLog","since":"' + b"9" * 50_000 + b'"}\n',
    ],
)
def test_garbage_is_rejected_and_the_next_client_is_served(tmp_path: Path, garbage: bytes) -> None:
    """What is no request is answered with the reason, and then that client is sent away."""
    path = tmp_path / "hostd.sock"

    async def talk() -> None:
        (rejected, *more) = await converse(path, garbage, encode(AskLog()))
        assert isinstance(rejected, Rejected)
        assert rejected.reason == "bad-request"
        assert more == []
        assert await converse(path, encode(AskLog())) == [LogIs(())]

    run(path, talk)


def test_an_endless_line_is_cut_off(tmp_path: Path) -> None:
    """A line beyond the limit is refused before it is held in memory."""
    path = tmp_path / "hostd.sock"

    async def talk() -> None:
        (rejected,) = await converse(path, b"x" * (REQUEST_SIZE_MAX * 3))
        assert isinstance(rejected, Rejected)
        assert rejected.reason == "bad-request"

    run(path, talk)


def test_clients_that_say_nothing_or_read_nothing_keep_nobody_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside silent clients and one that never reads a huge answer, another is served at once."""
    path = tmp_path / "hostd.sock"
    monkeypatch.setattr(control, "WRITE_MAX_S", 0.3)

    async def huge(request: AnyRequest) -> AnyAnswer:
        return Rejected("busy", "x" * 5_000_000) if isinstance(request, Order) else LogIs(())

    async def talk() -> None:
        silent = [await asyncio.open_unix_connection(str(path)) for _ in range(10)]
        deaf = socket.socket(socket.AF_UNIX)
        deaf.connect(str(path))
        deaf.sendall(encode(Order(Leave())))
        async with asyncio.timeout(2):
            assert await converse(path, encode(AskLog())) == [LogIs(())]
        await asyncio.sleep(0.5)
        received = 0
        while chunk := deaf.recv(1_000_000):  # it was sent away: an end, not a wait
            received += len(chunk)
        assert received < 5_000_000
        deaf.close()
        for _, writer in silent:
            writer.close()

    run(path, talk, huge)


def test_too_many_clients_are_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limit a client is told "busy", and is served when others have gone."""
    path = tmp_path / "hostd.sock"
    monkeypatch.setattr(control, "CLIENTS_MAX", 3)

    async def talk() -> None:
        held = [await asyncio.open_unix_connection(str(path)) for _ in range(3)]
        for _, writer in held:
            writer.write(encode(AskLog()))
        for reader, _ in held:
            await reader.readline()
        assert await converse(path, encode(AskLog())) == [Rejected("busy")]
        for _, writer in held:
            writer.close()
        await asyncio.sleep(0.1)
        assert await converse(path, encode(AskLog())) == [LogIs(())]

    run(path, talk)


def test_a_request_that_takes_too_long_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the core does not answer, the client gets a word instead of silence."""
    path = tmp_path / "hostd.sock"
    monkeypatch.setattr(control, "ANSWER_MAX_S", 0.1)

    async def never(request: AnyRequest) -> AnyAnswer:
        await asyncio.Event().wait()
        raise AssertionError

    async def talk() -> None:
        assert await converse(path, encode(AskLog())) == [Rejected("too-slow")]

    run(path, talk, never)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")
def test_strangers_are_refused_by_the_mode_and_by_their_credentials(tmp_path: Path) -> None:
    """Another user cannot connect; if the mode is opened by hand, the kernel's word on him still counts."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == 0 and str(folder).startswith("/tmp/"):
            folder.chmod(0o755)
    path = tmp_path / "hostd.sock"

    async def as_nobody() -> bytes:
        script = (
            "import os,socket,sys\nos.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
            "s=socket.socket(socket.AF_UNIX)\n"
            "try: s.connect(sys.argv[1])\nexcept PermissionError: print('no'); sys.exit()\n"
            "s.sendall(sys.argv[2].encode()); print(s.makefile().readline())\n"
        )
        child = await asyncio.create_subprocess_exec(
            "python3", "-c", script, str(path), encode(AskLog()).decode(), stdout=asyncio.subprocess.PIPE
        )
        out, _ = await child.communicate()
        return out.strip()

    async def talk() -> None:
        assert path.stat().st_mode & 0o777 == 0o660
        assert await as_nobody() == b"no"
        path.chmod(0o666)
        assert decode_answer(await as_nobody()) == Rejected("not-allowed")

    run(path, talk)


def test_a_socket_left_behind_is_replaced(tmp_path: Path) -> None:
    """The socket of a brain that was killed does not keep the next one from listening."""
    path = tmp_path / "hostd.sock"
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(path))
    dead.close()

    async def talk() -> None:
        assert await converse(path, encode(AskLog())) == [LogIs(())]

    run(path, talk)
