"""A directory of Heartbeat's → the files of a conf.d, and the fate of every line.

The door of ``hostd.importing``: puts the readers in order and writes what
they found.  Decides when nothing can be built at all: without two nodes, or
where haresources is read by nobody (``crm on``).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from hostd.api import ConfigError
from hostd.confd.values import counted, duration_text
from hostd.importing import authkeys, directives, hacf, haresources, media, pair, texts, writing
from hostd.importing.directives import Meaning
from hostd.importing.fates import Ledger, Line
from hostd.importing.media import Whereabouts
from hostd.importing.resources import Resources
from hostd.importing.services import Service, Services
from hostd.importing.site import Site
from hostd.importing.writing import File, Piece

CLUSTER_FILE: Final = "00-cluster.toml"
KEY_FILE: Final = "cluster.key"
_WATCHDOG_MAX_MS: Final = 600_000


class Wish(msgspec.Struct, frozen=True):
    """What is to be converted, and what is known beside it."""

    directory: Path
    peer: Path | None = None
    """The other node's ha.d."""
    node: str = ""
    """Whose ``directory`` is, if it is one of ha.cf's nodes."""
    agents: frozenset[str] = frozenset()
    """hostd's own, by name."""
    keep_scripts: bool = False
    """Init scripts stay, also where hostd has an agent for their server."""
    addresses: Mapping[str, Sequence[str]] = {}
    """Addresses of the nodes' own, by node, as the operator gave them."""
    interfaces: Mapping[str, Sequence[str]] = {}
    """Of this machine, if it is ``node``: the addresses of each interface."""


class Result(msgspec.Struct, frozen=True):
    """What came of it."""

    ledger: Ledger
    files: tuple[File, ...] = ()
    """Empty if nothing could be built."""
    nodes: tuple[str, ...] = ()
    services: tuple[Service, ...] = ()
    media: tuple[directives.Medium, ...] = ()
    here: str | None = None


def convert(wish: Wish) -> Result:
    """Read everything, tell the fate of every line, and write the files' texts (to nowhere yet).

    Raises ConfigError if there is nothing to convert, or a file cannot be read.
    """
    ledger = Ledger()
    content = _content(wish.directory, hacf.FILE)
    groups_content = _content(wish.directory, haresources.FILE)
    if content is None and groups_content is None:
        cure = "name the directory that holds them, such as /etc/ha.d"
        raise ConfigError(f"{wish.directory}: has neither ha.cf nor haresources; {cure}")
    here = Meaning(ledger)
    if content is None:
        ledger.refused(Line(hacf.FILE, 0), "", "is missing: without it there are no nodes and no media", "copy it here")
    else:
        here.read(hacf.directives(content, ledger))
    there = _peer(wish, groups_content, here, ledger)
    _authkeys(wish, ledger)
    site = Site(wish.directory)
    resources = Resources(site, wish.agents, ledger, keep_scripts=wish.keep_scripts)
    nodes = _nodes(here, ledger) if content is not None else None
    found: list[Service] = []
    if here.is_crm is not None:
        line = Line(haresources.FILE, 0)
        ledger.refused(line, "", "is not read by Heartbeat while crm is on", "see there")
    elif groups_content is None:
        ledger.refused(Line(haresources.FILE, 0), "", "is missing: there are no services", "copy it here")
    elif nodes is None:
        line = Line(haresources.FILE, 0)
        ledger.refused(line, "", "is not converted, since ha.cf has no two nodes", "see there")
    else:
        found = Services(nodes, resources, ledger).read(haresources.groups(groups_content))
    if wish.peer is not None:
        pair.scripts(resources.used, site, Site(wish.peer), ledger)
    site.others(frozenset(resources.used), ledger)
    if nodes is None or here.is_crm is not None:
        for medium in here.media:
            why = "ha.cf has no two nodes" if here.is_crm is None else "nothing of this cluster is"
            ledger.refused(medium.line, medium.name, f"is not converted, since {why}", "see there")
        return Result(ledger, media=tuple(here.media))
    node = wish.node.lower()
    where = Whereabouts(nodes, node if node in nodes else None, wish.addresses, site.hosts(nodes), wish.interfaces)
    links = media.links(pair.media(here, there, ledger), where, ledger)
    if not links:
        reason = "leaves no medium: the nodes would not hear each other"
        cure = "add [[heartbeat.link]] by hand, best two, or mend the lines above"
        ledger.refused(Line(hacf.FILE, 0), "", reason, cure)
    _drop_stations_of_our_own(here, where, links, found)
    files = [_cluster_file(here, nodes, links)]
    files += [_service_file(service) for service in found]
    return Result(ledger, tuple(files), nodes, tuple(found), tuple(here.media), where.here)


def _content(directory: Path, name: str) -> bytes | None:
    try:
        return texts.read(directory / name)
    except FileNotFoundError:
        return None


def _nodes(here: Meaning, ledger: Ledger) -> tuple[str, str] | None:
    if len(here.nodes) == 2:
        return here.nodes[0], here.nodes[1]
    names = " ".join(here.nodes) or "none"
    reason = f"names {counted(len(here.nodes), 'node')} ({names}), and hostd joins exactly two"
    cure = "name two in ha.cf" if len(here.nodes) < 2 else "make clusters of two nodes each"
    ledger.refused(here.other_lines.get("node", Line(hacf.FILE, 0)), "node", reason, cure)
    return None


def _drop_stations_of_our_own(
    here: Meaning, where: Whereabouts, links: Sequence[Mapping[str, Any]], services: Sequence[Service]
) -> None:
    """A ping node that is one of the two nodes, or moves with a service, says nothing: seen in the wild."""
    moving = {rung.ip for service in services for rung in service.rungs if rung.ip}
    own = {address for link in links for address in link.get("address", {}).values()}
    own |= {address for table in (where.given, where.known) for addresses in table.values() for address in addresses}
    for station, line in list(here.ping.items()):
        if station in moving | own:
            whose = "moves with a service" if station in moving else "is one of the two nodes"
            reason = f"{whose}: it says nothing of a node's way to its clients"
            here.ledger.withdraw(line, station)
            here.ledger.refused(line, station, reason, "name a station that is no node, best the router")
            del here.ping[station]


def _peer(wish: Wish, groups: bytes | None, here: Meaning, ledger: Ledger) -> Meaning | None:
    """The other node's ha.cf, compared with this one's; None if it is not to be had."""
    if wish.peer is None:
        return None
    content = _content(wish.peer, hacf.FILE)
    if groups is not None and here.is_crm is None:
        pair.differences(groups, _content(wish.peer, haresources.FILE), ledger)
    if content is None:
        line = Line(f"peer/{hacf.FILE}", 0)
        ledger.refused(line, "", "is missing: the media of that node are not known", "name the right --peer")
        return None
    there = Meaning(Ledger())  # the fates of its lines are those of this node's, but for the differences
    there.read(hacf.directives(content, there.ledger, f"peer/{hacf.FILE}"))
    pair.compare(here, there, ledger)
    return there


def _authkeys(wish: Wish, ledger: Ledger) -> None:
    content = _content(wish.directory, authkeys.FILE)
    if content is None:
        line = Line(authkeys.FILE, 0)
        ledger.warned(line, "", f"{KEY_FILE}, new", "is missing; nothing of it would be taken over", authkeys.CURE)
        return
    authkeys.judge(content, wish.directory / authkeys.FILE, ledger)
    other = _content(wish.peer, authkeys.FILE) if wish.peer is not None else None
    if other is not None and authkeys.keys(other) != authkeys.keys(content):
        line = Line(f"peer/{authkeys.FILE}", 0)
        reason = "has other keys than this directory's: the nodes may not have heard each other"
        ledger.warned(line, "", f"{KEY_FILE}, new", reason, "hostd's key is one for both: copy it")


# -- the files --------------------------------------------------------------------------


def _cluster_file(here: Meaning, nodes: tuple[str, str], links: list[dict[str, Any]]) -> File:
    cluster = {"name": here.name, "nodes": list(nodes), "key": KEY_FILE, "failback": here.failback}
    heading = (
        "Converted from Heartbeat's ha.cf.  The same files on both nodes, and the key",
        f"with them: {KEY_FILE} in this directory, made by hostd keygen, mode 0600.",
    )
    pieces = [Piece(heading, {"cluster": cluster})]
    times = ("Heartbeat's times.  hostd's own are 100ms, 500ms, 2s and 30s.",)
    pieces.append(Piece(times, {"heartbeat": here.times.table()}))
    notes = {
        "udp": "A crossover cable?  direct = true: its carrier tells of the peer's power.",
        "serial": "A null-modem cable; the same speed on both sides.",
    }
    pieces += [Piece((notes[link["type"]],), {"heartbeat": {"link": [link]}}) for link in links]
    if here.was_fenced:
        why = (
            "Heartbeat had STONITH: describe its devices anew, as [[fencing.device]].",
            "Until then a silent node needs `hostd confirm-down`.",
        )
        pieces.append(Piece(why, {"fencing": {"mode": "required"}}))
    if here.ping:
        tiebreaker: dict[str, Any] = {"ping": list(here.ping)}
        if here.times.deadping_ms is not None:
            tiebreaker["deadtime"] = duration_text(here.times.deadping_ms)
        pieces.append(Piece((), {"tiebreaker": tiebreaker}))
    if here.watchdog is not None:
        timeout_ms = min((here.times.deadtime_ms + 10 + 999) // 1_000 * 1_000, _WATCHDOG_MAX_MS)
        table = {"device": here.watchdog, "timeout": duration_text(timeout_ms)}
        pieces.append(Piece(("As Heartbeat set it: deadtime and a little more.",), {"watchdog": table}))
    if here.log_level is not None:
        pieces.append(Piece((), {"log": {"level": here.log_level}}))
    return writing.file(CLUSTER_FILE, pieces)


def _service_file(service: Service) -> File:
    """Its table; as comments if a resource is missing, for it must not run without."""
    line = service.group.line
    name = f"{service.name}.toml"
    comments = [f"{line.place}: {line.text}"]
    made = writing.file(name, [Piece(tuple(comments), {"service": {service.name: service.table()}})])
    if not service.missing:
        return made
    missing = texts.shown(" ".join(service.missing))
    comments = [f"Not complete without {missing}:", "add what is missing, then take the # away.", ""]
    return writing.file(name, [Piece((*comments, *made.text.splitlines()), {})])
