"""Any systemd unit: systemd:NAME (.service is understood).

Goes by systemd's jobs: ``systemctl start`` and ``stop`` return when their job
is removed, with its result.  A unit that is activating, deactivating or has a
job waiting is pending and not failed: it is waited for.  A failed one is told
with systemd's own result and the last lines of its journal.

While hostd holds the unit, a drop-in in /run says so, as Pacemaker does it:
systemd restarts nothing by itself (``Restart=no``), and at shutdown stops the
unit only after hostd, which by then has stopped it in its own order.

systemctl and not a library: it needs no D-Bus daemon, follows the job by
itself, and its words are those that an operator knows.
"""

import contextlib
import re
from pathlib import Path
from typing import Final

from hostd.api import AgentError, ConfigError, Health, NotInstalled, Parameters, Resource, hookimpl
from hostd.api.foreign import scripts

SYSTEMCTL: Final = ("systemctl", "--no-ask-password", "--no-pager")
DROP_INS: Final = Path("/run/systemd/system")
DROP_IN: Final = "50-hostd.conf"
UNIT: Final = re.compile(r"[A-Za-z0-9:_.\\@-]{1,240}")
KINDS: Final = (
    "service",
    "socket",
    "device",
    "mount",
    "automount",
    "swap",
    "target",
    "path",
    "timer",
    "slice",
    "scope",
)
SHOWN: Final = (
    "Id", "LoadState", "LoadError", "ActiveState", "SubState", "Result", "MainPID", "Job", "UnitFileState",
    "NeedDaemonReload", "Restart", "ControlGroup", "ExecMainCode", "ExecMainStatus", "StatusText",
)  # fmt: skip
ACTIVE: Final = ("active", "reloading")
PENDING: Final = ("activating", "deactivating", "refreshing", "maintenance")
PAUSE_S: Final = 0.1
MARGIN_S: Final = 1.0  # left of the time limit to say what is the matter
JOURNAL_LINES: Final = 3


@hookimpl
def parameters(reference: str) -> Parameters:
    unit = _unit(reference)
    return Parameters(
        summary=f"systemd unit {unit}",
        timeouts={"start": "100s", "stop": "100s", "monitor": "30s"},  # systemd's own for a job is 90 s
        monitor_interval="10s",
    )


@hookimpl
def start(resource: Resource) -> None:
    unit = _unit(resource.reference)
    _require_systemd()
    _usable(_show(resource))
    _hold(resource, unit)
    said = _systemctl(resource, "start", unit)
    shown = _settled(resource)
    if shown["ActiveState"] not in ACTIVE:
        raise _failure(resource, shown, f"start: {said or 'the job ended'}")


@hookimpl
def stop(resource: Resource) -> None:
    unit = _unit(resource.reference)
    if not DROP_INS.is_dir():
        return
    shown = _show(resource)
    if shown["LoadState"] == "not-found" and shown["ActiveState"] == "inactive":
        return
    # A job that waits, as at shutdown for hostd's own end, must not be waited for in turn.
    is_ordered_already = bool(shown["Job"])
    mode = ["--job-mode=ignore-dependencies"] if is_ordered_already else []
    said = _systemctl(resource, *mode, "stop", unit)
    shown = _settled(resource)
    if shown["ActiveState"] == "failed" and not _processes(shown):
        resource.log.warning("it is stopped, and systemd calls it failed (%s)", shown["Result"])
        _systemctl(resource, "reset-failed", unit)
        shown = _show(resource)
    if shown["ActiveState"] != "inactive":
        raise _failure(resource, shown, f"stop: {said or 'the job ended'}")
    _refuse_processes(shown)
    if not is_ordered_already:  # while the machine goes down, the drop-in goes with it
        _release(resource, unit)


@hookimpl
def monitor(resource: Resource) -> Health:
    if not DROP_INS.is_dir():
        return Health.STOPPED
    shown = _settled(resource)
    match shown["ActiveState"]:
        case "active" | "reloading":
            return Health.RUNNING
        case "inactive":
            _refuse_processes(shown)
            return Health.STOPPED
        case "failed" if resource.interval_ms == 0 and not _processes(shown):
            return Health.STOPPED  # as after a crash before hostd came: nothing of it runs
        case _:
            raise _failure(resource, shown, "monitor")


@hookimpl
def validate(resource: Resource) -> None:
    unit = _unit(resource.reference)
    _require_systemd()
    shown = _show(resource)
    _usable(shown)
    if shown["NeedDaemonReload"] == "yes":
        raise ConfigError(f"{unit} was changed on disk and systemd has not read it; systemctl daemon-reload")
    if shown["UnitFileState"] in ("enabled", "enabled-runtime", "linked"):
        raise ConfigError(
            f"{unit} is started by the system at boot, also while the other node runs it; systemctl disable {unit}"
        )
    if shown["Restart"] not in ("", "no"):
        resource.log.warning("Restart=%s of %s is put out of force while hostd runs it", shown["Restart"], unit)


@hookimpl
def main_process(resource: Resource) -> int | None:
    pid = _show(resource).get("MainPID", "0")
    return int(pid) if pid.isdecimal() and int(pid) > 1 else None


# -- systemd's answers ------------------------------------------------------------------


def _unit(reference: str) -> str:
    name = reference.partition(":")[2]
    if not UNIT.fullmatch(name) or name.startswith(("-", ".")):
        raise ConfigError(f'"{reference}" names no unit; write systemd:NAME, such as systemd:nginx')
    if name.rpartition(".")[2] not in KINDS:
        name += ".service"
    if name.partition(".")[0].endswith("@"):
        raise ConfigError(f'"{reference}" is a template; name its instance, such as systemd:{name.partition("@")[0]}@1')
    return name


def _require_systemd() -> None:
    """The folder is there if systemd is process 1 (sd_booted(3))."""
    if not DROP_INS.is_dir():
        raise NotInstalled("systemd does not run this machine", cure="use lsb:, ocf: or an agent of hostd's")


def _show(resource: Resource) -> dict[str, str]:
    """The unit's properties as systemd has them now; "" for those that its kind does not have."""
    argv = [*SYSTEMCTL, "show", _unit(resource.reference), f"--property={','.join(SHOWN)}"]
    said = scripts.probe(resource, argv, {})
    if said.code != 0:
        raise AgentError(f"systemd does not answer: {said.last_lines(1) or said.code}", cure="is it process 1 here?")
    found = dict(line.split("=", 1) for line in said.stdout.splitlines() if "=" in line)
    return {name: found.get(name, "") for name in SHOWN} | {"Job": found.get("Job", "").strip("0")}


def _settled(resource: Resource) -> dict[str, str]:
    """The unit's properties once nothing is pending.  AgentError if that does not come about in time."""
    shown: dict[str, str] = {}
    told = ""

    def has_settled() -> bool:
        nonlocal told
        shown.update(_show(resource))
        state = f"{shown['ActiveState']} ({shown['SubState']})" + (", a job waits" if shown["Job"] else "")
        if state != told:
            resource.log.info("%s is %s", shown["Id"], state)
            told = state
        if resource.remaining < MARGIN_S:
            raise AgentError(
                f"{shown['Id']} is still {state}", cure=f"systemctl list-jobs; systemctl status {shown['Id']}"
            )
        # Active is active, also while a job waits: at shutdown that is systemd's stop, which waits for hostd.
        return shown["ActiveState"] in ACTIVE or (not shown["Job"] and shown["ActiveState"] not in PENDING)

    resource.wait(has_settled, "the unit did not settle", pause=PAUSE_S)
    return shown


def _systemctl(resource: Resource, *arguments: str) -> str:
    """What it complained of; "" if it did it.  It returns when the job has been removed."""
    limit_s = resource.remaining - MARGIN_S
    try:
        said = scripts.probe(resource, [*SYSTEMCTL, *arguments], {}, limit_s=limit_s)
    except scripts.TookTooLong:
        return f"systemd did not end it within {limit_s:.0f} s"
    return "" if said.code == 0 else said.last_lines(2)


def _usable(shown: dict[str, str]) -> None:
    """AgentError for a unit that systemd would not start."""
    unit = shown["Id"]
    match shown["LoadState"]:
        case "loaded":
            return
        case "masked":
            raise AgentError(f"{unit} is masked", cure=f"systemctl unmask {unit}")
        case "not-found":
            raise NotInstalled(f"there is no unit {unit}", cure="install the package that brings it")
        case state:
            raise AgentError(
                f"{unit} cannot be loaded ({state} {shown['LoadError']})".rstrip(), cure="mend the unit file"
            )


def _failure(resource: Resource, shown: dict[str, str], what: str) -> AgentError:
    """State and result in systemd's words, and the end of the unit's journal."""
    unit = shown["Id"]
    details = [f"Result={shown['Result']}"] if shown["Result"] not in ("", "success") else []
    if shown["ExecMainStatus"] not in ("", "0"):
        details.append(f"exit status {shown['ExecMainStatus']}")
    if shown["StatusText"]:
        details.append(shown["StatusText"])
    last = _last_words(resource, unit)
    state = f"{unit} is {shown['ActiveState']} ({', '.join([shown['SubState'], *details])})"
    return AgentError(f"{what}; {state}" + (f"; {last}" if last else ""), cure=f"systemctl status {unit}")


def _last_words(resource: Resource, unit: str) -> str:
    """The unit's own last lines in the journal, else systemd's about it."""
    for match in (f"_SYSTEMD_UNIT={unit}", f"UNIT={unit}"):
        argv = ["journalctl", "--no-pager", "-q", "-b", "-o", "cat", "-n", str(JOURNAL_LINES), match]
        with contextlib.suppress(AgentError):  # no journal, or a slow one, costs its words only
            said = scripts.probe(resource, argv, {}, limit_s=max(0.1, min(3.0, resource.remaining / 3)))
            if said.stdout.strip():
                return said.last_lines()
    return ""


# -- processes that are left ---------------------------------------------------------------


def _processes(shown: dict[str, str]) -> list[int]:
    """What is left in the unit's cgroup, as KillMode=process or none leaves it."""
    group = shown["ControlGroup"].lstrip("/")
    if not group:
        return []
    for top in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd"):
        with contextlib.suppress(OSError):  # not this hierarchy
            found = [file.read_text().split() for file in Path(top, group).rglob("cgroup.procs")]
            if found:
                return [int(pid) for pids in found for pid in pids]
    return []


def _refuse_processes(shown: dict[str, str]) -> None:
    if left := _processes(shown):
        raise AgentError(
            f"{shown['Id']} is {shown['ActiveState']} and has processes left ({', '.join(map(str, left[:5]))})",
            cure=f"KillMode= of {shown['Id']} must be control-group or mixed; end them by hand",
        )


# -- the drop-in ------------------------------------------------------------------------------


def _hold(resource: Resource, unit: str) -> None:
    """Say in /run that the unit is hostd's; systemd reads it at once."""
    path = DROP_INS / f"{unit}.d" / DROP_IN
    text = "# written by hostd, which starts and stops this unit\n[Unit]\nBefore=hostd.service\n"
    if unit.endswith(".service"):
        text += "[Service]\nRestart=no\n"
    with contextlib.suppress(FileNotFoundError):
        if path.read_text() == text and _show(resource)["NeedDaemonReload"] != "yes":
            return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    _reload(resource)


def _release(resource: Resource, unit: str) -> None:
    path = DROP_INS / f"{unit}.d" / DROP_IN
    if path.exists():
        path.unlink()
        with contextlib.suppress(OSError):  # another's drop-in is there
            path.parent.rmdir()
        _reload(resource)


def _reload(resource: Resource) -> None:
    complaint = _systemctl(resource, "daemon-reload")
    if complaint:
        resource.log.warning("daemon-reload: %s", complaint)
