"""What extensions may answer: the menu of hooks.

Each hook says when it is called, by which process, and what it may do.  A
misspelt hook is an error at load, with the nearest name.  Hooks never take
arguments with defaults (pluggy 1.6 and 1.7 differ there).
"""

from pathlib import Path
from typing import Any

import pluggy

from hostd.api import FenceOrder, Health, Link, LinkSettings, Notice, Parameters, Resource

hookspec = pluggy.HookspecMarker("hostd")


class AgentSpec:
    """Hooks of a resource agent: one module in ``agents/``, one pluggy manager each."""

    @hookspec(firstresult=True)
    def parameters(self, reference: str) -> Parameters | None:
        """What an operator may set.  Called once by the host when it loads the
        agent, and by ``hostd check`` and ``hostd-agent show``; must not act and
        must not fail where the service is not installed.  ``reference`` is the
        text after ``agent =`` (for ``ocf:heartbeat:apache`` and the like); an
        implementation may leave the argument out."""

    @hookspec(firstresult=True)
    def start(self, resource: Resource) -> bool | None:
        """Start the service; return when it is usable.  Already running is
        success.  Called in a child of the host, in a process group and session
        of its own, under the time limit.  Raise AgentError to fail.  The value
        returned does not matter."""

    @hookspec(firstresult=True)
    def stop(self, resource: Resource) -> bool | None:
        """Stop the service; return when it is VERIFIED stopped, children and
        all.  Already stopped is success.  Called in a child of the host; what
        is left of the service's process group or cgroup afterwards makes the
        stop a failure.  Raise AgentError to fail."""

    @hookspec(firstresult=True)
    def monitor(self, resource: Resource) -> Health | None:
        """How is it?  Health.RUNNING, DEGRADED, or STOPPED (cleanly); raise
        AgentError for "failed".  None is an error.  Called in a child of the
        host before anything is started (probe), after a stop, and every
        monitor interval while it runs; must work where the service is not
        installed (STOPPED)."""

    @hookspec(firstresult=True)
    def validate(self, resource: Resource) -> bool | None:
        """Optional.  Do the parameters fit this machine?  Called by ``hostd
        check`` and ``hostd-agent run NAME validate``; raise AgentError or
        ConfigError if not."""

    @hookspec(firstresult=True)
    def main_process(self, resource: Resource) -> int | None:
        """Optional.  The process id whose end means that the service crashed.
        Called in the child right after a successful start or monitor; the host
        watches it with a pidfd, so a crash is noticed at once."""

    @hookspec(firstresult=True)
    def sandbox(self, directory: Path) -> dict[str, Any] | None:
        """Optional.  Make a private instance of the service under ``directory``
        (data, free port, right user) and return its parameters; raise
        AgentError, with a cure, where none can be made.  Called by
        ``hostd-agent test`` only, which ends what it leaves running."""


class PluginSpec:
    """Hooks of a plugin: one module in ``plugins/``, all in one pluggy manager."""

    @hookspec
    def link_types(self) -> dict[str, Parameters]:
        """Which ``[[heartbeat.link]] type``s this plugin brings, and the keys of
        each.  Called by the host when it loads, and by ``hostd check``; must not act."""

    @hookspec(firstresult=True)
    def open_link(self, settings: LinkSettings) -> Link | None:
        """Make the link of a type that this plugin brings, else None.  Called by
        the heart when it starts.  A medium that is away (no such tty, interface
        down) is no error: return a Link that is not usable and opens itself in
        ``tick``."""

    @hookspec
    def check_link(self, settings: LinkSettings) -> list[str] | None:
        """Optional.  What is wrong with this link on this machine, each a
        sentence with its cure after a semicolon; what is no mistake as a
        ``Note``.  Called by ``hostd check``; may look, must not open for writing."""

    @hookspec(firstresult=True)
    def fence(self, order: FenceOrder) -> bool | None:
        """Power ``order.node`` off through one fencing device, and return True
        once the device itself has said that it is off: on this word alone the
        node's services are started elsewhere.  With ``order.storage`` it keeps
        its power, and loses its disks: True once these say that it writes to
        none of them any more.  Raise AgentError if it is not
        off or if that cannot be known; None: this agent is not of a kind that
        the plugin works.  Must not reboot the node, and must succeed for one
        that is off already.  Called in a child of the host for one device at a
        time, in a session of its own; at the device's time limit, and when the
        node is heard again, the child and all that it started is killed."""

    @hookspec(firstresult=True)
    def drill(self, order: FenceOrder) -> str | None:
        """Try the device harmlessly: would a shot at ``order.node`` reach it?
        Must never switch anything.  Return the node's power as the device says,
        "on" or "off" (a node that lives and is said to be off is another's
        outlet); raise AgentError, with a cure, if a shot would fail; None: this
        agent is not of a kind that the plugin works.  A plugin that answers
        ``fence`` for an agent answers this, too, else the agent is taken for a
        program of the fence agent API.  Called as ``fence`` is, every hour and
        when the operator asks, never while a shot is under way."""

    @hookspec(firstresult=True)
    def check_device(self, order: FenceOrder) -> list[str] | None:
        """Optional.  What is wrong with a fencing device as conf.d has it, each
        a sentence with its cure after a semicolon; what is no mistake as a
        ``Note``.  None: not of a kind that the plugin works.  Called by ``hostd
        check`` in a child, under a limit; may read, must not talk to the device."""

    @hookspec
    def notify_types(self) -> dict[str, Parameters]:
        """Which ``[[notify]] type``s this plugin brings, and the keys of each
        one's ``params``; a field with ``secret=True`` belongs into ``secrets``
        instead, as the path of a file.  Called by the host when it loads, and
        by ``hostd check``; must not act."""

    @hookspec(firstresult=True)
    def notify(self, notice: Notice) -> bool | None:
        """Tell somebody of one event, and return True once he is told; None:
        not a type that this plugin brings.  Raise AgentError if it cannot be
        delivered: it is not tried again, since each event is told at most
        once.  Called in a child of the host, in a session of its own, for one
        event at a time and in their order; at the time limit the child and all
        that it started is killed."""

    @hookspec(firstresult=True)
    def metrics(self, status: dict[str, Any]) -> str | None:
        """The text of all metrics, made of what ``hostd status --json`` prints.
        Called by ``hostd metrics``, and every 15 s in a thread of the brain if
        conf.d names a ``[metrics] textfile``: may compute, must neither read
        nor write nor wait."""
