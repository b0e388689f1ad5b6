"""Asks what may never answer, in a child that can be left behind.

A look at a dead server, a write to a dying disk, a mount or an unmount may
hang in the kernel, where not even SIGKILL ends it.  Decides that an action
nevertheless answers within its time limit and says what hung: the question
runs in a child, which is killed at the limit and left behind if it does not
die.  A child left behind is remembered in the run directory, under the
``slot`` of its question; as long as it hangs, the slot is refused at once and
nothing is forked, so there is never a heap of them: one per slot at most.

A child stays in the cgroup of its resource on purpose: what hangs in a write
may still act once the device comes back, so a stop is not believed before it
is gone.  Knows no filesystem and no device.
"""

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

import msgspec

from hostd.api.command import Completed
from hostd.api.errors import AgentError, NotInstalled
from hostd.api.resource import Resource

T = TypeVar("T")

MARGIN_S: Final = 1.5
"""What an action keeps of its time limit to say what hung: the host strikes 0.3 s
before the deadline that the agent is told, and a killed child gets ``DEATH_S``."""

DEATH_S: Final = 0.5
"""How long a killed child may take to die before it is left behind."""

SLOW_OR_DEAD: Final = "see dmesg; if it is only slow, allow the action more time"

OUTPUT_MAX: Final = 1_000_000


class Hang(AgentError):
    """No answer within its limit, or an earlier question of this slot still hangs."""


class _Asked(msgspec.Struct, frozen=True):
    """A child that was asked, as it is remembered in the run directory."""

    pid: int
    started: int
    """Clock ticks since boot, so that a number used again is not taken for it."""
    asked_at_ms: int
    """On CLOCK_BOOTTIME."""
    what: str


class _Said(msgspec.Struct, frozen=True):
    """What a child answers."""

    value: Any = None
    errno: int = 0
    reason: str = ""
    cure: str = ""


def patience(resource: Resource, wanted: float) -> float:
    """Seconds that one question may take: ``wanted``, but so that the action can still say what hung."""
    left = resource.remaining
    return max(0.05, min(wanted, left - MARGIN_S if left > 2 * MARGIN_S else left / 2))


def ask(resource: Resource, slot: str, what: str, question: Callable[[], T], kind: type[T], limit: float) -> T:
    """The answer of ``question``, which runs in a child and may hang.

    ``what``: the question as the subject of a sentence ("a look at /srv").
    ``kind``: the type of the answer, made of what msgspec can carry.
    ``limit``: seconds.  Raises Hang, the OSError or AgentError of the
    question, or AgentError if the child dies.
    """
    refuse_if_hanging(resource, slot)
    answer = os.memfd_create("answer", os.MFD_CLOEXEC)
    try:
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            _answer(question, answer)
        with _remembered(resource, slot, what, pid):
            _await(pid, what, limit)
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        data = os.pread(answer, os.fstat(answer).st_size, 0)
    finally:
        os.close(answer)
    if status != 0:
        raise AgentError(f"{what} failed: its child ended with {status}", cure="see the action's output")
    said = msgspec.msgpack.decode(data, type=_Said)
    if said.errno:
        raise OSError(said.errno, os.strerror(said.errno))
    if said.reason:
        raise AgentError(said.reason, said.cure)
    return msgspec.convert(said.value, kind)


def run(resource: Resource, slot: str, argv: Sequence[str], limit: float) -> Completed:
    """Run a command that may hang in the kernel; raises Hang, or AgentError if it cannot be run.

    ``Resource.run`` waits for what it has killed; this leaves it behind.
    """
    refuse_if_hanging(resource, slot)
    what = " ".join(argv)
    with open(os.memfd_create("out"), "w+b") as out, open(os.memfd_create("err"), "w+b") as err:
        try:
            process = subprocess.Popen(list(argv), stdin=subprocess.DEVNULL, stdout=out, stderr=err)
        except OSError as error:
            kind = NotInstalled if isinstance(error, FileNotFoundError) else AgentError
            raise kind(f"{argv[0]} cannot be run: {error.strerror}", cure=f"install {argv[0]}") from error
        try:
            with _remembered(resource, slot, what, process.pid):
                _await(process.pid, what, limit)
                process.wait()
        except Hang:
            process.returncode = 0  # left behind on purpose: no warning, no reaping at exit
            raise
        out.seek(0)
        err.seek(0)
        texts = [file.read(OUTPUT_MAX).decode(errors="replace") for file in (out, err)]
        return Completed(process.returncode, *texts)


def refuse_if_hanging(resource: Resource, slot: str) -> None:
    """Raise Hang if the last question of this slot is still there."""
    file = _file(resource, slot)
    try:
        asked = msgspec.json.decode(file.read_bytes(), type=_Asked)
    except (FileNotFoundError, msgspec.DecodeError):
        return
    state, started = _look(asked.pid)
    if state in ("", "Z", "X") or started != asked.started:
        file.unlink(missing_ok=True)
        return
    seconds = (_now_ms() - asked.asked_at_ms) // 1000
    raise Hang(
        f"{asked.what} still hangs, for {seconds} s now ({_where(asked.pid)})",
        cure="nothing more is asked before it returns; if the device or server does not come back, reboot this node",
    )


def alive_since(pid: int) -> int:
    """When a living process started, in clock ticks since boot; 0 if there is none (a zombie is none)."""
    state, started = _look(pid)
    return 0 if state in ("", "Z", "X") else started


def _answer(question: Callable[[], object], answer: int) -> NoReturn:
    """In the child: ask, write what it said, end."""
    try:
        os.closerange(3, answer)
        os.closerange(answer + 1, os.sysconf("SC_OPEN_MAX"))
        try:
            said = _Said(value=question())
        except OSError as error:
            said = _Said(errno=error.errno or 5)
        except AgentError as error:
            said = _Said(reason=error.reason, cure=error.cure)
        os.write(answer, msgspec.msgpack.encode(said))
    except BaseException:  # noqa: BLE001 - the edge: the parent's stack must not be unwound in a child
        os.write(2, traceback.format_exc().encode())
        os._exit(70)  # EX_SOFTWARE
    os._exit(0)


@contextlib.contextmanager
def _remembered(resource: Resource, slot: str, what: str, pid: int) -> Any:
    """Remember the child from its birth on: an action that is killed leaves it behind too."""
    file = _file(resource, slot)
    new = file.with_suffix(".new")
    new.write_bytes(msgspec.json.encode(_Asked(pid, _look(pid)[1], _now_ms(), what)))
    new.rename(file)  # whole, or not there
    yield
    file.unlink(missing_ok=True)  # not on Hang: it is still there


def _await(pid: int, what: str, limit: float) -> None:
    """Wait until the child has ended (it stays to be collected); Hang, killed, if it does not in time."""
    pidfd = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        if poll.poll(max(0.0, limit) * 1000):
            return
        where = _where(pid)
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        if poll.poll(DEATH_S * 1000):
            os.waitpid(pid, 0)
            raise Hang(f"{what} did not return within {limit:.1f} s ({where})", cure=SLOW_OR_DEAD)
        reason = f"{what} did not return within {limit:.1f} s and cannot be killed ({_where(pid)})"
        raise Hang(reason, cure=SLOW_OR_DEAD)
    finally:
        os.close(pidfd)


def _where(pid: int) -> str:
    """Where it hangs, for people."""
    channel = ""
    with contextlib.suppress(OSError):
        channel = Path(f"/proc/{pid}/wchan").read_text().strip()
    return f"process {pid}, state {_look(pid)[0] or 'gone'}" + (f" in {channel}" if channel not in ("", "0") else "")


def _look(pid: int) -> tuple[str, int]:
    """State letter and start time of a process; ("", 0) if there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return "", 0
    return fields[0], int(fields[19])


def _file(resource: Resource, slot: str) -> Path:
    return resource.run_dir / f"asked-{slot}"


def _now_ms() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000
