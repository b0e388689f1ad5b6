"""An exported agent under a real Pacemaker of two nodes, with an address: moved, and taken over after a power cut."""

import contextlib
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.edge.namespaces import ip
from tests.edge.pacemaker_copy import PREPARE, PacemakerCopy, skip_without_pacemaker, wait_until

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

ADDRESSES = {"pcmk1": "10.77.0.1", "pcmk2": "10.77.0.2"}
SERVICE = "10.77.0.16"
CLIENT = "10.77.0.254"

GROUP = """<group id="site">
<primitive id="vip" class="ocf" provider="heartbeat" type="IPaddr2">
<instance_attributes id="vip-params">
<nvpair id="vip-ip" name="ip" value="{address}"/><nvpair id="vip-mask" name="cidr_netmask" value="24"/>
</instance_attributes>
<operations><op id="vip-monitor" name="monitor" interval="5s" timeout="20s"/></operations>
</primitive>
<primitive id="web" class="ocf" provider="hostd" type="httpd">
<instance_attributes id="web-params">
<nvpair id="web-config" name="config" value="/run/web/httpd.conf"/>
<nvpair id="web-url" name="url" value="http://{address}:8080/"/>
</instance_attributes>
<operations>
<op id="web-start" name="start" interval="0" timeout="40s"/>
<op id="web-stop" name="stop" interval="0" timeout="60s"/>
<op id="web-monitor" name="monitor" interval="5s" timeout="20s">
<instance_attributes id="web-depth"><nvpair id="web-level" name="OCF_CHECK_LEVEL" value="10"/></instance_attributes>
</op>
</operations>
</primitive>
</group>"""


class Pair:
    """Two nodes and a client on one switch."""

    def __init__(self) -> None:
        self.switch = f"hostd-pcmk-{os.getpid()}"
        self.nodes: list[PacemakerCopy] = []

    def build(self, folder: Path) -> None:
        ip("netns", "add", self.switch)
        ip("-n", self.switch, "link", "add", "lan", "type", "bridge")
        ip("-n", self.switch, "address", "add", f"{CLIENT}/24", "dev", "lan")
        ip("-n", self.switch, "link", "set", "lan", "up")
        for name in ADDRESSES:
            self.nodes.append(PacemakerCopy(folder / name, name, ADDRESSES))
            self._plug(self.nodes[-1])

    def _plug(self, node: PacemakerCopy) -> None:
        peer = ("peer", "name", "eth0", "netns", str(node.init))
        ip("-n", self.switch, "link", "add", node.name, "type", "veth", *peer)
        ip("-n", self.switch, "link", "set", node.name, "master", "lan", "up")
        assert node.run("ip", "link", "set", "eth0", "up").returncode == 0
        assert node.run("ip", "address", "add", f"{node.address}/24", "dev", "eth0").returncode == 0

    def page(self) -> str:
        """What the client sees at the service's address; "" for nothing."""
        fetch = f"import urllib.request; print(urllib.request.urlopen('http://{SERVICE}:8080/', timeout=3).read())"
        return ip("netns", "exec", self.switch, sys.executable, "-c", fetch, check=False)

    def cut_power(self, node: PacemakerCopy) -> None:
        """All of its processes are killed at once, and its network is gone with them."""
        self.nodes.remove(node)
        node.close()

    def close(self) -> None:
        with contextlib.ExitStack() as stack:  # each, whatever happens to the others
            stack.callback(ip, "netns", "delete", self.switch)
            for node in self.nodes:
                stack.callback(node.close)


def make_site(node: PacemakerCopy) -> None:
    """Apache's configuration at the service's address, and a page that names the node."""
    made = node.run(sys.executable, "-c", PREPARE)
    assert made.returncode == 0, made.stderr
    path = json.loads(made.stdout)["config"]
    text = node.run("cat", path).stdout
    node.file(path, re.sub(r"(?m)^Listen .*$", f"Listen {SERVICE}:8080", text))
    node.file("/run/web/htdocs/index.html", f"this is {node.name}\n")


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    """Both online; without fencing, so that a lost node counts as off."""
    skip_without_pacemaker()
    pair = Pair()
    try:
        pair.build(tmp_path)
        for node in pair.nodes:
            node.wait_until_online()
            make_site(node)
            node.export("httpd")
        for name, value in (("stonith-enabled", "false"), ("no-quorum-policy", "ignore")):
            pair.nodes[0].set_property(name, value)
        yield pair
    finally:
        pair.close()


def test_pacemaker_moves_our_httpd_and_takes_it_over(pair: Pair) -> None:
    """Started with its address; moved by name and by standby; after a power cut it serves on the other node."""
    first, second = pair.nodes
    first.add("resources", GROUP.format(address=SERVICE))
    wait_until(lambda: any(node.is_started("web") for node in pair.nodes), "not started", first.failures)

    assert first.run("crm_resource", "--move", "-r", "site", "-N", "pcmk2").returncode == 0
    served_by(pair, second)
    assert first.run("pgrep", "-f", "/run/web/httpd.conf").stdout == "", "nothing is left where it was"
    assert first.run("crm_resource", "--clear", "-r", "site").returncode == 0

    assert first.run("crm_standby", "-N", "pcmk2", "-v", "on").returncode == 0
    served_by(pair, first)
    assert second.run("pgrep", "-f", "/run/web/httpd.conf").stdout == "", "nothing is left where it was"
    assert first.run("crm_standby", "-N", "pcmk2", "-D").returncode == 0

    pair.cut_power(first)
    served_by(pair, second)
    assert "Failed Resource Actions" not in second.failures()


def served_by(pair: Pair, node: PacemakerCopy) -> None:
    """Pacemaker says so, and the client sees it at the service's address."""
    wait_until(lambda: node.is_started("web"), f"not started on {node.name}", node.failures, 90)
    wait_until(lambda: f"this is {node.name}" in pair.page(), f"the client does not see {node.name}", pair.page)
