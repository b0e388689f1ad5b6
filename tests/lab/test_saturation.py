"""Both cores busy for minutes: nobody is declared dead for want of time."""

import os
import subprocess
import sys
import time

import pytest

from tests.lab.cluster import Cluster
from tests.lab.probe_process import now_ms
from tests.lab.watching import Watch

pytestmark = [pytest.mark.lab, pytest.mark.long]

MINUTES = 5
BURN = "while True: sum(i * i for i in range(10000))"


@pytest.mark.timeout(MINUTES * 60 + 120)
def test_no_false_failover_with_both_cores_saturated(cluster: Cluster) -> None:
    """Default timers, four busy loops per core for five minutes: each address stays where it is."""
    watch = Watch(cluster)
    burners = [subprocess.Popen([sys.executable, "-c", BURN]) for _ in range(4 * (os.cpu_count() or 2))]
    try:
        end = time.monotonic() + MINUTES * 60
        while time.monotonic() < end:
            time.sleep(5)
            owners = watch.owners()
            assert {k: v for k, v in owners.items() if v not in ("", cluster.primaries[k])} == {}
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()
    for name, service in cluster.services.items():
        seen = {t.owners for t in watch.observer.tenures(service.address, watch.began_at_ms) if t.owners}
        assert seen == {(cluster.primaries[name],)}, f"until {now_ms()}: {cluster.picture()}"
