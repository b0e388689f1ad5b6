"""One ladder on a bench: orders go in, acts come out, outcomes are told by the test.

Decides nothing.  ``Climb`` keeps what is open by its readable name
(``start mysql``, ``add 172.23.2.13/24``), so that a test answers by name.
"""

from typing import Any

from hostd.core.effects import AnnounceAddress, AnyEffect, RunAction
from hostd.core.events import ActionFinished, AddressFinished, AddressOutcome
from hostd.core.plan import Service
from hostd.core.services import Ladder
from hostd.core.terms import Action, Health, Ids, ResourceState, ServiceState, Why
from hostd.core.wants import Order, Want
from tests.core.builders import T0_MS, actions, address, agent, service

DISK_ADDRESS_MYSQL = service(resources=(agent("disk"), address(), agent("mysql")))
STOPPED, RUNNING = Health.STOPPED, Health.RUNNING


class Climb:
    """A ladder, its clock and numbers, and what it waits for."""

    def __init__(self, which: Service = DISK_ADDRESS_MYSQL, *, present: tuple[str, ...] = (), unfinished: bool = False):
        self.ladder = Ladder(which, T0_MS, present, unfinished=unfinished)
        self.ids, self.now_ms = Ids(), T0_MS
        self.open: dict[str, AnyEffect] = {}
        self.monitors: list[RunAction] = []
        self.announced: list[AnnounceAddress] = []
        self.want = Want(Order.HOLD, Why.STARTED)

    def order(self, order: Order, after_ms: int = 0, **circumstances: Any) -> list[str]:
        """A new order; what is done at once."""
        self.want = Want(order, Why.ORDERED, **circumstances)
        return self.settle(after_ms)

    def settle(self, after_ms: int = 0) -> list[str]:
        self.now_ms += after_ms
        effects = self.ladder.settle(self.now_ms, self.want, self.ids)
        for effect in effects:
            if isinstance(effect, AnnounceAddress):
                self.announced.append(effect)
            elif isinstance(effect, RunAction) and effect.recurring:
                self.monitors.append(effect)
            else:
                self.open[actions([effect])[0]] = effect
        return actions(effects)

    def done(self, name: str, **fields: Any) -> list[str]:
        """The outcome of what is open under this name: well, unless told otherwise; then what follows."""
        self.finish(self.open.pop(name), **fields)
        return self.settle()

    def finish(self, effect: AnyEffect, **fields: Any) -> bool:
        if isinstance(effect, RunAction):
            return self.ladder.action_finished(self.now_ms, ActionFinished(effect.action_id, **{"ok": True, **fields}))
        outcome = fields.get("outcome", AddressOutcome.DONE)
        return self.ladder.address_finished(self.now_ms, AddressFinished(effect.request_id, outcome))

    def probe(self, **found: Health) -> list[str]:
        """The first monitors' answers: stopped, unless told otherwise."""
        lines = self.settle()
        for name in list(self.open):
            lines = self.done(name, health=found.get(name.removeprefix("monitor "), STOPPED))
        return lines

    def monitored(self, **fields: Any) -> list[str]:
        """The outcome of the newest recurring monitor; then what follows."""
        self.finish(self.monitors[-1], **fields)
        return self.settle()

    def drive(self, limit: int = 20) -> list[str]:
        """Everything that is asked succeeds, until nothing more is."""
        lines: list[str] = []
        for _ in range(limit):
            if not self.open:
                return lines
            name = next(iter(self.open))
            effect = self.open[name]
            monitor = isinstance(effect, RunAction) and effect.action is Action.MONITOR
            lines += self.done(name, **({"health": STOPPED} if monitor else {}))
        raise AssertionError(("no end", lines))

    @property
    def state(self) -> ServiceState:
        return self.ladder.state

    @property
    def rungs(self) -> list[ResourceState]:
        return [rung.state for rung in self.ladder.rungs]


def stopped(which: Service = DISK_ADDRESS_MYSQL) -> Climb:
    """Probed and found stopped."""
    climb = Climb(which)
    climb.probe()
    assert climb.state is ServiceState.STOPPED
    return climb


def running(which: Service = DISK_ADDRESS_MYSQL) -> Climb:
    """Started here, all rungs."""
    climb = stopped(which)
    climb.order(Order.RUN)
    climb.drive()
    assert climb.state is ServiceState.RUNNING
    return climb
