"""What is wanted of one service on this node: the words between ``orders`` and ``services``.

Decides nothing.
"""

import enum

import msgspec

from hostd.core.terms import Why


class Order(enum.Enum):
    """What is wanted of a service on this node."""

    RUN = 1
    STOP = 2
    HOLD = 3  # start nothing, keep what runs
    UNDO = 4  # as HOLD, and a ladder in the middle is climbed down again
    YIELD = 5  # another node acts for it: addresses off at once, then stop
    FREEZE = 6  # hands off: only monitors


class Want(msgspec.Struct, frozen=True):
    """An order and its circumstances."""

    order: Order
    why: Why
    guard: bool = True
    """No proof that the peer is off: ask for an address before adding it."""
    ready: bool = True
    free: bool = True
    renew: bool = False
    """What was started under an older definition is to be stopped first."""
