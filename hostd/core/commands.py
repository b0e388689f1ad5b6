"""May the operator have that?  Decides whether a command is taken, and which
wish it becomes.

From: the plan, who is a member, who runs what.  Refuses to know how a wish
is carried out.
"""

import msgspec

from hostd.core.effects import Refusal
from hostd.core.events import (
    AnyCommand,
    CleanUp,
    MoveService,
    SetMaintenance,
    SetStandby,
    StartService,
    StopService,
)
from hostd.core.plan import Plan
from hostd.core.snapshot import WishKind


class Scene(msgspec.Struct, frozen=True):
    """What a command is judged against."""

    plan: Plan
    members: tuple[str, ...]
    """Nodes that may run services now."""
    current: dict[str, tuple[str, ...]]
    banned: dict[str, tuple[str, ...]]
    stopped: tuple[str, ...]


class Taken(msgspec.Struct, frozen=True):
    """The wish that a command becomes; ``node``: for a move, where to."""

    kind: WishKind
    subject: str
    value: str
    node: str = ""


def judge(command: AnyCommand, scene: Scene) -> Taken | Refusal:
    """The wish, or why not.  ConfirmDown, Leave and Detach are no wishes and
    are judged where the pair is known."""
    known = [service.name for service in scene.plan.services]
    match command:
        case SetStandby():
            if command.node not in scene.plan.nodes:
                return Refusal.UNKNOWN_NODE
            return Taken(WishKind.STANDBY, command.node, "yes" if command.standby else "")
        case SetMaintenance():
            if command.service and command.service not in known:
                return Refusal.UNKNOWN_SERVICE
            return Taken(WishKind.MAINTENANCE, command.service, "yes" if command.on else "")
        case StopService() | StartService() | CleanUp() | MoveService() if command.service not in known:
            return Refusal.UNKNOWN_SERVICE
        case StopService():
            return Taken(WishKind.STOPPED, command.service, "yes")
        case StartService():
            return Taken(WishKind.STOPPED, command.service, "")
        case CleanUp():
            return Taken(WishKind.CLEANUP, command.service, "yes")
        case MoveService():
            return _move(command, scene)
        case _:
            raise AssertionError(command)


def _move(command: MoveService, scene: Scene) -> Taken | Refusal:
    service = scene.plan.service(command.service)
    if service.everywhere:
        return Refusal.RUNS_EVERYWHERE
    if service.name in scene.stopped:
        return Refusal.SERVICE_STOPPED
    here = scene.current.get(service.name, ())
    target = command.node
    if target and target not in scene.plan.nodes:
        return Refusal.UNKNOWN_NODE
    if target and target not in service.candidates:
        return Refusal.NOT_A_CANDIDATE
    if not target:
        others = [node for node in service.candidates if node not in here]
        if not others:
            return Refusal.NO_OTHER_NODE
        target = others[0]
    if target in here:
        return Refusal.ALREADY_THERE
    if target not in scene.members or target in scene.banned.get(service.name, ()):
        return Refusal.NODE_NOT_ELIGIBLE
    return Taken(WishKind.MOVED, service.name, target, node=target)
