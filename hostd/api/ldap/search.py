"""A search for one LDAP entry, written by hand: RFC 4511, a few bytes of BER.

Decides what the server at the other end of a connected socket says of the
entry.  It neither connects nor knows whose server that is.  ``ldapsearch``
would cost fifty times as much, and it hangs for ever at a stopped slapd;
this ends at its time limit.
"""

import socket
import time
from collections.abc import Iterator
from typing import Final, NamedTuple

ANSWER_MAX: Final = 1_000_000
"""Bytes of one message; an entry without its attributes has some hundred."""

NAMES: Final = {
    0: "success", 1: "operationsError", 2: "protocolError", 8: "strongerAuthRequired", 10: "referral",
    13: "confidentialityRequired", 32: "noSuchObject", 34: "invalidDNSyntax", 48: "inappropriateAuthentication",
    49: "invalidCredentials", 50: "insufficientAccessRights", 51: "busy", 52: "unavailable",
    53: "unwillingToPerform", 80: "other",
}  # fmt: skip
"""Results that such a search may have (RFC 4511, appendix A)."""

BIND_REQUEST, SEARCH_REQUEST = 0x60, 0x63
SEARCH_ENTRY, SEARCH_DONE, EXTENDED_RESPONSE = 0x64, 0x65, 0x78
SEQUENCE, INTEGER, ENUMERATED, BOOLEAN, OCTETS = 0x30, 0x02, 0x0A, 0x01, 0x04
SIMPLE_PASSWORD, PRESENT = 0x80, 0x87


class Found(NamedTuple):
    """What the server answered: its result code, its words, and how many entries it showed (0 or 1)."""

    code: int
    words: str
    entries: int

    @property
    def is_temporary(self) -> bool:
        """It answers, and asks for patience: busy or unavailable."""
        return self.code in (51, 52)

    def __str__(self) -> str:
        if self.code == 0:
            return "the entry" if self.entries else "no entry"
        return f"result {self.code} ({NAMES.get(self.code, 'see RFC 4511')}) {self.words}".rstrip()


def look_for(connection: socket.socket, base: str, bind_dn: str = "", password: str = "", *, until: float) -> Found:
    """Ask for the entry ``base`` ("": the root DSE), without its attributes.

    Anonymously, or after a simple bind.  ``until``: on ``time.monotonic()``;
    then TimeoutError.  OSError or EOFError if the answer is none.
    """
    answers = _answers(connection, until)
    connection.settimeout(_left(until))
    if bind_dn:
        bind = _element(INTEGER, b"\3") + _element(OCTETS, bind_dn.encode())
        connection.sendall(_message(1, BIND_REQUEST, bind + _element(SIMPLE_PASSWORD, password.encode())))
        found = _result(next(answers)[1], 0)
        if found.code != 0:
            return found
    connection.sendall(_message(2, SEARCH_REQUEST, _search_for(base)))
    entries = 0
    while True:
        operation, content = next(answers)
        if operation == SEARCH_ENTRY:
            entries += 1
        elif operation in (SEARCH_DONE, EXTENDED_RESPONSE):  # the latter: a notice that it hangs up
            return _result(content, entries)


def _search_for(base: str) -> bytes:
    scope_and_aliases = _element(ENUMERATED, b"\0") + _element(ENUMERATED, b"\0")  # this entry alone, as it is
    limits = _element(INTEGER, b"\0") + _element(INTEGER, b"\0")  # the server's
    values_too, filter_ = _element(BOOLEAN, b"\0"), _element(PRESENT, b"objectClass")
    no_attributes = _element(SEQUENCE, _element(OCTETS, b"1.1"))
    return _element(OCTETS, base.encode()) + scope_and_aliases + limits + values_too + filter_ + no_attributes


def _answers(connection: socket.socket, until: float) -> Iterator[tuple[int, bytes]]:
    """Operation and content of each message that comes.  Their numbers say nothing: we ask one thing at a time."""
    data = b""
    while True:
        try:
            _, message, data = _split(data)
        except EOFError:
            connection.settimeout(_left(until))
            more = connection.recv(4096)
            if not more or len(data) > ANSWER_MAX or (data or more)[0] != SEQUENCE:
                raise ConnectionError("it speaks no LDAP" if more else "it hung up") from None
            data += more
        else:
            operation, content, _ = _split(_split(message)[2])
            yield operation, content


def _result(content: bytes, entries: int) -> Found:
    _, code, rest = _split(content)
    _, _, rest = _split(rest)  # the nearest entry that there is
    _, words, _ = _split(rest)
    return Found(int.from_bytes(code, "big"), words.decode(errors="replace"), entries)


def _left(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    return left


# -- BER -----------------------------------------------------------------------------


def _message(number: int, operation: int, content: bytes) -> bytes:
    return _element(SEQUENCE, _element(INTEGER, bytes((number,))) + _element(operation, content))


def _element(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + content


def _split(data: bytes) -> tuple[int, bytes, bytes]:
    """Tag and content of the first element, and what follows it.  EOFError if it is not whole."""
    if len(data) < 2:
        raise EOFError("an answer is cut off")
    start = 2 + (data[1] & 0x7F if data[1] & 0x80 else 0)
    size = data[1] if start == 2 else int.from_bytes(data[2:start], "big")
    if len(data) < start + size:
        raise EOFError("an answer is cut off")
    return data[0], data[start : start + size], data[start + size :]
