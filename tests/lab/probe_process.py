"""A measuring process in a network namespace: started, asked, ended.

Decides how the lab talks to what it measures with: a script that is run apart
(so that a busy test does not disturb the measurement), enters a namespace,
prints one line when it is ready and answers each line ``QUESTION MILLISECONDS`` on
stdin (``report SINCE_MS``, unless it knows others) with one line of JSON.  It ends with its stdin.
"""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.lab.network import Network


def now_ms() -> float:
    """The clock of every measurement, the same in all processes of the machine."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) * 1000


class ProbeProcess:
    """The handle of one; a context manager.

    ``has_libraries``: the script may import what is installed beside the standard library.
    """

    def __init__(self, script: str, network: Network, spec: dict[str, Any], *, has_libraries: bool = False) -> None:
        self.began_at_ms = now_ms()
        self._process = subprocess.Popen(
            [sys.executable, "-I", *([] if has_libraries else ["-S"]), str(Path(__file__).with_name(script)),
             json.dumps({"network": network.path, **spec})],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        self._answer()

    def ask(self, since_ms: float | None = None) -> dict[str, Any]:
        """What was measured since then (default: since the start)."""
        return self.put("report", self.began_at_ms if since_ms is None else since_ms)

    def put(self, question: str, when_ms: float) -> dict[str, Any]:
        """The answer to a question that the script knows."""
        assert self._process.stdin
        self._process.stdin.write(f"{question} {when_ms}\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        if self._process.stdin and not self._process.stdin.closed:
            self._process.stdin.close()
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            if self._process.stdout:
                self._process.stdout.close()

    def __enter__(self) -> "ProbeProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a measuring process ended with exit code {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer
