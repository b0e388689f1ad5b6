"""Media of ha.cf → [[heartbeat.link]].

Decides what each medium is as a link, and which address of a ``ucast`` is
whose: Heartbeat needed to know the other's only, hostd's one file for both
nodes names both.  Where that cannot be found out, nothing is guessed.
"""

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from hostd.importing.directives import PORT, Kind, Medium
from hostd.importing.fates import Ledger
from hostd.importing.pair import Both
from hostd.importing.writing import Inline


class Whereabouts(msgspec.Struct, frozen=True):
    """Which node's directory this is, and which addresses are whose."""

    nodes: tuple[str, str]
    """In the order of ha.cf."""
    here: str | None = None
    """The node whose directory is read; None if it cannot be told."""
    given: Mapping[str, Sequence[str]] = {}
    """Each node's own addresses, as the operator gave them: one for each link that lacks it."""
    known: Mapping[str, Sequence[str]] = {}
    """Addresses that are a node's by the hosts file, on whatever interface."""
    interfaces: Mapping[str, Sequence[str]] = {}
    """This machine's, if it is ``here``: the addresses of each interface."""

    @property
    def there(self) -> str | None:
        """The other one."""
        return None if self.here is None else self.other(self.here)

    def other(self, node: str) -> str:
        return self.nodes[1] if node == self.nodes[0] else self.nodes[0]

    def owner(self, address: str) -> str | None:
        """Whose it is, if that is known."""
        if any(address in own for own in self.interfaces.values()):
            return self.here
        owners = [node for node in self.nodes if address in (*self.given.get(node, ()), *self.known.get(node, ()))]
        return owners[0] if len(owners) == 1 else None


def links(media: Sequence[Both], where: Whereabouts, ledger: Ledger) -> list[dict[str, Any]]:
    """A table for each link, in order; every medium gets its fate."""
    found = []
    done: set[int] = set()
    for position, both in enumerate(media):
        if position in done:
            continue
        if both.here.kind is Kind.UNICAST:
            twins = [other for other in range(position, len(media)) if _is_twin(both, media[other])]
            done.update(twins)
            link = _unicast([media[twin] for twin in twins], where, ledger)
        else:
            link = _link(both, where, ledger)
        if link is not None:
            found.append(link)
    return found


def _is_twin(one: Both, other: Both) -> bool:
    """Two ``ucast`` lines of one interface are the two ends of one link."""
    here, there = one.here, other.here
    keys = ("interface", "port")
    return there.kind is Kind.UNICAST and all(here.settings[key] == there.settings[key] for key in keys)


def _link(both: Both, where: Whereabouts, ledger: Ledger) -> dict[str, Any] | None:
    """serial, bcast and mcast: one line each, perhaps with a value per node."""
    medium = both.here
    settings = dict(medium.settings)
    for key in ("baud", "port", "group", "ttl"):
        if both.there is not None and key in settings and settings[key] != both.there.settings[key]:
            reason = f"{key} is {settings[key]} here and {both.there.settings[key]} there: the nodes never met over it"
            ledger.refused(medium.line, medium.name, reason, f"give both the same {key}")
            return None
    own_key = "device" if medium.kind is Kind.SERIAL else "interface"
    if both.there is not None and settings[own_key] != both.there.settings[own_key]:
        per_node = _per_node(settings[own_key], both.there.settings[own_key], where)
        if per_node is None:
            mine, theirs = settings[own_key], both.there.settings[own_key]
            reason = f"{mine} here and {theirs} there, and it is not known which is whose"
            ledger.refused(medium.line, medium.name, reason, _WHOSE_CURE)
            return None
        settings[own_key] = per_node
    link: dict[str, Any] = {"type": "serial" if medium.kind is Kind.SERIAL else "udp"}
    if medium.kind is Kind.BROADCAST:
        link["mode"] = "broadcast"
    elif medium.kind is Kind.MULTICAST:
        link["mode"] = "multicast"
    if settings.get("port") == PORT:
        del settings["port"]
    link |= settings
    ledger.converted(medium.line, f"{medium.name} {medium.settings[own_key]}", _became(link))
    return link


_WHOSE_CURE = "say whose directory the first one is: --node NAME"


def _per_node(mine: str, theirs: str, where: Whereabouts) -> Inline | None:
    if where.here is None or where.there is None:
        return None
    values = {where.here: mine, where.there: theirs}
    return Inline((node, values[node]) for node in where.nodes)


def _unicast(twins: Sequence[Both], where: Whereabouts, ledger: Ledger) -> dict[str, Any] | None:
    """All ``ucast`` of one interface: the two ends of one link."""
    lines = [both.here for both in twins]
    first = lines[0]
    theirs = [both.there for both in twins if both.there is not None]
    interface: Any = first.settings["interface"]
    if theirs and theirs[0].settings["interface"] != interface:
        interface = _per_node(interface, theirs[0].settings["interface"], where)
        if interface is None:
            _refuse(lines, "the interfaces differ, and it is not known which is whose", _WHOSE_CURE, ledger)
            return None
    if any(there.settings["port"] != first.settings["port"] for there in theirs):
        _refuse(lines, "udpport differs between the nodes: they never met over it", "give both the same", ledger)
        return None
    ends = _ends(lines, theirs, where)
    if isinstance(ends, str):
        _refuse(lines, ends, _ADDRESS_CURE.format(*where.nodes), ledger)
        return None
    link: dict[str, Any] = {"type": "udp", "interface": interface}
    link["address"] = Inline((node, ends[node]) for node in where.nodes)
    if first.settings["port"] != PORT:
        link["port"] = first.settings["port"]
    for medium in lines:
        thing = f"{medium.name} {medium.settings['interface']} {medium.settings['address']}"
        ledger.converted(medium.line, thing, _became(link))
    return link


_ADDRESS_CURE = "say it: --address {0}=ADDRESS --address {1}=ADDRESS, or give the other node's directory: --peer DIR"


def _ends(here: Sequence[Medium], there: Sequence[Medium], where: Whereabouts) -> dict[str, str] | str:
    """The address of each node, or why it cannot be told."""
    mine = list(dict.fromkeys(medium.settings["address"] for medium in here))
    theirs = list(dict.fromkeys(medium.settings["address"] for medium in there))
    candidates = list(dict.fromkeys(mine + theirs))
    if len(candidates) > 2:
        return f"{len(candidates)} addresses on one interface: two nodes have two"
    owned = {node: address for address in candidates if (node := where.owner(address)) is not None}
    if len(candidates) == 2:
        if where.here is not None and where.there is not None and len(mine) == len(theirs) == 1 and mine != theirs:
            owned.setdefault(where.there, mine[0])
            owned.setdefault(where.here, theirs[0])
        for node, address in list(owned.items()):
            owned.setdefault(where.other(node), next(other for other in candidates if other != address))
    else:
        _complete(owned, candidates[0], here[0].settings["interface"], where)
    if len(owned) < 2:
        known = "it is not known which of them is whose" if len(candidates) == 2 else "the sender's own is not known"
        return f"hostd needs both nodes' addresses, and {known}"
    if len(set(owned.values())) < 2:
        return "both nodes would have the same address"
    return owned


def _complete(owned: dict[str, str], address: str, interface: str, where: Whereabouts) -> None:
    """Only one address is named: the receiver's.  The sender's may be known otherwise."""
    receiver = where.owner(address) or where.there
    if receiver is None:
        return
    owned[receiver] = address
    family = ipaddress.ip_address(address).version
    sender = where.other(receiver)
    own = where.given.get(sender, ()) or (where.interfaces.get(interface, ()) if sender == where.here else ())
    fit = [text for text in own if ipaddress.ip_address(text).version == family]
    if len(fit) == 1:
        owned[sender] = fit[0]


def _refuse(media: Sequence[Medium], reason: str, cure: str, ledger: Ledger) -> None:
    for medium in media:
        thing = f"{medium.name} {medium.settings['interface']} {medium.settings['address']}"
        ledger.refused(medium.line, thing, reason, cure)


def _became(link: Mapping[str, Any]) -> str:
    parts = [f"{key} = {_toml(value)}" for key, value in link.items()]
    return f"[[heartbeat.link]] {', '.join(parts)}"


def _toml(value: object) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{node} = {_toml(item)}" for node, item in value.items()) + " }"
    return f'"{value}"' if isinstance(value, str) else str(value)
