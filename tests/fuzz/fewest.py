"""The fewest inputs that take all branches which a heap of inputs takes.

Decides by the steps from line to line within hostd, and by how often each is
taken (once, a few times, often), seen by the interpreter's own trace: the same
with and without atheris.  Short inputs come first, and one that brings nothing
new is dropped.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Final

WATCHED: Final = tuple(str(Path(__file__).parents[2] / folder) for folder in ("hostd", "plugins"))

Step = tuple[CodeType, int, int]
OFTEN: Final = 6
"""As a power of two: beyond it, more often is no news."""


def fewest(one: Callable[[bytes], int], inputs: Iterable[bytes]) -> list[bytes]:
    """Those to be kept, shortest first.  All of them pass: a finding is raised."""
    seen: set[tuple[Step, int]] = set()
    kept = []
    for data in sorted(set(inputs), key=lambda data: (len(data), data)):
        steps = _steps_of(one, data)
        if not steps <= seen:
            seen |= steps
            kept.append(data)
    return kept


def _steps_of(one: Callable[[bytes], int], data: bytes) -> set[tuple[Step, int]]:
    steps: Counter[Step] = Counter()
    last: dict[FrameType, int] = {}

    def trace(frame: FrameType, event: str, _argument: Any) -> Any:
        if event == "call":
            return trace if frame.f_code.co_filename.startswith(WATCHED) else None
        if event == "line":
            steps[frame.f_code, last.get(frame, 0), frame.f_lineno] += 1
            last[frame] = frame.f_lineno
        return trace

    sys.settrace(trace)
    try:
        one(data)
    finally:
        sys.settrace(None)
    return {(step, min(count.bit_length(), OFTEN)) for step, count in steps.items()}
