"""What drills found of the fencing devices, for people.

Decides which word of a device can be believed: a node that lives and is said
to be off is another machine's outlet, or a lie, and a shot by that device
would be believed, too.  Refuses to know how a device is tried.
"""

import datetime
from collections import OrderedDict
from typing import Final

import msgspec

from hostd.config import FencingDevice
from hostd.core.terms import Incarnation
from hostd.messages import Drilled, Trial
from hostd.requests import DrillIs
from hostd.status_form import DeviceStatus

ASKED_MAX: Final = 16
"""Drills that operators asked for, kept for whoever comes back for the result."""
CURE: Final = "correct what its params say of {node} (plug, ip); until then a shot would prove nothing"


class Seen(msgspec.Struct, frozen=True):
    """A trial, and the life of the node that was heard when it came in; None: it was not heard."""

    trial: Trial
    life: Incarnation | None


class DrillBook:
    """One brain's.  ``me`` lives, as long as anybody reads this."""

    def __init__(self, me: str = "", peer: str = "", devices: tuple[FencingDevice, ...] = ()) -> None:
        self._me, self._peer, self._devices = me, peer, devices
        self._newest: dict[int, Seen] = {}
        """Of the peer's devices, by their number."""
        self._asked: OrderedDict[int, Drilled] = OrderedDict()

    def expect(self, drill_id: int, node: str) -> bool:
        """Somebody asks for one.  False if there is nothing to be tried; the answer says why."""
        detail = ""
        if node not in (self._me, self._peer):
            detail = f"there is no node {node}; there are {self._me} and {self._peer}"
        elif not any(node in device.nodes for device in self._devices):
            detail = f"there is no fencing device in conf.d that could power {node} off"
        self._asked[drill_id] = Drilled(drill_id, node, (), is_over=bool(detail), detail=detail)
        while len(self._asked) > ASKED_MAX:
            self._asked.popitem(last=False)
        return not detail

    def take(self, word: Drilled, life: Incarnation | None) -> None:
        """The host's word.  ``life``: of the peer if it is heard now."""
        if word.drill_id in self._asked:
            self._asked[word.drill_id] = word
        if word.node == self._peer:
            for trial in word.trials:
                known = self._newest.get(trial.device)
                if 0 <= trial.device < len(self._devices) and (known is None or known.trial.at < trial.at):
                    self._newest[trial.device] = Seen(trial, life)

    def answer(self, drill_id: int) -> DrillIs:
        """How far is it?"""
        word = self._asked.get(drill_id)
        if word is None:  # of an earlier brain
            return DrillIs(drill_id, is_over=True, detail="the daemon has restarted meanwhile; ask again")
        devices = tuple(
            device_status(trial, word.node, lives=word.node == self._me or self._lives(trial)) for trial in word.trials
        )
        return DrillIs(drill_id, word.is_over, devices, word.detail)

    def statuses(self, life: Incarnation | None) -> tuple[DeviceStatus, ...]:
        """Of every device for the peer, in the order of a shot.  ``life``: of the peer if it is heard now."""
        ours = [(number, device) for number, device in enumerate(self._devices) if self._peer in device.nodes]
        found = []
        for number, device in sorted(ours, key=lambda each: each[1].level):
            seen = self._newest.get(number)
            if seen is None:
                found.append(DeviceStatus(device.agent, self._peer, device.level))
            else:
                found.append(device_status(seen.trial, self._peer, lives=life is not None and seen.life == life))
        return tuple(found)

    def _lives(self, trial: Trial) -> bool:
        seen = self._newest.get(trial.device)
        return seen is not None and seen.trial == trial and seen.life is not None


def device_status(trial: Trial, node: str, *, lives: bool) -> DeviceStatus:
    """``lives``: the node has been alive from before the trial until now."""
    is_wrong = lives and trial.power == "off"
    return DeviceStatus(
        agent=trial.agent,
        node=node,
        level=trial.level,
        last=datetime.datetime.fromtimestamp(trial.at, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        ok=trial.ok and not is_wrong,
        power=trial.power,
        reason=f"it says that {node} is off, and {node} lives" if is_wrong else trial.reason,
        cure=CURE.format(node=node) if is_wrong else trial.cure,
        took_ms=trial.took_ms,
    )


def is_wrong(device: DeviceStatus) -> bool:
    """It answers, and says what cannot be."""
    return device.ok is False and device.power == "off"


def could_shoot(devices: tuple[DeviceStatus, ...]) -> bool:
    """No device is there to fail, or there is a level of which none is known to fail."""
    failing = {device.level for device in devices if device.ok is False}
    return not devices or any(device.level not in failing for device in devices)
