"""What both nodes must agree on, as short texts that can be compared.

Decides what "the same definition" means: the same whatever the layout of the
files, the order of keys, and the node that computes it.
"""

import hashlib
from typing import Any

import msgspec


def digest(definition: Any) -> str:
    """16 hex digits of SHA-256.  Lists keep their order, tables have none.

    Values that differ by node must be in it whole, not only one node's half.
    """
    return hashlib.sha256(msgspec.json.encode(definition, order="deterministic")).hexdigest()[:16]
