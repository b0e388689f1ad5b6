"""What emulated machines are made of: Debian packages, a kernel, and nothing of hostd.

Decides which packages the guests have and which of the kernel's modules, and
keeps the result until this list changes.  Everything comes from the Debian
mirror that this machine uses; nothing of it is installed here, in particular
no kernel, so that nothing changes what this machine boots.
"""

import hashlib
import lzma
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.machines.steps import step

CACHE = Path(os.environ.get("HOSTD_MACHINES_CACHE", "/var/cache/hostd-machines"))

SUITE = "bookworm"
PACKAGES = [
    *("systemd-sysv", "udev", "dbus", "kmod", "iproute2", "iputils-ping", "procps", "psmisc", "busybox-static"),
    *("qemu-guest-agent", "python3", "python3-venv", "e2fsprogs"),
    *("apache2", "mariadb-server", "slapd", "ldap-utils", "cyrus-imapd", "cyrus-admin"),
    *("corosync", "dlm-controld", "gfs2-utils", "sg3-utils", "nfs-common", "nfs-kernel-server"),
]
LEFT_OUT = ("doc/*", "man/*", "locale/*", "info/*", "i18n/*", "lintian/*")
"""Below /usr/share: dead weight in a test."""

MODULES_TO_BOOT = ["virtio_pci", "virtio_blk", "ext4", "virtio_console", "virtio_rng"]
MODULES = [
    *("virtio_net", "virtio_scsi", "sd_mod", "sg", "i6300esb", "autofs4", "configfs", "fuse", "nf_tables", "nft_ct"),
    *("gfs2", "dlm", "sctp", "nfs", "nfsv4", "nfsd"),
]
"""Only these and what they need are in a guest."""

FETCH = """\
set -e
mkdir -p "$1/beside"
chmod 777 "$1/beside"
chroot "$1" sh -ec '
    cd /beside
    apt-get -q download tgt $(apt-cache depends linux-image-amd64 | sed -n "s/.*Depends: //p")
    for package in *.deb; do dpkg-deb -x $package .; done
    rm *.deb'
"""
"""Run for the new root: the kernel and the SCSI target are laid beside its files, not installed."""


def parts() -> Path:
    """The folder with ``root.tar``, ``vmlinux``, ``lib/modules`` and ``usr/sbin/tgtd``; made if it is not there."""
    wish = "\n".join([SUITE, *PACKAGES, *LEFT_OUT, *MODULES_TO_BOOT, *MODULES, FETCH])
    made = CACHE / f"base-{hashlib.sha256(wish.encode()).hexdigest()[:12]}"
    if made.is_dir():
        return made
    for old in CACHE.glob("base-*"):
        shutil.rmtree(old)
    with tempfile.TemporaryDirectory(prefix="making-", dir=CACHE) as place:
        half = Path(place) / "base"
        half.mkdir()
        with step(f"packages for the machines ({len(PACKAGES)} and what they need)"):
            _download(half / "root.tar")
        with step("their kernel"):
            _unpack_beside(half)
        half.rename(made)
    return made


def kernel_version(of: Path) -> str:
    """Of these parts."""
    return next((of / "lib/modules").iterdir()).name


def module_files(of: Path, names: Sequence[str]) -> list[str]:
    """The files of these modules and of all that they need, in the order of loading, from ``/lib`` on."""
    version = kernel_version(of)
    found: dict[str, None] = {}
    for name in names:
        said = run("modprobe", "-d", str(of), "-S", version, "--show-depends", name)
        for line in said.splitlines():
            if line.startswith("insmod "):
                found["/lib/modules/" + line.split()[1].split("/lib/modules/", 1)[1]] = None
    return list(found)


def run(*argv: str, stdin: bytes = b"") -> str:
    """Run a command of this machine; its standard output.  AssertionError with what it printed if it fails."""
    done = subprocess.run(argv, input=stdin, capture_output=True, check=False)
    said = (done.stdout + done.stderr).decode(errors="replace")
    assert done.returncode == 0, f"exit code {done.returncode} of {' '.join(argv)}:\n{said[-3000:]}"
    return done.stdout.decode(errors="replace")


def _download(tar: Path) -> None:
    hook = tar.with_name("fetch")
    hook.write_text(FETCH)
    run(
        "mmdebstrap",
        "--mode=root",
        "--variant=minbase",
        f"--include={','.join(PACKAGES)}",
        *(f"--dpkgopt=path-exclude=/usr/share/{pattern}" for pattern in LEFT_OUT),
        "--aptopt=Acquire::Retries 3",
        f"--customize-hook=sh {hook} $1",
        SUITE,
        str(tar),
        "-",
        stdin=_sources().encode(),
    )
    hook.unlink()


def _sources() -> str:
    """Where this machine has its packages from, if it is the same Debian; else Debian's own address."""
    wanted = (SUITE, f"{SUITE}-updates", f"{SUITE}-security")
    listed = run(
        "apt-get", "indextargets", "--format", "$(RELEASE) deb $(REPO_URI) $(RELEASE) main", "Created-By: Packages"
    )
    lines = [line.split(" ", 1)[1] for line in listed.splitlines() if line.split(" ", 1)[0] in wanted]
    return "\n".join(dict.fromkeys(lines)) or f"deb http://deb.debian.org/debian {SUITE} main"


def _unpack_beside(half: Path) -> None:
    """Take what lies beside the root's files out of the archive, and unpack the kernel once for all boots."""
    run("tar", "-C", str(half), "--strip-components=2", "-xf", str(half / "root.tar"), "./beside")
    run("tar", "--delete", "-f", str(half / "root.tar"), "./beside")
    packed = next((half / "boot").glob("vmlinuz-*")).read_bytes()
    # Debian's kernel is packed with xz, behind a loader that would unpack it anew at each boot
    (half / "vmlinux").write_bytes(lzma.LZMADecompressor().decompress(packed[packed.index(b"\xfd7zXZ\x00") :]))
    run("depmod", "-b", str(half), kernel_version(half))
