"""conf.d/*.toml → :class:`Configuration`: what the operator wants, checked.

Every complaint names file, key, value, rule and cure, and all complaints of
one reading are collected before any is raised.
"""

from pathlib import Path
from typing import Any

import msgspec

from hostd.api import LinkSettings
from hostd.core.plan import Plan


class Directories(msgspec.Struct, frozen=True):
    """Where everything is (INTERFACES.md section 1); extra folders come first to last."""

    config: Path = Path("/etc/hostd/conf.d")
    agents: tuple[Path, ...] = ()
    """Named on the command line, in addition to the bundled ones and /etc/hostd/agents."""
    plugins: tuple[Path, ...] = ()
    runtime: Path = Path("/run/hostd")
    state: Path = Path("/var/lib/hostd")


class ResourceSettings(msgspec.Struct, frozen=True):
    """An agent's resource as its agent is to see it: the reference after
    ``agent =``, and parameters checked, typed, defaults filled in."""

    service: str
    resource: str
    agent: str
    params: dict[str, Any]
    secrets: tuple[str, ...] = ()
    """Names of parameters that are never shown."""


class Announcements(msgspec.Struct, frozen=True):
    """``[announce]``: when an address is announced, in ms after it was added."""

    burst_ms: tuple[int, ...] = (0, 50, 200, 500, 1_100)
    refresh_ms: tuple[int, ...] = (2_000, 5_000, 10_000, 30_000, 60_000, 120_000)


class Configuration(msgspec.Struct, frozen=True):
    """All of conf.d for one node.  ``plan`` is what the core sees of it."""

    plan: Plan
    node: str
    key: Path
    links: tuple[LinkSettings, ...]
    """In the order of ``plan.links``."""
    resources: tuple[ResourceSettings, ...]
    announcements: Announcements = Announcements()
    log_level: str = "info"
    warnings: tuple[str, ...] = ()
    """What is allowed but should be known (no fencing, deadtime below the floor)."""

    def resource(self, service: str, resource: str) -> ResourceSettings:
        for settings in self.resources:
            if (settings.service, settings.resource) == (service, resource):
                return settings
        raise KeyError((service, resource))
