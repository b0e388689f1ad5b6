"""Random schedules over a site's own plan, from seeds.

Decides how a seed becomes a schedule for this plan, and how long its faults
may last; what is wrong is the judge's to say.
"""

import msgspec

from hostd.sim import draws
from hostd.sim.faults import Schedule
from hostd.sim.replay import OVER_MS, make_brain
from hostd.sim.run import Verdict, simulate
from hostd.sim.whatif import Site
from hostd.sim.world import Observer


class Outcome(msgspec.Struct):
    """What came of many schedules."""

    runs: int = 0
    virtual_ms: int = 0
    harmed: list[Verdict] = []

    def add(self, verdict: Verdict) -> None:
        self.runs += 1
        self.virtual_ms += verdict.at_ms
        if verdict.harm:
            self.harmed.append(verdict)


def over_ms(site: Site) -> int:
    """Faults fall within this span: some deadtimes long, whatever the site's are."""
    return max(OVER_MS, 15 * site.plan.timers.deadtime_ms)


def drawn(site: Site, seed: int) -> Schedule:
    """The same seed and conf.d draw the same."""
    return draws.draw(seed, site.plan, faults=4 + seed % 17, over_ms=over_ms(site))


def play(site: Site, seed: int, observers: tuple[Observer, ...] = ()) -> Verdict:
    """Play the schedule of this seed, heal everything, wait until all is well."""
    schedule = drawn(site, seed)
    return simulate(
        site.plan, schedule, seed, make_brain, over_ms=over_ms(site), observers=observers, on_lan=site.on_lan
    )
