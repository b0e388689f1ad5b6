"""What the hooks ``fence``, ``drill`` and ``check_device`` are handed.  Decides nothing."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hostd.api.command import Completed, run_command


class FenceOrder:
    """One ``[[fencing.device]]``, told to power one node off, or to take its disks away.

    ``agent``, ``params`` and ``secrets`` as conf.d has them for the node that
    is to be fenced; ``secrets`` are the files that hold the values.
    ``deadline``: on ``time.monotonic()``; everything that is still there then
    is killed from outside.  ``is_last``: no device of a further level would be
    tried if this one failed.  ``storage``: conf.d says ``mode = "storage"``, so
    the node is to lose its disks and keep its power; ``by``: the node that asks,
    which is this one.  Lives in the child that works one device.
    """

    def __init__(
        self,
        *,
        agent: str,
        node: str,
        params: Mapping[str, Any],
        secrets: Mapping[str, Path],
        deadline: float,
        is_last: bool = True,
        storage: bool = False,
        by: str = "",
    ) -> None:
        self.storage, self.by = storage, by
        self.is_last = is_last
        self.agent, self.node, self.params, self.secrets, self.deadline = agent, node, params, secrets, deadline

    @property
    def remaining(self) -> float:
        """Seconds left until the deadline; never below 0."""
        return max(0.0, self.deadline - time.monotonic())

    def run(self, argv: Sequence[str], *, input: str) -> Completed:  # noqa: A002 - the word the contract uses
        """As ``Resource.run``: to its end, never longer than the deadline, else AgentError."""
        return run_command(argv, self.remaining, input, None)
