"""Runs one command to its end, under a limit: how, for agents and fencing plugins alike.

Waits for the process and not for the end of its output: a daemon that keeps
its caller's output open does not hang the action.
"""

import os
import select
import subprocess
from collections.abc import Mapping, Sequence

import msgspec

from hostd.api.errors import AgentError, NotInstalled


class Completed(msgspec.Struct, frozen=True):
    """How a command ended: exit status (negative: the signal that killed it) and output."""

    returncode: int
    stdout: str
    stderr: str


def _wait(process: "subprocess.Popen[bytes]", limit: float) -> None:
    """Wait for the process itself; at once when it ends (``Popen.wait`` with a
    limit looks only every 50 ms)."""
    pidfd = os.pidfd_open(process.pid)
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        if not poll.poll(max(0.0, limit) * 1_000):
            raise subprocess.TimeoutExpired(process.args, limit)
    finally:
        os.close(pidfd)
    process.wait()


def run_command(argv: Sequence[str], limit: float, text: str | None, env: Mapping[str, str] | None) -> Completed:
    """``Resource.run`` with the limit in seconds and the standard input as ``text``."""
    with (
        open(os.memfd_create("stdout"), "w+b") as out,
        open(os.memfd_create("stderr"), "w+b") as err,
    ):
        try:
            process = subprocess.Popen(
                list(argv),
                stdin=subprocess.PIPE if text is not None else subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=None if env is None else {**os.environ, **env},
            )
        except OSError as error:
            kind = NotInstalled if isinstance(error, FileNotFoundError) else AgentError
            raise kind(
                f"{argv[0]} cannot be run: {error.strerror}", cure=f"install {argv[0]} or set its path"
            ) from error
        try:
            if text is not None and process.stdin is not None:
                with process.stdin as pipe:
                    pipe.write(text.encode())
            _wait(process, limit)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AgentError(f"{argv[0]} did not end within {limit:.1f} s") from None
        except BrokenPipeError:
            _wait(process, limit)
        out.seek(0)
        err.seek(0)
        return Completed(
            process.returncode,
            out.read(1_000_000).decode(errors="replace"),
            err.read(1_000_000).decode(errors="replace"),
        )
