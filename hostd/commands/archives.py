"""A report of ``hostd report``, or a copy of a state directory, read back: whose books are in it, and where.

Decides what is taken from an archive, which may come from anywhere, and how
one that cannot be read is told.  Refuses to know what is done with the books.
"""

import lzma
import tarfile
import tempfile
import zlib
from pathlib import Path
from typing import Final

from hostd import recorder
from hostd.requests import Entry

FILE_MAX: Final = 32_000_000
"""Bytes; four times the longest file of a flight recorder."""
FILES_MAX: Final = 200
NO_REPORT: Final = "it is no report; name the file that `hostd report` wrote, or a state directory"
CUT_SHORT: Final = "it is cut short or damaged; copy it again from where `hostd report` wrote it"


def said(error: OSError | ValueError) -> str:
    """Why an archive cannot be read, for the person who named it."""
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


def folders(archive: Path, scratch: Path) -> dict[str, Path]:
    """Node → a folder with its recorder and timeline.  Raises OSError, and ValueError for what has none."""
    return {node: folder for folder in _places(archive, scratch) if (node := _node_of(folder))}


def timelines(archive: Path) -> dict[str, list[Entry]]:
    """Each node's timeline in a report or a state directory.  Raises OSError, and ValueError for what is neither."""
    with tempfile.TemporaryDirectory(prefix="hostd-log-") as scratch:
        found = [list(recorder.read_timeline(folder)) for folder in _places(archive, Path(scratch))]
    return {node: entries for entries in found if (node := _writer(entries))}


def _places(archive: Path, scratch: Path) -> list[Path]:
    if archive.is_dir():
        return [archive]
    _unpack(archive, scratch)
    return sorted(scratch.iterdir())


def _node_of(folder: Path) -> str:
    for path in recorder.flights(folder):
        header = next(recorder.read(path), None)
        if isinstance(header, recorder.Header):
            return header.node
    return ""


def _writer(entries: list[Entry]) -> str:
    """Who wrote it: the node whose facts were not only seen."""
    return next((entry.node for entry in entries if not entry.observed), "")


def _unpack(archive: Path, scratch: Path) -> None:
    """Recorder and timeline only, under names of our own: what an archive says of paths, owners and links
    is not followed.  Raises OSError, and ValueError with what is wrong with the archive."""
    try:
        tar = tarfile.open(archive)  # noqa: SIM115 - closed below; what goes wrong here has another cure than there
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise ValueError(NO_REPORT) from error
    with tar:
        try:
            _unpack_members(tar, scratch)
        except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError) as error:
            raise ValueError(CUT_SHORT) from error


def _unpack_members(tar: tarfile.TarFile, scratch: Path) -> None:
    found: dict[str, Path] = {}
    for count, member in enumerate(tar):
        if count > FILES_MAX:
            raise ValueError(f"it has more than {FILES_MAX} files, and a report has not; name one that hostd wrote")
        name, parent = Path(member.name).name, str(Path(member.name).parent)
        is_ours = name.startswith(("flight-", "timeline.jsonl")) and "/" not in name
        if not member.isreg() or not is_ours or member.size > FILE_MAX:
            continue
        folder = found.setdefault(parent, scratch / str(len(found)))
        folder.mkdir(exist_ok=True)
        source = tar.extractfile(member)
        assert source is not None, "a regular file"
        (folder / name).write_bytes(source.read(FILE_MAX))
