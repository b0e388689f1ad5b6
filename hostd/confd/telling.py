"""Whom hostd tells: [metrics] and [[notify]].

Decides which files, programs and people may be told of what, and within which
limits.  Both nodes may differ here: nothing of it is in a digest.  Knows no
way of telling: what a ``[[notify]] type`` takes comes from its plugin.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from hostd.api import Parameters
from hostd.confd import params, values
from hostd.confd.section import Section
from hostd.confd.values import Unfit, duration

KINDS: Final = ("node", "service", "resource", "link", "address", "fencing", "operator", "configuration")
"""What there is to tell; ``hostd.notices`` sorts the facts into these."""
USUAL_KINDS: Final = ("node", "service", "fencing")
"""Few, and each worth a look."""
NOTIFIERS_MAX: Final = 16


class Notifier(msgspec.Struct, frozen=True):
    """One ``[[notify]]``."""

    name: str
    type: str
    kinds: tuple[str, ...]
    params: dict[str, Any]
    secrets: dict[str, Path]
    """Files that hold the values."""
    timeout_ms: int
    """Of one delivery."""


def read_metrics(section: Section, directory: Path) -> Path | None:
    """``[metrics] textfile``: the file for node_exporter's textfile collector, or None."""
    path = section.take("textfile", _textfile(directory), None)
    section.end()
    return path


def _textfile(directory: Path) -> Any:
    def parse(value: Any) -> Path:
        path = values.path_in(directory)(value)
        if path.suffix != ".prom":
            raise Unfit("does not end in .prom: the collector reads no other files", "call it hostd.prom")
        return path

    return parse


def read_notify(
    sections: list[Section],
    nodes: tuple[str, ...],
    node: str,
    types: Mapping[str, Parameters] | None,
    directory: Path,
) -> tuple[Notifier, ...]:
    """Every ``[[notify]]``, in order.  ``types`` None: it is not known what there is, so that is not judged."""
    if len(sections) > NOTIFIERS_MAX:
        sections[0].complaints.error(("notify",), f"is there {len(sections)} times", f"use {NOTIFIERS_MAX}")
        return ()
    found: list[Notifier] = []
    counts: dict[str, int] = {}
    for section in sections:
        notifier = _read_one(section, nodes, node, types, directory, counts)
        if notifier is None:
            continue
        if notifier.name in [other.name for other in found]:
            section.error("name", "is the name of two [[notify]]", "give each a name of its own")
        found.append(notifier)
    return tuple(found)


def _read_one(
    section: Section,
    nodes: tuple[str, ...],
    node: str,
    types: Mapping[str, Parameters] | None,
    directory: Path,
    counts: dict[str, int],
) -> Notifier | None:
    allowed = values.text if types is None else values.choice(*types)
    kind = section.need("type", allowed, values.one_of([*(types or ())] or ["script"]))
    name = section.take("name", values.link_name, None)
    kinds = section.take("for", values.several(values.choice(*KINDS), len(KINDS)), USUAL_KINDS)
    timeout_ms = section.take("timeout", duration("1s", "5m"), 30_000)
    secrets_table = section.table("secrets")
    secrets = dict(_secrets(secrets_table, directory))
    given = section.table("params")
    written = given.rest()
    section.end()
    if kind is None:
        return None
    counts[kind] = counts.get(kind, 0) + 1
    told = written
    if types is not None:
        # what stands in a file of its own need not stand here, however much the type needs it
        fields = [field for field in types[kind].fields if not field.secret and field.name not in secrets]
        open_fields = Parameters(*fields)
        told = params.fill(section.complaints, given.path, written, open_fields, nodes, directory).values[node]
        _judge_secrets(secrets_table, types[kind])
    return Notifier(name or f"{kind}{counts[kind]}", kind, kinds, told, secrets, timeout_ms)


def _secrets(table: Section, directory: Path) -> list[tuple[str, Path]]:
    found = [(key, table.take(key, values.path_in(directory), None)) for key in table.names()]
    return [(key, path) for key, path in found if path is not None]


def _judge_secrets(table: Section, parameters: Parameters) -> None:
    """Which secrets a type takes, it says by fields marked ``secret``; each is a file, never a value."""
    known = [field.name for field in parameters.fields if field.secret]
    for key in table.names():
        if key not in known:
            cure = f"known here: {', '.join(known)}" if known else "it takes none: remove it"
            table.error(key, "is not a known secret", cure)
