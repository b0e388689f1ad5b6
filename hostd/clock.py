"""The one clock of heart, brain and host.

CLOCK_BOOTTIME counts while the machine is suspended, so that a resumed node
sees that it was away; it is the same in every process of a machine.
"""

import time


def now_ms() -> int:
    """Milliseconds since boot, suspended time included."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000
