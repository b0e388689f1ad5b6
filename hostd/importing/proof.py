"""The files that were made, read as ``hostd run`` would read them.

Decides nothing: it has ``hostd.config`` examine them for each node, so that
what the importer writes is known to be a conf.d before anybody installs it.
"""

from pathlib import Path

from hostd.confd.complain import Complaint
from hostd.config import examine
from hostd.importing.writing import File
from hostd.registry import Registry


def write(files: tuple[File, ...], directory: Path) -> None:
    """Into a directory that is there; nothing in it is overwritten (FileExistsError)."""
    for file in files:
        with (directory / file.name).open("x", encoding="utf-8") as opened:
            opened.write(file.text)


def complaints(directory: Path, nodes: tuple[str, ...], registry: Registry) -> tuple[Complaint, ...]:
    """What is wrong with the conf.d there, on either node; what both say is said once."""
    found: dict[str, Complaint] = {}
    for node in nodes:
        examined = examine(directory, node, registry.parameters, registry.link_types(), registry.notify_types())
        for complaint in examined.complaints:
            found.setdefault(complaint.text, complaint)
    return tuple(found.values())
