"""A real systemd as process 1 of a copy of this machine.

Without the copy, its systemd-tmpfiles would empty the /tmp of this machine.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from tests.contracts.machine_copy import MachineCopy

ROOT = Path(__file__).resolve().parents[2]

INIT = """
for unit in systemd-tmpfiles-setup systemd-tmpfiles-setup-dev systemd-tmpfiles-clean systemd-udevd systemd-sysusers; do
    ln -s /dev/null /etc/systemd/system/$unit.service
done
cat > /etc/systemd/system/lab.target <<END
[Unit]
Requires=systemd-journald.socket
After=systemd-journald.socket
DefaultDependencies=no
END
exec env -i container=lxc PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --unit=lab.target --show-status=0
"""
DRIVER = """
import json, sys
from pathlib import Path
from hostd.jobs import Verb
from tests.contracts.bench import Bench
bench = Bench(Path("/tmp"), "systemd:none", {})
for line in sys.stdin:
    unit, verb, timeout_ms = json.loads(line)
    bench.agent = f"systemd:{unit}"
    outcome = bench.run(Verb(verb), timeout_ms=timeout_ms)
    print(json.dumps([outcome.ok, outcome.health and outcome.health.name, outcome.timed_out, outcome.main_pid,
                      outcome.reason, outcome.cure, outcome.output]), flush=True)
"""
"""In the node: actions as the host runs them, one after the other, without starting Python for each."""


class Ended(NamedTuple):
    """How an action in the node ended."""

    ok: bool
    health: str | None
    timed_out: bool
    main_pid: int
    reason: str
    cure: str
    output: str


def _has_booted(machine: MachineCopy) -> bool:
    if Path(f"/proc/{machine.init}/comm").read_text().strip() != "systemd":
        return False
    return machine.run("systemctl", "is-active", "lab.target").returncode == 0


class SystemdNode(MachineCopy):
    """``act`` asks the agent for an action; ``unit`` writes a unit."""

    def __init__(self, folder: Path) -> None:
        self._driver: subprocess.Popen[str] | None = None
        super().__init__(folder, INIT, _has_booted)

    def act(self, unit: str, verb: str, timeout_ms: int = 20_000) -> Ended:
        """One action of the agent on a unit."""
        if self._driver is None:
            argv = self.inside(["env", "-C", str(ROOT), sys.executable, "-c", DRIVER])
            self._driver = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._driver.stdin is not None and self._driver.stdout is not None
        print(json.dumps([unit, verb, timeout_ms]), file=self._driver.stdin, flush=True)
        return Ended(*json.loads(self._driver.stdout.readline()))

    def unit(self, name: str, text: str) -> None:
        """Write a unit file and have it read."""
        self.file(f"/etc/systemd/system/{name}", text)
        assert self.run("systemctl", "daemon-reload").returncode == 0

    def close(self) -> None:
        super().close()
        if self._driver is not None:
            self._driver.communicate(timeout=10)
