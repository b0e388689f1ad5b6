"""How does it get there?  Decides the next rung of one service's ladder here.

From: the order for this node, the outcomes of what was asked, and what was
noticed of the service.  Refuses to know why the order was given, other nodes
and other services: the node says whether requirements are met (``ready``)
and whether nothing depends on it any more (``free``).

Rungs are started in order and stopped in reverse.  A failed start gives the
service up here (the coordinator moves it), a failure while it runs is mended
here until ``restarts_max`` are used up, a failed stop blocks it.  "Stopped"
is claimed only when the stop succeeded, nothing was left of its processes
*and* the monitor said so; an address that vanished is put back without
touching the rungs above it.
"""

from typing import Final

from hostd.core.effects import AddAddress, AnnounceAddress, AnyEffect, RemoveAddress, RunAction
from hostd.core.events import ActionFinished, AddressCause, AddressFinished, AddressOutcome, AddressVerified
from hostd.core.plan import Service
from hostd.core.rungs import Asked, Rung, found
from hostd.core.terms import (
    NO_EPOCH,
    Action,
    Epoch,
    Health,
    Ids,
    ResourceState,
    ServiceState,
    Why,
)
from hostd.core.wants import Order, Want

CONFLICT_RETRY_MS: Final = 1_000
"""Somebody answers for the address: its lease may be running out."""
ADDRESS_BAN_MS: Final = 15_000
"""A node whose interface is down is tried again: both nodes may have lost the LAN."""


class Ladder:
    """One service on this node."""

    __slots__ = (
        "ban_ends_at_ms", "banned", "brief", "conflict", "detail", "failures", "gave_up", "lan_is_dead", "obeyed",
        "outdated", "retry_at_ms", "rungs", "service", "since_at_ms", "state", "unfinished", "was_running", "why",
    )  # fmt: skip

    def __init__(self, service: Service, now_ms: int, present: tuple[str, ...], *, unfinished: bool) -> None:
        self.service = service
        self.unfinished = unfinished
        self.rungs = [Rung(resource, found(resource, present)) for resource in service.resources]
        self.obeyed: Epoch = NO_EPOCH
        self.outdated = False  # something of it was started under an older definition
        self.banned = False
        self.ban_ends_at_ms: int | None = None
        self.failures: list[int] = []
        self.gave_up = False
        self.brief = False  # given up only for a while: the node's interface is down
        self.conflict = False
        self.lan_is_dead = False  # an address of it has no usable interface here
        self.retry_at_ms: int | None = None
        self.was_running = False
        self.state = ServiceState.UNKNOWN
        self.since_at_ms = now_ms
        self.why = Why.STARTED
        self.detail = ""
        if unfinished:
            for rung in self.rungs:
                rung.state = ResourceState.FAILED

    # -- what was noticed -------------------------------------------------------

    def action_finished(self, now_ms: int, outcome: ActionFinished) -> bool:
        """Take an outcome; False if nobody waits for it any more."""
        for rung in self.rungs:
            if rung.monitor_id == outcome.action_id:
                rung.monitor_id = None
                self._monitored(now_ms, rung, outcome)
                return True
            if rung.request_id == outcome.action_id and rung.asked is not None:
                self._acted(now_ms, rung, rung.asked, outcome)
                return True
        return False

    def address_finished(self, now_ms: int, outcome: AddressFinished) -> bool:
        for rung in self.rungs:
            if rung.request_id != outcome.request_id:
                continue
            if rung.asked is Asked.STOP:
                done = outcome.outcome is AddressOutcome.DONE
                rung.turn(ResourceState.STOPPED if done else ResourceState.BLOCKED)
                if not done:
                    self.why, self.detail = Why.STOP_FAILED, outcome.detail
            elif outcome.outcome is AddressOutcome.DONE:
                rung.turn(ResourceState.RUNNING)
                self.conflict = False
            elif outcome.outcome is AddressOutcome.CONFLICT:
                rung.turn(ResourceState.STOPPED)
                self.conflict = True
                self.retry_at_ms = now_ms + CONFLICT_RETRY_MS
                self.why, self.detail = Why.ADDRESS_CONFLICT, outcome.detail
            else:
                rung.turn(ResourceState.FAILED)
                self._give_up(Why.START_FAILED, outcome.detail, brief=True)
            return True
        return False

    def address_verified(self, outcome: AddressVerified) -> bool:
        for rung in self.rungs:
            if rung.announce_id == outcome.request_id:
                rung.announce_id = None
                rung.verified = outcome.verified
                return True
        return False

    def address_lost(self, now_ms: int, address: str, cause: AddressCause) -> None:
        for rung in self.rungs:
            if rung.resource.address != address or rung.state is not ResourceState.RUNNING:
                continue
            if cause is AddressCause.INTERFACE_DOWN:
                rung.turn(ResourceState.FAILED)
                self._give_up(Why.ADDRESS_LOST, address, brief=True)
            else:
                self._failed(now_ms, rung, Why.ADDRESS_LOST, address)
                rung.state = ResourceState.STOPPED

    def lan_turned(self, now_ms: int, dead: tuple[str, ...]) -> None:
        """Given up for a dead interface, the node is tried again when that has been back for a while."""
        was_dead, self.lan_is_dead = self.lan_is_dead, any(a in dead for a in self.service.addresses)
        if was_dead and not self.lan_is_dead and self.ban_ends_at_ms is not None:
            self.ban_ends_at_ms = now_ms + ADDRESS_BAN_MS

    def process_exited(self, now_ms: int, resource: str) -> None:
        for rung in self.rungs:
            if rung.resource.id == resource and rung.state is ResourceState.RUNNING:
                self._failed(now_ms, rung, Why.PROCESS_EXITED, resource)

    def clean_up(self) -> None:
        """Forget failures; what failed or could not be stopped is stopped again and
        verified (a monitor alone does not see what a broken stop left behind)."""
        self.failures.clear()
        self.banned = self.gave_up = self.brief = self.conflict = False
        self.retry_at_ms = self.ban_ends_at_ms = None
        for rung in self.rungs:
            if rung.request_id is None and rung.state in (ResourceState.FAILED, ResourceState.BLOCKED):
                rung.turn(ResourceState.FAILED)
                self.unfinished = True

    def drop_addresses(self, ids: Ids) -> list[AnyEffect]:
        """Addresses off at once, whatever else is under way."""
        effects: list[AnyEffect] = []
        for rung in self.rungs:
            off = rung.state is ResourceState.STOPPED or rung.asked is Asked.STOP
            if rung.resource.address and not off:
                effects.append(self._remove(rung, ids))
        return effects

    # -- what to do ---------------------------------------------------------------

    def settle(self, now_ms: int, want: Want, ids: Ids) -> list[AnyEffect]:
        """The next rung in the wanted direction, and what is due meanwhile."""
        effects: list[AnyEffect] = []
        if self.ban_ends_at_ms is not None and now_ms >= self.ban_ends_at_ms:
            if self.lan_is_dead:
                self.ban_ends_at_ms = now_ms + ADDRESS_BAN_MS  # not back yet: no stop elsewhere for a start that fails
            else:
                self.banned, self.ban_ends_at_ms = False, None
        if want.order is Order.YIELD:
            effects += self.drop_addresses(ids)
        if all(rung.request_id is None for rung in self.rungs):
            effects += self._move(now_ms, want, ids)
        effects += self._monitor(now_ms, want, ids)
        if want.order is Order.RUN:
            effects += self._announce(ids)
        self._name_state(now_ms, want)
        return effects

    def deadline_at_ms(self) -> int | None:
        times = [r.monitor_at_ms for r in self.rungs if r.monitor_at_ms is not None and r.monitor_id is None]
        times += [at for at in (self.retry_at_ms, self.ban_ends_at_ms) if at is not None]
        return min(times, default=None)

    @property
    def serves(self) -> bool:
        """What depends on it may go on: all but an address is running."""
        return all(r.state is ResourceState.RUNNING for r in self.rungs if not r.resource.address)

    @property
    def addresses_up(self) -> list[str]:
        return [r.resource.address for r in self.rungs if r.resource.address and r.state is ResourceState.RUNNING]

    # -- inside: directions ---------------------------------------------------------

    def _move(self, now_ms: int, want: Want, ids: Ids) -> list[AnyEffect]:
        for rung in self.rungs:
            if rung.asked is Asked.VERIFY:
                return [self._run(rung, Asked.VERIFY, Action.MONITOR, ids)]
        unknown = [rung for rung in self.rungs if rung.state is ResourceState.UNKNOWN]
        if unknown:
            return [self._probe(rung, ids) for rung in unknown]
        if any(rung.state is ResourceState.BLOCKED for rung in self.rungs):
            return []
        floor = self._floor(want)
        above = [rung for rung in self.rungs[floor:] if rung.state is not ResourceState.STOPPED]
        if above:
            return [self._stop(above[-1], ids)] if want.free else []
        if floor == 0:
            self._at_the_bottom(now_ms)
        if want.order is not Order.RUN or self.banned or not want.ready:
            return []
        if self.retry_at_ms is not None and now_ms < self.retry_at_ms:
            return []
        self.retry_at_ms = None
        for rung in self.rungs:
            if rung.state is ResourceState.STOPPED:
                return [self._start(rung, want, ids)]
        return []

    def _floor(self, want: Want) -> int:
        """Every rung from here up has to be stopped; past the end: none."""
        end = len(self.rungs)
        if self.unfinished:
            return 0
        if want.order is Order.FREEZE:
            return end
        if self.gave_up or want.order in (Order.STOP, Order.YIELD):
            return 0
        if self.outdated and want.renew:
            self.why, self.detail = Why.DEFINITION_CHANGED, ""
            return 0
        complete = all(rung.state is ResourceState.RUNNING for rung in self.rungs)
        if want.order is Order.UNDO and not complete and not self.was_running:
            return 0
        if want.order in (Order.HOLD, Order.UNDO):
            return end  # a recovery waits
        agents = [(i, r.state) for i, r in enumerate(self.rungs) if not r.resource.address]
        top = max((i for i, state in agents if state is ResourceState.RUNNING), default=0)
        hole = [i for i, state in agents if state is ResourceState.STOPPED and i < top]
        failed = [i for i, rung in enumerate(self.rungs) if rung.state is ResourceState.FAILED]
        return min(failed + hole, default=end)

    def _at_the_bottom(self, now_ms: int) -> None:
        if self.gave_up:
            self.banned = True
            self.ban_ends_at_ms = now_ms + ADDRESS_BAN_MS if self.brief else None
        self.unfinished = self.gave_up = self.brief = self.outdated = False

    # -- inside: acts -----------------------------------------------------------------

    def _probe(self, rung: Rung, ids: Ids) -> AnyEffect:
        if rung.resource.address:
            # An address of unknown state (after a failed removal): taking it off is the probe.
            return self._remove(rung, ids)
        return self._run(rung, Asked.PROBE, Action.MONITOR, ids)

    def _start(self, rung: Rung, want: Want, ids: Ids) -> AnyEffect:
        rung.state = ResourceState.STARTING
        if not rung.resource.address:
            return self._run(rung, Asked.START, Action.START, ids)
        rung.ask(Asked.START, ids.next())
        return AddAddress(ids.last, self.service.name, rung.resource.address, want.guard)

    def _stop(self, rung: Rung, ids: Ids) -> AnyEffect:
        if rung.resource.address:
            return self._remove(rung, ids)
        rung.state = ResourceState.STOPPING
        return self._run(rung, Asked.STOP, Action.STOP, ids)

    def _remove(self, rung: Rung, ids: Ids) -> AnyEffect:
        rung.state = ResourceState.STOPPING
        rung.ask(Asked.STOP, ids.next())
        return RemoveAddress(ids.last, self.service.name, rung.resource.address)

    def _run(self, rung: Rung, asked: Asked, action: Action, ids: Ids) -> RunAction:
        rung.ask(asked, ids.next())
        resource = rung.resource
        limits = {
            Action.START: resource.start_timeout_ms,
            Action.STOP: resource.stop_timeout_ms,
            Action.MONITOR: resource.monitor_timeout_ms,
        }
        return RunAction(ids.last, self.service.name, resource.id, action, limits[action])

    def _monitor(self, now_ms: int, want: Want, ids: Ids) -> list[AnyEffect]:
        effects: list[AnyEffect] = []
        for rung in self.rungs:
            resource = rung.resource
            if resource.address or not resource.monitor_interval_ms or want.order in (Order.STOP, Order.YIELD):
                continue
            watched = rung.state is ResourceState.RUNNING or (
                # hands off: the operator may be mending it
                want.order is Order.FREEZE and rung.state is ResourceState.FAILED
            )
            if not watched or rung.request_id is not None:
                rung.monitor_at_ms = None
                continue
            if rung.monitor_at_ms is None:
                rung.monitor_at_ms = now_ms + resource.monitor_interval_ms
            if rung.monitor_id is None and now_ms >= rung.monitor_at_ms:
                rung.monitor_at_ms = now_ms + resource.monitor_interval_ms
                rung.monitor_id = ids.next()
                effects.append(
                    RunAction(
                        ids.last, self.service.name, resource.id, Action.MONITOR, resource.monitor_timeout_ms,
                        depth=resource.monitor_depth, recurring=True,
                    )
                )  # fmt: skip
        return effects

    def _announce(self, ids: Ids) -> list[AnyEffect]:
        effects: list[AnyEffect] = []
        for rung in self.rungs:
            if rung.resource.address and rung.state is ResourceState.RUNNING and not rung.announced:
                rung.announced = True
                rung.announce_id = ids.next()
                effects.append(AnnounceAddress(ids.last, rung.resource.address))
        return effects

    # -- inside: outcomes ----------------------------------------------------------------

    def _acted(self, now_ms: int, rung: Rung, asked: Asked, outcome: ActionFinished) -> None:
        match asked:
            case Asked.PROBE:
                if not outcome.ok:
                    rung.turn(ResourceState.FAILED)
                    self.why, self.detail = Why.MONITOR_FAILED, outcome.reason
                else:
                    stopped = outcome.health is Health.STOPPED
                    rung.turn(ResourceState.STOPPED if stopped else ResourceState.RUNNING)
            case Asked.START:
                if outcome.ok:
                    rung.turn(ResourceState.RUNNING)
                else:
                    rung.turn(ResourceState.FAILED)
                    self._give_up(Why.START_FAILED, outcome.reason)
            case Asked.STOP:
                if outcome.ok and not outcome.leftovers:
                    rung.turn(ResourceState.STOPPING)
                    rung.asked = Asked.VERIFY  # the next move asks its monitor
                else:
                    left = f"{outcome.leftovers} processes are left after the stop" if outcome.ok else ""
                    self._block(rung, left or outcome.reason)
            case Asked.VERIFY:
                if outcome.ok and outcome.health is Health.STOPPED:
                    rung.turn(ResourceState.STOPPED)
                else:
                    self._block(rung, outcome.reason or "its monitor still finds it running after the stop")

    def _monitored(self, now_ms: int, rung: Rung, outcome: ActionFinished) -> None:
        running = outcome.ok and outcome.health is not Health.STOPPED
        if rung.state is ResourceState.FAILED and running:
            rung.turn(ResourceState.RUNNING)
        if rung.state is not ResourceState.RUNNING:
            return
        if running:
            rung.degraded = outcome.health is Health.DEGRADED
        else:
            self._failed(now_ms, rung, Why.MONITOR_FAILED, outcome.reason or "not running")

    def _failed(self, now_ms: int, rung: Rung, why: Why, detail: str) -> None:
        rung.turn(ResourceState.FAILED)
        self.why, self.detail = why, detail
        self.failures = [at for at in self.failures if now_ms - at < self.service.restarts_within_ms]
        self.failures.append(now_ms)
        if len(self.failures) > self.service.restarts_max:
            self._give_up(why, detail)

    def _give_up(self, why: Why, detail: str, *, brief: bool = False) -> None:
        self.gave_up, self.brief = True, brief
        self.why, self.detail = why, detail

    def _block(self, rung: Rung, detail: str) -> None:
        rung.turn(ResourceState.BLOCKED)
        self.why, self.detail = Why.STOP_FAILED, detail

    def _name_state(self, now_ms: int, want: Want) -> None:
        states = [rung.state for rung in self.rungs]
        if ResourceState.BLOCKED in states:
            state = ServiceState.BLOCKED
        elif self.unfinished or ResourceState.UNKNOWN in states:
            state = ServiceState.UNKNOWN
        elif all(s is ResourceState.STOPPED for s in states):
            state = ServiceState.FAILED if self.banned else ServiceState.STOPPED
        elif all(s is ResourceState.RUNNING for s in states):
            state = ServiceState.RUNNING
        elif want.order in (Order.STOP, Order.YIELD) or self.gave_up:
            state = ServiceState.STOPPING
        elif self.was_running:
            state = ServiceState.RECOVERING
        else:
            state = ServiceState.STARTING
        if state is ServiceState.RUNNING:
            self.was_running = True
        elif state.is_stopped:
            self.was_running = False
        if state is not self.state:
            self.state, self.since_at_ms = state, now_ms
