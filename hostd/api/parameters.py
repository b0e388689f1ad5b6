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
    write at once.  ``any_others``: parameters beyond
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
        any_others: bool = False,
        cable: bool = False,
    ) -> None:
        self.fields = fields
        self.summary = summary
        self.timeouts = {"start": "20s", "stop": "20s", "monitor": "20s", **(timeouts or {})}
        self.monitor_interval = monitor_interval
        self.monitor_depth = monitor_depth
        self.exclusive_storage = exclusive_storage
        self.any_others = any_others
        self.cable = cable
