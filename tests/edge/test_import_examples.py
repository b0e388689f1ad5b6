"""The examples of ``ha.d/``: what each becomes, word for word, and that hostd would take it."""

import tomllib
from pathlib import Path

import pytest

from hostd.config import Directories
from hostd.importing import proof
from hostd.importing.fates import Verdict
from hostd.registry import Registry
from tests.edge.import_examples import EXAMPLES, EXPECTED, HA_D, converted, told


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    return Registry.load(Directories(), system=tmp_path_factory.mktemp("system"))


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_example_is_told_as_expected(name: str) -> None:
    """Every fate, the order of starts and every file; to rewrite them, see ``import_examples``."""
    assert told(name) == (HA_D / name / EXPECTED).read_text()


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_report_fits_a_terminal(name: str) -> None:
    """80 columns, but for what is one long word or stands in a file."""
    report, _, _files = told(name).partition("────")
    assert [line for line in report.splitlines() if len(line) > 80 and len(line.split()) > 2] == []


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_files_of_the_example_are_a_conf_d(name: str, tmp_path: Path, registry: Registry) -> None:
    """Both nodes of hostd take what was written; at most an agent's own files are not on this machine."""
    result = converted(name)
    if not result.files:
        assert result.ledger.count(Verdict.REFUSED) > 0, "nothing was built and nothing refused"
        return
    proof.write(result.files, tmp_path)
    complaints = proof.complaints(tmp_path, result.nodes, registry)
    fatal = [complaint.text for complaint in complaints if complaint.is_fatal]
    has_links = "[[heartbeat.link]]" in result.files[0].text
    assert [text for text in fatal if has_links or "the nodes cannot hear each other" not in text] == []


@pytest.mark.parametrize("name", EXAMPLES)
def test_no_line_of_the_example_is_without_a_fate(name: str) -> None:
    """Each line that says something is named in the report, by its number."""
    result = converted(name)
    told_lines = {(fate.line.file, fate.line.number) for fate in result.ledger.fates}
    for file in ("ha.cf", "authkeys"):
        path = HA_D / name / file
        lines = path.read_text().split("\n") if path.exists() else []
        saying = [n for n, line in enumerate(lines, 1) if line.partition("#")[0].strip()]
        assert [number for number in saying if (file, number) not in told_lines] == []


def test_the_example_of_the_mission_is_the_example_conf_d() -> None:
    """Three lines of haresources become three services with the same primaries, addresses and agents."""
    files = {file.name: tomllib.loads(file.text) for file in converted("mission").files}
    conf_d = Path(__file__).parents[2] / "conf.d"
    for name in ("mysql", "ldap", "cyrus"):
        ours, theirs = (
            read["service"][name]
            for read in (files[f"{name}.toml"], tomllib.loads((conf_d / f"{name}.toml").read_text()))
        )
        assert (ours["primary"], ours["agent"]) == (theirs["primary"], theirs["agent"])
        assert ours["address"] == theirs["address"].partition("/")[0]
