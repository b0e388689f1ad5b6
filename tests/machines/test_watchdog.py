"""The i6300esb watchdog: a machine whose hostd stands still, and which nobody can fence, resets itself."""

import pytest

from tests.machines.cluster import Cluster, Settings
from tests.machines.steps import step

TIMEOUT_S = 30
SETTINGS = Settings(fenced=True, further=f'[watchdog]\ndevice = "/dev/watchdog"\ntimeout = "{TIMEOUT_S}s"\n')

pytestmark = [pytest.mark.long]


def test_a_machine_whose_hostd_stands_still_resets_itself(cluster: Cluster) -> None:
    """Fencing is lost, so nothing is taken over; the reset comes within the watchdog's time, and all is well again."""
    pair, (peer, victim) = cluster.pair, cluster.pair.nodes
    for node in pair.nodes:
        node.sh("systemctl enable -q hostd; fuser -s /dev/watchdog0")
    pair.switch.works = False
    victim.monitor.take_events()
    with step("all of hostd is stopped, the machine resets"):
        victim.sh("pkill -STOP -x 'hostd|hostd-heart|hostd-brain'")
        victim.monitor.wait_for_event("WATCHDOG", within_s=TIMEOUT_S * 4)
        assert cluster.owners(peer)["idle"] != peer.name
    pair.switch.works = True
    with step("booted, and every service on its primary"):
        victim.wait()
        cluster.wait_for(cluster.primaries)


def test_a_stop_in_good_order_lets_it_go(cluster: Cluster) -> None:
    """The watchdog is disarmed by ``systemctl stop hostd``: no reset follows."""
    node = cluster.pair.node2
    node.sh("fuser -s /dev/watchdog0")
    node.monitor.take_events()
    with step("systemctl stop hostd, and longer than the watchdog's time"):
        node.sh(f"systemctl stop hostd; sleep {TIMEOUT_S * 2}", timeout_s=600)
    assert "WATCHDOG" not in node.monitor.take_events()
    node.sh("systemctl start hostd", timeout_s=300)
    cluster.wait_for(cluster.primaries)
