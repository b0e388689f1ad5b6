"""A hostd that stands still, and which nobody can fence: systemd's watchdog for it, and the i6300esb's.

The unit's own (``WatchdogSec=``) is the quicker of the two here, so it is
put out of force where the hardware's is to be seen.
"""

import pytest

from tests.machines.cluster import Cluster, Settings
from tests.machines.guest import Guest
from tests.machines.steps import note, step
from tests.machines.undisturbed import processes

TIMEOUT_S = 40
SETTINGS = Settings(fenced=True, further=f'[watchdog]\ndevice = "/dev/watchdog"\ntimeout = "{TIMEOUT_S}s"\n')
KERNEL = "/sys/class/watchdog/watchdog0/state"
FREEZE = "pkill -STOP -x 'hostd(-heart|-brain)?'"

pytestmark = pytest.mark.long


def assert_armed(cluster: Cluster, node: Guest) -> None:
    """By hostd's word and the kernel's."""
    said = cluster.status(node)["watchdog"]
    assert (said["armed"], said["timeout_ms"]) == (True, TIMEOUT_S * 1000) and "6300" in said["identity"], said
    assert node.sh(f"cat {KERNEL}") == "active"


def test_a_frozen_hostd_is_restarted_by_systemd(cluster: Cluster) -> None:
    """All of it stands still: systemd kills and restarts it, its services are found; no reset, nothing moves."""
    pair, (peer, victim) = cluster.pair, cluster.pair.nodes
    assert_armed(cluster, victim)
    pair.switch.works = False
    before = processes(cluster)
    victim.monitor.take_events()
    with step("all of hostd is stopped, and there again"):
        victim.sh(FREEZE)
        victim.until("systemctl is-active -q hostd && [ $(systemctl show -P NRestarts hostd) = 1 ]", within_s=300)
        cluster.wait_for(cluster.primaries)
    note(f"the switch was told: {pair.switch.shots}")
    assert "WATCHDOG" not in victim.monitor.take_events()
    assert processes(cluster) == before
    assert cluster.node_states(peer) == ["online", "online"]
    assert_armed(cluster, victim)


def test_a_machine_whose_hostd_stands_still_resets_itself(cluster: Cluster) -> None:
    """Fencing is lost, so nothing is taken over; the reset comes within the watchdog's time, and all is well again."""
    pair, (peer, victim) = cluster.pair, cluster.pair.nodes
    for node in pair.nodes:
        node.write("/etc/systemd/system/hostd.service.d/watchdog.conf", "[Service]\nWatchdogSec=0\n")
        node.sh("systemctl daemon-reload; systemctl restart hostd; systemctl enable -q hostd; sync", timeout_s=300)
    cluster.wait_for(cluster.primaries)
    assert_armed(cluster, victim)
    pair.switch.works = False
    victim.monitor.take_events()
    with step("all of hostd is stopped, the machine resets"):
        victim.sh(FREEZE)
        victim.monitor.wait_for_event("WATCHDOG", within_s=TIMEOUT_S * 4)
        assert cluster.owners(peer)["idle"] != peer.name
    with step("booted, and every service on its primary"):  # the switch refuses still: nobody shoots what boots
        victim.wait()
        cluster.wait_for(cluster.primaries)
    assert_armed(cluster, victim)
    pair.switch.works = True


def test_a_stop_in_good_order_lets_it_go(cluster: Cluster) -> None:
    """The watchdog is disarmed by ``systemctl stop hostd``: no reset follows."""
    node = cluster.pair.node2
    assert_armed(cluster, node)
    node.monitor.take_events()
    with step("systemctl stop hostd, and longer than the watchdog's time"):
        node.sh(f"systemctl stop hostd; sleep {TIMEOUT_S + 20}", timeout_s=600)
    assert "WATCHDOG" not in node.monitor.take_events()
    assert node.sh(f"cat {KERNEL}") == "inactive"
    node.sh("systemctl start hostd", timeout_s=300)
    cluster.wait_for(cluster.primaries)
