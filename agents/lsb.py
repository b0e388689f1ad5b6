"""Any LSB init script: lsb:NAME runs /etc/init.d/NAME.

Many scripts keep the standard badly, so nothing is taken on trust: a start
that fails because it runs already is a success, a stop is asked after, and a
``status`` whose code and words contradict each other is a failure until the
operator says which of the two to believe.  A script whose status always says
0 is thereby caught by its words, or at the latest by its first stop.

The script itself is run, also where systemd would put a unit in its place.
"""

import re
import time
from pathlib import Path

from hostd.api import AgentError, ConfigError, Field, Health, Parameters, Resource, hookimpl
from hostd.api.foreign import daemons, scripts
from hostd.api.foreign.initscripts import SKIP_REDIRECT, Verdict, by_code, by_words, failure, started_at_boot
from hostd.api.foreign.scripts import Said

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+-]*")
SETTLE_S = 10.0  # seconds that status may take to agree with a start or stop that said yes
PAUSE_S = 0.2


@hookimpl
def parameters(reference: str) -> Parameters:
    name = _name(reference)
    return Parameters(
        Field("directory", Path, default=Path("/etc/init.d"), help="where the script is"),
        Field(
            "status_by", str, default="both", choices=("both", "code", "words"),
            help="what of its status to believe; both: that they contradict each other is a failure",
        ),
        summary=f"LSB init script {name}",
        timeouts={"start": "60s", "stop": "60s", "monitor": "20s"},
        monitor_interval="10s",
    )  # fmt: skip


@hookimpl
def start(resource: Resource) -> None:
    before, _ = _status(resource)
    said = _act(resource, "start")
    if said.code != 0:
        if before is not Verdict.RUNNING:
            raise failure(_script(resource), "start", said.code, said.last_lines())
        resource.log.warning("start of what runs already gave exit code %d; LSB asks for 0", said.code)
    _until(resource, Verdict.RUNNING, "start")


@hookimpl
def stop(resource: Resource) -> None:
    if _is_absent(resource):
        return
    before, _ = _status(resource)
    said = _act(resource, "stop")
    if said.code != 0:
        if before is not Verdict.STOPPED:
            raise failure(_script(resource), "stop", said.code, said.last_lines())
        resource.log.warning("stop of what is stopped already gave exit code %d; LSB asks for 0", said.code)
    _until(resource, Verdict.STOPPED, "stop")


@hookimpl
def monitor(resource: Resource) -> Health:
    if _is_absent(resource):
        return Health.STOPPED
    verdict, said = _status(resource)
    if verdict is Verdict.RUNNING:
        return Health.RUNNING
    if verdict is Verdict.STOPPED:
        return Health.STOPPED
    if verdict is Verdict.DIED:
        if resource.interval_ms == 0:  # a file that a crash left is no reason not to start
            return Health.STOPPED
        raise AgentError(f"it died: {said.last_lines() or 'its pid file is there, its process is not'}")
    raise AgentError(
        f"{_script(resource)} status: {said.last_lines() or 'it says nothing'} (exit code {said.code})",
        cure='mend the script, or set status_by = "words" if those are right',
    )


@hookimpl
def validate(resource: Resource) -> None:
    script = _script(resource)
    scripts.executable(script, "install the package that brings it, or set directory")
    text = script.read_bytes()[:1_000_000].decode(errors="replace")
    missing = [action for action in ("start", "stop", "status") if not re.search(rf"\b{action}\b", text)]
    if missing and "init-d-script" not in text:  # Debian's template has the actions
        raise ConfigError(f"{script} has no action {', '.join(missing)}; mend it, or use script:{script.name}")
    link = started_at_boot(script.name)
    if link and script.parent == Path("/etc/init.d"):
        raise ConfigError(
            f"{script} is started by the system at boot ({link}), also while the other node runs it; "
            f"update-rc.d {script.name} disable (or chkconfig {script.name} off)"
        )


@hookimpl
def main_process(resource: Resource) -> int | None:
    return daemons.main_process()


def _name(reference: str) -> str:
    name = reference.partition(":")[2]
    if not NAME.fullmatch(name):
        raise ConfigError(f'"{reference}" names no init script; write lsb:NAME, such as lsb:nfs-kernel-server')
    return name


def _script(resource: Resource) -> Path:
    return Path(resource.params["directory"]) / _name(resource.reference)


def _is_absent(resource: Resource) -> bool:
    """Not installed here, so it does not run; unless processes of it are there."""
    script = _script(resource)
    if script.exists():
        return False
    if left := daemons.left_running():
        raise AgentError(f"{script} is gone, and processes of it run: {left[:5]}", cure="bring the script back")
    return True


def _status(resource: Resource) -> tuple[Verdict, Said]:
    """What is believed of its status.  AgentError if code and words contradict each other."""
    said = scripts.probe(resource, [str(_script(resource)), "status"], SKIP_REDIRECT)
    code, words = by_code(said.code), by_words(said.text)
    believed = resource.params["status_by"]
    plain = {Verdict.RUNNING, Verdict.STOPPED}
    if believed == "both" and {code, words} == plain:
        raise AgentError(
            f"{_script(resource)} status contradicts itself: exit code {said.code} means {code.name.lower()}, "
            f'and it says "{said.last_lines(1)}"',
            cure='set status_by = "words" or "code", whichever is right',
        )
    return words if believed == "words" else code, said


def _act(resource: Resource, action: str) -> Said:
    return scripts.act(resource, [str(_script(resource)), action], SKIP_REDIRECT)


def _until(resource: Resource, wanted: Verdict, action: str) -> None:
    """The script said yes; its status must come to say so as well."""
    patience = min(SETTLE_S, resource.remaining / 2)
    end = time.monotonic() + patience
    while True:
        verdict, said = _status(resource)
        is_there = verdict is wanted or (wanted is Verdict.STOPPED and verdict is Verdict.DIED)
        if is_there:
            return
        if time.monotonic() >= end:
            break
        time.sleep(PAUSE_S)
    hint = "it may always say so" if action == "stop" and verdict is Verdict.RUNNING else "mend the script"
    raise AgentError(
        f"{action} said yes, but {patience:.0f} s later status still says {verdict.name.lower()}: "
        f"{said.last_lines() or 'nothing'} (exit code {said.code})",
        cure=f'{hint}; a script with a status of no use can be run as script:NAME with status = "none"',
    )
