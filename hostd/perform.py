"""Each Effect → one act → exactly one outcome Event.

Decides how acts are done side by side: agent actions go to the host, disk
work to the one disk thread, addresses to :mod:`hostd.address_tasks`.  Refuses
to decide anything about services or peers, and never waits.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from pathlib import Path
from typing import Final, Protocol, TypeVar, assert_never

from hostd import state
from hostd.address_tasks import AddressTasks
from hostd.core.effects import (
    AddAddress,
    AnnounceAddress,
    AnswerOperator,
    AnyEffect,
    AnyFact,
    CancelFence,
    CancelProbe,
    Exit,
    FencePeer,
    ProbeAddresses,
    Publish,
    RemoveAddress,
    RenewAddress,
    RenewIncarnation,
    RunAction,
    SaveWishes,
    Tell,
)
from hostd.core.events import AnyEvent, IncarnationRenewed, WishesSaved
from hostd.core.snapshot import Snapshot, Wish
from hostd.core.terms import Incarnation
from hostd.messages import AnyMessage, Do, HoldFire, Shoot

log = logging.getLogger("hostd.perform")

T = TypeVar("T")

DISK_MAX_S: Final = 5.0
"""A disk that takes longer for a few hundred bytes hangs; on a busy one 430 ms were seen for an fsync."""
DISK_RETRY_S: Final = 5.0
"""Between a failure to save and its outcome."""


class Brain(Protocol):
    """What performing needs of the brain around it; all are called in its loop."""

    def put(self, event: AnyEvent) -> None:
        """Something happened: an outcome."""

    @property
    def incarnation(self) -> Incarnation:
        """The present one."""

    def tell_host(self, message: AnyMessage) -> None: ...
    def identify(self, incarnation: Incarnation) -> None: ...
    def publish(self, snapshot: Snapshot) -> None: ...
    def answer(self, effect: AnswerOperator) -> None: ...
    def tell(self, fact: AnyFact) -> None: ...
    def note_unsaved(self, detail: str) -> None:
        """For the status: why wishes are not on the disk; empty when they are."""

    def end(self, effect: Exit) -> None: ...


class Performer:
    """Carries out effects for one brain.

    ``disk``: one thread for all that blocks on the disk.  A thread is
    acceptable here and not in the heart: the brain's timing is not a
    heartbeat's, the thread holds no lock of the interpreter while the disk
    works, and fsync in the loop itself would stop all of it.
    """

    def __init__(self, brain: Brain, addresses: AddressTasks, disk: Executor, folder: Path) -> None:
        self._brain, self._addresses, self._disk, self._folder = brain, addresses, disk, folder
        self._tasks: set[asyncio.Task[None]] = set()

    def perform(self, effect: AnyEffect) -> None:
        """Begin one act.  Its outcome, if it has one, is put to the brain, once."""
        match effect:
            case Publish(snapshot):
                self._brain.publish(snapshot)
            case RunAction():
                self._brain.tell_host(
                    Do(
                        effect.action_id,
                        effect.service,
                        effect.resource,
                        effect.action,
                        effect.timeout_ms,
                        effect.depth,
                        effect.recurring,
                    )
                )
            case AddAddress():
                self._addresses.add(effect)
            case RemoveAddress():
                self._addresses.remove(effect)
            case RenewAddress():
                self._addresses.renew(effect)
            case AnnounceAddress():
                self._addresses.announce(effect)
            case ProbeAddresses():
                self._addresses.probe(effect)
            case CancelProbe(request_id):
                self._addresses.cancel_probe(request_id)
            case FencePeer():
                self._brain.tell_host(Shoot(effect.request_id, effect.node, effect.delay_ms))
            case CancelFence(request_id):
                self._brain.tell_host(HoldFire(request_id))
            case SaveWishes():
                self._begin(self._save_wishes(effect.wishes))
            case RenewIncarnation():
                self._begin(self._renew_incarnation())
            case AnswerOperator():
                self._brain.answer(effect)
            case Tell(fact):
                self._brain.tell(fact)
            case Exit():
                self._brain.end(effect)
            case _:
                assert_never(effect)

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)  # the loop itself holds tasks weakly
        task.add_done_callback(self._tasks.discard)

    async def _save_wishes(self, wishes: tuple[Wish, ...]) -> None:
        try:
            await self._on_disk(state.save_wishes, self._folder, wishes)
        except OSError as error:
            detail = f"{self._folder}: {error.strerror or error}"
        except TimeoutError:
            detail = f"{self._folder}: the disk does not answer"
        else:
            self._brain.note_unsaved("")
            self._brain.put(WishesSaved(True))
            return
        log.error("wishes are not saved: %s", detail)
        self._brain.note_unsaved(detail)
        await asyncio.sleep(DISK_RETRY_S)  # the core tries again when it hears of it
        self._brain.put(WishesSaved(False, detail))

    async def _renew_incarnation(self) -> None:
        above = self._brain.incarnation
        try:
            incarnation = await self._on_disk(state.next_incarnation, self._folder, above)
        except TimeoutError:
            log.error("%s: the disk does not answer; the wall clock numbers this life", self._folder)
            incarnation = state.unstored_incarnation(above)
        self._brain.identify(incarnation)
        self._brain.put(IncarnationRenewed(incarnation))

    async def _on_disk(self, function: Callable[..., T], *arguments: object) -> T:
        """Raises what the function raises, and TimeoutError if the disk hangs.

        A function that hangs goes on in the thread; what comes of it is not awaited any more.
        """
        async with asyncio.timeout(DISK_MAX_S):
            return await asyncio.get_running_loop().run_in_executor(self._disk, function, *arguments)
