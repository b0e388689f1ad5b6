"""What an init script's ``status`` means, by its code and by its words.

Decides how LSB's codes and the words that Heartbeat's ResourceManager goes by
are read, and when the two disagree.  Runs nothing.

Sources: LSB 5.0, chapter 22.2; ResourceManager of Heartbeat 3.0.6, we_own_resource.
"""

import enum
import re
from pathlib import Path
from typing import Final

from hostd.api.errors import AgentError

SKIP_REDIRECT: Final = {"SYSTEMCTL_SKIP_REDIRECT": "1", "_SYSTEMCTL_SKIP_REDIRECT": "1"}
"""Debian and Red Hat: run the script itself, not systemctl in its place, so that
what it starts stands in hostd's own books and not in systemd's."""


class Verdict(enum.Enum):
    RUNNING = 1
    STOPPED = 2
    DIED = 3  # dead, and its pid or lock file is there
    UNKNOWN = 4  # says nothing of use


def by_code(code: int) -> Verdict:
    """LSB: 0 running, 1 and 2 dead with pid or lock file, 3 not running, 4 unknown; the rest is reserved."""
    return {0: Verdict.RUNNING, 1: Verdict.DIED, 2: Verdict.DIED, 3: Verdict.STOPPED}.get(code, Verdict.UNKNOWN)


def by_words_of_heartbeat(stdout: str) -> Verdict:
    """Exactly as ResourceManager: what does not say that it runs does not run."""
    if re.search(r"[Nn][Oo][Tt] .*[Rr]unning", stdout, re.DOTALL):
        return Verdict.STOPPED
    return Verdict.RUNNING if re.search(r"[Rr]unning|OK", stdout) else Verdict.STOPPED


_STOPPED: Final = re.compile(
    r"\bnot\s+(?:\w+\s+)?(?:running|started|active)\b|\b(?:stopped|inactive|dead|down)\b", re.I
)
_RUNNING: Final = re.compile(r"\b(?:running|started|active|up)\b", re.IGNORECASE)


def by_words(text: str) -> Verdict:
    """Only what is said plainly: words for both, or for neither, are UNKNOWN."""
    stopped = bool(_STOPPED.search(text))
    running = bool(_RUNNING.search(_STOPPED.sub("", text)))
    if stopped == running:
        return Verdict.UNKNOWN
    return Verdict.STOPPED if stopped else Verdict.RUNNING


_FAILURES: Final = {
    1: ("failed", "see what it printed (hostd-agent run shows it)"),
    2: ("does not take these arguments", "compare with what the script expects"),
    3: ("does not know this action", "it cannot be used as a service"),
    4: ("lacks a permission", "see that root may do what the script does here"),
    5: ("its program is not installed", "install it on this node"),
    6: ("is not configured", "see its configuration, on Debian also /etc/default"),
    7: ("says that it is not running", "see what it printed (hostd-agent run shows it)"),
}


def failure(script: Path, action: str, code: int, said: str) -> AgentError:
    """The AgentError for the exit code of start or stop."""
    if code < 0:
        return AgentError(f"{action} of {script} was killed by signal {-code}")
    meaning, cure = _FAILURES.get(code, ("failed", "see what it printed (hostd-agent run shows it)"))
    return AgentError(f"{script} {action}: {said or meaning} (exit code {code})", cure=cure)


def started_at_boot(name: str, etc: Path = Path("/etc")) -> str:
    """What makes the system start the script at boot, or ""."""
    for folder in sorted([*etc.glob("rc[2-5].d"), *etc.glob("rc.d/rc[2-5].d")]):
        found = sorted(folder.glob(f"S[0-9][0-9]{name}"))
        if found:
            return str(found[0])
    return ""
