"""The agent under test: what is asked of it, and with which parameters.

Decides how parameters of a sandbox and those of the command line become what
the agent is handed: through the same check that conf.d goes through.  Knows
neither rules nor stages.
"""

import types
from pathlib import Path
from typing import Any, Final

import msgspec

from hostd.api import ConfigError, Field, Parameters
from hostd.confd.complain import Complaints
from hostd.confd.params import fill
from hostd.confd.values import Unfit, duration_ms
from hostd.jobs import Verb
from hostd.registry import Agent, Registry

ANY_TEXT: Final = "x $(y) 'z"
MARKER_LENGTH_MIN: Final = 6
"""A secret shorter than this may stand anywhere by chance."""


class Subject(msgspec.Struct, frozen=True):
    """One agent, by its reference, and what the operator gave for it."""

    registry: Registry
    agent: Agent
    reference: str
    parameters: Parameters
    given: dict[str, Any] = {}
    """Parameters of the command line, as conf.d would give them."""
    broken: str = ""
    """Why the agent cannot be loaded; then ``agent`` and ``parameters`` are stand-ins."""

    @property
    def has_sandbox(self) -> bool:
        return "sandbox" in self.agent.hooks

    @property
    def secrets(self) -> tuple[str, ...]:
        """Names of parameters that are never shown."""
        return tuple(field.name for field in self.parameters.fields if field.secret)

    def filled(self, values: dict[str, Any], node: str) -> dict[str, Any]:
        """Checked, typed, defaults filled in, as the agent will see them.  Raises ConfigError."""
        complaints = Complaints({})
        plain = {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}
        filled = fill(complaints, ("parameter",), plain, self.parameters, (node,), Path.cwd())
        if complaints.gathered:
            raise ConfigError("\n".join(complaint.text for complaint in complaints.gathered))
        return filled.values[node]

    def check(self, *, is_complete: bool) -> None:
        """Raises ConfigError if what was given does not fit.  ``is_complete``: nothing comes from a sandbox."""
        known = [field.name for field in self.parameters.fields]
        for name in self.given:
            if name not in known and not self.parameters.any_others:
                raise ConfigError(f'"{name}" is no parameter of {self.reference}; known: {", ".join(known) or "none"}')
        if is_complete:
            self.filled(self.given, "a")

    def is_elsewhere(self, mine: dict[str, Any], other: dict[str, Any]) -> bool:
        """Do two sets of parameters surely mean two services?  Only if they share no path and differ in one."""
        paths = [
            n for n in mine if any(isinstance(v, str | Path) and str(v)[:1] == "/" for v in (mine[n], other.get(n)))
        ]
        return bool(paths) and all(str(mine[name]) != str(other.get(name)) for name in paths)

    def limit_ms(self, verb: Verb) -> int:
        """The agent's own time limit for this action."""
        try:
            return duration_ms(self.parameters.timeouts.get(verb.value, "60s"))
        except Unfit:
            return 20_000  # the rule about limits says so; the others go on

    @property
    def interval_ms(self) -> int:
        """How often it is monitored by default."""
        try:
            return max(100, duration_ms(self.parameters.monitor_interval))
        except Unfit:
            return 10_000

    @property
    def depth(self) -> int:
        """How deep its recurring monitor looks."""
        return self.parameters.monitor_depth if self.parameters.monitor_depth in (0, 10, 20) else 0

    def shown(self, params: dict[str, Any]) -> str:
        """Parameters for people: those that are set, secrets hidden."""
        defaults = {field.name: field.default for field in self.parameters.fields}
        return " ".join(
            f"{name}={'(hidden)' if name in self.secrets else value}"
            for name, value in params.items()
            if name not in defaults or value != defaults[name]
        )


def takes_text(field: Field) -> bool:
    """Any text at all?  So str does, and many a converter of an agent's own."""
    if field.choices or field.type in (int, float, bool, list, dict):
        return False
    try:
        field.type(ANY_TEXT)
    except (ValueError, TypeError, ConfigError):
        return False
    return True


def stand_in(registry: Registry, reference: str, path: str, reason: str) -> Subject:
    """In the place of an agent that cannot be loaded, for the reason given."""
    empty = types.ModuleType("empty", doc=None)
    return Subject(registry, Agent(Path(path).stem, path, empty, []), reference, Parameters(), broken=reason)
