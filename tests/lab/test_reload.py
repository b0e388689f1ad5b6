"""A change of conf.d while everything runs: only what must be is touched, and only when both nodes know it."""

from collections.abc import Iterator

import pytest

from tests.lab.client import Ask
from tests.lab.cluster import CROSSOVER, LAN, LINK_TEXT, SERIAL, Cluster, LabService, Settings, apache
from tests.lab.lab import Lab, always, wait_until
from tests.lab.node import Node

pytestmark = pytest.mark.lab

TOKEN = "lab-secret-token"
DUMMY = 'agent = "dummy"\nparams = {{ process = true, seconds = {seconds}, token = "lab-secret-token" }}\n{more}'


def sleeping(service: str, primary: str, address: str, seconds: int = 1_000_000, more: str = "") -> LabService:
    """A service that is one process, with a parameter that shows in its command line."""
    return LabService(service, primary, address, DUMMY.format(seconds=seconds, more=more))


def write(cluster: Cluster, service: LabService, *nodes: Node) -> None:
    for node in nodes or cluster.lab.nodes:
        (node.config / "conf.d" / f"{service.name}.toml").write_text(service.text)


def processes(node: Node, seconds: int) -> list[int]:
    """Of the dummy's process with this parameter."""
    found = []
    for pid in node.processes():
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                words = file.read().split(b"\0")
        except OSError:
            continue
        if words[:2] == [b"sleep", str(seconds).encode()]:
            found.append(pid)
    return found


def problems(cluster: Cluster, node: Node) -> set[str]:
    return {problem["code"] for problem in cluster.status(node)["problems"]}


@pytest.fixture
def lab_cluster() -> Iterator[Cluster]:
    with Lab() as lab:
        web = apache(lab, "web", "clustnode2", "172.23.2.16")
        job = sleeping("job", "clustnode2", "172.23.2.13", 77001)
        other = sleeping("other", "clustnode1", "172.23.2.14", 77002)
        yield Cluster(lab, [web, job, other]).up()


def test_only_what_changed_is_touched_and_only_once_both_nodes_know_it(lab_cluster: Cluster) -> None:
    """New parameters of one service: after the reload of its node it goes on as it is; after that of the
    other it is stopped in the old way and started in the new one.  The rest keeps its processes, and a
    client sees no outage."""
    cluster, lab = lab_cluster, lab_cluster.lab
    client = lab.ask(Ask("web", "172.23.2.16", http=True))
    wait_until(lambda: client.see("web").server == "clustnode2", "its primary serves it", within_s=10)
    job, other = processes(lab.node2, 77001), processes(lab.node1, 77002)
    assert job and other
    write(cluster, sleeping("job", "clustnode2", "172.23.2.13", 77011))

    planned = lab.node2.hostd("plan").stdout
    assert "service job changed (dummy: params.seconds)" in planned
    assert "once clustnode1 has the same" in " ".join(planned.split())
    reloaded = lab.node2.hostd("reload").stdout
    assert "service job changed" in reloaded
    assert TOKEN not in planned + reloaded + lab.node2.hostd("plan", "--json").stdout
    cluster.wait_for_pair()
    wait_until(lambda: "config-differs" in problems(cluster, lab.node1), "the difference is shown", within_s=10)
    always(lambda: processes(lab.node2, 77001) == job, "it goes on under the old definition", for_s=2)

    assert "It is stopped and started on clustnode2." in lab.node1.hostd("plan").stdout
    lab.node1.hostd("reload")
    wait_until(lambda: processes(lab.node2, 77011), "it runs under the new definition", within_s=20)
    assert not processes(lab.node2, 77001), "and no longer under the old one"
    cluster.wait_for(cluster.primaries)
    assert processes(lab.node1, 77002) == other
    assert not processes(lab.node1, 77011)
    client.settle()
    assert client.see("web").outages == ()


def test_a_removed_service_is_stopped_and_an_added_one_started(lab_cluster: Cluster) -> None:
    """In the way in which it was started, though its definition is gone; its address goes with it."""
    cluster, lab = lab_cluster, lab_cluster.lab
    for node in lab.nodes:
        (node.config / "conf.d" / "job.toml").unlink()
    del cluster.services["job"]
    cluster.services["fresh"] = sleeping("fresh", "clustnode2", "172.23.2.15", 77003)
    write(cluster, cluster.services["fresh"])
    planned = lab.node2.hostd("plan").stdout
    assert "service job removed" in planned and "It is stopped on clustnode2." in planned
    for node in lab.nodes:
        node.hostd("reload")
    wait_until(lambda: not processes(lab.node2, 77001), "it is stopped", within_s=10)
    wait_until(lambda: "172.23.2.13" not in lab.node2.run("ip", "addr").stdout, "its address is gone", within_s=2)
    cluster.wait_for(cluster.primaries)
    assert processes(lab.node2, 77003)
    assert "job" not in cluster.status(lab.node1)["services"]


def test_a_bad_file_changes_nothing(lab_cluster: Cluster) -> None:
    """All complaints come back, the exit code is 2, and everything goes on; SIGHUP says it in the log."""
    cluster, lab = lab_cluster, lab_cluster.lab
    before = lab.node2.hostd_tree()
    write(cluster, LabService("job", "clustnode3", "172.23.2.13", 'agent = "dummy"\ncolour = "red"'), lab.node2)
    refused = lab.node2.hostd("reload", check=False)
    assert refused.returncode == 2
    assert "clustnode3" in refused.stderr and "colour" in refused.stderr
    assert lab.node2.hostd("plan", check=False).returncode == 2
    assert lab.node2.hostd_tree() == before
    assert cluster.owners(lab.node1) == cluster.primaries

    text = (lab.node2.config / "conf.d" / "00-cluster.toml").read_text()
    write(cluster, cluster.services["job"], lab.node2)
    (lab.node2.config / "conf.d" / "00-cluster.toml").write_text(text.replace('name = "lab"', 'name = "else"', 1))
    assert lab.node2.hostd("plan", check=False).returncode == 4
    assert lab.node2.hostd("reload", check=False).returncode == 4
    assert lab.node2.hostd_tree() == before


def test_a_new_link_is_used_after_a_reload_of_both(lab: Lab) -> None:
    """Heart and brain are forked anew; no service is touched, nothing moves."""
    job = sleeping("job", "clustnode2", "172.23.2.13", 77001)
    cluster = Cluster(lab, [job], Settings(links=(SERIAL, LAN))).up()
    running = processes(lab.node2, 77001)
    for node in lab.nodes:
        with (node.config / "conf.d" / "00-cluster.toml").open("a") as file:
            file.write(f"\n{LINK_TEXT[CROSSOVER]}")
        assert "link crossover added" in node.hostd("reload").stdout
        cluster.wait_for_pair()
    wait_until(lambda: cluster.link(lab.node1, CROSSOVER).get("receive") == "up", "it is heard on it", within_s=10)
    assert processes(lab.node2, 77001) == running
    cluster.wait_for(cluster.primaries)
    assert "nothing to do" in lab.node1.hostd("reload").stdout
