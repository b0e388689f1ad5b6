"""An exported agent under a real Pacemaker: one node, on a copy of this machine."""

import json
import re
import shutil
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.contracts.machine_copy import MachineCopy

pytestmark = pytest.mark.long

INIT = """
ip link set lo up
hostname pcmk1
mount -t tmpfs none /dev/shm
mount -t tmpfs none /etc/corosync
for folder in corosync pacemaker; do mount -t tmpfs none /var/lib/$folder; done
mkdir -p /run/crm /run/resource-agents /var/log/pacemaker /var/lib/pacemaker/blackbox /var/lib/pacemaker/cib \
    /var/lib/pacemaker/cores /var/lib/pacemaker/pengine
chown -R hacluster:haclient /run/crm /var/log/pacemaker /var/lib/pacemaker
cat > /etc/corosync/corosync.conf <<END
totem {
    version: 2
    cluster_name: lab
    transport: udpu
    crypto_cipher: none
    crypto_hash: none
}
nodelist {
    node {
        ring0_addr: 127.0.0.1
        name: pcmk1
        nodeid: 1
    }
}
quorum {
    provider: corosync_votequorum
}
logging {
    to_stderr: yes
    to_syslog: no
}
END
corosync -f &
until corosync-quorumtool > /dev/null 2>&1; do sleep 0.2; done
PCMK_logfile=/var/log/pacemaker/pacemaker.log PCMK_logfacility=none exec pacemakerd -f
"""

RESOURCE = """<primitive id="web" class="ocf" provider="hostd" type="httpd">
<instance_attributes id="web-params">{params}</instance_attributes>
<operations>
<op id="web-start" name="start" interval="0" timeout="40s"/>
<op id="web-stop" name="stop" interval="0" timeout="60s"/>
<op id="web-monitor" name="monitor" interval="2s" timeout="20s">
<instance_attributes id="web-depth"><nvpair id="web-level" name="OCF_CHECK_LEVEL" value="10"/></instance_attributes>
</op>
</operations></primitive>"""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[MachineCopy]:
    """A cluster of one node that is online and needs no fencing."""

    if shutil.which("pacemakerd") is None:
        pytest.skip("pacemaker is not installed, and its units are not for a machine that is used otherwise")

    def is_up(machine: MachineCopy) -> bool:
        state = machine.run("crm_mon", "-1")
        return state.returncode == 0 and bool(re.search(r"Online: \[ pcmk1 \]", state.stdout))

    machine = MachineCopy(tmp_path / "pacemaker", INIT, is_up)
    try:
        for name, value in (("stonith-enabled", "false"), ("no-quorum-policy", "ignore")):
            assert machine.run("crm_attribute", "-t", "crm_config", "-n", name, "-v", value).returncode == 0
        yield machine
    finally:
        machine.close()


def wait_until(holds: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + 40
    while not holds():
        assert time.monotonic() < until, what
        time.sleep(0.2)


def test_pacemaker_runs_monitors_recovers_and_stops_our_httpd(cluster: MachineCopy) -> None:
    """Started and serving; its killed parent is noticed with our reason, and recovered; stopped without a trace."""
    prepare = (
        "import json, pathlib, sys; from hostd.config import Directories; from hostd.registry import Registry;"
        "site = pathlib.Path('/run/web'); site.mkdir();"
        "print(json.dumps(Registry.load(Directories(), system=site / 'none').agent('httpd').sandbox(site)))"
    )
    made = cluster.run(sys.executable, "-c", prepare)
    assert made.returncode == 0, made.stderr
    params: dict[str, str] = json.loads(made.stdout)
    exported = cluster.run(sys.executable, "-m", "hostd.commands.agent_main", "export", "httpd")
    assert exported.stdout.strip() == "/usr/lib/ocf/resource.d/hostd/httpd", exported.stderr
    pairs = "".join(f'<nvpair id="web-{name}" name="{name}" value="{value}"/>' for name, value in params.items())
    added = cluster.run("cibadmin", "-o", "resources", "-M", "-c", "-X", RESOURCE.format(params=pairs))
    assert added.returncode == 0, added.stderr

    def state(*options: str) -> str:
        return cluster.run("crm_mon", "-1", "--inactive", *options).stdout

    def page() -> "subprocess.CompletedProcess[str]":
        port = urllib.parse.urlsplit(params["url"]).port
        fetch = f"import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:{port}/', timeout=5).read())"
        return cluster.run(sys.executable, "-c", fetch)

    def started() -> bool:
        return bool(re.search(r"web.*Started pcmk1", state()))

    wait_until(started, "it is not started")
    assert "sandbox" in page().stdout
    parent = cluster.run("pgrep", "-o", "-f", f"apache2 -f {params['config']}").stdout.strip()
    assert cluster.run("kill", "-9", parent).returncode == 0
    wait_until(lambda: "the parent process is gone" in state("-f"), "the crash is not noticed")
    wait_until(lambda: started() and "sandbox" in page().stdout, "it is not recovered")
    cluster.run("crm_resource", "-r", "web", "-m", "-p", "target-role", "-v", "Stopped")
    wait_until(lambda: bool(re.search(r"web.*Stopped", state())), "it is not stopped")
    assert cluster.run("pgrep", "-f", params["config"]).stdout == ""
    assert page().returncode != 0
