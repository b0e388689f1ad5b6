"""An exported agent under a real Pacemaker: one node, on a copy of this machine."""

import json
import re
import subprocess
import sys
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.edge.pacemaker_copy import PREPARE, PacemakerCopy, skip_without_pacemaker, wait_until

pytestmark = pytest.mark.long

RESOURCE = """<primitive id="web" class="ocf" provider="hostd" type="httpd">
<instance_attributes id="web-params">{params}</instance_attributes>
<operations>
<op id="web-start" name="start" interval="0" timeout="40s"/>
<op id="web-stop" name="stop" interval="0" timeout="60s"/>
<op id="web-monitor" name="monitor" interval="2s" timeout="20s">
<instance_attributes id="web-depth"><nvpair id="web-level" name="OCF_CHECK_LEVEL" value="10"/></instance_attributes>
</op>
</operations></primitive>"""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[PacemakerCopy]:
    """A cluster of one node that is online and needs no fencing."""
    skip_without_pacemaker()
    node = PacemakerCopy(tmp_path / "pacemaker", "pcmk1", {"pcmk1": "127.0.0.1"})
    try:
        node.wait_until_online()
        for name, value in (("stonith-enabled", "false"), ("no-quorum-policy", "ignore")):
            node.set_property(name, value)
        yield node
    finally:
        node.close()


def test_pacemaker_runs_monitors_recovers_and_stops_our_httpd(cluster: PacemakerCopy) -> None:
    """Started and serving; its killed parent is noticed with our reason, and recovered; stopped without a trace."""
    made = cluster.run(sys.executable, "-c", PREPARE)
    assert made.returncode == 0, made.stderr
    params: dict[str, str] = json.loads(made.stdout)
    cluster.export("httpd")
    pairs = "".join(f'<nvpair id="web-{name}" name="{name}" value="{value}"/>' for name, value in params.items())
    cluster.add("resources", RESOURCE.format(params=pairs))

    def page() -> "subprocess.CompletedProcess[str]":
        port = urllib.parse.urlsplit(params["url"]).port
        fetch = f"import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:{port}/', timeout=5).read())"
        return cluster.run(sys.executable, "-c", fetch)

    def started() -> bool:
        return cluster.is_started("web")

    wait_until(started, "it is not started")
    assert "sandbox" in page().stdout
    parent = cluster.run("pgrep", "-o", "-f", f"apache2 -f {params['config']}").stdout.strip()
    assert cluster.run("kill", "-9", parent).returncode == 0
    wait_until(lambda: "the parent process is gone" in cluster.failures(), "the crash is not noticed")
    wait_until(lambda: started() and "sandbox" in page().stdout, "it is not recovered")
    cluster.run("crm_resource", "-r", "web", "-m", "-p", "target-role", "-v", "Stopped")
    wait_until(lambda: bool(re.search(r"web.*Stopped", cluster.state())), "it is not stopped")
    assert cluster.run("pgrep", "-f", params["config"]).stdout == ""
    assert page().returncode != 0
