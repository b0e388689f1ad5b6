"""What a good conf.d comes to."""

import random
import tomllib
from pathlib import Path

import pytest
import toml
from hypothesis import given
from hypothesis import strategies as st

from hostd import config
from hostd.api import Field, Parameters
from hostd.confd.values import DURATION_MAX_MS, Unfit, address, duration_ms, duration_text
from hostd.core.plan import Timers

SHIPPED = Path(__file__).parents[2] / "conf.d"

BASE = """
[cluster]
name = "example"
nodes = ["clustnode1", "clustnode2"]
[[heartbeat.link]]
type = "udp"
[[heartbeat.link]]
type = "serial"
"""

ANY = Parameters(any_others=True)
LINK_TYPES = {"udp": ANY, "serial": Parameters(any_others=True, cable=True)}


def anything(_reference: str) -> Parameters:
    return ANY


def load(directory: Path, text: str, node: str = "clustnode1", agent: Parameters = ANY) -> config.Configuration:
    (directory / "all.toml").write_text(BASE + text)
    return config.load(directory, node, lambda _reference: agent, LINK_TYPES)


@pytest.mark.parametrize("node", ["clustnode1", "clustnode2"])
def test_the_shipped_example_loads_on_both_nodes(node: str) -> None:
    """conf.d of the checkout is the example cluster, with each service on its primary."""
    loaded = config.load(SHIPPED, node, anything, LINK_TYPES)
    primaries = {service.name: service.primary for service in loaded.plan.services if not service.everywhere}
    assert primaries == {
        "mysql": "clustnode2",
        "ldap": "clustnode1",
        "cyrus": "clustnode2",
        "web": "clustnode1",
    }
    assert [service.name for service in loaded.plan.services if service.everywhere] == ["gfs"]
    assert loaded.plan.service("mysql").addresses == ("172.23.2.13/24",)
    assert [link.name for link in loaded.plan.links] == ["serial1", "udp1", "udp2"]
    assert [link.direct for link in loaded.plan.links] == [False, True, False]
    assert loaded.plan.timers == Timers()


def test_without_fencing_the_warning_comes_first() -> None:
    """Missing fencing is said aloud."""
    loaded = config.load(SHIPPED, "clustnode1", anything, LINK_TYPES)
    assert loaded.warnings[0].startswith("[fencing] is not configured")


def test_each_node_gets_its_own_half_and_the_other_as_peer(tmp_path: Path) -> None:
    """A table of node names gives the own value under the key, the peer's under peer_ and the key."""
    text = (
        '[[heartbeat.link]]\ntype = "udp"\nport = 7\naddress = { clustnode1 = "10.0.0.1", clustnode2 = "10.0.0.2" }\n'
    )
    first = load(tmp_path, text).links[2]
    second = load(tmp_path, text, "clustnode2").links[2]
    assert first.settings == {"address": "10.0.0.1", "peer_address": "10.0.0.2", "port": 7}
    assert second.settings == {"address": "10.0.0.2", "peer_address": "10.0.0.1", "port": 7}
    assert (first.name, first.node, first.peer, first.cluster) == (
        "udp2",
        "clustnode1",
        "clustnode2",
        "example",
    )


def test_a_cable_by_nature_is_known_to_the_core(tmp_path: Path) -> None:
    """The core may believe the modem lines of a link type that says it is a cable."""
    assert [link.modem_lines for link in load(tmp_path, "").plan.links] == [False, True]


def test_defaults_of_a_service(tmp_path: Path) -> None:
    """Primary is the first node, the others are backups, it fails back, and may restart three times."""
    service = load(tmp_path, '[service.x]\nagent = "a"\n').plan.service("x")
    assert service.candidates == ("clustnode1", "clustnode2")
    assert (service.failback_after_ms, service.restarts_max, service.restarts_within_ms) == (0, 3, 600_000)


@pytest.mark.parametrize(
    ("cluster", "own", "expected"),
    [
        ("true", None, 0),
        ("false", None, None),
        ("false", "true", 0),
        ("true", "false", None),
        ("'1m'", "300", 300_000),
    ],
)
def test_failback_of_a_service_overrides_the_clusters(
    tmp_path: Path, cluster: str, own: str | None, expected: int | None
) -> None:
    """true, false or a duration, by default as [cluster] says."""
    (tmp_path / "0.toml").write_text(f"[cluster]\nfailback = {cluster}\n")
    text = '[service.x]\nagent = "a"\n' + (f"failback = {own}\n" if own else "")
    assert load(tmp_path, text).plan.service("x").failback_after_ms == expected


def test_resources_get_ids_and_keep_their_order(tmp_path: Path) -> None:
    """An address is called by its text, an agent by its name, the second of a name by a number."""
    service = load(
        tmp_path,
        '[service.x]\nresources = [{ agent = "m" }, { address = "FD00::0013/64@eth0" }, { agent = "m" }, '
        '{ address = "10.0.0.1", agent = "lsb:n" }]\n',
    ).plan.service("x")
    assert [resource.id for resource in service.resources] == [
        "m",
        "fd00::13/64@eth0",
        "m-2",
        "10.0.0.1",
        "lsb:n",
    ]
    assert [resource.agent for resource in service.resources] == ["m", "address", "m", "address", "lsb:n"]


def test_times_come_from_the_resource_then_the_service_then_the_agent(tmp_path: Path) -> None:
    """The nearest word on a time limit counts."""
    agent = Parameters(timeouts={"start": "1s", "stop": "2s", "monitor": "3s"}, monitor_interval="4s")
    text = (
        '[service.x]\ntimeout = { start = "11s", stop = "12s" }\n'
        'resources = [{ agent = "m", timeout = { start = "21s" }, monitor = { interval = 0 } }]\n'
    )
    [resource] = load(tmp_path, text, agent=agent).plan.service("x").resources
    times = (resource.start_timeout_ms, resource.stop_timeout_ms, resource.monitor_timeout_ms)
    assert (*times, resource.monitor_interval_ms) == (21_000, 12_000, 3_000, 0)


def test_parameters_are_typed_and_defaults_filled_in(tmp_path: Path) -> None:
    """An agent sees every field of its own, typed; paths are meant from conf.d; secrets are known as such."""
    agent = Parameters(
        Field("ratio", float, default=1.0),
        Field("file", Path, default=None),
        Field("names", list, default=()),
        Field("password", default=None, secret=True),
        Field("upper", str.upper, default="X"),
    )
    text = '[service.x]\nagent = "a"\nparams = { ratio = 2, file = "../f", upper = "abc" }\n'
    settings = load(tmp_path, text, agent=agent).resource("x", "a")
    assert settings.params == {
        "ratio": 2.0,
        "file": tmp_path.parent / "f",
        "names": (),
        "password": None,
        "upper": "ABC",
    }
    assert settings.secrets == ("password",)


def test_fencing_devices_are_kept_per_node(tmp_path: Path) -> None:
    """Each node to be fenced has its own parameters and files of secrets; level and order stay."""
    text = (
        '[fencing]\ndelay = "3s"\n[[fencing.device]]\nagent = "fence_x"\nlevel = 2\n'
        'params = { ip = "10.0.0.9", plug = { clustnode1 = 1, clustnode2 = 2 } }\n'
        'secrets = { password = "pw" }\n'
    )
    loaded = load(tmp_path, text)
    [device] = loaded.fencing_devices
    assert device.params == {
        "clustnode1": {"ip": "10.0.0.9", "plug": 1},
        "clustnode2": {"ip": "10.0.0.9", "plug": 2},
    }
    assert device.secrets["clustnode2"] == {"password": tmp_path / "pw"}
    assert (device.level, loaded.plan.fencing, loaded.plan.fence_delay_ms) == (2, True, 3_000)
    assert device.timeout_ms == 60_000
    assert len(loaded.warnings) == 0


@pytest.mark.parametrize(("timeout", "warned"), [("4s", 1), ("5s", 0)])
def test_a_watchdog_that_a_busy_machine_would_meet_is_warned_of(tmp_path: Path, timeout: str, warned: int) -> None:
    """It would reset a node that is well."""
    text = f'[watchdog]\ntimeout = "{timeout}"\n[service.x]\naddress = "10.0.0.2"\n'
    assert sum("[watchdog] timeout" in warning for warning in load(tmp_path, text).warnings) == warned


@pytest.mark.parametrize(("text", "every_ms"), [("", 3_600_000), ('drill = "10m"', 600_000), ("drill = false", 0)])
def test_drills_of_fencing_devices_are_hourly_by_default(tmp_path: Path, text: str, every_ms: int) -> None:
    """Or as often as conf.d says, or never."""
    devices = '[[fencing.device]]\nagent = "fence_x"\n[service.x]\naddress = "10.0.0.2"\n'
    assert load(tmp_path, f"[fencing]\n{text}\n{devices}").fencing_drill_ms == every_ms


def test_the_rest_of_conf_d_is_kept(tmp_path: Path) -> None:
    """[tiebreaker], [watchdog], [announce], [log] and the lease arrive as written."""
    (tmp_path / "0.toml").write_text('[cluster]\naddress_lease = false\nkey = "k"\n')
    text = (
        '[tiebreaker]\nping = ["10.0.0.1"]\nmode = "all"\ndeadtime = "3s"\n[watchdog]\ntimeout = 20\n'
        '[announce]\nburst = ["0s"]\nrefresh = []\n[log]\nlevel = "debug"\n'
    )
    loaded = load(tmp_path, text)
    assert loaded.tiebreaker == config.Tiebreaker(("10.0.0.1",), 3_000, True)
    assert loaded.watchdog == config.Watchdog(Path("/dev/watchdog"), 20_000)
    assert loaded.announcements == config.Announcements((0,), ())
    assert (loaded.log_level, loaded.plan.address_lease_ms, loaded.key) == ("debug", 0, tmp_path / "k")


@pytest.mark.parametrize(
    ("written", "ms"), [("", 3_600_000), ('probation = "5m"\n', 300_000), ("probation = false\n", 0)]
)
def test_a_service_is_on_probation_for_an_hour_unless_told_otherwise(tmp_path: Path, written: str, ms: int) -> None:
    """In its first hour a failed stop of it does not cost its node other services."""
    (service,) = load(tmp_path, f'[service.x]\naddress = "10.0.0.2"\n{written}').plan.services
    assert service.probation_ms == ms


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            '[service.x]\nagent = "a"\n',
            ["[service.x] has data that two nodes must never", "[service.x] has no address"],
        ),
        ('[service.x]\nagent = "a"\nwithout_fencing = true\n', ["[service.x] has data that two nodes"]),
        ('[heartbeat]\ndeadtime = "20s"\n', ["initdead is less than twice the deadtime (20s)"]),
    ],
)
def test_what_is_dangerous_and_allowed_is_a_warning(tmp_path: Path, text: str, words: list[str]) -> None:
    """A warning names the thing, and there is one for each danger."""
    warnings = [
        w for w in load(tmp_path, text, agent=Parameters(exclusive_storage=True)).warnings if "[fencing] is" not in w
    ]
    assert len(warnings) == len(words)
    for warning, word in zip(warnings, words, strict=True):
        assert word in warning


def test_one_link_is_a_warning(tmp_path: Path) -> None:
    """A cluster with one medium starts, and says what it risks."""
    text = BASE.rsplit("[[heartbeat.link]]", 1)[0]
    (tmp_path / "all.toml").write_text(text)
    loaded = config.load(tmp_path, "clustnode1", anything, LINK_TYPES)
    assert any("[[heartbeat.link]] is the only one" in warning for warning in loaded.warnings)


# -- digests -------------------------------------------------------------------


def digests(directory: Path, node: str = "clustnode1") -> dict[str, str]:
    plan = config.load(directory, node, anything, LINK_TYPES).plan
    return {"": plan.digest, **{service.name: service.digest for service in plan.services}}


@pytest.mark.parametrize("seed", range(20))
def test_digests_do_not_depend_on_layout_order_or_node(tmp_path: Path, seed: int) -> None:
    """The example's keys shuffled, spread over other files and read by the other node: the same digests."""
    values: dict[str, object] = {}
    for path in sorted(SHIPPED.glob("*.toml")):
        for key, value in tomllib.loads(path.read_text()).items():
            held = values.setdefault(key, {})
            assert isinstance(held, dict)
            held.update(value)
    dice = random.Random(seed)

    def shuffled(value: object) -> object:
        if isinstance(value, dict):
            items = list(value.items())
            dice.shuffle(items)
            return {key: shuffled(item) for key, item in items}
        return [shuffled(item) for item in value] if isinstance(value, list) else value

    services = values.pop("service")
    assert isinstance(services, dict)
    parts = [{key: value} for key, value in values.items()]
    parts += [{"service": {key: value}} for key, value in services.items()]
    dice.shuffle(parts)
    for number, part in enumerate(parts):
        text = toml.dumps(shuffled(part), encoder=toml.TomlPreserveInlineDictEncoder())
        (tmp_path / f"{number:02}.toml").write_text(text)
    assert digests(tmp_path, dice.choice(["clustnode1", "clustnode2"])) == digests(SHIPPED)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ('agent = "a"\nparams = { k = 1 }', 'agent = "a"\nparams = { k = 2 }'),
        ('agent = "a"\nparams = { k = 1 }', 'agent = "a"\nparams = { k = "1" }'),
        ('agent = "a"\nparams = { k = 1 }', 'agent = "a"\nparams = { k = true }'),
        ('agent = "a"', 'agent = "b"'),
        ('agent = "a"', 'agent = "a"\naddress = "10.0.0.1"'),
        ('agent = "a"', 'agent = "a"\nprimary = "clustnode2"'),
        ('agent = "a"', 'agent = "a"\nbackups = []'),
        ('agent = "a"', 'agent = "a"\nfailback = false'),
        ('agent = "a"', 'agent = "a"\ntimeout = { stop = "7s" }'),
        ('agent = "a"\nparams = { k = { clustnode1 = 1, clustnode2 = 2 } }',
         'agent = "a"\nparams = { k = { clustnode1 = 1, clustnode2 = 3 } }'),
    ],
)  # fmt: skip
def test_digests_differ_where_definitions_do(tmp_path: Path, one: str, other: str) -> None:
    """Each part of a definition counts, the other node's half of a value too."""
    before = load(tmp_path, f"[service.x]\n{one}\n").plan.service("x").digest
    after = load(tmp_path, f"[service.x]\n{other}\n").plan.service("x").digest
    assert before != after
    assert len(before) == 16


def test_the_same_time_in_another_unit_is_the_same_definition(tmp_path: Path) -> None:
    """Meaning counts, not spelling."""
    one = load(tmp_path, '[service.x]\nagent = "a"\nfailback = "5m"\ntimeout = { stop = 60 }\n')
    other = load(tmp_path, '[service.x]\nagent = "a"\nfailback = 300\ntimeout = { stop = "60s" }\n')
    assert one.plan.service("x").digest == other.plan.service("x").digest


def test_the_clusters_digest_has_node_order_fencing_and_lease(tmp_path: Path) -> None:
    """What the pair must agree on, and nothing else."""
    plain = load(tmp_path, "").plan.digest
    assert load(tmp_path, '[service.x]\nagent = "a"\n[log]\nlevel = "debug"\n').plan.digest == plain
    assert load(tmp_path, '[fencing]\nmode = "required"\n').plan.digest != plain
    (tmp_path / "0.toml").write_text('[cluster]\naddress_lease = "6s"\n')
    assert load(tmp_path, "").plan.digest != plain
    (tmp_path / "0.toml").unlink()
    turned = BASE.replace('"clustnode1", "clustnode2"', '"clustnode2", "clustnode1"')
    (tmp_path / "all.toml").write_text(turned)
    assert config.load(tmp_path, "clustnode1", anything, LINK_TYPES).plan.digest != plain


# -- values --------------------------------------------------------------------


@given(st.integers(0, DURATION_MAX_MS))
def test_a_duration_survives_being_written(milliseconds: int) -> None:
    """duration_ms reads what duration_text writes."""
    assert duration_ms(duration_text(milliseconds)) == milliseconds


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("100ms", 100),
        ("2s", 2_000),
        ("1.5s", 1_500),
        ("5m", 300_000),
        ("1h", 3_600_000),
        (2, 2_000),
        (0.25, 250),
    ],
)
def test_durations_are_texts_with_a_unit_or_numbers_of_seconds(value: object, expected: int) -> None:
    """Each unit, and plain numbers."""
    assert duration_ms(value) == expected


@pytest.mark.parametrize(
    "value",
    ["", "2", "-1s", "s", "1,5s", "2 min", True, -1, float("nan"), float("inf"), "0.0001s", "31d", None, []],
)
def test_what_is_no_duration_is_unfit(value: object) -> None:
    """No unit, signs, booleans, fractions of a millisecond."""
    with pytest.raises(Unfit):
        duration_ms(value)


@given(st.ip_addresses().map(str), st.integers(0, 128), st.sampled_from(["", "@eth0"]))
def test_an_address_has_one_spelling(host: str, prefix: int, interface: str) -> None:
    """What is accepted is accepted again unchanged, so ids and comparisons agree."""
    try:
        once = address(f"{host}/{prefix}{interface}")
    except Unfit:
        return
    assert address(once) == once
