"""The operator's requests → answers, by way of the core where it has to decide.

Decides which answer a request gets; an order becomes ``OperatorAsked``, and
its answer is what the core says to that.  Refuses to know the socket.
"""

import asyncio
import itertools
import time
from collections.abc import Callable
from typing import Final, assert_never

from hostd.clock import now_ms
from hostd.core.effects import AnswerOperator
from hostd.core.events import AnyCommand, OperatorAsked
from hostd.core.node import Node
from hostd.figures import Figures
from hostd.recorder import Timeline
from hostd.requests import (
    AnyAnswer,
    AnyRequest,
    AskLog,
    AskStatus,
    AskWhy,
    LogIs,
    Order,
    Refused,
    Rejected,
    Status,
    StatusIs,
    Taken,
    WhyIs,
)
from hostd.status import status_of

WHY_ENTRIES_MAX: Final = 200
"""Of the timeline, for one service."""


class Desk:
    """Where requests are answered.  ``put`` hands an order to the core's inbox."""

    def __init__(self, core: Node, figures: Figures, timeline: Timeline, put: Callable[[OperatorAsked], None]) -> None:
        self._core, self._figures, self._timeline, self._put = core, figures, timeline, put
        self._waiting: dict[int, asyncio.Future[AnyAnswer]] = {}
        self._command_ids = itertools.count(1)

    async def ask(self, request: AnyRequest) -> AnyAnswer:
        """The answer to one request; the core has made its first step."""
        match request:
            case AskStatus():
                return StatusIs(self._status())
            case AskLog(since, service, limit):
                return LogIs(tuple(self._timeline.entries(since=since, service=service, limit=limit)))
            case AskWhy(service):
                aside = [aside.service.name for aside in self._figures.set_aside]
                if service not in (*(known.name for known in self._core.plan.services), *aside):
                    return Rejected("unknown-service", service)
                entries = self._timeline.entries(service=service, limit=WHY_ENTRIES_MAX)
                return WhyIs(service, tuple(entries), self._status())
            case Order(command):
                return await self._order(command)
            case _:
                assert_never(request)

    def give(self, command: AnyCommand) -> int:
        """An order of which nobody awaits the answer (a signal); the id that its answer will have."""
        command_id = next(self._command_ids)
        self._put(OperatorAsked(command_id, command))
        return command_id

    async def _order(self, command: AnyCommand) -> AnyAnswer:
        answer: asyncio.Future[AnyAnswer] = asyncio.get_running_loop().create_future()
        command_id = self.give(command)
        self._waiting[command_id] = answer
        try:
            return await answer
        finally:
            del self._waiting[command_id]

    def answer(self, effect: AnswerOperator) -> None:
        """The core's word on an order, for whoever still awaits it."""
        waiting = self._waiting.get(effect.command_id)
        if waiting is not None and not waiting.done():
            refusal = effect.refusal
            waiting.set_result(Taken(effect.stamp, effect.node) if refusal is None else Refused(refusal))

    def _status(self) -> Status:
        return status_of(self._core, self._figures, now_ms(), time.time())
