"""Fencing by any program of the fence agent API: ``fence_ipmilan``, ``fence_apc`` and the hundred others.

Decides what such a program is told, and when its word counts: ``off``, and
then ``status`` until that says off.  Never ``reboot``: of a reboot nobody can
say when the node was down, and what comes back is not known to be clean.

The API (ClusterLabs, ``doc/FenceAgentAPI.md``): one ``key=value`` a line on
standard input, nothing on the command line; ``off`` exits with 0 for done and
1 for not; ``status`` with 0 for on, 1 for "cannot say", 2 for off.
"""

import os
import re
import shutil
import stat
import time
from pathlib import Path
from typing import Any, Final

from hostd.api import AgentError, Completed, FenceOrder, hookimpl

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

OURS: Final = ("action", "option", "nodename")
"""What hostd itself says; ``option`` is an older word for ``action``."""
_KEY: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


@hookimpl
def fence(order: FenceOrder) -> bool:
    """Switch off, then ask until it says that it is off."""
    program = shutil.which(order.agent)
    if program is None:
        raise AgentError(
            f"{order.agent} is no program here", cure="install it (Debian: fence-agents), or name it by its path"
        )
    told = _told(order)
    done = _run(order, program, told, "off")
    if done.returncode != DONE:
        raise AgentError(f"{order.agent} could not switch {order.node} off{_said(done, told)}")
    while True:
        status = _run(order, program, told, "status")
        if status.returncode == IS_OFF:
            return True
        if order.remaining < ASK_AGAIN_S + LEAST_S:
            break
        time.sleep(ASK_AGAIN_S)
    if status.returncode == IS_ON:
        raise AgentError(f"{order.agent} claims to have switched {order.node} off, and its status is still on")
    raise AgentError(f"{order.agent} cannot say whether {order.node} is off{_said(status, told)}")


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
