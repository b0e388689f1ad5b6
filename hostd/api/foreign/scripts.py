"""Runs somebody else's script: an OCF agent, an init script, a script of Heartbeat's resource.d.

Decides what such a script gets to see of hostd (nothing: its environment is
made from nothing) and how much of what it says is kept (an end of bounded
size, however much it prints).  It never waits beyond the deadline of the
action.  Knows no convention for arguments, variables or exit codes.

What a start or stop prints goes to the file ``output`` in ``run_dir``, since a
daemon may keep it open for ever: a pipe would kill that daemon with SIGPIPE
later, and the host keeps this file small.  A probe's output is read through
pipes, standard output and standard error apart.
"""

import contextlib
import errno
import os
import selectors
import signal
import stat
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from hostd.api.errors import AgentError, NotInstalled
from hostd.api.resource import Resource

PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
KEPT_MAX: Final = 256_000
"""Bytes of output that are kept, the last ones; the largest meta-data of resource-agents has 30 kB."""
FILE_MAX: Final = 2_000_000
"""Bytes at which ``output`` starts over while a script is still printing."""
LOOK_S: Final = 0.05
"""How often a growing ``output`` is looked at."""

_MARKS: Final = ("HOSTD_ACTION", "HOSTD_RESOURCE")
"""By these the host finds the processes of an action where there is no cgroup v2."""


class TookTooLong(AgentError):
    """It did not end in time, and was killed."""


class Said(NamedTuple):
    """How a script ended: its exit code (negative: the signal that killed it) and the end of its output."""

    code: int
    stdout: str
    stderr: str
    """Empty for an action whose two outputs go to one file."""

    @property
    def text(self) -> str:
        return self.stdout + self.stderr

    def last_lines(self, number: int = 3) -> str:
        """What it said last, in one line; "" if it said nothing."""
        return " ".join(line.strip() for line in self.text.strip().splitlines()[-number:])[-1_000:]


def environment(more: Mapping[str, str]) -> dict[str, str]:
    """A clean environment, as ``service(8)`` gives it to a script, and what the convention adds."""
    kept = {name: os.environ[name] for name in _MARKS if name in os.environ}
    return {"PATH": PATH, "LANG": "C", "LC_ALL": "C", "TERM": "dumb"} | kept | dict(more)


def probe(resource: Resource, argv: Sequence[str], env: Mapping[str, str], *, limit_s: float | None = None) -> Said:
    """Run a script that only looks.  AgentError if it cannot be run (NotInstalled: it is not there), TookTooLong
    if it does not end in time."""
    out_read, out = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    err_read, err = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        os.set_blocking(out, True)  # the script's ends
        os.set_blocking(err, True)
        try:
            process = _start(argv, env, out, err)
        finally:
            os.close(out)
            os.close(err)
        kept = {out_read: bytearray(), err_read: bytearray()}
        with _ended_in_time(resource, process, argv[0], limit_s) as (pidfd, deadline):
            _drain(kept, pidfd, deadline)
        return Said(process.returncode, *(_text(kept[end]) for end in (out_read, err_read)))
    finally:
        os.close(out_read)
        os.close(err_read)


def act(resource: Resource, argv: Sequence[str], env: Mapping[str, str]) -> Said:
    """Run a script that may leave daemons behind.  AgentError as for :func:`probe`.

    What it prints is shown as it comes, so that the evidence of a hang has it.
    """
    path = resource.run_dir / "output"
    with path.open("ab") as output, path.open("rb") as reader:
        reader.seek(0, os.SEEK_END)
        process = _start(argv, env, output.fileno(), output.fileno())
        kept = bytearray()
        with _ended_in_time(resource, process, argv[0], None) as (pidfd, deadline):
            ended = False
            while not ended and time.monotonic() < deadline:
                ended = _is_readable(pidfd, min(LOOK_S, deadline - time.monotonic()))
                while chunk := reader.read(65_536):
                    _show(chunk, len(kept))
                    _keep(kept, chunk)
                if path.stat().st_size > FILE_MAX:
                    os.truncate(path, 0)  # everybody writes in append mode: it starts over
                    reader.seek(0)
    return Said(process.returncode, _text(kept), "")


def executable(path: Path, cure: str) -> None:
    """AgentError unless this is a file that root may run and nobody else may change."""
    try:
        status = path.stat()
    except OSError as error:
        raise AgentError(f"{path}: {error.strerror}", cure=cure) from error
    if not stat.S_ISREG(status.st_mode):
        raise AgentError(f"{path} is no file", cure=cure)
    if not status.st_mode & 0o111:
        raise AgentError(f"{path} is not executable", cure=f"chmod 755 {path}, if you trust it")
    if status.st_uid != 0 or status.st_mode & stat.S_IWOTH:
        owner = f"uid {status.st_uid}, mode {stat.S_IMODE(status.st_mode):04o}"
        raise AgentError(
            f"{path} may be changed by others than root ({owner})", cure=f"chown root and chmod 755 {path}"
        )


# -- one process --------------------------------------------------------------------


def _start(argv: Sequence[str], env: Mapping[str, str], stdout: int, stderr: int) -> "subprocess.Popen[bytes]":
    try:
        return subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            env=environment(env),
            cwd="/",
            process_group=0,
        )
    except OSError as error:
        cure = f"install {argv[0]}, or correct the name"
        if error.errno == errno.ENOEXEC:
            cure = f"its first line must name an interpreter, such as #!/bin/sh: {argv[0]}"
        elif error.errno == errno.EACCES:
            cure = f"chmod 755 {argv[0]}, and see that its file system is not mounted noexec"
        kind = NotInstalled if error.errno == errno.ENOENT else AgentError
        raise kind(f"{argv[0]} cannot be run: {error.strerror}", cure=cure) from error


@contextlib.contextmanager
def _ended_in_time(
    resource: Resource, process: "subprocess.Popen[bytes]", name: str, limit_s: float | None
) -> Iterator[tuple[int, float]]:
    """The block gets a pidfd and a deadline; after it the process is over, by itself or killed."""
    limit = resource.remaining if limit_s is None else min(limit_s, resource.remaining)
    pidfd = os.pidfd_open(process.pid)
    try:
        yield pidfd, time.monotonic() + limit
        if not _is_readable(pidfd, 0):
            raise TookTooLong(f"{name} did not end within {limit:.1f} s")
    finally:
        if not _is_readable(pidfd, 0):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        os.close(pidfd)
        process.wait()


def _drain(kept: dict[int, bytearray], pidfd: int, deadline: float) -> None:
    """Read until the process has ended, and then what is still in the pipes: a child of its
    own that keeps them open is not waited for."""
    with selectors.DefaultSelector() as selector:
        for source in (pidfd, *kept):
            selector.register(source, selectors.EVENT_READ)
        ended = False
        while not ended and time.monotonic() < deadline:
            ready = {key.fd for key, _ in selector.select(deadline - time.monotonic())}
            ended = pidfd in ready
            for source in kept:
                if (ended or source in ready) and not _read(source, kept[source]) and not ended:
                    selector.unregister(source)


def _read(source: int, kept: bytearray) -> bool:
    """One pipe's worth; False at its end."""
    try:
        chunk = os.read(source, 65_536)
    except BlockingIOError:
        return True
    _keep(kept, chunk)
    return bool(chunk)


def _is_readable(pidfd: int, wait_s: float) -> bool:
    with selectors.PollSelector() as selector:
        selector.register(pidfd, selectors.EVENT_READ)
        return bool(selector.select(wait_s))


def _keep(kept: bytearray, chunk: bytes) -> None:
    kept += chunk
    if len(kept) > 2 * KEPT_MAX:
        del kept[:-KEPT_MAX]


def _text(kept: bytearray) -> str:
    return bytes(kept[-KEPT_MAX:]).decode(errors="replace")


def _show(chunk: bytes, shown: int) -> None:
    """The first of it goes to the action's own output as well."""
    if shown < 32_000:
        with contextlib.suppress(OSError):  # a full disk costs output, not the action
            os.write(1, chunk[:32_000])
