"""The manual in ``docs/`` promises nothing that is not there: each conf.d, command, key, problem and link of it."""

import argparse
import contextlib
import io
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from hostd import config
from hostd.commands import agent_main, complaints, completion, main
from hostd.config import Directories
from hostd.proving.rules import RULES
from hostd.registry import Registry
from tests.edge.test_packaging import keys_of_conf_d

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = {path.name: path.read_text() for path in sorted(DOCS.glob("*.md"))}
PROGRAMS = ("hostd", "hostd-agent")


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.load(Directories(), system=Path("/nonexistent"))


# -- conf.d ----------------------------------------------------------------------------


def blocks(page: str) -> list[str]:
    return re.findall(r"```toml\n(.*?)```", PAGES[page], re.DOTALL)


THE_CLUSTER = next(block for block in blocks("cookbook.md") if "[cluster]" in block)
BLOCKS = [(page, number) for page in PAGES for number in range(len(blocks(page)))]


@pytest.mark.parametrize("node", [0, 1])
@pytest.mark.parametrize(("page", "number"), BLOCKS)
def test_every_conf_d_of_the_manual_is_right(
    registry: Registry, tmp_path: Path, page: str, number: int, node: int
) -> None:
    """As both nodes read it, with the real agents: no mistake, and no warning where the power is switched."""
    block = blocks(page)[number]
    cluster = block if "[cluster]" in block else THE_CLUSTER
    (tmp_path / "00-cluster.toml").write_text(cluster)
    if cluster is not block:
        (tmp_path / "recipe.toml").write_text(block)
    [names] = re.findall(r'^nodes = \["(\w+)", "(\w+)"\]', cluster, re.MULTILINE)
    read = config.examine(tmp_path, names[node], registry.parameters, registry.link_types(), registry.notify_types())
    said = [c.text for c in read.complaints if not c.is_warning or 'mode = "required"' in cluster]
    assert said == []
    assert read.configuration is not None and read.configuration.set_aside == ()


def test_the_cookbook_has_what_it_says() -> None:
    """A recipe for each, below a heading of its own."""
    assert len(blocks("cookbook.md")) == 8
    recipes = dict(re.findall(r"^## (.*?)\n.*?```toml\n(.*?)```", PAGES["cookbook.md"], re.DOTALL | re.MULTILINE))
    for heading, agents in {
        "Web": ["httpd"],
        "MySQL on a shared SCSI disk": ["scsi_reservation", "filesystem", "mysql"],
        "A shared disk in place of a power switch": ["scsi_reservation", "scsi_reservation", "filesystem", "mysql"],
        "MySQL on DRBD": ["script:drbddisk mysql", "filesystem", "mysql"],
        "Mail (Cyrus) on GFS2": ["gfs", "cyrus"],
        "NFS server": ["scsi_reservation", "filesystem", "systemd:nfsdcld", "systemd:nfs-server"],
        "LDAP": ["scsi_reservation", "filesystem", "ldap"],
    }.items():
        assert re.findall(r'agent = "(.*?)"', recipes[heading]) == agents


def test_every_key_of_conf_d_is_in_the_manual() -> None:
    """Between backquotes on the page of the keys, or in an example there."""
    page = PAGES["configuration.md"]
    known = set(re.findall(r"[a-z_]+", " ".join(re.findall(r"`([^`\n]+)`", page) + blocks("configuration.md"))))
    keys = keys_of_conf_d()
    assert len(keys) > 40
    assert keys - known == set()


def test_every_key_of_the_manual_is_one_of_conf_d() -> None:
    """The first column of each table of that page."""
    keys = keys_of_conf_d()
    named = [
        word
        for line in PAGES["configuration.md"].splitlines()
        if line.startswith("| `")
        for word in re.findall(r"`([a-z_]+)`", line.split("|")[1])
    ]
    assert len(named) > 40
    assert [word for word in named if word not in keys] == []


# -- commands --------------------------------------------------------------------------


class Line(NamedTuple):
    page: str
    words: tuple[str, ...]
    is_named: bool
    """Only spoken of, as in ``hostd why``: its arguments need not be there."""


def command_lines() -> Iterator[Line]:
    """Each call of ours: in indented and fenced lines, and between backquotes, where its name alone may stand."""
    for page, text in PAGES.items():
        fenced = re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
        rest = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
        indented = re.findall(r"^ {4}(\S.*)$", rest, re.MULTILINE)
        quoted = [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", rest)]
        for line in [*"\n".join(fenced).splitlines(), *indented, *quoted]:
            for part in re.split(r"&&|\||;|\s#\s", line):
                words = part.split()
                if len(words) > 1 and words[0] in PROGRAMS and "…" not in part:
                    yield Line(page, tuple(shlex.split(part)), is_named=line in quoted and len(words) == 2)


LINES = sorted(set(command_lines()))


AGENT_COMMANDS = {command.name for command in completion.commands("hostd-agent")}


def parsed(words: tuple[str, ...]) -> argparse.Namespace:
    """As the programs' own doors do it."""
    program, *arguments = words
    if program == "hostd":
        return main.parser_for(main.command_in(arguments)).parse_args(arguments)
    namespace, more = agent_main.parser().parse_known_args(arguments)
    assert not more or (hasattr(namespace, "params") and all("=" in word and word[0] != "-" for word in more)), more
    return namespace


@pytest.mark.parametrize("line", LINES, ids=lambda line: f"{line.page}: {shlex.join(line.words)}")
def test_every_command_line_of_the_manual_is_understood(line: Line) -> None:
    """By the real parsers, with its options and arguments."""
    said = io.StringIO()
    if line.is_named:
        known = main.COMMANDS if line.words[0] == "hostd" else AGENT_COMMANDS
        assert line.words[1] in known or line.words[1].startswith("--")
        return
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            parsed(line.words)
    except SystemExit as end:
        assert end.code == 0, said.getvalue()  # --help and --version


def test_the_commands_of_the_manual_are_found_by_this_test() -> None:
    """Else the test before could pass by finding none."""
    found = {line.words[:2] for line in LINES}
    assert {("hostd", "status"), ("hostd", "confirm-down"), ("hostd-agent", "test"), ("hostd", "import")} <= found
    assert len(LINES) > 40


@pytest.mark.parametrize("command", [c for c in main.COMMANDS if c != "run"])
def test_every_command_is_in_the_manual(command: str) -> None:
    """Somewhere: ``hostd run`` is systemd's."""
    assert any(line.words[:2] == ("hostd", command) for line in LINES)


def test_every_rule_of_the_authors_guide_is_one() -> None:
    """In the table of mistakes."""
    table = PAGES["agents.md"].split("## The mistakes that it catches")[1].split("\n## ")[0]
    named = [
        name
        for line in table.splitlines()
        if line.startswith("| ") and line.count("|") == 3
        for name in re.findall(r"`([a-z-]+)`", line.split("|")[2])
    ]
    assert len(named) > 20
    assert set(named) <= {rule.id for rule in RULES}


# -- problems, scenarios, links ----------------------------------------------------------


def test_every_problem_has_its_entry_and_every_entry_its_problem() -> None:
    """Under the code that ``hostd status --json`` gives it, with the severity."""
    headings = re.findall(r"^### (.*)$", PAGES["troubleshooting.md"], re.MULTILINE)
    entries = [code for heading in headings for code in re.findall(r"`([a-z-]+)`", heading)]
    assert sorted(entries) == sorted(complaints.PROBLEMS)
    assert all(re.search(r"\((error|warning|info)", heading) for heading in headings)


def test_the_severities_of_the_manual_are_those_of_the_code() -> None:
    """Where the code has one severity for a problem."""
    source = (ROOT / "hostd" / "problems.py").read_text()
    of = dict(re.findall(r'Problem\("(error|warning|info)", "([a-z-]+)"', source))
    severities = {code: severity for severity, code in re.findall(r'Problem\("(\w+)", "([a-z-]+)"', source)}
    assert of and len(severities) > 20
    for heading in re.findall(r"^### (.*)$", PAGES["troubleshooting.md"], re.MULTILINE):
        for code in re.findall(r"`([a-z-]+)`", heading):
            if code in severities:
                assert f"({severities[code]}" in heading, heading


def test_every_row_of_the_failures_names_a_scenario_that_is_there() -> None:
    """And no failure is told without the story that shows it."""
    rows = [
        line
        for line in PAGES["failures.md"].splitlines()
        if line.startswith("| ") and not re.match(r"\| (what|order)\b", line)
    ]
    assert len(rows) > 40
    for row in rows:
        shown = re.findall(r"\(\.\./tests/scenarios/([\w-]+\.txt)\)", row)
        assert shown, row
        assert all((ROOT / "tests" / "scenarios" / name).is_file() for name in shown), row


def anchors(text: str) -> set[str]:
    """Of each heading, as the usual viewers of Markdown make them."""
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    }


@pytest.mark.parametrize("page", PAGES)
def test_every_link_of_the_manual_leads_somewhere(page: str) -> None:
    """To a file of this folder, and to a heading in it."""
    for target in re.findall(r"\]\(([^)\s]+)\)", PAGES[page]):
        if "://" not in target:
            name, _, anchor = target.partition("#")
            file = (DOCS / name).resolve() if name else DOCS / page
            assert file.is_file() and file.is_relative_to(ROOT), target
            assert not anchor or anchor in anchors(file.read_text()), target


def test_the_index_leads_to_every_page() -> None:
    """And the README to the index."""
    linked = set(re.findall(r"\]\(([\w-]+\.md)\)", PAGES["README.md"]))
    assert linked == set(PAGES) - {"README.md"}
    assert "from-heartbeat.md" in linked
    assert "(docs/README.md)" in (ROOT / "README.md").read_text()
