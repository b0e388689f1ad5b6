"""Texts that people and programs write: conf.d, fence agents' output, meta-data, Heartbeat's files.

Decides what may stand in them and what must be said of it: an operator's
mistake gets words, never a traceback; a device's word counts only as the fence
agent API says.
"""

import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Final

from hostd import config
from hostd.api import AgentError, Completed, FenceOrder, Note
from hostd.api.foreign import ocf
from hostd.config import Directories
from hostd.registry import Registry
from plugins import fence_agents
from tests.edge.import_examples import HA_D
from tests.edge.test_import_fuzz import imported
from tests.fuzz.script import Script
from tests.fuzz.target import Target
from tests.fuzz.words import folder

ROOT: Final = Path(__file__).parents[2]
NODES: Final = ("clustnode1", "clustnode2")

# -- conf.d ------------------------------------------------------------------------------


@cache
def registry() -> Registry:
    """The bundled agents and links, and no other."""
    return Registry.load(Directories(), system=Path("/nonexistent"))


def examine(data: bytes) -> int:
    """One to three files of conf.d: complaints in printable lines, or a configuration, the same for both nodes."""
    place = folder() / "conf.d"
    place.mkdir(exist_ok=True)
    for old in place.iterdir():
        old.unlink()
    files = data.split(b"\0", 2)
    for number, content in enumerate(files):
        (place / f"{number}.toml").write_bytes(content)
    known = registry()
    found = []
    for node in NODES:
        examined = config.examine(place, node, known.parameters, known.link_types(), known.notify_types())
        for complaint in examined.complaints:
            assert complaint.rule and complaint.cure and complaint.text.isprintable(), complaint
        assert (examined.configuration is None) == any(c.is_fatal for c in examined.complaints)
        if examined.configuration is not None:
            found.append(examined.configuration.plan)
    if len(found) == 2:
        one, other = found
        assert one.digest == other.digest
        assert {s.name: s.digest for s in one.services} == {s.name: s.digest for s in other.services}
    return len(files)


def conf_seeds() -> list[bytes]:
    example = sorted((ROOT / "conf.d").glob("*.toml"))
    whole, cluster = b"".join(path.read_bytes() for path in example), example[0].read_bytes()
    broken = sorted((ROOT / "tests/edge/broken").glob("*.toml"))
    return [whole, cluster, *(cluster + b"\0" + path.read_bytes() for path in broken)]


CONF_WORDS: Final = (
    b"[[", b"]]\n", b'"', b'"""', b"'", b" = ", b"{ ", b" }", b"[service.", b'agent = "', b'"5m"', b"true", b"1e9",
    b"0x1", b"2026-01-01", b"\\u0000", b"[heartbeat]\n", b"[cluster]\n", b"clustnode1", b'"10.0.0.1/24"', b"-1", b"\n",
)  # fmt: skip


# -- fencing devices -----------------------------------------------------------------------


SECRET: Final = "open sesame"


class Scripted(FenceOrder):
    """A device whose program exits and prints as the script says; no time is left for a second look."""

    def __init__(self, script: Script) -> None:
        super().__init__(
            agent="/bin/true",
            node="a",
            params={"ip": "10.0.0.1", "plug": 1, "ssl-insecure": True, "login": "x"},
            secrets={"password": secret_file()},
            deadline=time.monotonic() + 60,
        )
        self.script, self.exits = script, list[int]()

    @property
    def remaining(self) -> float:
        return fence_agents.LEAST_S

    def run(self, argv: Sequence[str], *, input: str) -> Completed:  # noqa: A002 - the word of the contract
        assert SECRET not in " ".join(argv)
        script = self.script
        if script.byte() % 16 == 7:
            raise AgentError("it did not end")
        code = script.choice((0, 1, 2, 0, 2, 3, -9, 255))
        self.exits.append(code)
        out, err = ((script.rest() if script.byte() % 4 == 0 else script.short()) for _ in range(2))
        said = [text.replace(b"SECRET", SECRET.encode()).decode(errors="replace") for text in (out, err)]
        return Completed(code, *said)


@cache
def secret_file() -> Path:
    path = folder() / "secret"
    path.touch(0o600)
    path.write_text(SECRET + "\n")
    return path


def shoot(data: bytes) -> int:
    """Off, a drill and a check by one device: its word counts only if off was done and status says off."""
    for attempt in (fence_agents.fence, fence_agents.drill):
        order = Scripted(Script(data))
        try:
            said = attempt(order)
        except AgentError as error:
            assert SECRET not in error.reason and len(error.reason) < 1_000
            continue
        if attempt is fence_agents.fence:
            assert said is True and (order.exits[0], order.exits[-1], len(order.exits)) == (0, 2, 2)
        else:
            assert said in ("on", "off") and order.exits[0] == 0
    read_metadata(data)
    return 3


def read_metadata(data: bytes) -> None:
    """What a program says of its parameters leads to sentences and notes."""
    text = data.decode(errors="replace")
    order = Scripted(Script(b""))
    order.run = lambda argv, *, input: Completed(0, text, "")  # type: ignore[method-assign]  # noqa: A006
    for sentence in fence_agents.check_device(order):
        assert isinstance(sentence, Note | str) and sentence


def device_seeds() -> list[bytes]:
    metadata = b"""<?xml version="1.0"?><resource-agent name="fence_x"><parameters>
<parameter name="ip" required="1"><content type="string"/></parameter>
<parameter name="plug" unique="0" required="1"><content type="integer" default="1"/></parameter>
<parameter name="login" deprecated="1"><content type="select"><option value="x"/></content></parameter>
<parameter name="username" obsoletes="login"/></parameters><actions><action name="off"/><action name="on"
automatic="1"/><action name="status"/><action name="monitor"/></actions></resource-agent>"""
    return [
        metadata, b"\0\0\1\4Done\1\0\2\2\3off\0", b"\0\0\1\1\6SECRET", b"\0\1\1\1\3off",
    ]  # fmt: skip


DEVICE_WORDS: Final = (b"SECRET", b"<parameter ", b"<content ", b"<action ", b'required="1"', b"\n", b"/>")


# -- meta-data of OCF agents -----------------------------------------------------------------


def describe(data: bytes) -> int:
    """What an OCF agent prints as meta-data, or has in its file."""
    text = data.decode(errors="replace")
    for read in (ocf.read_xml, ocf.read_source):
        try:
            said = read(text)
        except AgentError as error:
            assert error.reason and read is ocf.read_xml
            continue
        assert len(said.summary) <= 200
        assert all(limit == ocf.duration(limit) for limit in said.timeouts.values())
    ocf.reason(text)
    return 2


def ocf_seeds() -> list[bytes]:
    return [
        b"""<?xml version="1.0"?><resource-agent name="x"><shortdesc lang="en">An agent</shortdesc><parameters>
<parameter name="config" required="1"><shortdesc>where</shortdesc><content type="string" default="${X_default}"/>
</parameter></parameters><actions><action name="start" timeout="20s"/><action name="monitor" depth="10" timeout="20"
interval="10s" role="Promoted"/><action name="monitor" depth="0" timeout="1min"/></actions></resource-agent>
X_default="/etc/x.conf"
""",
        b"<resource-agent" * 9,
        "<resource-agent><action name='a' depth='²'/></resource-agent>".encode(),
    ]  # fmt: skip


# -- Heartbeat's files --------------------------------------------------------------------------


def convert(data: bytes) -> int:
    """ha.cf, haresources, authkeys and the peer's ha.cf: a fate for every line, or a ConfigError."""
    files = [*data.split(b"\0", 3), b"", b"", b""][:4]
    imported(*files)
    return len(files)


def heartbeat_seeds() -> list[bytes]:
    names = ("ha.cf", "haresources", "authkeys")
    places = sorted(path.parent for path in HA_D.glob("*/haresources"))
    texts = [[(place / name).read_bytes() if (place / name).exists() else b"" for name in names] for place in places]
    seeds = [b"\0".join(each) for each in texts]
    return [seed for seed in seeds if len(seed) < 4_000]


HEARTBEAT_WORDS: Final = (
    b"node ", b"bcast ", b"ucast ", b"serial ", b"auto_failback ", b"stonith_host ", b"ping_group ", b"IPaddr::", b"::",
    b"LVM::", b"Filesystem::/dev/sdb1::/x::ext3", b"\\\n", b"apiauth ", b"auth 1\n1 sha1 x", b"respawn root /x", b"\n",
)  # fmt: skip

TARGETS: Final = (
    Target("conf.d", "files of conf.d with any content", examine, conf_seeds, 8_192, CONF_WORDS),
    Target("fencing", "what a fence agent prints, and how it exits", shoot, device_seeds, 4_096, DEVICE_WORDS),
    Target("meta-data", "what an OCF agent says of itself", describe, ocf_seeds, 4_096, (b"<action ", b"<content ")),
    Target("heartbeat", "ha.cf, haresources and authkeys", convert, heartbeat_seeds, 4_096, HEARTBEAT_WORDS),
)  # fmt: skip
