"""``[fencing] mode = "storage"``: what conf.d must have for it, and what it makes of the plan."""

from pathlib import Path

from hostd import config
from hostd.api import Field, Parameters

BASE = """
[cluster]
name = "example"
nodes = ["clustnode1", "clustnode2"]
[[heartbeat.link]]
type = "serial"
device = "/dev/ttyS0"
[[heartbeat.link]]
type = "serial"
device = "/dev/ttyS1"
[fencing]
mode = "storage"
[[fencing.device]]
agent = "scsi_reservation"
params = { devices = "/dev/sdb" }
[service.disk]
on = "all"
agent = "scsi_reservation"
params = { mode = "registrants" }
[service.db]
address = "10.0.0.2/24"
agent = "data"
"""
AGENTS = {
    "data": Parameters(any_others=True, exclusive_storage=True),
    "scsi_reservation": Parameters(Field("mode", default="exclusive")),
}


def load(folder: Path, text: str) -> config.Configuration:
    (folder / "all.toml").write_text(BASE + text)
    return config.load(folder, "clustnode1", AGENTS.__getitem__, {"serial": Parameters(any_others=True)})


def test_it_is_no_fencing_by_power(tmp_path: Path) -> None:
    """The core keeps all that it does without fencing; the device is told what it takes, and for whom."""
    loaded = load(tmp_path, 'requires = ["disk"]\n')
    assert (loaded.plan.fencing, loaded.plan.cuts_storage) == (False, True)
    assert [(device.storage, device.by) for device in loaded.fencing_devices] == [(True, "clustnode1")]
    assert loaded.fencing_drill_ms == 3_600_000
    [warning] = loaded.warnings
    assert '[fencing] mode = "storage" takes its disks from a silent node, and no power' in warning


def test_what_does_not_require_the_registration_is_warned_of(tmp_path: Path) -> None:
    """It could be started on a node that has lost its key."""
    assert any("[service.db] has data that two nodes" in warning for warning in load(tmp_path, "").warnings)


def test_the_nodes_must_agree_on_it(tmp_path: Path) -> None:
    """A node that trusts the disks and one that trusts nothing are not one cluster."""
    mine = load(tmp_path, "").plan.digest
    (tmp_path / "all.toml").write_text(BASE.replace('"storage"', '"none"'))
    other = config.load(tmp_path, "clustnode2", AGENTS.__getitem__, {"serial": Parameters(any_others=True)})
    assert mine != other.plan.digest
