"""What the client says to MariaDB, OpenLDAP and Cyrus: write one number, and later read all back.

Decides when a number is written: when the server has acknowledged it
(a commit, a result 0, an OK), so that it must never be lost again.  Each
conversation is a connection of its own and ends within its time limit, or
with an OSError or another of FAILURES.  Knows nothing of hostd, nor of who
asks when.
"""

import imaplib
import re
import socket
import time
from collections.abc import Iterator
from typing import Any, Protocol

import pymysql

CONNECT_MAX_S = 0.9  # as CONNECT_MAX_MS of client_process.py
CONVERSATION_MAX_S = 5.0
READ_MAX_S = 20.0

FAILURES = (OSError, EOFError, pymysql.MySQLError, imaplib.IMAP4.error)
"""All that a server which goes away in the middle of a conversation may lead to."""


class Conversation(Protocol):
    """One service, in its own protocol."""

    def write(self, number: int) -> None:
        """Return when it is acknowledged."""

    def read(self) -> set[int]:
        """All numbers that are there."""


class MySql:
    """A row for each number, committed."""

    def __init__(self, address: str, port: int, user: str, password: str) -> None:
        self._login = {"host": address, "port": port, "user": user, "password": password}

    def write(self, number: int) -> None:
        with self._session(CONVERSATION_MAX_S) as session, session.cursor() as cursor:
            cursor.execute("INSERT INTO site.visits VALUES (%s)", (number,))
            session.commit()

    def read(self) -> set[int]:
        with self._session(READ_MAX_S) as session, session.cursor() as cursor:
            cursor.execute("SELECT number FROM site.visits")
            return {row[0] for row in cursor.fetchall()}

    def _session(self, limit_s: float) -> "pymysql.Connection[Any]":
        limits = {"connect_timeout": CONNECT_MAX_S, "read_timeout": limit_s, "write_timeout": limit_s}
        return pymysql.connect(**self._login, **limits, ssl_disabled=True)  # TLS costs a hundred times the query


class Ldap:
    """An entry for each number, added by hand: RFC 4511, a few bytes of BER."""

    BIND, ADD, SEARCH, ENTRY = 0x60, 0x68, 0x63, 0x64
    SEQUENCE, SET, INTEGER, ENUMERATED, BOOLEAN, OCTETS = 0x30, 0x31, 0x02, 0x0A, 0x01, 0x04
    PASSWORD, PRESENT = 0x80, 0x87

    def __init__(self, address: str, port: int, user: str, password: str) -> None:
        self._address, self._user, self._password = (address, port), user, password
        self._base = user.partition(",")[2]

    def write(self, number: int) -> None:
        attributes = self._attribute("objectClass", "applicationProcess") + self._attribute("cn", str(number))
        self._ask(
            self.ADD, octets(f"cn={number},{self._base}") + element(self.SEQUENCE, attributes), CONVERSATION_MAX_S
        )

    def read(self) -> set[int]:
        one_level, as_it_is = element(self.ENUMERATED, b"\1"), element(self.ENUMERATED, b"\0")
        no_limits, values_too = element(self.INTEGER, b"\0") * 2, element(self.BOOLEAN, b"\0")
        having_cn, no_attributes = element(self.PRESENT, b"cn"), element(self.SEQUENCE, octets("1.1"))
        search = octets(self._base) + one_level + as_it_is + no_limits + values_too + having_cn + no_attributes
        entries = self._ask(self.SEARCH, search, READ_MAX_S)
        return {int(found[1]) for entry in entries if (found := re.search(rb"cn=(\d+),", entry))}

    def _ask(self, operation: int, content: bytes, limit_s: float) -> list[bytes]:
        """Log in and ask; the entries that come back.  OSError unless both end well."""
        until = time.monotonic() + limit_s
        login = element(self.INTEGER, b"\3") + octets(self._user) + element(self.PASSWORD, self._password.encode())
        entries: list[bytes] = []
        with socket.create_connection(self._address, CONNECT_MAX_S) as connection:
            answers = messages(connection, until)
            for number, request in ((b"\1", element(self.BIND, login)), (b"\2", element(operation, content))):
                connection.sendall(element(self.SEQUENCE, element(self.INTEGER, number) + request))
                while (answer := next(answers))[0] == self.ENTRY:
                    entries.append(answer[1])
                if first(answer[1])[1] != b"\0":
                    raise OSError(f"LDAP result {answer[1]!r}")
        return entries

    def _attribute(self, name: str, value: str) -> bytes:
        return element(self.SEQUENCE, octets(name) + element(self.SET, octets(value)))


class Imap:
    """A mail for each number, appended to the INBOX."""

    def __init__(self, address: str, port: int, user: str, password: str) -> None:
        self._address, self._login = (address, port), (user, password)

    def write(self, number: int) -> None:
        with self._session(CONVERSATION_MAX_S) as session:
            mail = f"From: client@example.org\r\nSubject: {number}\r\n\r\nnumber {number}\r\n"
            expect_ok(session.append("INBOX", "", "", mail.encode()))

    def read(self) -> set[int]:
        with self._session(READ_MAX_S) as session:
            expect_ok(session.select("INBOX", readonly=True))
            found = expect_ok(session.fetch("1:*", "(BODY.PEEK[HEADER.FIELDS (SUBJECT)])"))
            parts = [part[1] for part in found if isinstance(part, tuple)]
            return {int(number[1]) for part in parts if (number := re.search(rb"Subject: (\d+)", part))}

    def _session(self, limit_s: float) -> imaplib.IMAP4:
        session = imaplib.IMAP4(*self._address, timeout=CONNECT_MAX_S)
        session.sock.settimeout(limit_s)
        try:
            session.login(*self._login)
        except BaseException:
            session.shutdown()
            raise
        return session


PROTOCOLS: dict[str, type[MySql] | type[Ldap] | type[Imap]] = {"mysql": MySql, "ldap": Ldap, "imap": Imap}


def expect_ok(answer: tuple[str, list[Any]]) -> list[Any]:
    status, content = answer
    if status != "OK":
        raise OSError(f"IMAP {status}: {content!r}")
    return content


# -- BER, as far as LDAP needs it ------------------------------------------------------


def element(tag: int, content: bytes) -> bytes:
    size = len(content)
    length = bytes((size,)) if size < 128 else bytes((0x82, size >> 8, size & 255))
    return bytes((tag,)) + length + content


def octets(text: str) -> bytes:
    return element(Ldap.OCTETS, text.encode())


def first(data: bytes) -> tuple[int, bytes, bytes]:
    """Tag and content of the first element, and what follows it.  EOFError if it is not whole."""
    if len(data) < 2:
        raise EOFError("an answer is cut off")
    start = 2 + (data[1] & 0x7F if data[1] & 0x80 else 0)
    size = data[1] if start == 2 else int.from_bytes(data[2:start], "big")
    if len(data) < start + size:
        raise EOFError("an answer is cut off")
    return data[0], data[start : start + size], data[start + size :]


def messages(connection: socket.socket, until: float) -> Iterator[tuple[int, bytes]]:
    """Operation and content of each message that comes, until the time limit."""
    data = b""
    while True:
        try:
            _, message, data = first(data)
        except EOFError:
            connection.settimeout(max(0.01, until - time.monotonic()))
            more = connection.recv(65536)
            if not more:
                raise EOFError("it hung up") from None
            data += more
        else:
            operation, content, _ = first(first(message)[2])
            yield operation, content
