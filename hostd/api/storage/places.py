"""What is to be mounted and where, as conf.d says it, and what stands there: for all agents of filesystems.

Decides what counts as ours (device and root in mountinfo, not a path that
somebody typed), and refuses a directory, options or a device of which a mount
could only do harm.  What may hang is asked in a child (``hostd.api.probes``).
Mounts and unmounts nothing, and knows no particular filesystem.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from hostd.api import probes, servers
from hostd.api.errors import AgentError
from hostd.api.resource import Resource
from hostd.api.storage import mounts
from hostd.api.storage.mounts import Mount

_TAGS: Final = {"UUID": "by-uuid", "LABEL": "by-label", "PARTUUID": "by-partuuid", "PARTLABEL": "by-partlabel"}


class Wanted(NamedTuple):
    """What is to be mounted, and where."""

    source: str
    """As ``mount`` takes it: a device, ``host:/path``, a directory."""
    directory: str
    fstype: str = ""
    options: tuple[str, ...] = ()
    device: str = ""
    """``major:minor`` by which it is known once it is mounted, if that is known."""
    root: str = "/"
    """What of it is mounted; "" if any part will do."""
    sources: tuple[str, ...] = ()
    """Sources in mountinfo that mean it, where the device number is not known before."""
    fstypes: tuple[str, ...] = ()
    """The types that it may be mounted as; empty: any."""
    block: str = ""
    """The block device that only one may hold, "" if there is none."""

    @property
    def is_read_only(self) -> bool:
        return "ro" in self.options

    def is_it(self, mount: Mount) -> bool:
        if self.fstypes and mount.fstype not in self.fstypes:
            return False
        if self.root not in ("", mount.root) and mount.fstype != "btrfs":  # which shows its subvolume there
            return False
        return mount.device == self.device or mount.source in self.sources


class Found(NamedTuple):
    """What stands at the directory."""

    mount: Mount | None
    """Ours, the uppermost if there are several."""
    above: list[Mount]
    """What is mounted on ours, in it or over it."""
    strangers: list[Mount]
    """What is mounted at the directory and is not ours."""


def find(wanted: Wanted, table: list[Mount]) -> Found:
    """What stands at the directory."""
    here = [mount for mount in table if mount.point == wanted.directory]
    ours = [mount for mount in here if wanted.is_it(mount)]
    mount = ours[-1] if ours else None
    strangers = [other for other in here if other not in ours]
    if mount is None:
        return Found(None, [], strangers)
    later = table[table.index(mount) + 1 :]
    return Found(mount, [m for m in later if mounts.is_within(m.point, mount.point)], strangers)


# -- what conf.d says ------------------------------------------------------------------


def seconds(given: float | str) -> float:
    """A patience: seconds from 0.1 to 600.  ValueError for anything else."""
    number = float(given)
    if not 0.1 <= number <= 600:
        raise ValueError("must be from 0.1 to 600 seconds")
    return number


def directory_of(given: str, name: str = "directory") -> str:
    """The directory as mountinfo will show it.  AgentError if it cannot be that."""
    path = os.path.normpath(given) if given else ""
    if not path.startswith("/") or path.startswith("//"):
        raise AgentError(f'{name} = "{given}" is no absolute path', cure=f'write it from the root: {name} = "/srv"')
    if path == "/":
        raise AgentError(f'{name} = "{given}" is the root of this machine', cure="use a directory of its own")
    if "\0" in path or "\n" in path:
        raise AgentError(f"{name} contains a line break", cure="use another directory")
    return path


def options_of(given: str) -> tuple[str, ...]:
    """Mount options as a list.  AgentError for what is none or would not mount but change something."""
    options = tuple(given.split(",")) if given else ()
    for option in options:
        if option.split() != [option]:
            raise AgentError(f'options = "{given}" has an empty or blank item', cure='write "noatime,nodev"')
        if option.startswith("-") or option.partition("=")[0] in ("remount", "move"):
            raise AgentError(f'options = "{given}": {option} is no option of a new mount', cure=f"remove {option}")
    if "ro" in options and "rw" in options:
        raise AgentError(f'options = "{given}" has both ro and rw', cure="keep one of them")
    return options


def device_of(resource: Resource, given: str) -> str:
    """The path of the device that is named by path or tag; "" if no such device is here now."""
    tag, equals, value = given.partition("=")
    if not equals or tag not in _TAGS:
        if not given.startswith("/"):
            listed = ", ".join(f"{tag}=" for tag in _TAGS)
            raise AgentError(f'device = "{given}" is no path', cure=f"use a path in /dev, or {listed}")
        return given
    value = value.strip('"')
    if not value:
        raise AgentError(f'device = "{given}" names nothing', cure=f"see blkid; write {tag}=…")
    link = Path("/dev/disk", _TAGS[tag], re.sub(r"[^\w#+.:=@-]", lambda c: f"\\x{ord(c[0]):02x}", value))
    if link.is_symlink():
        return str(link.resolve())
    blkid = servers.program(("blkid",), cure="apt-get install util-linux")
    # without its cache, which may tell what was on the disk before
    argv = [blkid, "-c", "/dev/null", "-o", "device", "-t", f"{tag}={value}"]
    found = probes.run(resource, "blkid", argv, probes.patience(resource, 10)).stdout.split()
    if len(found) > 1:
        raise AgentError(f"{given} means {' and '.join(found)}", cure="name one of them by its path")
    return found[0] if found else ""


def check_directory(resource: Resource, directory: str, *, over: bool) -> None:
    """AgentError unless it is there, no link leads to it, and it is empty (or ``over``)."""

    def look() -> str:
        path = Path(directory)
        if not path.exists():
            return "missing"
        if os.path.realpath(directory) != directory:
            return os.path.realpath(directory)
        if not path.is_dir():
            return "no directory"
        return "" if over or not any(path.iterdir()) else "not empty"

    said = asked(resource, "directory", directory, look)
    if said == "missing":
        raise AgentError(f"{directory} does not exist", cure=f"mkdir -p {directory}")
    if said == "no directory":
        raise AgentError(f"{directory} is no directory", cure="set directory to one")
    if said == "not empty":
        raise AgentError(
            f"{directory} is not empty: a mount would hide what is in it",
            cure="empty it, use another directory, or set over = true",
        )
    if said:
        raise AgentError(f"{directory} leads by a link to {said}", cure=f'set directory = "{said}"')


def check_fstab(directory: str, fstab: Path = Path("/etc/fstab")) -> None:
    """AgentError if the system itself mounts something at the directory when it boots."""
    try:
        lines = fstab.read_text(errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        fields = line.split("#")[0].split()
        if len(fields) > 3 and os.path.normpath(fields[1]) == directory and "noauto" not in fields[3].split(","):
            raise AgentError(
                f"{directory} is in {fstab}: the system mounts {fields[0]} there at boot, on both nodes",
                cure="remove that line, or add noauto to its options",
            )


def asked(resource: Resource, slot: str, path: str, look: Callable[[], str]) -> str:
    """A look at a path that is not ours yet.  AgentError if it cannot be looked at."""
    try:
        return probes.ask(resource, slot, f"a look at {path}", look, str, probes.patience(resource, 10))
    except OSError as error:
        raise AgentError(f"{path} cannot be looked at: {error.strerror}", cure="is what it lies on there?") from error


# -- may it be mounted there? ------------------------------------------------------------


def check_place(resource: Resource, wanted: Wanted, table: list[Mount], *, over: bool) -> None:
    """AgentError unless the directory is fit for a mount, and nothing of others stands there (or ``over``)."""
    check_directory(resource, wanted.directory, over=over)
    strangers = find(wanted, table).strangers
    if strangers and not over:
        raise AgentError(
            f"{strangers[-1].source} ({strangers[-1].fstype}) is mounted at {wanted.directory}",
            cure=f"umount {wanted.directory}, or set over = true",
        )
