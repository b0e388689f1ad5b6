"""Directives of ha.cf → what they mean.

Decides the fate of each directive that Heartbeat 3.0.6 knows, in the order
of the file (a port or a baud rate counts for the media below it only).
Refuses to know how conf.d looks, and which node this is: media keep
Heartbeat's own terms, and ``media`` makes links of them.
"""

import difflib
import enum
import ipaddress
import re
from collections.abc import Callable
from typing import Any, Final

import msgspec

from hostd.confd import values
from hostd.importing import explanations
from hostd.importing.fates import Ledger, Line
from hostd.importing.hacf import Directive
from hostd.importing.timers import Times

PORT: Final = 694
"""IANA's ha-cluster."""
BAUD: Final = 19_200
"""Heartbeat's default; hostd's own is faster."""
BAUDS: Final = (9_600, 19_200, 38_400, 57_600, 115_200, 230_400, 460_800)
MEDIA_MAX: Final = 16
"""hostd's own limit of links."""
_TRUE: Final = ("true", "on", "yes", "y", "1")
_FALSE: Final = ("false", "off", "no", "n", "0")


class Kind(enum.Enum):
    """A medium, in Heartbeat's terms."""

    SERIAL = "serial"
    BROADCAST = "bcast"
    MULTICAST = "mcast"
    UNICAST = "ucast"


class Medium(msgspec.Struct, frozen=True):
    """One medium.  ``settings``: device and baud, or interface, port and, by kind, group and ttl, or address
    (of the node that is sent to)."""

    kind: Kind
    name: str
    """The directive's: ``udp`` for ``bcast``, ``mcast6`` for ``mcast``."""
    line: Line
    settings: dict[str, Any]


class Meaning:
    """What a whole ha.cf says."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.name = "linux-ha"  # Heartbeat's default
        self.nodes: list[str] = []
        self.times = Times(ledger)
        self.media: list[Medium] = []
        self.failback = True
        self.ping: dict[str, Line] = {}
        """The stations, and where each is named."""
        self._has_ipfail = False
        self.watchdog: str | None = None
        self.log_level: str | None = None
        self.was_fenced = False
        self.is_crm: Line | None = None
        self.other_lines: dict[str, Line] = {}
        """Where single things stand, for a comparison of two nodes."""
        self._port, self._baud = PORT, BAUD

    def read(self, found: tuple[Directive, ...]) -> None:
        """All directives; then what follows from all of them together."""
        self._has_ipfail = any(d.name == "respawn" and _program(d) in ("ipfail", "pingd") for d in found)
        last = {directive.name: directive for directive in found if directive.arguments}
        for directive in found:
            final = last.get(directive.name, directive)
            if directive.name in _SINGLE and directive.arguments and final is not directive:
                reason = f"line {final.line.number} says it again, and the last one counts"
                self.ledger.not_needed(directive.line, directive.name, reason)
            elif directive.name in explanations.NOT_NEEDED:
                self.ledger.not_needed(directive.line, directive.name, explanations.NOT_NEEDED[directive.name])
            elif directive.name in explanations.REFUSED:
                reason, cure = explanations.REFUSED[directive.name]
                self.ledger.refused(directive.line, directive.name, reason, cure)
            elif directive.name not in READERS:
                self._unknown(directive)
            elif not directive.arguments and directive.name in _WHOLE:
                cure = "complete it or remove it"
                self.ledger.refused(directive.line, directive.name, "says nothing: Heartbeat would not start", cure)
            elif not directive.arguments:
                self.ledger.not_needed(directive.line, directive.name, "has no value: Heartbeat passes over it")
            else:
                self.other_lines[directive.name] = directive.line
                READERS[directive.name](self, directive)
        if "auto_failback" not in last and "nice_failback" not in last and self.is_crm is None:
            line = Line(found[0].line.file if found else "ha.cf", 0)
            reason = "is missing, which Heartbeat takes for legacy: services return to their primaries"
            self.ledger.warned(line, "auto_failback", "[cluster] failback = true", reason, _FAILBACK_CURE)
        self.times.settle()

    # -- the cluster ---------------------------------------------------------------

    def _node(self, directive: Directive) -> None:
        for given in directive.arguments:
            name = given.lower()
            try:
                values.node_name(name)
            except values.Unfit as unfit:
                self.ledger.refused(directive.line, given, unfit.rule, unfit.cure)
                continue
            if name in self.nodes:
                self.ledger.not_needed(directive.line, given, "is named above")
                continue
            self.nodes.append(name)
            if given == name:
                self.ledger.converted(directive.line, given, "[cluster] nodes")
            else:
                reason = "Heartbeat reads node names in lower case, hostd takes them as `uname -n` prints them"
                cure = "if that has capitals, write them so in [cluster] nodes and in each primary"
                self.ledger.warned(directive.line, given, f'[cluster] nodes "{name}"', reason, cure)

    def _cluster(self, directive: Directive) -> None:
        name = directive.arguments[-1]
        try:
            self.name = values.node_name(name)
        except values.Unfit as unfit:
            self.ledger.refused(directive.line, directive.name, f"{name} {unfit.rule}", unfit.cure)
        else:
            self.ledger.converted(directive.line, directive.name, f'[cluster] name = "{name}"')

    def _autojoin(self, directive: Directive) -> None:
        if directive.arguments[-1] == "none":
            self.ledger.not_needed(directive.line, directive.name, "hostd's cluster is its two nodes and no other")
        else:
            reason = "hostd's cluster is the two nodes of [cluster] nodes: nobody joins by himself"
            cure = "see that both are named by node lines; /var/lib/heartbeat/hostcache has what was learned"
            self.ledger.warned(directive.line, directive.name, "", reason, cure)

    def _crm(self, directive: Directive) -> None:
        word = directive.arguments[-1].lower()
        if word in _FALSE:
            self.ledger.not_needed(directive.line, directive.name, "is off: haresources counts")
        else:
            self.is_crm = directive.line
            reason = "is on: this cluster is run by Pacemaker (cib.xml), and haresources is not read by anybody"
            self.ledger.refused(directive.line, directive.name, reason, explanations.CRM_CURE)

    def _auto_failback(self, directive: Directive) -> None:
        word = directive.arguments[-1].lower()
        is_inverse = directive.name == "nice_failback"
        if word in _TRUE + _FALSE and not is_inverse:
            self.failback = word in _TRUE
            became = f"[cluster] failback = {'true' if self.failback else 'false'}"
            self.ledger.converted(directive.line, directive.name, became)
        elif is_inverse and word in _TRUE:
            self.failback = False
            reason = "Heartbeat 1 took it for auto_failback off, which is what it says, Heartbeat 3 for legacy"
            cure = "set it to true if services returned to their primaries until now"
            self.ledger.warned(directive.line, directive.name, "[cluster] failback = false", reason, cure)
        elif word == "legacy" or (is_inverse and word in _FALSE):
            reason = "Heartbeat's old way: each primary takes its services as soon as it is there"
            became = "[cluster] failback = true"
            self.ledger.warned(directive.line, directive.name, became, reason, _FAILBACK_CURE)
        else:
            self.ledger.refused(directive.line, directive.name, "is neither on, off nor legacy", "use on or off")

    # -- times -----------------------------------------------------------------------

    def _time(self, directive: Directive) -> None:
        self.times.take(directive)

    # -- media -----------------------------------------------------------------------

    def _udpport(self, directive: Directive) -> None:
        if any(medium.kind is not Kind.SERIAL for medium in self.media):
            reason = "stands below media, for which it does not count"
            self.ledger.refused(directive.line, directive.name, reason, "move it above the first medium")
            return
        port = self._number(directive, directive.arguments[-1], 1, 65_535)
        if port is not None:
            self._port = port
            self.ledger.converted(directive.line, directive.name, f"port = {port} of the links below")

    def _set_baud(self, directive: Directive) -> None:
        if any(medium.kind is Kind.SERIAL for medium in self.media):
            reason = "stands below a serial line, for which it does not count"
            self.ledger.refused(directive.line, directive.name, reason, "move it above the first serial line")
        elif directive.arguments[-1] not in map(str, BAUDS):
            allowed = ", ".join(map(str, BAUDS))
            reason = f"{directive.arguments[-1]} is none of Heartbeat's speeds"
            self.ledger.refused(directive.line, directive.name, reason, f"use one of {allowed}")
        else:
            self._baud = int(directive.arguments[-1])
            self.ledger.converted(directive.line, directive.name, f"baud = {self._baud} of the links below")

    def _serial(self, directive: Directive) -> None:
        for device in directive.arguments:
            if not device.startswith("/"):
                reason = f"{device} is no path of a tty"
                self.ledger.refused(directive.line, directive.name, reason, "name it by its path, such as /dev/ttyS0")
            else:
                self._add(directive, Kind.SERIAL, device=device, baud=self._baud)

    def _bcast(self, directive: Directive) -> None:
        for interface in directive.arguments:
            if self._is_interface(directive, interface):
                self._add(directive, Kind.BROADCAST, interface=interface, port=self._port)

    def _mcast(self, directive: Directive) -> None:
        if len(directive.arguments) < 5:
            reason = f"has {len(directive.arguments)} words and not five: device, group, port, ttl, loop"
            self.ledger.refused(directive.line, directive.name, reason, "complete it: mcast eth0 239.192.0.42 694 1 0")
            return
        interface, group, port_word, ttl_word, _loop = directive.arguments[:5]
        version = 6 if directive.name == "mcast6" else 4
        address = _ip(group, version)
        if address is None or not address.is_multicast:
            cure = "use one such as 239.192.0.42, or ff15::694 with mcast6"
            self.ledger.refused(directive.line, directive.name, f"{group} is no multicast group", cure)
            return
        port, ttl = self._number(directive, port_word, 1, 65_535), self._number(directive, ttl_word, 1, 255)
        if port is not None and ttl is not None and self._is_interface(directive, interface):
            self._add(directive, Kind.MULTICAST, interface=interface, group=str(address), port=port, ttl=ttl)

    def _ucast(self, directive: Directive) -> None:
        if len(directive.arguments) < 2:
            reason = "has one word and not two: device, address of the other node"
            self.ledger.refused(directive.line, directive.name, reason, "complete it: ucast eth1 192.168.1.2")
            return
        interface, given = directive.arguments[:2]  # Heartbeat passes over what follows
        address = _ip(given.partition("%")[0], 6 if directive.name == "ucast6" else 4)
        if address is None or address.is_multicast or address.is_unspecified:
            reason = f"{given} is no address that {directive.name} can send to"
            self.ledger.refused(directive.line, directive.name, reason, "use the other node's address")
        elif self._is_interface(directive, interface):
            self._add(directive, Kind.UNICAST, interface=interface, address=str(address), port=self._port)

    def _add(self, directive: Directive, kind: Kind, **settings: Any) -> None:
        medium = Medium(kind, directive.name, directive.line, settings)
        if any((other.kind, other.settings) == (kind, settings) for other in self.media):
            self.ledger.not_needed(directive.line, directive.name, "is the same medium as one above")
        elif len(self.media) >= MEDIA_MAX:
            cure = "leave out the least useful"
            self.ledger.refused(directive.line, directive.name, f"is more than {MEDIA_MAX} media", cure)
        else:
            self.media.append(medium)

    def _is_interface(self, directive: Directive, name: str) -> bool:
        try:
            values.interface_name(name)
        except values.Unfit as unfit:
            self.ledger.refused(directive.line, directive.name, f"{name} {unfit.rule}", unfit.cure)
            return False
        return True

    def _number(self, directive: Directive, word: str, low: int, high: int) -> int | None:
        if re.fullmatch(r"[0-9]{1,9}", word) and low <= int(word) <= high:
            return int(word)
        reason = f"{word} is no number from {low} to {high}"
        self.ledger.refused(directive.line, directive.name, reason, "correct it")
        return None

    # -- what else protects and tells --------------------------------------------------

    def _ping(self, directive: Directive) -> None:
        stations = directive.arguments[1:] if directive.name == "ping_group" else directive.arguments
        if not stations:
            self.ledger.refused(directive.line, directive.name, "names no station", "ping_group NAME ADDRESS …")
        for given in stations:
            address = _ip(given, 4) or _ip(given, 6)
            if address is None:
                cure = "write its IP address"
                self.ledger.refused(directive.line, directive.name, f"{given} is no IP address", cure)
            elif str(address) in self.ping:
                self.ledger.not_needed(directive.line, given, "is named above")
            elif len(self.ping) >= MEDIA_MAX:
                reason = f"is more than {MEDIA_MAX} stations"
                self.ledger.refused(directive.line, given, reason, "name the nearest routers only")
            else:
                self._add_station(directive, given, str(address))

    def _add_station(self, directive: Directive, given: str, address: str) -> None:
        is_alone = not self.ping or directive.name == "ping_group"
        self.ping[address] = directive.line
        if not self._has_ipfail:
            reason = "without ipfail Heartbeat only watched it; a node of hostd's that reaches no station gives way"
            self.ledger.warned(directive.line, given, "[tiebreaker] ping", reason, "remove it if that is not wanted")
        elif not is_alone:
            reason = "ipfail compared how many stations each node reaches; for hostd any one of them is enough"
            self.ledger.warned(directive.line, given, "[tiebreaker] ping", reason, 'or set mode = "all"')
        else:
            self.ledger.converted(directive.line, given, "[tiebreaker] ping")

    def _watchdog(self, directive: Directive) -> None:
        if self.watchdog is not None or len(directive.arguments) > 1:
            reason = "there may be one watchdog: Heartbeat would not start"
            self.ledger.refused(directive.line, directive.name, reason, "name one device")
            return
        self.watchdog = directive.arguments[0]
        self.ledger.converted(directive.line, directive.name, f'[watchdog] device = "{self.watchdog}"')

    def _stonith(self, directive: Directive) -> None:
        self.was_fenced = True
        position = 1 if directive.name == "stonith_host" else 0
        kind = directive.arguments[position] if len(directive.arguments) > position else ""
        reason, cure = explanations.fencing(kind)
        self.ledger.refused(directive.line, f"{directive.name} {kind}".strip(), reason, cure)

    def _respawn(self, directive: Directive) -> None:
        program = _program(directive)
        reason, cure = explanations.respawned(program)
        if cure:
            self.ledger.refused(directive.line, f"respawn {program}".strip(), reason, cure)
        else:
            self.ledger.not_needed(directive.line, f"respawn {program}", reason)

    def _env(self, directive: Directive) -> None:
        names = ", ".join("HA_" + argument.partition("=")[0] for argument in directive.arguments)
        reason = f"hostd hands its scripts no {names}"
        cure = "if one reads it, set it in the script"
        self.ledger.warned(directive.line, directive.name, "", reason, cure)

    def _debug(self, directive: Directive) -> None:
        if re.fullmatch(r"[0-9]{1,3}", directive.arguments[-1]) is None:
            self.ledger.refused(directive.line, directive.name, "is no number from 0 to 255", "use 0 or 1")
        elif int(directive.arguments[-1]) == 0:
            self.ledger.not_needed(directive.line, directive.name, "is off, as by default")
        else:
            self.log_level = "debug"
            self.ledger.converted(directive.line, directive.name, '[log] level = "debug"')

    def _unknown(self, directive: Directive) -> None:
        known = [*READERS, *explanations.NOT_NEEDED, *explanations.REFUSED]
        near = difflib.get_close_matches(directive.name, known, 1)
        cure = f"did you mean {near[0]}?" if near else "remove it"
        reason = "is no directive of ha.cf: Heartbeat would not start with it"
        self.ledger.refused(directive.line, directive.name, reason, cure)


_FAILBACK_CURE: Final = "set it to false if a service should stay where it is until that node fails"

READERS: Final[dict[str, Callable[[Meaning, Directive], None]]] = {
    "node": Meaning._node, "cluster": Meaning._cluster, "autojoin": Meaning._autojoin,
    "crm": Meaning._crm, "pacemaker": Meaning._crm,
    "auto_failback": Meaning._auto_failback, "nice_failback": Meaning._auto_failback,
    "keepalive": Meaning._time, "warntime": Meaning._time, "deadtime": Meaning._time, "initdead": Meaning._time,
    "deadping": Meaning._time,
    "udpport": Meaning._udpport, "baud": Meaning._set_baud, "serial": Meaning._serial,
    "bcast": Meaning._bcast, "udp": Meaning._bcast, "mcast": Meaning._mcast, "mcast6": Meaning._mcast,
    "ucast": Meaning._ucast, "ucast6": Meaning._ucast,
    "ping": Meaning._ping, "ping6": Meaning._ping, "ping_group": Meaning._ping,
    "watchdog": Meaning._watchdog, "stonith": Meaning._stonith, "stonith_host": Meaning._stonith,
    "respawn": Meaning._respawn, "env": Meaning._env, "debug": Meaning._debug,
}  # fmt: skip

_SINGLE: Final = frozenset(
    {
        "cluster", "autojoin", "crm", "pacemaker", "auto_failback", "nice_failback", "keepalive", "warntime",
        "deadtime", "initdead", "deadping", "debug",
    }
)  # fmt: skip
"""Of these the last line counts."""
_WHOLE: Final = frozenset({"ucast", "ucast6", "mcast", "mcast6", "stonith", "stonith_host", "respawn", "ping_group"})
"""These are read as a whole; of the others each word is a value, and no word is none."""


def _program(respawn: Directive) -> str:
    """``respawn hacluster /usr/lib/heartbeat/ipfail`` → ``ipfail``."""
    return respawn.arguments[1].rpartition("/")[2] if len(respawn.arguments) > 1 else ""


def _ip(text: str, version: int) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return address if address.version == version else None
