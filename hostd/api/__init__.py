"""All that an extension may import.

An agent is one module in ``agents/`` that implements the hooks of
``hostd.hookspecs.AgentSpec`` with ``@hookimpl``; a heartbeat medium or a
fencing device is one module in ``plugins/``.  Neither imports anything else
of hostd, so that an agent that works today works with the next release.

The nouns and errors stand here.  Beside it, imported by who needs them, are
tools that know no service: ``servers`` (the processes of a server, found and
ended), ``probes`` (asks what may hang), ``connections``, ``listening`` and
``claims`` (who is at the other end, where does it listen, who has it locked),
``http_get`` (one request), ``occupancy`` (one server per directory), ``access`` (may this user?),
``startlog`` (what it says while it starts).

What knows one service has a room of its own: ``cyrus``, ``ldap``, ``mysql``,
``storage`` (disks and filesystems), ``foreign`` (OCF agents and init scripts).
Authors may use a room; it changes with the agents that it was made for.
"""

from typing import Final

import pluggy

from hostd.api.command import Completed
from hostd.api.errors import AgentError, ConfigError, HostdError, NotInstalled
from hostd.api.fencing import FenceOrder
from hostd.api.links import Link, LinkSettings, Note
from hostd.api.notices import Notice
from hostd.api.parameters import REQUIRED, Field, Parameters
from hostd.api.resource import Resource
from hostd.core.stream import StreamDecoder, frame_for_stream
from hostd.core.terms import Carrier, Health

__all__ = [
    "REQUIRED", "AgentError", "Carrier", "Completed", "ConfigError", "FenceOrder", "Field", "Health", "HostdError",
    "Link", "LinkSettings", "NotInstalled", "Note", "Notice", "Parameters", "Resource", "StreamDecoder",
    "frame_for_stream", "hookimpl",
]  # fmt: skip

hookimpl: Final = pluggy.HookimplMarker("hostd")
"""Marks a function of an extension as the answer to the hook of its name."""
