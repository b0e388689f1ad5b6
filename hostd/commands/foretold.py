"""What a change of conf.d does, in words: per service, and on which node.

Decides wording, and from a status where each effect happens.  What is
different, and what a difference means, is settled in ``hostd.changes``.
"""

from typing import Final, NamedTuple

from hostd.changes import Change, Kind, ServiceDescription
from hostd.status_form import Status

VERDICTS: Final = {
    "same": "Nothing differs from what hostd runs by.",
    "different": "Nothing has been changed. To take the files: hostd reload",
    "bad": "hostd reload would refuse these files and go on as it is.",
    "forbidden": "hostd reload would refuse: both nodes must be restarted for this.",
}
"""The last line of ``hostd plan``, by its outcome."""


class Picture(NamedTuple):
    """Where things stand before the change."""

    status: Status
    peer: str
    peer_digests: dict[str, str] | None
    """Of each service that the other node knows; None: it is not heard."""
    services: dict[str, ServiceDescription]
    """As they are to become."""

    def runs_on(self, service: str) -> tuple[str, ...]:
        there = self.status.services.get(service)
        return there.nodes if there is not None else ()

    def is_same_there(self, service: str) -> bool:
        """The other node has this definition already, or is not there to differ."""
        return self.peer_digests is None or self.peer_digests.get(service) == self.services[service].digest


def headline(change: Change) -> str:
    """What is different."""
    what = f" ({', '.join(change.what)})" if change.what else ""
    match change.kind:
        case Kind.IDENTITY | Kind.SETTING:
            keys = ", ".join(change.what)
            return keys if keys.split(":")[0] == change.subject else f"[{change.subject}] {keys}"
        case Kind.LINK:
            return f"link {change.subject} {change.what[0]}"
        case Kind.PLUGIN:
            return f"plugin {change.subject}: its file has changed"
        case Kind.AGENT:
            return f"agent {change.subject}: its file has changed"
        case Kind.SERVICE_ADDED:
            return f"service {change.subject} added"
        case Kind.SERVICE_REMOVED:
            return f"service {change.subject} removed"
        case Kind.SERVICE_SET_ASIDE:
            return f"service {change.subject} cannot be used here{what}"
        case Kind.SERVICE_USABLE:
            return f"service {change.subject} can be used here again"
        case Kind.SERVICE_RENEWED | Kind.SERVICE_EXTENDED | Kind.SERVICE_ADJUSTED:
            return f"service {change.subject} changed{what}"


def effect(change: Change, picture: Picture) -> str:
    """What it does, as a sentence."""
    name, here = change.subject, picture.status.node
    match change.kind:
        case Kind.IDENTITY:
            return "No reload can do that: change the files on both nodes, and restart hostd on both."
        case Kind.SERVICE_SET_ASIDE:
            return "It works now, so this is not taken: mend its agent first."
        case Kind.SETTING:
            return "hostd's own processes take it over; no service is touched."
        case Kind.LINK | Kind.PLUGIN:
            return f"hostd's own processes are forked anew; no service is touched. {picture.peer} must have it, too."
        case Kind.AGENT:
            return "Used from its next action on; no service is restarted."
        case Kind.SERVICE_ADDED:
            return _added(name, picture)
        case Kind.SERVICE_USABLE:
            return f"{here} looks whether it runs, and goes on from there."
        case Kind.SERVICE_REMOVED:
            return _removed(picture.runs_on(name), picture)
        case Kind.SERVICE_RENEWED:
            return _renewed(name, picture)
        case Kind.SERVICE_EXTENDED:
            where = " and ".join(picture.runs_on(name)) or "nowhere now"
            return f"It goes on running ({where}); what is new is started, an address that is gone is taken off."
        case Kind.SERVICE_ADJUSTED:
            return _adjusted(change)


def _added(name: str, picture: Picture) -> str:
    service = picture.services[name]
    where = "every node" if service.rules["on"] == "all" else service.rules["primary"]
    if picture.is_same_there(name):
        return f"It is started on {where}."
    return f"It is started on {where} once {picture.peer} has it, too."


def _removed(nodes: tuple[str, ...], picture: Picture) -> str:
    here = picture.status.node
    parts = []
    if here in nodes:
        parts.append(f"It is stopped on {here}.")
    if picture.peer in nodes:
        parts.append(f"On {picture.peer} it goes on until that is reloaded, too.")
    return " ".join(parts) or "It runs nowhere: nothing is stopped."


def _renewed(name: str, picture: Picture) -> str:
    nodes = picture.runs_on(name)
    if not nodes:
        return "It does not run: its next start is by the new definition."
    where = " and ".join(nodes)
    with_it = [other for other, service in picture.services.items() if name in service.rules["requires"].split(", ")]
    also = f" With it: {', '.join(with_it)}." if with_it else ""
    if picture.is_same_there(name):
        return f"It is stopped and started on {where}.{also}"
    return f"It goes on as it is, and is stopped and started on {where} once {picture.peer} has the same.{also}"


def _adjusted(change: Change) -> str:
    if not change.what:
        return "Nothing happens here: only its part for the other node is different."
    if any(what.startswith(("primary", "backups", "failback")) for what in change.what):
        return "No restart; it may move to its primary, if its failback says so."
    return "No restart."
