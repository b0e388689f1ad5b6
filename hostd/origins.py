"""How each resource was started here, so that it is stopped in the same way.

Decides which resource that was started stands for which one of conf.d, and
which definitions have become outdated.  One private file per resource in the
runtime directory, from before a start begins until a stop has succeeded: it
outlives the daemon, and a reboot empties it.  Holds what the operator wrote
and no agent's defaults, so that a newer agent makes nothing outdated.

A resource stands for the one of the same name.  If conf.d has replaced names
(``agent = "a"`` became ``agent = "b"``), the first that is new there is taken
for the first that is gone: asked for b, the host looks at a, until b is
started.  What is started and stands for nothing is *surplus*.  It does not
know how anything is stopped: that is ``errands``.
"""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from hostd.api import ConfigError, Parameters
from hostd.config import Configuration, ResourceSettings, digest, refill
from hostd.decoding import UNDECODABLE
from hostd.records import file_name

log = logging.getLogger("hostd.host")

FILE_SIZE_MAX: Final = 1_000_000
"""Parameters of one resource; conf.d would not be readable long before."""

Key = tuple[str, str]
"""Service and resource."""


class Origin(msgspec.Struct, frozen=True):
    """One resource as it was started."""

    service: str
    resource: str
    agent: str
    written: dict[str, Any]
    """Parameters as the operator wrote them, secrets included."""
    place: int
    """In the service's order of starts."""
    stop_timeout_ms: int
    monitor_timeout_ms: int
    boot: str

    @property
    def key(self) -> Key:
        return self.service, self.resource

    def is_as(self, settings: ResourceSettings) -> bool:
        """It was started just as conf.d would start it now."""
        mine = (self.resource, self.agent, digest(self.written))
        return mine == (settings.resource, settings.agent, digest(settings.written))


class Origins:
    """All origins of this node, in one folder (0700).  Call :meth:`adopt` before anything else."""

    def __init__(self, folder: Path, boot: str) -> None:
        self._folder, self._boot = folder, boot
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._recorded: dict[Key, Origin] = {o.key: o for o in self._read()}
        self._params: dict[Key, dict[str, Any]] = {}
        self._standing: dict[Key, Origin] = {}
        """By the resource of conf.d that it stands for; those that were stopped stay until the next
        start, since whether they are down is asked of them in their own way, too."""
        self._configuration: Configuration

    def adopt(self, configuration: Configuration, parameters: Callable[[str], Parameters]) -> None:
        """Compare what was started with this configuration from now on.
        ``parameters``: the registry's; raises ConfigError for an agent that cannot be used."""
        self._configuration = configuration
        self._standing = {}
        for service in configuration.plan.services:
            self._match(service.name)
        for key, origin in self._recorded.items():
            try:
                self._params[key] = refill(origin.written, parameters(origin.agent))
            except ConfigError:  # its actions fail, and say why
                self._params[key] = dict(origin.written)

    def _match(self, service: str) -> None:
        wanted = [settings.resource for settings in self._settings(service)]
        there = {origin.resource: origin for origin in self._of(service)}
        pairs = [(name, there.pop(name)) for name in wanted if name in there]
        known = [name for name, _ in pairs]
        pairs += zip((name for name in wanted if name not in known), there.values(), strict=False)
        self._standing |= {(service, name): origin for name, origin in pairs}

    # -- what stands for what -----------------------------------------------------

    def of(self, service: str, resource: str) -> Origin | None:
        """How the thing was started that a resource of conf.d means here; None: it was not, as far as is known."""
        return self._standing.get((service, resource))

    def params(self, origin: Origin) -> dict[str, Any]:
        """Its parameters, typed and with defaults as its agent has them now."""
        return self._params[origin.key]

    def meant_by(self, origin: Origin) -> str:
        """The resource of conf.d that it stands for; itself if for none."""
        for (_, resource), standing in self._standing.items():
            if standing is origin:
                return resource
        return origin.resource

    def above(self, origin: Origin) -> list[Origin]:
        """What of its service was started after it and is not stopped yet, the last first."""
        return [other for other in self._down(origin.service) if other.place > origin.place]

    def before_start(self, service: str, resource: str) -> list[Origin]:
        """What has to be stopped before this resource of conf.d is started, in this order."""
        surplus = self.surplus(service)
        own = self.of(service, resource)
        is_there = own is not None and own.key in self._recorded
        if own is None or not is_there or own.is_as(self._configuration.resource(service, resource)):
            return surplus
        return [*surplus, own]

    def surplus(self, service: str) -> list[Origin]:
        """What was started and stands for nothing in conf.d, the last first."""
        return [origin for origin in self._down(service) if not self._stands(origin)]

    def left_alone(self, service: str) -> list[Origin]:
        """The surplus, if nothing else of the service is left."""
        remaining = self._down(service)
        return [] if any(self._stands(origin) for origin in remaining) else remaining

    def outdated(self) -> tuple[str, ...]:
        """Services of conf.d of which something was started under another definition."""
        return tuple(s.name for s in self._configuration.plan.services if self._is_outdated(s.name))

    def removed(self) -> dict[str, list[Origin]]:
        """What was started of services that conf.d no longer has (or without any agent), the last first.
        A service that is set aside is in conf.d: it stays as it is until its agent is mended."""
        aside = {aside.service.name for aside in self._configuration.set_aside}
        with_agents = {settings.service for settings in self._configuration.resources}
        names = dict.fromkeys(origin.service for origin in self._recorded.values())
        return {name: self._down(name) for name in names if name not in aside and name not in with_agents}

    def _is_outdated(self, service: str) -> bool:
        settings = self._settings(service)
        for each in settings:
            origin = self.of(service, each.resource)
            if origin is not None and origin.key in self._recorded and not origin.is_as(each):
                return True
        return bool(settings and self.surplus(service))

    def _stands(self, origin: Origin) -> bool:
        return any(standing is origin for standing in self._standing.values())

    def _settings(self, service: str) -> list[ResourceSettings]:
        return [settings for settings in self._configuration.resources if settings.service == service]

    def _of(self, service: str) -> list[Origin]:
        """What was started of it and not stopped, in the order of starts."""
        found = [origin for origin in self._recorded.values() if origin.service == service]
        return sorted(found, key=lambda origin: origin.place)

    def _down(self, service: str) -> list[Origin]:
        return self._of(service)[::-1]

    # -- what happens -------------------------------------------------------------

    def begin(self, service: str, resource: str) -> None:
        """A resource of conf.d is about to be started.  Raises OSError if that cannot be written down."""
        resources = self._configuration.plan.service(service).resources
        place = next(i for i, known in enumerate(resources) if known.id == resource)
        settings = self._configuration.resource(service, resource)
        origin = Origin(
            service=service,
            resource=resource,
            agent=settings.agent,
            written=settings.written,
            place=place,
            stop_timeout_ms=resources[place].stop_timeout_ms,
            monitor_timeout_ms=resources[place].monitor_timeout_ms,
            boot=self._boot,
        )
        self._write(origin)
        self._recorded[origin.key] = self._standing[origin.key] = origin
        self._params[origin.key] = settings.params

    def end(self, origin: Origin) -> None:
        """It was stopped, and nothing of it is left."""
        self._recorded.pop(origin.key, None)
        self._path(origin).unlink(missing_ok=True)

    # -- the files ----------------------------------------------------------------

    def _read(self) -> list[Origin]:
        found = []
        for path in sorted(self._folder.iterdir()):
            try:
                origin = msgspec.json.decode(path.read_bytes()[:FILE_SIZE_MAX], type=Origin)
            except (OSError, *UNDECODABLE) as error:
                if path.suffix == ".json":  # else a write that was interrupted
                    log.error("%s: %s; what it was about is taken for started as conf.d says", path, error)
                path.unlink(missing_ok=True)
                continue
            if origin.boot == self._boot and path == self._path(origin):
                found.append(origin)
            else:
                path.unlink(missing_ok=True)  # of an earlier boot: nothing of it lives
        return found

    def _write(self, origin: Origin) -> None:
        path = self._path(origin)
        fresh = path.with_suffix(".new")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as file:
            file.write(msgspec.json.encode(origin))
        fresh.rename(path)

    def _path(self, origin: Origin) -> Path:
        return self._folder / (file_name(origin.service, origin.resource) + ".json")
