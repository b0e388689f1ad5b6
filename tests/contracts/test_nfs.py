"""The nfs agent: its server is a FUSE process that can die, so what hangs hangs in the kernel for real.

The kernel's own NFS client is not asked: ``mount`` is a script that mounts the
FUSE server's directory under the name of the export.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agents import nfs
from hostd.api import AgentError, Health
from tests.contracts import mount_room

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")

EXPORT = "dying:/export"  # what fuse_server.py mounts


class Nfs:
    """The agent with one mount; ``call`` does one action as the child of an action would."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.directory = folder, folder / "srv"
        self.directory.mkdir()

    def call(self, verb: str, *, seconds: float = 20, depth: int = 0, **given: Any) -> Any:
        params = {"export": EXPORT, "directory": str(self.directory)} | given
        return getattr(nfs, verb)(mount_room.resource(self.folder, nfs, params, seconds=seconds, depth=depth))

    @property
    def is_mounted(self) -> bool:
        return f" {self.directory} " in Path("/proc/self/mountinfo").read_text()

    def server(self) -> int:
        return int((self.folder / "server").read_text())

    def fall_silent(self) -> None:
        os.kill(self.server(), signal.SIGUSR1)
        until = time.monotonic() + 10
        while "silent" not in (self.folder / "said").read_text() and time.monotonic() < until:
            time.sleep(0.01)

    def end_server(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            os.kill(self.server(), signal.SIGKILL)


@pytest.fixture
def mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Nfs]:
    """The agent, in a mount namespace of its own, with a ``mount`` that serves the export by a process."""
    monkeypatch.setattr(nfs, "FSTYPES", (*nfs.FSTYPES, "fuse.nfs"))
    server = Path(mount_room.__file__).with_name("fuse_server.py")
    script = (
        f'for directory; do :; done\n{sys.executable} -I {server} "$directory" > {tmp_path}/said 2>&1 &\n'
        f"echo $! > {tmp_path}/server\nuntil grep -q mounted {tmp_path}/said; do sleep 0.02; done"
    )
    with mount_room.private_mounts(), mount_room.programs(tmp_path, mount=script, mount_nfs="exit 1"):
        agent = Nfs(tmp_path)
        yield agent
        agent.end_server()
        subprocess.run(["umount", "-l", str(agent.directory)], capture_output=True, check=False)


def test_started_means_mounted_and_stopped_means_gone(mount: Nfs) -> None:
    """Twice is as once; mount is told not to try for two minutes by itself."""
    assert mount.call("monitor") is Health.STOPPED
    for _ in range(2):
        mount.call("start", options="vers=4.2,soft")
        assert mount.is_mounted
    assert mount_room.calls(mount.folder) == [f"mount -t nfs -o vers=4.2,soft,retry=0 -- {EXPORT} {mount.directory}"]
    for depth in (0, 10):
        assert mount.call("monitor", depth=depth) is Health.RUNNING
    for _ in range(2):
        mount.call("stop")
        assert not mount.is_mounted
    assert mount.call("monitor") is Health.STOPPED


def test_a_dead_server_is_told_within_the_time_limit(mount: Nfs) -> None:
    """By the monitor itself, with what hangs where and what the server says; nothing more is forked then."""
    mount.call("start")
    mount.fall_silent()
    began = time.monotonic()
    with pytest.raises(AgentError, match=r"did not return within 0\.5 s .*state D") as caught:
        mount.call("monitor", depth=10, patience=0.5)
    assert time.monotonic() - began < 5
    assert "dying" in caught.value.reason and caught.value.cure == "see to the NFS server dying"
    with pytest.raises(AgentError, match="still hangs, for"):
        mount.call("monitor", depth=10)
    mount.end_server()


def test_a_stop_with_a_dead_server_says_why_and_what_may_be_set(mount: Nfs) -> None:
    """Without permission nothing is forced: the hung look holds the mount, and is named."""
    mount.call("start")
    mount.fall_silent()
    with pytest.raises(AgentError, match="did not return"):
        mount.call("monitor", depth=10, patience=0.3)
    with pytest.raises(AgentError, match="cannot be unmounted, it is held by"):
        mount.call("stop", seconds=8)
    assert mount.is_mounted
    mount.end_server()


def test_force_gives_up_what_a_dead_server_does_not_answer(mount: Nfs) -> None:
    """The hung look returns with an error, and the unmount is an ordinary one."""
    mount.call("start")
    mount.fall_silent()
    with pytest.raises(AgentError, match="did not return"):
        mount.call("monitor", depth=10, patience=0.3)
    mount.call("stop", force=True)
    assert not mount.is_mounted
    assert mount.call("monitor", depth=10) is Health.STOPPED


def test_force_is_repeated_while_the_hung_process_sees_to_its_error(mount: Nfs) -> None:
    """The first finds it held still; it is not the last word."""
    mount.call("start")
    mount.fall_silent()
    with pytest.raises(AgentError, match="did not return"):
        mount.call("monitor", depth=10, patience=0.3)
    once = mount.folder / "once"
    umount = f'case "$*" in *-f*) [ -e {once} ] || {{ touch {once}; echo busy >&2; exit 32; }};; esac\nexec $REAL "$@"'
    with mount_room.programs(mount.folder, umount=umount):
        mount.call("stop", force=True)
    assert once.exists() and not mount.is_mounted


def test_lazy_takes_a_dead_mount_out_of_the_tree(mount: Nfs) -> None:
    """Although a look hangs in it; the next server can be mounted there."""
    mount.call("start")
    mount.fall_silent()
    with pytest.raises(AgentError, match="did not return"):
        mount.call("monitor", depth=10, patience=0.3)
    mount.call("stop", lazy=True)
    assert not mount.is_mounted
    mount.end_server()


def test_an_unmount_that_hangs_is_told_or_forced(mount: Nfs) -> None:
    """umount itself may wait for the dead server."""
    mount.call("start")
    umount = 'case "$*" in *-f*|*-l*) exec $REAL "$@";; esac\nexec sleep 60'
    with mount_room.programs(mount.folder, umount=umount):
        with pytest.raises(AgentError, match=r"umount -c .* did not return") as caught:
            mount.call("stop", seconds=4)
        assert "force = true" in caught.value.cure and mount.is_mounted
        mount.call("stop", seconds=6, force=True)
    assert not mount.is_mounted


def test_a_mount_that_hangs_is_told(mount: Nfs) -> None:
    """A start ends by itself, with the server's word; a stop then leaves nothing that could mount later."""
    says = pytest.raises(AgentError, match=r"mount -t nfs .* did not return within .*dying")
    with mount_room.programs(mount.folder, mount="exec sleep 60"), says as caught:
        mount.call("start", seconds=4)
    assert caught.value.cure == "see to the NFS server dying"
    mount.call("stop")
    assert not mount.is_mounted


def test_what_mount_says_reaches_the_operator(mount: Nfs) -> None:
    """mount.nfs's own words."""
    said = "mount.nfs: access denied by server while mounting dying:/export"
    says = pytest.raises(AgentError, match="access denied by server")
    with mount_room.programs(mount.folder, mount=f"echo '{said}' >&2; exit 32"), says:
        mount.call("start")


def test_another_export_at_the_directory_is_not_ours(mount: Nfs) -> None:
    """It is neither monitored as ours nor unmounted."""
    mount.call("start")
    assert mount.call("monitor", export="other:/export") is Health.STOPPED
    mount.call("stop", export="other:/export")
    assert mount.is_mounted
    with pytest.raises(AgentError, match=r"dying:/export \(fuse\.nfs\) is mounted at"):
        mount.call("start", export="other:/export")


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"export": "/export"}, "is not of the form host:/path"),
        ({"export": "server:export"}, "is not of the form host:/path"),
        ({"export": "2001:db8::1:/export"}, "is not of the form host:/path"),
        ({"export": ""}, "is not of the form host:/path"),
        ({"directory": "srv"}, "is no absolute path"),
        ({"directory": "/nowhere/at/all"}, "does not exist"),
        ({"options": "soft,hard"}, "both soft and hard"),
        ({"options": "bg"}, "options has bg"),
        ({"options": "vers=5"}, "vers=5, which is none of 3, 4"),
        ({"options": "proto=sctp"}, "proto=sctp, which is none of"),
        ({"options": "proto=tcp", "export": "[2001:db8::1]:/srv"}, "is an IPv6 address"),
        ({"options": "timeo=5s"}, "timeo=5s, which is no whole number"),
        ({"options": "timeo="}, "which is no whole number"),
        ({"options": "soft, vers=4"}, "empty or blank item"),
    ],
)
def test_bad_input_is_told_and_mounts_nothing(mount: Nfs, params: dict[str, Any], said: str) -> None:
    """By validate and by start alike, each with a cure."""
    for verb in ("validate", "start"):
        with pytest.raises(AgentError) as caught:
            mount.call(verb, **params)
        assert said in caught.value.reason and caught.value.cure
    assert not mount.is_mounted


def test_an_ipv6_server_is_named_in_brackets(mount: Nfs) -> None:
    """And passed to mount as it was written."""
    with mount_room.programs(mount.folder, mount="exit 32"), pytest.raises(AgentError, match="cannot be mounted"):
        mount.call("start", export="[2001:db8::1]:/srv", options="proto=tcp6")
    assert mount_room.calls(mount.folder)[-1].endswith(f"-- [2001:db8::1]:/srv {mount.directory}")
    mount.call("validate", export="[2001:db8::1]:/srv")


def test_without_nfs_common_the_start_says_so(mount: Nfs) -> None:
    """And the monitor of a node without it says stopped."""
    (mount.folder / "bin" / "mount.nfs").unlink()
    if mount_room.shutil.which("mount.nfs") is None:
        with pytest.raises(AgentError, match=r"mount\.nfs is not installed") as caught:
            mount.call("start")
        assert caught.value.cure == "apt-get install nfs-common"
    assert mount.call("monitor", depth=10) is Health.STOPPED
