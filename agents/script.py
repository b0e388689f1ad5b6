"""A script of Heartbeat's resource.d: script:NAME and its arguments, separated by blanks.

The contract of haresources: called with its arguments and then the action,
looked for in /etc/ha.d/resource.d and then in /etc/init.d.  Whether it runs is
read from what ``status`` prints and not from its exit code, as Heartbeat's
ResourceManager does: "not running" is no, else "running" or "OK" is yes, and
anything else is no.  It is started only if it does not run; a stop that fails
is tried again every second, ten times.  Where Heartbeat then reboots the
machine, the stop has failed, and hostd does what it does after that.

Arguments are seen by everybody on the machine: no place for a secret.
"""

import os
import shlex
import time
from pathlib import Path

from hostd.api import AgentError, ConfigError, Field, Health, Parameters, Resource, hookimpl
from hostd.api.foreign import daemons, scripts
from hostd.api.foreign.initscripts import (
    SKIP_REDIRECT,
    Verdict,
    by_code,
    by_words_of_heartbeat,
    failure,
    started_at_boot,
)
from hostd.api.foreign.scripts import Said

PLACES = "/etc/ha.d/resource.d:/etc/init.d"
STOP_TRIES = 10  # HA_STOPRETRYMAX
STARTED = "started"


@hookimpl
def parameters(reference: str) -> Parameters:
    words = _words(reference)
    return Parameters(
        Field("path", str, default=PLACES, help="folders that it is looked for in, separated by colons"),
        Field(
            "status", str, default="words", choices=("words", "none"),
            help="none: it has no status worth the name; whether it runs is what the last start or stop was",
        ),
        summary=f"Heartbeat's resource script {words[0]}",
        timeouts={"start": "60s", "stop": "60s", "monitor": "20s"},
        monitor_interval="10s",
    )  # fmt: skip


@hookimpl
def start(resource: Resource) -> None:
    script = _script(resource)
    if _owned(resource, script):
        return
    said = _act(resource, script, "start")
    if said.code != 0:
        raise failure(script, "start", said.code, said.last_lines())
    (resource.run_dir / STARTED).touch()


@hookimpl
def stop(resource: Resource) -> None:
    script = _found(resource)
    if script is None:
        _refuse_if_running(resource)
        return
    for attempt in range(STOP_TRIES + 1):
        said = _act(resource, script, "stop")
        if said.code == 0:
            break
        if attempt == STOP_TRIES or resource.remaining < 2:
            if _owned(resource, script) or resource.params["status"] == "none":
                raise failure(script, "stop", said.code, said.last_lines())
            resource.log.warning("stop of what is stopped gave exit code %d; it must give 0", said.code)
            break
        resource.log.info("stop gave exit code %d: trying again", said.code)
        time.sleep(1)
    (resource.run_dir / STARTED).unlink(missing_ok=True)
    if _owned(resource, script):
        raise AgentError(f"{script} stop said yes, and its status still says that it runs", cure="mend the script")


@hookimpl
def monitor(resource: Resource) -> Health:
    script = _found(resource)
    if script is None:
        _refuse_if_running(resource)
        return Health.STOPPED
    return Health.RUNNING if _owned(resource, script) else Health.STOPPED


@hookimpl
def validate(resource: Resource) -> None:
    script = _script(resource)
    scripts.executable(script, "install it, or set path")
    link = started_at_boot(script.name)
    if link and script.parent == Path("/etc/init.d"):
        raise ConfigError(
            f"{script} is started by the system at boot ({link}), also while the other node runs it; "
            f"update-rc.d {script.name} disable (or chkconfig {script.name} off)"
        )


@hookimpl
def main_process(resource: Resource) -> int | None:
    return daemons.main_process()


def _words(reference: str) -> list[str]:
    """Name and arguments."""
    try:
        words = shlex.split(reference.partition(":")[2])
    except ValueError as error:
        raise ConfigError(f'"{reference}": {error}; close the quotes') from error
    if not words or "/" in words[0] or words[0].startswith("."):
        raise ConfigError(
            f'"{reference}" names no script; write script:NAME and its arguments after blanks, '
            "such as script:drbddisk r0, and set path for another folder"
        )
    return words


def _found(resource: Resource) -> Path | None:
    """The first executable file of its name, as Heartbeat looks for it."""
    name = _words(resource.reference)[0]
    places = [Path(folder) / name for folder in resource.params["path"].split(":") if folder]
    return next((place for place in places if place.is_file() and os.access(place, os.X_OK)), None)


def _script(resource: Resource) -> Path:
    script = _found(resource)
    if script is None:
        name = _words(resource.reference)[0]
        raise AgentError(
            f"there is no executable {name} in {resource.params['path'].replace(':', ' or ')}",
            cure="install it, make it executable, or set path",
        )
    return script


def _refuse_if_running(resource: Resource) -> None:
    if left := daemons.left_running():
        raise AgentError(f"the script is gone, and processes of it run: {left[:5]}", cure="bring the script back")


def _owned(resource: Resource, script: Path) -> bool:
    if resource.params["status"] == "none":
        return (resource.run_dir / STARTED).exists()
    said = scripts.probe(resource, [str(script), *_words(resource.reference)[1:], "status"], _environment(resource))
    verdict, code = by_words_of_heartbeat(said.stdout), by_code(said.code)
    if {verdict, code} == {Verdict.RUNNING, Verdict.STOPPED}:
        resource.log.warning(
            'status says "%s" with exit code %d; the words count', said.last_lines(1) or "nothing", said.code
        )
    return verdict is Verdict.RUNNING


def _act(resource: Resource, script: Path, action: str) -> Said:
    return scripts.act(resource, [str(script), *_words(resource.reference)[1:], action], _environment(resource))


def _environment(resource: Resource) -> dict[str, str]:
    """What the scripts and the library that they read expect."""
    return {
        **SKIP_REDIRECT,
        "HA_DIR": "/etc/ha.d",
        "HA_FUNCS": "/etc/ha.d/shellfuncs",
        "HA_RESOURCEDIR": "/etc/ha.d/resource.d",
        "HA_CURHOST": resource.node,
        "HA_RSCTMP": str(resource.run_dir),
        "HA_DEBUGLOG": "/dev/null",
    }
