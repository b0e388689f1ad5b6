"""What an operator sets for an agent or a link, against what it lets him set.

Decides whether values fit the extension's own ``Parameters``: unknown and
missing names, types, choices, defaults.  Knows no agent and no link type.  A
value may be a table of node names; both nodes' values are checked on both
nodes, so that both say the same of the same files.
"""

from collections.abc import Callable
from pathlib import Path as FilePath
from typing import Any

import msgspec

from hostd.api import ConfigError, Field, Parameters
from hostd.confd.complain import Complaints, Path, shown
from hostd.confd.section import by_node, nearest
from hostd.confd.values import Unfit, path_in

HIDDEN = "(hidden)"


class Filled(msgspec.Struct, frozen=True):
    """Typed values per node, defaults filled in."""

    values: dict[str, dict[str, Any]]
    """Per node."""
    split: tuple[str, ...]
    """Names that have a value per node."""
    secrets: tuple[str, ...]
    """Names that are never shown."""
    written: dict[str, dict[str, Any]] = {}
    """Per node what the operator wrote, without defaults; paths made absolute."""


def fill(
    complaints: Complaints,
    path: Path,
    given: dict[str, Any],
    parameters: Parameters,
    nodes: tuple[str, ...],
    directory: FilePath,
) -> Filled:
    """Check what is ``given`` at ``path``; complain of all that is wrong with it."""
    fields = {field.name: field for field in parameters.fields}
    values: dict[str, dict[str, Any]] = {node: {} for node in nodes}
    written: dict[str, dict[str, Any]] = {node: {} for node in nodes}
    split: list[str] = []
    for name, raw in given.items():
        if name not in fields and not parameters.any_others:
            meant = nearest(name, fields)
            known = f"known here: {', '.join(sorted(fields))}" if fields else "it takes none: remove it"
            cure = f"did you mean {meant}?" if meant else known
            complaints.error((*path, name), "is not a known parameter", cure)
            continue
        field = fields.get(name)
        try:
            halves = by_node(raw, nodes) if field is None or field.type is not dict else None
        except Unfit as unfit:
            if field is not None:
                value = HIDDEN if field.secret else shown(raw)
                complaints.error((*path, name), unfit.rule, unfit.cure, value=value)
                continue
            halves = None
        here = (*path, name)
        pieces = [(here, raw, nodes)]
        if halves is not None:
            split.append(name)
            pieces = [((*here, node), half, (node,)) for node, half in halves.items()]
        for place, piece, owners in pieces:
            try:
                typed = piece if field is None else _typed(field, piece, directory)
            except Unfit as unfit:
                value = HIDDEN if field is not None and field.secret else shown(piece)
                complaints.error(place, unfit.rule, unfit.cure, value=value)
            else:
                for node in owners:
                    values[node][name] = typed
                    written[node][name] = str(typed) if isinstance(typed, FilePath) else piece
    _fill_in(complaints, path, given, parameters, values)
    secrets = tuple(field.name for field in parameters.fields if field.secret)
    return Filled(values, tuple(split), secrets, written)


def refill(written: dict[str, Any], parameters: Parameters) -> dict[str, Any]:
    """Typed values for what was written once, by what the agent says of its parameters now.

    Never complains: what runs must be stopped with what there is, even where
    a newer agent would refuse it.
    """
    fields = {field.name: field for field in parameters.fields}
    values = {field.name: field.default for field in parameters.fields if not field.is_required}
    for name, raw in written.items():
        try:
            values[name] = _typed(fields[name], raw, FilePath("/")) if name in fields else raw
        except Unfit:
            values[name] = raw
    return values


def _fill_in(
    complaints: Complaints,
    path: Path,
    given: dict[str, Any],
    parameters: Parameters,
    values: dict[str, dict[str, Any]],
) -> None:
    """Defaults for what is not given; a complaint for what must be."""
    for field in parameters.fields:
        lacking = [node for node in values if field.name not in values[node]]
        if not field.is_required:
            for node in lacking:
                values[node][field.name] = field.default
        elif field.name not in given:
            meaning = f" ({field.help})" if field.help else ""
            complaints.error((*path, field.name), f"is missing{meaning}", f"add {field.name} = …")
        elif isinstance(given[field.name], dict) and field.type is not dict:
            for node in lacking:
                if node not in given[field.name] and given[field.name].keys() <= values.keys():
                    complaints.error((*path, field.name), f"has no value for {node}", "add one")


_KINDS: dict[Callable[..., Any], tuple[tuple[type, ...], str, str]] = {
    str: ((str,), "must be a text", "put it in quotes"),
    int: ((int,), "must be a whole number", "write it without quotes and without a point"),
    float: ((int, float), "must be a number", "write it without quotes"),
    bool: ((bool,), "must be true or false", "write true or false, without quotes"),
    list: ((list,), "must be a list", "put it in square brackets: [ … ]"),
    dict: ((dict,), "must be a table", "put it in braces: { name = value }"),
}


def _typed(field: Field, raw: Any, directory: FilePath) -> Any:
    if field.type in _KINDS:
        kinds, rule, cure = _KINDS[field.type]
        if not isinstance(raw, kinds) or (isinstance(raw, bool) and field.type is not bool):
            raise Unfit(rule, cure)
        value = raw * 1.0 if isinstance(raw, int) and field.type is float else raw
    elif field.type is FilePath:
        value = path_in(directory)(raw)
    else:  # a converter of the extension's own
        try:
            value = field.type(raw)
        except (ValueError, TypeError, ConfigError) as error:
            raise Unfit(f"does not fit: {error}", field.help or "see `hostd-agent show`") from None
    items = value if isinstance(value, list) else [value]
    for item in items:
        if field.choices and item not in field.choices:
            raise Unfit("is not one of its values", f"use one of {shown(list(field.choices))}")
    return value
