"""A few questions to one MariaDB or MySQL server, over its Unix socket.

Decides that nobody but the process that was named is asked, and that a
server which answers and only has no place or no rights for our account is
told apart (:class:`Unwelcome`) from one that does not answer.  Knows nothing
of how servers are started.  Without TLS: nothing leaves the machine, and its
set-up costs a hundred times what a query does.
"""

import configparser
import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

import pymysql

from hostd.api import claims
from hostd.api.errors import AgentError

FULL: Final = frozenset({1040, 1203, 1226})
"""No connection left: for anybody, for this account, for this hour."""
REFUSED: Final = frozenset({1044, 1045, 1142, 1227, 1251, 1524, 1698, 1820, 1862, 3118, 4151})
"""Who we are and what we may: password, rights, method of authentication, expired, locked."""
MISSING: Final = frozenset({1049, 1146})
"""No such database, no such table."""

Session: TypeAlias = "pymysql.Connection[Any]"


class Unwelcome(Exception):
    """The server answers, and has no place or no rights for our account: number and text of its error."""

    def __init__(self, number: int, text: str) -> None:
        super().__init__(number, text)
        self.number, self.text = number, text

    @property
    def is_full(self) -> bool:
        """It may pass: others have the connections."""
        return self.number in FULL


class Account(NamedTuple):
    """Whom we log in as: name and password, or a defaults file with both in its section [client]."""

    login: str
    password: str
    file: Path | None


@contextlib.contextmanager
def session(socket: Path, pid: int, account: Account, limit: float) -> Iterator[Session]:
    """A session with this very process, each of whose answers may take ``limit`` seconds.

    AgentError if another process answers, nobody does, or a query fails; Unwelcome.
    """
    try:
        connection, peer = claims.connect(socket, limit)
    except OSError as error:
        raise AgentError(f"server {pid} does not accept connections at {socket}: {error.strerror}") from error
    if peer != pid:
        connection.close()
        raise AgentError(f"at {socket} answers {claims.described(peer)}, and not server {pid}")
    try:
        opened = _prepared(account, limit)
        try:
            opened.connect(connection)
            yield opened
        except pymysql.MySQLError as error:
            number, text = (*error.args, "", "")[:2]
            if number in FULL | REFUSED:
                raise Unwelcome(number, str(text)) from error
            raise AgentError(f"server {pid} answers no query: {text or number}") from error
        finally:
            with contextlib.suppress(pymysql.MySQLError):  # closed already: it broke
                opened.close()
    finally:
        connection.close()


def datadir(opened: Session) -> Path:
    """Where the server says that its data are."""
    with opened.cursor() as cursor:
        cursor.execute("SELECT @@datadir")
        ((answer,),) = cursor.fetchall()
    return Path(answer)


def write_and_read(opened: Session, table: str, row: str) -> None:
    """Write a row of this name and read it back; ``table`` (database.table) is made if it is missing.

    AgentError if something else comes back.
    """
    database, _, name = table.partition(".")
    quoted, word = f"`{database}`.`{name}`", str(time.time_ns())
    write = f"REPLACE INTO {quoted} (node, word) VALUES (%s, %s)"
    with opened.cursor() as cursor:
        try:
            cursor.execute(write, (row, word))
        except pymysql.MySQLError as error:
            if error.args[0] not in MISSING:
                raise
            cursor.execute(f"CREATE DATABASE IF NOT EXISTS `{database}`")
            cursor.execute(f"CREATE TABLE {quoted} (node VARCHAR(191) PRIMARY KEY, word TEXT) ENGINE=InnoDB")
            cursor.execute(write, (row, word))
        cursor.execute(f"SELECT word FROM {quoted} WHERE node = %s", (row,))
        found = cursor.fetchall()
    if found != ((word,),):
        raise AgentError(f"{table} does not hold what was just written: {found!r} and not {word!r}")


def _prepared(account: Account, limit: float) -> Session:
    try:
        return pymysql.Connection(
            user=None if account.file else account.login,
            password=account.password,
            read_default_file=str(account.file) if account.file else None,
            read_timeout=limit,
            write_timeout=limit,
            ssl_disabled=True,
            autocommit=True,
            defer_connect=True,
        )
    except configparser.Error:
        # its text would show the line, and the line may be the password
        raise AgentError(
            f"{account.file} is not a defaults file", cure="a line [client], then user=… and password=…"
        ) from None
