"""The gfs agent on a scripted cluster: fake /proc and /sys trees, scripted programs, a real superblock.

No kernel here has GFS2; the real thing is tried on emulated machines.  The
superblock is one that mkfs.gfs2 3.5.0 wrote, and the looks at the mount are
real looks at a directory, or at one whose server does not answer.
"""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agents import gfs
from hostd.api import AgentError, Health
from hostd.api.storage.mounts import Kernel
from tests.contracts import mount_room

SUPERBLOCK = bytes.fromhex(  # mkfs.gfs2 -p lock_dlm -t lab:fs: what stands at byte 65536, up to the lock protocol
    "0116197000000001000000000000000000000064000000000000070a0000076c00000000000010000000000c00000000"
    "00000000000000030000000000000818000000000000000000000000000000000000000000000010000000000000122d"
)

MOUNT = (  # the last two words are source and directory
    'while [ $# -gt 2 ]; do shift; done; echo "99 1 240:1 / $2 rw,relatime - gfs2 $1 rw" >> {mountinfo}\n'
    "mkdir -p {sys}/fs/gfs2/lab:fs; echo 0 > {sys}/fs/gfs2/lab:fs/withdraw"
)
UMOUNT = 'for at; do :; done; sed -i "\\\\| $at |d" {mountinfo}; rm -r {sys}/fs/gfs2/lab:fs'


class Node:
    """One node of the scripted cluster."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.directory, self.disk = folder / "gfs", folder / "disk"
        self.proc, self.sys = folder / "proc", folder / "sys"
        self.mountinfo = self.proc / "self/mountinfo"
        self.directory.mkdir()
        self.make_disk()
        self.write("proc/filesystems", "nodev\tproc\n\tgfs2\n")
        self.write("proc/self/mountinfo", "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n")
        self.write("proc/10/comm", "corosync\n")
        self.write("proc/11/comm", "dlm_controld\n")
        self.write("sys/kernel/config/dlm/cluster/comms/1/local", "1\n")
        self.write("sys/kernel/config/dlm/cluster/comms/2/local", "0\n")
        self.write("sys/kernel/config/dlm/cluster/cluster_name", "lab\n")
        self.write("dlm_status", "cluster nodeid 1 quorate 1 ring seq 12 12\ndaemon now 171 fence_pid 0\n")
        self.write("dlm_ls", "dlm lockspaces\nname          fs\n")

    def write(self, path: str, text: str) -> None:
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def make_disk(self, table: str = "lab:fs", protocol: str = "lock_dlm", head: bytes = SUPERBLOCK) -> None:
        names = protocol.encode().ljust(64, b"\0") + table.encode().ljust(64, b"\0")
        self.disk.write_bytes(bytes(65536) + head + names + bytes(4096))

    def call(self, verb: str, *, seconds: float = 10, depth: int = 0, **given: Any) -> Any:
        params = {"device": str(self.disk), "directory": str(self.directory)} | given
        return getattr(gfs, verb)(mount_room.resource(self.folder, gfs, params, seconds=seconds, depth=depth))

    @property
    def is_mounted(self) -> bool:
        return " gfs2 " in self.mountinfo.read_text()

    def program(self, name: str, text: str) -> None:
        file = self.folder / "bin" / name
        file.write_text(f"#!/bin/sh\n{text}\n")


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    made = Node(tmp_path)
    monkeypatch.setattr(gfs, "KERNEL", Kernel(made.proc, made.sys))
    places = {"mountinfo": made.mountinfo, "sys": made.sys}
    scripts = {
        "mount": MOUNT.format(**places),
        "umount": UMOUNT.format(**places),
        "modprobe": "echo 'modprobe: FATAL: Module not found' >&2; exit 1",
        "dmesg": "echo 'GFS2: fsid=lab:fs.0: fatal: invalid metadata block'",
        "dlm_tool": f'cat {tmp_path}/dlm_"$1"',
        "corosync-cmapctl": "echo 'totem.cluster_name (str) = lab'",
    }
    with mount_room.programs(tmp_path, **scripts):
        yield made


def test_started_means_mounted_and_stopped_means_gone(node: Node) -> None:
    """Twice is as once; every depth of the monitor is fine in between."""
    assert node.call("monitor") is Health.STOPPED
    for _ in range(2):
        node.call("start", options="noatime")
        assert node.is_mounted
    mounts = [call for call in mount_room.calls(node.folder) if call.startswith("mount ")]
    assert mounts == [f"mount -t gfs2 -o noatime -- {node.disk} {node.directory}"]
    for depth in (0, 10, 20):
        assert node.call("monitor", depth=depth) is Health.RUNNING
    assert list(node.directory.iterdir()) == []
    for _ in range(2):
        node.call("stop")
        assert not node.is_mounted
    assert node.call("monitor", depth=10) is Health.STOPPED


def test_a_spectator_writes_nothing(node: Node) -> None:
    """It has no journal: mounted read-only, and no failure for being that."""
    node.program("mount", MOUNT.format(mountinfo=node.mountinfo, sys=node.sys).replace(' rw"', ' ro"'))
    node.call("start", options="spectator")
    assert node.call("monitor", depth=20, options="spectator") is Health.RUNNING
    with pytest.raises(AgentError, match="is read-only"):
        node.call("monitor")


@pytest.mark.parametrize(
    ("gone", "said", "cure"),
    [
        ("proc/10", "Corosync does not run here", "systemctl start corosync"),
        ("proc/11", "dlm_controld does not run here", "systemctl start dlm"),
        ("sys/kernel/config/dlm/cluster/comms/1/local", "given the kernel no address", "journalctl -u dlm"),
        ("dlm_status", "dlm_controld does not answer", "journalctl -u dlm"),
    ],
)
def test_what_has_to_run_first_is_told(node: Node, gone: str, said: str, cure: str) -> None:
    """Before anything is mounted, which would hang or fail obscurely."""
    place = node.folder / gone
    (place / "comm").unlink() if place.is_dir() else place.unlink()
    with pytest.raises(AgentError, match=said) as caught:
        node.call("start", seconds=2)
    assert cure in caught.value.cure and not node.is_mounted


def test_an_address_that_comes_late_is_waited_for(node: Node) -> None:
    """dlm_controld answers before its addresses are in the kernel: a mount then would fail."""
    local = node.folder / "sys/kernel/config/dlm/cluster/comms/1/local"
    local.unlink()
    pid = os.fork()
    if pid == 0:
        time.sleep(0.3)
        local.write_text("1\n")
        os._exit(0)
    node.call("start")
    os.waitpid(pid, 0)
    assert node.is_mounted


def test_without_quorum_nothing_is_mounted(node: Node) -> None:
    """The mount would wait for ever."""
    node.write("dlm_status", "cluster nodeid 1 quorate 0 ring seq 12 12\n")
    with pytest.raises(AgentError, match="no quorum") as caught:
        node.call("start")
    assert "two_node" in caught.value.cure


def test_a_kernel_without_gfs2_or_dlm_is_told(node: Node) -> None:
    """By validate too, after modules were asked for."""
    node.write("proc/filesystems", "nodev\tproc\n")
    for verb in ("validate", "start"):
        with pytest.raises(AgentError, match="this kernel has no gfs2: modprobe: FATAL"):
            node.call(verb)
    asked = [call for call in mount_room.calls(node.folder) if call.startswith("modprobe")]
    assert asked == ["modprobe -n -a gfs2", "modprobe -a gfs2"], "validate loads nothing"


def test_a_filesystem_of_another_cluster_is_not_mounted(node: Node) -> None:
    """Corosync's name and the lock table's must be the same."""
    node.make_disk("other:fs")
    with pytest.raises(AgentError, match='was made for the cluster "other", and Corosync\'s is "lab"') as caught:
        node.call("start")
    assert "locktable=lab:fs" in caught.value.cure


def test_the_name_is_asked_of_corosync_where_the_kernel_does_not_tell(node: Node) -> None:
    """An older dlm has no cluster_name."""
    (node.sys / "kernel/config/dlm/cluster/cluster_name").unlink()
    node.call("start")
    assert "corosync-cmapctl -g totem.cluster_name" in mount_room.calls(node.folder)


def test_a_filesystem_for_one_node_is_not_mounted(node: Node) -> None:
    """lock_nolock on two nodes destroys it; and no option may pretend otherwise."""
    node.make_disk("", "lock_nolock")
    for verb in ("validate", "start"):
        with pytest.raises(AgentError, match=r"made for one node only \(lock_nolock\)"):
            node.call(verb)


def test_a_withdraw_is_noticed_at_every_depth(node: Node) -> None:
    """With the kernel's words; looks at a withdrawn filesystem may hang, so it is looked for first."""
    node.call("start")
    node.write("sys/fs/gfs2/lab:fs/withdraw", "1\n")
    for depth in (0, 10):
        with pytest.raises(AgentError, match=r"has withdrawn from lab:fs .*fatal: invalid metadata block") as caught:
            node.call("monitor", depth=depth)
        assert "fsck.gfs2" in caught.value.cure


def test_another_filesystems_withdraw_is_not_ours(node: Node) -> None:
    """The lock table that start read tells them apart."""
    node.call("start")
    node.write("sys/fs/gfs2/lab:other/withdraw", "1\n")
    assert node.call("monitor", depth=10) is Health.RUNNING


def test_a_holder_is_named_and_lazy_only_when_told(node: Node) -> None:
    """umount says busy: the process that stands in it is told, and not ended."""
    node.call("start")
    node.write("proc/50/comm", "vi\n")
    node.write("proc/50/status", "Name:\tvi\nUid:\t0\t0\t0\t0\n")
    (node.proc / "50/cwd").symlink_to(node.directory)
    busy = 'case "$*" in *-l*) ;; *) echo "umount: target is busy." >&2; exit 32;; esac\n'
    node.program("umount", busy + UMOUNT.format(mountinfo=node.mountinfo, sys=node.sys))
    node.write("proc/swaps", f"Filename\tType\n{node.directory}/swap\tfile\n")
    node.write("proc/fs/nfsd/exports", f"# Version 1.1\n{node.directory}/export\tclient(rw)\n")
    with pytest.raises(AgentError, match=r"is held by vi \(pid 50, root\): working directory") as caught:
        node.call("stop")
    for held in (f"swap file {node.directory}/swap", f"NFS export {node.directory}/export"):
        assert held in caught.value.reason
    assert 'kill = "term"' in caught.value.cure
    assert node.is_mounted
    node.call("stop", lazy=True)
    assert not node.is_mounted


def test_a_mount_that_waits_for_fencing_says_so(node: Node) -> None:
    """The DLM grants nothing before a lost node is fenced: the start ends by itself and tells."""
    node.program("mount", "exec sleep 60")
    node.write("dlm_ls", "dlm lockspaces\nname          fs\nnew change    member 1\nnew status    wait fencing\n")
    with pytest.raises(AgentError, match=r"did not return .* the DLM waits for a node to be fenced") as caught:
        node.call("start", seconds=4)
    assert "fence_ack" in caught.value.cure


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_look_that_waits_for_a_lock_hangs_a_child_only(node: Node) -> None:
    """The monitor says what hangs, and for what; the next one does not fork another."""
    node.directory.rmdir()
    with mount_room.private_mounts(), mount_room.dying_server(node.directory) as server:
        node.call("start")
        server.fall_silent()
        node.write("dlm_ls", "name          fs\nnew status    wait fencing\n")
        began = time.monotonic()
        with pytest.raises(AgentError, match=r"state D .*waits for a node to be fenced"):
            node.call("monitor", depth=10, patience=0.3)
        with pytest.raises(AgentError, match="still hangs"):
            node.call("monitor", depth=10)
        assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"device": "/dev/no-such-disk"}, "cannot be read"),
        ({"device": "sdb1"}, "is no path"),
        ({"device": "UUID="}, "names nothing"),
        ({"device": "/dev/zero"}, "there is no GFS2 on /dev/zero"),
        ({"device": "/dev/null"}, "there is no GFS2 on /dev/null"),
        ({"directory": "gfs"}, "is no absolute path"),
        ({"directory": "/nowhere/at/all"}, "does not exist"),
        ({"options": "lockproto=lock_nolock"}, "their locks would not meet"),
        ({"options": "locktable=other:fs"}, "their locks would not meet"),
        ({"options": "noatime,,"}, "empty or blank item"),
    ],
)
def test_bad_input_is_told_and_mounts_nothing(node: Node, params: dict[str, Any], said: str) -> None:
    """By validate and by start alike, each with a cure."""
    for verb in ("validate", "start"):
        with pytest.raises(AgentError) as caught:
            node.call(verb, **params)
        assert said in caught.value.reason and caught.value.cure
    assert not node.is_mounted


@pytest.mark.parametrize("table", ["lab", ":fs", "lab:", ""])
def test_a_lock_table_without_a_cluster_is_told(node: Node, table: str) -> None:
    """It has the form CLUSTER:NAME."""
    node.make_disk(table)
    with pytest.raises(AgentError, match="not CLUSTER:NAME"):
        node.call("start")


def test_the_superblock_is_read_as_mkfs_writes_it(node: Node) -> None:
    """96 bytes of header, as the kernel's structure has them."""
    assert len(SUPERBLOCK) == 96
    resource = mount_room.resource(node.folder, gfs, {"device": str(node.disk), "directory": "/gfs"})
    assert gfs._superblock(resource) == ("lock_dlm", "lab:fs")
