"""One action of one agent for another cluster manager: what an exported OCF agent runs.

    python -I -m hostd.exported /path/of/the/agent.py ACTION

Decides how OCF's environment becomes a ``Resource``, and how the agent's
answer becomes an exit code and a reason.  There is no daemon, no child, no
cgroup and no configuration of hostd: the manager that calls has time limits
of its own, and kills.  What meta-data says is written at export (``export.py``).
"""

import contextlib
import inspect
import logging
import os
import re
import sys
import time
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from hostd import loading
from hostd.api import AgentError, ConfigError, Field, Health, NotInstalled, Parameters, Resource
from hostd.api.foreign.ocf import REASON_PREFIX, Exit

TIMEOUT_MS: Final = 20_000
"""Where the manager does not say (an action by hand)."""
LEAD_MS: Final = 500
"""The agent's deadline is earlier than the manager's, so that it can still say why."""
SCRATCH: Final = Path("/run/resource-agents")
"""Where resource-agents keep what a reboot may forget."""

_TRUE: Final = ("yes", "true", "1", "on", "y")
_FALSE: Final = ("no", "false", "0", "off", "n", "")


class Unfit(ConfigError):
    """A parameter has a value that no machine could take."""


def run(path: Path, action: str, environment: Mapping[str, str]) -> int:
    """The exit code of OCF for one action.  ``action`` is one that the exported agent passes on."""
    try:
        module = loading.load_file(path, checked=path.is_relative_to(loading.SYSTEM))
        hooks = loading.hooks(module)
        resource = _resource(path, hooks, environment)
        return _act(hooks, action, resource, environment)
    except loading.LoadError as error:
        return _because(Exit.INSTALLED, f"{path}: {error}")
    except Unfit as error:
        return _because(Exit.CONFIGURED, str(error))
    except ConfigError as error:
        return _because(Exit.ARGS, str(error))
    except NotInstalled as error:
        return _because(Exit.INSTALLED, error.reason, error.cure)
    except PermissionError as error:
        return _because(Exit.PERM, str(error))
    except AgentError as error:
        code = Exit.ARGS if action == "validate-all" else Exit.GENERIC
        return _because(code, error.reason, error.cure)
    except Exception as error:  # noqa: BLE001 - the edge: agent code may raise anything
        return _because(Exit.GENERIC, f"agent's mistake: {loading.last_line(error, path)}")


def _act(
    hooks: Mapping[str, Callable[..., Any]], action: str, resource: Resource, environment: Mapping[str, str]
) -> int:
    if os.geteuid() != 0 and action in ("start", "stop"):
        return _because(Exit.PERM, f"{action} needs root")
    if action in ("start", "stop"):
        hooks[action](resource=resource)
        return Exit.SUCCESS
    if action == "validate-all":
        # API 1.1: level 0 is about the parameters alone, which have been read already
        if "validate" in hooks and environment.get("OCF_CHECK_LEVEL", "0") not in ("", "0"):
            hooks["validate"](resource=resource)
        return Exit.SUCCESS
    assert action == "monitor", action
    health = hooks["monitor"](resource=resource)
    codes = {Health.RUNNING: Exit.SUCCESS, Health.DEGRADED: Exit.DEGRADED, Health.STOPPED: Exit.NOT_RUNNING}
    if health not in codes:
        return _because(Exit.GENERIC, f"agent's mistake: monitor returned {health!r}")
    return codes[health]


def _because(code: Exit, text: str, cure: str = "") -> Exit:
    prefix = os.environ.get("OCF_EXIT_REASON_PREFIX", REASON_PREFIX)
    print(f"{prefix}{'; '.join(filter(None, (text, cure)))}".replace("\n", " "), file=sys.stderr)
    return code


# -- the resource -----------------------------------------------------------------------


def _resource(path: Path, hooks: Mapping[str, Callable[..., Any]], environment: Mapping[str, str]) -> Resource:
    instance = environment.get("OCF_RESOURCE_INSTANCE") or "default"
    timeout_ms = _whole(environment.get("OCF_RESKEY_CRM_meta_timeout"), TIMEOUT_MS)
    return Resource(
        name=instance,
        node=environment.get("OCF_RESKEY_CRM_meta_on_node") or os.uname().nodename,
        params=MappingProxyType(values(parameters(hooks), environment)),
        run_dir=_run_dir(path.stem, instance, environment),
        deadline=time.monotonic() + max(timeout_ms - LEAD_MS, timeout_ms // 2) / 1000,
        depth=_whole(environment.get("OCF_CHECK_LEVEL"), 0),
        reference=path.stem,
        service=instance,
        interval_ms=_whole(environment.get("OCF_RESKEY_CRM_meta_interval"), 0),
    )


def parameters(hooks: Mapping[str, Callable[..., Any]]) -> Parameters:
    """What the agent lets one set."""
    if "parameters" not in hooks:
        return Parameters()
    takes = inspect.signature(hooks["parameters"]).parameters
    answer = hooks["parameters"](**({"reference": ""} if "reference" in takes else {}))
    assert isinstance(answer, Parameters), answer
    return answer


def _run_dir(agent: str, instance: str, environment: Mapping[str, str]) -> Path:
    """Private to the instance, and forgotten at boot."""
    scratch = Path(environment.get("HA_RSCTMP") or SCRATCH)
    folder = scratch / f"hostd-{agent}-{re.sub(r'[^A-Za-z0-9_.:-]', '_', instance)}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid != os.geteuid():
        raise PermissionError(f"{folder} belongs to somebody else")
    folder.chmod(0o700)
    return folder


def _whole(text: str | None, otherwise: int) -> int:
    return int(text) if text and text.isdecimal() else otherwise


# -- parameters ---------------------------------------------------------------------------


def values(fields: Parameters, environment: Mapping[str, str]) -> dict[str, Any]:
    """The agent's parameters, typed, from ``OCF_RESKEY_…``.  Raises Unfit."""
    found: dict[str, Any] = {}
    for field in fields.fields:
        text = environment.get(f"OCF_RESKEY_{field.name}")
        if text is None or (text == "" and field.type is not str):
            if field.is_required:
                raise Unfit(f"{field.name} is missing ({field.help}); set it")
            found[field.name] = field.default
            continue
        found[field.name] = value = _typed(field, text)
        items = value if isinstance(value, list) else [value]
        if field.choices and any(item not in field.choices for item in items):
            raise Unfit(f"{field.name} is none of its values; use one of {', '.join(map(str, field.choices))}")
    return found


def _typed(field: Field, text: str) -> Any:
    """A secret may be given as @FILE: what stands in the cluster's configuration is seen by many."""
    if field.secret and text.startswith("@"):
        try:
            text = Path(text[1:]).read_text().rstrip("\n")
        except OSError as error:
            raise ConfigError(f"{field.name}: {error.filename}: {error.strerror}; mend the file") from error
    try:
        if field.type is bool:
            return _boolean(text)
        if field.type is list:
            if text.lstrip().startswith("["):
                return tomllib.loads(f"value = {text}")["value"]
            return [item.strip() for item in text.split(",") if item.strip()]
        if field.type is dict:
            return tomllib.loads(f"value = {text}")["value"]
        if field.type is Path and not Path(text).is_absolute():
            raise ValueError("is no absolute path")
        return field.type(text)
    except (ValueError, TypeError, ConfigError) as error:
        shown = "(hidden)" if field.secret else repr(text)
        raise Unfit(f"{field.name} = {shown} does not fit: {'it is secret' if field.secret else error}") from error


def _boolean(text: str) -> bool:
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise ValueError("must be true or false")


def main() -> int:
    """As the exported agent calls it."""
    logging.basicConfig(stream=sys.stderr, format="%(levelname)s: %(message)s", level=logging.INFO)
    os.umask(0o022)
    with contextlib.suppress(OSError):
        os.chdir("/")
    path, action = sys.argv[1:]
    return run(Path(path), action, os.environ)


if __name__ == "__main__":
    sys.exit(main())
