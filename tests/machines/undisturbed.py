"""Services that something done to their machines must not touch.

Decides what "untouched" means: the same processes, the same owners of the
addresses as a station on the client LAN sees them, and no address away for
longer than emulated processors stall anyhow.
"""

import time

from tests.machines.cluster import IDLE, WEB, Cluster
from tests.machines.steps import note

SILENCE_S = 10.0
"""A service's address that is not answered for so long has been away; emulated processors stall for seconds."""

CGROUP = "/sys/fs/cgroup/system.slice/hostd.service"


def processes(cluster: Cluster) -> dict[str, list[int]]:
    """The processes of all services per node that has power."""
    script = f"cat {CGROUP}/hostd-*/service-*/*/cgroup.procs 2> /dev/null"
    nodes = [node for node in cluster.pair.nodes if node.is_on]
    return {node.name: [int(pid) for pid in node.run(script).output.split()] for node in nodes}


class Undisturbed:
    """What must not change from now on: the services' processes, and who answers for their addresses."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        cluster.pair.station.watch([WEB.address, IDLE.address])
        self._processes = processes(cluster)
        self._began_s = time.monotonic()
        assert all(self._processes.values()), self._processes

    def assert_holds(self) -> None:
        """Nothing was stopped, started, moved or away."""
        station = self._cluster.pair.station
        assert processes(self._cluster) == self._processes, self._cluster.picture()
        assert station.owners_since(self._began_s) == {WEB.address: [WEB.primary], IDLE.address: [IDLE.primary]}
        silences = {a: station.longest_silence_s(a, self._began_s) for a in (WEB.address, IDLE.address)}
        note(f"longest silence of an address: {max(silences.values()):.1f} s")
        assert max(silences.values()) < SILENCE_S, silences
