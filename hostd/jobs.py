"""What is asked of an agent, and how it ended: the nouns of the hands.

Decides nothing.
"""

import enum
from typing import Any

import msgspec

from hostd.api import Health


class Verb(enum.Enum):
    """What an agent can be asked; the value is the name of its hook."""

    START = "start"
    STOP = "stop"
    MONITOR = "monitor"
    VALIDATE = "validate"

    @property
    def changes(self) -> bool:
        return self is Verb.START or self is Verb.STOP


class Job(msgspec.Struct, frozen=True):
    """One action that is asked for.  ``agent`` is the reference after ``agent =``."""

    service: str
    resource: str
    agent: str
    verb: Verb
    params: dict[str, Any]
    timeout_ms: int
    depth: int = 0
    interval_ms: int = 0
    """Of a recurring monitor, else 0."""


class Outcome(msgspec.Struct, frozen=True):
    """How it ended."""

    ok: bool
    health: Health | None = None
    timed_out: bool = False
    leftovers: int = 0
    """After a stop: processes of the resource that are still there."""
    reason: str = ""
    cure: str = ""
    took_ms: int = 0
    evidence: str = ""
    main_pid: int = 0
    main_started: int = 0
    output: str = ""
    """The end of what it printed."""
