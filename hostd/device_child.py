"""One fencing device worked in a child of the host: shot, drilled, or asked about itself.

Decides what the device is told, how long it may take, and how a plugin's
answer or exception becomes a :class:`Word`; how the child is born, bounded
and buried, ``worker`` decides.  Refuses to know what is done with the device
(``work`` does it, in the child) and what follows (``ended``).
"""

import logging
import selectors
import time
import traceback
from collections.abc import Callable
from typing import Final

import msgspec

from hostd import action_child, loading, processes
from hostd.api import AgentError, FenceOrder, Note
from hostd.cgroups import Groups
from hostd.child import death
from hostd.config import FencingDevice
from hostd.decoding import UNDECODABLE
from hostd.worker import End, Worker

log = logging.getLogger("hostd.fencing")

SLACK_MS: Final = 1_000
"""A device's own limit comes first, so that its plugin can say what hung; then the host kills."""
SENTENCES_MAX: Final = 30


class Complaint(msgspec.Struct, frozen=True):
    """What a plugin finds wrong with a device: a sentence, its cure after a semicolon."""

    sentence: str
    is_note: bool


class Word(msgspec.Struct, frozen=True):
    """What the child hands back over its pipe, once."""

    ok: bool
    said: str = ""
    """Of a drill: the node's power as the device says, ``on`` or ``off``."""
    complaints: tuple[Complaint, ...] = ()
    reason: str = ""
    cure: str = ""


class DeviceChild(Worker):
    """One device at work.  Raises OSError if it cannot be born."""

    def __init__(
        self,
        groups: Groups,
        selector: selectors.BaseSelector,
        *,
        device: FencingDevice,
        node: str,
        group: str,
        is_last: bool = True,
        work: Callable[[FenceOrder], Word],
        ended: Callable[["DeviceChild", Word], None],
    ) -> None:
        """``group`` stands where a service's name does in the cgroup's path: no
        service's.  ``ended`` is called once, from the selector, when the child
        and all that it started are gone."""
        self.device, self.node = device, node
        self._hear = ended
        order = FenceOrder(
            agent=device.agent,
            node=node,
            params=device.params.get(node, {}),
            secrets=device.secrets.get(node, {}),
            deadline=time.monotonic() + device.timeout_ms / 1_000,
            is_last=is_last,
            storage=device.storage,
            by=device.by,
        )
        super().__init__(
            groups,
            selector,
            group=group,
            name=node,
            limit_ms=device.timeout_ms + SLACK_MS,
            work=lambda: msgspec.msgpack.encode(_worked(work, order)),
            ended=self._answered,
        )

    def too_long(self) -> str:
        """Why it failed, if it was killed at its limit."""
        return f"{self.device.agent} did not end within {self.device.timeout_ms / 1_000:g} s"

    def _answered(self, end: End) -> None:
        if end.output:
            log.info("%s printed: %s", self.device.agent, end.output)
        word = _read(end.answer)
        if word is None:
            word = Word(ok=False, reason=f"the process for {self.device.agent} {death(end.status)} before it answered")
        self._hear(self, word)


def _worked(work: Callable[[FenceOrder], Word], order: FenceOrder) -> Word:
    """In the child: what the plugin answers, or raises."""
    try:
        return work(order)
    except AgentError as error:
        return Word(ok=False, reason=error.reason[: action_child.TEXT_MAX], cure=error.cure[: action_child.TEXT_MAX])
    except Exception as error:  # noqa: BLE001 - the edge: a plugin may raise anything
        traceback.print_exc()
        return Word(ok=False, reason=f"plugin's mistake: {loading.last_line(error)}"[: action_child.TEXT_MAX])


def complaints(sentences: tuple[str, ...]) -> tuple[Complaint, ...]:
    """A plugin's sentences, so that they survive the pipe, as few and as short as it takes."""
    short = [(sentence[: action_child.TEXT_MAX // 2], isinstance(sentence, Note)) for sentence in sentences]
    return tuple(Complaint(sentence, is_note) for sentence, is_note in short[:SENTENCES_MAX])


def recover(groups: Groups, group: str, nodes: list[str]) -> None:
    """End what an earlier host left working: nobody remembers what for."""
    for node in nodes:
        for process in groups.in_resource(group, node):
            log.warning("an earlier hostd left %s (%d) working for %s: killed", process.name, process.pid, node)
            processes.kill(process)


def _read(answer: bytes) -> Word | None:
    try:
        return msgspec.msgpack.decode(answer, type=Word)
    except UNDECODABLE:
        return None  # it died before it wrote, or in the middle
