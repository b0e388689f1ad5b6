"""Any bytes in Heartbeat's files: always a fate or a ConfigError, never a crash, and what is written is a conf.d."""

import io
import re
import tempfile
import tomllib
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from hostd.api import ConfigError
from hostd.commands.import_report import Report, facts
from hostd.commands.paper import Paper
from hostd.config import Directories
from hostd.importing import explanations, proof
from hostd.importing.conversion import Result, Wish, convert
from hostd.importing.directives import READERS
from hostd.registry import Registry
from tests.edge.import_examples import AGENTS, HA_D

ODD = ["\\", "#", ",", "\0", "\x1b[31m", "é", "٣", "1e9", "9" * 30, "%", "\x85", "::", "0"]
FILES = [path for path in HA_D.glob("*/*") if path.is_file() and path.name != "expected.txt"]
WORDS = sorted({*ODD, *(word for path in FILES for word in path.read_text().split())})
"""What real files are made of, and what they are not."""
SEPARATORS = st.sampled_from([" ", "\t", "\n", "\n", "\\\n", "\r\n", " \\\n", "::", "/"])
MIXED = st.lists(st.tuples(st.sampled_from(WORDS), SEPARATORS), max_size=25).map(
    lambda pairs: "".join(word + separator for word, separator in pairs).encode()
)
ANY = st.one_of(MIXED, st.binary(max_size=200), st.tuples(MIXED, st.binary(max_size=20)).map(b"".join))
DIRECTIVES = st.sampled_from([*explanations.NOT_NEEDED, *explanations.REFUSED, *READERS])
LINES = st.lists(st.tuples(DIRECTIVES, st.lists(st.sampled_from(WORDS), max_size=5)), max_size=15).map(
    lambda lines: "".join(f"{name} {' '.join(words)}\n" for name, words in lines).encode()
)
NODES = b"bcast eth0\nnode node1 node2\n"
GROUPS = st.lists(
    st.tuples(st.sampled_from(["node1", "node2", "NODE1"]), st.lists(st.sampled_from(WORDS), min_size=1, max_size=6)),
    max_size=5,
).map(lambda lines: "".join(f"{node} {' '.join(words)}\n" for node, words in lines).encode())


def written(root: Path, **files: bytes) -> Path:
    directory = root / "etc" / "ha.d"
    directory.mkdir(parents=True)
    for name, content in files.items():
        (directory / name.replace("_", ".")).write_bytes(content)
    return directory


def imported(hacf: bytes, haresources: bytes, authkeys: bytes, peer: bytes) -> Result | None:
    """The result, after everything that can be said of it was said; None for a ConfigError."""
    with tempfile.TemporaryDirectory() as scratch:
        here = written(Path(scratch, "a"), ha_cf=hacf, haresources=haresources, authkeys=authkeys)
        there = written(Path(scratch, "b"), ha_cf=peer, haresources=haresources)
        try:
            result = convert(Wish(here, there, node="node1", agents=AGENTS))
        except ConfigError:
            return None
    paper = Paper(io.StringIO())
    Report(Path("x"), result, (), is_local=False, paper=paper).everything(None, with_files=True)
    facts(result, ())
    said = paper.text()
    assert all(line.isprintable() for line in said.split("\n")), "the terminal is written to in plain text only"
    return result


@settings(max_examples=120, deadline=None)
@given(hacf=st.one_of(LINES, ANY), haresources=ANY, authkeys=ANY, peer=st.one_of(LINES, ANY))
def test_no_bytes_crash_it(hacf: bytes, haresources: bytes, authkeys: bytes, peer: bytes) -> None:
    """Every line that says something has a fate, or the whole is refused in words."""
    result = imported(hacf, haresources, authkeys, peer)
    if result is None:
        return
    told = {(fate.line.file, fate.line.number) for fate in result.ledger.fates}
    for number, line in enumerate(hacf.split(b"\n"), 1):
        if re.split(rb"[#\r]", line, maxsplit=1)[0].strip(b" \t\f,"):
            assert ("ha.cf", number) in told


REGISTRY = Registry.load(Directories(), system=Path("/nonexistent"))


@settings(max_examples=60, deadline=None)
@given(hacf=LINES, haresources=GROUPS)
def test_whatever_is_written_is_a_conf_d(hacf: bytes, haresources: bytes) -> None:
    """Two nodes and a medium given, hostd takes the files, whatever else stands in Heartbeat's."""
    with tempfile.TemporaryDirectory() as scratch:
        here = written(Path(scratch, "a"), ha_cf=NODES + hacf, haresources=haresources)
        result = convert(Wish(here, node="node1", agents=AGENTS))
        for file in result.files:
            tomllib.loads(file.text)
        if result.files:
            proof.write(result.files, Path(scratch))
            complaints = proof.complaints(Path(scratch), result.nodes, REGISTRY)
            assert [complaint.text for complaint in complaints if complaint.is_fatal] == []


@settings(max_examples=60, deadline=None)
@given(content=ANY)
def test_no_parameter_file_crashes_it(content: bytes) -> None:
    """conf/OCF/TYPE/INSTANCE is a shell script to Heartbeat; here it is read and not run."""
    with tempfile.TemporaryDirectory() as scratch:
        here = written(Path(scratch), ha_cf=NODES, haresources=b"node1 OCF::kind::name\n")
        instance = here / "conf" / "OCF" / "kind" / "name"
        instance.parent.mkdir(parents=True)
        instance.write_bytes(content)
        for file in convert(Wish(here)).files:
            tomllib.loads(file.text)
