"""The operator's socket against clients of every kind."""

import asyncio
import os
import socket
import subprocess
import sys
import tempfile
import time
import typing
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from hostd import config, control
from hostd.api import Parameters
from hostd.control import Control
from hostd.core.events import Leave
from hostd.requests import (
    REQUEST_SIZE_MAX,
    AnyAnswer,
    AnyRequest,
    AskDrill,
    AskLedger,
    AskLog,
    AskStatus,
    AskWhy,
    LogIs,
    Order,
    Rejected,
    Taken,
    decode_answer,
    encode,
)


async def answer(request: AnyRequest) -> AnyAnswer:
    return Taken(7) if isinstance(request, Order) else LogIs(())


def run(
    path: Path, talk: Callable[[], Awaitable[None]], ask: control.Ask = answer, *, status_for_everyone: bool = False
) -> None:
    """``talk`` while a control socket is open at ``path``."""

    async def whole() -> None:
        listening = Control(path, ask, status_for_everyone=status_for_everyone)
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


@pytest.mark.parametrize(
    ("line", "everyone"), [("", False), ('status = "group"', False), ('status = "everyone"', True)]
)
def test_conf_d_says_who_may_ask(tmp_path: Path, line: str, everyone: bool) -> None:
    """`[cluster] status`; closed unless it says otherwise, and no part of what both nodes must agree on."""
    link = '[[heartbeat.link]]\ntype = "t"\n'
    digests = set()
    for text in (line, ""):
        (tmp_path / "0.toml").write_text(f'[cluster]\nname = "x"\nnodes = ["a", "b"]\n{text}\n{link}')
        loaded = config.load(tmp_path, "a", lambda _reference: Parameters(), {"t": Parameters()})
        digests.add(loaded.plan.digest)
        assert loaded.status_for_everyone == (everyone and bool(text))
    assert len(digests) == 1


# -- people of this machine ------------------------------------------------------------------

NOBODY, MEMBER_GID = 65_534, 64_321

AS_SOMEBODY = """
import os, socket, sys, time
path, uid, gids, seconds, *lines = sys.argv[1:]
gids = [int(gid) for gid in gids.split(",") if gid]
os.setgroups(gids); os.setgid(65534); os.setuid(int(uid))
until = time.monotonic() + float(seconds)
while True:
    end = socket.socket(socket.AF_UNIX)
    try:
        end.connect(path)
        end.sendall("".join(line + "\\n" for line in lines).encode())
        answers = end.makefile("rb")
        said = [answers.readline().decode().strip() for _ in lines]
    except PermissionError:
        said = ["no"]
    except OSError:
        said = ["cut off"]
    if time.monotonic() >= until:
        break
print(*said, sep="\\n")
"""


async def somebody(
    path: Path, *requests: AnyRequest, gids: str = "", uid: int = NOBODY, seconds: float = 0
) -> list[str]:
    """What a process of this user reads for each request; with ``seconds`` it connects and asks all the while."""
    lines = [encode(request).decode().strip() for request in requests]
    words = [sys.executable, "-c", AS_SOMEBODY, str(path), str(uid), gids, str(seconds), *lines]
    done = await asyncio.to_thread(subprocess.run, words, stdout=subprocess.PIPE, text=True, timeout=20, check=True)
    return done.stdout.splitlines()


@pytest.fixture
def street() -> Iterator[Path]:
    """Where a socket may stand that everybody can reach, were it not for its mode."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder) / "hostd.sock"


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")


@needs_root
def test_strangers_are_refused_by_the_mode_and_by_their_credentials(street: Path) -> None:
    """Another user cannot connect; if the mode is opened by hand, the kernel's word on him still counts."""

    async def talk() -> None:
        assert street.stat().st_mode & 0o777 == 0o660
        assert await somebody(street, AskLog()) == ["no"]
        street.chmod(0o666)
        assert decode_answer((await somebody(street, AskLog()))[0].encode()) == Rejected("not-allowed")

    run(street, talk)


@needs_root
def test_members_of_the_group_may_order_by_any_of_their_groups(street: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Group hostd among the supplementary groups is enough; another group is not."""
    monkeypatch.setattr(control, "group_id", lambda: MEMBER_GID)

    async def talk() -> None:
        assert (street.stat().st_uid, street.stat().st_gid) == (0, MEMBER_GID)
        (said,) = await somebody(street, Order(Leave()), gids=f"64000,{MEMBER_GID}")
        assert decode_answer(said.encode()) == Taken(7)
        assert await somebody(street, Order(Leave()), gids="64000") == ["no"]

    run(street, talk)


@needs_root
def test_if_conf_d_says_so_everyone_may_read_and_order_nothing(street: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all requests that there are, the socket for everyone answers those that only read; members have the other."""
    monkeypatch.setattr(control, "group_id", lambda: MEMBER_GID)
    requests = [kind("web") if kind in (AskWhy, AskDrill) else kind() for kind in typing.get_args(AnyRequest)[:-1]]
    requests.append(Order(Leave()))
    asked: list[AnyRequest] = []
    readers = street.with_name("status.sock")

    async def noting(request: AnyRequest) -> AnyAnswer:
        asked.append(request)
        return LogIs(())

    async def talk() -> None:
        assert (street.stat().st_mode & 0o777, readers.stat().st_mode & 0o777) == (0o660, 0o666)
        assert await somebody(street, AskStatus()) == ["no"]
        said = [decode_answer(line.encode()) for line in await somebody(readers, *requests)]
        allowed = [request for request, answer in zip(requests, said, strict=True) if answer == LogIs(())]
        assert [type(request) for request in allowed] == [AskStatus, AskLedger, AskWhy, AskLog]
        assert asked == allowed, "nothing else has reached the brain"
        assert all(answer in (LogIs(()), Rejected("not-allowed")) for answer in said)
        assert len(await somebody(street, *requests, gids=str(MEMBER_GID))) == len(requests)
        assert asked == [*allowed, *requests]

    run(street, talk, noting, status_for_everyone=True)
    assert not readers.exists()


AS_A_COMMAND = """
import os, sys
from pathlib import Path
from hostd.commands import ask
from hostd.core.events import Leave
from hostd.requests import AskLog, Order
os.setgroups([]); os.setgid(65534); os.setuid(65534)
for request in (AskLog(), Order(Leave())):
    try:
        print(ask.ask(Path(sys.argv[1]), request))
    except ask.Unanswered as error:
        print(int(error.code), error)
"""


@needs_root
@pytest.mark.parametrize("status_for_everyone", [True, False])
def test_a_command_of_a_stranger_finds_the_socket_for_everyone(street: Path, status_for_everyone: bool) -> None:
    """It reads by it, and is told who may order; without that socket, it is told why it may not ask."""
    said: list[str] = []

    async def talk() -> None:
        words = [sys.executable, "-c", AS_A_COMMAND, str(street.parent)]
        done = await asyncio.to_thread(subprocess.run, words, stdout=subprocess.PIPE, text=True, timeout=30, check=True)
        said.extend(done.stdout.splitlines())

    run(street, talk, status_for_everyone=status_for_everyone)
    if status_for_everyone:
        assert said == ["LogIs(entries=())", "3 only root and members of group hostd may do that"]
    else:
        assert said == [f"3 {street}: permission denied; use sudo, or become a member of group hostd"] * 2


def test_a_socket_for_everyone_does_not_outlive_its_line_in_conf_d(tmp_path: Path) -> None:
    """One that a killed brain left behind is removed by the next one, if nobody is to read any more."""
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(tmp_path / "status.sock"))
    left.close()

    async def talk() -> None:
        assert not (tmp_path / "status.sock").exists()

    run(tmp_path / "hostd.sock", talk)


@needs_root
def test_strangers_who_ask_without_end_keep_no_member_waiting(street: Path) -> None:
    """While some connect and ask as fast as they can, they get few answers, and root gets his at once."""
    strangers = 0
    readers = street.with_name("status.sock")

    async def counting(request: AnyRequest) -> AnyAnswer:
        nonlocal strangers
        strangers += isinstance(request, AskStatus)
        return LogIs(())

    async def talk() -> None:
        flood = [asyncio.ensure_future(somebody(readers, AskStatus(), AskStatus(), seconds=2)) for _ in range(3)]
        flood.append(asyncio.ensure_future(somebody(readers, seconds=2)))  # connects, and no more
        began = time.monotonic()
        for _ in range(10):
            await asyncio.sleep(0.1)
            async with asyncio.timeout(2):
                assert await converse(street, encode(AskLog())) == [LogIs(())]
        await asyncio.gather(*flood)
        assert 3 < strangers <= 1 + (time.monotonic() - began) / control.READER_PAUSE_S

    run(street, talk, counting, status_for_everyone=True)


@needs_root
def test_strangers_who_stay_keep_no_other_out_for_ever(street: Path) -> None:
    """As many readers as there may be, and more: the surplus is not served, root is; when they go, others are."""
    readers = street.with_name("status.sock")

    async def talk() -> None:
        words = [sys.executable, "-c", STAY, str(readers), str(control.READERS_MAX + 2)]
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
            assert child.stdin is not None and child.stdout is not None
            assert await asyncio.to_thread(child.stdout.readline) == b"here\n"
            assert await converse(street, encode(AskLog())) == [LogIs(())]
            (said,) = await somebody(readers, AskLog())
            assert decode_answer(said.encode()) == Rejected("busy")
            child.stdin.close()
            await asyncio.to_thread(child.wait, 10)
        await asyncio.sleep(0.1)
        assert decode_answer((await somebody(readers, AskLog()))[0].encode()) == LogIs(())

    run(street, talk, status_for_everyone=True)


STAY = """
import os, socket, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
ends = [socket.socket(socket.AF_UNIX) for _ in range(int(sys.argv[2]))]
for end in ends:
    end.connect(sys.argv[1])
print("here", flush=True)
sys.stdin.read()
"""


def test_a_socket_left_behind_is_replaced(tmp_path: Path) -> None:
    """The socket of a brain that was killed does not keep the next one from listening."""
    path = tmp_path / "hostd.sock"
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(path))
    dead.close()

    async def talk() -> None:
        assert await converse(path, encode(AskLog())) == [LogIs(())]

    run(path, talk)
