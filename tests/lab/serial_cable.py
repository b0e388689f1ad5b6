"""A serial cable: two pseudo terminals and a relay process between them.

Decides what passes from end to end.  What a real pulled cable looks like is
kept: bytes vanish and nobody is told, there is no hangup.  A node without
power neither sends nor receives, and what had not been read is lost.  Ptys do
not pace, so ``baud`` makes the relay pace as a UART would; ends that are set
to different speeds receive garbage.  Knows nothing of frames.

The lower half is the relay, run as a script of its own (standard library
only) so that a busy test does not delay the line.
"""

import contextlib
import json
import os
import select
import subprocess
import sys
import termios
import time
import tty
from pathlib import Path
from typing import Any

BITS_PER_BYTE = 10  # 8N1
BURST_MAX = 4_096  # what a UART's driver holds


class SerialCable:
    """The handle of a relay; a context manager.  ``ends``: device path per end (0 and 1)."""

    def __init__(self, *, baud: int = 0) -> None:
        """``baud``: pace to this speed; 0: as fast as the machine can."""
        self._relay = subprocess.Popen(
            [sys.executable, "-I", str(Path(__file__)), str(baud)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.ends: list[str] = self._answer()["ends"]

    def plug(self) -> None:
        """Plug the cable in."""
        self._tell("plug")

    def unplug(self) -> None:
        """Pull the cable: what is sent vanishes."""
        self._tell("unplug")

    def power(self, end: int, *, on: bool) -> None:
        """The machine at this end has power or not."""
        self._tell(f"power {end} {int(on)}")

    def garbage(self, end: int, data: bytes) -> None:
        """Let these bytes arrive at ``end``, as noise on the line would."""
        self._tell(f"garbage {end} {data.hex()}")

    def passed(self) -> int:
        """How many bytes have arrived so far, both directions together."""
        count: int = self._tell("count")["bytes"]
        return count

    def close(self) -> None:
        if self._relay.stdin and not self._relay.stdin.closed:
            self._relay.stdin.close()
            self._relay.wait(5)
            if self._relay.stdout:
                self._relay.stdout.close()

    def __enter__(self) -> "SerialCable":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _tell(self, line: str) -> dict[str, Any]:
        assert self._relay.stdin
        self._relay.stdin.write(line + "\n")
        self._relay.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._relay.stdout
        line = self._relay.stdout.readline()
        if not line:
            raise RuntimeError(f"the serial relay ended with exit code {self._relay.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


# -- the relay process ------------------------------------------------------------


class End:
    """One end: the pty's master, which we serve, and its slave, which we keep
    open so that a node that closes it causes no hangup."""

    def __init__(self) -> None:
        self.master, self.slave = os.openpty()
        tty.setraw(self.slave)
        os.set_blocking(self.master, False)
        self.powered = True
        self.budget = 0.0  # bytes that the line's pace allows now
        self.waiting = b""  # sent, not yet on the line

    @property
    def speed(self) -> int:
        return int(termios.tcgetattr(self.slave)[5])

    def send(self) -> bytes:
        """What this machine's program has written."""
        try:
            return os.read(self.master, BURST_MAX)
        except OSError:
            return b""

    def receive(self, data: bytes) -> int:
        try:
            return os.write(self.master, data)
        except BlockingIOError:
            return 0  # nobody reads: an overrun, as on the real thing

    def forget(self) -> None:
        self.waiting = b""
        termios.tcflush(self.slave, termios.TCIOFLUSH)


class Relay:
    def __init__(self, baud: int) -> None:
        self.ends = (End(), End())
        self.plugged = True
        self.baud = baud
        self.count = 0
        self.paced_at = time.monotonic()

    def carry(self) -> None:
        """Move what may move now."""
        now = time.monotonic()
        allowance = (now - self.paced_at) * self.baud / BITS_PER_BYTE
        self.paced_at = now
        for sender, receiver in (self.ends, self.ends[::-1]):
            sender.waiting += sender.send()
            if not self.baud:
                burst, sender.waiting = sender.waiting, b""
            else:
                sender.budget = min(sender.budget + allowance, 64.0)  # a FIFO's worth after a pause
                size = min(int(sender.budget), len(sender.waiting))
                sender.budget -= size
                burst, sender.waiting = sender.waiting[:size], sender.waiting[size:]
                sender.waiting = sender.waiting[:BURST_MAX]
            if burst and self.plugged and sender.powered and receiver.powered:
                if sender.speed != receiver.speed:
                    burst = bytes((byte * 7 + 0x55) & 0xFF for byte in burst[::2])
                self.count += receiver.receive(burst)

    @property
    def is_pacing(self) -> bool:
        return any(end.waiting for end in self.ends)

    def obey(self, line: str) -> dict[str, Any]:
        word, *rest = line.split()
        if word == "plug":
            self.plugged = True
        elif word == "unplug":
            self.plugged = False
        elif word == "power":
            end = self.ends[int(rest[0])]
            end.powered = rest[1] == "1"
            end.forget()
        elif word == "garbage":
            self.ends[int(rest[0])].receive(bytes.fromhex(rest[1]))
        else:
            assert word == "count", line
        return {"bytes": self.count}


def main() -> None:
    relay = Relay(int(sys.argv[1]))
    prefer_real_time()
    print(json.dumps({"ends": [os.ttyname(end.slave) for end in relay.ends]}), flush=True)
    poll = select.poll()
    for descriptor in (0, *(end.master for end in relay.ends)):
        poll.register(descriptor, select.POLLIN)
    commands = b""
    while True:
        ready = [descriptor for descriptor, _ in poll.poll(2 if relay.is_pacing else None)]
        relay.carry()
        if 0 in ready:
            more = os.read(0, 65_536)
            if not more:
                return  # the lab is gone, and the cable with it
            commands += more
            while b"\n" in commands:
                line, commands = commands.split(b"\n", 1)
                print(json.dumps(relay.obey(line.decode())), flush=True)


def prefer_real_time() -> None:
    """A cable is hardware: it does not wait for a busy machine."""
    with contextlib.suppress(OSError):  # it is only slower then
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(1))


if __name__ == "__main__":
    main()
