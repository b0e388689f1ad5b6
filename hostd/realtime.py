"""What the heart asks of the kernel, so that its beats are on time.

Decides nothing: tries, and says what was granted.  Measured: only the
scheduling class keeps beats on time under load; locked memory is insurance
for a machine that swaps.
"""

import ctypes
import os
import resource
import signal
from typing import Final

PRIORITY: Final = 10
BUSY_MAX_US: Final = 500_000
"""CPU time without once waiting: a beat takes well under a millisecond, so
this is a bug that would take the core from everybody else.  The kernel then
kills the heart and the host forks another."""

_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def schedule() -> bool:
    """SCHED_RR for this process, not for its children; False if not permitted.

    Fails without CAP_SYS_NICE, and for root in a cgroup without real-time budget.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(PRIORITY))
    except OSError:
        return False
    resource.setrlimit(resource.RLIMIT_RTTIME, (BUSY_MAX_US, BUSY_MAX_US))
    return True


def lock_memory() -> bool:
    """Keep every page once it was touched; False if not permitted."""
    return bool(_libc.mlockall(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT) == 0)


def die_with(parent: int) -> bool:
    """Be killed when ``parent`` dies; False if it already did."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    return os.getppid() == parent
