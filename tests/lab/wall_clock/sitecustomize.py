"""A wall clock of its own for every Python process of a node in the lab.

Python imports this by itself at its start, where it finds it on its path.
Decides only how far the wall clock is off: by so many seconds as the file in
``HOSTD_LAB_CLOCK`` says, read anew at every look.  The clocks that count from
the boot stay as they are, as they do when somebody sets a machine's clock.

Not libfaketime: with 0.9.10, ``time.sleep`` of Python 3.11 fails (EINVAL).  So
programs that are not Python go by the machine's clock.
"""

import mmap
import os
import struct
import time

FORM = struct.Struct("=q")

_real_time_ns, _real_gmtime, _real_localtime = time.time_ns, time.gmtime, time.localtime


def follow(path: str) -> None:
    """From now on, for this process and all that it forks."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    off = mmap.mmap(descriptor, FORM.size, prot=mmap.PROT_READ)
    os.close(descriptor)

    def time_ns() -> int:
        (seconds,) = FORM.unpack(off[: FORM.size])
        return _real_time_ns() + seconds * 1_000_000_000

    def now() -> float:
        return time_ns() / 1e9

    def gmtime(seconds: float | None = None) -> time.struct_time:
        return _real_gmtime(now() if seconds is None else seconds)

    def localtime(seconds: float | None = None) -> time.struct_time:
        return _real_localtime(now() if seconds is None else seconds)

    time.time_ns, time.time, time.gmtime, time.localtime = time_ns, now, gmtime, localtime


if "HOSTD_LAB_CLOCK" in os.environ:
    follow(os.environ["HOSTD_LAB_CLOCK"])
