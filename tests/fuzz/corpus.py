"""The kept inputs: one text file a target, one input a line (base64), sorted.

Decides where they are and that they stay small.  They are what reached each
branch with the fewest bytes, and what once was a finding.
"""

import base64
from collections.abc import Iterable
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).with_name("corpus")
KEPT_MAX: Final = 16_000
"""Bytes of one target's file; all together stay below 200 KB."""


def load(name: str) -> list[bytes]:
    """The kept inputs of a target; none if there is no file."""
    try:
        lines = (FOLDER / f"{name}.txt").read_text().split()
    except FileNotFoundError:
        return []
    return [base64.b64decode(line) for line in lines]


def save(name: str, inputs: Iterable[bytes]) -> int:
    """Keep these instead, the shortest first, as many as may be; how many that were."""
    lines: list[str] = []
    room = KEPT_MAX
    for data in sorted(set(inputs), key=lambda data: (len(data), data)):
        line = base64.b64encode(data).decode()
        room -= len(line) + 1
        if room < 0:
            break
        lines.append(line)
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines))
    return len(lines)
