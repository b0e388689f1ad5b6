"""What the scripts of a resource left running: found by the bookkeeping of the host.

Decides that a process belongs to the resource if it is in its cgroup, or on a
machine without cgroup v2, if it carries its mark in the environment; and that
it is the main one only if all others descend from it.  For agents that cannot
know what their script starts.
"""

import os
from pathlib import Path
from typing import Final, NamedTuple

_MARK: Final = "HOSTD_RESOURCE"


class _Seen(NamedTuple):
    pid: int
    parent: int
    group: int
    session: int


def left_running() -> list[int]:
    """The living processes of this resource that are not part of the action that asks."""
    return [seen.pid for seen in _others()]


def main_process() -> int | None:
    """The one process that all others of the resource descend from; None if there is no such one.

    Its end is taken for a crash, so a guess would do harm.  Two daemons side by
    side have no main one; and it must have made itself a daemon by setsid(2),
    as is seen by its process group.  What a script merely sent into the
    background, like the announcements of an address, is meant to end.
    """
    others = _others()
    pids = {seen.pid for seen in others}
    tops = [seen for seen in others if seen.parent not in pids]
    return tops[0].pid if len(tops) == 1 and tops[0].group == tops[0].session else None


def _others() -> list[_Seen]:
    is_ours = _test()
    if is_ours is None:
        return []
    found = []
    own = os.getsid(0)
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if not is_ours.holds(entry):
                continue
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it ended while we looked
        seen = _Seen(int(entry.name), *map(int, fields[1:4]))
        if fields[0] not in ("Z", "X") and seen.session != own:
            found.append(seen)
    return found


class _Test:
    """Does a process belong to the resource?  One of ``wanted`` is among the entries of a file of /proc."""

    def __init__(self, file: str, separator: bytes, wanted: tuple[bytes, ...]) -> None:
        self._file, self._separator, self._wanted = file, separator, wanted

    def holds(self, entry: Path) -> bool:
        entries = (entry / self._file).read_bytes().split(self._separator)
        return any(wanted in entries for wanted in self._wanted)


def _test() -> _Test | None:
    """By our own place: the action runs in a cgroup inside that of its resource, or carries the mark.

    The cgroups of other actions, a monitor beside a start, are none of ours.
    """
    for line in Path("/proc/self/cgroup").read_bytes().splitlines():
        group, _, last = line.rpartition(b"/")
        if line.startswith(b"0::") and last.startswith(b"action-"):
            return _Test("cgroup", b"\n", (group, line))
    mark = os.environ.get(_MARK)
    return _Test("environ", b"\0", (f"{_MARK}={mark}".encode(),)) if mark else None
