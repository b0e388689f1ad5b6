"""The importer against the real thing: Heartbeat 3.0.6 reads the same files."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hostd.importing import explanations
from hostd.importing.directives import READERS
from hostd.importing.fates import Ledger
from hostd.importing.hacf import directives
from hostd.importing.haresources import call, groups
from hostd.importing.timers import milliseconds
from tests.edge.real_heartbeat import Daemon, Heartbeat, NotToBeHad

HA_D = Path(__file__).parent / "ha.d"


@pytest.fixture(scope="module")
def heartbeat(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Heartbeat]:
    """The real parser; it is in Debian, so its absence is a failure and no reason to skip."""
    try:
        yield Heartbeat(tmp_path_factory.mktemp("ha") / "ha.d")
    except NotToBeHad as reason:
        pytest.fail(str(reason))


def ours(content: bytes) -> list[list[str]]:
    return [[group.node, *(word.text for word in group.words)] for group in groups(content)]


FRAGMENTS = st.sampled_from(
    [
        "node1", "Node2", "10.0.0.1", "10.0.0.1/24/eth0", "IPaddr::10.0.0.2/24", "httpd", "Filesystem::/dev/sdb1::/d",
        "a::b::c", "a:b::c", "a:::b", "::", "x::", "\\", "#", " ", "\t", "  ", "\n", "\\\n", " \\\n", "\\ \n", "# c\n",
        "#c\\\n", "\r\n", "\r", "$x", "'q'", "-n", "%", "&", "*",
    ]
)  # fmt: skip
HARESOURCES = st.lists(FRAGMENTS, max_size=30).map("".join)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=HARESOURCES)
def test_our_lines_are_heartbeats_lines(heartbeat: Heartbeat, text: str) -> None:
    """Whatever stands in haresources, groups, order and words are what the real parser makes of it."""
    assert ours(text.encode()) == heartbeat.lines(text.encode())


@pytest.mark.parametrize("path", sorted(HA_D.glob("*/haresources")), ids=lambda path: path.parent.name)
def test_our_lines_of_the_examples_are_heartbeats_lines(heartbeat: Heartbeat, path: Path) -> None:
    """Every example file of this folder means to us what it means to Heartbeat."""
    assert ours(path.read_bytes()) == heartbeat.lines(path.read_bytes())


NAMES = st.sampled_from(["httpd", "nfs", "drbddisk", "Filesystem", "my-app", "a:b", "x.y", "MailTo"])
ARGUMENTS = st.lists(st.sampled_from(["r0", "/dev/sdb1", "/data", "ext3", "a:b", ":", "", "x@y"]), max_size=4)
SCRIPTS = st.builds(lambda name, arguments: "::".join([name, *arguments]), NAMES, ARGUMENTS)
ADDRESSES = st.sampled_from(["10.0.0.5", "10.0.0.6/24", "10.0.0.7/24/eth0/10.0.0.255", "IPaddr2::10.0.0.8/24/eth1:1"])
RESOURCES = st.lists(st.one_of(SCRIPTS, ADDRESSES), min_size=1, max_size=4, unique=True)
SEPARATORS = st.sampled_from([" ", "\t", "   ", " \\\n", " \\\n\t "])


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(resources=RESOURCES, separator=SEPARATORS)
def test_a_takeover_calls_what_we_say_it_calls(heartbeat: Heartbeat, resources: list[str], separator: str) -> None:
    """The real takeover runs the scripts that we name, with our arguments, in our order."""
    content = f"other unrelated\nnode1{separator}key{separator}{separator.join(resources)} # a group\n".encode()
    group = groups(content)[1]
    expected = [call(word.text) for word in group.words]
    started = heartbeat.calls(content, "key", {each.script for each in expected})
    assert started == [[each.script, *each.arguments, "start"] for each in expected]


# -- ha.cf ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Daemon:
    try:
        return Daemon(tmp_path_factory.mktemp("daemon"))
    except NotToBeHad as reason:
        pytest.fail(str(reason))


FRAME = f"serial /dev/null\nnode {os.uname().nodename} other\nauto_failback on\n"
"""Lines that the daemon accepts, and to which others can be added."""
VALUES = st.text(st.sampled_from("ab1 \t,#\r\f:=/-."), max_size=12)


@pytest.mark.lab
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=st.lists(st.tuples(st.sampled_from(["", " ", "\t"]), VALUES), min_size=1, max_size=20))
def test_our_words_of_ha_cf_are_heartbeats_words(daemon: Daemon, lines: list[tuple[str, str]]) -> None:
    """Separators, comments and line ends divide a line for us as for the real daemon."""
    content = "".join(f"{before}cluster {value}\n" for before, value in lines).encode()
    ours = [(found.name, value) for found in directives(content, Ledger()) for value in found.arguments]
    assert ours == daemon.read(content).options


@pytest.mark.lab
def test_a_time_that_we_take_as_it_stands_is_taken_by_heartbeat(daemon: Daemon) -> None:
    """And one that Heartbeat would not start with is never converted without a word."""
    for word in (
        "10",
        "1.5",
        ".5",
        "5.",
        "100ms",
        "1500MSEC",
        "900000us",
        "900000usec",
        "5s",
        "5sec",
        "1m",
        "5x",
        "1e3",
        "x",
    ):
        is_accepted = daemon.read(f"{FRAME}deadtime {word}\n".encode()).is_accepted
        assert (milliseconds(word) is not None) == is_accepted, word


@pytest.mark.lab
def test_every_directive_of_the_wild_example_is_known_to_heartbeat(daemon: Daemon) -> None:
    """The daemon calls illegal what we call so, and nothing else."""
    known = sorted({*explanations.NOT_NEEDED, *explanations.REFUSED, *READERS} - ABSENT)
    output = daemon.read("".join(f"{name} x y\n" for name in ("no_such_thing", *known)).encode()).output
    assert re.findall(r"Illegal directive \[(.*?)\]", output) == ["no_such_thing"]


ABSENT = {"rds", "tipc", "hbaping", "openais", "normalpoll", "udp"}
"""Plugins that Debian does not build, what older releases knew, and ``udp``, which needs its interface."""
