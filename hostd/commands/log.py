"""``hostd log``: the cluster's timeline, one line per event.

Works without a daemon, too: then the files in the state directory are read.
"""

import argparse
import datetime
import json
import re
import sys
import time
from pathlib import Path
from typing import Any, Final

import msgspec

from hostd.commands import archives, ask, options, sentences
from hostd.commands.exits import ExitCode
from hostd.commands.paper import Paper
from hostd.core.effects import ResourceTurned
from hostd.core.terms import ResourceState
from hostd.requests import AskLog, Entry, LogIs

EPILOG: Final = """\
examples:
  hostd log                         the last 100 events
  hostd log --since 10m mysql       of one service (and of no service)
  hostd log --since 2026-01-31T12:00
  hostd log --json | jq .
  hostd log --with hostd-report-clustnode2-20260131-120000.tar.gz

Without --with, what the other node did is as this one saw it, a heartbeat late. With
the other node's report (or a copy of its state directory) it is in its own words,
by this node's clock: the offset of the two clocks is found from what each saw of
the other, and told."""

TIMELINE_MAX: Final = 5_000
"""As many entries as a daemon keeps."""
_UNITS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def register(subparsers: Any) -> None:
    parser = options.add(subparsers, "log", "the cluster's timeline: one line per event", epilog=EPILOG)
    parser.add_argument("service", nargs="?", default="", metavar="SERVICE")
    parser.add_argument("--since", type=moment, default=0.0, metavar="T", help="10m, 2h, 1d, or a date and time")
    parser.add_argument("-n", type=int, default=100, metavar="N", help="at most the newest N (default 100)")
    parser.add_argument("--all", action="store_true", help="each step of each resource, too")
    parser.add_argument("--with", type=Path, dest="other", metavar="FILE", help="the other node's report")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.set_defaults(run=run)


def moment(text: str) -> float:
    """``10m`` ago, or a date and time; seconds since 1970.  ValueError for anything else."""
    if match := re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text):
        return time.time() - float(match[1]) * _UNITS[match[2]]
    return datetime.datetime.fromisoformat(text).timestamp()


def run(namespace: argparse.Namespace) -> int:
    everything = namespace.other is not None  # the clocks are compared by all that both know
    request = AskLog(0.0, "", TIMELINE_MAX) if everything else AskLog(namespace.since, namespace.service, namespace.n)
    try:
        answer = ask.ask(options.runtime(namespace), request, retry_s=0.5)
        assert isinstance(answer, LogIs), answer
        entries = list(answer.entries)
    except ask.Unanswered as error:
        if error.code is not ExitCode.UNREACHABLE:
            return ask.complain(error)
        entries = _from_files(namespace)
        print(f"(no daemon: from the files in {options.directories(namespace).state})", file=sys.stderr)
    if namespace.other is not None:
        try:
            entries = _with_other(entries, namespace)
        except (OSError, ValueError) as error:
            print(f"{namespace.other}: {archives.said(error)}", file=sys.stderr)
            return ExitCode.WRONG_USE
    paper = Paper()
    for entry in entries:
        if not namespace.all and is_detail(entry):
            continue
        if namespace.json:
            paper.line(json.dumps(named(entry)))
        else:
            at = datetime.datetime.fromtimestamp(entry.at).strftime("%m-%d %H:%M:%S.%f")[:-3]
            paper.line(f"{paper.colour(at, 'dim')}  {entry.node}  {sentences.entry(entry)}")
    return ExitCode.DONE


def is_detail(entry: Entry) -> bool:
    """A step of a resource that went well: the service's own line tells enough."""
    fact = entry.fact
    troubled = (ResourceState.FAILED, ResourceState.BLOCKED)
    return isinstance(fact, ResourceTurned) and fact.state not in troubled and not fact.detail


def _from_files(namespace: argparse.Namespace) -> list[Entry]:
    from hostd.recorder import read_timeline

    wanted = [
        entry
        for entry in read_timeline(options.directories(namespace).state)
        if namespace.other is not None or _is_wanted(entry, namespace)
    ]
    return wanted if namespace.other is not None else wanted[-namespace.n :]


def _is_wanted(entry: Entry, namespace: argparse.Namespace) -> bool:
    is_of_it = not namespace.service or getattr(entry.fact, "service", namespace.service) == namespace.service
    return entry.at >= namespace.since and is_of_it


def _with_other(ours: list[Entry], namespace: argparse.Namespace) -> list[Entry]:
    """Both nodes' words by our clock; raises OSError and ValueError if the other's cannot be had."""
    from hostd.commands import clocks

    known = archives.timelines(namespace.other)
    if not known:
        raise ValueError(archives.NO_REPORT)
    me = next((entry.node for entry in ours if not entry.observed), options.node(namespace))
    others = [node for node in known if node != me]
    if len(others) != 1:
        raise ValueError(f"it has no timeline of another node than {me} (it has: {', '.join(known)})")
    theirs = known[others[0]]
    found = clocks.offset(ours, theirs, me, others[0])
    by = f"{found.seconds * 1_000:+.0f} ms, give or take {found.plus_minus * 1_000:.0f} ms"
    said = f"by {by}" if found.is_known else "by nothing: neither saw what the other did"
    print(f"(times of {others[0]} corrected {said})", file=sys.stderr)
    whole = clocks.merged(ours, theirs, me, others[0], found)
    return [entry for entry in whole if _is_wanted(entry, namespace)][-namespace.n :]


def named(entry: Entry) -> dict[str, Any]:
    """For tools: enumerations by their lower-case names, as in the status."""
    fields: dict[str, Any] = {"at": entry.at, "node": entry.node, "observed": entry.observed}
    fields["event"] = type(entry.fact).__name__
    for name in entry.fact.__struct_fields__:
        value = getattr(entry.fact, name)
        if isinstance(value, msgspec.Struct):
            fields[name] = {key: _plain(getattr(value, key)) for key in value.__struct_fields__}
        else:
            fields[name] = _plain(value)
    fields["text"] = sentences.entry(entry)
    return fields


def _plain(value: Any) -> Any:
    return value.name.lower() if hasattr(value, "name") else value
