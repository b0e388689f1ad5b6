"""A real systemd as process 1 of namespaces of its own, in a copy of this system that is thrown away.

Decides how it is booted and how it ends; knows nothing of what is tried in
it.  It takes a second, where an emulated machine (``tests/machines``) takes
half a minute, and shares the kernel with us: no boot, no device, no shutdown
of hardware is shown here.
"""

import os
import subprocess
import time
from pathlib import Path

UNIT = """[Unit]
Description=What is tried
DefaultDependencies=no
[Service]
Type=oneshot
ExecStart=/bin/sh /mnt/script
StandardOutput=file:/mnt/output
StandardError=file:/mnt/errors
ExecStopPost=/usr/bin/touch /mnt/done
"""

OUTSIDE = """
set -eu
mount -t tmpfs none {place}
mkdir {place}/upper {place}/work {place}/root {place}/cgroup
mount -t overlay overlay -o lowerdir=/,upperdir={place}/upper,workdir={place}/work {place}/root
mount -t cgroup2 none {place}/cgroup
mkdir {place}/cgroup/{group}
echo $$ >{place}/cgroup/{group}/cgroup.procs
exec unshare --cgroup --net --uts --ipc --pid --mount --fork --kill-child sh -c '{boot}'
"""

BOOT = """
set -eu
cd {place}/root
mount -t proc proc proc
mount -t tmpfs none run
mount -t tmpfs none tmp
mount -t tmpfs none dev
mount -t sysfs sysfs sys
mountpoint -q sys/fs/cgroup || mount -t tmpfs none sys/fs/cgroup
mount -t cgroup2 none sys/fs/cgroup
mkdir dev/pts dev/shm
for node in null zero random urandom full tty; do touch dev/$node; mount --bind /dev/$node dev/$node; done
ln -s /proc/self/fd dev/fd
mount --bind {shared} mnt
rm -f usr/sbin/policy-rc.d
cp mnt/tried.service etc/systemd/system/
exec chroot . env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --unit=tried.service --show-status=0
"""


def booted(folder: Path, script: str, files: dict[str, Path], timeout_s: float) -> str:
    """What ``script`` prints as root under that systemd, without network; ``files`` are in its /mnt.

    AssertionError, with what was printed so far, if it does not end in time.
    """
    shared, place = folder / "shared", folder / "place"
    shared.mkdir()
    place.mkdir()
    for name, path in files.items():
        (shared / name).write_bytes(path.read_bytes())
    (shared / "script").write_text(script)
    (shared / "tried.service").write_text(UNIT)
    group = f"hostd-test-{folder.name}-{os.getpid()}"  # a run that was killed may have left its own
    outside = OUTSIDE.format(place=place, group=group, boot=BOOT.format(place=place, shared=shared))
    with (shared / "console").open("wb") as console:
        systemd = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", outside],
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=console,
        )
        try:
            until = time.monotonic() + timeout_s
            while not (shared / "done").exists() and systemd.poll() is None and time.monotonic() < until:
                time.sleep(0.1)
        finally:
            systemd.kill()  # its child is process 1 there, and dies with it, and all the others then
            systemd.wait()
            _remove_group(place, group)
    said = {name: _text(shared / name) for name in ("output", "errors", "console")}
    assert (shared / "done").exists(), said
    return said["output"]


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""


def _remove_group(place: Path, group: str) -> None:
    """Its processes take a moment to be gone."""
    script = """
    mount -t cgroup2 none {place} && cd {place} || exit 1
    for try in 1 2 3 4 5 6 7 8 9 10; do
        find {group} -depth -type d -exec rmdir {{}} \\; 2>/dev/null
        [ -e {group} ] || exit 0
        sleep 0.2
    done
    """
    argv = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script.format(place=place, group=group)]
    subprocess.run(argv, check=False, capture_output=True, timeout=30)
