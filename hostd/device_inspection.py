"""What of [fencing] and [watchdog] would not work on this machine (a part of ``hostd check``).

Decides what can be seen without touching any device: programs and their
metadata (a plugin's ``check_device``, in a child under a limit), two nodes that
a device could not tell apart, a watchdog that is missing, held by another,
or made of software.  The watchdog is not opened: that would arm it.
"""

import os
import selectors
from typing import Final

import msgspec

from hostd import device_child, watchdog
from hostd.api import FenceOrder
from hostd.cgroups import Marks
from hostd.confd.complain import Complaints
from hostd.config import Configuration, FencingDevice, Watchdog
from hostd.device_child import DeviceChild, Word
from hostd.registry import Registry

ASK_MAX_MS: Final = 10_000
"""For a program's metadata, twice what the slowest takes: Python, and some 50 modules."""
_GROUP: Final = "@check"


def fencing(configuration: Configuration, registry: Registry, complaints: Complaints) -> None:
    """Every device, and each once for all nodes of which the same is said."""
    for number, device in enumerate(configuration.fencing_devices):
        path = ("fencing", "device", number)
        said: dict[tuple[str, bool], None] = {}
        for node in device.nodes:
            further = [other for other in configuration.fencing_devices if node in other.nodes]
            is_last = all(other.level <= device.level for other in further)
            word = _ask(device, node, registry, is_last)
            if not word.ok:
                complaints.error((*path, "agent"), word.reason, word.cure or "see its plugin", value=device.agent)
                break
            said |= dict.fromkeys((complaint.sentence, complaint.is_note) for complaint in word.complaints)
        for sentence, is_note in said:
            rule, _, cure = sentence.partition("; ")
            (complaints.warn if is_note else complaints.error)(path, rule, cure or "see above")
        _told_apart(device, path, complaints)


def _ask(device: FencingDevice, node: str, registry: Registry, is_last: bool) -> Word:
    words: list[Word] = []

    def work(order: FenceOrder) -> Word:
        return Word(ok=True, complaints=device_child.complaints(registry.check_device(order)))

    with selectors.DefaultSelector() as selector:
        child = DeviceChild(
            Marks(f"hostd-check-{os.getpid()}"),
            selector,
            device=msgspec.structs.replace(device, timeout_ms=ASK_MAX_MS),
            node=node,
            group=_GROUP,
            is_last=is_last,
            work=work,
            ended=lambda child, word: words.append(
                Word(ok=False, reason=child.too_long()) if child.is_killed else word
            ),
        )
        while not words:
            for key, _ in selector.select(0.1):
                key.data()
            if child.tick():
                return Word(ok=False, reason=f"{child.too_long()} and cannot be killed")
    return words[0]


def _told_apart(device: FencingDevice, path: tuple[str | int, ...], complaints: Complaints) -> None:
    """A device that is told the same for both nodes switches the same outlet for both."""
    told = [(device.params[node], device.secrets[node]) for node in device.nodes]
    if not device.storage and len(told) == 2 and told[0] == told[1]:
        first, second = device.nodes
        rule = f"is told the same for {first} and {second}: it would switch one and the same machine off for either"
        cure = f'give each its own, such as plug = {{ {first} = "1", {second} = "2" }}'
        complaints.error((*path, "params"), rule, cure)


def timer(wanted: Watchdog, complaints: Complaints, *, is_running: bool) -> None:
    """The watchdog of conf.d, as the kernel tells of it.  ``is_running``: hostd holds it now."""
    path, device = ("watchdog", "device"), wanted.device
    value = str(device)
    try:
        facts = watchdog.facts(device)
        holder = watchdog.holder(device)
    except OSError as error:
        rule = "is not there" if isinstance(error, FileNotFoundError) else f"cannot be used: {error.strerror}"
        cure = "load the driver of the machine's watchdog (wdctl lists them), or remove [watchdog]"
        complaints.error(path, rule, cure, value=value)
        return
    if holder is not None and not is_running:
        name, pid = holder
        cure = (
            "set RuntimeWatchdogSec=0 in /etc/systemd/system.conf and reboot, or name another device"
            if pid == 1
            else f"stop {name}, or name another device"
        )
        complaints.error(path, f"is held by {name} (process {pid})", cure, value=value)
    if facts.get("identity", "") == watchdog.SOFTDOG:
        rule = "is softdog, a timer of the kernel itself: a kernel that hangs is not reset by it"
        complaints.warn(path, rule, "use the machine's own watchdog, if it has one", value=value)
    if facts.get("nowayout") == "1":
        rule = "cannot be let go (nowayout): whenever hostd ends or detaches, this machine resets"
        complaints.warn(path, rule, "load its driver with nowayout=0", value=value)
    longest = facts.get("max_timeout", "")
    if longest.isdigit() and 0 < int(longest) * 1_000 < wanted.timeout_ms:
        rule = f"is longer than this device can wait ({longest} s)"
        complaints.error(("watchdog", "timeout"), rule, f'use "{longest}s" or less')
