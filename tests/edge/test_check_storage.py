"""What ``hostd check`` says of storage: data that fencing alone protects, and what is not mounted yet."""

import json
from pathlib import Path
from typing import Any

import pytest

from hostd import config, unmounted
from hostd.api import Field, Parameters
from hostd.api.storage.mounts import Kernel
from hostd.commands.main import main

BASE = """
[cluster]
name = "example"
nodes = ["clustnode1", "clustnode2"]
[[heartbeat.link]]
type = "serial"
device = "/dev/ttyS0"
"""
LINK_TYPES = {"serial": Parameters(any_others=True)}
AGENTS = {
    "data": Parameters(any_others=True, exclusive_storage=True),
    "disk": Parameters(Field("mode", default="exclusive"), guards_storage=True,
                       guards_storage_with={"mode": "exclusive"}),
    "mount": Parameters(Field("directory"), mounts="directory"),
}  # fmt: skip


def read(folder: Path, text: str) -> config.Configuration:
    (folder / "all.toml").write_text(BASE + text)
    return config.load(folder, "clustnode1", AGENTS.__getitem__, LINK_TYPES)


# -- guarded data -------------------------------------------------------------------------

DATA = '{ address = "10.0.0.1/24" }, { agent = "data" }'


@pytest.mark.parametrize(
    ("text", "is_warned_of"),
    [
        (f"[service.x]\nresources = [{DATA}]", ["x"]),
        (f'[service.x]\nresources = [{{ agent = "disk" }}, {DATA}]', []),
        (f'[service.x]\nresources = [{DATA}, {{ agent = "disk" }}]', ["x"]),
        (f'[service.x]\nresources = [{{ agent = "disk", params = {{ mode = "registrants" }} }}, {DATA}]', ["x"]),
        (
            f'[service.x]\nresources = [{{ agent = "disk", params = '
            f'{{ mode = {{ clustnode1 = "exclusive", clustnode2 = "registrants" }} }} }}, {DATA}]',
            ["x"],
        ),
        (f'[service.d]\nagent = "disk"\n[service.x]\nrequires = ["d"]\nresources = [{DATA}]', []),
        (f'[service.d]\nagent = "disk"\n[service.x]\nafter = ["d"]\nresources = [{DATA}]', ["x"]),
        (
            '[service.d]\nagent = "disk"\n[service.e]\nrequires = ["d"]\naddress = "10.0.0.2"\n'
            f'[service.x]\nrequires = ["e"]\nresources = [{DATA}]\n[service.y]\nagent = "data"\naddress = "10.0.0.3"',
            ["y"],
        ),
    ],
    ids=["none", "before", "after", "shared-mode", "one-node-only", "required", "only-ordered", "far-away"],
)
def test_data_is_guarded_by_a_reservation_that_is_taken_before_it(
    tmp_path: Path, text: str, is_warned_of: list[str]
) -> None:
    """In the same service, or in one that it requires, however far; in a mode that guards, on both nodes."""
    warned = [w for w in read(tmp_path, text).warnings if "two nodes must never write" in w]
    assert [w.partition("[service.")[2][0] for w in warned] == is_warned_of
    assert all('agent = "scsi_reservation" for its disk' in w for w in warned)


# -- not mounted yet ------------------------------------------------------------------------


def place(folder: Path, text: str, sentence: str, mountinfo: str = "") -> unmounted.Place | None:
    """Where the resource ``data`` of service x lacks a mount, if mountinfo is this."""
    configuration = read(folder, text)
    (settings,) = (s for s in configuration.resources if (s.service, s.agent) == ("x", "data"))
    (folder / "self").mkdir(exist_ok=True)
    (folder / "self/mountinfo").write_text(mountinfo)
    return unmounted.place_of(sentence, settings, configuration, AGENTS.__getitem__, Kernel(proc=folder))


MOUNT = '{ agent = "mount", params = { directory = "/nowhere" } }'
MISSED = "/nowhere/my.cnf cannot be read: No such file or directory"


@pytest.mark.parametrize(
    ("text", "mounted_by"),
    [
        (f"resources = [{MOUNT}, {DATA}]", "mount"),
        (f"resources = [{DATA}, {MOUNT}]", ""),
        (f'requires = ["m"]\nresources = [{DATA}]\n[service.m]\nresources = [{MOUNT}]', "service m"),
        (f'after = ["m"]\nresources = [{DATA}]\n[service.m]\nresources = [{MOUNT}]', ""),
        (
            f'requires = ["n"]\nresources = [{DATA}]\n[service.n]\naddress = "10.0.0.9"\nrequires = ["m"]\n'
            f'[service.m]\non = "all"\nresources = [{MOUNT}]',
            "service m",
        ),
    ],
    ids=["before", "after", "required", "only-ordered", "far-away"],
)
def test_what_is_missed_below_a_mount_that_comes_first_is_not_there_yet(
    tmp_path: Path, text: str, mounted_by: str
) -> None:
    """By the same service before, or by one that it requires; an order alone may leave the mount on the other node."""
    found = place(tmp_path, f"[service.x]\n{text}\n", MISSED)
    assert (found.mounted_by if found else "") == mounted_by
    assert found is None or found.directory == "/nowhere"


def test_what_is_missed_elsewhere_or_once_all_is_mounted_stays_a_mistake(tmp_path: Path) -> None:
    """Another folder, another reason, or a mount that is there and lacks the file."""
    text = f"[service.x]\nresources = [{MOUNT}, {DATA}]\n"
    assert place(tmp_path, text, MISSED) is not None
    assert place(tmp_path, text, "/nowhere.d/my.cnf does not exist") is None
    assert place(tmp_path, text, "there is no user mysql on this machine") is None
    assert place(tmp_path, text, MISSED, "40 1 8:1 / /nowhere rw - ext4 /dev/sdb1 rw\n") is None


def test_a_link_into_what_is_not_mounted_is_followed(tmp_path: Path) -> None:
    """/etc/mysql/my.cnf → the shared disk, as Debian's admins do it."""
    (tmp_path / "my.cnf").symlink_to("/nowhere/my.cnf")
    text = f"[service.x]\nresources = [{MOUNT}, {DATA}]\n"
    assert place(tmp_path, text, f"{tmp_path}/my.cnf: No such file or directory.") is not None


def test_check_calls_it_a_note_and_not_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the agents themselves: an Apache whose configuration is on the disk that its service mounts."""
    disk = tmp_path / "disk"
    disk.mkdir()
    apache = f'{{ agent = "httpd", params = {{ config = "{disk}/httpd.conf" }} }}'
    kinds = {
        "filesystem": f'{{ device = "{tmp_path}", directory = "{disk}", fstype = "bind" }}',
        "nfs": f'{{ export = "192.0.2.1:/srv", directory = "{disk}" }}',
        "gfs": f'{{ device = "/dev/null", directory = "{disk}" }}',
    }
    for kind, params in kinds.items():
        mount = f'{{ agent = "{kind}", params = {params} }}'
        first, found = _of_httpd(tmp_path, f"resources = [{mount}, {apache}]", capsys)
        assert (first, found["severity"], found["key"]) == (1, "info", "[service.w] resources"), kind
        assert f"(httpd) cannot be checked before {kind} mounts {disk}: {disk}/httpd.conf" in found["text"]
    _, found = _of_httpd(tmp_path, f"resources = [{apache}]", capsys)
    assert found["severity"] == "error"


def _of_httpd(folder: Path, text: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    """How many complaints there are of the resource httpd, and the first."""
    (folder / "all.toml").write_text(f"{BASE}[service.w]\n{text}\n")
    main(["check", "--config", str(folder), "--node", "clustnode1", "--json", "--runtime-dir", str(folder)])
    found = [c for c in json.loads(capsys.readouterr().out)["complaints"] if "(httpd)" in c["text"]]
    return len(found), found[0]
