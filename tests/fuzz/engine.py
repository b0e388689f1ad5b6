"""Makes inputs for one target, in a process of its own, until time or number is up.

Two engines: atheris (libFuzzer), which watches the branches that an input
takes and goes on from what took a new one; and where there is no atheris, the
kept corpus changed at random.  Decides how a finding is noticed: an exception,
more than ``INPUT_MAX_S`` for one input, more than ``MEMORY_MAX_MB``.  Knows no
target.  The blind engine repeats itself for a seed.
"""

import ctypes
import faulthandler
import importlib.util
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple, NoReturn, Protocol

from tests.fuzz import corpus, targets
from tests.fuzz.fewest import fewest
from tests.fuzz.target import Target

INPUT_MAX_S: Final = 5
"""For one input of a few kilobytes, on a machine that others use, too; the usual time is below a millisecond."""
MEMORY_MAX_MB: Final = 1_024
CHANGES_MAX: Final = 4
PR_SET_PDEATHSIG: Final = 1


class Counter(Protocol):
    """Two numbers that the parent can read: inputs, and pieces of them."""

    def __getitem__(self, index: int) -> int: ...
    def __setitem__(self, index: int, value: int) -> None: ...


class Order(NamedTuple):
    """What a process is to do.  ``runs`` or ``seconds`` 0: no such limit.  ``folder``: for inputs and findings."""

    name: str
    runs: int
    seconds: int
    seed: int
    folder: Path


def has_atheris() -> bool:
    return importlib.util.find_spec("atheris") is not None


def work(order: Order, counter: Counter) -> NoReturn:
    """Be the child.  Ends with 0, or not if there is a finding, which lies in ``folder`` then."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    faulthandler.enable()
    tempfile.tempdir = str(order.folder)  # what targets write is removed with it
    if has_atheris():
        _watch_branches(order, counter)
    limit = MEMORY_MAX_MB * 1_048_576
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    target = _target(order)
    found = blind(target, random.Random(f"fuzz {order.seed}"), order.runs, order.seconds, counter)
    if found is not None:
        (order.folder / "crash-blind").write_bytes(found)
    _end(1 if found is not None else 0)


def _end(code: int) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _target(order: Order) -> Target:
    """With its inputs to begin with in the folder: the kept ones and its seeds."""
    target = targets.load(order.name)
    inputs = order.folder / "inputs"
    inputs.mkdir(exist_ok=True)
    for number, data in enumerate(beginning(target)):
        (inputs / f"begin-{number:05}").write_bytes(data)
    return target


def beginning(target: Target) -> list[bytes]:
    """The kept corpus and the seeds."""
    return list(dict.fromkeys([*corpus.load(target.name), *target.seeds()]))


def keep(order: Order, counter: Counter) -> NoReturn:
    """Be the child that makes the kept corpus anew of what a search has left in the folder."""
    found = [path.read_bytes() for path in (order.folder / "inputs").iterdir()]
    target = targets.load(order.name)
    counter[0] = corpus.save(order.name, fewest(target.one, found) or target.seeds())
    _end(0)


# -- by branches ------------------------------------------------------------------------------


def _watch_branches(order: Order, counter: Counter) -> None:
    import atheris

    with atheris.instrument_imports(include=["hostd", "plugins"]):
        target = _target(order)
    tried = _counted(target, counter)
    options = [
        f"-max_len={target.size_max}", f"-timeout={INPUT_MAX_S}", f"-rss_limit_mb={MEMORY_MAX_MB}",
        f"-seed={order.seed + 1}", f"-artifact_prefix={order.folder}/", "-print_final_stats=1",
        "-verbosity=1", "-detect_leaks=0",
    ]  # fmt: skip
    if target.words:
        words = order.folder / "words"
        words.write_text("".join(f'"{_escaped(word)}"\n' for word in target.words))
        options.append(f"-dict={words}")
    if order.runs:
        options.append(f"-runs={order.runs}")
    if order.seconds:
        options.append(f"-max_total_time={order.seconds}")
    options.append(str(order.folder / "inputs"))
    atheris.Setup([order.name, *options], tried)
    atheris.Fuzz()


def _escaped(word: bytes) -> str:
    """As libFuzzer's dictionaries want it."""
    return "".join(f"\\x{byte:02x}" for byte in word)


def _counted(target: Target, counter: Counter) -> Callable[[bytes], None]:
    def tried(data: bytes) -> None:
        counter[0] += 1
        counter[1] += target.one(data)

    return tried


# -- blindly ----------------------------------------------------------------------------------


def blind(target: Target, dice: random.Random, runs: int, seconds: float, counter: Counter) -> bytes | None:
    """The inputs to begin with as they are, then changed at random; the first that was a finding, or None."""
    start = beginning(target)
    until = time.monotonic() + seconds if seconds else float("inf")
    inputs = start or [b""]
    count = 0
    while (count < len(start) or not runs or count < runs) and time.monotonic() < until:
        data = start[count] if count < len(start) else changed(dice, inputs, target)
        count += 1
        counter[0] += 1
        began = time.monotonic()
        try:
            counter[1] += target.one(data)
        except BaseException as error:  # the edge: whatever it raises is what is looked for
            traceback.print_exc()
            if isinstance(error, KeyboardInterrupt):
                raise
            return data
        if time.monotonic() - began > INPUT_MAX_S:
            print(f"one input took {time.monotonic() - began:.1f} s", file=sys.stderr)
            return data
    return None


def changed(dice: random.Random, inputs: list[bytes], target: Target) -> bytes:
    """One of the inputs with a few bytes changed, taken out, doubled, or joined with another's."""
    data = bytearray(dice.choice(inputs))
    for _ in range(dice.randint(1, CHANGES_MAX)):
        at = dice.randrange(len(data) + 1)
        length = dice.choice((1, 1, 2, 4, 16, 64))
        match dice.randrange(6):
            case 0:
                data[at : at + 1] = bytes([dice.choice((0, 1, 127, 128, 255, dice.randrange(256)))])
            case 1:
                data[at:at] = dice.randbytes(length)
            case 2:
                del data[at : at + length]
            case 3:
                data[at:at] = data[at : at + length] * dice.choice((1, 1, 3, 50))
            case 4:
                other = dice.choice(inputs)
                begin = dice.randrange(len(other) + 1)
                data[at:] = other[begin:]
            case _ if target.words:
                data[at:at] = dice.choice(target.words)
            case _:
                data[at:at] = dice.choice((b"\0", b"\n", b'"', b"\xff", b"\x7f\xff\xff\xff\xff"))
    return bytes(data[: target.size_max])
