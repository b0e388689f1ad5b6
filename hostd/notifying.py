"""Who is told of what: a queue for each ``[[notify]]``, each event at most once, in order.

Decides which events wait for whom, one delivery at a time for each, and what
is dropped when too many wait: the oldest, counted and said with the next.
Never tries again: a message that came twice is worse than a gap, which the
serial shows.  Knows no way of telling, and what it tells was decided by the
brain.  It never waits, so it lives in the host's loop.
"""

import logging
import selectors
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from hostd import notices
from hostd.api import Notice
from hostd.cgroups import Groups
from hostd.config import Configuration, Notifier
from hostd.core.effects import AnyFact
from hostd.messages import News, Notified
from hostd.notifying_child import Delivery, deliver
from hostd.registry import Registry

log = logging.getLogger("hostd.notify")

WAITING_MAX: Final = 100
"""For each ``[[notify]]``; a takeover of ten services is about 40 events."""

_words: Callable[[AnyFact], str] = lambda fact: f"{type(fact).__name__} {notices.named(fact)}"  # noqa: E731 - a default


def speak_by(words: Callable[[AnyFact], str]) -> None:
    """Sentences are made in ``commands``, which this file may not know: whoever starts the host brings them."""
    global _words
    _words = words


class _Queue:
    """One ``[[notify]]`` and what waits for it."""

    def __init__(self, notifier: Notifier) -> None:
        self.notifier = notifier
        self.waiting: deque[News] = deque()
        self.dropped = 0
        """Since the last delivery."""
        self.delivery: Delivery | None = None


class Notifying:
    """All queues of one host.  ``tell`` hears what came of each event."""

    def __init__(
        self,
        registry: Registry,
        groups: Groups,
        configuration: Configuration,
        selector: selectors.BaseSelector,
        tell: Callable[[Notified], None],
    ) -> None:
        self._registry, self._groups, self._selector, self._tell = registry, groups, selector, tell
        self._cluster, self._node = configuration.plan.cluster, configuration.node
        self._queues = [_Queue(notifier) for notifier in configuration.notifiers]
        self._former: list[_Queue] = []

    def renew(self, registry: Registry, configuration: Configuration) -> None:
        """From the next delivery on, by this; what waits for a ``[[notify]]`` of the same name stays in its queue."""
        self._registry = registry
        kept = {queue.notifier.name: queue for queue in self._queues}
        self._queues = []
        for notifier in configuration.notifiers:
            queue = kept.pop(notifier.name, None) or _Queue(notifier)
            queue.notifier = notifier
            self._queues.append(queue)
        for queue in kept.values():
            queue.waiting.clear()
        self._former = [queue for queue in (*self._former, *kept.values()) if queue.delivery is not None]

    def take(self, news: News) -> None:
        """Queue it for everybody who wants to know, and begin where nothing else is under way."""
        for queue in self._queues:
            if notices.kind_of(news.fact) not in queue.notifier.kinds:
                continue
            queue.waiting.append(news)
            if len(queue.waiting) > WAITING_MAX:
                queue.waiting.popleft()
                queue.dropped += 1
                log.warning("%s: too many events wait, the oldest is dropped", queue.notifier.name)
                self._tell(Notified(queue.notifier.name, "too many events waited: the oldest were dropped", dropped=1))
            self._next(queue)

    @property
    def busy(self) -> bool:
        """Is a delivery under way?"""
        return bool(self._deliveries())

    def files(self) -> list[int]:
        """Open files that no other child of the host may keep."""
        return [file for delivery in self._deliveries() for file in delivery.files()]

    def wake_at_ms(self) -> int | None:
        """When :meth:`tick` has something to do; None: not before a file is readable."""
        return min((delivery.until_ms for delivery in self._deliveries() if not delivery.is_killed), default=None)

    def tick(self) -> None:
        """Strike what takes too long."""
        for delivery in self._deliveries():
            delivery.tick()

    def _deliveries(self) -> list[Delivery]:
        return [queue.delivery for queue in (*self._queues, *self._former) if queue.delivery is not None]

    def _next(self, queue: _Queue) -> None:
        while queue.delivery is None and queue.waiting:
            news = queue.waiting.popleft()
            work = deliver(self._notice(queue, news), self._registry.notify)
            queue.dropped = 0
            name, timeout_ms = queue.notifier.name, queue.notifier.timeout_ms
            try:
                queue.delivery = Delivery(
                    self._groups, self._selector, name, timeout_ms, work, lambda said: self._ended(queue, said)
                )
            except OSError as error:  # no more processes or memory
                self._said(queue, f"it could not be started: {error}")

    def _ended(self, queue: _Queue, failure: str) -> None:
        queue.delivery = None
        self._said(queue, failure)
        self._next(queue)

    def _said(self, queue: _Queue, failure: str) -> None:
        if failure:
            log.warning("%s: an event could not be told, and will not be told again: %s", queue.notifier.name, failure)
        self._tell(Notified(queue.notifier.name, failure))

    def _notice(self, queue: _Queue, news: News) -> Notice:
        notifier, fact = queue.notifier, news.fact
        return Notice(
            type=notifier.type,
            params=notifier.params,
            secrets=notifier.secrets,
            kind=notices.kind_of(fact),
            event=type(fact).__name__,
            fields=notices.named(fact),
            text=_words(fact),
            cluster=self._cluster,
            node=self._node,
            serial=news.serial,
            at=news.at,
            dropped=queue.dropped,
            deadline=time.monotonic() + notifier.timeout_ms / 1_000,
        )
