"""What else lies around haresources: scripts, parameter files, hooks, leftovers.

Decides what a resource's name means on this site (a script of the site's
own, one that Heartbeat brought, an init script, a systemd unit), and the fate
of every other file of the directory.  Reads, and runs nothing.

The directory may be a copy: scripts are looked for beside it (``/etc/ha.d``
has ``/etc/init.d`` beside it, and a copy of ``/etc`` too).
"""

import enum
import ipaddress
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from hostd.api import ConfigError
from hostd.importing import texts
from hostd.importing.fates import Ledger, Line

STOCK: Final = frozenset(
    {
        "AudibleAlarm", "Delay", "Filesystem", "ICP", "IPaddr", "IPaddr2", "IPsrcaddr", "IPv6addr", "LVM",
        "LinuxSCSI", "MailTo", "OCF", "Raid1", "SendArp", "ServeRAID", "WAS", "WAS6", "WinPopup", "Xinetd",
        "apache", "db2", "hto-mapfuncs", "ids", "portblock",
    }
)  # fmt: skip
"""What Heartbeat 3.0.6 brings in resource.d."""
FROM_PACKAGES: Final = {"drbddisk": "drbd-utils", "drbdupper": "drbd-utils", "ldirectord": "ldirectord"}
"""What other packages put there; Debian's names."""
_MARKS: Final = (b"ra_execocf", b"hto-mapfuncs", b"OCF_TYPE")
"""Heartbeat's own scripts are wrappers that have one of these."""
_HOOKS: Final = frozenset({"ask_resources", "hb_takeover", "ip-request", "ip-request-resp", "status"})
_READ_ELSEWHERE: Final = frozenset({"ha.cf", "haresources", "authkeys"})
_OF_HEARTBEAT: Final = {
    "harc": "Heartbeat's dispatcher of messages: hostd has no use for it",
    "shellfuncs": "Heartbeat's shell library: hostd has no use for it; keep it if scripts of resource.d read it",
    "README.config": "Heartbeat's documentation",
    "logd.cf": "Heartbeat's log daemon: hostd logs to the journal",
    "ldirectord.cf": "read by ldirectord itself: it stays where it is",
}


class Origin(enum.Enum):
    """Where the script of a resource is."""

    OWN = "own"  # resource.d, of the site or another package
    STOCK = "stock"  # resource.d, brought by Heartbeat
    INIT = "init"  # /etc/init.d
    UNIT = "unit"  # a systemd unit only
    NOWHERE = "nowhere"  # looked for, not found: Heartbeat could not start it either
    UNKNOWN = "unknown"  # there is no place to look at: the directory is a copy


class Site:
    """One node's files below and beside its ha.d."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._root = directory.absolute().parent.parent
        self._init = directory.absolute().parent / "init.d"

    def origin(self, name: str) -> Origin:
        """Where Heartbeat would find the script: resource.d first, then init.d."""
        if "/" in name or name.startswith(".") or "\0" in name:
            return Origin.NOWHERE
        own = self.directory / "resource.d" / name
        if _is_file(own):
            return Origin.STOCK if name in STOCK and self._is_wrapper(own) else Origin.OWN
        if name in STOCK:
            return Origin.STOCK
        if _is_file(self._init / name):
            return Origin.INIT
        if self.has_unit(name):
            return Origin.UNIT
        return Origin.NOWHERE if self._init.is_dir() else Origin.UNKNOWN

    @property
    def has_scripts(self) -> bool:
        """resource.d is there, so that a script which is not in it was not in it."""
        return (self.directory / "resource.d").is_dir()

    def has_unit(self, name: str) -> bool:
        """A systemd unit of this name is there."""
        folders = ("etc/systemd/system", "lib/systemd/system", "usr/lib/systemd/system")
        return any(_is_file(self._root / folder / f"{name}.service") for folder in folders)

    def provider(self, kind: str) -> str | None:
        """Who provides an OCF agent, found as Heartbeat's wrapper finds it; ``heartbeat`` if it can be anywhere."""
        try:
            folders = sorted((self._root / "usr/lib/ocf/resource.d").iterdir())
        except OSError:
            return None
        found = [folder.name for folder in folders if _is_file(folder / kind)]
        return "heartbeat" if "heartbeat" in found else next(iter(found), None)

    def instance(self, kind: str, name: str) -> bytes | None:
        """The parameter file of ``OCF::kind::name``; None if there is none."""
        if any("/" in part or part.startswith(".") or "\0" in part for part in (kind, name)):
            return None
        try:
            return texts.read(self.directory / "conf" / "OCF" / kind / name)
        except (FileNotFoundError, ConfigError):
            return None

    def own_script(self, name: str) -> bytes | None:
        """The content of the site's own script in resource.d; None if there is none."""
        if self.origin(name) is not Origin.OWN:
            return None
        try:
            return texts.read(self.directory / "resource.d" / name)
        except (FileNotFoundError, ConfigError):
            return None

    def hosts(self, nodes: Sequence[str]) -> dict[str, list[str]]:
        """The addresses that the hosts file beside the directory gives the nodes; loopback ones say nothing."""
        found: dict[str, list[str]] = {node: [] for node in nodes}
        try:
            content = texts.read(self.directory.absolute().parent / "hosts")
        except (FileNotFoundError, ConfigError):
            return found
        for line in texts.decoded(content).split("\n"):
            words = line.partition("#")[0].lower().split()
            try:
                address = ipaddress.ip_address(words[0] if words else "")
            except ValueError:
                continue
            for node in found:
                if node in words[1:] and not address.is_loopback:
                    found[node].append(str(address))
        return found

    def _is_wrapper(self, path: Path) -> bool:
        try:
            content = texts.read(path)
        except (FileNotFoundError, ConfigError):
            return False
        return any(mark in content for mark in _MARKS)

    def others(self, used: frozenset[str], ledger: Ledger) -> None:
        """The fate of everything in the directory that is not one of its three files."""
        for path in _files(self.directory):
            name = texts.shown(str(path.relative_to(self.directory)))
            self._other(path, Line(name, 0), used, ledger)

    def _other(self, path: Path, line: Line, used: frozenset[str], ledger: Ledger) -> None:
        top, name = path.relative_to(self.directory).parts[0], path.name
        if line.file in _READ_ELSEWHERE:
            return
        if path.parent == self.directory and name in _OF_HEARTBEAT:
            ledger.not_needed(line, "", _OF_HEARTBEAT[name])
        elif path.parent.name == "resource.d":
            self._script(name, line, used, ledger)
        elif path.parent.name == "rc.d":
            if name in _HOOKS:
                ledger.not_needed(line, "", "a hook of Heartbeat's own: hostd does this itself")
            else:
                reason = "a hook of this site: Heartbeat ran it for messages of this name, hostd has no such hooks"
                ledger.refused(line, "", reason, "read it, and make a service or a systemd unit of what it does")
        elif top == "conf" and name.startswith("arp_config"):
            reason = "how often addresses were announced: hostd announces each at 0, 50, 200, 500 and 1100 ms and later"
            ledger.warned(line, "", "", reason, "if that is not enough, set [announce] burst and refresh")
        elif path.relative_to(self.directory).parts[:2] == ("conf", "OCF"):
            if f"OCF::{path.parent.name}::{name}" not in used:
                ledger.not_needed(line, "", "parameters of a resource that haresources does not name")
        else:
            ledger.not_needed(line, "", "no file of Heartbeat's own: it stays where it is, for whoever reads it")

    def _script(self, name: str, line: Line, used: frozenset[str], ledger: Ledger) -> None:
        if name in used:
            return  # its fate is told with the resource
        if name in STOCK:
            ledger.not_needed(line, "", "brought by Heartbeat, and haresources does not name it")
        else:
            ledger.not_needed(line, "", "haresources does not name it")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


FILES_MAX: Final = 2_000


def _files(directory: Path) -> list[Path]:
    """All files below, links not followed, in order; no more than a site can have."""
    found: list[Path] = []
    waiting = [directory]
    while waiting and len(found) < FILES_MAX:
        try:
            entries = sorted(waiting.pop(0).iterdir())
        except OSError:
            continue
        found += [entry for entry in entries if not entry.is_dir() or entry.is_symlink()]
        waiting += [entry for entry in entries if entry.is_dir() and not entry.is_symlink()]
    return found[:FILES_MAX]
