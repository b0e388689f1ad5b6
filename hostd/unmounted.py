"""What of this machine is not there yet since a service of conf.d mounts it (a part of ``hostd check``).

Decides whether a file that an agent misses lies below a directory at which
the same service, or one that it requires, mounts something first, and nothing
is mounted there now: then it is no mistake, it can only not be seen.  Knows no
agent: which parameter names such a directory, the agents declare.
"""

import os
import re
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from hostd.api import ConfigError, Parameters
from hostd.api.storage import mounts
from hostd.confd.relations import needed
from hostd.config import Configuration, ResourceSettings

_PATHS: Final = re.compile(r"/[^\s'\"`:;,()]+")
"""Paths in a sentence of an agent."""


class Place(NamedTuple):
    """A directory that is empty until a resource is started."""

    directory: str
    mounted_by: str
    """The resource before, or the service."""


def place_of(
    sentence: str,
    settings: ResourceSettings,
    configuration: Configuration,
    agents: Callable[[str], Parameters],
    kernel: mounts.Kernel = mounts.Kernel(),  # noqa: B008 - a value, never changed
) -> Place | None:
    """Where something must be mounted before what ``sentence`` of the agent of ``settings`` misses can be there."""
    missed = [os.path.realpath(path.rstrip(".")) for path in _PATHS.findall(sentence)]
    mounted = {mount.point for mount in mounts.table(kernel)}
    for place in _places(settings, configuration, agents):
        directory = os.path.realpath(place.directory)
        if directory not in mounted and any(mounts.is_within(path, directory) for path in missed):
            return place
    return None


def _places(
    settings: ResourceSettings, configuration: Configuration, agents: Callable[[str], Parameters]
) -> Iterator[Place]:
    """Of all that is started before this resource, wherever that is: what comes first in its service, and what
    that requires."""
    services = {service.name: service for service in configuration.plan.services}
    required = needed(services[settings.service], services)
    comes_first = True
    for other in configuration.resources:
        if other == settings:
            comes_first = False
        if other.service in required or (other.service == settings.service and comes_first):
            try:
                name = agents(other.agent).mounts
            except ConfigError:  # told of that agent already
                continue
            if name and other.params.get(name):
                whose = other.resource if other.service == settings.service else f"service {other.service}"
                yield Place(str(other.params[name]), whose)
