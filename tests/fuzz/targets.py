"""All fuzz targets, by name; each is loaded with its module, when it is asked for.

Decides nothing but the list.  Loading one imports the part of hostd that it
tries: an engine that watches which branches are taken has to be told before.
"""

import importlib
from typing import Final

from tests.fuzz.target import Target

MODULES: Final = {
    "frames": ("wire", "datagram", "stream", "snapshot", "packet"),
    "peer": ("peer",),
    "words": ("control", "orders", "message", "round-trip", "files"),
    "texts": ("conf.d", "fencing", "meta-data", "heartbeat"),
}
NAMES: Final = tuple(name for names in MODULES.values() for name in names)


def load(name: str) -> Target:
    """The target of this name, which is one of NAMES."""
    (module,) = (module for module, names in MODULES.items() if name in names)
    targets: tuple[Target, ...] = importlib.import_module(f"tests.fuzz.{module}").TARGETS
    (target,) = (target for target in targets if target.name == name)
    return target
