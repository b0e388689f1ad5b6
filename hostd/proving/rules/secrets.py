"""Secrets: each secret parameter gets a value to look for, and everything public is looked through.

Every command line on the machine is read again and again while the actions
run; what the agent's own code starts is known exactly, from its trace.
"""

import os
import secrets
import signal
from types import TracebackType
from typing import Self

from hostd import processes
from hostd.jobs import Verb
from hostd.proving.breaches import Untried, Violation
from hostd.proving.findings import Rulebook
from hostd.proving.stage import Act, Stage
from hostd.proving.subject import MARKER_LENGTH_MIN, takes_text

RULES = Rulebook(is_live=True)


@RULES.rule(
    "secrets",
    "no secret in process list, output or reason",
    why="Every user of the machine can read every process's arguments; logs and evidence are sent around.",
    needs=("sandbox", "start", "stop"),
)
def in_public(stage: Stage) -> str | None:
    texts = [f for f in stage.subject.parameters.fields if f.secret and takes_text(f)]
    if not texts:
        raise Untried("nothing to try: it has no parameter that is a secret")
    values: dict[str, str] = {}
    for field in texts:
        given = stage.params.get(field.name)
        usable = isinstance(given, str) and len(given) >= MARKER_LENGTH_MIN
        values[field.name] = str(given) if usable else f"hostd-marker-{secrets.token_hex(6)}"
    before = len(stage.history)
    with Watch(list(values.values())) as watch:
        stage.start(params=values)
        for depth in (0, 10, 20):
            stage.monitor(params=values, depth=depth)
        if "validate" in stage.subject.agent.hooks:
            stage.validate(params=values)
        stage.stop(params=values)
    for name, value in values.items():
        for act in stage.history[before:]:
            _insist_silent(name, value, act)
        for line in watch.found:
            if value in line:
                raise Violation(f"{name} in no process's arguments", line.replace(value, f"({name})"))
    return ", ".join(values)


def _insist_silent(name: str, value: str, act: Act) -> None:
    verb = act.ask.verb.value if act.ask.verb is not Verb.MONITOR else f"monitor (depth {act.ask.depth})"
    for command in act.trace.commands:
        if value in command:
            raise Violation(f"{name} in no command's arguments", f"{verb} ran {command.replace(value, f'({name})')}")
    for where, text in (("output", act.outcome.output), ("reason", act.outcome.reason), ("cure", act.outcome.cure)):
        if value in text:
            raise Violation(f"no {name} in its {where}", f"{verb}: {text.replace(value, f'({name})')[:300]}")


class Watch:
    """Reads every process's arguments, as fast as it can, in a child; ``found`` at the end."""

    def __init__(self, wanted: list[str]) -> None:
        self._wanted = [value.encode() for value in wanted]
        self.found: list[str] = []
        self._pid = self._pipe = -1

    def __enter__(self) -> Self:
        self._pipe, writing = os.pipe2(os.O_CLOEXEC)
        parent = os.getpid()
        self._pid = os.fork()
        if self._pid == 0:
            try:
                processes.die_with_parent(parent)
                self._look_for_ever(writing, parent)
            finally:
                os._exit(1)
        os.close(writing)
        return self

    def _look_for_ever(self, writing: int, parent: int) -> None:
        keepers = {parent, os.getpid(), _parent_of(parent)}  # the test itself may have been given it
        seen: set[bytes] = set()
        while True:
            for entry in os.listdir("/proc"):  # noqa: PTH208 - ten times as fast, and it matters here
                if not entry.isdigit() or int(entry) in keepers:
                    continue
                try:
                    with open(f"/proc/{entry}/cmdline", "rb") as file:
                        line = file.read(20_000)
                except OSError:
                    continue
                if line not in seen and any(value in line for value in self._wanted):
                    seen.add(line)
                    os.write(writing, line.replace(b"\0", b" ").replace(b"\n", b" ") + b"\n")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        with open(self._pipe, "rb") as file:
            self.found = file.read().decode(errors="replace").splitlines()


def _parent_of(pid: int) -> int:
    look = processes.look(pid)
    return look.parent if look else 0
