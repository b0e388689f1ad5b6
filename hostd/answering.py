"""The operator's requests → answers, by way of the core where it has to decide.

Decides which answer a request gets; an order becomes ``OperatorAsked``, and
its answer is what the core says to that.  Refuses to know the socket.
"""

import asyncio
import itertools
import time
from collections.abc import Callable
from typing import Final, assert_never

from hostd import messages
from hostd.changes import Description
from hostd.clock import now_ms
from hostd.config import Directories
from hostd.core.effects import AnswerOperator
from hostd.core.events import AnyCommand, Detach, OperatorAsked
from hostd.core.node import Node
from hostd.figures import Figures
from hostd.hearing import AWAY_MAX_MS
from hostd.recorder import Timeline
from hostd.requests import (
    AnyAnswer,
    AnyRequest,
    AskDrill,
    AskLedger,
    AskLog,
    AskReload,
    AskRunning,
    AskStatus,
    AskWhy,
    LedgerIs,
    LogIs,
    Order,
    Refused,
    Rejected,
    ReloadIs,
    RunningIs,
    StatusIs,
    Taken,
    WhyIs,
)
from hostd.status import status_of
from hostd.status_form import Status

WHY_ENTRIES_MAX: Final = 200
"""Of the timeline, for one service."""


class Desk:
    """Where requests are answered.  ``put`` hands an order to the core's inbox."""

    def __init__(
        self,
        core: Node,
        figures: Figures,
        timeline: Timeline,
        put: Callable[[OperatorAsked], None],
        tell_host: Callable[[messages.Reload | messages.Drill], None],
        description: Description | None,
        directories: Directories,
    ) -> None:
        self._core, self._figures, self._timeline, self._put = core, figures, timeline, put
        self._tell_host, self._description, self._directories = tell_host, description, directories
        self._waiting: dict[int, asyncio.Future[AnyAnswer]] = {}
        self._command_ids = itertools.count(1)

    async def ask(self, request: AnyRequest) -> AnyAnswer:
        """The answer to one request; the core has made its first step."""
        match request:
            case AskStatus():
                return StatusIs(self._status())
            case AskLog(since, service, limit):
                return LogIs(tuple(self._timeline.entries(since=since, service=service, limit=limit)))
            case AskLedger(service, limit):
                return LedgerIs(self._figures.recoveries_of(limit, service))
            case AskWhy(service):
                aside = [aside.service.name for aside in self._figures.set_aside]
                if service not in (*(known.name for known in self._core.plan.services), *aside):
                    return Rejected("unknown-service", service)
                entries = self._timeline.entries(service=service, limit=WHY_ENTRIES_MAX)
                return WhyIs(service, tuple(entries), self._status())
            case AskRunning():
                return self._running()
            case AskDrill(node, drill_id):
                return self._figures.drills.answer(drill_id or self._drill(node))
            case AskReload():
                return await self._await_answer(self._reload)
            case Order(Detach(for_ms)) if not 0 <= for_ms <= AWAY_MAX_MS:  # the peer would not believe it
                return Rejected("bad-request", f"for_ms is not between 0 and {AWAY_MAX_MS}")
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
        return await self._await_answer(lambda: self.give(command))

    def _drill(self, node: str) -> int:
        drill_id = next(self._command_ids)
        if self._figures.drills.expect(drill_id, node):
            self._tell_host(messages.Drill(drill_id, node))
        return drill_id

    def _reload(self) -> int:
        command_id = next(self._command_ids)
        self._tell_host(messages.Reload(command_id))
        return command_id

    async def _await_answer(self, ask: Callable[[], int]) -> AnyAnswer:
        answer: asyncio.Future[AnyAnswer] = asyncio.get_running_loop().create_future()
        command_id = ask()
        self._waiting[command_id] = answer
        try:
            return await answer
        finally:
            del self._waiting[command_id]

    def reloaded(self, word: messages.Reloaded) -> None:
        """The host's word on conf.d, for whoever still awaits it."""
        waiting = self._waiting.get(word.request_id)
        if waiting is not None and not waiting.done():
            waiting.set_result(ReloadIs(word.outcome, word.changes, word.text))

    def _running(self) -> RunningIs:
        word = self._core.peer_snapshot
        is_heard = word is not None and self._core.peers.is_heard(now_ms())
        return RunningIs(
            config=str(self._directories.config),
            agents=tuple(map(str, self._directories.agents)),
            plugins=tuple(map(str, self._directories.plugins)),
            description=self._description,
            peer=self._core.peer,
            peer_digests=word.digests if word is not None and is_heard else None,
            status=self._status(),
        )

    def answer(self, effect: AnswerOperator) -> None:
        """The core's word on an order, for whoever still awaits it."""
        waiting = self._waiting.get(effect.command_id)
        if waiting is not None and not waiting.done():
            refusal = effect.refusal
            waiting.set_result(Taken(effect.stamp, effect.node) if refusal is None else Refused(refusal))

    def _status(self) -> Status:
        return status_of(self._core, self._figures, now_ms(), time.time())
