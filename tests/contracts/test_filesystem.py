"""The filesystem agent on real disks (files behind loop devices), bind mounts, and a server that dies.

Everything is mounted in a mount namespace of the test's own.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agents import filesystem
from hostd import processes
from hostd.api import AgentError, Health
from hostd.api.storage import places
from hostd.jobs import Outcome, Verb
from tests.contracts import mount_room
from tests.contracts.bench import Bench

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
NEEDS_LOOP = pytest.mark.skipif(
    subprocess.run(["losetup", "-f"], capture_output=True, check=False).returncode != 0,
    reason="this kernel has no loop devices",
)


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Path]:
    """A folder in a mount namespace of our own."""
    with mount_room.private_mounts():
        yield tmp_path


@pytest.fixture
def bench(room: Path) -> Iterator[Bench]:
    """The agent with a bind mount of one directory at another."""
    data, mounted = room / "sandbox" / "data", room / "sandbox" / "mounted"
    data.mkdir(parents=True)
    mounted.mkdir()
    yield from opened(room, {"device": str(data), "directory": str(mounted), "fstype": "bind"})


@pytest.fixture
def ext4(room: Path) -> Iterator[Bench]:
    """The agent with ext4 on a disk."""
    (room / "srv").mkdir()
    with mount_room.disk(room, "ext4") as device:
        yield from opened(room, {"device": device, "directory": str(room / "srv")})


def opened(room: Path, params: dict[str, Any]) -> Iterator[Bench]:
    bench = Bench(room, "filesystem", params)
    try:
        yield bench
    finally:
        bench.close()
        subprocess.run(["umount", "-l", params["directory"]], capture_output=True, check=False)


@contextlib.contextmanager
def process_in(folder: Path, script: str = "print('here', flush=True); time.sleep(99)") -> Iterator[int]:
    """A process whose working directory is ``folder``; its pid."""
    argv = [sys.executable, "-c", f"import signal, time\n{script}"]
    process = subprocess.Popen(argv, cwd=folder, stdout=subprocess.PIPE, start_new_session=True)
    try:
        assert process.stdout is not None and process.stdout.readline() == b"here\n"
        yield process.pid
    finally:
        process.kill()
        process.wait()


def mounted(bench: Bench) -> bool:
    return f" {bench.params['directory']} " in Path("/proc/self/mountinfo").read_text()


def started(bench: Bench, **params: Any) -> None:
    outcome = bench.run(Verb.START, **params)
    assert outcome.ok and mounted(bench), outcome.reason


def failed(outcome: Outcome, *words: str) -> None:
    assert not outcome.ok and not outcome.timed_out, outcome
    for word in words:
        assert word in f"{outcome.reason}; {outcome.cure}", outcome


# -- bind mounts ------------------------------------------------------------------------


def test_started_means_mounted_and_stopped_means_gone(bench: Bench) -> None:
    """What is in one directory is seen at the other from start to stop; twice is as once."""
    (Path(bench.params["device"]) / "file").write_text("seen")
    assert bench.run(Verb.MONITOR).health is Health.STOPPED
    for _ in range(2):
        started(bench)
        assert (Path(bench.params["directory"]) / "file").read_text() == "seen"
    for depth in (0, 10, 20):
        assert bench.run(Verb.MONITOR, depth=depth).health is Health.RUNNING
    assert list(Path(bench.params["directory"]).iterdir()) == [Path(bench.params["directory"]) / "file"]
    for _ in range(2):
        stopped = bench.run(Verb.STOP)
        assert stopped.ok and stopped.leftovers == 0 and not mounted(bench)
    assert bench.run(Verb.MONITOR).health is Health.STOPPED


def test_a_bind_mount_can_be_read_only(bench: Bench) -> None:
    """Options reach the mount; a write-and-read monitor then only reads."""
    started(bench, options="ro")
    with pytest.raises(OSError, match="Read-only"):
        (Path(bench.params["directory"]) / "file").touch()
    assert bench.run(Verb.MONITOR, depth=20, options="ro").health is Health.RUNNING


def test_another_mount_at_the_directory_is_not_taken_for_ours(bench: Bench) -> None:
    """Identity is device and root: a stranger is stopped by nobody and mounted over only when told."""
    directory = bench.params["directory"]
    subprocess.run(["mount", "-t", "tmpfs", "stranger", directory], check=True)
    assert bench.run(Verb.MONITOR).health is Health.STOPPED
    failed(bench.run(Verb.START), "stranger (tmpfs) is mounted at", "over = true")
    assert bench.run(Verb.STOP).ok and mounted(bench)
    started(bench, over=True)
    assert bench.run(Verb.MONITOR, depth=10).health is Health.RUNNING
    assert bench.run(Verb.STOP).ok and mounted(bench), "the stranger is still there"


def test_what_is_mounted_over_ours_is_a_failure_and_not_unmounted(bench: Bench) -> None:
    """Who looks at the directory would see other data; umount would take the stranger away."""
    started(bench)
    subprocess.run(["mount", "-t", "tmpfs", "cover", bench.params["directory"]], check=True)
    failed(bench.run(Verb.MONITOR), "shows cover (tmpfs), which was mounted over it")
    failed(bench.run(Verb.STOP), "on it is mounted cover (tmpfs)")
    subprocess.run(["umount", bench.params["directory"]], check=True)
    assert bench.run(Verb.STOP).ok


def test_a_full_directory_is_not_hidden_unless_told(bench: Bench) -> None:
    """A mount over files would make them vanish."""
    (Path(bench.params["directory"]) / "precious").touch()
    failed(bench.run(Verb.START), "is not empty", "over = true")
    assert not mounted(bench)
    started(bench, over=True)


# -- holders ------------------------------------------------------------------------------


def test_who_holds_it_is_named_and_not_killed(bench: Bench) -> None:
    """Process, user and file; and the mount is as before."""
    started(bench)
    with process_in(Path(bench.params["directory"])) as pid:
        outcome = bench.run(Verb.STOP)
        failed(outcome, f"(pid {pid}, root): working directory {bench.params['directory']}", 'kill = "term"')
        assert processes.look(pid) is not None and mounted(bench)
    assert bench.run(Verb.STOP).ok


def test_an_open_and_a_mapped_file_are_found(bench: Bench) -> None:
    """By the mount that they were opened through, not by looking at them."""
    (Path(bench.params["device"]) / "data").write_bytes(b"x" * 4096)
    started(bench)
    data = f"{bench.params['directory']}/data"
    with process_in(Path("/"), f"f = open({data!r}); print('here', flush=True); time.sleep(99)") as pid:
        failed(bench.run(Verb.STOP), f"(pid {pid}, root): open file {data}")
    mapped = (
        f"import ctypes; f = open({data!r}, 'r+b'); mmap = ctypes.CDLL(None).mmap; mmap.restype = ctypes.c_void_p\n"
        "assert mmap(None, ctypes.c_size_t(4096), 1, 2, f.fileno(), ctypes.c_long(0)); f.close()\n"
        "print('here', flush=True); time.sleep(99)"
    )
    with process_in(Path("/"), mapped) as pid:
        failed(bench.run(Verb.STOP), f"(pid {pid}, root): mapped file {data}")


def test_with_permission_holders_are_asked_to_end(bench: Bench) -> None:
    """kill = "term" sends SIGTERM, and the stop goes on."""
    started(bench)
    with process_in(Path(bench.params["directory"])):
        assert bench.run(Verb.STOP, kill="term").ok
    assert not mounted(bench)


def test_who_ignores_sigterm_is_killed_only_if_that_is_allowed(bench: Bench) -> None:
    """ "term" fails and names it, "kill" ends it."""
    deaf = "signal.signal(signal.SIGTERM, signal.SIG_IGN); print('here', flush=True); time.sleep(99)"
    started(bench)
    with process_in(Path(bench.params["directory"]), deaf) as pid:
        failed(bench.run(Verb.STOP, kill="term", timeout_ms=6_000), f"pid {pid}", 'kill = "kill"')
        assert processes.look(pid) is not None
        assert bench.run(Verb.STOP, kill="kill", timeout_ms=6_000).ok


def test_hostd_and_what_started_it_are_never_ended(bench: Bench) -> None:
    """The test's own process is the parent of every action, and stands in the directory."""
    started(bench)
    with contextlib.chdir(bench.params["directory"]):
        failed(bench.run(Verb.STOP, kill="kill"), f"(pid {os.getpid()}, root)", "[hostd, or what started it]")
    assert bench.run(Verb.STOP).ok


def test_sshd_is_never_ended(bench: Bench, room: Path) -> None:
    """It may be the operator's only way in; a listener or a session, whatever directory it stands in."""
    started(bench)
    shutil.copy("/usr/bin/sleep", room / "sshd")
    with subprocess.Popen([room / "sshd", "99"], cwd=bench.params["directory"]) as sshd:
        failed(bench.run(Verb.STOP, kill="kill", timeout_ms=6_000), f"sshd (pid {sshd.pid}, root)", "is never ended")
        assert sshd.poll() is None
        sshd.kill()
    assert bench.run(Verb.STOP).ok


def test_a_lazy_unmount_happens_only_when_told(bench: Bench) -> None:
    """It takes the mount out of the tree and leaves the holder alone."""
    started(bench)
    with process_in(Path(bench.params["directory"])) as pid:
        assert bench.run(Verb.STOP, lazy=True).ok
        assert not mounted(bench) and processes.look(pid) is not None


# -- disks ----------------------------------------------------------------------------------


@NEEDS_LOOP
def test_a_disk_is_mounted_used_and_released(ext4: Bench) -> None:
    """ext4: start, every depth, stop; afterwards the device is free, and the data is there again."""
    started(ext4)
    (Path(ext4.params["directory"]) / "file").write_text("kept")
    for depth in (0, 10, 20):
        assert ext4.run(Verb.MONITOR, depth=depth).health is Health.RUNNING
    assert ext4.run(Verb.STOP).ok
    os.close(os.open(ext4.params["device"], os.O_RDONLY | os.O_EXCL))
    started(ext4, fstype="ext4", over=True)
    assert (Path(ext4.params["directory"]) / "file").read_text() == "kept"


@NEEDS_LOOP
def test_xfs_is_mounted_by_label(room: Path) -> None:
    """The label is found, start and monitor mean the same device, and so does stop."""
    (room / "srv").mkdir()
    with mount_room.disk(room, "xfs", megabytes=300) as device:
        subprocess.run(["xfs_admin", "-L", "hostd-test", device], check=True, capture_output=True)
        for bench in opened(room, {"device": "LABEL=hostd-test", "directory": str(room / "srv"), "fstype": "xfs"}):
            started(bench)
            assert bench.run(Verb.MONITOR, depth=20).health is Health.RUNNING
            assert bench.run(Verb.STOP).ok and not mounted(bench)


@NEEDS_LOOP
def test_a_uuid_means_its_device(ext4: Bench) -> None:
    """And one that no device has is told."""
    found = subprocess.run(["blkid", "-p", "-o", "value", "-s", "UUID", ext4.params["device"]], capture_output=True)
    started(ext4, device=f"UUID={found.stdout.decode().strip()}")
    assert ext4.run(Verb.STOP, device=f"UUID={found.stdout.decode().strip()}").ok
    failed(ext4.run(Verb.START, device="UUID=00000000-aaaa"), "there is no device with UUID=00000000-aaaa")


@NEEDS_LOOP
def test_what_is_mounted_elsewhere_is_not_mounted_again(ext4: Bench, room: Path) -> None:
    """At another directory here."""
    (room / "other").mkdir()
    subprocess.run(["mount", ext4.params["device"], str(room / "other")], check=True)
    failed(ext4.run(Verb.START), f"is in use: mounted at {room / 'other'} (ext4)")
    assert not mounted(ext4)
    subprocess.run(["umount", str(room / "other")], check=True)
    started(ext4)


@NEEDS_LOOP
def test_what_another_mount_namespace_has_mounted_is_not_mounted(ext4: Bench, room: Path) -> None:
    """A container may have it; and a stop is not believed while it does."""
    (room / "other").mkdir()
    script = 'mount "$0" "$1" && echo here && exec sleep 99'
    argv = ["unshare", "--mount", "sh", "-c", script, ext4.params["device"], str(room / "other")]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as container:
        assert container.stdout is not None and container.stdout.readline() == b"here\n"
        failed(ext4.run(Verb.START), "in the mount namespace of process", str(container.pid))
        container.kill()
    started(ext4)
    with subprocess.Popen(["unshare", "--mount", "sh", "-c", "echo; exec sleep 99"], stdout=subprocess.PIPE) as copy:
        assert copy.stdout is not None and copy.stdout.readline()
        failed(ext4.run(Verb.STOP, timeout_ms=5_000), "is still in use", "mount namespace", str(copy.pid))
        copy.kill()
    assert ext4.run(Verb.STOP).ok


@NEEDS_LOOP
def test_a_lazy_unmount_of_a_disk_is_no_stop_while_it_is_in_use(ext4: Bench) -> None:
    """The filesystem lives on below the surface and may still write: the other node must not mount it."""
    started(ext4)
    with process_in(Path(ext4.params["directory"])):
        for _ in range(2):
            failed(ext4.run(Verb.STOP, lazy=True, timeout_ms=4_000), "is unmounted, but", "still in use")
        failed(ext4.run(Verb.START), "is in use")
    assert ext4.run(Verb.STOP).ok


def broken(device: str, state: int) -> None:
    """Set the state of an ext4 superblock, with the checksum off so that it stays valid."""
    subprocess.run(["debugfs", "-w", "-R", f"ssv state {state}", device], check=True, capture_output=True)


@NEEDS_LOOP
def test_a_dirty_filesystem_is_checked_only_when_told(ext4: Bench) -> None:
    """Else the start says so, with the cure, and mounts nothing."""
    broken(ext4.params["device"], 2)
    failed(ext4.run(Verb.START), "has met errors, and no fsck since", 'fsck = "dirty"')
    assert not mounted(ext4)
    started = ext4.run(Verb.START, fsck="dirty")
    assert started.ok and "fsck" in started.output


@NEEDS_LOOP
def test_a_filesystem_without_journal_that_was_not_unmounted_is_dirty(room: Path) -> None:
    """ext2 after a crash, which no journal makes good."""
    (room / "srv").mkdir()
    with mount_room.disk(room, "ext2") as device:
        for bench in opened(room, {"device": device, "directory": str(room / "srv")}):
            broken(device, 0)
            failed(bench.run(Verb.START), "was not unmounted cleanly")
            started(bench, fsck="dirty")


@NEEDS_LOOP
def test_what_fsck_cannot_mend_is_not_mounted(room: Path) -> None:
    """Its words reach the operator."""
    (room / "srv").mkdir()
    with mount_room.disk(room, "ext4") as device:
        broken(device, 2)
        with open(device, "r+b") as disk:
            disk.seek(4096)
            disk.write(b"\xff" * 8192)  # group descriptors
        for bench in opened(room, {"device": device, "directory": str(room / "srv"), "fsck": "dirty"}):
            failed(bench.run(Verb.START), f"fsck of {device} ended with", "by hand")


@NEEDS_LOOP
def test_a_filesystem_that_fell_read_only_has_failed(ext4: Bench) -> None:
    """At depth 0 already; and a write-protected disk is not silently mounted so."""
    started(ext4)
    subprocess.run(["mount", "-o", "remount,ro", ext4.params["directory"]], check=True)
    failed(ext4.run(Verb.MONITOR), "is read-only, and ro is not among its options")
    assert ext4.run(Verb.STOP).ok
    subprocess.run(["blockdev", "--setro", ext4.params["device"]], check=True)
    try:
        failed(ext4.run(Verb.START, over=True), "read-only")
        assert not mounted(ext4)
    finally:
        subprocess.run(["blockdev", "--setrw", ext4.params["device"]], check=True)  # it outlives the loop device


@NEEDS_LOOP
def test_errors_that_ext4_counts_are_a_failure(ext4: Bench) -> None:
    """Also with errors=continue, where nothing else shows."""
    started(ext4, options="errors=continue")
    directory = Path(ext4.params["directory"])
    (directory / "file").touch()
    assert ext4.run(Verb.MONITOR, options="errors=continue").ok
    number = (directory / "file").stat().st_ino
    assert ext4.run(Verb.STOP).ok
    subprocess.run(["debugfs", "-w", "-R", f"clri <{number}>", ext4.params["device"]], check=True, capture_output=True)
    started(ext4, options="errors=continue")
    with pytest.raises(OSError):
        (directory / "file").stat()
    failed(ext4.run(Verb.MONITOR, options="errors=continue"), "ext4 has met 1 errors")


@NEEDS_LOOP
def test_a_full_disk_is_degraded_and_no_reason_to_move(ext4: Bench) -> None:
    """The other node would find it as full."""
    started(ext4)
    with contextlib.suppress(OSError), open(f"{ext4.params['directory']}/big", "wb", buffering=0) as big:
        while big.write(b"\0" * 65536):
            pass
    with contextlib.suppress(OSError), open(f"{ext4.params['directory']}/rest", "wb", buffering=0) as rest:
        while rest.write(b"\0" * 512):
            pass
    assert ext4.run(Verb.MONITOR, depth=20).health is Health.DEGRADED
    assert ext4.run(Verb.MONITOR, depth=10).health is Health.RUNNING


@NEEDS_LOOP
def test_a_loop_device_on_a_file_of_it_is_named(ext4: Bench) -> None:
    """No process holds it; the kernel does."""
    started(ext4)
    with mount_room.disk(Path(ext4.params["directory"]), "", name="inner", megabytes=1):
        failed(ext4.run(Verb.STOP), "loop device loop", f"on {ext4.params['directory']}/inner.img")
    assert ext4.run(Verb.STOP).ok


# -- what hangs ------------------------------------------------------------------------------


@pytest.fixture
def dying(room: Path) -> Iterator[tuple[Bench, mount_room.DyingServer]]:
    """The agent with a bind mount of what a server serves, started."""
    (room / "srv").mkdir()
    with mount_room.dying_server(room / "served") as server:
        for bench in opened(room, {"device": str(room / "served"), "directory": str(room / "srv"), "fstype": "bind"}):
            started(bench)
            assert bench.run(Verb.MONITOR, depth=10).health is Health.RUNNING
            yield bench, server
            server.end()  # first: what hangs is to return before the bench is closed


def test_a_server_that_answers_no_more_is_told_in_time(dying: tuple[Bench, mount_room.DyingServer]) -> None:
    """The look hangs in state D and is left behind; the monitor answers, and no second look is forked."""
    bench, server = dying
    server.fall_silent()
    outcome = bench.run(Verb.MONITOR, depth=10, patience=0.5)
    failed(outcome, "a look at", "did not return within 0.5 s and cannot be killed", "state D in request_wait")
    assert outcome.took_ms < 4_000
    for _ in range(3):
        again = bench.run(Verb.MONITOR, depth=10)
        failed(again, "still hangs, for", "state D")
        assert again.took_ms < 2_000
    assert len(bench.left()) == 1, "one child is left behind, whatever the number of monitors"
    assert bench.run(Verb.MONITOR, depth=0).ok, "mountinfo is read without asking the server"


def test_a_patience_beyond_the_time_limit_is_cut_short(dying: tuple[Bench, mount_room.DyingServer]) -> None:
    """The monitor answers by itself, with its reason, before the host has to kill it."""
    bench, server = dying
    server.fall_silent()
    failed(bench.run(Verb.MONITOR, depth=10, patience=60.0, timeout_ms=3_500), "did not return within")


def test_a_hung_look_keeps_a_stop_from_being_believed(dying: tuple[Bench, mount_room.DyingServer]) -> None:
    """It holds the mount; when it returns the stop succeeds."""
    bench, server = dying
    server.fall_silent()
    bench.run(Verb.MONITOR, depth=10, patience=0.3)
    assert not bench.run(Verb.STOP, timeout_ms=6_000, kill="kill").ok
    server.end()
    bench_left_until_empty(bench)
    assert bench.run(Verb.STOP).ok and not mounted(bench)


def bench_left_until_empty(bench: Bench) -> None:
    until = time.monotonic() + 10
    while bench.left() and time.monotonic() < until:
        time.sleep(0.02)
    assert bench.left() == []


# -- bad input ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"directory": "srv"}, ("is no absolute path",)),
        ({"directory": ""}, ("is no absolute path",)),
        ({"directory": "/"}, ("is the root of this machine",)),
        ({"directory": "/nowhere/at/all"}, ("does not exist", "mkdir -p")),
        ({"directory": "/etc/passwd"}, ("is no directory",)),
        ({"device": "/dev/null", "fstype": ""}, ("is a file and no disk",)),
        ({"device": "/nowhere", "fstype": ""}, ("is not there", "lsblk")),
        ({"device": "/etc", "fstype": ""}, ("is a directory and no disk", 'fstype = "bind"')),
        ({"device": "sdb1", "fstype": ""}, ("is no path", "UUID=")),
        ({"device": "UUID=", "fstype": ""}, ("names nothing",)),
        ({"device": "LABEL=no such label", "fstype": ""}, ("there is no device with LABEL=no such label",)),
        ({"device": "/nowhere"}, ("cannot be looked at", "No such file")),
        ({"device": "server:/export", "fstype": ""}, ("is not for the agent filesystem", 'agent = "nfs"')),
        ({"fstype": "gfs2"}, ('agent = "gfs"',)),
        ({"options": "noatime,,nodev"}, ("has an empty or blank item",)),
        ({"options": "noatime, nodev"}, ("has an empty or blank item",)),
        ({"options": "remount"}, ("is no option of a new mount",)),
        ({"options": "ro,rw"}, ("both ro and rw",)),
        ({"options": "no_such_option_at_all=1", "fstype": "tmpfs", "device": "x"}, ("cannot be mounted",)),
        ({"fstype": "no_such_type", "device": "/dev/vda"}, ()),
    ],
)
def test_bad_input_is_told_and_mounts_nothing(bench: Bench, params: dict[str, Any], words: tuple[str, ...]) -> None:
    """Each with its rule and its cure, at once."""
    outcome = bench.run(Verb.START, **params)
    failed(outcome, *words)
    assert outcome.took_ms < 5_000 and not mounted(bench)


def test_what_the_system_mounts_at_boot_is_told(tmp_path: Path) -> None:
    """A line in fstab without noauto would mount it on both nodes, before any daemon runs."""
    fstab = tmp_path / "fstab"
    fstab.write_text("# what it is\n/dev/sdb1 /srv/ ext4 defaults 0 2\n/dev/sdc1 /other ext4 noauto,ro 0 0\n")
    with pytest.raises(AgentError, match="mounts /dev/sdb1 there at boot"):
        places.check_fstab("/srv", fstab)
    places.check_fstab("/other", fstab)
    places.check_fstab("/srv", tmp_path / "none")


@pytest.mark.parametrize("fstype", ["bind", "tmpfs", ""])
def test_good_parameters_are_valid(bench: Bench, fstype: str) -> None:
    """And asking for it mounts nothing; a type that no kernel has is told."""
    assert bench.run(Verb.VALIDATE, fstype=fstype or "bind", options="" if fstype else "ro").ok and not mounted(bench)
    failed(bench.run(Verb.VALIDATE, fstype="no-such-type", device="/dev/null"), "is a file and no disk")


@pytest.mark.parametrize("given", ["0", "-1", "601", "nan", "soon"])
def test_a_patience_without_sense_is_refused(given: str) -> None:
    """With 0 every monitor would fail, with an hour none would."""
    with pytest.raises(ValueError, match=r"must be from 0\.1|could not convert"):
        places.seconds(given)
    assert places.seconds("2.5") == 2.5


# -- its sandbox ---------------------------------------------------------------------------


@NEEDS_LOOP
def test_the_sandbox_is_a_real_filesystem_that_ends_with_its_test(room: Path) -> None:
    """ext4 on a loop device, which the kernel frees when the folder is removed."""
    params = filesystem.sandbox(room / "it")
    assert params["fstype"] == "ext4" and params["device"].startswith("/dev/loop")
    try:
        agent = mount_room.resource(room, filesystem, params)
        filesystem.start(agent)
        assert filesystem.monitor(agent) is Health.RUNNING
        filesystem.stop(agent)
        assert str(room) in backing_file(params["device"]), "it outlives a stop"
    finally:
        shutil.rmtree(room / "it")
    until = time.monotonic() + 10
    while str(room) in backing_file(params["device"]) and time.monotonic() < until:
        time.sleep(0.01)
    assert str(room) not in backing_file(params["device"])


@pytest.mark.parametrize("missing", ["losetup", "mkfs.ext4"])
def test_where_there_is_no_loop_device_the_sandbox_is_a_bind_mount(room: Path, missing: str) -> None:
    """A container has none; its start, monitor and stop can be tried all the same."""
    with mount_room.programs(room, **{missing: "echo no >&2; exit 1"}):
        params = filesystem.sandbox(room / "it")
    assert params["fstype"] == "bind"
    agent = mount_room.resource(room, filesystem, params)
    filesystem.start(agent)
    assert filesystem.monitor(agent) is Health.RUNNING
    filesystem.stop(agent)
    assert filesystem.monitor(agent) is Health.STOPPED


def backing_file(device: str) -> str:
    """The file behind a loop device; "" if it is free."""
    file = Path("/sys/block", Path(device).name, "loop/backing_file")
    return file.read_text() if file.exists() else ""
