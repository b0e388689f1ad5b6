"""Any OCF resource agent, API 1.0 and 1.1: ocf:PROVIDER:TYPE, as in ocf:heartbeat:apache.

Its parameters go to it as they stand, by ``OCF_RESKEY_…`` in an environment
that holds nothing of hostd's; what it says by ``ocf-exit-reason`` is the
reason that is shown.  Reading conf.d reads the agent's file and runs nothing:
names, types and time limits come from the meta-data that stands literally in
it.  ``validate`` asks the agent itself (meta-data, validate-all).

hostd promotes nothing.  A resource that says that it runs promoted (8) is
running; one that failed promoted (9) has failed.  An agent that needs the
cluster manager's own tools (crm_attribute and the like) cannot be used.
"""

import re
from collections.abc import Callable
from typing import Any

from hostd.api import (
    REQUIRED,
    AgentError,
    ConfigError,
    Field,
    Health,
    Parameters,
    Resource,
    hookimpl,
)
from hostd.api.foreign import daemons, ocf, scripts
from hostd.api.foreign.ocf import Exit

META_DATA_S = 15.0
"""Meta-data does nothing but print; agents give it 5 s themselves."""
EXCLUSIVE = {"Filesystem", "LVM", "LVM-activate", "ZFS", "db2", "mariadb", "mysql", "oracle", "pgsql", "slapd"}
"""Of the provider heartbeat: these write data that two nodes must never write at once."""
SECRET = re.compile(r"passw|passphrase|secret|token", re.IGNORECASE)
PASSED_ON = "CRM_meta_"
"""A parameter of such a name is for the agent's library, and in no meta-data."""


@hookimpl
def parameters(reference: str) -> Parameters:
    agent = ocf.find(reference)
    try:
        with agent.path.open("rb") as file:
            source = file.read(ocf.SOURCE_MAX).decode(errors="replace")
    except OSError as error:
        raise ConfigError(f"{agent.path} cannot be read: {error.strerror}; chmod 755 {agent.path}") from error
    described = ocf.read_source(source)
    limits = {
        action: described.timeouts[action] for action in ("start", "stop", "monitor") if action in described.timeouts
    }
    return Parameters(
        *map(_field, described.parameters),
        summary=described.summary or f"OCF agent {agent.type} of {agent.provider}",
        timeouts={"start": "60s", "stop": "60s", "monitor": "30s"} | limits,
        monitor_interval=described.monitor_interval or "10s",
        exclusive_storage=agent.provider == "heartbeat" and agent.type in EXCLUSIVE,
        mounts="directory" if (agent.provider, agent.type) == ("heartbeat", "Filesystem") else "",
        any_others=True,  # what stands in the file may not be all; validate asks the agent
    )


@hookimpl
def start(resource: Resource) -> None:
    _act(resource, "start")


@hookimpl
def stop(resource: Resource) -> None:
    _act(resource, "stop")


@hookimpl
def monitor(resource: Resource) -> Health:
    code, output = _look(resource, "monitor")
    match code:
        case Exit.SUCCESS:
            return Health.RUNNING
        case Exit.RUNNING_PROMOTED:
            resource.log.warning("it runs in the promoted role, and hostd promotes nothing")
            return Health.RUNNING
        case Exit.DEGRADED | Exit.DEGRADED_PROMOTED:
            resource.log.warning("degraded: %s", ocf.reason(output))
            return Health.DEGRADED
        case Exit.NOT_RUNNING:
            return Health.STOPPED
        case Exit.INSTALLED if resource.interval_ms == 0 and not daemons.left_running():
            return Health.STOPPED  # where it is not installed, it does not run
        case _:
            raise ocf.failure("monitor", code, output)


@hookimpl
def validate(resource: Resource) -> None:
    agent = ocf.find(resource.reference)
    scripts.executable(agent.path, "install the package that brings it")
    code, output = _look(resource, "meta-data", limit_s=META_DATA_S)
    if code != Exit.SUCCESS:
        raise ocf.failure("meta-data", code, output)
    described = ocf.read_xml(output)
    missing = [action for action in ("start", "stop", "monitor") if action not in described.actions]
    if missing:
        raise AgentError(f"it does not know {', '.join(missing)}", cure="it cannot be used as a service")
    _judge_parameters(resource, described)
    if "validate-all" in described.actions:
        code, output = _look(resource, "validate-all")
        if code not in (Exit.SUCCESS, Exit.UNIMPLEMENTED):
            raise ocf.failure("validate-all", code, output)


@hookimpl
def main_process(resource: Resource) -> int | None:
    return daemons.main_process()


# -- parameters -----------------------------------------------------------------------


def _field(parameter: ocf.Parameter) -> Field:
    """As conf.d sees it.  The default is shown and never passed: it is the agent's to apply."""
    shown = parameter.help + (f" (default: {parameter.default})" if parameter.default else "")
    return Field(
        parameter.name,
        TYPES.get(parameter.type, string),
        default=REQUIRED if parameter.is_required and parameter.default is None else None,
        help=shown,
        secret=bool(SECRET.search(parameter.name)),
    )


def string(value: Any) -> str:
    """What an agent is handed for a value of conf.d; ValueError if it can be handed nothing."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float) and "\0" not in str(value):
        return str(value)
    raise ValueError("an OCF parameter is a text, a number, true or false")


def integer(value: Any) -> str:
    """The API's types are a hint, not a rule: agents take words for some of their integers."""
    return string(value)


def boolean(value: Any) -> str:
    """As for integers: Filesystem's force_unmount takes "safe"."""
    return string(value)


TYPES: dict[str, Callable[[Any], str]] = {"string": string, "integer": integer, "boolean": boolean}


def _judge_parameters(resource: Resource, described: ocf.Description) -> None:
    """ConfigError for a name that the agent does not have, or one that it must have."""
    known = {parameter.name: parameter for parameter in described.parameters}
    given = {name for name, value in resource.params.items() if value is not None}
    for name in sorted(given):
        if name not in known and not name.startswith(PASSED_ON):
            raise ConfigError(f"{resource.reference} has no parameter {name}; {ocf.near(name, known)}")
        if name in known and known[name].is_deprecated:
            resource.log.warning("its parameter %s is deprecated", name)
    for name, parameter in known.items():
        if parameter.is_required and parameter.default is None and name not in given:
            raise ConfigError(f"{resource.reference} needs its parameter {name} ({parameter.help}); add it to params")


# -- running it -------------------------------------------------------------------------


def _act(resource: Resource, action: str) -> None:
    agent = _agent(resource)
    said = scripts.act(resource, [str(agent.path), action], _environment(resource, agent, action))
    if said.code != Exit.SUCCESS:
        raise ocf.failure(action, said.code, said.text)


def _look(resource: Resource, action: str, limit_s: float | None = None) -> tuple[int, str]:
    """Exit code and output of an action that changes nothing."""
    agent = _agent(resource)
    env = _environment(resource, agent, action)
    said = scripts.probe(resource, [str(agent.path), action], env, limit_s=limit_s)
    if said.stderr.strip():
        resource.log.info("%s: %s", action, said.stderr.strip()[-2_000:])
    return said.code, said.stdout if action == "meta-data" and said.code == 0 else said.text


def _agent(resource: Resource) -> ocf.Reference:
    try:
        return ocf.find(resource.reference)
    except ConfigError as error:  # it was there when conf.d was read
        reason, _, cure = str(error).partition("; ")
        raise AgentError(reason, cure=cure) from error


def _environment(resource: Resource, agent: ocf.Reference, action: str) -> dict[str, str]:
    """What the API, Pacemaker and resource-agents' own library promise an agent."""
    scratch = resource.run_dir / "tmp"
    scratch.mkdir(exist_ok=True)
    interval_ms = resource.interval_ms if action == "monitor" else 0
    meta = {
        "timeout": str(int(resource.remaining * 1000)),
        "interval": str(interval_ms),
        "name": action,
        "on_node": resource.node,
        "on_node_uuid": resource.node,
    }
    given = {name: string(value) for name, value in resource.params.items() if value is not None}
    return {
        "OCF_ROOT": str(agent.root),
        "OCF_RA_VERSION_MAJOR": "1",
        "OCF_RA_VERSION_MINOR": "1",
        "OCF_RESOURCE_INSTANCE": _instance(resource),
        "OCF_RESOURCE_TYPE": agent.type,
        "OCF_RESOURCE_PROVIDER": agent.provider,
        "OCF_CHECK_LEVEL": str(resource.depth),
        "OCF_OUTPUT_FORMAT": "text",
        "OCF_EXIT_REASON_PREFIX": ocf.REASON_PREFIX,
        "OCF_RESKEY_crm_feature_set": "3.17.0",  # of Pacemaker 2.1.5, whose variables these are
        "HA_RSCTMP": str(scratch),
        "HA_debug": "0",
        "HA_LOGFACILITY": "none",
        **{f"OCF_RESKEY_CRM_meta_{name}": value for name, value in meta.items()},
        **{f"OCF_RESKEY_{name}": value for name, value in given.items()},
    }


def _instance(resource: Resource) -> str:
    """Unique on the node.  No colon in it: behind one, agents look for the number of a clone."""
    own = resource.name.removeprefix("ocf:").replace(":", ".")
    return f"{resource.service}-{own}" if resource.service else own
