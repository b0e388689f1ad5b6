"""The shared disk of a cluster whose fencing is of the storage: who is registered with it.

Decides whom the disk lets write.  A key stays when its node loses power, and
is gone when the other node has removed it; who is not registered removes
nobody (SPC-4: PREEMPT wants a registration).  Knows neither services nor why.
"""

from typing import Final

from hostd.core.plan import Plan

AGENT: Final = "scsi_reservation"
"""Of a service on all nodes, it registers its node: what is on the disk requires that service."""


class Disk:
    """One disk; nothing is registered at first."""

    __slots__ = ("keys", "registrars")

    def __init__(self, plan: Plan) -> None:
        self.keys = dict.fromkeys(plan.nodes, False)
        self.registrars = tuple(
            s.name for s in plan.services if s.everywhere and any(r.agent == AGENT for r in s.resources)
        )

    def register(self, node: str) -> None:
        self.keys[node] = True

    def leave(self, node: str) -> None:
        self.keys[node] = False

    def cut(self, node: str, *, by: str) -> bool:
        """``by`` removes the key of ``node``; False if the disk refuses.

        Whoever has lost his key may not take it back this way; a disk with
        which nobody is registered may be taken by anybody.
        """
        if not self.keys[by] and any(self.keys.values()):
            return False
        self.keys[by], self.keys[node] = True, False
        return True
