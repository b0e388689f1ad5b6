"""SCSI-3 persistent reservations, asked of the disk itself and changed by ``sg_persist``.

Decides what an answer means and which failures are the disk's own: a unit
attention is told once and the command repeated, a reservation conflict is
another node's.  ``sg_persist`` is of sg3-utils; its exit codes are those of
sg3_utils(8).  Knows no node, and not who should have the disk.
"""

import hashlib
import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from hostd.api import probes, servers
from hostd.api.errors import AgentError
from hostd.api.resource import Resource

CURE: Final = "apt-get install sg3-utils"
TYPES: Final = {5: "Write Exclusive, registrants only", 6: "Exclusive Access, registrants only"}
"""Of SPC-4, section 5.12."""
_OTHER_TYPES: Final = {
    "Write Exclusive": 1,
    "Exclusive Access": 3,
    "Write Exclusive, all registrants": 7,
    "Exclusive Access, all registrants": 8,
}
ATTENTION: Final = 6
CONFLICT: Final = 24
NOT_SUPPORTED: Final = (5, 9)
OS_ERROR: Final = 50
"""sg3_utils(8): 50 and an errno."""
ENOTTY: Final = 25
TRIES_MAX: Final = 4
"""A unit attention is told once per event and path, and the command is not executed."""
COMMAND_S: Final = 10.0


class Reservation(NamedTuple):
    """What the disk says."""

    keys: list[int]
    """One per registered path of every node."""
    holder: int | None
    """The key of the holder; None: not reserved."""
    type: str


class NotSupported(AgentError):
    """The disk does not know this service action."""


def key_of(node: str) -> int:
    """The key of a node that is given none: "host" and 32 bits of its name, the same after every start."""
    return int.from_bytes(b"host" + hashlib.blake2b(node.encode(), digest_size=4).digest())


def type_code(words: str) -> int:
    """The number of a type that the disk named in words."""
    return (_OTHER_TYPES | {text: number for number, text in TYPES.items()}).get(words, 5)


def check_installed() -> None:
    """NotInstalled if there is nothing to ask by."""
    servers.program(("sg_persist",), CURE)


def ask(resource: Resource, paths: Sequence[str]) -> Reservation:
    """What the disk says, over the first of its paths that works."""
    failure = None
    for path in paths:
        try:
            return ask_over(resource, path)
        except AgentError as error:
            failure = failure or error
    assert failure is not None, "a disk has a path"
    raise failure


def ask_over(resource: Resource, path: str) -> Reservation:
    """What the disk says, over this path."""
    keys = _run(resource, path, ["--in", "--read-keys"])
    held = _run(resource, path, ["--in", "--read-reservation"])
    holder = re.search(r"^\s*Key=0x([0-9a-f]+)", held, re.MULTILINE)
    kind = re.search(r"type: (.+?)\s*$", held, re.MULTILINE)
    if "PR generation=" not in keys or "PR generation=" not in held:
        said = " ".join((keys + held).split())[:200]
        raise AgentError(f"{path}: sg_persist says what is not understood: {said}", cure=f"sg_persist -k {path}")
    found = [int(key, 16) for key in re.findall(r"^\s+0x([0-9a-f]+)\s*$", keys, re.MULTILINE)]
    return Reservation(found, int(holder[1], 16) if holder else None, kind[1] if kind else "")


def change(
    resource: Resource,
    path: str,
    act: str,
    *,
    rk: int | None = None,
    sark: int | None = None,
    type: int | None = None,  # noqa: A002 - sg_persist's word
    aptpl: bool = False,
    may_conflict: bool = False,
) -> None:
    """One service action of PERSISTENT RESERVE OUT, over this path.

    ``rk``: our own key; ``sark``: the key that the act is about; ``aptpl``: the
    disk is to keep it over a power loss; ``may_conflict``: a reservation
    conflict is no failure.
    """
    words = ["--out", act]
    words += [f"--param-rk=0x{rk:x}"] if rk is not None else []
    words += [f"--param-sark=0x{sark:x}"] if sark is not None else []
    words += [f"--prout-type={type}"] if type is not None else []
    words += ["--param-aptpl"] if aptpl else []
    _run(resource, path, words, may_conflict=may_conflict)


def _run(resource: Resource, path: str, words: list[str], *, may_conflict: bool = False) -> str:
    """One sg_persist; what it printed.  A command that the disk did not execute for a unit attention is repeated."""
    program = servers.program(("sg_persist",), CURE)
    slot = f"sg-{hashlib.blake2b(path.encode(), digest_size=4).hexdigest()}"
    for _ in range(TRIES_MAX):
        done = probes.run(resource, slot, [program, "--no-inquiry", *words, path], probes.patience(resource, COMMAND_S))
        if done.returncode != ATTENTION:
            break
    code = done.returncode
    if code == 0 or (code == CONFLICT and may_conflict):
        return done.stdout
    said = " ".join((done.stderr or done.stdout).split()) or f"exit code {code}"
    act = words[1].removeprefix("--")
    if code == CONFLICT:
        raise AgentError(f"{path} refuses {act}: reservation conflict", cure="another node has the disk, or takes it")
    if code in NOT_SUPPORTED:
        raise NotSupported(
            f"{path} does not support persistent reservations ({act}: {said})",
            cure="use a disk that does, or fencing by power instead",
        )
    if code == OS_ERROR + ENOTTY:
        raise AgentError(f"{path} is no SCSI disk: {said}", cure="name the disk itself; see lsscsi or lsblk -S")
    raise AgentError(f"{path}: {act} failed: {said}", cure=f"see dmesg; sg_persist --in --read-keys {path}")
