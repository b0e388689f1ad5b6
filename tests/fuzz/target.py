"""What a fuzz target is.

Decides nothing: the targets are in ``frames``, ``words`` and ``texts``, the
list of them in ``targets``.
"""

from collections.abc import Callable
from typing import NamedTuple


class Target(NamedTuple):
    """One door of hostd.

    ``one`` tries an input; whatever it raises is a finding, so it catches
    just what the door is documented to raise.  It answers how many pieces
    (frames, lines, files) the input put through the door.  ``seeds``: inputs
    to begin with, beside the kept corpus.  ``words``: what inputs are made
    of, for engines that take a dictionary.
    """

    name: str
    claim: str
    one: Callable[[bytes], int]
    seeds: Callable[[], list[bytes]]
    size_max: int
    words: tuple[bytes, ...] = ()
