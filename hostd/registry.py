"""Finds the extensions and answers for them, in types.

Decides which agent a name means and that one broken file stops nothing: it
is listed in ``broken`` with its reason.  It holds one pluggy manager per
agent (the module, and the wrappers of all plugins) and one for the plugins,
so that the rest of hostd never meets pluggy.  It does not know when a hook
is called, in which process, or under which time limit.

Of two extensions of one name the later origin wins, said aloud: bundled,
entry points, /etc/hostd, folders of the command line.  A broken one still
hides the one it was meant to replace: running the other by guess could run
a service in a way that the operator wanted to change.
"""

import difflib
import functools
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Self

import msgspec
import pluggy

from hostd import hookspecs, loading
from hostd.api import AgentError, ConfigError, FenceOrder, Health, Link, LinkSettings, Notice, Parameters, Resource
from hostd.config import Directories

_ACTIONS: Final = ("start", "stop", "monitor", "validate", "main_process")
NAMES_SHOWN_MAX: Final = 12
"""How many names a message lists when none is near."""


class Broken(msgspec.Struct, frozen=True):
    """An extension that cannot be used."""

    name: str
    path: str
    reason: str
    kind: str
    """"agents" or "plugins"."""


class AgentMistake(ConfigError):
    """What an agent says of its parameters is of no use."""


class Agent:
    """One agent and the plugins that wrap it.

    The action methods run agent code: they belong into the child that runs
    one action, and may raise whatever the agent raises.
    """

    def __init__(self, name: str, path: str, module: Any, wrappers: list[types.ModuleType]) -> None:
        self.name = name
        self.path = path
        self.summary = (getattr(module, "__doc__", None) or "").strip().partition("\n")[0]
        self._manager = pluggy.PluginManager("hostd")
        self._manager.add_hookspecs(hookspecs.AgentSpec)
        self._manager.register(module, name=name)
        for wrapper in wrappers:
            self._manager.register(wrapper, name=wrapper.__name__)
        self._manager.check_pending()
        self.hooks = frozenset(loading.hooks(module))
        """The hooks that the agent itself implements."""
        self._alone = {name: function for name in _ACTIONS if (function := self._unwrapped(name)) is not None}

    def parameters(self, reference: str) -> Parameters:
        """What an operator may set.  Raises ConfigError if the agent rejects the
        reference or fails to answer."""
        if "parameters" not in self.hooks:
            return Parameters(summary=self.summary)
        try:
            answer = self._manager.hook.parameters(reference=reference)
        except ConfigError:
            raise
        except Exception as error:  # the edge: agent code may raise anything
            raise AgentMistake(f"agent {self.name}: parameters failed: {loading.last_line(error)}") from error
        if not isinstance(answer, Parameters):
            raise AgentMistake(
                f"agent {self.name}: parameters returned {answer!r}; it must return hostd.api.Parameters"
            )
        return answer

    def start(self, resource: Resource) -> None:
        self._act("start", resource)

    def stop(self, resource: Resource) -> None:
        self._act("stop", resource)

    def monitor(self, resource: Resource) -> Health:
        answer = self._act("monitor", resource)
        if not isinstance(answer, Health):
            raise AgentError(
                f"agent's mistake: monitor of {self.name} returned {answer!r}",
                cure="return Health.RUNNING, DEGRADED or STOPPED, or raise AgentError",
            )
        return answer

    def validate(self, resource: Resource) -> None:
        self._act("validate", resource)

    def main_process(self, resource: Resource) -> int | None:
        answer = self._act("main_process", resource)
        if answer is None or (isinstance(answer, int) and not isinstance(answer, bool) and answer > 1):
            return answer
        raise AgentError(
            f"agent's mistake: main_process of {self.name} returned {answer!r}",
            cure="return the process id of the running service, or None",
        )

    def sandbox(self, directory: Path) -> dict[str, Any] | None:
        answer = self._manager.hook.sandbox(directory=directory)
        if answer is None or isinstance(answer, dict):
            return answer
        raise AgentError(f"agent's mistake: sandbox of {self.name} returned {answer!r}, not a dict")

    def _act(self, hook: str, resource: Resource) -> Any:
        alone = self._alone.get(hook)
        return alone(resource) if alone is not None else getattr(self._manager.hook, hook)(resource=resource)

    def _unwrapped(self, hook: str) -> Callable[[Resource], Any] | None:
        """The one function that pluggy would call, and nothing else; each monitor is spared the way through pluggy,
        which touches 35 pages."""
        found = getattr(self._manager.hook, hook).get_hookimpls()
        return found[0].function if len(found) == 1 and found[0].argnames == ("resource",) else None


class Registry:
    """All extensions of this machine."""

    def __init__(self) -> None:
        self.agents: dict[str, Agent] = {}
        self.broken: tuple[Broken, ...] = ()
        self.warnings: tuple[str, ...] = ()
        self.plugins: dict[str, str] = {}
        """Name and path of each usable plugin."""
        self._plugins = pluggy.PluginManager("hostd")
        self._plugins.add_hookspecs(hookspecs.PluginSpec)
        self._plugins.add_hookspecs(hookspecs.AgentSpec)
        self._wrappers: list[types.ModuleType] = []
        self._link_types: dict[str, Parameters] = {}
        self._notify_types: dict[str, Parameters] = {}

    @classmethod
    def load(cls, directories: Directories, *, system: Path = loading.SYSTEM) -> Self:
        """Load everything; never raises for what is in an extension.  ``system`` is for tests."""
        registry = cls()
        plugins = registry._find("plugins", loading.origins("plugins", directories.plugins, system))
        for name, (path, module) in plugins.items():
            registry._take_plugin(name, path, module)
        agents = registry._find("agents", loading.origins("agents", directories.agents, system))
        for name, (path, module) in agents.items():
            registry._take_agent(name, path, module)
        return registry

    def add_agent_file(self, path: Path) -> Agent:
        """One agent by the path of its file, as the operator typed it.  Raises ConfigError."""
        try:
            module = loading.load_file(path, checked=False)
        except loading.LoadError as error:
            raise ConfigError(f"{path}: {error}") from error
        self._take_agent(path.stem, str(path), module)
        for broken in self.broken:
            if broken.path == str(path):
                raise ConfigError(f"{path}: {broken.reason}")
        return self.agents[path.stem]

    # -- agents ---------------------------------------------------------------

    def agent(self, reference: str) -> Agent:
        """The agent that a reference means (``ocf:heartbeat:apache`` means ``ocf``).  Raises ConfigError."""
        name = reference.partition(":")[0]
        if name in self.agents:
            return self.agents[name]
        for broken in self.broken:
            if (broken.kind, broken.name) == ("agents", name):
                raise ConfigError(f'agent "{name}" ({broken.path}) is broken: {broken.reason}')
        raise ConfigError(f'there is no agent "{name}"; {_nearest(name, self.agents)}')

    def parameters(self, reference: str) -> Parameters:
        """What may be set for ``agent = reference``.  Raises ConfigError."""
        return self.agent(reference).parameters(reference)

    # -- plugins --------------------------------------------------------------

    def link_types(self) -> dict[str, Parameters]:
        """Every ``[[heartbeat.link]] type`` and the keys of each."""
        return dict(self._link_types)

    def open_link(self, settings: LinkSettings) -> Link:
        """The medium, opened or opening itself in ``tick``.  Raises ConfigError for an unknown type."""
        link: Link | None = self._plugins.hook.open_link(settings=settings)
        if link is None:
            known = _nearest(settings.type, self._link_types)
            raise ConfigError(f'link {settings.name}: no plugin brings the type "{settings.type}"; {known}')
        return link

    def check_link(self, settings: LinkSettings) -> tuple[str, ...]:
        """What is wrong with this link on this machine, each a sentence with its cure."""
        try:
            answers = self._plugins.hook.check_link(settings=settings)
        except Exception as error:  # noqa: BLE001 - the edge: plugin code may raise anything
            said = str(error) if isinstance(error, ConfigError) else loading.last_line(error)
            return (f"{settings.name}: it cannot be checked: {said}; mend the plugin that brings {settings.type}",)
        return tuple(sentence for answer in answers for sentence in answer or ())

    def fence(self, order: FenceOrder) -> None:
        """Work one fencing device; returns once it has said that the node is off.

        Belongs into a child, under a limit.  Raises AgentError, and whatever else a plugin raises.
        """
        answer = self._plugins.hook.fence(order=order)
        if answer is None:
            raise AgentError(f'no plugin works the fence agent "{order.agent}"', cure="see hostd check")
        if answer is not True:
            raise AgentError(
                f"plugin's mistake: fence returned {answer!r} for {order.agent}",
                cure="return True once the device says off, or raise AgentError",
            )

    def drill(self, order: FenceOrder) -> str:
        """Try one fencing device harmlessly: the node's power as it says, ``on`` or ``off``.

        Belongs into a child, under a limit.  Raises AgentError, and whatever else a plugin raises.
        """
        answer = self._plugins.hook.drill(order=order)
        if answer is None:
            raise AgentError(f'no plugin can try the fence agent "{order.agent}"', cure="see hostd check")
        if answer not in ("on", "off"):
            raise AgentError(
                f"plugin's mistake: drill returned {answer!r} for {order.agent}", cure='return "on" or "off"'
            )
        return str(answer)

    def check_device(self, order: FenceOrder) -> tuple[str, ...]:
        """What is wrong with one fencing device, each a sentence with its cure.  Belongs into a child, likewise."""
        return tuple(self._plugins.hook.check_device(order=order) or ())

    def notify_types(self) -> dict[str, Parameters]:
        """Every ``[[notify]] type`` and what its ``params`` may be."""
        return dict(self._notify_types)

    def notify(self, notice: Notice) -> None:
        """Deliver one notice; belongs into a child, under a limit.  Raises AgentError, and whatever a plugin raises."""
        if self._plugins.hook.notify(notice=notice) is not True:
            raise AgentError(f'no plugin delivered to the [[notify]] type "{notice.type}"', cure="see hostd check")

    def metrics(self, status: dict[str, Any]) -> str:
        """The text of all metrics.  Raises ConfigError if no plugin makes them, and whatever a plugin raises."""
        text: str | None = self._plugins.hook.metrics(status=status)
        if text is None:
            raise ConfigError("no plugin makes metrics; plugins/prometheus.py of hostd is missing or broken")
        return text

    # -- loading --------------------------------------------------------------

    def _find(self, kind: str, origins: list[loading.Origin]) -> dict[str, tuple[str, Any]]:
        """Name → path and module of all that can be executed, later origins over earlier ones."""
        found: dict[str, tuple[str, Any]] = {}
        groups = [self._found_in(kind, origin) for origin in origins]
        groups.insert(1 if groups and not origins[0].checked else 0, self._found_installed(kind))
        for candidates in groups:
            for name, path, load in candidates:
                earlier = found.pop(name, ("", None))[0] or self._forget(kind, name)
                if earlier:
                    self._warn(f'{kind[:-1]} "{name}": {path} is used instead of {earlier}')
                try:
                    found[name] = (path, load())
                except loading.LoadError as error:
                    self._break(kind, name, path, str(error))
                except Exception as error:  # noqa: BLE001 - the edge: an entry point's package may raise anything
                    self._break(kind, name, path, loading.last_line(error))
        return found

    def _found_in(self, kind: str, origin: loading.Origin) -> list[tuple[str, str, Callable[[], Any]]]:
        paths = loading.files(origin.folder)
        if not origin.checked:
            for path in paths:
                self._warn_if_loose(path)
        return [(p.stem, str(p), functools.partial(loading.load_file, p, origin.checked)) for p in paths]

    def _found_installed(self, kind: str) -> list[tuple[str, str, Callable[[], Any]]]:
        return list(loading.entry_points(f"hostd.{kind}"))

    def _warn_if_loose(self, path: Path) -> None:
        for each in (path.parent, path):
            try:
                mode = each.stat().st_mode
            except OSError:
                continue  # a dangling link: loading it says so
            if mode & 0o022 and not any(str(each) in warning for warning in self.warnings):
                self._warn(f"{each} may be written by others (mode {mode & 0o7777:04o}); chmod go-w {each}")

    def _take_plugin(self, name: str, path: str, module: Any) -> None:
        complaints = loading.plugin_complaints(module)
        if complaints:
            self._break("plugins", name, path, "; ".join(complaints))
            return
        try:
            self._plugins.register(module, name=name)
            self._plugins.check_pending()
            types_brought = self._types_of(module, "link_types", self._link_types)
            told_by = self._types_of(module, "notify_types", self._notify_types)
        except Exception as error:  # noqa: BLE001 - the edge: plugin code may raise anything
            if self._plugins.has_plugin(name):
                self._plugins.unregister(name=name)
            self._break("plugins", name, path, loading.last_line(error, Path(path)))
            return
        self._link_types |= types_brought
        self._notify_types |= told_by
        self.plugins[name] = path
        wrapper = types.ModuleType(name)
        agent_hooks = loading.specified(hookspecs.AgentSpec)
        for hook, function in loading.hooks(module).items():
            if hook in agent_hooks:
                setattr(wrapper, hook, function)
        if loading.hooks(wrapper):
            self._wrappers.append(wrapper)

    def _types_of(self, module: Any, hook: str, known: dict[str, Parameters]) -> dict[str, Parameters]:
        """What a plugin answers to ``link_types`` or ``notify_types``; none may be there already."""
        if hook not in loading.hooks(module):
            return {}
        brought = getattr(module, hook)()
        if not isinstance(brought, dict) or not all(isinstance(p, Parameters) for p in brought.values()):
            raise ConfigError(f"{hook} returned {brought!r}; it must return {{type: Parameters}}")
        for name in brought:
            if name in known:
                what = hook.replace("_types", " type")
                raise ConfigError(f'brings the {what} "{name}" that another plugin brings already')
        return brought

    def _take_agent(self, name: str, path: str, module: Any) -> None:
        complaints = loading.agent_complaints(module)
        if complaints:
            self._break("agents", name, path, "; ".join(complaints))
            return
        try:
            agent = Agent(name, path, module, self._wrappers)
            agent.summary = agent.parameters(name).summary or agent.summary
        except AgentMistake as error:
            self._break("agents", name, path, str(error))
            return
        except ConfigError:
            pass  # it needs more than its bare name (ocf:heartbeat:apache); config says so where it matters
        except Exception as error:  # noqa: BLE001 - the edge: pluggy's own complaints about agent code
            self._break("agents", name, path, loading.last_line(error, Path(path)))
            return
        self.agents[name] = agent

    def _forget(self, kind: str, name: str) -> str:
        """Drop the broken extension of this name, if any; its path."""
        hidden = [b for b in self.broken if (b.kind, b.name) == (kind, name)]
        self.broken = tuple(b for b in self.broken if b not in hidden)
        return hidden[0].path if hidden else ""

    def _break(self, kind: str, name: str, path: str, reason: str) -> None:
        self.broken += (Broken(name=name, path=path, reason=reason, kind=kind),)

    def _warn(self, text: str) -> None:
        self.warnings += (text,)


def _nearest(name: str, known: dict[str, Any]) -> str:
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if near:
        return f"did you mean {' or '.join(near)}?"
    listed = sorted(known)[:NAMES_SHOWN_MAX]
    return f"known are {', '.join(listed)}" if listed else "none is known"
