"""Commands inside a guest, by QEMU's guest agent over a virtio channel.

Decides how a shell script gets in and its output out.  Needs nothing of ours
in the guest, no network and no keys: only Debian's qemu-guest-agent.
"""

import base64
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.machines.json_lines import JsonLines

POLL_FIRST_S = 0.02
POLL_MAX_S = 0.3
SHELL = "/bin/sh"


class GuestError(AssertionError):
    """A script failed in the guest, or the guest does not answer: what was run, what came."""


@dataclass(frozen=True)
class Ran:
    """How a script ended; ``output`` is stdout and stderr together."""

    status: int
    output: str


class GuestAgent:
    """Scripts run as root.  Its connection is made anew when the guest was started anew."""

    def __init__(self, name: str, path: Path) -> None:
        self.name, self._path = name, path
        self._lines: JsonLines | None = None

    def answers(self, *, within_s: float) -> bool:
        """Is somebody there?  Drops what an earlier question left in the channel."""
        self.close()
        end = time.monotonic() + within_s
        try:
            lines = JsonLines(self._path, timeout_s=within_s)
        except TimeoutError:
            return False
        tag = time.monotonic_ns() & 0x7FFF_FFFF
        try:
            lines.send({"execute": "guest-sync-delimited", "arguments": {"id": tag}}, prefix=b"\xff")
            while lines.receive(timeout_s=max(0.01, end - time.monotonic())).get("return") != tag:
                pass
        except (OSError, ValueError):
            lines.close()
            return False
        self._lines = lines
        return True

    def run(self, script: str, *, timeout_s: float = 120, stdin: bytes = b"") -> Ran:
        """Run a shell script to its end.  GuestError if it takes longer."""
        pid = self._execute(f"exec 2>&1\n{script}", stdin, capture=True)
        end, pause_s = time.monotonic() + timeout_s, POLL_FIRST_S
        while True:
            found = self._ask("guest-exec-status", pid=pid)
            if found["exited"]:
                output = base64.b64decode(found.get("out-data", "")).decode(errors="replace")
                return Ran(found.get("exitcode", 128 + found.get("signal", 0)), output)
            if time.monotonic() > end:
                raise GuestError(f"{self.name}: still running after {timeout_s:.0f} s:\n{script}")
            time.sleep(pause_s)
            pause_s = min(pause_s * 1.5, POLL_MAX_S)

    def sh(self, script: str, *, timeout_s: float = 120, stdin: bytes = b"") -> str:
        """Its output, without the last line's end.  GuestError if it ends with another code than 0."""
        ran = self.run(script, timeout_s=timeout_s, stdin=stdin)
        if ran.status:
            raise GuestError(f"{self.name}: exit code {ran.status} of\n{script}\nit printed:\n{ran.output}")
        return ran.output.strip()

    def background(self, script: str) -> None:
        """Start it and look no further."""
        self._execute(script, b"", capture=False)

    def write(self, path: str, content: str | bytes, *, mode: str = "644") -> None:
        """A file, with its folders."""
        data = content.encode() if isinstance(content, str) else content
        self.sh(f"mkdir -p $(dirname {path}) && cat > {path} && chmod {mode} {path}", stdin=data)

    def until(self, test: str, *, within_s: float = 180, what: str = "") -> float:
        """Until a shell test succeeds; the seconds it took."""
        began = time.monotonic()
        while True:
            ran = self.run(test, timeout_s=within_s)
            took_s = time.monotonic() - began
            if ran.status == 0:
                return took_s
            if took_s > within_s:
                raise GuestError(f"{self.name}: not within {within_s:.0f} s: {what or test}\n{ran.output}")
            time.sleep(POLL_MAX_S)

    def close(self) -> None:
        if self._lines:
            self._lines.close()
            self._lines = None

    def _execute(self, script: str, stdin: bytes, *, capture: bool) -> int:
        arguments: dict[str, Any] = {"path": SHELL, "arg": ["-c", script], "capture-output": capture}
        if stdin:
            arguments["input-data"] = base64.b64encode(stdin).decode()
        return int(self._ask("guest-exec", **arguments)["pid"])

    def _ask(self, command: str, **arguments: Any) -> Any:
        if self._lines is None and not self.answers(within_s=60):
            raise GuestError(f"{self.name}: its agent does not answer")
        assert self._lines is not None
        try:
            self._lines.send({"execute": command, "arguments": arguments})
            said = self._lines.receive(timeout_s=120)
        except (OSError, ValueError) as error:
            self.close()
            raise GuestError(f"{self.name}: its agent is gone: {error}") from None
        if "error" in said:
            raise GuestError(f"{self.name}: {command}: {said['error']['desc']}")
        return said["return"]
