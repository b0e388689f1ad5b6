"""The brain's books, and what the outside is told of them: metrics, recoveries, notices.

Decides which facts are news, in which order they are handed to the host, and
when the metrics are written.  Never waits, and cannot hurt the loop: figures
are counted, writings go to threads.  Refuses to know how anybody is told.

A fact is handed over once, when it happens, and never again: what is lost on
the way is lost.  ``told.json`` in the state directory holds the number of the
newest and how everything stood when it was last told, so that the next brain
goes on counting and does not tell as news what it only finds again.
"""

import asyncio
import os
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Final

import msgspec

from hostd import notices, state
from hostd.clock import now_ms
from hostd.config import Configuration
from hostd.core.effects import AnyFact, PhaseChanged
from hostd.core.node import Node
from hostd.core.plan import Plan
from hostd.core.terms import Phase
from hostd.decoding import UNDECODABLE
from hostd.figures import Figures
from hostd.ledger import Ledger
from hostd.messages import News, Notified
from hostd.metrics import Format, Textfile
from hostd.recorder import Header, Recorder, Timeline
from hostd.requests import Entry
from hostd.status import status_of
from hostd.status_form import Recovery

RECENT: Final = 10
"""Recoveries in the status."""
_FILE: Final = "told.json"
_STANDING_MAX: Final = 2_000


class Told(msgspec.Struct):
    """What was told last."""

    serial: int = 0
    standing: dict[str, str] = {}


class Bulletin:
    """The brain's desk for the outside world."""

    def __init__(
        self,
        core: Node,
        configuration: Configuration,
        figures: Figures,
        folder: Path,
        disk: Executor,
        header: Callable[[], Header],
        format_: Format,
        tell_host: Callable[[News], None],
    ) -> None:
        self._core, self._figures, self._disk, self._tell_host = core, figures, disk, tell_host
        self._path = folder / _FILE
        self.timeline, self.recorder = Timeline(folder, disk), Recorder(folder, header, disk)
        figures.recoveries_of = self.recoveries
        self._kinds = {kind for notifier in configuration.notifiers for kind in notifier.kinds}
        self._ledger = filled(configuration.plan, configuration.node, self.timeline.entries())
        self._show_recoveries()
        path = configuration.metrics_textfile
        self._textfile = Textfile(path, format_) if path is not None else None
        self._told = _read(self._path) if self._kinds else Told()
        self._is_saved = True
        self._saving: Future[None] | None = None

    def add(self, fact: AnyFact) -> None:
        """Put a fact of this node into the timeline; it may be news for somebody."""
        is_loss = isinstance(fact, PhaseChanged) and fact.phase is Phase.PEER_LOST
        silent_ms = self._core.peers.silence_ms(now_ms()) if is_loss else None
        self._take(self.timeline.add(self._core.me, fact, silent_ms=silent_ms))

    def add_observed(self, node: str, fact: AnyFact) -> None:
        """Put what the peer was seen to do into the timeline; it tells its people itself."""
        self._take(self.timeline.add(node, fact, observed=True))

    def _take(self, entry: Entry) -> None:
        if self._ledger.take(entry):
            self._show_recoveries()
        if entry.observed or not self._kinds or notices.is_passing(entry.fact):
            return
        stands = notices.standing(entry.fact)
        if stands is not None:
            about, how = stands
            if self._told.standing.get(about) == how:
                return
            if len(self._told.standing) < _STANDING_MAX or about in self._told.standing:
                self._told.standing[about] = how
        self._told.serial += 1
        self._is_saved = False
        if notices.kind_of(entry.fact) in self._kinds:
            self._tell_host(News(self._told.serial, entry.at, entry.fact))

    def notified(self, message: Notified) -> None:
        """What the host says of a delivery."""
        counters = self._figures.counters
        counters["notifications_dropped"] += message.dropped
        counters["notifications_failed" if message.failure else "notifications_sent"] += 0 if message.dropped else 1
        if message.failure:
            self._figures.notify_failures[message.name] = message.failure
        else:
            self._figures.notify_failures.pop(message.name, None)

    def turn(self, now: int) -> None:
        """About once a second: books to the disk, figures, metrics, and what was told."""
        self.recorder.flush()
        self.timeline.flush()
        counters = self._figures.counters
        counters["records_lost"] = self.recorder.lost_total
        counters["record_failures"] = self.recorder.failures
        counters["timeline_failures"] = self.timeline.failures
        if self._textfile is not None:
            if self._textfile.is_due(now):
                self._textfile.write(status_of(self._core, self._figures, now, time.time()))
            counters["metrics_failures"] = self._textfile.failures
            self._figures.metrics_failure = self._textfile.failure
        if not self._is_saved and (self._saving is None or self._saving.done()):
            self._is_saved = True
            self._saving = self._disk.submit(_save, self._path, msgspec.json.encode(self._told))

    async def close(self) -> None:
        """The last words, as far as the disk takes them in a second."""
        for _ in range(2):  # the first may find the disk still busy with what came before
            writings = [w for w in (self.recorder.flush(), self.timeline.flush()) if w is not None]
            if writings:
                await asyncio.wait([asyncio.wrap_future(w) for w in writings], timeout=0.5)

    def recoveries(self, limit: int, service: str) -> tuple[Recovery, ...]:
        """The newest of this node."""
        return self._ledger.newest(limit, service)

    def _show_recoveries(self) -> None:
        self._figures.recoveries = self._ledger.newest(RECENT)
        self._figures.recovered = {name: dict(kinds) for name, kinds in self._ledger.totals.items()}


def filled(plan: Plan | None, node: str, entries: list[Entry]) -> Ledger:
    """The ledger of what is in the timeline already; its totals are of what comes from now on."""
    ledger = Ledger(node, plan)
    ledger.take_all(entries)
    ledger.forget_totals()
    return ledger


def _read(path: Path) -> Told:
    """Blocks: called before the loop runs."""
    try:
        return msgspec.json.decode(state.read(path), type=Told)
    except (OSError, *UNDECODABLE):  # none yet, or damaged: then some things are told once more
        return Told()


def _save(path: Path, body: bytes) -> None:
    """In the disk thread.  A disk that cannot be written costs at most that something is told again."""
    try:
        state.replace(path, body + b"\n")
    except OSError:
        path.with_name(f".{path.name}.{os.getpid()}").unlink(missing_ok=True)
