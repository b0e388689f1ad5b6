"""What a difference of conf.d means, and what is said of it."""

from pathlib import Path

import pytest

from hostd import changes, config
from hostd.api import Field, Parameters
from hostd.changes import Change, Description, Kind
from hostd.commands import foretold
from hostd.config import Configuration
from hostd.description import describe
from hostd.registry import Registry
from hostd.status_form import FencingStatus, ServiceStatus, Status

CONF = """
[cluster]
name = "example"
nodes = ["a", "b"]
[heartbeat]
deadtime = "2s"
[[heartbeat.link]]
type = "any"
name = "cable"
[service.disk]
agent = "one"
[service.web]
address = "172.23.2.16/24"
agent = "one"
params = { port = 80, token = "hush" }
requires = ["disk"]
"""
LOW = Parameters(Field("port", int, default=1), Field("token", str, default="", secret=True), any_others=True)


def read(folder: Path, text: str) -> Configuration:
    (folder / "all.toml").write_text(text)
    return config.load(folder, "a", lambda reference: LOW, {"any": Parameters(any_others=True)})


def described(folder: Path, text: str = CONF) -> Description:
    return describe(read(folder, text), Registry(), (b"key",), "00")


def between(folder: Path, *replacements: tuple[str, str]) -> tuple[Change, ...]:
    text = CONF
    for old, new in replacements:
        assert old in text
        text = text.replace(old, new)
    return changes.between(described(folder), described(folder, text))


@pytest.mark.parametrize(
    ("old", "new", "kind", "subject", "what"),
    [
        ("port = 80", "port = 81", Kind.SERVICE_RENEWED, "web", ("one: params.port",)),
        ('"hush"', '"loud"', Kind.SERVICE_RENEWED, "web", ("one: params.token",)),
        ('agent = "one"\nparams', 'agent = "two"\nparams', Kind.SERVICE_RENEWED, "web", ("-one", "+two")),
        ("2.16/24", "2.17/24", Kind.SERVICE_EXTENDED, "web", ("+172.23.2.17/24", "-172.23.2.16/24")),
        ('deadtime = "2s"', 'deadtime = "3s"', Kind.SETTING, "heartbeat", ("deadtime: 2s → 3s",)),
        ('name = "cable"', 'name = "wire"', Kind.LINK, "cable", ("removed",)),
        ('name = "example"', 'name = "other"', Kind.IDENTITY, "cluster", ("name: example → other",)),
        ('["a", "b"]', '["a", "c"]', Kind.IDENTITY, "nodes", ("nodes: a, b → a, c",)),
        ('["disk"]', '["disk"]\nfailback = false', Kind.SERVICE_ADJUSTED, "web", ("failback: true → false",)),
        (
            '["disk"]', '["disk"]\ntimeout = { stop = "9s" }', Kind.SERVICE_ADJUSTED, "web",
            ("one: timeout.stop: 20s → 9s",),
        ),
        (
            '["disk"]', '["disk"]\n[service.more]\nagent = "one"', Kind.SERVICE_ADDED, "more", (),
        ),
    ],
)  # fmt: skip
def test_each_difference_is_found_for_what_it_is(
    tmp_path: Path, old: str, new: str, kind: Kind, subject: str, what: tuple[str, ...]
) -> None:
    """Values are shown where they may be: never a parameter's."""
    assert Change(kind, subject, what) in between(tmp_path, (old, new))


def test_only_links_timers_key_and_plugins_concern_the_heart(tmp_path: Path) -> None:
    """It beats on while services change."""
    assert changes.renews_heart(between(tmp_path, ('"2s"', '"3s"')))
    assert changes.renews_heart(between(tmp_path, ('"cable"', '"wire"')))
    assert not changes.renews_heart(between(tmp_path, ("port = 80", "port = 81")))


def test_the_layout_of_the_files_is_no_difference(tmp_path: Path) -> None:
    """Nor is the order of keys."""
    assert between(tmp_path, ('port = 80, token = "hush"', 'token = "hush", port = 80')) == ()


def picture(folder: Path, there: dict[str, str] | None, **runs: tuple[str, ...]) -> foretold.Picture:
    services = {name: ServiceStatus("running", nodes[0], nodes, "a") for name, nodes in runs.items()}
    status = Status("example", "a", "a", 1, "member", {}, services, FencingStatus("none", True))
    return foretold.Picture(status, "b", there, described(folder).services)


def test_it_is_said_where_and_when_a_service_is_restarted_and_what_goes_with_it(tmp_path: Path) -> None:
    """With the node, the condition, and whatever requires it."""
    change = Change(Kind.SERVICE_RENEWED, "disk", ("one: params.port",))
    same = {name: service.digest for name, service in described(tmp_path).services.items()}
    said = foretold.effect(change, picture(tmp_path, same, disk=("a",)))
    assert said == "It is stopped and started on a. With it: web."
    said = foretold.effect(change, picture(tmp_path, {"disk": "another"}, disk=("b",)))
    assert said == "It goes on as it is, and is stopped and started on b once b has the same. With it: web."
    assert "does not run" in foretold.effect(change, picture(tmp_path, same))


def test_it_is_said_where_a_removed_service_stops(tmp_path: Path) -> None:
    """Each node stops its own, when it is reloaded."""
    change = Change(Kind.SERVICE_REMOVED, "gone")
    assert foretold.effect(change, picture(tmp_path, {}, gone=("a",))) == "It is stopped on a."
    assert "until that is reloaded" in foretold.effect(change, picture(tmp_path, {}, gone=("b",)))
    assert "nowhere" in foretold.effect(change, picture(tmp_path, {}))


def test_every_kind_of_change_has_words(tmp_path: Path) -> None:
    """A headline and an effect."""
    for kind in Kind:
        change = Change(kind, "web", ("added",))
        assert foretold.headline(change) and foretold.effect(change, picture(tmp_path, None, web=("a",)))
