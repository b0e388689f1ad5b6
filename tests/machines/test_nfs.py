"""An NFS server that dies under the ``nfs`` agent: nothing hangs but the child, and the others do not notice."""

import pytest

from tests.machines.cluster import IDLE, Cluster, Service, Settings
from tests.machines.pair import Pair
from tests.machines.steps import note, step

pytestmark = pytest.mark.long

PLACE = "/mnt/docs"
DOCS = Service(
    "docs",
    "clustnode2",
    "172.23.2.17",
    f"""\
backups = []
agent = "nfs"
params = {{ export = "172.23.2.11:/srv/docs", directory = "{PLACE}", options = "vers=4.2", force = true }}
restarts = {{ limit = 1, within = "10m" }}
timeout = {{ start = "90s", stop = "90s" }}
""",
)
SETTINGS = Settings(services=(DOCS, IDLE))


@pytest.fixture(scope="module")
def cluster(pair: Pair) -> Cluster:
    """The first node is the server; the second mounts from it."""
    with step("an NFS server on clustnode1"):
        pair.node1.write("/srv/docs/page", "a page")
        pair.node1.write("/etc/exports", "/srv/docs 172.23.2.0/24(rw,no_root_squash,no_subtree_check)\n")
        pair.node1.sh("systemctl start rpcbind nfs-server", timeout_s=300)
        pair.node2.sh(f"mkdir -p {PLACE}")
    made = Cluster(pair, SETTINGS)
    made.configure()
    made.start()
    return made


def test_a_dead_server_hangs_the_child_and_nothing_else(cluster: Cluster) -> None:
    """The failure is told within the monitor's limit; hostd answers, beats and monitors the rest meanwhile."""
    server, node = cluster.pair.nodes
    assert node.sh(f"cat {PLACE}/page") == "a page"
    idle = node.sh("pgrep -x sleep")
    with step("the server dies, and the service is no longer called running"):
        server.sh("systemctl stop nfs-server", timeout_s=300)
        cluster.wait_until(lambda: cluster.owners(node).get("docs") == "", "docs has failed")
    note(node.run("hostd status; hostd why docs").output)
    assert cluster.node_states(server) == ["online", "online"]
    assert all(cluster.link(server, link)["receive"] == "up" for link in cluster.settings.links)
    assert cluster.owners(server)["idle"] == IDLE.primary
    assert node.sh("pgrep -x sleep") == idle
    with step("the server is back, and so is the service"):
        server.sh("systemctl start nfs-server", timeout_s=300)
        node.sh("hostd cleanup docs", timeout_s=300)
        cluster.wait_for(cluster.primaries)
    assert node.sh(f"cat {PLACE}/page") == "a page"
