"""One agent with one resource, its actions run as the host runs them."""

import selectors
import time
from pathlib import Path
from typing import Any

from hostd import cgroups, processes
from hostd.actions import Actions
from hostd.clock import now_ms
from hostd.config import Directories
from hostd.jobs import Job, Outcome, Verb
from hostd.registry import Registry


class Bench:
    """``run`` does one action to its end; ``close`` kills what is left."""

    def __init__(self, folder: Path, agent: str, params: dict[str, Any]) -> None:
        self.agent = agent
        self.registry = Registry.load(Directories(), system=folder / "none")
        fields = self.registry.parameters(agent).fields
        self.params = {field.name: field.default for field in fields} | params
        self.groups = cgroups.choose("bench", folder)
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
