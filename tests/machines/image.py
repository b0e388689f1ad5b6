"""The machines' disk: Debian, hostd installed as its users do, and settings that make it boot fast.

Decides what is in the guests' root file system and in the few files that
mount it.  Made anew when the checkout or a file of ``guest/`` has changed; the
packages below it, which take the most time, only when their list changes.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.machines import debian, installation
from tests.machines.debian import CACHE, run
from tests.machines.steps import step

GUEST_FILES = Path(__file__).with_name("guest")
ROOT_SIZE = "2500M"
RUN_PREFIX = "run-"
"""Of the folder in the cache in which a pair lives."""

NOT_AT_BOOT = [
    *("apache2", "mariadb", "slapd", "cyrus-imapd", "corosync", "dlm", "exim4"),
    *("nfs-server", "rpcbind", "rpcbind.socket", "nfs-client.target", "hostd"),
]
"""What hostd or a test starts, not the boot."""

MASKED = [
    *("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "fstrim.timer"),
    *("e2scrub_reap.service", "exim4-base.timer", "systemd-update-utmp.service"),
    *("systemd-update-utmp-runlevel.service", "systemd-binfmt.service", "systemd-pstore.service"),
    *("systemd-logind.service", "systemd-user-sessions.service", "systemd-random-seed.service"),
    *("modprobe@drm.service", "modprobe@efi_pstore.service", "kmod-static-nodes.service"),
    *("sys-kernel-debug.mount", "sys-kernel-tracing.mount", "dev-hugepages.mount"),
    *("getty.target", "console-getty.service", "serial-getty@ttyS0.service"),
]
"""What only costs time at boot.  (Not modprobe@configfs.service: dlm.service needs it.)"""

INIT = """\
#!/bin/busybox sh
bb=/bin/busybox
$bb mount -t devtmpfs dev /dev; $bb mount -t proc proc /proc
while read m; do $bb insmod $m; done < /modules
until [ -b /dev/vda ]; do $bb sleep 0.1; done
$bb mount -t ext4 -o noatime /dev/vda /new || exec $bb sh
$bb mount --move /dev /new/dev; $bb umount /proc
exec $bb switch_root /new /sbin/init
"""


@dataclass(frozen=True)
class Image:
    """Made once, read by every guest."""

    folder: Path
    base: Path

    @property
    def root(self) -> Path:
        return self.folder / "root.ext4"

    @property
    def initramfs(self) -> Path:
        return self.folder / "initramfs"

    @property
    def kernel(self) -> Path:
        return self.base / "vmlinux"

    @property
    def saved(self) -> Path:
        """A guest that has booted once, if somebody has saved it there."""
        return self.folder / "saved"


def image() -> Image:
    """The image of this checkout; made if it is not there."""
    CACHE.mkdir(parents=True, exist_ok=True)
    below = debian.parts()
    package = installation.package()
    made = CACHE / f"image-{_digest(below, package)}"
    if not made.is_dir():
        for old in CACHE.glob("image-*"):
            shutil.rmtree(old)
        with tempfile.TemporaryDirectory(prefix="making-", dir=CACHE) as place:
            half = Path(place) / "image"
            half.mkdir()
            tree = Path(place) / "tree"
            with step("their root file system, hostd installed in it"):
                _grow(tree, below, package)
                _pack(tree, half / "root.ext4")
                _make_initramfs(Path(place) / "initramfs", below, tree, half / "initramfs")
            half.rename(made)
    return Image(made, below)


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """One at a time: two sets of machines would starve each other."""
    CACHE.mkdir(parents=True, exist_ok=True)
    handle = os.open(CACHE, os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with step("waiting for other machines on this host to end"):
                fcntl.flock(handle, fcntl.LOCK_EX)
        for left in (*CACHE.glob("making-*"), *CACHE.glob(f"{RUN_PREFIX}*")):  # of a run that was killed
            shutil.rmtree(left, ignore_errors=True)
        yield
    finally:
        os.close(handle)


def _digest(below: Path, package: Path) -> str:
    parts = [below.name, installation.identity(package), Path(__file__).read_text()]
    for path in sorted(GUEST_FILES.rglob("*")):
        if path.is_file():
            parts += [str(path.relative_to(GUEST_FILES)), path.read_text(), str(path.stat().st_mode & stat.S_IXUSR)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def _grow(tree: Path, below: Path, package: Path) -> None:
    tree.mkdir()
    # by number: this machine may know the same users by others
    run("tar", "-C", str(tree), "--numeric-owner", "-xf", str(below / "root.tar"))
    shutil.copytree(GUEST_FILES, tree, dirs_exist_ok=True)
    for path in sorted(GUEST_FILES.rglob("*")):
        os.chown(tree / path.relative_to(GUEST_FILES), 0, 0)
    (tree / "etc/hostname").write_text("machine\n")
    (tree / "etc/hosts").write_text(
        "127.0.0.1 localhost\n::1 localhost\n172.23.2.11 clustnode1\n172.23.2.12 clustnode2\n"
    )
    (tree / "etc/machine-id").write_text("0123456789abcdef0123456789abcdef\n")
    (tree / "etc/fstab").write_text("")
    for name in debian.module_files(below, debian.MODULES_TO_BOOT + debian.MODULES):
        target = tree / name.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(below / name.lstrip("/"), target)
    version = debian.kernel_version(below)
    for listed in ("modules.builtin", "modules.builtin.modinfo", "modules.order"):
        shutil.copy(below / "lib/modules" / version / listed, tree / "lib/modules" / version)
    run("depmod", "-b", str(tree), version)
    installation.install(package, tree)
    for unit in NOT_AT_BOOT:  # one that is not there is none to disable
        subprocess.run(["chroot", str(tree), "systemctl", "-q", "disable", unit], capture_output=True, check=False)
    run("chroot", str(tree), "systemctl", "-q", "enable", "machine-network.service")
    for unit in MASKED:
        link = tree / "etc/systemd/system" / unit
        link.unlink(missing_ok=True)
        link.symlink_to("/dev/null")


def _pack(tree: Path, disk: Path) -> None:
    """With a journal, as a real disk has: what a power cut does to it is part of what is tested."""
    run("truncate", "-s", ROOT_SIZE, str(disk))
    run("mke2fs", "-q", "-t", "ext4", "-J", "size=8", "-E", "lazy_itable_init=1", "-d", str(tree), str(disk))


def _make_initramfs(place: Path, below: Path, tree: Path, packed: Path) -> None:
    for folder in ("bin", "dev", "proc", "sys", "new"):
        (place / folder).mkdir(parents=True)
    shutil.copy(tree / "bin/busybox", place / "bin/busybox")
    files = debian.module_files(below, debian.MODULES_TO_BOOT)
    for name in files:
        target = place / name.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(below / name.lstrip("/"), target)
    (place / "modules").write_text("\n".join(files) + "\n")
    (place / "init").write_text(INIT)
    (place / "init").chmod(0o755)
    listed = "\n".join(str(path.relative_to(place)) for path in [place, *sorted(place.rglob("*"))])
    with open(packed, "wb") as out:
        subprocess.run(
            ["cpio", "-o", "-H", "newc", "--quiet"], cwd=place, input=listed.encode(), stdout=out, check=True
        )
