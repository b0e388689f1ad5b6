"""One node at a time writes to a shared disk: SCSI-3 persistent reservations, asked of the disk itself.

The disk refuses writes of a node that is not registered (type 5, write
exclusive, registrants only, of SPC-4 section 5.12), whatever that node
believes.  Each node registers a key of its own, over every path.  Mode
``exclusive``: a start removes every other key (PREEMPT AND ABORT), so that the
old owner's next write fails.  Mode ``registrants``: both may write, as a
cluster filesystem wants it, and everybody else may not.

A monitor registers nothing again: a key that was removed was removed by the
node that has the disk now.  ``sg_persist`` is of sg3-utils; its exit codes
are those of sg3_utils(8).
"""

import hashlib
import re
from pathlib import Path
from typing import Final, NamedTuple

from hostd.api import AgentError, Field, Health, Parameters, Resource, hookimpl, mounts, probes, servers

KERNEL = mounts.Kernel()
TYPES: Final = {5: "Write Exclusive, registrants only", 6: "Exclusive Access, registrants only"}
ATTENTION, CONFLICT = 6, 24
NOT_SUPPORTED: Final = (5, 9)
OS_ERROR = 50
"""sg3_utils(8): 50 and an errno."""
ENOTTY: Final = 25
TRIES_MAX = 4
"""A unit attention is told once per event and path, and the command is not executed."""
COMMAND_S = 10.0


@hookimpl
def parameters() -> Parameters:
    return Parameters(
        Field("devices", list, help="the disks, each by one path or its multipath device: every path is registered"),
        Field("keys", dict, default={}, help='a key per node, as in { clustnode1 = "0x1" }; default: of its name'),
        Field(
            "mode", str, default="exclusive", choices=("exclusive", "registrants"), help="who may write: one, or all"
        ),
        Field("exclusive_access", bool, default=False, help="refuse reads too (type 6 instead of 5)"),
        Field("abort", bool, default=True, help="cut off what the removed node has under way (PREEMPT AND ABORT)"),
        Field("aptpl", bool, default=False, help="the disk keeps it over a power loss, if it can (APTPL)"),
        summary="one node at a time writes to a shared SCSI disk",
        timeouts={"start": "60s", "stop": "60s", "monitor": "30s"},
        monitor_interval="10s",
    )


class Disk(NamedTuple):
    """One disk, and the paths over which this node reaches it."""

    name: str
    paths: list[str]


class Reservation(NamedTuple):
    """What the disk says."""

    keys: list[int]
    """One per registered path of every node."""
    holder: int | None
    """The key of the holder; None: not reserved."""
    type: str


@hookimpl
def start(resource: Resource) -> None:
    own = _own_key(resource)
    for disk in _disks(resource, must_exist=True):
        disk = disk._replace(paths=_register(resource, disk, own))
        _record(resource).touch()  # from here on a key that is not there was removed by somebody
        _take(resource, disk, own)
        complaint = _complaint(resource, disk, own, _ask(resource, disk))
        if complaint:
            raise AgentError(complaint, cure="see hostd status on the other node: does it take the disk too?")


@hookimpl
def stop(resource: Resource) -> None:
    own = _own_key(resource)
    for disk in _disks(resource, must_exist=False):
        seen = _ask(resource, disk)
        if own in seen.keys:
            _leave(resource, disk, own, seen)
    _record(resource).unlink(missing_ok=True)


@hookimpl
def monitor(resource: Resource) -> Health:
    own, health = _own_key(resource), Health.RUNNING
    was_started = _record(resource).exists()
    disks = _disks(resource, must_exist=was_started)
    stopped = not disks
    for disk in disks:
        seen = _ask(resource, disk)
        if own not in seen.keys and not was_started:
            stopped = True
            continue
        if seen.holder is None and own in seen.keys and resource.params["mode"] == "registrants":
            resource.log.warning("%s: the holder has left; the reservation is taken on", disk.name)
            _out(resource, disk.paths[0], "--reserve", rk=own, type=_type(resource))
            seen = _ask(resource, disk)
        complaint = _complaint(resource, disk, own, seen)
        if complaint:
            raise AgentError(complaint, cure="this node must not write to it now; hostd cleanup takes it back")
        if seen.keys.count(own) < len(disk.paths):
            number = seen.keys.count(own)
            resource.log.warning("%s: registered over %d of %d paths", disk.name, number, len(disk.paths))
            health = Health.DEGRADED
    return Health.STOPPED if stopped else health


@hookimpl
def validate(resource: Resource) -> None:
    _own_key(resource)
    servers.program(("sg_persist",), cure="apt-get install sg3-utils")
    for disk in _disks(resource, must_exist=True):
        for path in disk.paths:
            _ask(resource, disk._replace(paths=[path]))


# -- taking it ---------------------------------------------------------------------------


def _register(resource: Resource, disk: Disk, own: int) -> list[str]:
    """Register our key over every path; the paths that took it, which must be one at least.

    A takeover does not wait for a cable: a path that is down is left out, and the monitor says so.
    """
    registered, failure = [], None
    for path in disk.paths:
        try:
            _out(resource, path, "--register-ignore", sark=own, aptpl=resource.params["aptpl"])
            registered.append(path)
        except AgentError as error:
            resource.log.warning("%s", error.reason)
            failure = failure or error
    if failure is not None and not registered:
        raise failure
    return registered


def _take(resource: Resource, disk: Disk, own: int) -> None:
    """Reserve the disk and, in exclusive mode, remove every other key."""
    path, kind = disk.paths[0], _type(resource)
    is_shared = resource.params["mode"] == "registrants"
    for _ in range(TRIES_MAX):
        seen = _ask(resource, disk)
        if own not in seen.keys:
            raise AgentError(
                f"{disk.name}: our key {_name(resource, own)} was removed while we took the disk",
                cure="another node takes it at the same time; see hostd status there",
            )
        others = [key for key in dict.fromkeys(seen.keys) if key != own]
        is_ours = seen.holder == own or (is_shared and seen.holder in others)
        if seen.holder is None:
            _out(resource, path, "--reserve", rk=own, type=kind, may_conflict=True)
        elif is_ours and seen.type != TYPES[kind]:
            if seen.holder != own:
                raise AgentError(
                    f'{disk.name} is reserved by {_name(resource, seen.holder)} as "{seen.type}", '
                    f'and here as "{TYPES[kind]}"',
                    cure="set mode and exclusive_access alike on both nodes",
                )
            for each in disk.paths:
                _out(resource, each, "--release", rk=own, type=_code(seen.type), may_conflict=True)
        elif not is_ours:
            _preempt(resource, disk, own, seen.holder)
        elif others and not is_shared:
            for other in others:
                _preempt(resource, disk, own, other)
        else:
            return


def _leave(resource: Resource, disk: Disk, own: int, seen: Reservation) -> None:
    """Release and unregister over every path, verified.

    A path that is down keeps its registration until the next owner removes
    it: nothing of ours writes any more, and a stop does not wait for a cable.
    """
    failures = []
    for path in disk.paths:
        try:
            if seen.holder == own:
                # a path that lost its registration conflicts, and has nothing to release
                _out(resource, path, "--release", rk=own, type=_code(seen.type), may_conflict=True)
            _out(resource, path, "--register-ignore", sark=0)
        except AgentError as error:
            resource.log.warning("%s", error.reason)
            failures.append(error)
    if len(failures) == len(disk.paths):
        raise failures[0]
    left = _ask(resource, disk)
    if left.holder == own or (own in left.keys and not failures):
        raise AgentError(
            f"{disk.name}: key {_name(resource, own)} is still registered, over a path that is not known here",
            cure=f"sg_persist --out --clear --param-rk=0x{own:x} {disk.name} removes all keys of all nodes",
        )


def _preempt(resource: Resource, disk: Disk, own: int, other: int) -> None:
    """Remove another node's key, and its reservation with it."""
    resource.log.warning("%s: removing %s", disk.name, _name(resource, other))
    act = "--preempt-abort" if resource.params["abort"] else "--preempt"
    path, kind = disk.paths[0], _type(resource)
    try:
        _out(resource, path, act, rk=own, sark=other, type=kind, may_conflict=True)
    except _NotSupported:
        if act == "--preempt":
            raise
        resource.log.warning("%s knows no PREEMPT AND ABORT; PREEMPT has to do", disk.name)
        _out(resource, path, "--preempt", rk=own, sark=other, type=kind, may_conflict=True)


def _complaint(resource: Resource, disk: Disk, own: int, seen: Reservation) -> str:
    """What is wrong with what the disk says, in a sentence; "" if nothing is."""
    kind, is_shared = TYPES[_type(resource)], resource.params["mode"] == "registrants"
    who = "nobody" if seen.holder is None else _name(resource, seen.holder)
    if own not in seen.keys:
        return f"{disk.name}: our key {_name(resource, own)} was removed; the disk is reserved by {who}"
    if seen.holder is None or (seen.holder != own and not (is_shared and seen.holder in seen.keys)):
        return f"{disk.name}: our reservation is lost; the disk is reserved by {who}"
    if seen.type != kind:
        return f'{disk.name} is reserved as "{seen.type}" and not as "{kind}"'
    others = [_name(resource, key) for key in dict.fromkeys(seen.keys) if key != own]
    if others and not is_shared:
        return f"{disk.name}: beside ours {' and '.join(others)} may write"
    return ""


# -- asking the disk -----------------------------------------------------------------------


class _NotSupported(AgentError):
    """The disk does not know this service action."""


def _ask(resource: Resource, disk: Disk) -> Reservation:
    """What the disk says, over the first path that works."""
    failure = None
    for path in disk.paths:
        try:
            return _ask_over(resource, path)
        except AgentError as error:
            failure = failure or error
    assert failure is not None, "a disk has a path"
    raise failure


def _ask_over(resource: Resource, path: str) -> Reservation:
    keys = _run(resource, path, ["--in", "--read-keys"])
    held = _run(resource, path, ["--in", "--read-reservation"])
    holder = re.search(r"^\s*Key=0x([0-9a-f]+)", held, re.MULTILINE)
    kind = re.search(r"type: (.+?)\s*$", held, re.MULTILINE)
    if "PR generation=" not in keys or "PR generation=" not in held:
        said = " ".join((keys + held).split())[:200]
        raise AgentError(f"{path}: sg_persist says what is not understood: {said}", cure=f"sg_persist -k {path}")
    found = [int(key, 16) for key in re.findall(r"^\s+0x([0-9a-f]+)\s*$", keys, re.MULTILINE)]
    return Reservation(found, int(holder[1], 16) if holder else None, kind[1] if kind else "")


def _out(
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
    words = ["--out", act]
    words += [f"--param-rk=0x{rk:x}"] if rk is not None else []
    words += [f"--param-sark=0x{sark:x}"] if sark is not None else []
    words += [f"--prout-type={type}"] if type is not None else []
    words += ["--param-aptpl"] if aptpl else []
    _run(resource, path, words, may_conflict=may_conflict)


def _run(resource: Resource, path: str, words: list[str], *, may_conflict: bool = False) -> str:
    """One sg_persist; what it printed.  A command that the disk did not execute for a unit attention is repeated."""
    program = servers.program(("sg_persist",), cure="apt-get install sg3-utils")
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
        raise _NotSupported(
            f"{path} does not support persistent reservations ({act}: {said})",
            cure="use a disk that does, or fencing by power instead",
        )
    if code == OS_ERROR + ENOTTY:
        raise AgentError(f"{path} is no SCSI disk: {said}", cure="name the disk itself; see lsscsi or lsblk -S")
    raise AgentError(f"{path}: {act} failed: {said}", cure=f"see dmesg; sg_persist --in --read-keys {path}")


# -- disks, paths and keys -------------------------------------------------------------------


def _disks(resource: Resource, *, must_exist: bool) -> list[Disk]:
    """The configured disks with their paths; without ``must_exist`` only those that are here."""
    given = resource.params["devices"]
    if not given:
        raise AgentError("devices is empty", cure='write devices = ["/dev/disk/by-id/…"]')
    found = []
    for device in given:
        if not isinstance(device, str) or not device.startswith("/"):
            raise AgentError(f"devices has {device!r}, which is no path", cure='write devices = ["/dev/disk/by-id/…"]')
        try:
            number = mounts.number_of(device)
        except OSError as error:
            if must_exist:
                reason = f"{device} is not there: {error.strerror}"
                raise AgentError(reason, cure="is the disk connected? see lsblk -S") from error
            continue  # what cannot be reached cannot be written to from here
        found.append(Disk(device, _paths(device, number)))
    return found


def _paths(device: str, number: str) -> list[str]:
    """The device itself; of a multipath device, every path."""
    folder = KERNEL.sys / "dev/block" / number
    uuid = _text(folder / "dm/uuid")
    if not uuid:
        if number and _text(folder / "partition"):
            raise AgentError(f"{device} is a partition; reservations are of whole disks", cure="name the whole disk")
        return [device]
    if not uuid.startswith("mpath-"):
        raise AgentError(
            f"{device} is a layer above disks ({uuid.partition('-')[0]}), not a disk",
            cure="name the disks or multipath devices below it; see lsblk",
        )
    paths = [f"/dev/{slave.name}" for slave in sorted((folder / "slaves").iterdir())]
    if not paths:
        raise AgentError(f"{device} has no path left", cure="see multipath -ll")
    return paths


def _own_key(resource: Resource) -> int:
    """This node's key: from the table, else made of its name.  AgentError for a table that is of no use."""
    table = resource.params["keys"]
    if not table:
        # "host" and 32 bits of the name: recognizable, and the same after every start
        return int.from_bytes(b"host" + hashlib.blake2b(resource.node.encode(), digest_size=4).digest())
    keys = {node: _number(node, key) for node, key in table.items()}
    if resource.node not in keys:
        raise AgentError(f"keys has no key for {resource.node}", cure=f'add {resource.node} = "0x…"')
    if len(set(keys.values())) < len(keys):
        raise AgentError("keys gives two nodes the same key", cure="give each node a key of its own")
    return keys[resource.node]


def _number(node: str, key: object) -> int:
    try:
        number = key if isinstance(key, int) else int(str(key), 16)
    except ValueError:
        number = 0
    if isinstance(key, bool) or not 0 < number < 1 << 64:
        raise AgentError(f"keys: {node} = {key!r} is no key", cure='write a hexadecimal number: "0x1" to 16 digits')
    return number


def _name(resource: Resource, key: int) -> str:
    """A key for people, with its node if the table tells."""
    for node, text in resource.params["keys"].items():
        if _number(node, text) == key:
            return f"0x{key:x} ({node})"
    return f"0x{key:x}" + (f" ({resource.node})" if not resource.params["keys"] and key == _own_key(resource) else "")


def _type(resource: Resource) -> int:
    return 6 if resource.params["exclusive_access"] else 5


def _code(kind: str) -> int:
    """The number of a type that the disk named in words."""
    names = {"Write Exclusive": 1, "Exclusive Access": 3, "Write Exclusive, all registrants": 7}
    names |= {"Exclusive Access, all registrants": 8} | {text: number for number, text in TYPES.items()}
    return names.get(kind, 5)


def _record(resource: Resource) -> Path:
    """Is there from the first registration to the end of a stop: a key that is missing then was removed."""
    return resource.run_dir / "registered"


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
