"""An agent breaks on one node: its service is set aside there, and never runs twice."""

import pytest

from tests.lab.cluster import Cluster, LabService
from tests.lab.lab import Lab, always, wait_until
from tests.lab.node import Node

pytestmark = pytest.mark.lab

AGENT = '''"""A file is all that it starts."""
from pathlib import Path
from hostd.api import Health, hookimpl
UP = Path("/run/frail-is-up")

@hookimpl
def start(resource): UP.touch()

@hookimpl
def stop(resource): UP.unlink(missing_ok=True)

@hookimpl
def monitor(resource): return Health.RUNNING if UP.exists() else Health.STOPPED
'''


def write_agent(node: Node, text: str) -> None:
    folder = node.config / "agents"
    folder.mkdir(exist_ok=True)
    (folder / "frail.py").write_text(text)


def start_anew(cluster: Cluster, node: Node) -> None:
    node.hostd("detach")
    cluster.start(node)
    cluster.wait_for_pair()


def test_a_service_whose_agent_breaks_stays_where_it_is(lab: Lab) -> None:
    """Its node's daemon restarts with the agent broken: the other services are adopted, this one is
    told as unknown, so that the other node starts no second one; once mended it is adopted as well."""
    web = LabService("web", "clustnode1", "172.23.2.14", 'agent = "dummy"')
    # without an address nobody could be asked on the LAN whether it runs
    frail = LabService("frail", "clustnode2", "172.23.2.13", 'agent = "frail"')
    cluster = Cluster(lab, [web, frail])
    text = frail.text.replace('address = "172.23.2.13/24"\n', "without_fencing = true\n")
    for node in lab.nodes:
        write_agent(node, AGENT)
        (node.config / "conf.d" / "frail.toml").write_text(text)
    cluster.up()

    write_agent(lab.node2, AGENT + "def (:\n")
    assert lab.node2.hostd("check", check=False).returncode == 1
    start_anew(cluster, lab.node2)
    wait_until(lambda: cluster.owners(lab.node1).get("web") == "clustnode1", "web runs on", within_s=10)
    always(
        lambda: lab.node1.run("test", "-e", "/run/frail-is-up", check=False).returncode != 0,
        "nobody starts a second one",
        for_s=3,
    )
    assert lab.node2.run("test", "-e", "/run/frail-is-up").returncode == 0
    for node in lab.nodes:
        assert cluster.status(node)["services"]["frail"]["state"] == "unknown"
        assert cluster.status(node)["services"]["frail"]["nodes"] == ["clustnode2"]
    codes = {problem["code"] for problem in cluster.status(lab.node2)["problems"]}
    assert "agent-broken" in codes
    assert "service-missing" in {problem["code"] for problem in cluster.status(lab.node1)["problems"]}

    write_agent(lab.node2, AGENT)
    start_anew(cluster, lab.node2)
    cluster.wait_for(cluster.primaries)
