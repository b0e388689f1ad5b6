"""What the documents promise of conf.d, commands and files is there."""

import argparse
import re
from pathlib import Path

import pytest

from hostd import config
from hostd.commands.main import COMMANDS, parser_for
from hostd.config import Directories
from hostd.registry import Registry

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text()


@pytest.mark.parametrize("node", ["clustnode1", "clustnode2"])
def test_the_first_cluster_of_the_readme_is_right(tmp_path: Path, node: str) -> None:
    """What a newcomer copies is accepted, with the real agents and plugins, and runs two links."""
    [block] = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
    (tmp_path / "cluster.toml").write_text(block)
    registry = Registry.load(Directories())
    loaded = config.load(tmp_path, node, registry.parameters, registry.link_types())
    assert [link.name for link in loaded.plan.links] == ["udp1", "udp2"]
    assert loaded.plan.service("web").addresses == ("172.23.2.16/24",)
    for settings in loaded.links:
        assert {"address", "peer_address"} <= settings.settings.keys()


def test_its_serial_cable_is_right_too(tmp_path: Path) -> None:
    """The lines that are commented out work when they are not."""
    [block] = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
    serial = re.sub(r"^# ", "", block, flags=re.MULTILINE)
    (tmp_path / "cluster.toml").write_text(serial)
    registry = Registry.load(Directories())
    loaded = config.load(tmp_path, "clustnode1", registry.parameters, registry.link_types())
    assert [link.name for link in loaded.plan.links] == ["udp1", "udp2", "serial1"]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_in_the_readme(command: str) -> None:
    """No command is left for people to find by chance."""
    assert f"`hostd {command}" in README


def test_every_file_that_the_architecture_names_is_there() -> None:
    """The reading path leads somewhere: each name of a module is one, and each folder is there."""
    everything = {path.name for path in ROOT.rglob("*.py") if ".venv" not in path.parts}
    named = set(re.findall(r"[a-z_]+\.py", ARCHITECTURE))
    assert len(named) > 40
    assert named <= everything
    folders = re.findall(r"`((?:hostd|agents|plugins|tests)/[a-z_/]*)`", ARCHITECTURE)
    assert folders
    assert [folder for folder in folders if not (ROOT / folder).is_dir()] == []


def test_every_module_of_the_core_is_on_the_reading_path() -> None:
    """Who follows the table of questions meets the whole core."""
    modules = {path.name for path in (ROOT / "hostd" / "core").glob("[a-z]*.py")}
    assert modules - set(re.findall(r"[a-z_]+\.py", ARCHITECTURE)) == set()


def test_every_file_has_a_room() -> None:
    """A newcomer finds each module of hostd in the table of rooms or on the reading path."""
    modules = {path.name for path in (ROOT / "hostd").glob("[a-z]*.py")}
    assert modules - set(re.findall(r"[a-z_]+\.py", ARCHITECTURE)) == set()


def test_every_option_that_the_readme_shows_is_one() -> None:
    """`hostd COMMAND --option` of the README is taken by that command, as its parser says."""
    shown = set(re.findall(r"hostd (?:\| )?([a-z-]+)[^`\n|]*? \[?(--[a-z-]+)", README))
    assert {("status", "--watch"), ("detach", "--for")} <= shown
    for command, option in shown:
        if command in COMMANDS:
            parser = parser_for(command)
            (subparsers,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
            assert option in subparsers.choices[command].format_help(), (command, option)
