"""What the hook ``notify`` is handed.  Decides nothing."""

import os
import stat
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from hostd.api.command import Completed, run_command
from hostd.api.errors import AgentError

SECRET_MAX: Final = 4_096
"""Bytes of a file that holds a secret."""


class Notice:
    """One event for one ``[[notify]]``.

    ``type``, ``params`` and ``secrets`` (files) as conf.d has them.  ``kind``:
    which of the words of ``for`` it is; ``event`` and ``fields``: the fact by
    its names, as ``hostd log --json`` prints it; ``text``: the same in words.
    ``cluster``, ``node``: whose event.  ``serial`` rises with every event of
    the node, whether or not it is told here.  ``at``: wall clock, seconds since
    1970.  ``dropped``: so many before this one were dropped, since too many
    waited.  ``deadline``: on ``time.monotonic()``.
    """

    def __init__(
        self,
        *,
        type: str,  # noqa: A002 - the word of conf.d
        params: Mapping[str, Any],
        secrets: Mapping[str, Path],
        kind: str,
        event: str,
        fields: Mapping[str, Any],
        text: str,
        cluster: str,
        node: str,
        serial: int,
        at: float,
        dropped: int,
        deadline: float,
    ) -> None:
        self.type, self.params, self.secrets = type, params, secrets
        self.kind, self.event, self.fields, self.text = kind, event, fields, text
        self.cluster, self.node, self.serial, self.at = cluster, node, serial, at
        self.dropped, self.deadline = dropped, deadline

    @property
    def remaining(self) -> float:
        """Seconds left until the deadline; never below 0."""
        return max(0.0, self.deadline - time.monotonic())

    def secret(self, name: str) -> str | None:
        """The only line of the file that conf.d names for it; None if it names none.

        Raises AgentError, also for a file that others may read.
        """
        path = self.secrets.get(name)
        if path is None:
            return None
        try:
            with path.open("rb") as file:
                mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)  # of the very file that is read
                text = file.read(SECRET_MAX + 1).decode().removesuffix("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise AgentError(f"the file of {name} cannot be read: {path}: {error}", cure=f"see {path}") from error
        if mode & 0o077:
            raise AgentError(f"{path} may be read by others (mode {mode:04o})", cure=f"chmod 600 {path}")
        if not text or len(text) > SECRET_MAX or "\n" in text:
            raise AgentError(f"{path} does not hold one line", cure="make it, with the secret as its only line")
        return text

    def run(
        self,
        argv: Sequence[str],
        *,
        input: str | None = None,  # noqa: A002 - the word the contract uses
        env: Mapping[str, str] | None = None,
    ) -> Completed:
        """As ``Resource.run``: to its end, never longer than the deadline, else AgentError.  ``env`` is added."""
        return run_command(argv, self.remaining, input, env)
