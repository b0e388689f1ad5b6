"""What the brain asks of a service → the actions that this takes → one answer.

Decides that what runs is monitored and stopped in the way in which it was
started, and that nothing is started under a new definition before all that
was started under the old one and stands in its way is stopped and verified.
Refuses to know what a service is for, and how one action is run.

New errands can be held back while hostd is about to read conf.d again.
"""

import functools
import logging
from collections.abc import Callable, Sequence

import msgspec

from hostd import messages
from hostd.actions import Actions
from hostd.api import Health
from hostd.config import Configuration
from hostd.jobs import Job, Outcome, Verb
from hostd.messages import AnyMessage
from hostd.origins import Origin, Origins
from hostd.watches import Watches

log = logging.getLogger("hostd.host")

Then = Callable[[Outcome | None], None]
"""What follows; it is handed the first failure, or None."""


class Errands:
    """All errands of one host.  ``tell`` takes what the brain is to hear."""

    def __init__(
        self,
        configuration: Configuration,
        origins: Origins,
        actions: Actions,
        watches: Watches,
        tell: Callable[[AnyMessage], None],
    ) -> None:
        self.configuration = configuration
        self._origins, self._actions, self._watches, self._tell = origins, actions, watches, tell
        self._changing: set[int] = set()
        self._held: list[messages.Do] | None = None

    def do(self, do: messages.Do) -> None:
        """Begin, or put it off while errands are held."""
        if self._held is not None:
            self._held.append(do)
            return
        verb = Verb[do.action.name]
        if verb.changes:
            self._changing.add(do.action_id)
            self._watches.forget(do.service, do.resource)  # its end is now somebody's wish
        level = logging.DEBUG if do.recurring else logging.INFO
        log.log(level, "%s %s of %s", verb.value, do.resource, do.service)
        in_the_way: list[Origin] = []
        if verb is Verb.START:
            in_the_way = self._origins.before_start(do.service, do.resource)
        elif verb is Verb.STOP:
            own = self._origins.of(do.service, do.resource)
            in_the_way = self._origins.above(own) if own is not None else self._origins.left_alone(do.service)
        self.stop_each(in_the_way, lambda failed: self._done(do, verb, failed) if failed else self._act(do, verb))

    @property
    def is_changing(self) -> bool:
        """A start or stop is under way that the brain waits for."""
        return bool(self._changing)

    def hold(self) -> None:
        """Begin nothing new until :meth:`release` or :meth:`drop`."""
        self._held = self._held or []

    def release(self) -> None:
        """Go on, and begin what was put off."""
        held, self._held = self._held or [], None
        for do in held:
            self.do(do)

    def drop(self) -> None:
        """Go on, and forget what was put off and what is under way: who asked for it is gone."""
        self._held = None
        self._changing.clear()

    # -- one errand -----------------------------------------------------------------

    def _act(self, do: messages.Do, verb: Verb) -> None:
        if verb is Verb.START:
            try:
                self._origins.begin(do.service, do.resource)
            except OSError as error:
                self._done(do, verb, Outcome(ok=False, reason=f"how it is started cannot be written down: {error}"))
                return
        settings = self.configuration.resource(do.service, do.resource)
        origin = self._origins.of(do.service, do.resource)
        job = Job(
            service=do.service,
            resource=origin.resource if origin else do.resource,
            agent=origin.agent if origin else settings.agent,
            verb=verb,
            params=self._origins.params(origin) if origin else settings.params,
            timeout_ms=do.timeout_ms,
            depth=do.depth,
            interval_ms=self._interval_ms(do) if do.recurring else 0,
        )
        self._actions.start(job, functools.partial(self._acted, do, verb, origin))

    def _acted(self, do: messages.Do, verb: Verb, origin: Origin | None, outcome: Outcome) -> None:
        if verb is not Verb.STOP or origin is None or not _is_clean(outcome):
            self._done(do, verb, outcome)
            return
        self._origins.end(origin)
        rest = self._origins.left_alone(do.service)
        self.stop_each(rest, lambda failed: self._done(do, verb, failed or outcome))

    def _interval_ms(self, do: messages.Do) -> int:
        resources = self.configuration.plan.service(do.service).resources
        return next(r.monitor_interval_ms for r in resources if r.id == do.resource)

    def _done(self, do: messages.Do, verb: Verb, outcome: Outcome) -> None:
        self._changing.discard(do.action_id)
        watched, vanished = self._watch(do, verb, outcome)
        if not outcome.ok:
            log.warning(
                "%s of %s (%s) failed after %d ms: %s%s",
                verb.value,
                do.resource,
                do.service,
                outcome.took_ms,
                outcome.reason,
                f"\nit printed: {outcome.output}" if outcome.output else "",
            )
        self._tell(
            messages.Done(
                action_id=do.action_id,
                ok=outcome.ok,
                health=outcome.health,
                timed_out=outcome.timed_out,
                leftovers=outcome.leftovers,
                reason=outcome.reason,
                cure=outcome.cure,
                took_ms=outcome.took_ms,
                evidence=outcome.evidence,
                pid=watched,
            )
        )
        if vanished:
            self.exited(do.service, do.resource, outcome.main_pid)

    def _watch(self, do: messages.Do, verb: Verb, outcome: Outcome) -> tuple[int | None, bool]:
        """The process that is watched from now on, and whether it was gone before we could."""
        if not outcome.ok or (verb is Verb.MONITOR and self._is_changing(do)):
            return None, False  # a stop may have begun since the monitor looked
        if not outcome.main_pid:
            self._watches.forget(do.service, do.resource)
            return None, False
        there = self._watches.watch(do.service, do.resource, outcome.main_pid, outcome.main_started)
        return (outcome.main_pid if there else None), not there

    def _is_changing(self, do: messages.Do) -> bool:
        origin = self._origins.of(do.service, do.resource)
        return self._actions.is_changing(do.service, origin.resource if origin else do.resource)

    def exited(self, service: str, resource: str, pid: int) -> None:
        """A watched process is gone."""
        log.warning("process %d of %s (%s) has exited", pid, resource, service)
        self._tell(messages.Exited(service, resource, pid))

    # -- what was started under another definition ------------------------------------

    def stop_each(self, origins: Sequence[Origin], then: Then) -> None:
        """Stop and verify these one after the other, each in the way in which it was started; the first
        failure ends it.  ``then`` is not called if the actions are aborted meanwhile."""
        if not origins:
            then(None)
            return
        first, rest = origins[0], origins[1:]
        self._stop(first, lambda failed: then(failed) if failed else self.stop_each(rest, then))

    def _stop(self, origin: Origin, then: Then) -> None:
        log.info("stop %s of %s, as it was started", origin.resource, origin.service)
        self._watches.forget(origin.service, self._origins.meant_by(origin))

        def stopped(outcome: Outcome) -> None:
            if _is_clean(outcome):
                self._actions.start(self._job(origin, Verb.MONITOR), verified)
            else:
                then(_failure(origin, outcome, outcome.reason))

        def verified(outcome: Outcome) -> None:
            if outcome.ok and outcome.health is Health.STOPPED:
                self._origins.end(origin)
                then(None)
            else:
                then(_failure(origin, outcome, outcome.reason or "its monitor still finds it running after the stop"))

        self._actions.start(self._job(origin, Verb.STOP), stopped)

    def _job(self, origin: Origin, verb: Verb) -> Job:
        return Job(
            service=origin.service,
            resource=origin.resource,
            agent=origin.agent,
            verb=verb,
            params=self._origins.params(origin),
            timeout_ms=origin.stop_timeout_ms if verb is Verb.STOP else origin.monitor_timeout_ms,
        )


def _is_clean(outcome: Outcome) -> bool:
    return outcome.ok and not outcome.leftovers


def _failure(origin: Origin, outcome: Outcome, reason: str) -> Outcome:
    said = f"{origin.resource}, started by an earlier conf.d, could not be stopped: {reason}"
    return msgspec.structs.replace(outcome, ok=False, health=None, main_pid=0, reason=said)
