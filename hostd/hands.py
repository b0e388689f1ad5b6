"""All that the host does for a brain: actions, shots, drills, notices, the watchdog.

Decides which part obeys which word, what of it ends with the brain that asked
for it and what the next one is told, and what a new conf.d means to each
part.  Refuses to know how heart and brain are forked, and how any single part
works.  Nothing in it waits: the host's loop calls :meth:`Hands.tick`.
"""

import logging
import selectors
from collections.abc import Callable
from pathlib import Path
from typing import Final

from hostd import messages, processes
from hostd.actions import Actions
from hostd.cgroups import Groups
from hostd.clock import now_ms
from hostd.config import Configuration
from hostd.drills import Drills
from hostd.errands import Errands
from hostd.messages import AnyMessage
from hostd.notifying import Notifying
from hostd.origins import Origins
from hostd.registry import Registry
from hostd.removed import Removed
from hostd.shots import Shots
from hostd.watchdog import Watchdog
from hostd.watches import Watches

log = logging.getLogger("hostd.host")

HOUSEKEEPING_MS: Final = 10_000


class Hands:
    """Of one host.  ``tell`` takes what the brain of that moment is to hear; None is nothing."""

    def __init__(
        self,
        configuration: Configuration,
        registry: Registry,
        groups: Groups,
        selector: selectors.BaseSelector,
        *,
        runtime: Path,
        state: Path,
        tell: Callable[[AnyMessage | None], None],
    ) -> None:
        self._configuration, self._tell = configuration, tell
        devices = configuration.fencing_devices
        self._actions = Actions(
            registry, groups, node=configuration.node, runtime=runtime, state=state, selector=selector
        )
        self._shots = Shots(registry, groups, devices, selector, tell)
        self._drills = Drills(registry, groups, devices, selector, tell)
        self._notifying = Notifying(registry, groups, configuration, selector, tell)
        self._watchdog = Watchdog(tell)
        self._origins = Origins(runtime / "origins", processes.boot_id())
        self._origins.adopt(configuration, registry.parameters)
        self._watches = Watches(selector, lambda *exited: self._errands.exited(*exited))
        self._errands = Errands(configuration, self._origins, self._actions, self._watches, tell)
        self._removed = Removed(self._origins, self._errands, state, self._tell_unstopped)
        self._housekeeping_at_ms = 0

    def recover(self) -> None:
        """End what an earlier host left half-way, and begin with what needs no brain."""
        unfinished = self._actions.recover()
        if unfinished:
            log.warning("unfinished by an earlier hostd: %s", ", ".join(unfinished))
        self._shots.recover()
        self._drills.recover()
        self._use_devices()

    # -- for one brain after another ---------------------------------------------------

    def greet(self) -> None:
        """A brain was born: what it must know, which is all that is kept for it."""
        self._tell(self._watchdog.word())
        self._tell(messages.Unfinished(self._actions.unfinished(), self._origins.outdated()))
        self._tell(self._drills.remembered())
        self.stop_removed()

    def obey(self, message: AnyMessage) -> None:
        """Begin what the brain says; what comes of it is told."""
        match message:
            case messages.Do():
                self._errands.do(message)
            case messages.Shoot(request_id=request_id, node=node, delay_ms=delay_ms):
                self._shots.shoot(request_id, node, delay_ms)
            case messages.HoldFire(request_id=request_id):
                self._shots.hold(request_id)
            case messages.News():
                self._notifying.take(message)
            case messages.Drill(drill_id=drill_id, node=node):
                self._drills.begin(drill_id, node)
            case messages.Alive():
                self._watchdog.hear(message)
            case _:
                raise AssertionError(f"not for the host: {message!r}")

    def drop(self) -> None:
        """The brain died: kill what it had begun.  Until nothing is :attr:`acting` there must be no next one."""
        self._actions.abort()
        self._errands.drop()
        self._removed.abort()
        self._shots.abort()
        self._drills.abort()

    @property
    def acting(self) -> bool:
        """An action is under way, or still dying."""
        return self._actions.busy

    def stop_removed(self) -> None:
        """Stop services that conf.d no longer has, those that could not be stopped before included."""
        self._removed.stop()

    def _tell_unstopped(self) -> None:
        self._tell(messages.Unstopped(self._removed.failures))

    # -- for the loop ------------------------------------------------------------------

    def tick(self) -> None:
        """Do what is due; a shot goes before any drill."""
        self._actions.tick()
        self._shots.tick()
        self._notifying.tick()
        self._drills.tick(shooting=self._shots.under_way)
        self._watchdog.tick()
        if now_ms() >= self._housekeeping_at_ms:
            self._housekeeping_at_ms = now_ms() + HOUSEKEEPING_MS
            self._actions.bound_output()

    def wake_at_ms(self) -> int | None:
        """When :meth:`tick` has something to do; None: not before a file is readable."""
        parts = (self._actions, self._shots, self._drills, self._watchdog, self._notifying)
        return min((at for part in parts if (at := part.wake_at_ms()) is not None), default=None)

    def files(self) -> list[int]:
        """Open files that no heart or brain may keep."""
        parts = (self._watches, self._actions, self._shots, self._drills, self._watchdog, self._notifying)
        return [file for part in parts for file in part.files()]

    # -- a new configuration -------------------------------------------------------------

    @property
    def is_quiet(self) -> bool:
        """No start, stop or shot is under way."""
        return not (self._errands.is_changing or self._removed.is_busy or self._shots.busy)

    def hold(self) -> None:
        """Begin no new errand until :meth:`release`."""
        self._errands.hold()

    def release(self) -> None:
        """Go on, and begin what was put off."""
        self._errands.release()

    def renew(self, configuration: Configuration, registry: Registry) -> None:
        """Live by this from now on.  The services are adopted by the next brain."""
        self._configuration = configuration
        self._actions.abort()  # monitors: the next brain asks again
        self._actions.registry = registry
        self._shots.renew(registry, configuration.fencing_devices)
        self._drills.renew(registry, configuration.fencing_devices)
        self._notifying.renew(registry, configuration)
        self._use_devices()
        self._errands.configuration = configuration
        self._origins.adopt(configuration, registry.parameters)
        self._watches.keep({(settings.service, settings.resource) for settings in configuration.resources})

    def _use_devices(self) -> None:
        """Those that work by themselves: the watchdog, and the peer's fencing devices in their drills."""
        configuration = self._configuration
        self._watchdog.want(configuration.watchdog)
        plan, node = configuration.plan, configuration.node
        self._drills.repeat(plan.peer_of(node), configuration.fencing_drill_ms, is_first=plan.is_first(node))

    # -- the end -------------------------------------------------------------------------

    def end(self) -> None:
        """Kill what runs of actions, shots and drills; touch no service.  Notices under way may still arrive."""
        self._actions.abort()
        self._shots.abort()
        self._drills.abort()

    @property
    def busy(self) -> bool:
        """A child is there that is not yet reaped."""
        return any(part.busy for part in (self._actions, self._shots, self._drills, self._notifying))

    def let_go(self, *, in_order: bool) -> None:
        """Last of all, the watchdog: let go if the node was left in good order, else it is to strike."""
        if in_order:
            self._watchdog.let_go()
        else:
            self._watchdog.abandon()
