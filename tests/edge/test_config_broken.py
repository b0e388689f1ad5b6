"""What an operator is told of each mistake in conf.d.

Every file of ``broken/`` is a conf.d with a mistake.  Its first lines, which
begin with ``#>``, are the complaints that it must meet, each to the letter.
What a file does not bring ([cluster], links) comes from a good one.
"""

from pathlib import Path

import pytest

from hostd import config
from hostd.api import ConfigError, Field, Parameters

BROKEN = sorted((Path(__file__).parent / "broken").glob("*.toml"))

CLUSTER = '[cluster]\nname = "example"\nnodes = ["clustnode1", "clustnode2"]\n'
LINKS = (
    '[[heartbeat.link]]\ntype = "serial"\ndevice = "/dev/ttyS0"\n'
    '[[heartbeat.link]]\ntype = "udp"\ninterface = "eth1"\n'
    'address = { clustnode1 = "192.168.1.1", clustnode2 = "192.168.1.2" }\n'
)

LINK_TYPES = {
    "serial": Parameters(Field("device", help="the tty"), Field("baud", int, default=115_200)),
    "udp": Parameters(
        Field("interface"),
        Field("address", help="of each node on this medium"),
        Field("port", int, default=694),
        Field("mode", default="unicast", choices=("unicast", "broadcast", "multicast")),
    ),
}

AGENTS = {
    "mysql": Parameters(
        Field("datadir", Path, default=Path("/var/lib/mysql")),
        Field("port", int, default=3306),
        Field("password", default=None, secret=True),
        exclusive_storage=True,
    ),
    "filesystem": Parameters(
        Field("device"),
        Field("directory", help="where to mount it"),
        Field("fstype", default="ext4", choices=("ext4", "xfs")),
    ),
    "gfs": Parameters(any_others=True),
    "dummy": Parameters(),
}


def agents(reference: str) -> Parameters:
    if reference == "broken":
        raise ConfigError("agents/broken.py does not load (SyntaxError: invalid syntax); mend it")
    if reference not in AGENTS:
        raise ConfigError("there is no agent of this name; did you mean mysql?")
    return AGENTS[reference]


def expected(path: Path) -> list[str]:
    lines = path.read_text().splitlines()
    return [line.removeprefix("#> ") for line in lines if line.startswith("#> ")]


def complaints(path: Path, directory: Path) -> list[str]:
    text = path.read_text()
    (directory / path.name).write_text(text)
    missing = [("[cluster]", CLUSTER), ("[[heartbeat.link]]", LINKS)]
    good = [part for header, part in missing if header not in text]
    (directory / "zz-good.toml").write_text("".join(good) or "# nothing is missing\n")
    found = config.examine(directory, "clustnode1", agents, LINK_TYPES)
    if found.configuration is not None:  # only agents are wrong: all but their services can run
        return [complaint.text for complaint in found.complaints if not complaint.is_warning]
    with pytest.raises(config.BadConfiguration) as caught:
        config.load(directory, "clustnode1", agents, LINK_TYPES)
    assert str(caught.value) == "\n\n".join(complaint.text for complaint in caught.value.complaints)
    return [complaint.text for complaint in caught.value.complaints]


@pytest.mark.parametrize("path", BROKEN, ids=lambda path: path.stem)
def test_each_mistake_is_told_with_place_value_rule_and_cure(path: Path, tmp_path: Path) -> None:
    """A broken conf.d is refused with exactly the complaints in its first lines."""
    assert expected(path), f"{path.name} does not say what it expects"
    assert complaints(path, tmp_path) == expected(path)


def test_there_are_enough_broken_configurations() -> None:
    """The folder was found, and holds what the glob above is meant to find."""
    assert len(BROKEN) >= 60
