"""One resource of a service on this node: its state, and what it waits for.

Decides nothing; ``services`` climbs it.
"""

import enum

from hostd.core.plan import Resource
from hostd.core.terms import ResourceState


class Asked(enum.Enum):
    """What a rung waits for."""

    PROBE = 1
    START = 2
    STOP = 3
    VERIFY = 4


class Rung:
    """One resource of the service on this node."""

    __slots__ = (
        "announce_id", "announced", "asked", "degraded", "monitor_at_ms", "monitor_id", "request_id", "resource",
        "state", "verified",
    )  # fmt: skip

    def __init__(self, resource: Resource, state: ResourceState) -> None:
        self.resource = resource
        self.state = state
        self.asked: Asked | None = None
        self.request_id: int | None = None
        self.monitor_id: int | None = None
        self.monitor_at_ms: int | None = None
        self.announce_id: int | None = None
        self.announced = False
        self.verified = False
        self.degraded = False

    def ask(self, asked: Asked, request_id: int) -> None:
        assert asked is Asked.STOP or self.request_id is None, (self.resource.id, self.asked, asked)
        self.asked, self.request_id = asked, request_id
        self.monitor_id = None  # a monitor under way is overtaken; its outcome counts no more

    def turn(self, state: ResourceState) -> None:
        self.state, self.asked, self.request_id = state, None, None
        if state is not ResourceState.RUNNING:
            self.announced = self.verified = self.degraded = False
            self.announce_id = None


def found(resource: Resource, present: tuple[str, ...]) -> ResourceState:
    """The state to begin with: an address is seen, anything else has to be asked."""
    if not resource.address:
        return ResourceState.UNKNOWN
    return ResourceState.RUNNING if resource.address in present else ResourceState.STOPPED
