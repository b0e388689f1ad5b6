"""``hostd report --ssh`` and a real sshd: two machines, each with its own books, and one archive."""

import json
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from hostd.commands import main
from hostd.commands.exits import ExitCode
from tests.edge.namespaces import Lan
from tests.edge.test_report import live

CONF = """
[cluster]
name = "example"
nodes = ["a", "b"]
[[heartbeat.link]]
type = "serial"
device = "/dev/ttyS0"
"""
SSHD = """
ListenAddress 192.0.2.2:2222
HostKey {folder}/host
AuthorizedKeysFile {folder}/authorized
StrictModes no
UsePAM no
PidFile none
PermitRootLogin prohibit-password
SetEnv HOSTD_CONFIG={b}/conf.d HOSTD_STATE_DIR={b}/state HOSTD_RUNTIME_DIR={b}/run HOSTD_NODE=b PATH={bin}:/usr/bin:/bin
"""
SSH = """
Host b
  HostName 192.0.2.2
  Port 2222
  IdentityFile {folder}/{key}
  IdentitiesOnly yes
  UserKnownHostsFile {folder}/known
  StrictHostKeyChecking yes
"""
SERVER = "mount -t tmpfs none /run && mkdir -m 755 /run/sshd && exec /usr/sbin/sshd -D -e -f {folder}/sshd_config"
CLIENT = """
[ ! -d /root/.ssh ] || mount -t tmpfs none /root/.ssh
mount --bind {folder}/ssh_config /etc/ssh/ssh_config && exec "$@"
"""
"""Both within ``ip netns exec``, whose mounts nobody else sees."""


class Site(NamedTuple):
    folder: Path
    client: str
    """The namespace of a."""

    def report(self, key: str = "client") -> tuple[int, str]:
        """Exit code and errors of ``hostd report --ssh`` on a, which logs in with this key."""
        (self.folder / "ssh_config").write_text(SSH.format(folder=self.folder, key=key))
        a = self.folder / "a"
        words = [sys.executable, "-m", "hostd.commands.main", "report", "--ssh", "-o", str(self.folder / "both.tgz")]
        words += ["--node", "a", "--config", f"{a}/conf.d", "--state-dir", f"{a}/state", "--runtime-dir", f"{a}/run"]
        script = ["sh", "-c", CLIENT.format(folder=self.folder), "sh"]
        done = subprocess.run(
            ["ip", "netns", "exec", self.client, *script, *words],
            capture_output=True, text=True, timeout=100, check=False,
        )  # fmt: skip
        return done.returncode, done.stderr


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    for node in ("a", "b"):
        live(tmp_path / node / "state", me=node)
        (tmp_path / node / "conf.d").mkdir()
        (tmp_path / node / "conf.d/all.toml").write_text(CONF)
    for name in ("host", "client", "stranger"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", tmp_path / name], check=True)
    (tmp_path / "authorized").write_bytes((tmp_path / "client.pub").read_bytes())
    (tmp_path / "known").write_text(f"[192.0.2.2]:2222 {(tmp_path / 'host.pub').read_text()}")
    binaries = Path(sys.executable).parent
    (tmp_path / "sshd_config").write_text(SSHD.format(folder=tmp_path, b=tmp_path / "b", bin=binaries))
    lan = Lan("ssh")
    try:
        a, b = lan.machine("a", "192.0.2.1/24"), lan.machine("b", "192.0.2.2/24")
        argv = ["ip", "netns", "exec", b.name, "sh", "-c", SERVER.format(folder=tmp_path)]
        with open(tmp_path / "sshd.log", "wb") as log, subprocess.Popen(argv, stderr=log) as sshd:
            try:
                end = time.monotonic() + 20
                while b"Server listening" not in (tmp_path / "sshd.log").read_bytes():
                    assert sshd.poll() is None and time.monotonic() < end, (tmp_path / "sshd.log").read_text()
                    time.sleep(0.05)
                yield Site(tmp_path, a.name)
            finally:
                sshd.terminate()
    finally:
        lan.close()


def test_one_archive_has_the_books_of_both_nodes(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """Fetched as root by ssh, without a daemon on either node: conf.d says who the other one is.
    The archive is replayed for both, and each node's files are its own."""
    code, said = site.report()
    assert (code, said) == (ExitCode.DONE, "")
    archive = site.folder / "both.tgz"
    with tarfile.open(archive) as tar:
        bodies = {
            "/".join(Path(member.name).parts[1:]): source.read()
            for member in tar
            if (source := tar.extractfile(member)) is not None
        }
    for node in ("a", "b"):
        assert {f"{node}/timeline.jsonl", f"{node}/conf.d/all.toml", f"{node}/versions.json"} <= bodies.keys()
        assert {json.loads(line)["node"] for line in bodies[f"{node}/timeline.jsonl"].splitlines()} == {node}
    assert b"192.0.2.2/24" in bodies["b/addresses.txt"] and b"192.0.2.2/24" not in bodies["a/addresses.txt"]
    assert main.main(["replay", str(archive)]) == ExitCode.DONE
    shown = capsys.readouterr().out
    assert "node a" in shown and "node b" in shown and shown.count("the same effects come out") == 2
    assert main.main(["log", "--with", str(archive), "--state-dir", str(site.folder / "a/state")]) == ExitCode.DONE
    assert {line.split()[2] for line in capsys.readouterr().out.splitlines()} == {"a", "b"}


def test_a_node_that_lets_nobody_in_is_told_and_the_own_part_is_kept(site: Site) -> None:
    """A key that it does not know, a host that is not known here, no sshd: ssh's own reason in one line."""
    code, said = site.report("stranger")
    assert code == ExitCode.NO
    assert "b gave no report: root@192.0.2.2: Permission denied (publickey" in said
    assert "make it there: hostd report" in said and len(said.splitlines()) == 1
    (site.folder / "known").write_text("")
    assert "b gave no report: Host key verification failed." in site.report()[1]
    with tarfile.open(site.folder / "both.tgz") as tar:
        assert {Path(name).parts[1] for name in tar.getnames()} == {"a"}
