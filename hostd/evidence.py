"""What an action was doing when its time limit struck: one text file for people.

Decides what is worth keeping: processes as a tree with state and wait
channel, their kernel stacks and open files, the action's own output (with
the line of Python where it hangs), load and pressure.  Runs in a child of
the host, under a limit of its own: a look at a hung process may itself hang.
"""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psutil

from hostd.processes import Process
from hostd.records import file_name

FILES_MAX: Final = 50
"""How many evidence files are kept; at some 20 kB each they never matter to a disk."""
FILE_SIZE_MAX: Final = 256_000
PROCESSES_MAX: Final = 200
OPEN_FILES_MAX: Final = 50
"""Per process."""
PRINTING_MS: Final = 300
OUTPUT_TAIL: Final = 20_000
"""How many bytes of the action's output are taken over."""


def new_path(state: Path, *names: str) -> Path:
    """A fresh file name in the state directory's ``evidence``; the oldest files go."""
    folder = state / "evidence"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for old in sorted(folder.glob("*.txt"))[: -(FILES_MAX - 1)]:
        old.unlink(missing_ok=True)
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
    return folder / f"{stamp}.{time.time_ns() % 1_000_000_000:09d}-{file_name(*names)}.txt"


def write(path: Path, headline: str, processes: list[Process], output: Path) -> None:
    """Look at everything and write the file, section by section: what is there when
    a look hangs is kept.  ``processes`` are those of the action; ``output`` what it printed."""
    room = FILE_SIZE_MAX
    with path.open("x", encoding="utf-8", errors="replace") as file:
        os.fchmod(file.fileno(), 0o600)
        for line in _lines(headline, processes, output):
            room -= len(line) + 1
            if room < 0:
                file.write("… cut here: more than an evidence file holds\n")
                return
            file.write(line + "\n")
            file.flush()


def _lines(headline: str, processes: list[Process], output: Path) -> Iterator[str]:
    yield headline
    yield time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    yield "\n== load and pressure"
    yield "load " + _read(Path("/proc/loadavg"))
    for kind in ("cpu", "io", "memory"):
        for line in _read(Path(f"/proc/pressure/{kind}")).splitlines():
            yield f"{kind} {line}"
    yield "\n== processes (pid, state, wait channel, name)"
    shown = processes[:PROCESSES_MAX]
    yield from _tree(shown)
    for process in shown:
        yield f"\n== {process.pid} {process.name}: kernel stack and open files"
        yield from _read(Path(f"/proc/{process.pid}/stack")).splitlines()
        yield from _open_files(process.pid)
    yield "\n== what the action printed last, and where it was"
    _let_it_print(output)
    yield from tail(output, OUTPUT_TAIL).splitlines()
    yield "\n== command lines (last: this look may hang)"
    for process in shown:
        with contextlib.suppress(psutil.Error):
            yield f"{process.pid} {' '.join(psutil.Process(process.pid).cmdline()) or f'[{process.name}]'}"


def _let_it_print(output: Path) -> None:
    """The child is asked for its stack when it is struck; on a busy machine it prints it a moment later."""
    before = -1
    for _ in range(PRINTING_MS // 50):
        with contextlib.suppress(OSError):
            size = output.stat().st_size
            if size == before > 0:
                return
            before = size
        time.sleep(0.05)


def _tree(processes: list[Process]) -> Iterator[str]:
    known = {p.pid for p in processes}

    def below(parent: int, depth: int) -> Iterator[str]:
        for p in processes:
            if p.parent == parent:
                channel = _read(Path(f"/proc/{p.pid}/wchan")) or "-"
                yield f"{'  ' * depth}{p.pid} {p.state} {channel if channel != '0' else '-'} {p.name}"
                yield from below(p.pid, depth + 1)

    for parent in dict.fromkeys(p.parent for p in processes if p.parent not in known):
        yield from below(parent, 0)


def _open_files(pid: int) -> Iterator[str]:
    folder = Path(f"/proc/{pid}/fd")
    try:
        numbers = sorted(folder.iterdir(), key=lambda entry: int(entry.name))
    except OSError as error:
        yield f"open files: {error.strerror}"
        return
    for number in numbers[:OPEN_FILES_MAX]:
        with contextlib.suppress(OSError):
            yield f"fd {number.name} → {number.readlink()}"
    if len(numbers) > OPEN_FILES_MAX:
        yield f"… and {len(numbers) - OPEN_FILES_MAX} more"


def tail(path: Path, size: int, end: int | None = None) -> str:
    """The last ``size`` bytes of a text file (of its first ``end``), or "" if it cannot be read."""
    try:
        with path.open("rb") as file:
            end = os.fstat(file.fileno()).st_size if end is None else end
            size = min(size, end)
            file.seek(end - size)
            return file.read(size).decode(errors="replace").strip()
    except OSError:
        return ""


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError as error:
        return f"({error.strerror})"
