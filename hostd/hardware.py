"""What of this machine's hardware stands behind an interface or a tty?

Decides whether two heartbeat media share a part that fails as one, and
whether a serial port is already somebody's console.  Reads sysfs and the
process table only; what it cannot see (a virtual machine's real cards, two
ports of one on-board chip) it does not guess.
"""

import re
from pathlib import Path
from typing import Final

import psutil

SYSFS: Final = Path("/sys")
_PCI: Final = re.compile(r"([0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2})\.[0-7]")
_GETTYS: Final = ("agetty", "getty", "mgetty", "login")
_DEPTH_MAX: Final = 8
"""A VLAN on a bond on two cards has three levels."""


def parts_of_interface(name: str, sysfs: Path = SYSFS, depth: int = 0) -> tuple[str, ...]:
    """The interfaces and cards that must work for ``name`` to work: for a VLAN,
    bridge or bond those below it, for a card with several ports the card."""
    entry = sysfs / "class" / "net" / name
    below = sorted(path.name.removeprefix("lower_") for path in entry.glob("lower_*"))
    if below and depth < _DEPTH_MAX:
        return tuple(part for lower in below for part in parts_of_interface(lower, sysfs, depth + 1))
    card = _card(entry / "device")
    return (f"interface {name}", card) if card else (f"interface {name}",)


def parts_of_tty(device: str, sysfs: Path = SYSFS) -> tuple[str, ...]:
    """The same for a serial port: itself, and the card or USB controller it is on."""
    name = Path(device).resolve().name
    card = _card(sysfs / "class" / "tty" / name / "device")
    return (f"tty {name}", card) if card else (f"tty {name}",)


def _card(device: Path) -> str:
    """The PCI card (any of its functions) that a device hangs on; empty if on none."""
    found = _PCI.findall(str(device.resolve())) if device.exists() else []
    return f"PCI card {found[-1]}" if found else ""


def is_kernel_console(device: str, sysfs: Path = SYSFS) -> bool:
    """Does the kernel print its messages there?"""
    try:
        active = (sysfs / "class" / "tty" / "console" / "active").read_text().split()
    except OSError:
        return False  # no such kernel interface: nothing to say
    return Path(device).resolve().name in active


def getty_on(device: str) -> int | None:
    """The process that offers a login on a tty, which would eat every second frame."""
    name = Path(device).resolve().name
    for process in psutil.process_iter(["name", "cmdline", "terminal"]):
        if process.info["name"] in _GETTYS and (
            process.info["terminal"] == f"/dev/{name}" or name in (process.info["cmdline"] or ())
        ):
            return int(process.pid)
    return None
