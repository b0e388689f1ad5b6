"""Corosync and dlm_controld on both machines, and GFS2 on their disk: what the ``gfs`` agent finds in place.

Decides their configuration: two links, votes for two nodes, and fencing by the
lab's power switch, as hostd's own.  All of it is the distribution's business
and none of hostd's.
"""

from collections.abc import Sequence

from tests.lab.names import NODES
from tests.machines.guest import Guest
from tests.machines.steps import step

NAME = "machines"
"""Of the cluster, for Corosync and in the filesystem."""
TOKEN_MS = 10_000
JOURNAL_MIB = 16

DLM = """\
protocol=sctp
enable_fencing=1
device power /usr/local/sbin/fence_machine
connect power node=1 plug=clustnode1
connect power node=2 plug=clustnode2
"""
"""With two links DLM has two addresses per node, which it only takes over SCTP."""


def corosync() -> str:
    """corosync.conf.  One item per line: its parser takes no more."""
    lines = ["totem {", "version: 2", f"cluster_name: {NAME}", "transport: knet", "crypto_cipher: none"]
    lines += ["crypto_hash: none", f"token: {TOKEN_MS}"]
    for link in (0, 1):
        lines += ["interface {", f"linknumber: {link}", "knet_ping_interval: 1000", "knet_ping_timeout: 5000", "}"]
    lines += ["}", "quorum {", "provider: corosync_votequorum", "two_node: 1", "wait_for_all: 0", "}", "nodelist {"]
    for number, place in enumerate(NODES, 1):
        lines += ["node {", f"name: {place.name}", f"nodeid: {number}"]
        lines += [f"ring0_addr: {place.address}", f"ring1_addr: {place.crossover}", "}"]
    return "\n".join([*lines, "}", "logging {", "to_syslog: yes", "}"]) + "\n"


def start(nodes: Sequence[Guest]) -> None:
    """Both up, and at every boot."""
    with step("Corosync on both"):
        for node in nodes:
            node.write("/etc/corosync/corosync.conf", corosync())
            node.write("/etc/dlm/dlm.conf", DLM)
            node.write("/etc/modules-load.d/dlm.conf", "sctp\ndlm\ngfs2\n")
            node.sh("modprobe -a sctp dlm gfs2; systemctl enable -q corosync dlm; systemctl start --no-block corosync")
        for node in nodes:
            node.until("corosync-quorumtool -s | grep -q 'Total votes: *2'", within_s=300, what="both vote")
    with step("dlm_controld on both"):
        for node in nodes:
            node.sh("systemctl start --no-block dlm")
        for node in nodes:
            # it answers before the addresses are in the kernel; a mount in between fails
            node.until("grep -q 1 /sys/kernel/config/dlm/cluster/comms/*/local", within_s=300, what="DLM is configured")


def make(node: Guest, disk: str, directory: str, script: str) -> None:
    """A new GFS2, and what a script puts into ``directory``, where it is mounted meanwhile."""
    with step("GFS2 made and filled"):
        node.sh(f"mkfs.gfs2 -O -q -p lock_dlm -t {NAME}:gfs -j 2 -J {JOURNAL_MIB} {disk}", timeout_s=600)
        node.sh(f"mkdir -p {directory} && mount -t gfs2 {disk} {directory}", timeout_s=300)
        node.sh(f"set -e\n{script}\nsync", timeout_s=900)
        node.sh(f"umount {directory}", timeout_s=300)
