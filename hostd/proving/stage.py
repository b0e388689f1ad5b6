"""The throw-away place in which rules are tried, and the hands that act there.

Decides how an action is run (as the daemon runs it, by ``hostd.actions``),
how several run at once, and how the place is brought back to "stopped, and
nothing left" between two rules.  Knows no rule.

    FOLDER/data-1/     the sandbox; another if a rule damaged it
    FOLDER/a/, b/      runtime directories of two nodes, each with two hands:
                       what one daemon would never do at once, two can
"""

import contextlib
import os
import random
import selectors
import shutil
import signal
import time
from pathlib import Path
from typing import Any, Final

import msgspec

from hostd import cgroups, processes
from hostd.actions import Actions
from hostd.api import ConfigError, Health
from hostd.clock import now_ms
from hostd.jobs import Job, Outcome, Verb
from hostd.processes import Process
from hostd.proving import afflictions, aside, traces, views
from hostd.proving.afflictions import Afflicted, Circumstances, Trace
from hostd.proving.breaches import Untried, Violation
from hostd.proving.keeper import Keeper
from hostd.proving.subject import Subject

SERVICE: Final = "test"
NODES: Final = ("a", "b")
SANDBOX_MAX_S: Final = 120.0
DEATH_MAX_MS: Final = 5_000
ROUNDS_MAX: Final = 5
"""How often what forks while it is killed is killed again; the keeper gets the rest."""
AGAIN_MS: Final = 20
"""What was forked while it was killed is killed again after this time."""
UNKNOWN_MS: Final = 100
"""Of an action that never went well."""


class Ask(msgspec.Struct, frozen=True):
    """One action to be run, and when, in milliseconds from now."""

    verb: Verb
    delay_ms: int = 0
    node: str = "a"
    hand: int = 0
    depth: int = 0
    is_recurring: bool = False
    """The monitor of every few seconds, not a probe."""
    limit_ms: int = 0
    """0: the agent's own."""
    cut_ms: int = 0
    """When a power cut comes: action and service are killed together.  0: never."""
    params: dict[str, Any] = {}
    """Over those of the sandbox."""
    under: Circumstances = Circumstances()


class Act(msgspec.Struct, frozen=True):
    """One action that was run."""

    ask: Ask
    outcome: Outcome
    trace: Trace
    rule: str
    """While which rule was tried."""


class Node:
    """One node: a runtime directory, and two hands that share its resources."""

    def __init__(self, name: str, folder: Path, stage: "Stage") -> None:
        self.name, self.folder = name, folder
        folder.mkdir(mode=0o700)
        self.groups = _groups(name, folder)
        second = folder / "second"
        second.mkdir(mode=0o700)
        (folder / "resources").mkdir(mode=0o700)
        (second / "resources").symlink_to(folder / "resources")
        self.hands = [
            Actions(
                stage.subject.registry,
                self.groups,
                node=name,
                runtime=runtime,
                state=stage.folder / "state",
                selector=stage.selector,
            )
            for runtime in (folder, second)
        ]
        self.may_run = False
        """Something was started here since the last clean stop."""

    @property
    def run_dir(self) -> Path:
        """The resource's private one, as the agent knows it."""
        return next(iter((self.folder / "resources").iterdir()), self.folder / "resources" / "none")


class Stage:
    """One subject in one throw-away folder.  ``open`` before anything live."""

    def __init__(self, subject: Subject, folder: Path, keeper: Keeper, seed: int, *, is_live: bool) -> None:
        self.subject, self.folder, self.keeper, self.is_live = subject, folder, keeper, is_live
        self.seed = seed
        self.dice = random.Random(seed)
        self.selector = selectors.DefaultSelector()
        self.agent = Afflicted(subject.agent)
        self.nodes: dict[str, Node] = {}
        self.params: dict[str, Any] = {}
        self.data: Path | None = None
        """The sandbox; None if the service itself is acted on."""
        self.history: list[Act] = []
        self.rule = ""
        """The one that is being tried."""
        self.done: set[str] = set()
        self.took_ms = dict.fromkeys(Verb, 0)
        """The longest time that each action took when it went well, and nothing was wrong."""
        self._shortest_ms: dict[Verb, int] = {}
        self.mounted: dict[str, str] = {}
        """What was mounted before the first start."""
        self.memory: dict[str, Any] = {}
        """What one rule found out and others use."""
        self._sandboxes = self._traces = 0
        self._is_frozen = False
        for name in ("state", "traces", "elsewhere", "spare"):
            (folder / name).mkdir()

    # -- the place ------------------------------------------------------------------

    def open(self) -> None:
        """Make the sandbox and the nodes.  Raises ConfigError, Untried, and aside.Failed of the hook."""
        if not self.nodes:
            self.subject.registry.agents[self.subject.agent.name] = self.agent
            self.nodes = {name: Node(name, self.folder / name, self) for name in NODES}
        values: dict[str, Any] = {}
        self.data = None
        if not self.is_live:
            self._sandboxes += 1
            data = self.folder / f"data-{self._sandboxes}"
            data.mkdir(mode=0o755)
            values = self.call(lambda: self.subject.agent.sandbox(data), SANDBOX_MAX_S)
            if values is None:
                raise Untried("its sandbox says that it makes none here")
            self.data = data
        self.params = self.subject.filled(values | self.subject.given, "a")
        self.mounted = self.mounted or traces.mounts()

    def call(self, hook: Any, limit_s: float, under: Circumstances | None = None) -> Any:
        """A hook that is no action, in a child.  Raises aside.Failed."""
        trace = self.folder / "traces" / "hook"
        trace.unlink(missing_ok=True)
        return aside.call(
            hook, limit_s=limit_s, output=self.folder / "hook-output", under=under or Circumstances(), trace=trace
        )

    @property
    def elsewhere(self) -> Path:
        """The working directory of all actions."""
        return self.folder / "elsewhere"

    @property
    def hook_trace(self) -> Trace:
        """What the hook that was called last did."""
        return afflictions.read(self.folder / "traces" / "hook")

    def close(self) -> None:
        """Stop what runs, in the agent's own way; what is left then is the keeper's."""
        with contextlib.suppress(Untried, Violation):
            self.reset()
        self.unmount()
        for node in self.nodes.values():
            node.groups.tidy()

    def reset(self, *, thoroughly: bool = False) -> None:
        """Stopped, and nothing left.  ``thoroughly``: nothing remembered either, as before the first start."""
        self.keeper.release()
        self.thaw()
        dirty = [node for node in self.nodes.values() if node.may_run or self.processes(node.name)]
        for node in dirty:
            self._stop_quietly(node)
        if self.is_live or not self.nodes or not (dirty or thoroughly):
            return
        if not thoroughly and self.monitor(quietly=True).health is Health.STOPPED:
            return
        self.unmount()
        for node in self.nodes.values():
            for path in node.run_dir.parent.iterdir():
                shutil.rmtree(path, ignore_errors=True)
        try:
            self.open()
        except (aside.Failed, ConfigError) as error:
            raise Untried(f"the sandbox could not be made again: {error}") from error

    def unmount(self) -> bool:
        """Take away what was mounted in here, whoever uses it, the newest first; False if there was nothing."""
        new = [number.partition(" ")[2] for number in traces.mounts() if number not in self.mounted]
        places = [place for place in reversed(new) if Path(place).is_relative_to(self.folder)]
        for place in places:
            views.unmount(place)
        return bool(places)

    def _stop_quietly(self, node: Node) -> None:
        limit_ms = min(self.subject.limit_ms(Verb.STOP), 5_000 + 3 * self.took_ms[Verb.STOP])
        self._run([Ask(Verb.STOP, node=node.name, limit_ms=limit_ms)], quietly=True)
        self.kill_all(node.name)
        node.may_run = False

    # -- acting ---------------------------------------------------------------------

    def start(self, **more: Any) -> Outcome:
        return self.together(Ask(Verb.START, **more))[0]

    def stop(self, **more: Any) -> Outcome:
        return self.together(Ask(Verb.STOP, **more))[0]

    def validate(self, **more: Any) -> Outcome:
        return self.together(Ask(Verb.VALIDATE, **more))[0]

    def monitor(self, *, quietly: bool = False, **more: Any) -> Outcome:
        return self._run([Ask(Verb.MONITOR, **more)], quietly=quietly)[0]

    def together(self, *asks: Ask) -> list[Outcome]:
        """Run these actions side by side; their outcomes in the same order."""
        return self._run(list(asks), quietly=False)

    def turn_to(self, rule: str) -> None:
        """From now on this rule is tried.  Its dice fall the same, whatever was tried before."""
        self.rule = rule
        self.dice = random.Random(f"{self.seed} {rule}")

    def usually_ms(self, verb: Verb) -> int:
        """How long this action takes when nothing is wrong; tried out if it is not known yet."""
        if verb not in self._shortest_ms:
            for each in (Verb.START, Verb.MONITOR, Verb.STOP):
                self._run([Ask(each)], quietly=False)
        return self._shortest_ms.get(verb, UNKNOWN_MS)

    @property
    def last(self) -> Act:
        return self.history[-1]

    def _run(self, asks: list[Ask], *, quietly: bool) -> list[Outcome]:
        outcomes: dict[int, Outcome] = {}
        waiting = sorted(range(len(asks)), key=lambda index: asks[index].delay_ms)
        began_at_ms = now_ms()
        while len(outcomes) < len(asks):
            while waiting and now_ms() - began_at_ms >= asks[waiting[0]].delay_ms:
                self._begin(waiting.pop(0), asks, outcomes, quietly=quietly)
            hands = [hand for node in self.nodes.values() for hand in node.hands]
            wakes = [wake for hand in hands if (wake := hand.wake_at_ms()) is not None]
            wakes += [began_at_ms + asks[waiting[0]].delay_ms] if waiting else []
            wakes += self._cut(asks, began_at_ms)
            if len(outcomes) == len(asks):
                break
            for key, _ in self.selector.select(None if not wakes else max(0, min(wakes) - now_ms()) / 1000):
                key.data()
            for hand in hands:
                hand.tick()
        return [outcomes[index] for index in range(len(asks))]

    def _cut(self, asks: list[Ask], began_at_ms: int) -> list[int]:
        """Kill where the time has come; when to look again."""
        moments = [(began_at_ms + ask.delay_ms + ask.cut_ms, ask.node) for ask in asks if ask.cut_ms]
        for at_ms, node in moments:
            if now_ms() >= at_ms:
                for process in self.processes(node):
                    processes.kill(process)
        return [at_ms if at_ms > now_ms() else now_ms() + AGAIN_MS for at_ms, _ in moments]

    def _begin(self, index: int, asks: list[Ask], outcomes: dict[int, Outcome], *, quietly: bool) -> None:
        ask = asks[index]
        node = self.nodes[ask.node]
        limit_ms = ask.limit_ms or self.subject.limit_ms(ask.verb)
        job = Job(
            service=SERVICE,
            resource=self.subject.agent.name,
            agent=self.subject.reference,
            verb=ask.verb,
            params=self.params | ask.params,
            timeout_ms=limit_ms,
            depth=ask.depth,
            interval_ms=self.subject.interval_ms if ask.is_recurring else 0,
        )
        self._traces += 1
        trace = self.folder / "traces" / str(self._traces)
        # what it drops where it happens to be run is found there, and does not litter the machine
        under = msgspec.structs.replace(ask.under, directory=self.elsewhere)
        self.agent.circumstances, self.agent.trace = under, trace
        node.may_run = node.may_run or ask.verb is Verb.START

        def ended(outcome: Outcome) -> None:
            outcomes[index] = outcome
            if not quietly:
                self.history.append(Act(ask, outcome, afflictions.read(trace), self.rule))
                self._learn(ask, outcome)
            if ask.verb is Verb.STOP and outcome.ok and not outcome.leftovers and len(asks) == 1:
                node.may_run = False

        node.hands[ask.hand].start(job, ended)
        self.agent.circumstances, self.agent.trace = Circumstances(), None

    def _learn(self, ask: Ask, outcome: Outcome) -> None:
        if outcome.ok and not outcome.leftovers:
            self.done.add(ask.verb.value)
            if not ask.under.hang and not ask.under.namespace and not self._is_frozen:
                self.took_ms[ask.verb] = max(self.took_ms[ask.verb], outcome.took_ms)
                self._shortest_ms[ask.verb] = min(self._shortest_ms.get(ask.verb, outcome.took_ms), outcome.took_ms)

    # -- looking, killing, freezing ----------------------------------------------------

    def processes(self, node: str = "a") -> list[Process]:
        """The living processes of the service."""
        return self.nodes[node].groups.in_resource(SERVICE, self.subject.agent.name)

    def listening(self, node: str = "a") -> frozenset[str]:
        return traces.listening(process.pid for process in self.processes(node))

    def kill(self, victims: list[Process], *, and_collect: bool = True) -> None:
        """SIGKILL, and wait until they are gone; without ``and_collect``, until they are dead.

        Of a process with threads the first may be dead while others still hold
        its sockets: it is collected when all of them have ended.
        """
        for process in victims:
            processes.kill(process)
        until_ms = now_ms() + DEATH_MAX_MS
        while any(_is_there(process, even_dead=and_collect) for process in victims) and now_ms() < until_ms:
            time.sleep(0.005)

    def kill_all(self, node: str = "a") -> bool:
        """SIGKILL for everything that the service has here, also what is forked meanwhile; False if it had nothing."""
        first = self.processes(node)
        victims = first
        for _ in range(ROUNDS_MAX):
            if not victims:
                break
            self.kill(victims)
            victims = self.processes(node)
        return bool(first)

    def freeze(self) -> list[Process]:
        """SIGSTOP for every process of the service, also for those that it forks meanwhile; which they are."""
        self._is_frozen = True
        frozen: list[Process] = []
        for _ in range(ROUNDS_MAX):
            found = self._signal(signal.SIGSTOP)
            until_ms = now_ms() + DEATH_MAX_MS
            while not all(map(_stands_still, found)) and now_ms() < until_ms:
                time.sleep(0.005)
            if len(found) <= len(frozen):
                break
            frozen = found
        return frozen

    def thaw(self) -> None:
        if self._is_frozen:
            self._signal(signal.SIGCONT)
        self._is_frozen = False

    def _signal(self, number: signal.Signals) -> list[Process]:
        found = [process for node in self.nodes for process in self.processes(node)]
        for process in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, number)
        return found

    def pause(self, for_ms: int) -> None:
        """Let the service be for a while."""
        time.sleep(for_ms / 1000)

    def private_view(self) -> Path:
        """The sandbox, if its disks can be changed for a view.  Raises Untried."""
        if self.data is None:
            raise Untried("only the disk of a sandbox can be changed, and it has none")
        if os.geteuid() != 0:
            raise Untried("needs root")
        return self.data


def _is_there(process: Process, *, even_dead: bool) -> bool:
    look = processes.look(process.pid)
    return look is not None and look.started == process.started and (even_dead or look.is_alive)


def _stands_still(process: Process) -> bool:
    look = processes.look(process.pid)
    return look is None or look.state in ("T", "t", "Z", "X")


def clear(folder: Path) -> None:
    """Remove a stage's folder and its cgroups, when nothing of it lives any more; also one that was killed."""
    for name in NODES:
        if (folder / name).is_dir():
            _groups(name, folder / name).tidy()
    shutil.rmtree(folder, ignore_errors=True)


def _groups(node: str, folder: Path) -> cgroups.Groups:
    return cgroups.choose(f"{node}-test", folder)
