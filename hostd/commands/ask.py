"""Ask the daemon on this machine, and say clearly when it does not answer."""

import socket
import sys
import time
from pathlib import Path
from typing import Final, TypeVar

from hostd.commands import complaints, sentences
from hostd.commands.exits import ExitCode
from hostd.core.events import AnyCommand
from hostd.decoding import UNDECODABLE
from hostd.requests import (
    ANSWER_SIZE_MAX,
    READERS_SOCKET_NAME,
    SOCKET_NAME,
    AnyAnswer,
    AnyRequest,
    AskStatus,
    Order,
    Refused,
    Rejected,
    StatusIs,
    Taken,
    decode_answer,
    encode,
)
from hostd.status_form import Status

TIMEOUT_S: Final = 12.0
"""A little longer than the daemon gives itself."""
RETRY_S: Final = 2.0
"""A brain that died is back in half a second; its socket is gone for that long."""

A = TypeVar("A")


class Unanswered(Exception):
    """There was no answer that a command could go on with: text and exit code."""

    def __init__(self, text: str, code: ExitCode) -> None:
        super().__init__(text)
        self.code = code


def ask(runtime: Path, request: AnyRequest, *, retry_s: float | None = None, timeout_s: float = TIMEOUT_S) -> AnyAnswer:
    """One request, one answer; from the socket for everyone, if there is one and the other is closed to us.
    Raises :class:`Unanswered` if the daemon is not reachable or turns the request away."""
    path = runtime / SOCKET_NAME
    until = time.monotonic() + (RETRY_S if retry_s is None else retry_s)
    while True:
        try:
            answer = _converse(path, encode(request), timeout_s)
            break
        except (FileNotFoundError, ConnectionError, EOFError) as error:
            if time.monotonic() >= until:
                raise Unanswered(sentences.unreachable(path, error), ExitCode.UNREACHABLE) from None
            time.sleep(0.1)
        except PermissionError as error:
            readers = runtime / READERS_SOCKET_NAME
            if path == readers or not readers.exists():
                raise Unanswered(sentences.unreachable(path, error), ExitCode.UNREACHABLE) from None
            path = readers
        except (OSError, *UNDECODABLE) as error:
            raise Unanswered(sentences.unreachable(path, error), ExitCode.UNREACHABLE) from None
    if isinstance(answer, Rejected):
        code = ExitCode.WRONG_USE if answer.reason == "unknown-service" else ExitCode.UNREACHABLE
        raise Unanswered(sentences.rejected(answer), code)
    return answer


def _converse(path: Path, line: bytes, timeout_s: float) -> AnyAnswer:
    with socket.socket(socket.AF_UNIX) as end:
        end.settimeout(timeout_s)
        end.connect(str(path))
        end.sendall(line)
        with end.makefile("rb") as file:
            answer = file.readline(ANSWER_SIZE_MAX + 1)
    if not answer.endswith(b"\n"):
        raise EOFError("the daemon ended while it answered")
    return decode_answer(answer)


def status(runtime: Path, *, retry_s: float | None = None) -> Status:
    """The status, its problems with text and cure.  Raises :class:`Unanswered`."""
    answer = ask(runtime, AskStatus(), retry_s=retry_s)
    assert isinstance(answer, StatusIs), answer
    return complaints.with_texts(answer.status)


def order(runtime: Path, command: AnyCommand) -> Taken:
    """Give an order.  Raises :class:`Unanswered`, with the reason, if it is not taken.

    Not repeated if the connection breaks after it was made: it may have been taken.
    """
    answer = ask(runtime, Order(command))
    if isinstance(answer, Refused):
        text, code = sentences.refusal(answer.refusal, command)
        raise Unanswered(text, code)
    assert isinstance(answer, Taken), answer
    return answer


def complain(error: Unanswered) -> ExitCode:
    print(error, file=sys.stderr)
    return error.code
