"""How long may it take?  The figures that hostd promises, and what a busy machine is allowed.

`./test long` holds the promises to the letter, on a quiet machine.  Elsewhere
the same claims are checked with room for a machine that others use too: there
a test is for what happens, not for how fast this machine was at that moment.
"""

import os

STRICT_VARIABLE = "HOSTD_TEST_STRICT"
"""Set by `./test long`."""

ROOM = 3
"""How many times longer a busy machine may take."""


def promised(figure: float) -> float:
    """The figure itself on a quiet machine, several times as much elsewhere."""
    return figure if os.environ.get(STRICT_VARIABLE) else figure * ROOM
