"""Every fuzz target on its kept corpus and some thousand new inputs; `./test fuzz --minutes 60` is for more."""

import importlib
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz import corpus, engine, targets, texts
from tests.fuzz.fewest import fewest
from tests.fuzz.script import Script
from tests.fuzz.target import Target

NEW_INPUTS = {
    "wire": 1_500, "datagram": 6_000, "stream": 5_000, "snapshot": 8_000, "packet": 5_000, "peer": 150, "control": 600,
    "orders": 200, "message": 3_000, "round-trip": 500, "files": 400, "conf.d": 150, "fencing": 500,
    "meta-data": 2_000, "heartbeat": 10,
}  # fmt: skip
"""About a second each on a quiet machine."""
SEED = 1
CORPUS_MAX = 200_000


def tried(target: Target, runs: int, seed: int = SEED) -> bytes | None:
    """The first finding of the blind engine, or None."""
    return engine.blind(target, random.Random(f"fuzz {seed}"), runs, 0, [0, 0])


@pytest.mark.parametrize("name", targets.NAMES)
def test_nothing_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The corpus, the seeds and new inputs raise nothing but what the door is documented to raise."""
    monkeypatch.setenv("OCF_ROOT", "/nonexistent")  # the agents of this machine are not what is tried
    target = targets.load(name)
    begin = len(engine.beginning(target))
    assert tried(target, begin + NEW_INPUTS[name]) is None, "its traceback is above"


def test_every_target_is_in_the_list() -> None:
    """Each that a module has can be named, and each is in this file."""
    modules = [importlib.import_module(f"tests.fuzz.{module}") for module in targets.MODULES]
    assert {target.name for module in modules for target in module.TARGETS} == set(targets.NAMES) == set(NEW_INPUTS)


def test_the_corpus_is_small_and_nobodys_else() -> None:
    """Some inputs of each target, below 200 KB together, and no file without a target."""
    files = {path.stem: path.stat().st_size for path in corpus.FOLDER.iterdir()}
    assert set(files) == set(targets.NAMES)
    assert all(corpus.load(name) for name in files)
    assert sum(files.values()) < CORPUS_MAX


# -- the engine finds what is there ------------------------------------------------------------


def planted(data: bytes) -> int:
    """Raises for what is three changes away from its seed."""
    script = Script(data)
    if script.byte() == 255 and b"\n" in data and len(data) > 9:
        raise ValueError("planted")
    return 1


PLANTED = Target("planted", "a defect of our own", planted, lambda: [b"seed"], 64)


def test_a_planted_defect_is_found_and_found_again() -> None:
    """The same seed finds the same input; the input raises what was planted."""
    found = tried(PLANTED, 100_000)
    assert found is not None and found == tried(PLANTED, 100_000)
    with pytest.raises(ValueError, match="planted"):
        planted(found)


def test_an_input_that_takes_too_long_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time is bounded, not only what is raised."""
    monkeypatch.setattr(engine, "INPUT_MAX_S", -1)
    assert tried(PLANTED._replace(one=lambda data: 1), 10) == b"seed"


def test_the_fewest_inputs_take_all_branches(tmp_path: Path) -> None:
    """A second input on the same path is dropped; one that goes further is kept."""
    door = targets.load("packet")
    short, arp = b"", door.seeds()[0]
    assert fewest(door.one, [short, b"x", arp, arp + b"x"]) == [short, arp]


@pytest.mark.skipif(not engine.has_atheris(), reason="atheris has no wheel for this machine")
def test_the_command_searches_by_branches_and_counts(capfd: pytest.CaptureFixture[str]) -> None:
    """`python -m tests.fuzz packet --runs 500`: no finding, exit code 0, and how many inputs there were."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "packet", "--runs", "500"],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "atheris" in done.stdout
    assert int(done.stdout.split("inputs")[0].split()[-1].replace(",", "")) >= 500


# -- by itself -----------------------------------------------------------------------------------


def test_an_xml_bomb_in_meta_data_is_no_more_than_bad_xml() -> None:
    """Entities that would grow to gigabytes are refused by the parser, and so by us."""
    entities = "".join(f'<!ENTITY {chr(98 + n)} "{f"&{chr(97 + n)};" * 10}">' for n in range(12))
    bomb = f'<!DOCTYPE resource-agent [<!ENTITY a "aaaaaaaaaa">{entities}]><resource-agent>&m;</resource-agent>'
    texts.describe(bomb.encode())
    texts.read_metadata(bomb.encode())
