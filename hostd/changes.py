"""What is different between two configurations, and what that touches.

Decides what a difference means for what runs: nothing, another assessment, a
stop and a start, or another cluster altogether.  Compares descriptions, in
which every parameter and key is a digest only; refuses to know files,
processes and words.
"""

import enum
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

LINKS: Final = "links"
HEARTBEAT: Final = "heartbeat"
KEY: Final = "key"
IDENTITY: Final = ("cluster", "nodes", "node")
"""Sections that make it this cluster: both nodes restart together, or they are strangers."""


class Kind(enum.Enum):
    """What a change is; the value is what tools see."""

    IDENTITY = "identity"  # another cluster: no reload can do that
    SETTING = "setting"  # heart or brain only; no service is touched
    LINK = "link"
    PLUGIN = "plugin"  # the file of a plugin
    AGENT = "agent"  # the file of an agent: used from its next action on
    SERVICE_ADDED = "service-added"
    SERVICE_REMOVED = "service-removed"
    SERVICE_RENEWED = "service-renewed"  # stopped and started where it runs
    SERVICE_EXTENDED = "service-extended"  # resources or addresses come or go at its side
    SERVICE_ADJUSTED = "service-adjusted"  # limits, places, rules: no stop
    SERVICE_SET_ASIDE = "service-set-aside"  # its agent cannot be used: no reload does that
    SERVICE_USABLE = "service-usable"  # it was set aside


class Change(msgspec.Struct, frozen=True):
    """One difference.  ``subject``: the section, link, file or service; ``what``: its keys, with values if
    they may be shown."""

    kind: Kind
    subject: str
    what: tuple[str, ...] = ()


class ResourceDescription(msgspec.Struct, frozen=True):
    agent: str
    params: dict[str, str]
    """What was written → its digest."""
    limits: dict[str, str]


class ServiceDescription(msgspec.Struct, frozen=True):
    digest: str
    """What both nodes compare."""
    resources: dict[str, ResourceDescription]
    """By id, in the order of starts."""
    addresses: tuple[str, ...]
    rules: dict[str, str]


class Description(msgspec.Struct, frozen=True):
    """A configuration as it may be shown to whoever may ask hostd."""

    salt: str
    """Of all digests in it but those that both nodes compare; two descriptions are comparable under one salt only."""
    settings: dict[str, dict[str, str]]
    """By section, each key with a text or a digest."""
    services: dict[str, ServiceDescription]
    set_aside: dict[str, str]
    """Services that cannot be used here, and why."""
    plugins: dict[str, str]
    agents: dict[str, str]
    """Files in use, by name → digest."""


def between(old: Description, new: Description) -> tuple[Change, ...]:
    """All differences: settings first, then services by name."""
    assert old.salt == new.salt, "descriptions under different salts cannot be compared"
    found: list[Change] = []
    for section in dict.fromkeys((*old.settings, *new.settings)):
        found += _of_section(section, old.settings.get(section, {}), new.settings.get(section, {}))
    found += [Change(Kind.PLUGIN, name) for name in _different(old.plugins, new.plugins)]
    # An agent that only one of the two uses comes or goes with its service.
    agents = (n for n in _different(old.agents, new.agents) if n in old.agents and n in new.agents)
    found += [Change(Kind.AGENT, name) for name in agents]
    names = sorted({*old.services, *new.services, *old.set_aside, *new.set_aside})
    found += [change for name in names if (change := _of_service(name, old, new)) is not None]
    return tuple(found)


def forbidden(changes: Iterable[Change]) -> tuple[Change, ...]:
    """Those that only a restart of both nodes can make."""
    return tuple(change for change in changes if change.kind is Kind.IDENTITY)


def spoiled(changes: Iterable[Change]) -> tuple[Change, ...]:
    """Services that work now and would not: at a start one broken file must not stop the others, here it need not."""
    return tuple(change for change in changes if change.kind is Kind.SERVICE_SET_ASIDE)


def renews_heart(changes: Iterable[Change]) -> bool:
    """The beating process has to be forked anew, and not only the brain."""
    return any(
        change.kind in (Kind.LINK, Kind.PLUGIN) or (change.kind is Kind.SETTING and change.subject in (HEARTBEAT, KEY))
        for change in changes
    )


def _of_section(section: str, old: Mapping[str, str], new: Mapping[str, str]) -> list[Change]:
    keys = _different(old, new)
    if not keys:
        return []
    if section == LINKS:
        return [Change(Kind.LINK, key, (_fate(key, old, new),)) for key in keys]
    kind = Kind.IDENTITY if section in IDENTITY else Kind.SETTING
    return [Change(kind, section, tuple(_shown(key, old, new) for key in keys))]


def _of_service(name: str, old: Description, new: Description) -> Change | None:
    before, after = old.services.get(name), new.services.get(name)
    if name in new.set_aside:
        is_news = name not in old.set_aside
        return Change(Kind.SERVICE_SET_ASIDE, name, (new.set_aside[name],)) if is_news else None
    if name in old.set_aside:
        return Change(Kind.SERVICE_USABLE, name) if after else Change(Kind.SERVICE_REMOVED, name)
    if before is None or after is None:
        return Change(Kind.SERVICE_REMOVED if after is None else Kind.SERVICE_ADDED, name)
    if renewed := tuple(_renewed(before.resources, after.resources)):
        return Change(Kind.SERVICE_RENEWED, name, renewed)
    extended = [f"+{name}" for name in after.resources if name not in before.resources]
    extended += [f"+{address}" for address in after.addresses if address not in before.addresses]
    extended += [f"-{address}" for address in before.addresses if address not in after.addresses]
    if extended:
        return Change(Kind.SERVICE_EXTENDED, name, tuple(extended))
    adjusted = [_shown(key, before.rules, after.rules) for key in _different(before.rules, after.rules)]
    for resource, was in before.resources.items():
        limits = after.resources[resource].limits
        adjusted += [f"{resource}: {_shown(key, was.limits, limits)}" for key in _different(was.limits, limits)]
    if adjusted or before.digest != after.digest:
        return Change(Kind.SERVICE_ADJUSTED, name, tuple(adjusted))
    return None


def _renewed(old: Mapping[str, ResourceDescription], new: Mapping[str, ResourceDescription]) -> Iterable[str]:
    """What of it cannot stay as it was started; the same rule as in ``origins``."""
    yield from (f"-{name}" for name in old if name not in new)
    if any(name not in new for name in old):
        yield from (f"+{name}" for name in new if name not in old)
    for name in (name for name in old if name in new):
        before, after = old[name], new[name]
        if before.agent != after.agent:
            yield f"{name}: agent"
        yield from (f"{name}: params.{key}" for key in _different(before.params, after.params))


def _different(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    return [key for key in dict.fromkeys((*old, *new)) if old.get(key) != new.get(key)]


def _fate(key: str, old: Mapping[str, str], new: Mapping[str, str]) -> str:
    return "added" if key not in old else "removed" if key not in new else "changed"


def _shown(key: str, old: Mapping[str, str], new: Mapping[str, str]) -> str:
    """With both values, unless they are digests."""
    before, after = old.get(key, "none"), new.get(key, "none")
    return key if is_digest(before) or is_digest(after) else f"{key}: {before} → {after}"


def is_digest(text: str) -> bool:
    return text.startswith("#")
