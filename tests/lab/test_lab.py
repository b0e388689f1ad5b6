"""The lab is what it claims to be: otherwise no test that stands on it means anything."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.client import Ask
from tests.lab.environment import ROOT
from tests.lab.lab import FOLDER_PREFIX, Lab, always, wait_until
from tests.lab.names import NODE1, NODE2
from tests.lab.node import Node
from tests.lab.serial_cable import SerialCable

pytestmark = pytest.mark.lab

SERVICE = "172.23.2.13"
SERVICE6 = "fd00:172:23:2::13"


def hold(node: Node, address: str) -> None:
    """What a takeover does, by hand: add, and tell the neighbours."""
    assert node.network
    length, nodad = ("128", "nodad") if ":" in address else ("32", "")
    node.network.ip(f"addr add {address}/{length} dev eth0 {nodad}")


def drop(node: Node, address: str) -> None:
    assert node.network
    node.network.ip(f"addr del {address}/{128 if ':' in address else 32} dev eth0")


def carriers(node: Node) -> tuple[bool, bool]:
    """(LAN, crossover) as the node sees them."""
    assert node.network
    return node.network.has_carrier("eth0"), node.network.has_carrier("eth1")


# -- nodes ---------------------------------------------------------------------


def test_a_node_is_a_machine_of_its_own(lab: Lab) -> None:
    """It has its own name, processes, /run, /etc/hostd and network."""
    shown = lab.node2.run("sh", "-c", "uname -n; cat /etc/hostname; ls /etc/hostd /var/lib/hostd; echo $$").stdout
    assert shown.split() == ["clustnode2", "clustnode2", "/etc/hostd:", "/var/lib/hostd:", shown.split()[-1]]
    assert int(shown.split()[-1]) < 50, "the shell is numbered by the node, not by the machine"
    assert lab.node2.run("ls", "/run").stdout.split() == ["lock", "outside"]
    assert lab.node1.addresses() & {NODE1.address, NODE2.address} == {NODE1.address}


def test_a_boot_is_fresh_and_the_disk_is_kept(lab: Lab) -> None:
    """/run and addresses are gone after a power cut; /etc/hostd and /var/lib/hostd are kept."""
    lab.node1.run("sh", "-c", "touch /run/gone /etc/hostd/kept /var/lib/hostd/kept")
    hold(lab.node1, SERVICE)
    lab.power_off(lab.node1)
    lab.power_on(lab.node1)
    assert lab.node1.run("ls", "/run", "/etc/hostd", "/var/lib/hostd").stdout.split() == [
        "/etc/hostd:", "kept", "/run:", "lock", "outside", "/var/lib/hostd:", "kept",
    ]  # fmt: skip
    assert SERVICE not in lab.node1.addresses()


def test_a_power_cut_ends_every_process(lab: Lab, tmp_path: Path) -> None:
    """Also one that has left its session and ignores every signal it can."""
    script = "trap '' TERM HUP INT; setsid sleep 1000 & exec sleep 1000"
    lab.node1.start("sh", "-c", script, log=tmp_path / "log")
    wait_until(lambda: len(lab.node1.processes()) >= 2, "both sleep", within_s=5)
    pids = lab.node1.processes()
    lab.power_off(lab.node1)
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def test_a_frozen_node_does_nothing_and_its_kernel_answers(lab: Lab, tmp_path: Path) -> None:
    """SIGSTOP of everything is a hung userland, not a power cut; thawed, it goes on."""
    log = tmp_path / "log"
    lab.node1.start("sh", "-c", "while sleep 0.02; do echo x; done", log=log)
    wait_until(lambda: log.stat().st_size > 4, "it works", within_s=5)
    lab.node1.freeze()
    time.sleep(0.1)
    size = log.stat().st_size
    always(lambda: log.stat().st_size == size, "it does nothing", for_s=0.3)
    with lab.observe(NODE1.address) as observer:
        wait_until(lambda: observer.owner(NODE1.address) == "clustnode1", "the kernel answers", within_s=2)
    lab.node1.thaw()
    wait_until(lambda: log.stat().st_size > size, "it goes on", within_s=5)


def test_nodes_do_not_share_a_cgroup(lab: Lab) -> None:
    """Each node's cgroup tree shows its own processes only."""
    if "cgroup2" not in lab.node1.run("stat", "-f", "-c", "%T", "/sys/fs/cgroup").stdout:
        pytest.skip("no cgroup2 on this machine")
    lab.node1.run("mkdir", "/sys/fs/cgroup/service")
    assert "service" not in lab.node2.run("ls", "/sys/fs/cgroup").stdout
    assert lab.node1.run("cat", "/proc/self/cgroup").stdout.endswith("0::/\n")


# -- cables --------------------------------------------------------------------


def test_a_power_cut_drops_the_carrier_of_the_survivors_crossover(lab: Lab) -> None:
    """The other end of a direct cable shows the death; the LAN's switch does not."""
    assert carriers(lab.node1) == carriers(lab.node2) == (True, True)
    lab.power_off(lab.node2)
    assert carriers(lab.node1) == (True, False)
    lab.power_on(lab.node2)
    assert carriers(lab.node1) == carriers(lab.node2) == (True, True)


def test_a_pulled_crossover_drops_the_carrier_on_both_sides(lab: Lab) -> None:
    """Neither node's own setting changes: the interface stays up, without carrier."""
    lab.pull_crossover()
    assert carriers(lab.node1) == carriers(lab.node2) == (True, False)
    assert "NO-CARRIER,BROADCAST,MULTICAST,UP" in lab.node1.run("ip", "link", "show", "eth1").stdout
    lab.plug_crossover()
    wait_until(lambda: carriers(lab.node1) == (True, True), "it is back", within_s=2)


def test_a_crossover_plugged_into_a_dead_node_stays_dark(lab: Lab) -> None:
    """Plugging a cable does not give the other end power."""
    lab.power_off(lab.node2)
    lab.pull_crossover()
    lab.plug_crossover()
    assert carriers(lab.node1) == (True, False)


def test_the_lan_cable_of_one_node_can_be_pulled(lab: Lab) -> None:
    """It loses its carrier and nobody else does."""
    lab.pull_lan(lab.node1)
    assert (carriers(lab.node1), carriers(lab.node2)) == ((False, True), (True, True))
    lab.plug_lan(lab.node1)
    wait_until(lambda: carriers(lab.node1) == (True, True), "it is back", within_s=2)


def read_some(descriptor: int, wait_s: float = 0.3) -> bytes:
    """What arrives within the time."""
    os.set_blocking(descriptor, False)
    end, got = time.monotonic() + wait_s, b""
    while time.monotonic() < end:
        try:
            got += os.read(descriptor, 4096)
        except BlockingIOError:
            time.sleep(0.01)
    return got


@pytest.fixture
def line() -> Iterator[tuple[SerialCable, int, int]]:
    """A serial cable without nodes, and both its ends opened."""
    with SerialCable() as cable:
        ends = [os.open(end, os.O_RDWR | os.O_NOCTTY) for end in cable.ends]
        yield cable, ends[0], ends[1]
        for end in ends:
            os.close(end)


def test_the_serial_cable_carries_both_ways(line: tuple[SerialCable, int, int]) -> None:
    """Bytes come out as they went in, zeros and control characters too."""
    _, one, two = line
    everything = bytes(range(256))
    os.write(one, everything)
    os.write(two, everything[::-1])
    assert read_some(two) == everything
    assert read_some(one) == everything[::-1]


def test_an_unplugged_serial_cable_loses_bytes_and_tells_nobody(line: tuple[SerialCable, int, int]) -> None:
    """Writing succeeds, nothing arrives, there is no hangup; plugged in again it works."""
    cable, one, two = line
    cable.unplug()
    assert os.write(one, b"lost") == 4
    assert read_some(two) == b""
    cable.plug()
    os.write(one, b"found")
    assert read_some(two) == b"found"


def test_a_node_without_power_neither_sends_nor_receives(line: tuple[SerialCable, int, int]) -> None:
    """What it had not read before is lost as well."""
    cable, one, two = line
    os.write(one, b"unread")
    wait_until(lambda: cable.passed() == 6, "it arrived", within_s=2)
    cable.power(1, on=False)
    os.write(one, b"to a dead node")
    assert read_some(two) == b""
    cable.power(1, on=True)
    assert read_some(two, 0.1) == b""


def test_noise_arrives_as_garbage(line: tuple[SerialCable, int, int]) -> None:
    """Injected bytes arrive among the others."""
    cable, one, two = line
    cable.garbage(1, b"\xff\x00\xff")
    os.write(one, b"x")
    assert sorted(read_some(two)) == sorted(b"\xff\x00\xffx")


def test_a_paced_cable_is_as_slow_as_a_uart() -> None:
    """At 9600 baud 480 bytes take half a second."""
    with SerialCable(baud=9600) as cable:
        one, two = (os.open(end, os.O_RDWR | os.O_NOCTTY) for end in cable.ends)
        began = time.monotonic()
        os.write(one, bytes(480))
        wait_until(lambda: cable.passed() == 480, "all arrived", within_s=5)
        assert 0.4 < time.monotonic() - began < 2
        os.close(one)
        os.close(two)


def test_each_node_finds_the_cable_at_its_first_serial_port(lab: Lab) -> None:
    """What one node writes to its serial port, the other reads from its own."""
    lab.node2.run("sh", "-c", "stty raw -echo </dev/ttyS0")
    reader = subprocess.Popen(
        lab.node2.command(["timeout", "5", "head", "-c", "5", "/dev/ttyS0"]), stdout=subprocess.PIPE, text=True
    )
    lab.node1.run("sh", "-c", "printf hello >/dev/ttyS0")
    assert reader.communicate(timeout=10)[0] == "hello"


# -- the switch ------------------------------------------------------------------


def hears(lab: Lab, port: int) -> bool:
    """Does a datagram from node1 reach node2 over the LAN?"""
    assert lab.node1.network and lab.node2.network
    with lab.node2.network.entered():
        receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with lab.node1.network.entered():
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with receiver, sender:
        receiver.bind((NODE2.address, port))
        receiver.settimeout(0.3)
        sender.sendto(b"beat", (NODE2.address, port))
        try:
            return receiver.recv(16) == b"beat"
        except TimeoutError:
            return False


def test_heartbeats_can_be_blocked_while_all_else_passes(lab: Lab) -> None:
    """UDP port 694 vanishes between the nodes; other ports pass, and so does ARP."""
    wait_until(lambda: hears(lab, 694), "heartbeats pass", within_s=5)
    lab.block_lan_heartbeats()
    assert not hears(lab, 694)
    assert hears(lab, 695)
    lab.pass_everything()
    wait_until(lambda: hears(lab, 694), "heartbeats pass again", within_s=5)


def test_nodes_can_be_parted_while_clients_reach_both(lab: Lab) -> None:
    """Not even ARP passes between the nodes; the observer still hears both."""
    lab.block_between_nodes()
    assert not hears(lab, 695)
    with lab.observe(NODE1.address, NODE2.address) as observer:
        wait_until(
            lambda: (observer.owner(NODE1.address), observer.owner(NODE2.address)) == ("clustnode1", "clustnode2"),
            "both answer",
            within_s=2,
        )
    lab.pass_everything()
    # node1's kernel has noted that nobody answered, and asks again after a while
    wait_until(lambda: hears(lab, 695), "they meet again", within_s=5)


# -- observer and client -------------------------------------------------------------


@pytest.mark.parametrize("address", [SERVICE, SERVICE6])
def test_the_observer_sees_two_owners_and_for_how_long(lab: Lab, address: str) -> None:
    """Added on both nodes by hand for a quarter of a second: seen, with names and duration."""
    hold(lab.node1, address)
    observer = lab.observe(address)
    wait_until(lambda: observer.owner(address) == "clustnode1", "one owner", within_s=3)
    assert not observer.doubles()
    hold(lab.node2, address)
    time.sleep(0.25)
    drop(lab.node1, address)
    wait_until(lambda: observer.owner(address) == "clustnode2", "the other owner", within_s=3)
    doubles = observer.doubles()
    assert doubles and set(doubles[0].owners) == {"clustnode1", "clustnode2"}
    assert 200 < sum(double.duration_ms for double in doubles) < 600, doubles


def test_a_handover_without_overlap_is_no_double(lab: Lab) -> None:
    """Removed here, then added there: never two owners."""
    hold(lab.node1, SERVICE)
    observer = lab.observe(SERVICE)
    wait_until(lambda: observer.owner(SERVICE) == "clustnode1", "one owner", within_s=3)
    drop(lab.node1, SERVICE)
    hold(lab.node2, SERVICE)
    wait_until(lambda: observer.owner(SERVICE) == "clustnode2", "the other owner", within_s=3)
    assert not observer.doubles()
    assert [tenure.owners for tenure in observer.tenures(SERVICE) if tenure.owners] == [
        ("clustnode1",), ("clustnode2",),
    ]  # fmt: skip


@pytest.mark.parametrize("address", [SERVICE, SERVICE6])
def test_the_client_measures_an_outage(lab: Lab, address: str) -> None:
    """The address is away for 200 ms: the client sees that, with a warm neighbour cache."""
    hold(lab.node1, address)
    client = lab.ask(Ask("service", address))
    wait_until(lambda: client.see("service").is_answered, "answers come", within_s=3)
    drop(lab.node1, address)
    time.sleep(0.2)
    hold(lab.node1, address)
    client.settle()
    seen = client.see("service")
    assert len([outage for outage in seen.outages if outage.duration_ms > 50]) == 1, seen.outages
    assert 180 < seen.outage_ms < 450, seen.outages


def test_the_client_shows_a_stale_neighbour_cache(lab: Lab) -> None:
    """An address that moves without a word to the neighbours stays lost for a warm client:
    the measurement is honest about what announcing is for."""
    hold(lab.node1, SERVICE)
    client = lab.ask(Ask("service", SERVICE))
    wait_until(lambda: client.see("service").is_answered, "answers come", within_s=3)
    drop(lab.node1, SERVICE)
    hold(lab.node2, SERVICE)
    time.sleep(1)
    client.settle()
    assert client.see("service").outage_ms > 900


def test_the_client_sees_no_outage_when_there_is_none(lab: Lab) -> None:
    """A quiet second: every request answered."""
    hold(lab.node1, SERVICE)
    client = lab.ask(Ask("service", SERVICE))
    wait_until(lambda: client.see("service").is_answered, "answers come", within_s=3)
    time.sleep(1)
    client.settle()
    seen = client.see("service")
    assert seen.outage_ms == 0, seen.outages
    assert seen.answered > 50


# -- it leaves nothing behind ---------------------------------------------------------


LAB_THAT_IS_KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from tests.lab.lab import Lab
with Lab() as lab:
    lab.observe("172.23.2.13")
    print(lab.folder, lab.node1.pid, lab.node2.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_lab_that_was_killed_outright_leaves_no_process(lab: Lab) -> None:
    """Its nodes die with it; its folder goes when the next lab sweeps, ours stays."""
    done = subprocess.run(
        [sys.executable, "-c", LAB_THAT_IS_KILLED, str(ROOT)], capture_output=True, text=True, check=False
    )
    assert done.returncode == -9, done.stderr
    folder, *pids = done.stdout.split()
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), "its nodes are dead", within_s=5)
    long_ago = time.time() - 3600
    os.utime(folder, (long_ago, long_ago))
    with Lab():
        assert not Path(folder).exists()
        assert lab.folder.exists() and lab.folder.name.startswith(FOLDER_PREFIX)


def test_two_labs_do_not_meet(lab: Lab) -> None:
    """The same addresses in two labs at once: no owner is doubled."""
    with Lab() as other:
        hold(lab.node1, SERVICE)
        hold(other.node2, SERVICE)
        observer = lab.observe(SERVICE)
        wait_until(lambda: observer.owner(SERVICE) == "clustnode1", "ours answers", within_s=3)
        assert not observer.doubles()
