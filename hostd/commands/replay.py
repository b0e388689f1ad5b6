"""``hostd replay``: the recorded events of a report, or of a state directory, run through the core step by step."""

import argparse
import datetime
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from hostd.commands import archives, log, options
from hostd.commands.exits import ExitCode
from hostd.commands.paper import Paper
from hostd.confd.values import counted

EPILOG: Final = """\
examples:
  hostd replay hostd-report-clustnode1-20260131-120000.tar.gz
  hostd replay /var/lib/hostd --since 10m
  hostd replay REPORT --node clustnode2 --since 2026-01-31T12:00 --until 2026-01-31T12:05 --all

One line for each step that changed something: when, what happened, what the core
asked for. At the end: do the same effects come out? Every outcome on record must
answer something that the replayed core asked for, it must tell what the node's
timeline holds, and stand at each file's end as the next one says.
A report must be of this release of hostd.

exit code: 0 the same comes out, 1 it does not, 2 there is nothing that can be replayed"""


def register(subparsers: Any) -> None:
    parser = options.add(subparsers, "replay", "run recorded events through the core again", epilog=EPILOG)
    parser.add_argument("archive", type=Path, metavar="FILE", help="a report, or a state directory")
    parser.add_argument("--since", "--from", type=log.moment, default=0.0, metavar="T", help="show from then on")
    parser.add_argument("--until", type=log.moment, default=float("inf"), metavar="T", help="show until then")
    parser.add_argument("--all", action="store_true", help="each step, renewals of leases and monitors too")
    parser.set_defaults(run=run)


def run(namespace: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory(prefix="hostd-replay-") as scratch:
        try:
            folders = archives.folders(namespace.archive, Path(scratch))
        except (OSError, ValueError) as error:
            print(f"{namespace.archive}: {archives.said(error)}", file=sys.stderr)
            return ExitCode.WRONG_USE
        wanted = getattr(namespace, "node", None)
        chosen = {node: folder for node, folder in folders.items() if wanted in (None, node)}
        if not chosen:
            known = " and ".join(folders)
            text = f"it has no flight recorder of {wanted}, but of {known}" if folders else archives.NO_REPORT
            print(f"{namespace.archive}: {text}", file=sys.stderr)
            return ExitCode.WRONG_USE
        paper = Paper()
        codes = [_replay(node, folder, namespace, paper) for node, folder in chosen.items()]
    return max(codes)


def _replay(node: str, folder: Path, namespace: argparse.Namespace, paper: Paper) -> ExitCode:
    from hostd import recorder, replaying

    paper.line(paper.colour(f"node {node}", "bold"))
    facts, differs, steps, began_at, ended_at = [], [], 0, float("inf"), 0.0
    before: replaying.Flight | None = None
    for path in recorder.flights(folder):
        try:
            flight = replaying.Flight(path)
        except (replaying.Unreplayable, OSError) as error:
            print(f"left out: {error}", file=sys.stderr)
            before = None
            continue
        if before is not None and not flight.begins_a_life and not before.lost:
            parts = replaying.same_core(before.core, flight.core)
            if parts:
                differs.append(replaying.Differs(flight.header.wall, f"{path.name} begins with another {parts}"))
        if flight.begins_a_life:
            _line(paper, namespace, flight.header.wall, "a brain is born")
        for step in flight.steps():
            steps += 1
            _show(step, namespace, paper)
        if flight.lost:
            _line(paper, namespace, flight.ended_at, f"lost here: {counted(flight.lost, 'record')}")
        facts += flight.facts
        differs += flight.differs
        began_at, ended_at, before = min(began_at, flight.began_at), max(ended_at, flight.ended_at), flight
    if not steps:
        print(f"{node}: nothing of it can be replayed", file=sys.stderr)
        return ExitCode.WRONG_USE
    told = [
        entry.fact
        for entry in recorder.read_timeline(folder)
        if entry.node == node and not entry.observed and began_at - 1 <= entry.at <= ended_at + 1
    ]
    if parted := replaying.told_the_same(facts, told):
        differs.append(replaying.Differs(ended_at, parted))
    for differ in differs:
        paper.wrapped(f"{_clock(differ.at)}  DIFFERS", differ.what, indent=29, colour="red")
    verdict = "the same effects come out" if not differs else counted(len(differs), "difference")
    said = (
        f"{node}: {counted(steps, 'step')}, {counted(len(facts), 'fact')} told, {len(told)} in its timeline: {verdict}"
    )
    paper.line(paper.colour(said, "red" if differs else "green"))
    return ExitCode.NO if differs else ExitCode.DONE


def _show(step: Any, namespace: argparse.Namespace, paper: Paper) -> None:
    shown = [text for effect in step.effects if (text := _effect(effect, everything=namespace.all))]
    if shown or namespace.all:
        _line(paper, namespace, step.at, f"{_short(step.event)} → {', '.join(shown) or '-'}")


def _line(paper: Paper, namespace: argparse.Namespace, at: float, text: str) -> None:
    if namespace.since <= at <= namespace.until:
        paper.line(f"{paper.colour(_clock(at), 'dim')}  {text}")


def _effect(effect: Any, *, everything: bool) -> str:
    """What the core asked for; empty for what it asks for all the time."""
    from hostd.core.effects import Publish, RenewAddress, RunAction, Tell
    from hostd.recorder import line_of

    if isinstance(effect, Tell):
        return line_of(effect.fact)
    if isinstance(effect, Publish):
        return f"Publish {effect.snapshot.version}" if everything else ""
    is_usual = isinstance(effect, RenewAddress) or (isinstance(effect, RunAction) and effect.recurring)
    return "" if is_usual and not everything else _short(effect)


def _short(thing: Any) -> str:
    """Name and values of an event or effect, the long ones left out."""
    return " ".join([type(thing).__name__, *_values(thing)])


def _values(thing: Any) -> Iterator[str]:
    for name in thing.__struct_fields__:
        value = getattr(thing, name)
        if name == "snapshot":
            yield f"{value.node} {value.version} {value.phase.name.lower()}"
        elif name not in ("wishes", "stations", "at_ms", "echo_sent_at_ms") and value not in ("", None, (), False):
            shown = value.name.lower() if hasattr(value, "name") else value
            yield f"{name}={','.join(map(str, value)) if isinstance(value, tuple) else shown}"


def _clock(at: float) -> str:
    return datetime.datetime.fromtimestamp(at).strftime("%m-%d %H:%M:%S.%f")[:-3]
