"""The real Heartbeat 3.0.6, as the judge of the importer.

Decides where it comes from: the Debian package ``heartbeat`` and the libraries
it needs, fetched by apt and unpacked into a folder of their own.  It is never
installed, since that would start it at the next boot.

``Heartbeat`` is its shell parser of haresources (``ResourceManager``), which
runs as it is, but for its paths; the resource scripts that it calls are
recorders.  ``Daemon`` is its reader of ha.cf: the daemon itself, in namespaces
and a root directory of its own without authkeys, so that it ends after it
read its files.  Both know nothing of hostd.
"""

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

PACKAGES = (
    "heartbeat", "cluster-glue", "libheartbeat2", "libplumb2", "libplumbgpl2", "libpils2", "libstonith1",
    "libc6", "libglib2.0-0", "libpcre2-8-0", "libltdl7", "libuuid1", "libbz2-1.0", "zlib1g",
)  # fmt: skip
KEPT = Path(__file__).resolve().parents[2] / ".venv" / "heartbeat"
"""Unpacked once; the environment of the tests is made and thrown away as a whole."""

PARSER = "usr/share/heartbeat/ResourceManager"
DAEMON = "/usr/libexec/heartbeat/heartbeat"

SHELLFUNCS = """\
HA_RESOURCEDIR=$HA_DIR/resource.d
HA_DEBUGLOG=/dev/null
HA_CURHOST=nobody
ha_log() { echo "$*" >>$HA_DIR/log; }
ha_debug() { :; }
"""
RECORDER = """\
#!/bin/sh
[ "$#" -gt 0 ] && for last; do :; done
if [ "$last" = status ]; then echo "not running"; exit 3; fi
line=${0##*/}
for word; do line="$line	$word"; done
printf '%s\\n' "$line" >>"$(dirname "$0")/../calls"
"""


class NotToBeHad(Exception):
    """Heartbeat cannot be fetched: why."""


def unpacked() -> Path:
    """A root directory with Heartbeat and what it needs.  Raises NotToBeHad."""
    KEPT.mkdir(parents=True, exist_ok=True)
    root = KEPT / "root"
    with (KEPT / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not root.is_dir():
            with tempfile.TemporaryDirectory(dir=KEPT) as scratch:
                _fetch(Path(scratch))
                (Path(scratch) / "root").rename(root)
    return root


def _fetch(folder: Path) -> None:
    """The packages by their names, through apt; the lists are brought up to date if they lack one."""
    if shutil.which("apt-get") is None:
        raise NotToBeHad("there is no apt-get here, and Heartbeat is had as a package of Debian")
    download = ["apt-get", "-q", "-o", "DPkg::Lock::Timeout=300", "download", *PACKAGES]
    done = subprocess.run(download, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode != 0:
        subprocess.run(["apt-get", "-q", "update"], capture_output=True, timeout=300, check=False)
        done = subprocess.run(download, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode != 0:
        raise NotToBeHad(f"apt-get download {' '.join(PACKAGES)}: {done.stderr.strip()}")
    root = folder / "root"
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")
    for package in sorted(folder.glob("*.deb")):
        files = subprocess.run(["dpkg-deb", "--fsys-tarfile", str(package)], capture_output=True, check=True)
        # --keep-directory-symlink: /lib of an older package is /usr/lib here, as on every Debian 12
        unpack = ["tar", "-x", "--keep-directory-symlink", "-C", str(root)]
        subprocess.run(unpack, input=files.stdout, capture_output=True, check=True)


class Heartbeat:
    """The real parser over one haresources at a time, in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "resource.d").mkdir(parents=True)
        (directory / "shellfuncs").write_text(SHELLFUNCS)
        text = (unpacked() / PARSER).read_text().replace("HA_DIR=/etc/ha.d", f"HA_DIR={directory}")
        text = text.replace("INITDIR=/etc/init.d", f"INITDIR={directory}/none")
        assert str(directory) in text and "/etc/ha.d\n" not in text, "the parser has other paths than expected"
        # What it does after a group failed must never reach this machine
        text = text.replace("/sbin/reboot", "/nonexistent").replace("/sbin/init", "/nonexistent")
        text = text.replace("pkill", ": pkill").replace("sleep 30", ":")
        program, _, _ = text.rpartition("case $1 in\n\n  listkeys)")
        assert program, "the parser has no last case as expected"
        self._functions = directory / "functions"
        self._functions.write_text(program)
        self._whole = directory / "ResourceManager"
        self._whole.write_text(text)
        self._whole.chmod(0o755)

    def lines(self, content: bytes) -> list[list[str]]:
        """Every group as its shell sees it: node, then resources (``ipres``)."""
        (self.directory / "haresources").write_bytes(content)
        done = self._run(["sh", "-c", f". {self._functions}; ipres"])
        text = done.decode("utf-8", "surrogateescape")
        return [[word for word in line.split(" ") if word] for line in text.split("\n") if line]

    def calls(self, content: bytes, key: str, scripts: Iterable[str]) -> list[list[str]]:
        """What a takeover of the group ``key`` starts, in order: each script's name and all its words,
        the action last.  ``scripts``: the only ones that there are."""
        folder = self.directory / "resource.d"
        for entry in folder.iterdir():
            entry.unlink()
        for script in scripts:
            (folder / script).write_text(RECORDER)
            (folder / script).chmod(0o755)
        for name in ("calls", "log"):
            (self.directory / name).write_text("")
        (self.directory / "haresources").write_bytes(content)
        self._run([str(self._whole), "takegroup", key])
        log = (self.directory / "log").read_text()
        assert "Cannot locate" not in log, log
        return [line.split("\t") for line in (self.directory / "calls").read_text().splitlines()]

    def _run(self, argv: list[str]) -> bytes:
        settings = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}
        done = subprocess.run(argv, cwd="/", env=settings, capture_output=True, timeout=30, check=False)
        return done.stdout


class Verdict(NamedTuple):
    """What the daemon made of an ha.cf."""

    options: list[tuple[str, str]]
    """Each directive with each of its values, in order (of those that are read word by word)."""
    is_accepted: bool
    """It found no fault in any line."""
    output: str


class Daemon:
    """The reader of ha.cf, in a copy of its root directory.  Needs root."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "root"
        shutil.copytree(unpacked(), self.root, symlinks=True)
        for name in ("dev", "proc", "tmp", "run", "var/run", "var/lib/heartbeat/cores/root", "etc/ha.d"):
            (self.root / name).mkdir(parents=True, exist_ok=True)
        (self.root / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\nhacluster:x:101:101::/:/bin/sh\n")
        (self.root / "etc/group").write_text("root:x:0:\nhaclient:x:101:\n")

    def read(self, content: bytes) -> Verdict:
        """Read it, and end: without authkeys nothing is ever started."""
        (self.root / "etc/ha.d/ha.cf").write_bytes(content)
        inside = f"mount --bind /dev {self.root}/dev && exec chroot {self.root} {DAEMON} -d"
        argv = ["unshare", "--mount", "--pid", "--net", "--uts", "--ipc", "--fork", "--kill-child", "sh", "-c", inside]
        done = subprocess.run(argv, cwd="/", capture_output=True, timeout=30, check=False)
        output = (done.stdout + done.stderr).decode("utf-8", "surrogateescape")
        assert "eartbeat not started" in output, f"it read its files and did not end: {output}"
        options = re.findall(r"add_option\(([^,]*),(.*)\)$", output, re.MULTILINE)
        return Verdict(options, "Heartbeat not started: configuration error" not in output, output)
