"""How time passes on one simulated node: its clocks, its pauses, its power lives.

Decides what stands still in which kind of pause, and when something that was
put off comes due on a node that has slept meanwhile.  Knows nothing of hostd:
its processes are ``machine.py``'s.
"""

from collections.abc import Callable
from typing import Any, Final

from hostd.sim.faults import Stop
from hostd.sim.queue import Queue

BOOT_MS: Final = 20_000
"""What a node's clock says when its hostd could start: the boot itself took a while."""


class Clocks:
    """Those of one node."""

    __slots__ = (
        "_pause", "_waiting", "_zero_at_ms", "kernel_lost_ms", "lost_ms", "power_life", "powered", "queue", "stop",
        "stopped_at_ms",
    )  # fmt: skip

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.powered = False
        self.power_life = 0
        self.stop: Stop | None = None
        """The pause that lasts, if one does."""
        self.stopped_at_ms = 0
        self.lost_ms = 0  # how long userland has stood still
        self.kernel_lost_ms = 0
        self._zero_at_ms = 0
        self._pause = 0
        self._waiting: list[tuple[int, Callable[..., None], tuple[Any, ...]]] = []

    # -- what the clocks say ------------------------------------------------------

    def clock_ms(self) -> int:
        """This node's CLOCK_BOOTTIME: it starts at boot, and a frozen one stands still."""
        now_ms = self.stopped_at_ms if self.stop is Stop.FREEZE else self.queue.now_ms
        return now_ms - self._zero_at_ms

    def kernel_ms(self) -> int:
        """The time that leases are counted in: it stands still while the machine does."""
        now_ms = self.queue.now_ms if self.kernel_runs else self.stopped_at_ms
        return now_ms - self.kernel_lost_ms

    @property
    def kernel_runs(self) -> bool:
        return self.powered and self.stop not in (Stop.SUSPEND, Stop.FREEZE)

    @property
    def userland_runs(self) -> bool:
        return self.powered and self.stop in (None, Stop.BRAIN)

    # -- what is put off ------------------------------------------------------------

    def later(self, delay_ms: int, act: Callable[..., None], *args: Any) -> None:
        """Call when this node's userland has run for ``delay_ms`` more; never after a power cut."""
        self.queue.after(delay_ms, self._due, self.power_life, self.lost_ms, act, args)

    def _due(self, life: int, lost_ms: int, act: Callable[..., None], args: tuple[Any, ...]) -> None:
        if life != self.power_life:
            return
        missed_ms = self.lost_ms - lost_ms
        if not self.userland_runs:
            self._waiting.append((self.queue.now_ms - self.stopped_at_ms + missed_ms, act, args))
        elif missed_ms:
            self.later(missed_ms, act, *args)
        else:
            act(*args)

    # -- power lives -------------------------------------------------------------------

    def _boot(self) -> None:
        """A new life of the kernel; its clocks start."""
        self.powered = True
        self.power_life += 1
        self._zero_at_ms = self.queue.now_ms - BOOT_MS
        self.kernel_lost_ms = self.lost_ms = 0

    def _die(self) -> None:
        """What was put off is never done."""
        self.powered = False
        self.power_life += 1
        self.stop = None
        self._waiting.clear()

    # -- pauses --------------------------------------------------------------------------

    def _stand_still(self, stop: Stop, for_ms: int, then: Callable[[int, int], None]) -> None:
        """Begin a pause; ``then`` is called at its end with what :meth:`_is_over` takes."""
        self.stop = stop
        self.stopped_at_ms = self.queue.now_ms
        self._pause += 1
        self.queue.after(for_ms, then, self.power_life, self._pause)

    def _is_over(self, life: int, pause: int) -> Stop | None:
        """Count the time of the pause that ends as lost; None if it was over before."""
        stop = self.stop
        if life != self.power_life or pause != self._pause or stop is None:
            return None
        paused_ms = self.queue.now_ms - self.stopped_at_ms
        if stop is Stop.FREEZE:
            self._zero_at_ms += paused_ms
        if stop in (Stop.SUSPEND, Stop.FREEZE):
            self.kernel_lost_ms += paused_ms
        if stop is not Stop.BRAIN:
            self.lost_ms += paused_ms
        return stop

    def _go_on(self) -> None:
        """Userland runs again, and what came due meanwhile with it."""
        waiting, self._waiting = self._waiting, []
        for rest_ms, act, args in waiting:
            self.later(rest_ms, act, *args)
