"""The registry: what is found, what is refused and why, and that nothing broken stops anything."""

import os
import sys
from pathlib import Path

import pytest

from hostd import loading
from hostd.api import AgentError, ConfigError, Health, LinkSettings, Resource
from hostd.config import Directories
from hostd.registry import Registry

GOOD = '''"""Says yes."""
from hostd.api import Field, Health, Parameters, hookimpl

@hookimpl
def parameters():
    return Parameters(Field("word", str, default="{word}"), summary="says {word}")

@hookimpl
def start(resource): pass

@hookimpl
def stop(resource): pass

@hookimpl
def monitor(resource): return Health.RUNNING
'''

LINK = """
from hostd.api import Parameters, hookimpl

@hookimpl
def link_types():
    return {"string": Parameters()}

@hookimpl
def open_link(settings):
    return "a link" if settings.type == "string" else None

@hookimpl
def check_link(settings):
    return ["the string is loose; pull it"]
"""


def good(word: str = "yes") -> str:
    return GOOD.format(word=word)


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A folder that only root may write to, with one for agents and one for plugins."""
    for name in ("agents", "plugins", "system/agents", "system/plugins"):
        (tmp_path / name).mkdir(parents=True, mode=0o755)
    return tmp_path


def load(here: Path) -> Registry:
    directories = Directories(agents=(here / "agents",), plugins=(here / "plugins",))
    return Registry.load(directories, system=here / "system")


def resource(here: Path) -> Resource:
    return Resource(name="r", node="n", params={}, run_dir=here, deadline=1e12)


def reason(registry: Registry, name: str) -> str:
    return next(broken.reason for broken in registry.broken if broken.name == name)


def test_a_file_dropped_into_a_folder_is_an_agent(here: Path) -> None:
    """One file is enough; its name is the agent's name."""
    (here / "agents" / "nod.py").write_text(good())
    registry = load(here)
    assert registry.agent("nod").monitor(resource(here)) is Health.RUNNING
    assert registry.parameters("nod").summary == "says yes"
    assert registry.agent("nod:any:thing") is registry.agent("nod")


def test_the_bundled_agents_load_without_any_being_broken(here: Path) -> None:
    """What comes with hostd is whole."""
    registry = load(here)
    assert {"dummy", "httpd"} <= set(registry.agents)
    assert registry.broken == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("def (", "SyntaxError: invalid syntax (line 1)"),
        ("\nimport no_such_library", "ModuleNotFoundError: No module named 'no_such_library' (bad.py, line 2)"),
        ("raise SystemExit(3)", "SystemExit: 3 (bad.py, line 1)"),
        ("x = 1", "has no hooks"),
        ("def start(resource): pass", "start lack the mark @hookimpl"),
        (good().replace("def monitor", "def montor"), 'bad.py, line 14: unknown hook "montor"; did you mean "mon'),
        (good().replace("def monitor(resource)", "def monitor(res)"), 'argument "res"'),
        (good().replace("def start(resource)", "def start(resource, hard=True)"), 'argument "hard"'),
        (good().replace("def start(resource)", "def start(resource=None)"), "a hook takes none"),
        (good().replace("def start(resource)", "def start(**resource)"), "write out the plain arguments"),
        (good().replace("def start", "async def start"), "start is async"),
        (good().replace("def start(resource): pass", "def start(resource): yield"), "start yields"),
        (good().replace("@hookimpl\ndef stop", "def stop"), "has no hook stop"),
        (good().replace("return Parameters", "return (lambda *a, **k: 5)"), "it must return hostd.api.Parameters"),
        (good().replace("return Parameters", "return 1 / 0 or Parameters"), "ZeroDivisionError"),
    ],
)  # fmt: skip
def test_a_broken_agent_is_listed_with_its_reason_and_stops_nothing(here: Path, text: str, expected: str) -> None:
    """Every kind of mistake is told in one line; the agent beside it works."""
    (here / "agents" / "bad.py").write_text(text)
    (here / "agents" / "nod.py").write_text(good())
    registry = load(here)
    assert expected in reason(registry, "bad")
    assert "\n" not in reason(registry, "bad")
    assert "nod" in registry.agents
    with pytest.raises(ConfigError, match="is broken"):
        registry.agent("bad")


def test_a_file_that_fails_leaves_no_module_behind(here: Path) -> None:
    """sys.modules is as it was."""
    (here / "agents" / "bad.py").write_text("import no_such_library")
    load(here)
    assert not [name for name, module in sys.modules.items() if str(here) in str(getattr(module, "__file__", ""))]


def test_an_agent_does_not_hide_a_library_of_its_name(here: Path) -> None:
    """agents/json.py is not what ``import json`` finds."""
    (here / "agents" / "json.py").write_text(good() + "\nimport json\nassert json.loads('1') == 1\n")
    registry = load(here)
    assert "json" in registry.agents, registry.broken


def test_no_byte_code_is_written_or_read(here: Path) -> None:
    """A folder of extensions holds nothing but what the operator put there."""
    (here / "agents" / "nod.py").write_text(good())
    load(here)
    assert [entry.name for entry in (here / "agents").iterdir()] == ["nod.py"]


def test_an_unknown_name_is_answered_with_the_nearest(here: Path) -> None:
    """A slip of the finger costs one look."""
    with pytest.raises(ConfigError, match=r'there is no agent "htpd"; did you mean httpd'):
        load(here).agent("htpd")


def test_a_later_folder_overrides_and_says_so(here: Path) -> None:
    """The command line wins over /etc/hostd, which wins over what is bundled."""
    (here / "system" / "agents" / "dummy.py").write_text(good("system"))
    (here / "agents" / "dummy.py").write_text(good("named"))
    registry = load(here)
    assert registry.parameters("dummy").summary == "says named"
    assert len([w for w in registry.warnings if "is used instead of" in w]) == 2


def test_a_broken_override_hides_what_it_was_to_replace(here: Path) -> None:
    """hostd does not guess that the bundled agent would do as well."""
    (here / "system" / "agents" / "dummy.py").write_text("def (")
    registry = load(here)
    with pytest.raises(ConfigError, match="SyntaxError"):
        registry.agent("dummy")


@pytest.mark.parametrize("target", ["system/agents/nod.py", "system/agents", "system"])
@pytest.mark.parametrize("harm", ["owner", "mode"])
def test_what_others_may_change_is_refused_in_etc(here: Path, target: str, harm: str) -> None:
    """File and parent folders must be root's and nobody else's to write."""
    (here / "system" / "agents" / "nod.py").write_text(good())
    if harm == "owner":
        os.chown(here / target, 65_534, 65_534)
        expected = f"refused: {here / target} belongs to uid 65534"
    else:
        (here / target).chmod(0o777)
        expected = f"refused: {here / target} may be written by others"
    registry = load(here)
    assert "nod" not in registry.agents
    assert reason(registry, "nod").startswith(expected)
    (here / target).chmod(0o755)


def test_a_link_in_etc_to_what_others_may_change_is_refused(here: Path, tmp_path: Path) -> None:
    """What counts is what is executed."""
    loose = tmp_path / "loose"
    loose.mkdir()
    (loose / "nod.py").write_text(good())
    loose.chmod(0o777)
    (here / "system" / "agents" / "nod.py").symlink_to(loose / "nod.py")
    assert "may be written by others" in reason(load(here), "nod")


def test_a_loose_folder_of_the_command_line_is_trusted_with_a_warning(here: Path) -> None:
    """Whoever names a folder answers for it, and is told."""
    (here / "agents" / "nod.py").write_text(good())
    (here / "agents").chmod(0o777)
    registry = load(here)
    assert "nod" in registry.agents
    assert any("may be written by others (mode 0777)" in warning for warning in registry.warnings)


def test_a_monitor_that_returns_nothing_is_the_agents_mistake(here: Path) -> None:
    """pluggy takes None for "not handled"; an unnoticed None would be no answer at all."""
    (here / "agents" / "mute.py").write_text(good().replace("return Health.RUNNING", "pass"))
    with pytest.raises(AgentError, match="agent's mistake: monitor of mute returned None"):
        load(here).agent("mute").monitor(resource(here))


def test_a_plugin_wraps_every_action_of_every_agent(here: Path) -> None:
    """Also of agents that it never heard of."""
    (here / "plugins" / "watcher.py").write_text(
        "from hostd.api import Health, hookimpl\n"
        "@hookimpl(wrapper=True)\n"
        "def monitor(resource):\n"
        "    answer = yield\n"
        "    return Health.DEGRADED if answer is Health.RUNNING else answer\n"
    )
    (here / "agents" / "nod.py").write_text(good())
    registry = load(here)
    assert registry.agent("nod").monitor(resource(here)) is Health.DEGRADED


def test_a_plugin_that_answers_for_agents_is_broken(here: Path) -> None:
    """It would be the monitor of everything."""
    (here / "plugins" / "greedy.py").write_text(good())
    assert "a plugin may only wrap it" in reason(load(here), "greedy")


def test_a_link_type_comes_from_a_plugin(here: Path) -> None:
    """Types, opening and checking; an unknown type is told with the nearest."""
    (here / "plugins" / "string.py").write_text(LINK)
    registry = load(here)
    settings = LinkSettings(name="l", type="string", node="a", peer="b", cluster="c", keepalive_ms=100)
    assert "string" in registry.link_types()
    assert registry.open_link(settings) == "a link"
    assert "the string is loose; pull it" in registry.check_link(settings)
    with pytest.raises(ConfigError, match='no plugin brings the type "strin"; did you mean string'):
        registry.open_link(LinkSettings(name="l", type="strin", node="a", peer="b", cluster="c", keepalive_ms=1))


def test_two_plugins_with_one_link_type_are_not_both_used(here: Path) -> None:
    """The second in name order is broken; the first works."""
    (here / "plugins" / "a_string.py").write_text(LINK)
    (here / "plugins" / "b_string.py").write_text(LINK)
    registry = load(here)
    assert "that another plugin brings already" in reason(registry, "b_string")
    assert "a_string" in registry.plugins


def test_a_broken_entry_point_does_not_stop_the_others(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Installed packages are found one by one."""
    site = tmp_path / "site"
    info = site / "strangers-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: strangers\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[hostd.agents]\nabroken = no_such_module_here\nstranger = hostd_test_stranger\n"
    )
    (site / "hostd_test_stranger.py").write_text(good("hello"))
    monkeypatch.syspath_prepend(str(site))
    registry = load(here)
    assert registry.parameters("stranger").summary == "says hello"
    assert "no_such_module_here" in reason(registry, "abroken")


def test_only_a_checkout_of_hostd_has_its_neighbours_folders_bundled() -> None:
    """The folder beside the package is ours because its pyproject.toml says so."""
    bundled = loading.bundled_folder("agents")
    assert bundled is not None and (bundled / "dummy.py").exists()
