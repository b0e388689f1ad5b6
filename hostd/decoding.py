"""What decoding raises for bytes that are not ours, or are ours no more.

Decides nothing but the list: msgspec tells of damage in three ways, of which
its own documentation names the first.  Whoever decodes what came over a wire,
from a child or from a disk catches all of them.
"""

from typing import Final

import msgspec

UNDECODABLE: Final = (
    msgspec.DecodeError,
    UnicodeDecodeError,  # a text that is no UTF-8
    RecursionError,  # a thousand brackets in a row
)
