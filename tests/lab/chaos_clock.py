"""The wall clocks of the lab's nodes, which chaos sets back and forward.

Decides how a node gets a clock of its own: time namespaces do not cover
CLOCK_REALTIME, so its Python processes, hostd's among them, are shown another
one (``wall_clock/sitecustomize.py``).  Knows nothing of what a wrong clock does.
"""

from pathlib import Path

from tests.lab.node import Node
from tests.lab.wall_clock.sitecustomize import FORM

SHOWN_BY = Path(__file__).with_name("wall_clock")


def give(node: Node) -> None:
    """A clock of its own, for what is started there from now on; it is right at first."""
    right(node)
    usual = node.environment

    def environment() -> dict[str, str]:
        inherited = dict(usual())
        return inherited | {
            "PYTHONPATH": f"{SHOWN_BY}:{inherited['PYTHONPATH']}",
            "HOSTD_LAB_CLOCK": str(_file(node)),
        }

    node.environment = environment  # type: ignore[method-assign]


def put(node: Node, seconds: int) -> None:
    """Its clock is so far off from now on, in whatever runs there."""
    with _file(node).open("r+b") as file:  # in place: it is mapped
        file.write(FORM.pack(seconds))


def right(node: Node) -> None:
    """Its clock is right, as far as the machine's is."""
    if _file(node).exists():
        put(node, 0)
    else:
        _file(node).write_bytes(FORM.pack(0))


def _file(node: Node) -> Path:
    return node.folder / "clock"
