"""What ``hostd check`` sees of a fencing device: its program, its metadata, its secrets."""

import time
from pathlib import Path
from typing import Any

import pytest

from hostd.api import AgentError, FenceOrder, Note
from hostd.config import Directories
from hostd.registry import Registry

METADATA = """<?xml version="1.0" ?>
<resource-agent name="fence_x" shortdesc="as stock programs print it">
<parameters>
  <parameter name="action" unique="0" required="1"><content type="string" default="reboot" /></parameter>
  <parameter name="ip" unique="0" required="1" obsoletes="ipaddr"><content type="string" /></parameter>
  <parameter name="ipaddr" unique="0" required="1" deprecated="1"><content type="string" /></parameter>
  <parameter name="ipport" unique="0" required="0"><content type="integer" default="623" /></parameter>
  <parameter name="password" unique="0" required="1"><content type="string" /></parameter>
  <parameter name="plug" unique="0" required="1" obsoletes="port"><content type="string" /></parameter>
  <parameter name="port" unique="0" required="1" deprecated="1"><content type="string" /></parameter>
  <parameter name="ssl_insecure" unique="0" required="0"><content type="boolean" /></parameter>
  <parameter name="privlvl" unique="0" required="0"><content type="select" default="administrator">
    <option value="user" /><option value="administrator" /></content></parameter>
</parameters>
<actions>ACTIONS</actions>
</resource-agent>
"""
ACTIONS = ("on", "off", "reboot", "status", "monitor", "metadata")
GOOD: dict[str, Any] = {"ip": "10.0.0.1", "plug": 1}


def told(
    folder: Path, params: dict[str, Any], actions: str = "", name: str = "fence_x", is_last: bool = True
) -> list[str]:
    """The sentences about a device whose program prints the metadata."""
    folder.chmod(0o755)
    known = actions or "".join(f'<action name="{action}" />' for action in ACTIONS)
    (folder / "metadata").write_text(METADATA.replace("ACTIONS", known))
    program = folder / name
    program.write_text(
        f'#!/bin/sh\n[ "$(cat)" = action=metadata ] && exec cat {folder}/metadata\ntouch {folder}/other\n'
    )
    program.chmod(0o755)
    secret = folder / "pw"
    secret.write_text("sesame\n")
    secret.chmod(0o600)
    order = FenceOrder(
        agent=str(program),
        node="b",
        params=params,
        secrets={"password": secret},
        deadline=time.monotonic() + 5,
        is_last=is_last,
    )
    said = _registry().check_device(order)
    assert not (folder / "other").exists(), "it was told something else than metadata"
    return [sentence.replace(str(program), name) for sentence in said]


def _registry() -> Registry:
    return Registry.load(Directories(), system=Path("/nonexistent"))


def test_a_device_as_its_program_wants_it_is_not_complained_of(tmp_path: Path) -> None:
    """Dashes and underscores are the same to these programs, and hostd says the action itself."""
    assert told(tmp_path, GOOD | {"ssl-insecure": True, "ipport": 624, "privlvl": "user"}) == []


@pytest.mark.parametrize(
    ("params", "says"),
    [
        (GOOD | {"plgu": 1}, "plgu is no parameter of fence_x, which ignores it; did you mean plug?"),
        ({"plug": 1}, "ip is required by fence_x and is not there for b; add it to params"),
        (GOOD | {"ipport": "high"}, 'ipport = "high" is no whole number, which fence_x wants; write one'),
        (GOOD | {"privlvl": "god"}, 'privlvl = "god" is nothing that fence_x knows; use one of user, administrator'),
    ],
)
def test_what_the_metadata_do_not_know_is_an_error(tmp_path: Path, params: dict[str, Any], says: str) -> None:
    """With the nearest name, or with what is wanted."""
    assert told(tmp_path, params) == [says]


def test_an_old_word_is_a_note_and_meets_what_is_required(tmp_path: Path) -> None:
    """One of the two spellings is enough."""
    [sentence] = said = told(tmp_path, {"ipaddr": "10.0.0.1", "plug": 1})
    assert sentence == "ipaddr is an old word that fence_x may forget; write ip"
    assert len(said) == 1


def test_a_program_that_cannot_switch_off_or_be_asked_is_no_device(tmp_path: Path) -> None:
    """By the actions that it names."""
    [sentence] = told(tmp_path, GOOD, '<action name="on" /><action name="status" /><action name="monitor" />')
    assert "cannot switch off" in sentence
    [sentence] = told(tmp_path, GOOD, '<action name="off" />')
    assert "cannot be asked for status and monitor" in sentence


@pytest.mark.parametrize("sign", ['automatic="1"', 'on_target="1"'])
def test_a_program_that_takes_the_disks_away_is_no_power_switch(tmp_path: Path, sign: str) -> None:
    """It has to be told when a node is back, and that is how it is known."""
    actions = f'<action name="on" {sign} /><action name="off" /><action name="status" /><action name="monitor" />'
    [sentence] = told(tmp_path, GOOD, actions)
    assert "cuts a node off from disks or network" in sentence


@pytest.mark.parametrize("name", ["fence_scsi", "fence_mpath"])
def test_a_reservation_is_never_taken_for_power(tmp_path: Path, name: str) -> None:
    """Neither checked, drilled nor shot with: its "off" would make a node dead that may hold its address."""
    [sentence] = told(tmp_path, GOOD, name=name)
    assert "takes disks or network away and no power" in sentence
    order = FenceOrder(agent=str(tmp_path / name), node="b", params={}, secrets={}, deadline=time.monotonic() + 5)
    registry = _registry()
    for act in (registry.fence, registry.drill):
        with pytest.raises(AgentError, match="no power"):
            act(order)
    assert not (tmp_path / "other").exists()


def test_a_board_of_the_node_itself_is_warned_of(tmp_path: Path) -> None:
    """It may lose its power together with the node, and then it confirms nothing."""
    program = tmp_path / "fence_ipmilan"
    sentences = told(tmp_path, GOOD, name=program.name)
    assert len(sentences) == 1 and "confirms nothing once it has lost its power" in sentences[0]
    assert told(tmp_path, GOOD, name=program.name, is_last=False) == []  # a power switch comes after it


def test_a_program_that_others_may_change_is_an_error(tmp_path: Path) -> None:
    """It runs as root, and whoever writes it has any node shot."""
    told(tmp_path, GOOD)
    (tmp_path / "fence_x").chmod(0o777)
    order = FenceOrder(
        agent=str(tmp_path / "fence_x"),
        node="b",
        params=GOOD | {"password": "x"},
        secrets={},
        deadline=time.monotonic() + 5,
    )
    assert [s for s in _registry().check_device(order) if "may be changed by others than root" in s]


def test_without_metadata_nothing_is_claimed(tmp_path: Path) -> None:
    """A note, and how to try the device instead."""
    tmp_path.chmod(0o755)
    program = tmp_path / "fence_own"
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o755)
    order = FenceOrder(agent=str(program), node="b", params={"x": 1}, secrets={}, deadline=time.monotonic() + 5)
    [sentence] = _registry().check_device(order)
    assert isinstance(sentence, Note) and "hostd fence b --check" in sentence
