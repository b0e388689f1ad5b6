"""The ``systemd`` agent under a real systemd: a job that waits is pending and not failed; a failed unit is failed.

Two units on both nodes.  ``gated`` requires a one-shot unit that takes as long
as a file says, so that its own start job waits so long; another file says how
long its own start takes.  ``fragile`` starts
only as long as nobody has broken it, and systemd would restart it for ever.
"""

import re

import pytest

from tests.machines.cluster import WITHIN_S, Cluster, Service, Settings
from tests.machines.guest import Guest
from tests.machines.pair import Pair
from tests.machines.steps import note, step

pytestmark = pytest.mark.long

GATED = Service(
    "gated",
    "clustnode1",
    "172.23.2.13",
    'agent = "systemd:gated"\ntimeout = { start = "200s", stop = "100s" }\nmonitor = { timeout = "200s" }',
)
FRAGILE = Service(
    "fragile", "clustnode1", "172.23.2.14", 'agent = "systemd:fragile"\nrestarts = { limit = 3, within = "10m" }'
)
SETTINGS = Settings(services=(GATED, FRAGILE))

LONG_S = 40
"""How long a start job waits: far longer than a monitor's interval, and than systemd takes for anything else."""

UNITS = {
    "gate": (
        "[Unit]\nDescription=Takes as long as a file says\n"
        "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'sleep $(cat /run/gate || echo 0)'\n"
    ),
    "gated": (
        "[Unit]\nDescription=Waits for the gate\nRequires=gate.service\nAfter=gate.service\n"
        "[Service]\nExecStartPre=/bin/sh -c 'sleep $(cat /run/slow || echo 0)'\nExecStart=/bin/sleep infinity\n"
    ),
    "fragile": (
        "[Unit]\nDescription=Starts unless it is broken\n"
        "[Service]\nType=exec\nExecStartPre=/bin/sh -c 'if [ -e /run/broken ]; then echo it is broken; exit 7; fi'\n"
        "ExecStart=/bin/sleep infinity\nRestart=always\nRestartSec=1\n"
    ),
}


@pytest.fixture(scope="module")
def cluster(pair: Pair) -> Cluster:
    """The units are there, hostd is started, both run on the first node."""
    for node in pair.nodes:
        for name, text in UNITS.items():
            node.write(f"/etc/systemd/system/{name}.service", text)
        node.sh("systemctl daemon-reload")
    made = Cluster(pair, SETTINGS)
    made.configure()
    made.start()
    return made


def main_pid(node: Guest, unit: str) -> int:
    """0: it has none."""
    return int(node.sh(f"systemctl show -P MainPID {unit}"))


def entry(cluster: Cluster, service: str) -> tuple[str, int]:
    """State and failures of a service, as the second node says; it has nothing to do with most of them."""
    found = cluster.status(cluster.pair.node2)["services"][service]
    return found["state"], found["failures"]


class Pending:
    """Looks at ``gated`` until it runs on a node, after its unit was seen in a pending state there."""

    def __init__(self, cluster: Cluster, node: Guest, wanted: str) -> None:
        """``wanted``: state and job of the unit, such as ``inactive, start waiting``."""
        self._cluster, self._node, self._wanted = cluster, node, wanted
        self.units: set[str] = set()
        """What systemd has said of the unit."""
        self.states: set[str] = set()
        """What hostd has said of the service."""
        self.failures = 0

    def runs(self) -> bool:
        """To be asked again and again."""
        state, *job = self._node.sh(
            "systemctl show -P ActiveState gated; systemctl list-jobs --plain --no-legend gated.service"
        ).split()
        unit = f"{state}, {' '.join(job[2:])}" if job[1:2] == ["gated.service"] else state
        service, failures = entry(self._cluster, "gated")
        self.units.add(unit)
        self.states.add(service)
        self.failures = max(self.failures, failures)
        is_here = self._cluster.owners(self._cluster.pair.node2)["gated"] == self._node.name
        return self._wanted in self.units and unit == "active" and service == "running" and is_here

    def show(self) -> None:
        note(f"systemd: {'; '.join(sorted(self.units))}; hostd: {', '.join(sorted(self.states))}")


def test_a_start_job_that_waits_long_is_pending(cluster: Cluster) -> None:
    """Moved to a node where its job waits for another unit, it is starting all the while, and never failed."""
    node = cluster.pair.node2
    node.sh(f"echo {LONG_S} > /run/gate")
    watched = Pending(cluster, node, "inactive, start waiting")
    with step(f"moved to {node.name}, where its start job waits {LONG_S} s"):
        node.background("hostd move gated clustnode2")
        took_s = cluster.wait_until(watched.runs, f"gated runs on {node.name}, after its job waited")
    watched.show()
    assert took_s >= LONG_S
    assert "starting" in watched.states
    assert not watched.states - {"running", "stopping", "stopped", "starting"}
    assert watched.failures == 0


def test_a_unit_that_somebody_restarts_slowly_stays_where_it_is(cluster: Cluster) -> None:
    """``systemctl restart`` behind hostd's back: its process has ended, which counts; hostd's own start there waits
    with systemd's job, and nothing moves."""
    node = cluster.pair.node2
    before = main_pid(node, "gated")
    node.sh(f"echo 0 > /run/gate; echo {LONG_S} > /run/slow")
    watched = Pending(cluster, node, "activating, start running")
    with step(f"systemctl restart, which takes {LONG_S} s"):
        node.background("systemctl restart gated")
        took_s = cluster.wait_until(watched.runs, "gated has been restarted")
    watched.show()
    assert took_s >= LONG_S and main_pid(node, "gated") not in (0, before)
    assert not watched.states - {"running", "recovering", "starting"}
    assert watched.failures <= 1, "somebody's own restart, and nothing that came of it"


def test_a_killed_unit_is_failed_and_restarted_by_hostd_alone(cluster: Cluster) -> None:
    """``Restart=always`` is put out of force: hostd notices at once, counts the failure and starts it again there."""
    node = cluster.pair.node1
    before = main_pid(node, "fragile")
    with step("kill -9 of the unit's main process"):
        node.sh(f"kill -9 {before}")
        cluster.wait_until(
            lambda: main_pid(node, "fragile") not in (0, before) and entry(cluster, "fragile") == ("running", 1),
            "it is restarted and counted",
        )
    assert node.sh("systemctl show -P NRestarts fragile") == "0"
    assert cluster.owners(node)["fragile"] == node.name


def test_a_unit_that_does_not_start_any_more_moves(cluster: Cluster) -> None:
    """Killed and broken, it is failed with systemd's reason and the unit's own last words, and runs on the other node;
    after the cure and ``hostd cleanup`` it may come back."""
    node, other = cluster.pair.nodes
    untouched = main_pid(other, "gated")
    with step("it is broken and killed, and runs on the other node"):
        node.sh("touch /run/broken")
        node.sh(f"kill -9 {main_pid(node, 'fragile')}")
        cluster.wait_until(lambda: cluster.owners(other)["fragile"] == other.name, "it runs on the other node")
    why = node.sh("hostd why fragile; hostd status || true")
    note(why)
    told = node.sh("journalctl -u hostd --no-pager -o cat")
    assert re.search(r"fragile\.service is failed .*exit.code", told) and "it is broken" in told
    assert "fragile" in why
    assert node.run("systemctl is-failed -q fragile").status != 0, "what has failed is cleared away"
    with step("cured, cleaned up and moved back"):
        node.sh("rm /run/broken; hostd cleanup fragile", timeout_s=WITHIN_S)
        node.sh("hostd move fragile clustnode1", timeout_s=WITHIN_S)
        cluster.wait_until(lambda: cluster.owners(other)["fragile"] == node.name, "it is back")
    assert main_pid(other, "gated") == untouched
