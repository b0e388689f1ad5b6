"""What an extension lets the operator set.  Decides nothing."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final


class _Required:
    def __repr__(self) -> str:
        return "REQUIRED"


REQUIRED: Final = _Required()


class Field:
    """One parameter: its name, type (str, int, float, bool or list), default
    and one sentence of help.  ``secret``: never shown, never in an argument list.
    ``choices``: the only values allowed, if not empty.
    """

    def __init__(
        self,
        name: str,
        type: Callable[..., Any] = str,  # noqa: A002 - the word the contract uses
        *,
        default: Any = REQUIRED,
        help: str = "",  # noqa: A002 - the word the contract uses
        secret: bool = False,
        choices: Sequence[Any] = (),
    ) -> None:
        self.name, self.type, self.default, self.help = name, type, default, help
        self.secret, self.choices = secret, tuple(choices)

    @property
    def is_required(self) -> bool:
        return self.default is REQUIRED


class Parameters:
    """What an extension lets the operator set.

    ``timeouts``: default time limits per action, as durations with a unit;
    ``monitor_interval`` likewise, and ``monitor_depth`` of the recurring monitor
    (0, 10 or 20).  ``exclusive_storage``: writes data that two nodes must never
    write at once.  ``guards_storage``: while a resource of this agent is started
    on one node, the storage itself refuses the writes of every other node, so
    that the data of the service it is part of, and of those that require that
    service, is safe from a node that is believed to be gone.
    ``guards_storage_with``: it does so only with these values of its parameters
    (see :meth:`guards`).  ``mounts``: the name of the parameter that holds the directory
    at which a resource mounts something, so that what lies below it is there only
    while that is started; empty: it mounts nothing.  ``trial``: of an agent without a sandbox, what an
    operator may give to ``hostd-agent test --live``, in a few words ("an idle
    disk"); "" if any instance that nobody uses will do.  ``any_others``: parameters beyond
    the fields are allowed (an agent that passes them on).  ``cable``: a link
    type that always joins the two nodes directly, so that its carrier, where
    the medium has one (a serial line's DSR), tells of the peer's power.
    """

    def __init__(
        self,
        *fields: Field,
        summary: str = "",
        timeouts: Mapping[str, str] | None = None,
        monitor_interval: str = "10s",
        monitor_depth: int = 0,
        exclusive_storage: bool = False,
        guards_storage: bool = False,
        guards_storage_with: Mapping[str, Any] | None = None,
        mounts: str = "",
        trial: str = "",
        any_others: bool = False,
        cable: bool = False,
    ) -> None:
        self.fields = fields
        self.summary = summary
        self.timeouts = {"start": "20s", "stop": "20s", "monitor": "20s", **(timeouts or {})}
        self.monitor_interval = monitor_interval
        self.monitor_depth = monitor_depth
        self.exclusive_storage = exclusive_storage
        self.guards_storage = guards_storage
        self.guards_storage_with = dict(guards_storage_with or {})
        self.mounts = mounts
        self.trial = trial
        self.any_others = any_others
        self.cable = cable

    def guards(self, values: Mapping[str, Any]) -> bool:
        """Does a resource with these parameters (defaults filled in) guard storage, as ``guards_storage`` means it?"""
        wanted = self.guards_storage_with.items()
        return self.guards_storage and all(name in values and values[name] == value for name, value in wanted)
