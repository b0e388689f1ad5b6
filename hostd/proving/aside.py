"""A hook that is no action (``parameters``, ``sandbox``), called in a child of its own.

Decides that agent code can neither hang the test, nor end it, nor change its
memory.  What the answer is worth is its caller's business.
"""

import contextlib
import os
import select
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from hostd import loading, processes
from hostd.api import AgentError, ConfigError
from hostd.proving import afflictions
from hostd.proving.afflictions import Circumstances


class Failed(Exception):
    """The hook raised, ended its process or did not end: what it said, in one line."""

    def __init__(self, reason: str, *, is_foreseen: bool = False) -> None:
        super().__init__(reason)
        self.is_foreseen = is_foreseen
        """It raised AgentError or ConfigError, as an agent should."""


class _Answer(msgspec.Struct):
    value: Any = None
    reason: str = ""
    is_foreseen: bool = False


def call(act: Callable[[], Any], *, limit_s: float, output: Path, under: Circumstances, trace: Path) -> Any:
    """What ``act`` returns, paths as text.  Raises :class:`Failed`.

    ``output`` gets what it prints, ``trace`` what it asks of the system.
    """
    answer_end, child_end = os.pipe2(os.O_CLOEXEC)
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        _in_child(parent, child_end, act, output, under, trace)
    os.close(child_end)
    try:
        ready, _, _ = select.select([answer_end], [], [], limit_s)
        said = os.read(answer_end, 1_000_000) if ready else b""
    finally:
        os.close(answer_end)
        os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):  # killed before it had a group
            os.killpg(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
    if not ready:
        raise Failed(f"it did not end within {limit_s:g} s")
    if not said:
        raise Failed(f"it ended its process (exit status {os.waitstatus_to_exitcode(status)})")
    answer = msgspec.json.decode(said, type=_Answer)
    if answer.reason:
        raise Failed(answer.reason, is_foreseen=answer.is_foreseen)
    return answer.value


def _in_child(
    parent: int, answer_end: int, act: Callable[[], Any], output: Path, under: Circumstances, trace: Path
) -> NoReturn:
    answer = _Answer()
    try:
        os.setpgid(0, 0)
        processes.die_with_parent(parent)
        file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for number in (1, 2):
            os.dup2(file, number)
        afflictions.record(trace)
        afflictions.enter(under)
        answer.value = act()
        said = msgspec.json.encode(answer, enc_hook=str)
    except (AgentError, ConfigError) as error:
        cure = error.cure if isinstance(error, AgentError) else ""
        reason = "; ".join(part for part in (str(error) or "it gave no reason", cure) if part)
        said = msgspec.json.encode(_Answer(reason=reason, is_foreseen=True))
    except BaseException as error:  # noqa: BLE001 - the edge: agent code may raise anything
        said = msgspec.json.encode(_Answer(reason=loading.last_line(error)))
    os.write(answer_end, said)
    sys.stdout.flush()
    os._exit(0)
