"""``hostd import``: the command, and the decisions behind it that the examples do not tell one by one."""

import json
import re
import stat
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from hostd import keys
from hostd.commands.main import main
from hostd.importing import addresses, explanations, haresources, timers
from hostd.importing.conversion import Result, Wish, convert
from hostd.importing.directives import READERS
from hostd.importing.fates import Verdict
from hostd.importing.site import STOCK
from tests.edge.import_examples import AGENTS, HA_D, converted

HA_CF = "bcast eth0\nserial /dev/ttyS0\nauto_failback on\nnode node1 node2\n"


def site(root: Path, *, hacf: str = HA_CF, haresources: str = "node1 10.0.0.1\n", **files: str) -> Path:
    """An ``etc/ha.d`` below ``root``; further files by path relative to root."""
    directory = root / "etc" / "ha.d"
    directory.mkdir(parents=True)
    (directory / "ha.cf").write_text(hacf)
    (directory / "haresources").write_text(haresources)
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
        (root / name).chmod(0o755)
    return directory


def converted_site(root: Path, wish: dict[str, Any] | None = None, **files: str) -> Result:
    return convert(Wish(site(root, **files), agents=AGENTS, **(wish or {})))


def service(result: Result, name: str) -> dict[str, Any]:
    text = next(file.text for file in result.files if file.name == f"{name}.toml")
    return dict(tomllib.loads(text)["service"][name])


def cluster(result: Result) -> dict[str, Any]:
    return tomllib.loads(result.files[0].text)


def reasons(result: Result, verdict: Verdict = Verdict.REFUSED) -> str:
    return "\n".join(fate.text for fate in result.ledger.fates if fate.verdict is verdict)


# -- the command -------------------------------------------------------------------------


def test_a_clean_site_is_written_with_a_new_key_and_exits_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """-o makes the directory, the files and the key, and says what comes next."""
    out = tmp_path / "conf.d"
    assert main(["import", str(site(tmp_path)), "-o", str(out), "--node", "elsewhere"]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["00-cluster.toml", "address-10-0-0-1.toml", "cluster.key"]
    assert len(keys.read(out / "cluster.key")) == 1
    assert stat.S_IMODE((out / "cluster.key").stat().st_mode) == 0o600
    said = capsys.readouterr().out
    assert f"hostd check --config {out}" in said and "0 refused" in said


def test_the_line_that_copies_it_does_so_where_the_package_made_the_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Into the folder above: /etc/hostd/conf.d is on the other node already, and scp would make conf.d/conf.d."""
    out, other = tmp_path / "here/conf.d", tmp_path / "there/conf.d"
    other.mkdir(parents=True)
    main(["import", str(site(tmp_path)), "-o", str(out), "--node", "elsewhere"])
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "scp" in line)
    assert line.split() == ["scp", "-pr", str(out), f"OTHERNODE:{out.parent}/"]
    subprocess.run(["cp", "-pr", out, other.parent], check=True)  # as scp does, without the other node
    assert {path.name for path in other.iterdir()} == {path.name for path in out.iterdir()}
    assert (other / "cluster.key").stat().st_mode & 0o777 == 0o600


def test_what_was_written_is_what_hostd_check_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """conf.d is right: what is left to complain of is this machine."""
    out = tmp_path / "conf.d"
    main(["import", str(site(tmp_path)), "-o", str(out), "--node", "elsewhere"])
    capsys.readouterr()
    main(["check", "--config", str(out), "--node", "node1", "--json"])
    assert json.loads(capsys.readouterr().out)["configuration_is_good"] is True


def test_a_directory_with_something_in_it_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is ever overwritten, and nothing is printed either."""
    out = tmp_path / "conf.d"
    out.mkdir()
    (out / "mine.toml").write_text("")
    assert main(["import", str(site(tmp_path)), "-o", str(out)]) == 2
    told = capsys.readouterr()
    assert told.out == "" and "is not empty (it has mine.toml)" in told.err
    assert [path.name for path in out.iterdir()] == ["mine.toml"]


def test_check_writes_nothing_and_prints_no_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--check reports only, even beside -o."""
    out = tmp_path / "conf.d"
    assert main(["import", str(site(tmp_path)), "--check", "-o", str(out)]) == 0
    assert not out.exists()
    assert "[cluster]" not in capsys.readouterr().out.replace("[cluster] ", "")


def test_something_refused_exits_1_and_the_rest_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A script can tell, and the operator still has what could be converted."""
    directory = site(tmp_path, haresources="node1 10.0.0.1\nnode3 10.0.0.3\n")
    assert main(["import", str(directory), "--check"]) == 1
    assert main(["import", str(directory), "-o", str(tmp_path / "out")]) == 1
    assert (tmp_path / "out" / "address-10-0-0-1.toml").exists()
    assert "What was refused is missing in them" in " ".join(capsys.readouterr().out.split())


def test_a_directory_without_heartbeats_files_exits_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And says which files it looked for."""
    assert main(["import", str(tmp_path)]) == 2
    assert "has neither ha.cf nor haresources" in capsys.readouterr().err


def test_an_address_that_is_none_exits_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--address has one form."""
    assert main(["import", str(site(tmp_path)), "--address", "node1"]) == 2
    assert "is not NODE=ADDRESS" in capsys.readouterr().err


def test_json_has_the_same_facts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Schema 1: fates with file, line, word; orders; files."""
    assert main(["import", str(site(tmp_path)), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["schema"] == 1 and facts["nodes"] == ["node1", "node2"]
    fate = {"file": "haresources", "line": 1, "fate": "converted", "thing": "10.0.0.1"}
    assert any(fate.items() <= each.items() for each in facts["fates"])
    assert facts["orders"] == [
        {
            "service": "address-10-0-0-1",
            "primary": "node1",
            "before": ["10.0.0.1"],
            "after": ["10.0.0.1"],
            "missing": [],
        }
    ]


@pytest.mark.parametrize("name", ["33-ha.cf-in-the-wild", "39-authkeys", "27-ocf"])
def test_no_secret_is_ever_told(name: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Neither keys nor passwords of devices nor of OCF instances, in no form of the report and in no file."""
    main(["import", str(HA_D / name), "-o", str(tmp_path / "out")])
    main(["import", str(HA_D / name), "--json"])
    written = "".join(path.read_text() for path in (tmp_path / "out").glob("*.toml"))
    told = capsys.readouterr()
    for secret in ("geheim", "some-long-secret", "47e9", "HI!"):
        assert secret not in told.out + told.err + written


# -- scripts ---------------------------------------------------------------------------------


def test_a_script_of_resource_d_wins_over_all(tmp_path: Path) -> None:
    """As for Heartbeat: the site's own mysql is neither hostd's agent nor the init script."""
    files = {"etc/ha.d/resource.d/mysql": "#!/bin/sh\n", "etc/init.d/mysql": "#!/bin/sh\n"}
    result = converted_site(tmp_path, haresources="node1 mysql\n", **files)
    assert service(result, "mysql")["agent"] == "script:mysql"


def test_an_edited_stock_script_is_the_sites_own(tmp_path: Path) -> None:
    """A file named Filesystem that is not Heartbeat's wrapper is run as it is, arguments and all."""
    files = {"etc/ha.d/resource.d/Filesystem": "#!/bin/sh\nmount $1 $2\n"}
    result = converted_site(tmp_path, haresources="node1 Filesystem::/dev/sdb1::/srv\n", **files)
    assert service(result, "Filesystem")["agent"] == "script:Filesystem /dev/sdb1 /srv"


def test_heartbeats_own_wrapper_is_known_by_what_it_calls(tmp_path: Path) -> None:
    """The stock Filesystem becomes hostd's agent."""
    files = {"etc/ha.d/resource.d/Filesystem": "#!/bin/sh\nra_execocf $1\n"}
    result = converted_site(tmp_path, haresources="node1 Filesystem::/dev/sdb1::/srv\n", **files)
    assert service(result, "disk-srv")["agent"] == "filesystem"


def test_an_init_script_is_lsb_and_a_lone_unit_is_systemd(tmp_path: Path) -> None:
    """By what is beside the directory."""
    files = {"etc/init.d/asterisk": "#!/bin/sh\n", "lib/systemd/system/named.service": "[Unit]\n"}
    result = converted_site(tmp_path, haresources="node1 asterisk\nnode2 named\n", **files)
    assert service(result, "asterisk")["agent"] == "lsb:asterisk"
    assert service(result, "named")["agent"] == "systemd:named.service"


def test_what_is_nowhere_is_refused_and_its_group_is_commented_out(tmp_path: Path) -> None:
    """A group without one of its resources must not run: it is written, and not active."""
    files = {"etc/init.d/asterisk": "#!/bin/sh\n"}
    result = converted_site(tmp_path, haresources="node1 10.0.0.1 asterisk astersik\n", **files)
    assert "neither resource.d/astersik nor init.d/astersik" in reasons(result)
    text = next(file.text for file in result.files if file.name == "asterisk.toml")
    assert tomllib.loads(text) == {}
    assert '#   { agent = "lsb:asterisk" },' in text


def test_keep_scripts_keeps_the_init_script() -> None:
    """The operator chooses: hostd's agent, or the script as before."""
    assert service(converted("mission"), "mysql")["agent"] == "mysql"
    assert service(converted("mission", keep_scripts=True), "mysql")["agent"] == "script:mysql"


def test_an_agent_that_hostd_does_not_have_is_not_offered(tmp_path: Path) -> None:
    """Native agents are those that were found."""
    directory = site(tmp_path, haresources="node1 slapd\n", **{"etc/init.d/slapd": "#!/bin/sh\n"})
    assert service(convert(Wish(directory)), "slapd")["agent"] == "lsb:slapd"


@pytest.mark.parametrize(
    "word", ["a*", "b?", "[c]", "-n", "a,b", "a:b::c", "x/y", "::x", "a\x1bb", "10.0.0.1::x", "x" * 2000]
)
def test_words_that_heartbeat_itself_stumbles_over_are_refused(tmp_path: Path, word: str) -> None:
    """The shell expands, swallows or misplaces them; nobody can have meant that."""
    result = converted_site(tmp_path, haresources=f"node1 {word}\n")
    assert result.services == () and result.ledger.count(Verdict.REFUSED) == 1


# -- the two nodes ----------------------------------------------------------------------------


UCAST = "ucast eth1 192.168.1.1\nucast eth1 192.168.1.2\nauto_failback on\nnode node1 node2\n"


def test_ucast_lines_of_both_ends_are_one_link_if_one_owner_is_known(tmp_path: Path) -> None:
    """By the hosts file beside the directory; loopback entries say nothing."""
    hosts = "127.0.1.1 node1\n192.168.1.2 node2.example.org node2\n"
    result = converted_site(tmp_path, hacf=UCAST, **{"etc/hosts": hosts})
    link = {"type": "udp", "interface": "eth1", "address": {"node1": "192.168.1.1", "node2": "192.168.1.2"}}
    assert cluster(result)["heartbeat"]["link"] == [link]


def test_ucast_is_never_guessed(tmp_path: Path) -> None:
    """Two addresses, and nobody knows whose: refused with the option that says it."""
    result = converted_site(tmp_path, hacf=UCAST)
    assert "--address node1=ADDRESS" in reasons(result)
    assert "link" not in cluster(result)["heartbeat"]


@pytest.mark.parametrize(
    ("node", "given", "interfaces"),
    [
        ("", {"node1": ["192.168.1.1"]}, {}),
        ("", {"node2": ["192.168.1.2"]}, {}),
        ("node1", {}, {"eth1": ["192.168.1.1", "fe80::1"]}),
    ],
)
def test_one_known_end_tells_the_other(
    tmp_path: Path, node: str, given: dict[str, list[str]], interfaces: dict[str, list[str]]
) -> None:
    """By --address, or because the directory is this machine's and the interface has it."""
    wish = {"node": node, "addresses": given, "interfaces": interfaces}
    link = cluster(converted_site(tmp_path, wish, hacf=UCAST))["heartbeat"]["link"][0]
    assert link["address"] == {"node1": "192.168.1.1", "node2": "192.168.1.2"}


def test_a_single_ucast_takes_the_senders_address_from_its_interface(tmp_path: Path) -> None:
    """On the node itself the other end is known; a second address there would make it a guess."""
    hacf = "ucast eth1 192.168.1.2\nnode node1 node2\n"
    wish = {"node": "node1", "interfaces": {"eth1": ["192.168.1.1"]}}
    found = cluster(converted_site(tmp_path / "a", wish, hacf=hacf))["heartbeat"]["link"]
    assert found[0]["address"] == {"node1": "192.168.1.1", "node2": "192.168.1.2"}
    wish["interfaces"] = {"eth1": ["192.168.1.1", "192.168.1.9"]}
    assert "the sender's own is not known" in reasons(converted_site(tmp_path / "b", wish, hacf=hacf))


def test_different_ttys_become_a_table_only_if_it_is_known_whose_is_whose(tmp_path: Path) -> None:
    """A directory that could be either node's is no basis for a table of both."""
    here = site(tmp_path / "a", hacf="serial /dev/ttyS0\nauto_failback on\nnode node1 node2\n")
    there = site(tmp_path / "b", hacf="serial /dev/ttyS1\nauto_failback on\nnode node1 node2\n")
    known = cluster(convert(Wish(here, there, node="node2")))["heartbeat"]["link"][0]
    assert known["device"] == {"node1": "/dev/ttyS1", "node2": "/dev/ttyS0"}
    assert "--node NAME" in reasons(convert(Wish(here, there)))


def test_other_keys_on_the_other_node_are_told_without_showing_them(tmp_path: Path) -> None:
    """The nodes cannot have talked to each other."""
    here = site(tmp_path / "a", **{"etc/ha.d/authkeys": "auth 1\n1 sha1 geheim\n"})
    there = site(tmp_path / "b", **{"etc/ha.d/authkeys": "auth 1\n1 sha1 anders\n"})
    said = reasons(convert(Wish(here, there)), Verdict.WARNING)
    assert "has other keys than this directory's" in said
    assert "geheim" not in said and "anders" not in said


def test_a_script_must_be_on_both_nodes(tmp_path: Path) -> None:
    """Missing on the other node, its group could not be taken over; another content is told."""
    one, other = {"etc/ha.d/resource.d/a": "#!/bin/sh\n"}, {"etc/ha.d/resource.d/b": "#!/bin/sh\n: changed\n"}
    here = site(tmp_path / "here", haresources="node1 a b\n", **one, **{"etc/ha.d/resource.d/b": "#!/bin/sh\n"})
    there = site(tmp_path / "there", haresources="node1 a b\n", **other)
    result = convert(Wish(here, there, node="node1"))
    fates = {
        fate.line.file: fate.verdict for fate in result.ledger.fates if fate.line.file.startswith("peer/resource.d")
    }
    assert fates == {"peer/resource.d/a": Verdict.REFUSED, "peer/resource.d/b": Verdict.WARNING}


# -- single values -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "expected_ms"),
    [("10", 10_000), ("1.5", 1_500), ("100ms", 100), ("100MSEC", 100), (".5", 500), ("2500us", 2), ("5.", 5_000),
     ("5s", None), ("1m", None), ("", None), ("-1", None), ("1e3", None), ("٣", None)],
)  # fmt: skip
def test_times_are_read_as_heartbeat_reads_them(word: str, expected_ms: int | None) -> None:
    """Seconds without a unit; ms, msec, us and usec; nothing else, not even s."""
    assert timers.milliseconds(word) == expected_ms


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("10.0.0.1/24", "10.0.0.1/24"),
        ("10.0.0.1/255.255.255.0", "10.0.0.1/24"),
        ("10.0.0.1/24/eth0", "10.0.0.1/24@eth0"),
        ("10.0.0.1/24/eth0:1/", "10.0.0.1/24@eth0"),
        ("10.0.0.1/24/10.0.0.255", "10.0.0.1/24"),
        ("10.0.0.1/24/eth0/10.0.0.255", "10.0.0.1/24@eth0"),
    ],
)
def test_the_shorthand_of_addresses(argument: str, expected: str) -> None:
    """Every form of Heartbeat's wrapper; the third part is the broadcast address if it begins with a digit."""
    assert addresses.parse(argument).text == expected


def test_every_explanation_is_told_by_an_example() -> None:
    """No directive that is explained was forgotten in the examples."""
    told = {fate.thing.partition(" ")[0] for fate in converted("33-ha.cf-in-the-wild").ledger.fates}
    assert {*explanations.NOT_NEEDED, *explanations.REFUSED} - told == set()


def test_a_word_is_found_on_its_own_line() -> None:
    """A group over several lines: each resource is told with the line that it stands on."""
    (group,) = haresources.groups(b"\nnode1 a \\\n\tb \\\n c d\n")
    assert [(word.text, word.number) for word in group.words] == [("a", 2), ("b", 3), ("c", 4), ("d", 4)]


def test_the_manual_tells_of_every_directive_and_stock_script() -> None:
    """docs/from-heartbeat.md has what each became."""
    text = (Path(__file__).parents[2] / "docs" / "from-heartbeat.md").read_text()
    words = set(re.findall(r"`([^`]+)`", text))
    named = words | {word.partition("::")[0] for word in words}
    assert {*explanations.NOT_NEEDED, *explanations.REFUSED, *READERS} - named == set()
    assert STOCK - {"OCF"} - named == set()
