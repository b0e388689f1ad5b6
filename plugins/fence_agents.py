"""Fencing by any program of the fence agent API: ``fence_ipmilan``, ``fence_apc`` and the hundred others.

Decides what such a program is told, and when its word counts: ``off``, and
then ``status`` until that says off.  Never ``reboot``: of a reboot nobody can
say when the node was down, and what comes back is not known to be clean.  A
drill is ``monitor`` and ``status``; ``metadata`` is read by ``hostd check``.

A program that cuts a node off from its disks and leaves it running is
refused: its "off" would be taken for the node's, and a node that has lost its
disks may still answer at its addresses.

The API (ClusterLabs, ``doc/FenceAgentAPI.md``): one ``key=value`` a line on
standard input, nothing on the command line; ``off`` exits with 0 for done and
1 for not; ``status`` with 0 for on, 1 for "cannot say", 2 for off.
"""

import difflib
import os
import re
import shutil
import stat
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from hostd.api import AgentError, Completed, FenceOrder, Note, hookimpl

DONE: Final = 0
"""What ``off`` exits with when it has switched off."""
IS_ON: Final = 0
IS_OFF: Final = 2
"""What ``status`` exits with."""
ASK_AGAIN_S: Final = 0.5
"""Between two looks at the status: a device needs a moment to switch, and is not made for being hurried."""
LEAST_S: Final = 0.2
"""With less time than this left, no further look is begun."""
SECRET_MAX: Final = 4_096
SAID_MAX: Final = 200
"""Characters of what the program said that go into a reason."""

NO_POWER: Final = frozenset(
    {"fence_scsi", "fence_mpath", "fence_brocade", "fence_cisco_mds", "fence_sanbox2", "fence_ifmib"}
)
"""Of fence-agents 4.12, all whose metadata tell of ``on`` for a node that is back: ``off`` takes
the disks or the network away, and no power."""
NO_DEVICE: Final = frozenset(
    {"fence_ack_manual", "fence_dummy", "fence_heuristics_ping", "fence_kdump", "fence_legacy", "fence_watchdog"}
)
"""Programs of that interface that switch nothing off themselves."""
BOARDS: Final = (
    "fence_ipmilan", "fence_idrac", "fence_drac", "fence_ilo", "fence_imm", "fence_redfish", "fence_rsb", "fence_rsa",
    "fence_hpblade",
)  # fmt: skip
"""Management boards of a machine, by how their programs' names begin: without power of its own such a
board confirms nothing once its machine has lost it."""
OURS: Final = ("action", "option", "nodename")
"""What hostd itself says; ``option`` is an older word for ``action``."""
SEE: Final = "see to the device, its cable, and the params of {}"
_KEY: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


@hookimpl
def fence(order: FenceOrder) -> bool:
    """Switch off, then ask until it says that it is off."""
    program = _program(order)
    told = _told(order)
    done = _run(order, program, told, "off")
    if done.returncode != DONE:
        raise AgentError(f"{order.agent} could not switch {order.node} off{_said(done, told)}")
    status: Completed | None = None
    while True:
        try:
            status = _run(order, program, told, "status")
        except AgentError:
            if status is None:
                raise
            break  # no time for another look: the last word that we have
        if status.returncode == IS_OFF:
            return True
        if order.remaining < ASK_AGAIN_S + LEAST_S:
            break
        time.sleep(ASK_AGAIN_S)
    if status.returncode == IS_ON:
        raise AgentError(f"{order.agent} claims to have switched {order.node} off, and its status is still on")
    raise AgentError(f"{order.agent} cannot say whether {order.node} is off{_said(status, told)}")


@hookimpl
def drill(order: FenceOrder) -> str:
    """``monitor``: does the device answer?  Then ``status``: does it know the node's outlet?"""
    program = _program(order)
    told = _told(order)
    done = _run(order, program, told, "monitor")
    if done.returncode != DONE:
        raise AgentError(f"{order.agent} does not reach its device{_said(done, told)}", cure=SEE.format(order.agent))
    status = _run(order, program, told, "status")
    if status.returncode not in (IS_ON, IS_OFF):
        raise AgentError(
            f"{order.agent} cannot say whether {order.node} is on{_said(status, told)}", cure=SEE.format(order.agent)
        )
    return "on" if status.returncode == IS_ON else "off"


def _program(order: FenceOrder) -> str:
    """The path of the program; AgentError if there is none, or if its word must not count."""
    if order.storage:
        raise AgentError(
            f'{order.agent} is asked for the power of {order.node}, and [fencing] mode is "storage"',
            cure='set mode = "required", or name the device scsi_reservation',
        )
    name = Path(order.agent).name
    if name in NO_POWER:
        raise AgentError(
            f"{order.agent} takes disks or network away and no power: {order.node} would not be off",
            cure="name a device that switches the power off",
        )
    if name in NO_DEVICE:
        raise AgentError(
            f"{order.agent} switches nothing off by itself", cure="name a device that switches the power off"
        )
    program = shutil.which(order.agent)
    if program is None:
        raise AgentError(
            f"{order.agent} is no program here", cure="install it (Debian: fence-agents), or name it by its path"
        )
    return program


class _Told:
    """The lines for one node, without the action; and what of them must never be shown."""

    def __init__(self, lines: list[str], hidden: list[str]) -> None:
        self.lines, self.hidden = lines, hidden

    def text(self, action: str) -> str:
        return "".join(f"{line}\n" for line in [*self.lines, f"action={action}"])


def _told(order: FenceOrder) -> _Told:
    secrets = {key: _secret(key, path) for key, path in order.secrets.items()}
    lines = [f"nodename={order.node}"]
    for key, value in {**order.params, **secrets}.items():
        if key in OURS or not _KEY.fullmatch(key):
            raise AgentError(f'"{key}" is not for conf.d to tell {order.agent}', cure=f"remove {key} from its params")
        lines.append(f"{key}={_text(key, value)}")
    return _Told(lines, list(secrets.values()))


def _text(key: str, value: Any) -> str:
    """One value on one line; what follows a line break would be read as another parameter."""
    text = str(int(value)) if isinstance(value, bool) else str(value)
    if any(character in text for character in "\r\n\0"):
        raise AgentError(f"{key} has a line break in it", cure="write it as one line")
    return text


def _secret(key: str, path: Path) -> str:
    """The only line of a file that nobody but its owner may read."""
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())  # of the very file that is read
            text = file.read(SECRET_MAX + 1)
    except OSError as error:
        raise AgentError(f"the file of {key} cannot be read: {path}: {error.strerror}", cure=f"see {path}") from error
    if stat.S_IMODE(status.st_mode) & 0o077:
        mode = stat.S_IMODE(status.st_mode)
        raise AgentError(f"{path} may be read by others (mode {mode:04o})", cure=f"chmod 600 {path}")
    try:
        secret = text.decode().removesuffix("\n")
    except UnicodeDecodeError:
        raise AgentError(f"{path} holds no text", cure="make it, with the secret as its only line") from None
    if not secret or len(text) > SECRET_MAX:
        raise AgentError(f"{path} does not hold one line", cure="make it, with the secret as its only line")
    return secret


def _run(order: FenceOrder, program: str, told: _Told, action: str) -> Completed:
    return order.run([program], input=told.text(action))


def _said(done: Completed, told: _Told) -> str:
    """How it ended and the last line that it printed, for a reason; never a secret."""
    lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
    said = lines[-1].strip() if lines else ""
    for secret in told.hidden:
        said = said.replace(secret, "***")
    how = f"exit status {done.returncode}" if done.returncode >= 0 else f"killed by signal {-done.returncode}"
    return f" ({how}: {said[:SAID_MAX]})" if said else f" ({how})"


# -- hostd check ------------------------------------------------------------------------


@hookimpl
def check_device(order: FenceOrder) -> list[str]:
    """The program itself, its secrets, and what its metadata say of the parameters."""
    found: list[str] = []
    program = ""
    try:
        program = _program(order)
        found += _loose(Path(program))
    except AgentError as error:
        found.append(f"{error.reason}; {error.cure}")
    for key, path in order.secrets.items():
        try:
            _text(key, _secret(key, path))
        except AgentError as error:
            found.append(f"{error.reason}; {error.cure}")
    if order.is_last and Path(order.agent).name.startswith(BOARDS):
        found.append(
            Note(
                f"{order.agent} asks the board of {order.node} itself, which confirms nothing once it has lost its "
                "power together with the node; give boards power of their own, or add a power switch as a further level"
            )
        )
    return found + (_by_metadata(order, program) if program else [])


def _loose(program: Path) -> Iterator[str]:
    """Whoever may write the program may have any node shot, as root."""
    for path in (program.resolve(), program.resolve().parent):
        status = path.stat()
        if status.st_uid != 0 or status.st_mode & 0o022:
            yield f"{path} may be changed by others than root; chown root {path}, chmod go-w {path}"


def _by_metadata(order: FenceOrder, program: str) -> list[str]:
    done = order.run([program], input="action=metadata\n")
    try:
        root = ElementTree.fromstring(done.stdout)
    except ElementTree.ParseError:
        return [
            Note(
                f"{order.agent} gives no metadata that could be read (exit status {done.returncode}), so its "
                f"parameters are not checked; try it: hostd fence {order.node} --check"
            )
        ]
    return [*_of_actions(order, root), *_of_parameters(order, root)]


def _of_actions(order: FenceOrder, root: ElementTree.Element) -> Iterator[str]:
    actions = {action.get("name", ""): action for action in root.iter("action")}
    if not actions:
        return
    unfences = actions.get("on")
    if unfences is not None and "1" in (unfences.get("automatic"), unfences.get("on_target")):
        yield (
            f"{order.agent} cuts a node off from disks or network (it has to be told when the node is back) and "
            "leaves its power on; name a device that switches the power off"
        )
    if "off" not in actions:
        yield f"{order.agent} cannot switch off (it knows {', '.join(actions)}); name one that can"
    elif missing := [name for name in ("status", "monitor") if name not in actions]:
        yield f"{order.agent} cannot be asked for {' and '.join(missing)}, so it cannot be believed; use another"


def _of_parameters(order: FenceOrder, root: ElementTree.Element) -> Iterator[str]:
    known = {_spelt(parameter.get("name", "")): parameter for parameter in root.iter("parameter")}
    if not known:
        return
    newer = {_spelt(parameter.get("obsoletes", "")): name for name, parameter in known.items()}
    given = {_spelt(key): value for key, value in {**order.params, **order.secrets}.items()}
    for key, value in given.items():
        if key not in known:
            near = difflib.get_close_matches(key, [name for name in known if name not in OURS], n=1)
            cure = f"did you mean {near[0]}?" if near else f"see {order.agent} -o metadata"
            yield f"{key} is no parameter of {order.agent}, which ignores it; {cure}"
            continue
        if known[key].get("deprecated") == "1":
            better = f"write {newer[key]}" if newer.get(key) else f"see {order.agent} -o metadata"
            yield Note(f"{key} is an old word that {order.agent} may forget; {better}")
        if key not in order.secrets:
            yield from _of_value(order, key, value, known[key])
    for name, parameter in known.items():
        spellings = {name, _spelt(parameter.get("obsoletes", ""))}
        is_old = parameter.get("deprecated") == "1"
        content = parameter.find("content")
        has_default = content is not None and content.get("default")
        is_asked_for = parameter.get("required") == "1" and not is_old and name not in OURS and not has_default
        if is_asked_for and not spellings & given.keys() and not _is_met_otherwise(name, given):
            yield f"{name} is required by {order.agent} and is not there for {order.node}; add it to params"


def _is_met_otherwise(name: str, given: dict[str, Any]) -> bool:
    """A password may come from a script or a key file, as the programs themselves have it."""
    return name in ("password", "passwd") and bool({"password_script", "passwd_script", "identity_file"} & given.keys())


def _of_value(order: FenceOrder, key: str, value: Any, parameter: ElementTree.Element) -> Iterator[str]:
    content = parameter.find("content")
    if content is None:
        return
    kind, text = content.get("type"), _text(key, value)
    if kind == "integer" and not re.fullmatch(r"-?[0-9]+", text):
        yield f'{key} = "{text}" is no whole number, which {order.agent} wants; write one'
    choices = [option.get("value", "") for option in content.iter("option")]
    if kind == "select" and choices and text not in choices:
        yield f'{key} = "{text}" is nothing that {order.agent} knows; use one of {", ".join(choices)}'


def _spelt(key: str) -> str:
    """``ssl-insecure`` and ``ssl_insecure`` are the same to these programs."""
    return key.replace("-", "_")
