"""The whole example of the mission with its real servers, their data on a disk that both nodes mount.

MariaDB and Cyrus on clustnode2, OpenLDAP and Apache on clustnode1; a client
writes rows, entries and mails all the time; every server's word that
something is written must hold, whatever happens to nodes and processes.
"""

import json
import os
import shutil
import signal
import time
from collections.abc import Iterator

import pytest

from hostd.config import Directories, examine
from hostd.registry import Registry
from tests.lab.client import Client
from tests.lab.cluster import Settings
from tests.lab.environment import ROOT
from tests.lab.lab import Lab, wait_until
from tests.lab.limits import promised
from tests.lab.mission import SERVERS, Mission
from tests.lab.names import NODES
from tests.lab.node import Node
from tests.lab.observer import Observer
from tests.lab.power_switch import Fencing
from tests.lab.probe_process import now_ms
from tests.lab.server_watch import ServerWatch, process_name

pytestmark = pytest.mark.lab

NOTICED_MAX_MS = 100
DOUBT_MS = 10
"""Of the observer: a late answer may be put to the question after."""


class Site:
    """The mission's cluster and everybody who watches it."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.cluster = Mission(lab, Settings(fencing=Fencing()))
        self.client: Client = self.cluster.ask()
        self.observer: Observer = lab.observe(*(service.address for service in self.cluster.services.values()))
        self.servers = ServerWatch(lab)
        self.since_ms = 0.0

    def at_home(self) -> None:
        """Both nodes are there, every service answers on its primary; all is told from now on."""
        for node in self.lab.nodes:
            if not node.is_on:
                self.lab.power_on(node)
                self.cluster.start(node)
        self.cluster.wait_for_pair(within_s=40)
        self.answers_from(self.cluster.primaries)
        self.since_ms = now_ms()

    def answers_from(self, owners: dict[str, str], *, within_s: float = 60) -> None:
        """Wait until the client is answered by these nodes."""

        def answered_by() -> dict[str, str]:
            seen = self.client.see_all(now_ms() - 3000)
            return {name: s.server if s.is_answered else "" for name, s in seen.items()}

        try:
            wait_until(lambda: answered_by() == owners, f"the client is answered by {owners}", within_s=within_s)
        except AssertionError as late:
            raise AssertionError(f"{late}, but {answered_by()}\n{self.cluster.picture()}") from None

    def outages_ms(self) -> dict[str, float]:
        self.client.settle()
        return {name: seen.outage_ms for name, seen in self.client.see_all(self.since_ms).items()}

    def assert_nothing_is_lost(self) -> None:
        """All that any server has ever acknowledged can be read, and that is not nothing."""
        kept = self.client.kept()
        assert set(kept) == {"mysql", "ldap", "cyrus"}
        assert all(k.is_all and k.acknowledged for k in kept.values()), kept

    def assert_one_at_a_time(self) -> None:
        """Neither an address nor a data directory ever had two owners."""
        doubles = [double for double in self.observer.doubles(self.since_ms) if double.duration_ms > DOUBT_MS]
        assert doubles == []
        self.servers.assert_never_two()

    def running_on(self, node: Node) -> set[str]:
        """Services of which the node has processes, whatever hostd says."""
        names = {process_name(pid) for pid in node.processes()}
        return {service for service, programs in SERVERS.items() if names & set(programs)}

    def pids(self, node: Node, program: str) -> list[int]:
        """As the machine numbers them."""
        return [pid for pid in node.processes() if process_name(pid) == program]

    def told(self, since: float, **wanted: object) -> list[float]:
        """When ``hostd log`` of clustnode1 tells of such an event, since then (seconds of the wall clock)."""
        lines = self.lab.node1.hostd("log", "--json", "-n", "300").stdout.splitlines()
        entries = [json.loads(line) for line in lines]
        return [e["at"] for e in entries if e["at"] >= since and wanted.items() <= e.items()]


@pytest.fixture(scope="module")
def built() -> Iterator[Site]:
    """One site for all tests: to make it costs more than most of them."""
    with Lab() as lab:
        site = Site(lab)
        site.cluster.start()
        with site.servers:
            yield site


@pytest.fixture
def site(built: Site) -> Site:
    """At home, whatever the test before has done to it."""
    built.at_home()
    return built


def test_each_service_starts_on_its_own_primary(site: Site) -> None:
    """Active/active: both nodes work, each for its own services, and both have the disk."""
    assert site.running_on(site.lab.node2) == {"mysql", "cyrus"}
    assert site.running_on(site.lab.node1) == {"ldap", "web"}
    for node in site.lab.nodes:
        gfs = site.cluster.status(node)["services"]["gfs"]
        assert (gfs["state"], gfs["nodes"]) == ("running", ["clustnode1", "clustnode2"])
    site.assert_nothing_is_lost()
    site.servers.assert_never_two()


def test_a_power_cut_loses_nothing_that_was_acknowledged(site: Site) -> None:
    """The other node takes over all; what was written before the cut is read after it; its own services
    are not touched; no data directory ever has two servers."""
    own = {program: site.pids(site.lab.node1, program) for program in ("slapd", "apache2")}
    site.lab.power_off(site.lab.node2)
    site.answers_from(site.cluster.on(site.lab.node1))
    site.assert_nothing_is_lost()
    site.assert_one_at_a_time()
    outages = site.outages_ms()
    assert outages["ldap"] == outages["web"] == 0, outages
    assert max(outages.values()) < promised(4_000), outages
    assert own == {program: site.pids(site.lab.node1, program) for program in own}
    assert [stay.node for stay in site.servers.stays("mysql")][-2:] == ["clustnode2", "clustnode1"]


def test_every_service_returns_to_its_primary_with_its_data(site: Site) -> None:
    """Power comes back: mysql and cyrus are stopped on one node before they start on the other."""
    site.lab.power_off(site.lab.node2)
    site.answers_from(site.cluster.on(site.lab.node1))
    site.at_home()
    site.assert_nothing_is_lost()
    site.servers.assert_never_two()
    assert site.running_on(site.lab.node2) == {"mysql", "cyrus"}
    assert site.running_on(site.lab.node1) == {"ldap", "web"}
    assert [stay.node for stay in site.servers.stays("cyrus")][-3:] == ["clustnode2", "clustnode1", "clustnode2"]


def test_a_killed_mysqld_is_noticed_at_once_and_recovered_where_it_is(site: Site) -> None:
    """SIGKILL: hostd does not wait for its next monitor, InnoDB recovers, and nothing moves."""
    [pid] = site.pids(site.lab.node2, "mariadbd")
    wall = time.time()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: site.pids(site.lab.node2, "mariadbd") not in ([], [pid]), "another one is there", within_s=20)
    site.answers_from(site.cluster.primaries)
    noticed = site.told(wall, event="ServiceTurned", service="mysql")
    assert noticed and (noticed[0] - wall) * 1000 < promised(NOTICED_MAX_MS), site.cluster.picture()
    site.assert_nothing_is_lost()
    site.assert_one_at_a_time()
    outages = site.outages_ms()
    assert outages["cyrus"] == outages["ldap"] == outages["web"] == 0, outages
    assert [stay.node for stay in site.servers.stays("mysql")][-1] == "clustnode2"


def test_a_planned_move_takes_the_data_along(site: Site) -> None:
    """``hostd move`` and back: stopped here before it starts there, and nothing else is touched."""
    for node in site.lab.nodes:
        site.lab.node1.hostd("move", "mysql", node.name)
        site.answers_from(site.cluster.primaries | {"mysql": node.name})
        site.assert_nothing_is_lost()
    site.assert_one_at_a_time()
    outages = site.outages_ms()
    assert outages["cyrus"] == outages["ldap"] == outages["web"] == 0, outages


def test_two_servers_on_one_data_directory_would_be_seen(lab: Lab) -> None:
    """The watch bites: the second process of a service's name is told, one after the other is not."""
    program = lab.folder / "slapd"
    shutil.copy("/bin/sleep", program)
    with ServerWatch(lab) as watch:
        lab.node1.start(str(program), "100", log=lab.folder / "log")
        seen_on(watch, 1)
        assert watch.overlaps() == []
        lab.node2.start(str(program), "100", log=lab.folder / "log")
        wait_until(lambda: len(watch.overlaps()) == 1, "the second is seen", within_s=10)
        assert "clustnode1 and clustnode2" in watch.overlaps()[0]
    for node in lab.nodes:
        end_all(node)
    with ServerWatch(lab) as watch:
        for number, node in enumerate(lab.nodes, 1):
            node.start(str(program), "100", log=lab.folder / "log")
            seen_on(watch, number)
            end_all(node)
        assert watch.overlaps() == []


def seen_on(watch: ServerWatch, nodes: int) -> None:
    wait_until(lambda: len(watch.stays("ldap")) == nodes, f"a server is seen on {nodes} of the nodes", within_s=10)


def end_all(node: Node) -> None:
    node.signal(node.processes(), signal.SIGKILL)
    wait_until(lambda: not node.processes(), "they are gone", within_s=10)


@pytest.mark.parametrize("node", [place.name for place in NODES])
def test_the_example_in_conf_d_is_right(node: str) -> None:
    """What the README calls a larger example has no fault but that of a machine that is not there."""
    registry = Registry.load(Directories(), system=ROOT / "no-agents")
    examined = examine(ROOT / "conf.d", node, registry.parameters, registry.link_types())
    assert [complaint.text for complaint in examined.complaints if not complaint.is_warning] == []
    assert examined.configuration is not None
    primaries = {s.name: s.primary for s in examined.configuration.plan.services if not s.everywhere}
    assert primaries == {"mysql": "clustnode2", "ldap": "clustnode1", "cyrus": "clustnode2", "web": "clustnode1"}
