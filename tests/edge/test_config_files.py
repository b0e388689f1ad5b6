"""How the files of conf.d become one, and where each key was."""

import json
import os
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostd.confd import files
from hostd.confd.complain import Place, named, shown


def write(directory: Path, **texts: str) -> Path:
    for name, text in texts.items():
        (directory / f"{name}.toml").write_text(text)
    return directory


def said(directory: Path) -> list[str]:
    return [complaint.text for complaint in files.read(directory).complaints]


def test_a_key_in_two_files_is_told_with_both_places(tmp_path: Path) -> None:
    """Of one key in two files the second is refused, and the first is named."""
    write(
        tmp_path,
        a='# first\n[service.mysql]\nagent = "mysql"\n',
        b='[service.mysql]\n\n\nagent = "mysql"\n',
    )
    assert said(tmp_path) == ["b.toml:4: [service.mysql] agent is also defined in a.toml:3; remove one of the two"]


def test_tables_of_two_files_are_merged_and_lists_of_tables_are_joined(tmp_path: Path) -> None:
    """Name order of the files is the order of the links, each with its own line."""
    write(
        tmp_path,
        a='[cluster]\nname = "x"\n[[heartbeat.link]]\ntype = "serial"\n',
        b='[[heartbeat.link]]\ntype = "udp"\nport = 1\n[cluster]\nkey = "k"\n',
    )
    tree = files.read(tmp_path)
    assert tree.complaints == []
    assert tree.values == {
        "cluster": {"name": "x", "key": "k"},
        "heartbeat": {"link": [{"type": "serial"}, {"type": "udp", "port": 1}]},
    }
    assert tree.places["heartbeat", "link", 1, "port"] == Place("b.toml", 3)
    assert tree.places["heartbeat", "link", 0, "type"] == Place("a.toml", 4)
    assert tree.places["cluster", "key"] == Place("b.toml", 5)


def test_hidden_and_other_files_are_left_alone(tmp_path: Path) -> None:
    """An editor's leavings are no configuration."""
    write(tmp_path, a="[cluster]\n")
    (tmp_path / ".a.toml").write_text("nonsense")
    (tmp_path / "a.toml~").write_text("nonsense")
    (tmp_path / "a.toml.dpkg-old").write_text("nonsense")
    assert files.read(tmp_path).complaints == []


def test_a_directory_that_is_not_there_is_told(tmp_path: Path) -> None:
    """The text names the directory and the option."""
    assert said(tmp_path / "none") == [
        f"{tmp_path}/none cannot be read: No such file or directory; make it, or name another: --config DIR"
    ]


def test_an_empty_directory_is_told(tmp_path: Path) -> None:
    """No file at all is a mistake, not an empty cluster."""
    assert said(tmp_path) == [f"{tmp_path} holds no *.toml file; begin with the example that comes with hostd"]


def test_what_is_no_configuration_is_refused_without_reading_it_all(tmp_path: Path) -> None:
    """Neither a huge file, nor one that is not text, nor a pipe stops the reading of the others."""
    (tmp_path / "huge.toml").write_bytes(b"#" * (files.SIZE_MAX + 1))
    (tmp_path / "image.toml").write_bytes(b"# fine\n\xff\xd8")
    (tmp_path / "deep.toml").write_text("k = " + "[" * 100_000)
    os.mkfifo(tmp_path / "pipe.toml")
    foreign = "is this a file of conf.d?"
    assert said(tmp_path) == [
        f"deep.toml: this is nested too deeply; {foreign}",
        f"huge.toml: this is no ordinary file of at most {files.SIZE_MAX} bytes; {foreign}",
        "image.toml:2: this is not UTF-8; save it as UTF-8",
        f"pipe.toml: this is no ordinary file of at most {files.SIZE_MAX} bytes; {foreign}",
    ]


def test_too_many_files_are_refused(tmp_path: Path) -> None:
    """The number of files is bounded."""
    for number in range(files.FILES_MAX + 1):
        (tmp_path / f"{number}.toml").touch()
    assert said(tmp_path) == [f"{tmp_path} holds 257 files; 256 is the most; join some of them"]


ALL_SHAPES = '''\
top = "a # no comment"       # 1
[a]                          # 2
"quoted.key" = 'x'           # 3
b.c = 1.5                    # 4
text = """
# not a comment
[not.a.header]
key = 1
"""                          # 5 to 9
list = [                     # 10
  1, "]",                    # 11
  # [x]
  { k = [2, 3], l = "}" },   # 13
]
at = 1979-05-27 07:32:00     # 15
[[t]]                        # 16
[t.sub]                      # 17
k = 1                        # 18
[[t]]                        # 19
[[t.deep]]                   # 20
[[t.deep]]                   # 21
k = 2                        # 22
["x y".z]                    # 23
'''


def test_every_shape_of_toml_keeps_its_line() -> None:
    """Strings, lists, inline tables, dates and nested lists of tables do not mislead the line counter."""
    lines = dict(files.lines_of(ALL_SHAPES))
    wanted = {
        ("top",): 1,
        ("a",): 2,
        ("a", "quoted.key"): 3,
        ("a", "b", "c"): 4,
        ("a", "text"): 5,
        ("a", "list"): 10,
        ("a", "list", 0): 11,
        ("a", "list", 1): 11,
        ("a", "list", 2): 13,
        ("a", "list", 2, "k", 1): 13,
        ("a", "list", 2, "l"): 13,
        ("a", "at"): 15,
        ("t", 0): 16,
        ("t", 0, "sub"): 17,
        ("t", 0, "sub", "k"): 18,
        ("t", 1): 19,
        ("t", 1, "deep", 0): 20,
        ("t", 1, "deep", 1): 21,
        ("t", 1, "deep", 1, "k"): 22,
        ("x y", "z"): 23,
    }
    assert {path: lines.get(path) for path in wanted} == wanted


bare = st.from_regex(r"[a-z]{1,4}", fullmatch=True)
leaf = st.one_of(
    st.integers(),
    st.booleans(),
    st.text("ab'\"#[]{}=,.\\\n", max_size=8),
    st.lists(st.integers(), max_size=3),
)


@given(st.dictionaries(bare, st.dictionaries(bare, leaf, max_size=4), max_size=4))
def test_the_line_of_a_key_is_where_it_stands(tables: dict[str, dict[str, object]]) -> None:
    """Whatever the values hold, the line of a key begins with that key."""
    text = ""
    for table, keys in tables.items():
        text += f"\n[{table}]\n"
        for key, value in keys.items():
            text += f"{key} = {multi(value)}\n"
    assert tomllib.loads(text).keys() == tables.keys()
    lines = text.split("\n")
    for path, line in files.lines_of(text):
        if len(path) == 2:
            assert lines[line - 1].startswith(f"{path[1]} = ")
        elif len(path) == 1:
            assert lines[line - 1] == f"[{path[0]}]"
    assert {path for path, _ in files.lines_of(text) if len(path) == 2} == {
        (table, key) for table, keys in tables.items() for key in keys
    }


def multi(value: object) -> str:
    """A text as a multi-line one, so that its line breaks are in the file."""
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"""{escaped}"""'
    return json.dumps(value)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (("service", "mysql", "primary"), "[service.mysql] primary"),
        (("service", "web", "resources", 1, "params", "port"), "[service.web] resources #2 params.port"),
        (("heartbeat", "link", 0, "baud"), "[[heartbeat.link]] #1 baud"),
        (("heartbeat", "link"), "[[heartbeat.link]]"),
        (("cluster",), "[cluster]"),
        ((), "conf.d"),
    ],
)
def test_a_key_is_named_as_it_is_written(path: tuple[str | int, ...], text: str) -> None:
    """The header in its brackets, then the key."""
    assert named(path) == text


def test_a_long_value_is_cut() -> None:
    """A complaint shows at most the beginning of a value."""
    assert shown("x" * 200) == '"' + "x" * 58 + "…"
