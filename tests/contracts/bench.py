"""One agent with one resource, its actions run as the host runs them."""

import contextlib
import selectors
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hostd import cgroups, processes
from hostd.actions import Actions
from hostd.clock import now_ms
from hostd.config import Directories
from hostd.jobs import Job, Outcome, Verb
from hostd.registry import Registry


@contextlib.contextmanager
def folder_for_servers() -> Iterator[Path]:
    """A folder that any user may enter.  Pytest's own lie in one that each new run of pytest closes to all but root."""
    with tempfile.TemporaryDirectory(prefix="hostd-contracts-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o755)
        yield Path(name)


class Bench:
    """``run`` does one action to its end; ``close`` kills what is left."""

    def __init__(self, folder: Path, agent: str, params: dict[str, Any]) -> None:
        self.agent = agent
        self.registry = Registry.load(Directories(), system=folder / "none")
        fields = self.registry.parameters(agent).fields
        self.params = {field.name: field.default for field in fields} | params
        self.groups = cgroups.choose("bench", folder)
        self.run_dirs = folder / "run" / "resources"
        """Where each resource has its private one."""
        self._selector = selectors.DefaultSelector()
        self._actions = Actions(
            self.registry,
            self.groups,
            node="bench",
            runtime=folder / "run",
            state=folder / "state",
            selector=self._selector,
        )

    def run(self, verb: Verb, *, timeout_ms: int = 20_000, depth: int = 0, **params: Any) -> Outcome:
        outcomes: list[Outcome] = []
        job = Job("s", "r", self.agent, verb, self.params | params, timeout_ms, depth)
        self._actions.start(job, outcomes.append)
        while not outcomes:
            wake = self._actions.wake_at_ms()
            for key, _ in self._selector.select(None if wake is None else max(0, wake - now_ms()) / 1000):
                key.data()
            self._actions.tick()
        return outcomes[0]

    def left(self) -> list[processes.Process]:
        return self.groups.in_resource("s", "r")

    def close(self) -> None:
        for process in self.left():
            processes.kill(process)
        until_ms = now_ms() + 5_000
        while (self.left() or self._has_cgroup()) and now_ms() < until_ms:
            time.sleep(0.01)
            self.groups.tidy()

    def _has_cgroup(self) -> bool:
        return isinstance(self.groups, cgroups.Cgroups) and self.groups.base.exists()
