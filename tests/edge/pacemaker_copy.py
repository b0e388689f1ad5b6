"""A copy of this machine that is a node of Pacemaker's cluster: corosync and pacemakerd, with files of their own.

Decides how the two are configured and started, and asks Pacemaker by its own
commands.  It knows no resource.
"""

import re
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.contracts.machine_copy import MachineCopy

INIT = """
ip link set lo up
hostname {name}
mount -t tmpfs none /dev/shm
mount -t tmpfs none /etc/corosync
for folder in corosync pacemaker; do mount -t tmpfs none /var/lib/$folder; done
mkdir -p /run/crm /run/resource-agents /var/log/pacemaker /var/lib/pacemaker/blackbox /var/lib/pacemaker/cib \
    /var/lib/pacemaker/cores /var/lib/pacemaker/pengine
chown -R hacluster:haclient /run/crm /var/log/pacemaker /var/lib/pacemaker
cat > /etc/corosync/corosync.conf <<END
totem {{
    version: 2
    cluster_name: lab
    transport: udpu
    token: 5000
    crypto_cipher: none
    crypto_hash: none
}}
nodelist {{
{nodes}
}}
quorum {{
    provider: corosync_votequorum
    two_node: {is_pair}
    wait_for_all: 0
}}
logging {{
    to_stderr: yes
    to_syslog: no
}}
END
until ip -4 -o address | grep -q "inet {address}/"; do sleep 0.1; done
corosync -f &
until corosync-quorumtool > /dev/null 2>&1; do sleep 0.2; done
PCMK_logfile=/var/log/pacemaker/pacemaker.log PCMK_logfacility=none exec pacemakerd -f
"""

NODE = "    node {{\n        ring0_addr: {address}\n        name: {name}\n        nodeid: {number}\n    }}"

PREPARE = (
    "import json, pathlib, sys; from hostd.config import Directories; from hostd.registry import Registry;"
    "site = pathlib.Path('/run/web'); site.mkdir();"
    "print(json.dumps(Registry.load(Directories(), system=site / 'none').agent('httpd').sandbox(site)))"
)
"""Makes a private instance of httpd in the copy and prints its parameters."""


def skip_without_pacemaker() -> None:
    if shutil.which("pacemakerd") is None:
        pytest.skip("pacemaker is not installed, and its units are not for a machine that is used otherwise")


class PacemakerCopy(MachineCopy):
    """Its daemons come up as soon as it has its address; ``wait_until_online`` waits for them."""

    def __init__(self, folder: Path, name: str, addresses: Mapping[str, str]) -> None:
        """``addresses``: of all nodes by name, its own among them."""
        self.name, self.address, self._all = name, addresses[name], sorted(addresses)
        nodes = "\n".join(
            NODE.format(address=address, name=node, number=number)
            for number, (node, address) in enumerate(addresses.items(), 1)
        )
        init = INIT.format(name=name, nodes=nodes, address=self.address, is_pair=int(len(addresses) == 2))
        super().__init__(folder, init, lambda _: True)

    def wait_until_online(self) -> None:
        """All nodes are online, as this one sees it."""
        expected = rf"Online: \[ {' '.join(self._all)} \]"
        wait_until(lambda: bool(re.search(expected, self.state())), f"{self._all} are not online", self.state, 90)

    def state(self) -> str:
        """What crm_mon says."""
        return self.run("crm_mon", "-1", "--inactive").stdout

    def failures(self) -> str:
        """The same, with what failed."""
        return self.run("crm_mon", "-1", "--inactive", "-f").stdout

    def set_property(self, name: str, value: str) -> None:
        done = self.run("crm_attribute", "-t", "crm_config", "-n", name, "-v", value)
        assert done.returncode == 0, done.stderr

    def add(self, kind: str, xml: str) -> None:
        """Add this to a section of the cluster's configuration."""
        done = self.run("cibadmin", "-o", kind, "-M", "-c", "-X", xml)
        assert done.returncode == 0, done.stderr

    def export(self, agent: str) -> None:
        """Write our agent where Pacemaker finds it."""
        done = self.run(sys.executable, "-m", "hostd.commands.agent_main", "export", agent)
        assert done.stdout.strip() == f"/usr/lib/ocf/resource.d/hostd/{agent}", done.stderr

    def is_started(self, resource: str) -> bool:
        """Does it run on this node, as any node says?"""
        return bool(re.search(rf"{resource}.*Started {self.name}\b", self.state()))


def wait_until(holds: Callable[[], bool], what: str, shown: Callable[[], str] = str, seconds: float = 60) -> None:
    """Fails with ``what``, and with what ``shown`` says by then."""
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, f"{what}\n{shown()}"
        time.sleep(0.2)
