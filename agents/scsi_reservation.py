"""One node at a time writes to a shared disk: SCSI-3 persistent reservations, asked of the disk itself.

The disk refuses writes of a node that is not registered (type 5, write
exclusive, registrants only, of SPC-4 section 5.12), whatever that node
believes.  Each node registers a key of its own, over every path.  Mode
``exclusive``: a start removes every other key (PREEMPT AND ABORT), so that the
old owner's next write fails.  Mode ``registrants``: both may write, as a
cluster filesystem wants it, and everybody else may not.

A monitor registers nothing again: a key that was removed was removed by the
node that has the disk now.
"""

from pathlib import Path

from hostd.api import AgentError, Field, Health, NotInstalled, Parameters, Resource, hookimpl
from hostd.api.storage import mounts, reservations
from hostd.api.storage.disks import Disk, disks_of
from hostd.api.storage.reservations import Reservation

KERNEL = mounts.Kernel()


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
        # no sandbox: only a disk can say what a disk does
        trial="an idle disk, of which the other node's keys may be removed",
        guards_storage=True,
        guards_storage_with={"mode": "exclusive"},  # registrants: both nodes may write
    )


@hookimpl
def start(resource: Resource) -> None:
    own = _own_key(resource)
    for disk in _disks(resource, must_exist=True):
        disk = disk._replace(paths=_register(resource, disk, own))
        _record(resource).touch()  # from here on a key that is not there was removed by somebody
        _take(resource, disk, own)
        complaint = _complaint(resource, disk, own, reservations.ask(resource, disk.paths))
        if complaint:
            raise AgentError(complaint, cure="see hostd status on the other node: does it take the disk too?")


@hookimpl
def stop(resource: Resource) -> None:
    own = _own_key(resource)
    if _cannot_be_started(resource):
        return
    for disk in _disks(resource, must_exist=False):
        seen = reservations.ask(resource, disk.paths)
        if own in seen.keys:
            _leave(resource, disk, own, seen)
    _record(resource).unlink(missing_ok=True)


@hookimpl
def monitor(resource: Resource) -> Health:
    own, health = _own_key(resource), Health.RUNNING
    if _cannot_be_started(resource):
        return Health.STOPPED
    was_started = _record(resource).exists()
    disks = _disks(resource, must_exist=was_started)
    stopped = not disks
    for disk in disks:
        seen = reservations.ask(resource, disk.paths)
        if own not in seen.keys and not was_started:
            stopped = True
            continue
        if seen.holder is None and own in seen.keys and resource.params["mode"] == "registrants":
            resource.log.warning("%s: the holder has left; the reservation is taken on", disk.name)
            reservations.change(resource, disk.paths[0], "--reserve", rk=own, type=_type(resource))
            seen = reservations.ask(resource, disk.paths)
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
    reservations.check_installed()
    for disk in _disks(resource, must_exist=True):
        for path in disk.paths:
            reservations.ask_over(resource, path)


# -- taking it ---------------------------------------------------------------------------


def _register(resource: Resource, disk: Disk, own: int) -> list[str]:
    """Register our key over every path; the paths that took it, which must be one at least.

    A takeover does not wait for a cable: a path that is down is left out, and the monitor says so.
    """
    registered, failure = [], None
    for path in disk.paths:
        try:
            reservations.change(resource, path, "--register-ignore", sark=own, aptpl=resource.params["aptpl"])
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
    for _ in range(reservations.TRIES_MAX):
        seen = reservations.ask(resource, disk.paths)
        if own not in seen.keys:
            raise AgentError(
                f"{disk.name}: our key {_name(resource, own)} was removed while we took the disk",
                cure="another node takes it at the same time; see hostd status there",
            )
        others = [key for key in dict.fromkeys(seen.keys) if key != own]
        is_ours = seen.holder == own or (is_shared and seen.holder in others)
        if seen.holder is None:
            reservations.change(resource, path, "--reserve", rk=own, type=kind, may_conflict=True)
        elif is_ours and seen.type != reservations.TYPES[kind]:
            if seen.holder != own:
                raise AgentError(
                    f'{disk.name} is reserved by {_name(resource, seen.holder)} as "{seen.type}", '
                    f'and here as "{reservations.TYPES[kind]}"',
                    cure="set mode and exclusive_access alike on both nodes",
                )
            there = reservations.type_code(seen.type)
            for each in disk.paths:
                reservations.change(resource, each, "--release", rk=own, type=there, may_conflict=True)
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
    failures, there = [], reservations.type_code(seen.type)
    for path in disk.paths:
        try:
            if seen.holder == own:
                # a path that lost its registration conflicts, and has nothing to release
                reservations.change(resource, path, "--release", rk=own, type=there, may_conflict=True)
            reservations.change(resource, path, "--register-ignore", sark=0)
        except AgentError as error:
            resource.log.warning("%s", error.reason)
            failures.append(error)
    if len(failures) == len(disk.paths):
        raise failures[0]
    left = reservations.ask(resource, disk.paths)
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
        reservations.change(resource, path, act, rk=own, sark=other, type=kind, may_conflict=True)
    except reservations.NotSupported:
        if act == "--preempt":
            raise
        resource.log.warning("%s knows no PREEMPT AND ABORT; PREEMPT has to do", disk.name)
        reservations.change(resource, path, "--preempt", rk=own, sark=other, type=kind, may_conflict=True)


def _complaint(resource: Resource, disk: Disk, own: int, seen: Reservation) -> str:
    """What is wrong with what the disk says, in a sentence; "" if nothing is."""
    kind, is_shared = reservations.TYPES[_type(resource)], resource.params["mode"] == "registrants"
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


# -- what is configured ----------------------------------------------------------------------


def _disks(resource: Resource, *, must_exist: bool) -> list[Disk]:
    """The configured disks; without ``must_exist`` only those that are here."""
    return disks_of(resource.params["devices"], KERNEL, must_exist=must_exist)


def _own_key(resource: Resource) -> int:
    """This node's key: from the table, else made of its name.  AgentError for a table that is of no use."""
    table = resource.params["keys"]
    if not table:
        return reservations.key_of(resource.node)
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


def _cannot_be_started(resource: Resource) -> bool:
    """Is it neither started here nor installed?  Then there is nothing to ask the disk by, and nothing to ask."""
    try:
        reservations.check_installed()
    except NotInstalled:
        return not _record(resource).exists()
    return False


def _record(resource: Resource) -> Path:
    """Is there from the first registration to the end of a stop: a key that is missing then was removed."""
    return resource.run_dir / "registered"
