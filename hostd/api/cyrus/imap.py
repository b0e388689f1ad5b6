"""Asks an IMAP server whether it serves: greeting, NOOP, a login, a message written and read back.

Decides what an answer means and that the whole conversation ends in time.
Knows no particular server and not whose process answers: proving that is the
agent's part.  Certificates are not verified: the question is asked of an
address, not of a name.
"""

import contextlib
import imaplib
import ipaddress
import re
import secrets
import socket
import ssl
import time
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

PORTS: Final = {"imap": 143, "imaps": 993}


class Door(NamedTuple):
    """Where to ask."""

    host: str
    port: int
    has_tls: bool

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'imaps' if self.has_tls else 'imap'}://{host}:{self.port}/"


class Login(NamedTuple):
    """As whom to ask.  ``mailbox``: one in which a message may be left for a moment; "": leave none."""

    user: str
    password: str
    mailbox: str = ""


class Verdict(NamedTuple):
    """What is wrong, as the rest of a sentence that begins with the server; "" if nothing is."""

    complaint: str = ""
    is_final: bool = False
    """The server has decided: asking again will not help."""


def door(url: str) -> Door:
    """The place that a URL names, by address.  ValueError with the rule if it does not."""
    parts = urlsplit(url)
    try:
        address = str(ipaddress.ip_address(parts.hostname or ""))
        port = parts.port or PORTS[parts.scheme]
    except (ValueError, KeyError):
        raise ValueError(f"{url!r} is not of the form imap://ADDRESS:PORT/ or imaps://ADDRESS:PORT/") from None
    return Door(address, port, parts.scheme == "imaps")


def ask(where: Door, login: Login | None, limit: float) -> Verdict:
    """Greeting and NOOP, and as ``login`` wants; no longer than ``limit`` seconds in all."""
    conversation = _Conversation(where, time.monotonic() + limit)
    try:
        return conversation.hold(login)
    except TimeoutError:
        return Verdict(f"does not answer at {where} within {limit:.1f} s ({conversation.step})")
    except (OSError, imaplib.IMAP4.error) as error:
        return Verdict(f"does not serve at {where}: {conversation.step}: {_words(error)}")
    finally:
        conversation.close()


class _Conversation:
    """One connection; ``step`` says what is under way."""

    def __init__(self, where: Door, until: float) -> None:
        self._where, self._until = where, until
        self._server: imaplib.IMAP4 | None = None
        self.step = "greeting"

    def hold(self, login: Login | None) -> Verdict:
        where = self._where
        if where.has_tls:
            context = ssl._create_unverified_context()
            server: imaplib.IMAP4 = imaplib.IMAP4_SSL(where.host, where.port, ssl_context=context, timeout=self._left())
        else:
            server = imaplib.IMAP4(where.host, where.port, timeout=self._left())
        self._server = server
        self._next("NOOP")
        kind, said = server.noop()
        if kind != "OK":
            return Verdict(f"answers NOOP at {where} with {kind} {_text(said)}")
        if login is None:
            return Verdict()
        return self._as_user(server, login)

    def close(self) -> None:
        if self._server is not None:
            with contextlib.suppress(OSError, imaplib.IMAP4.error):
                self._next("LOGOUT")
                self._server.logout()

    def _as_user(self, server: imaplib.IMAP4, login: Login) -> Verdict:
        if "LOGINDISABLED" in server.capabilities and "STARTTLS" in server.capabilities:
            self._next("STARTTLS")
            server.starttls(ssl._create_unverified_context())
        self._next("login")
        try:
            if "AUTH=PLAIN" in server.capabilities:
                secret = f"\0{login.user}\0{login.password}".encode()
                server.authenticate("PLAIN", lambda _challenge: secret)
            else:
                server.login(login.user, login.password)
        except imaplib.IMAP4.abort:
            raise  # the connection broke: no answer to the login
        except imaplib.IMAP4.error as error:
            return Verdict(f"refuses the login of {login.user}: {_words(error)}", is_final=True)
        return self._written_and_read(server, login.mailbox) if login.mailbox else Verdict()

    def _written_and_read(self, server: imaplib.IMAP4, mailbox: str) -> Verdict:
        """Leave a message, find it again, take it away.  It is born deleted, so that an
        expunge removes what an interrupted question leaves behind."""
        name = '"' + mailbox.replace("\\", "\\\\").replace('"', '\\"') + '"'
        mark = secrets.token_hex(8)
        self._next(f"APPEND to {mailbox}")
        kind, said = server.append(name, "(\\Seen \\Deleted)", "", f"Subject: hostd monitor\r\n\r\n{mark}\r\n".encode())
        uid = re.search(r"APPENDUID \d+ (\d+)", _text(said))
        if kind != "OK" or uid is None:
            return Verdict(f"does not take a message into {mailbox}: {_text(said)}")
        self._next(f"SELECT {mailbox}")
        kind, opened = server.select(name)
        if kind != "OK":
            return Verdict(f"does not open {mailbox}: {_text(opened)}")
        self._next("FETCH")
        kind, said = server.uid("FETCH", uid[1], "(BODY.PEEK[TEXT])")
        if kind != "OK" or mark not in _text(said):
            return Verdict(f"does not give back the message that it took into {mailbox}: {_text(said)[:200]}")
        self._next("EXPUNGE")
        server.uid("EXPUNGE", uid[1])
        return Verdict()

    def _next(self, step: str) -> None:
        self.step = step
        assert self._server is not None
        self._server.sock.settimeout(self._left())

    def _left(self) -> float:
        return max(0.05, self._until - time.monotonic())


def _words(error: Exception) -> str:
    said = error.args[0] if error.args and not isinstance(error, OSError) else error
    if isinstance(said, bytes):
        said = said.decode(errors="replace")
    if isinstance(error, socket.gaierror):
        return str(error.strerror)
    return str(said) or type(error).__name__


def _text(said: list[Any]) -> str:
    """All that an answer holds: bytes, and tuples of bytes where it had literals."""
    parts = [part for item in said or [] for part in (item if isinstance(item, tuple) else (item,))]
    return " ".join(part.decode(errors="replace") for part in parts if isinstance(part, bytes))
