"""A configuration → its description, which may be shown: parameters and keys are digests.

Decides what of a configuration is compared by a reload, and what nobody is
shown.  Refuses to know what a difference means (``changes``).
"""

import hashlib
import secrets
from collections.abc import Collection
from pathlib import Path
from typing import Any, Final

import msgspec

from hostd.changes import HEARTBEAT, KEY, LINKS, Description, ResourceDescription, ServiceDescription
from hostd.config import Configuration, ResourceSettings, duration_text
from hostd.core.plan import Resource, Service
from hostd.registry import Registry

SALT_SIZE: Final = 16

_NAMED: Final = (
    "plan", "node", "key", "links", "resources", "announcements", "log_level", "status_for_everyone", "warnings",
    "fencing_devices", "tiebreaker", "watchdog", "set_aside",
)  # fmt: skip
_NAMED_OF_PLAN: Final = (
    "cluster", "nodes", "services", "links", "timers", "fencing", "cuts_storage", "fence_delay_ms",
    "address_lease_ms", "tiebreaker", "digest",
)  # fmt: skip
_NAMED_OF_SERVICE: Final = (
    "name", "candidates", "resources", "everywhere", "requires", "after", "failback_after_ms", "restarts_max",
    "restarts_within_ms", "without_fencing", "digest",
)  # fmt: skip


def fresh_salt() -> str:
    """For the digests of one run of hostd: so nobody can look up what they are of."""
    return secrets.token_hex(SALT_SIZE)


def describe(configuration: Configuration, registry: Registry, keys: tuple[bytes, ...], salt: str) -> Description:
    """What would be used if hostd ran by this.  ``keys``: the cluster's."""
    digests = _Digests(salt)
    agents = sorted({settings.agent.partition(":")[0] for settings in configuration.resources})
    paths = {name: registry.agents[name].path for name in agents if name in registry.agents}
    return Description(
        salt=salt,
        settings=_settings(configuration, keys, digests),
        services={service.name: _service(service, configuration, digests) for service in configuration.plan.services},
        set_aside={aside.service.name: aside.reason for aside in configuration.set_aside},
        plugins={name: digests.of_file(path) for name, path in sorted(registry.plugins.items())},
        agents={name: digests.of_file(path) for name, path in paths.items()},
    )


class _Digests:
    """Under one salt; the leading "#" tells a digest from a text."""

    def __init__(self, salt: str) -> None:
        self._salt = bytes.fromhex(salt)

    def of(self, value: Any) -> str:
        return self._of(msgspec.json.encode(value, order="deterministic", enc_hook=str))

    def of_file(self, path: str) -> str:
        try:
            return self._of(Path(path).read_bytes())
        except OSError:  # of an installed package, or gone since it was loaded
            return self.of(path)

    def _of(self, content: bytes) -> str:
        return "#" + hashlib.blake2b(content, key=self._salt, digest_size=8).hexdigest()


def _settings(configuration: Configuration, keys: tuple[bytes, ...], digests: _Digests) -> dict[str, dict[str, str]]:
    plan, timers = configuration.plan, configuration.plan.timers
    asked, watchdog = configuration.tiebreaker, configuration.watchdog
    return {
        "cluster": {"name": plan.cluster},
        "nodes": {"nodes": ", ".join(plan.nodes)},
        "node": {"node": configuration.node},
        KEY: {"key": digests.of([key.hex() for key in keys])},
        "address_lease": {"address_lease": duration_text(plan.address_lease_ms) if plan.address_lease_ms else "false"},
        HEARTBEAT: {
            "keepalive": duration_text(timers.keepalive_ms),
            "warntime": duration_text(timers.warntime_ms),
            "deadtime": duration_text(timers.deadtime_ms),
            "initdead": duration_text(timers.initdead_ms),
        },
        LINKS: {
            link.name: digests.of([number, link, settings])
            for number, (link, settings) in enumerate(zip(plan.links, configuration.links, strict=True))
        },
        "fencing": {
            "mode": "required" if plan.fencing else "storage" if plan.cuts_storage else "none",
            "delay": duration_text(plan.fence_delay_ms),
            "devices": digests.of(configuration.fencing_devices),
            "drill": duration_text(configuration.fencing_drill_ms) if configuration.fencing_drill_ms else "false",
        },
        "tiebreaker": {
            "ping": ", ".join(asked.ping) if asked else "none",
            "deadtime": duration_text(asked.deadtime_ms) if asked else "none",
            "mode": ("all" if asked.needs_all else "any") if asked else "none",
        },
        "watchdog": {
            "device": str(watchdog.device) if watchdog else "none",
            "timeout": duration_text(watchdog.timeout_ms) if watchdog else "none",
        },
        "announce": {"times": digests.of(configuration.announcements)},
        "log": {"level": configuration.log_level},
        "status": {"status": "everyone" if configuration.status_for_everyone else "group"},
        **{name: {name: digests.of(getattr(configuration, name))} for name in _unnamed(configuration, _NAMED)},
        **{name: {name: digests.of(getattr(plan, name))} for name in _unnamed(plan, _NAMED_OF_PLAN)},
    }


def _unnamed(whole: msgspec.Struct, named: Collection[str]) -> list[str]:
    """What is not told one by one: a key that was added to conf.d since must never be no difference."""
    return [name for name in whole.__struct_fields__ if name not in named]


def _service(service: Service, configuration: Configuration, digests: _Digests) -> ServiceDescription:
    resources = {
        resource.id: _resource(resource, configuration.resource(service.name, resource.id), digests)
        for resource in service.resources
        if not resource.address
    }
    stability_ms = service.failback_after_ms
    return ServiceDescription(
        digest=service.digest,
        resources=resources,
        addresses=service.addresses,
        rules={
            "primary": service.primary,
            "backups": ", ".join(service.candidates[1:]) or "none",
            "on": "all" if service.everywhere else "one",
            "requires": ", ".join(service.requires) or "none",
            "after": ", ".join(service.after) or "none",
            "failback": "false" if stability_ms is None else duration_text(stability_ms) if stability_ms else "true",
            "restarts": f"{service.restarts_max} within {duration_text(service.restarts_within_ms)}",
            "without_fencing": "true" if service.without_fencing else "false",
            **{name: str(getattr(service, name)) for name in _unnamed(service, _NAMED_OF_SERVICE)},
        },
    )


def _resource(resource: Resource, settings: ResourceSettings, digests: _Digests) -> ResourceDescription:
    interval_ms = resource.monitor_interval_ms
    return ResourceDescription(
        agent=settings.agent,
        params={name: digests.of(value) for name, value in settings.written.items()},
        limits={
            "timeout.start": duration_text(resource.start_timeout_ms),
            "timeout.stop": duration_text(resource.stop_timeout_ms),
            "monitor.timeout": duration_text(resource.monitor_timeout_ms),
            "monitor.interval": duration_text(interval_ms) if interval_ms else "never",
            "monitor.depth": str(resource.monitor_depth),
        },
    )
