"""One GET, against servers that say what a test has them say."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from hostd.api import connections, http_get


def asked(said: bytes, *, body_max: int = 1_000, seconds: float = 5.0) -> tuple[http_get.Answer, bytes]:
    """What comes of this answer, and what was asked."""
    here, there = socket.socketpair()
    with here, there:
        there.sendall(said)
        there.shutdown(socket.SHUT_WR)
        answer = http_get.get(here, "web:8080", "/a?b=c", until=time.monotonic() + seconds, body_max=body_max)
        return answer, there.recv(4_096)


def test_it_asks_for_one_page_and_for_the_end_of_the_connection() -> None:
    """A server chooses the site by Host; nothing is to be kept open for us."""
    _, question = asked(b"HTTP/1.1 200 OK\r\n\r\n")
    assert question.startswith(b"GET /a?b=c HTTP/1.1\r\nHost: web:8080\r\n")
    assert b"\r\nConnection: close\r\n" in question and question.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\nuntil it hangs up", (200, b"until it hangs up")),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfour and more", (200, b"four")),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n4;x=y\r\nfour\r\nB\r\n and more .\r\n0\r\n\r\n",
         (200, b"four and more .")),
        (b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 503 Busy\r\n\r\nno", (503, b"no")),
        (b"HTTP/1.0 302 Found\nLocation: /\n\n", (302, b"")),
        (b"HTTP/1.1 204\r\n\r\nnothing belongs here", (204, b"")),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\ncut off", (200, b"cut off")),
    ],
)  # fmt: skip
def test_every_way_to_end_a_body_is_understood(said: bytes, answer: tuple[int, bytes]) -> None:
    """By its length, by chunks, by the end of the connection, or there is none."""
    assert asked(said)[0] == answer


@pytest.mark.parametrize("ending", [b"", b"Content-Length: 5000\r\n", b"Transfer-Encoding: chunked\r\n"])
def test_no_more_is_read_than_was_asked_for(ending: bytes) -> None:
    """A page of a gigabyte costs a monitor no more than its beginning."""
    body = b"1388\r\n" + b"x" * 5_000 if b"chunked" in ending else b"x" * 5_000
    answer, _ = asked(b"HTTP/1.1 200 OK\r\n" + ending + b"\r\n" + body, body_max=1_000)
    assert answer == (200, b"x" * 1_000)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"", "hung up"),
        (b"220 mail.example ESMTP\r\n", "speaks no HTTP"),
        (b"\x15\x03\x01\x00\x02\x02\x50", "speaks no HTTP"),
        (b"HTTP/1.1 abc\r\n\r\n", "speaks no HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n", "hung up"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nhuge\r\n", "a chunk of 'huge' bytes"),
        (b"HTTP/1.1 200 OK\r\n" + b"x" * 70_000, "speaks no HTTP"),
    ],
)
def test_what_is_no_answer_is_a_failed_connection(said: bytes, reason: str) -> None:
    """Each of these ends a monitor with a reason, and none with a traceback."""
    with pytest.raises(ConnectionError, match=reason):
        asked(said)


def test_a_silent_server_is_given_up_in_time() -> None:
    """The limit is of the whole answer: a server that sends a byte now and then does not extend it."""
    here, there = socket.socketpair()
    with here, there, dripping(there):
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            http_get.get(here, "web", "/", until=began + 0.3, body_max=1_000)
        assert 0.25 < time.monotonic() - began < 5


@contextlib.contextmanager
def dripping(connection: socket.socket) -> Iterator[None]:
    over = threading.Event()

    def drip() -> None:
        while not over.wait(0.05):
            connection.sendall(b"H")

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize("target", ["/two words", "/line\r\nbreak", "/ümlaut"])
def test_a_target_that_would_break_the_request_is_refused(target: str) -> None:
    """Nothing of conf.d can become a header."""
    here, there = socket.socketpair()
    with here, there, pytest.raises(ValueError, match="%XX"):
        http_get.get(here, "web", target, until=time.monotonic() + 5, body_max=1_000)


@pytest.mark.parametrize(("host", "bound"), [("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("localhost", "127.0.0.1")])
def test_a_server_is_reached_by_address_and_by_name(host: str, bound: str) -> None:
    """An address takes the short way, a name the long one; both arrive."""
    family = socket.AF_INET6 if ":" in bound else socket.AF_INET
    with socket.socket(family) as server:
        server.bind((bound, 0))
        server.listen()
        with connections.connected(host, server.getsockname()[1], 5.0) as connection:
            assert connection.getpeername()[0] == bound
    with pytest.raises(ConnectionRefusedError):
        connections.connected(host, server_port_of_nobody(family, bound), 5.0)


def server_port_of_nobody(family: int, bound: str) -> int:
    with socket.socket(family) as free:
        free.bind((bound, 0))
        return int(free.getsockname()[1])
