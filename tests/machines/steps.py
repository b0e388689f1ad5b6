"""What is being done now, how long it took, and how busy this machine was.

Emulated machines are slow, and slower beside other work.  Whoever waits for
them sees each step with its time, the processor time that the guests used and
the load, so that a time limit that strikes can be understood.
"""

import contextlib
import os
import sys
import time
from collections.abc import Iterator


@contextlib.contextmanager
def step(what: str) -> Iterator[None]:
    """One line at the end: what was done, the seconds it took, the load; at a terminal also one at the beginning."""
    began = time.monotonic()
    live = sys.stdout.isatty()
    if live:
        print(f"  … {what}", end="", flush=True)
    mark = "✗"
    try:
        yield
        mark = "✓"
    finally:
        took = time.monotonic() - began
        print(f"{chr(13) if live else ''}  {mark} {what:<68} {took:6.1f} s   load {os.getloadavg()[0]:.1f}", flush=True)


def note(text: str) -> None:
    """A fact worth seeing beside the steps."""
    for line in text.splitlines():
        print(f"      {line}", flush=True)
