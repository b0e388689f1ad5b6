"""Groups of haresources → [service.*].

Decides what each service is called, where its primary is, and what is wrong
between groups: a key that is not unique, an address in two of them, a script
that two groups would stop under each other.
"""

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from hostd.importing import addresses, haresources, texts
from hostd.importing.fates import Ledger, Line
from hostd.importing.haresources import Group, Word
from hostd.importing.resources import Resources, Rung
from hostd.importing.writing import Listed

SERVICES_MAX: Final = 256
RESOURCES_MAX: Final = 64
"""hostd's own limits."""


class Service(msgspec.Struct, frozen=True):
    """One group, converted."""

    name: str
    group: Group
    rungs: tuple[Rung, ...]
    missing: tuple[str, ...] = ()
    """Resources of the group that are not, or not wholly, in ``rungs``: it must not run as it is."""

    def table(self) -> dict[str, Any]:
        """The table [service.NAME]: the short form where it says the same."""
        table: dict[str, Any] = {"primary": self.group.node}
        tables = [rung.table for rung in self.rungs]
        has_short_form = "address" in tables[0] and all("agent" in rest for rest in tables[1:])
        if not self.missing and (len(tables) == 1 or (len(tables) == 2 and has_short_form)):
            for part in tables:
                table |= part
        else:
            table["resources"] = Listed(tables)
        return table

    @property
    def before(self) -> list[str]:
        """What Heartbeat started, in order."""
        return [word.text for word in self.group.words]

    @property
    def after(self) -> list[str]:
        """What hostd starts, in order."""
        return [_started(rung.table) for rung in self.rungs]


class Services:
    """All groups of one haresources.  ``nodes``: those of ha.cf, lower-cased."""

    def __init__(self, nodes: tuple[str, ...], resources: Resources, ledger: Ledger) -> None:
        self._nodes, self._resources, self._ledger = nodes, resources, ledger
        self._names = {"00-cluster"}  # the name of a file that is there already
        self._keys: dict[str, Line] = {}
        self._ips: dict[str, Line] = {}

    def read(self, groups: tuple[Group, ...]) -> list[Service]:
        """Every group that can be converted; the others are refused."""
        announced = {ip for group in groups for word in group.words if (ip := _ip(word))}
        seen = Counter(word.text for group in groups for word in {w.text: w for w in group.words}.values())
        found: list[Service] = []
        for group in groups:
            if not self._is_fit(group):
                continue
            if len(found) >= SERVICES_MAX:
                reason = f"is the group after the {SERVICES_MAX}th"
                self._ledger.refused(group.line, "", reason, "make a second cluster")
                continue
            rungs, missing = self._rungs(group, announced, seen)
            if not rungs:
                continue
            name = self._name(rungs)
            found.append(Service(name, group, rungs, missing))
            if missing:
                reason = (
                    f"is written to {name}.toml as comments: it must not run without {texts.shown(' '.join(missing))}"
                )
                self._ledger.refused(group.line, "the group", reason, "complete it there, then take the # away")
        return found

    def _is_fit(self, group: Group) -> bool:
        """The node is one of the cluster's, and the key is nobody else's."""
        if group.node.rstrip("\r") not in self._nodes:
            self._ledger.refused(group.line, group.line.text.partition(" ")[0], *_no_node(group, self._nodes))
            return False
        if not group.words:
            self._ledger.refused(group.line, group.node, "has nothing to run", "remove the line, or add its resources")
            return False
        key = group.words[0].text
        other = self._keys.setdefault(key, group.line)
        if other is not group.line:
            reason = f"is the first resource of line {other.number} too, and Heartbeat finds a group by it alone"
            cure = "let one group have it; each service needs an address of its own"
            self._ledger.refused(group.line, texts.shown(key), reason, cure)
            return False
        return True

    def _rungs(
        self, group: Group, announced: set[str], seen: "Counter[str]"
    ) -> tuple[tuple[Rung, ...], tuple[str, ...]]:
        """Those that could be converted, and the words of those that could not."""
        rungs: list[Rung] = []
        missing: list[str] = []
        shown = _lines(group)
        done: set[str] = set()
        for word in group.words:
            line = shown[word.number]
            if word.text in done:
                self._ledger.warned(line, texts.shown(word.text), "", "stands twice in this group: once is enough")
                continue
            done.add(word.text)
            if len(rungs) >= RESOURCES_MAX:
                reason = f"is the resource after the {RESOURCES_MAX}th"
                self._ledger.refused(line, texts.shown(word.text), reason, "divide the group")
                missing.append(word.text)
            elif _is_announcement(word, announced):
                self._resources.used.add("SendArp")
                self._ledger.not_needed(line, word.text, "hostd announces every address itself, and verifies it")
            elif (rung := self._resources.rung(word, line)) is None or not self._is_free(rung, line):
                missing.append(word.text)
            else:
                rungs.append(rung)
                missing += [] if rung.is_complete else [word.text]
                if seen[word.text] > 1 and not rung.ip:
                    reason = "two groups have it: where both are on one node, the first to stop stops it for the other"
                    cure = "make it a service of its own, and name that in requires"
                    self._ledger.warned(line, word.text, "", reason, cure)
        return tuple(rungs), tuple(missing)

    def _is_free(self, rung: Rung, line: Line) -> bool:
        """An address belongs to one service."""
        if not rung.ip:
            return True
        if rung.ip not in self._ips:
            self._ips[rung.ip] = line
            return True
        reason = f"has the address {rung.ip}, which line {self._ips[rung.ip].number} has too"
        self._ledger.refused(line, rung.word, reason, "name each address once")
        return False

    def _name(self, rungs: tuple[Rung, ...]) -> str:
        """After the last resource that is a server, else after the first that has a name."""
        servers = [rung.name for rung in rungs if rung.name and not rung.ip and not _is_sideshow(rung)]
        names = servers[-1:] or [rung.name for rung in rungs if rung.name] or ["service"]
        stem = re.sub(r"[^A-Za-z0-9_-]+", "-", names[0]).strip("-_")[:48] or "service"
        name, number = stem, 1
        while name in self._names:
            number += 1
            name = f"{stem}-{number}"
        self._names.add(name)
        return name


_SIDESHOWS: Final = frozenset({"drbddisk", "drbdupper", "killnfsd", "nfs-common", "portmap", "rpcbind"})
"""Scripts after which nobody would call a service."""


_MOUNTS: Final = frozenset({"filesystem", "nfs", "gfs", "ocf:heartbeat:Filesystem"})


def _is_sideshow(rung: Rung) -> bool:
    return rung.name in _SIDESHOWS or rung.table["agent"] in _MOUNTS


def _started(table: Mapping[str, Any]) -> str:
    """One resource in a few words."""
    if "address" in table:
        return str(table["address"])
    agent = str(table["agent"])
    return f"{agent} {table['params']['directory']}" if agent in _MOUNTS else agent


def _lines(group: Group) -> dict[int, Line]:
    """The line to show for each physical line of the group."""
    found = {group.line.number: group.line}
    for word in group.words:
        if word.number not in found:
            words = [other.text for other in group.words if other.number == word.number]
            found[word.number] = Line(haresources.FILE, word.number, haresources.shown(words))
    return found


def _no_node(group: Group, nodes: tuple[str, ...]) -> tuple[str, str]:
    known = " and ".join(nodes) or "none"
    node = group.node.strip("\r")
    near = next((name for name in nodes if name.partition(".")[0] == node.partition(".")[0]), None)
    if near is not None:
        return f"is not {near}, as ha.cf has it (and `uname -n` should): names must be the same", f"write {near}"
    reason = f"is no node of ha.cf ({known}), and the first word of a group must be one"
    if ":" in node or haresources.is_like_an_address(node):
        return reason, "write the node's name before it"
    return reason, "write the node's name first; was this line to continue the one above, whose backslash must be last?"


def _ip(word: Word) -> str:
    call = haresources.call(word.text.rstrip("\r"))
    if call.script not in ("IPaddr", "IPaddr2", "IPv6addr") or len(call.arguments) != 1:
        return ""
    try:
        return addresses.parse(call.arguments[0], is_v6=call.script == "IPv6addr").ip
    except ValueError:
        return ""


def _is_announcement(word: Word, announced: set[str]) -> bool:
    call = haresources.call(word.text.rstrip("\r"))
    return call.script == "SendArp" and bool(call.arguments) and call.arguments[0].partition("/")[0] in announced
