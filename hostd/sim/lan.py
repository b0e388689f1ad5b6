"""The client LAN: who answers for an address, and who can hear whom.

Decides ARP's truth from cables and strangers; who holds an address is the
machines' own affair.
"""

import zlib
from typing import Final

from hostd.core.plan import Plan

STRANGER: Final = "02:ff:ff:ff:ff:ff"
"""The station of a machine that belongs to nobody here."""


def station_of(node: str) -> str:
    """The MAC address of a node's interface in the LAN."""
    number = zlib.crc32(node.encode())  # not a sum of letters: n12 and n21 are two nodes
    return "02:00:" + number.to_bytes(4, "big").hex(":")


class Lan:
    """One switch, a port for each node, and a gateway that always answers."""

    __slots__ = ("blocked", "cut", "deaf", "no_tiebreaker", "strangers")

    def __init__(self, plan: Plan) -> None:
        self.cut: dict[str, bool] = dict.fromkeys(plan.nodes, False)
        self.deaf: dict[str, bool] = dict.fromkeys(plan.nodes, False)
        """Its port has carrier, and nothing passes: the switch behind it is dead."""
        self.no_tiebreaker: dict[str, bool] = dict.fromkeys(plan.nodes, False)
        """Nodes that the tiebreaker does not answer, though their port is well."""
        self.blocked = False
        """ARP does not pass between the nodes, though each sees the gateway."""
        self.strangers: dict[str, bool] = {}
        """Addresses that a stranger holds."""

    def passes(self) -> bool:
        """ARP between the nodes."""
        return not self.blocked and not any(map(self.is_off, self.cut))

    def is_off(self, node: str) -> bool:
        """Nothing passes between this node and the LAN."""
        return self.cut[node] or self.deaf[node]

    def mend(self) -> None:
        self.blocked = False
        self.strangers.clear()
        for node in self.cut:
            self.cut[node] = self.deaf[node] = self.no_tiebreaker[node] = False
