"""The key file: read strictly, made once."""

import base64
import os
import stat

import pytest

from hostd import keys
from hostd.api import ConfigError

ONE, TWO, THREE = (base64.b64encode(bytes([n]) * 32).decode() for n in (1, 2, 3))


@pytest.fixture
def key_file(tmp_path):
    """Writes a key file of mode 0600."""

    def write(content, mode=0o600):
        path = tmp_path / "cluster.key"
        path.write_text(content)
        path.chmod(mode)
        return path

    return write


def test_a_made_key_can_be_read(tmp_path):
    """32 bytes, mode 0600 whatever the umask, and no two alike."""
    before = os.umask(0o000)
    try:
        keys.make(tmp_path / "a")
        keys.make(tmp_path / "b")
    finally:
        os.umask(before)
    (a,), (b,) = keys.read(tmp_path / "a"), keys.read(tmp_path / "b")
    assert len(a) == len(b) == 32 and a != b
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o600


def test_a_key_is_never_overwritten(tmp_path):
    """Not even through a link that points nowhere."""
    keys.make(tmp_path / "a")
    before = (tmp_path / "a").read_bytes()
    with pytest.raises(ConfigError, match="is there already"):
        keys.make(tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == before
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="is there already"):
        keys.make(tmp_path / "link")


def test_a_key_in_no_directory_is_a_mistake_with_a_cure(tmp_path):
    """Not a traceback."""
    with pytest.raises(ConfigError, match="directory that exists"):
        keys.make(tmp_path / "none" / "key")


def test_two_keys_stand_newest_first(key_file):
    """Comments and empty lines aside."""
    assert keys.read(key_file(f"# both nodes\n\n {TWO} # new\n{ONE}\n")) == (b"\2" * 32, b"\1" * 32)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o601])
def test_a_key_that_others_may_read_is_refused(key_file, mode):
    """With the command that cures it."""
    with pytest.raises(ConfigError, match=f"mode {mode:04o}.*chmod 600"):
        keys.read(key_file(ONE, mode))


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "has 0 keys"),
        ("# nothing\n", "has 0 keys"),
        (f"{ONE}\n{TWO}\n{THREE}\n", "has 3 keys"),
        (f"{ONE}\n{ONE}\n", "same key twice"),
        (ONE[:-5], "line 1 is no key"),
        (f"{ONE}\nhello\n", "line 2 is no key"),
        (base64.b64encode(bytes(31)).decode(), "line 1 is no key"),
        ("ä" * 44, "line 1 is no key"),
        ("#" * 5_000, "longer than"),
    ],
)
def test_a_key_file_that_is_none_is_refused_without_showing_it(key_file, content, complaint):
    """The complaint names the file and the line, never what stands there."""
    path = key_file(content)
    with pytest.raises(ConfigError, match=complaint) as refused:
        keys.read(path)
    assert str(path) in str(refused.value)
    assert ONE not in str(refused.value) and "hello" not in str(refused.value)


def test_a_missing_key_names_the_command_that_makes_one(tmp_path):
    """The first thing a newcomer meets."""
    with pytest.raises(ConfigError, match="hostd keygen"):
        keys.read(tmp_path / "none")


def test_what_is_no_file_is_refused_at_once(tmp_path):
    """A directory, or a pipe that nobody writes to: no hang."""
    os.mkfifo(tmp_path / "pipe", 0o600)
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(ConfigError, match="regular file"):
            keys.read(path)


def test_a_stranger_s_key_is_refused(key_file):
    """Its owner could change it under us."""
    path = key_file(ONE)
    os.chown(path, 12345, 0)
    with pytest.raises(ConfigError, match="belongs to user 12345"):
        keys.read(path)
