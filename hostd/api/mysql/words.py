"""What a MariaDB or MySQL server says in its log when it starts or cannot, and what helps.

Decides which of its errors is the cause and which only follow from it.
Looks at text alone.
"""

import re
from collections.abc import Sequence
from typing import Final

from hostd.api.errors import AgentError

PROGRESS: Final = re.compile(r"recover|rollback of|rolled back|to undo|redo log|crash|batch|upgrad", re.IGNORECASE)
"""A line about a start that takes its time."""
LOCK_REFUSED: Final = re.compile(r"Can't lock aria control file|Unable to lock \S+ error")
"""Another server has the datadir."""

_CONSEQUENCES: Final = re.compile(
    r"Aborting|Plugin .*(failed|aborted)|Unknown/unsupported storage engine|Parsing options"
)
_NUMBER: Final = r"\b([Ee]rr(or|code|no)|code|number)[ :]*"
_CURES: Final = (
    (r"unknown (variable|option)|Error while setting value|ambiguous option", "correct it in config or options"),
    (rf"No space left|Disk is full|{_NUMBER}28\b", "free some space there"),
    (r"Bind on|Can't start server", "ss -ltnp shows who has the port; set port and bind_address"),
    (rf"[Pp]ermission denied|{_NUMBER}13\b", "give the files that are named to the server's user"),
    (r"[Cc]orrupt", "restore a backup, or see innodb_force_recovery in the manual"),
)


def failure(what: str, said: Sequence[str]) -> AgentError:
    """The error of a server that has said this, with what helps if that is known."""
    errors = [line.partition("[ERROR] ")[2] for line in said if "[ERROR] " in line]
    causes = [error for error in errors if not _CONSEQUENCES.search(error)] or errors or said[-3:]
    text = "; ".join(dict.fromkeys(causes[:3])) or "it said nothing"
    cure = next((cure for pattern, cure in _CURES if re.search(pattern, "\n".join(said))), "see its error log")
    return AgentError(f"{what}: {text}", cure=cure)
