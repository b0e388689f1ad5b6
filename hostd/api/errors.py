"""The errors that an extension raises or meets.

Errors::

    HostdError
    ├── ConfigError     the operator's mistake: says thing, value, rule, cure
    └── AgentError      the world's failure, as an agent met it
        └── NotInstalled   what the agent needs is not on this machine
"""


class HostdError(Exception):
    """The root of hostd's own exceptions."""


class ConfigError(HostdError):
    """The operator's mistake.  The message says thing, value, rule and cure."""


class AgentError(HostdError):
    """An action failed: the reason in one sentence, and what cures it if that is known."""

    def __init__(self, reason: str, cure: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.cure = cure


class NotInstalled(AgentError):
    """What the agent needs is not installed on this machine; another node may have it."""
