"""The example of the mission, from Heartbeat's three files to a takeover: two nodes of the lab."""

import json
import shutil
from pathlib import Path

import pytest

from tests.lab.lab import Lab, wait_until
from tests.lab.node import Node

HA_CF = """\
keepalive 100ms
warntime 500ms
deadtime 2
initdead 4
baud 115200
serial /dev/ttyS0
bcast eth1
ucast eth0 172.23.2.11
ucast eth0 172.23.2.12
auto_failback on
ping 172.23.2.1
node clustnode1 clustnode2
respawn hacluster /usr/lib/heartbeat/ipfail
"""
HARESOURCES = """\
clustnode2 172.23.2.13
clustnode1 172.23.2.14/24/eth0
clustnode2 IPaddr2::172.23.2.15/24/eth0
"""
PRIMARIES = {"172-23-2-13": "clustnode2", "172-23-2-14": "clustnode1", "172-23-2-15": "clustnode2"}


def owners(node: Node) -> dict[str, str]:
    """Where each address is, as the node says; empty text: nowhere."""
    done = node.hostd("status", "--json", check=False)
    services = json.loads(done.stdout)["services"] if done.returncode in (0, 1) else {}
    return {name.removeprefix("address-"): entry["node"] for name, entry in services.items()}


@pytest.mark.lab
def test_an_imported_cluster_starts_on_its_primaries_and_takes_over(lab: Lab, tmp_path: Path) -> None:
    """Imported on one node, copied to the other, started: primaries as in haresources, and after a power cut
    everything on the other node."""
    ha_d = tmp_path / "etc" / "ha.d"
    ha_d.mkdir(parents=True)
    (ha_d / "ha.cf").write_text(HA_CF)
    (ha_d / "haresources").write_text(HARESOURCES)
    lab.node1.hostd("import", str(ha_d), "-o", "/etc/hostd/conf.d")
    shutil.copytree(lab.node1.config / "conf.d", lab.node2.config / "conf.d")
    for node in lab.nodes:
        node.start_hostd()
    for node in lab.nodes:
        wait_until(lambda node=node: owners(node) == PRIMARIES, f"{node.name} sees the primaries", within_s=30)
    lab.power_off(lab.node2)
    alone = dict.fromkeys(PRIMARIES, "clustnode1")
    wait_until(lambda: owners(lab.node1) == alone, "clustnode1 has all addresses", within_s=30)
