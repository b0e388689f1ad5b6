"""``hostd simulate``: what would happen to this conf.d if something failed?

Parses, reads conf.d, has it played on the virtual clock (``hostd/sim``) and
prints.  Needs no daemon, touches no service, and sends nothing anywhere.
"""

import argparse
import difflib
import functools
import ipaddress
import json
import multiprocessing
import os
import re
import signal
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any, Final

import msgspec

from hostd.commands import options, whatif_words
from hostd.commands.exits import ExitCode
from hostd.commands.paper import WIDTH, Paper
from hostd.commands.progress import Progress
from hostd.confd.values import counted
from hostd.config import Configuration, Directories, duration_ms, examine

SEEDS: Final = 200
"""Random schedules unless told otherwise.  One of the example conf.d takes about a second of one processor,
most of it waiting for a failback of five minutes; all processors share them."""

DESCRIPTION = """\
Plays this conf.d on a virtual clock, with the very code that decides in the
daemon, two simulated nodes, and your nodes, links, services and timers. First
every single failure: who runs what afterwards, after how long, and what is
dangerous about it, worst first. Then random schedules of many failures.
Nothing real is started, stopped or sent; no daemon is needed."""

EPILOG = """\
examples:
  hostd simulate                                  the table, then 200 schedules
  hostd simulate --seeds 0                        the table only
  hostd simulate --fault "power-off clustnode2"   one failure, as a timeline
  hostd simulate --fault "cut serial1" --fault "3s: power-off clustnode2"
  hostd simulate --replay 17                      a schedule, as a timeline
  hostd simulate --json | jq '.table[] | select(.grade == "runs_twice")'

faults, among others: power-off NODE, power-on NODE, kill-host NODE, start-host
NODE, kill-brain NODE, cut LINK [SENDER], mend [LINK], lan-cut NODE, lan-mend
NODE, arp-block, arp-pass, ping-lost NODE, ping-back NODE, dies SERVICE NODE,
starts SERVICE NODE FAIL|HANG|WELL, stops SERVICE NODE FAIL|HANG|LEAVE|WELL,
fencing NODE FAIL|HANG|SLOW|WELL, pause NODE BRAIN|USERLAND|SUSPEND|FREEZE
MILLISECONDS, unaddress NODE ADDRESS, ask NODE move SERVICE, ask NODE leave

exit code: 0 no schedule broke a rule of hostd, 1 one did (a bug: it prints how
to see it again), 2 conf.d or a fault cannot be used. What the table calls
dangerous is your site's to judge and does not change the exit code."""


class UnfitFaultError(Exception):
    """A ``--fault`` that cannot be played; the text says what is wrong and what there is."""


def register(subparsers: Any) -> None:
    """Add this command to ``hostd``."""
    summary = "what would happen to this conf.d if something failed?"
    parser = options.add(subparsers, "simulate", summary, description=DESCRIPTION, epilog=EPILOG)
    parser.add_argument("--seeds", type=int, default=SEEDS, metavar="N", help=f"random schedules (default {SEEDS})")
    parser.add_argument("--from", dest="first", type=int, default=0, metavar="SEED", help="the first seed (default 0)")
    parser.add_argument("--fault", action="append", default=[], metavar="FAULT", help="play this one; see below")
    parser.add_argument("--replay", type=int, metavar="SEED", help="show the schedule of this seed")
    parser.add_argument("--json", action="store_true", help="facts for tools")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from hostd.sim.whatif import NotWellError

    configuration = _read(options.directories(args), options.node(args))
    if configuration is None:
        return ExitCode.WRONG_USE
    if not configuration.plan.services:
        print("conf.d has no service that this node can run: there is nothing to simulate", file=sys.stderr)
        return ExitCode.WRONG_USE
    try:
        if args.fault:
            return _one(configuration, args.fault, as_json=args.json)
        if args.replay is not None:
            return _replay(configuration, args.replay)
        return _all(configuration, args)
    except UnfitFaultError as error:
        print(f"--fault {error}", file=sys.stderr)
        return ExitCode.WRONG_USE
    except NotWellError as error:
        print(f"with nothing wrong, two nodes of this conf.d do not come up in order: {error}", file=sys.stderr)
        return ExitCode.NO


def _read(directories: Directories, node: str) -> Configuration | None:
    # Imported here: the agents take half a second, which `hostd --help` need not
    from hostd.registry import Registry

    registry = Registry.load(directories)
    examined = examine(directories.config, node, registry.parameters, registry.link_types(), registry.notify_types())
    if examined.configuration is None:
        for complaint in examined.complaints:
            if not complaint.is_warning:
                print(f"{complaint.text}\n", file=sys.stderr)
        print("conf.d cannot be used; see `hostd check`", file=sys.stderr)
        return None
    for aside in examined.configuration.set_aside:
        print(f"without {aside.service.name}, set aside: see `hostd check`", file=sys.stderr)
    return examined.configuration


# -- the site -----------------------------------------------------------------------


def site_of(configuration: Configuration) -> Any:
    """The plan, which links run over the clients' LAN, and the levels of fencing."""
    from hostd.sim.whatif import Site

    plan = configuration.plan
    levels = {
        node: tuple(sorted({d.level for d in configuration.fencing_devices if node in d.nodes})) for node in plan.nodes
    }
    return Site(plan, links_on_lan(configuration), levels)


def links_on_lan(configuration: Configuration) -> tuple[str, ...]:
    """Links whose own address is in the network of a service's address, or whose interface is named by one."""
    networks, cards = [], []
    for service in configuration.plan.services:
        for address in service.addresses:
            text, _, card = address.partition("@")
            networks.append(ipaddress.ip_interface(text).network)
            cards += [card] * bool(card)
    found = []
    for link in configuration.links:
        own, interface = link.settings.get("address"), link.settings.get("interface")
        try:
            host = ipaddress.ip_address(str(own).partition("/")[0]) if own else None
        except ValueError:
            host = None
        inside = host is not None and any(host in network for network in networks)
        if inside or (interface and interface in cards):
            found.append(link.name)
    return tuple(found)


# -- one play -------------------------------------------------------------------------


def fault_of(text: str, configuration: Configuration) -> Any:
    """``[SECONDS:] FAULT`` as a moment and a fault; raises :class:`UnfitFaultError`."""
    from hostd.sim import faults

    at_text, colon, rest = text.partition(": ")
    at_ms = 0
    if colon and re.match(r"\d", at_text):
        try:
            at_ms = duration_ms(at_text)
        except ValueError as error:
            raise UnfitFaultError(f'"{text}": {at_text} is no time such as 3s or 500ms') from error
    else:
        rest = text
    if not rest.strip():
        raise UnfitFaultError(f'"{text}": names no fault; use one of {", ".join(sorted(faults.KINDS))}')
    try:
        fault = faults.parse(rest.strip())
    except ValueError as error:
        raise UnfitFaultError(f'"{text}": {error}') from error
    _judge_names(text, fault, configuration)
    return faults.Timed(at_ms, fault)


def _judge_names(text: str, fault: Any, configuration: Configuration) -> None:
    """Also what an operator's command in it names."""
    from hostd.sim import faults

    plan = configuration.plan
    nodes, links = plan.nodes, tuple(link.name for link in plan.links)
    services = tuple(service.name for service in plan.services)
    addresses = tuple(address for service in plan.services for address in service.addresses)
    known = {"node": nodes, "sender": nodes, "link": links, "service": services, "address": addresses}
    for thing in (fault, faults.command(fault)) if isinstance(fault, faults.Ask) else (fault,):
        for field in msgspec.structs.fields(type(thing)):
            value = getattr(thing, field.name)
            if field.name not in known or value in known[field.name] or (value == "" and not field.required):
                continue
            there = known[field.name]
            meant = difflib.get_close_matches(value, there, n=1)
            choice = f"use {' or '.join(there)}" if there else "there is none"
            cure = f"did you mean {meant[0]}?" if meant else choice
            raise UnfitFaultError(f'"{text}": {value or "nothing"} is no {field.name} of conf.d; {cure}')


def _one(configuration: Configuration, texts: list[str], *, as_json: bool) -> int:
    from hostd.sim.trace import Trace
    from hostd.sim.whatif import play

    schedule = tuple(sorted((fault_of(text, configuration) for text in texts), key=lambda timed: timed.at_ms))
    site, trace = site_of(configuration), Trace()
    course = play(site, schedule, (trace,))
    if as_json:
        facts = {"schema": 1, "faults": texts, **whatif_words.course_facts(course, site.plan)}
        print(json.dumps({**facts, "timeline": trace.lines()}, indent=2))
    else:
        _picture(trace, " | ".join(configuration.plan.nodes))
        paper = Paper()
        paper.line()
        told = whatif_words.consequences(course, site.plan) or ["no service is interrupted"]
        for line in told:
            paper.wrapped("", line, indent=0)
        if why := whatif_words.reasons(course):
            paper.wrapped("because", why, indent=8)
        _assumptions(paper)
    return ExitCode.NO if course.harm else ExitCode.DONE


def _picture(trace: Any, nodes: str) -> None:
    print(f"virtual time (s), then what each node says of itself: {nodes}")
    print("@ has the address; !word what is true where it differs; N/node: view and coordinator")
    for line in trace.lines():
        print(line)


def _replay(configuration: Configuration, seed: int) -> int:
    from hostd.sim import faults, random_schedules
    from hostd.sim.trace import Trace

    site, trace = site_of(configuration), Trace()
    schedule = random_schedules.drawn(site, seed)
    for at_ms, fault in schedule:
        print(f"    {at_ms / 1000:.3f} {faults.words(fault)}")
    verdict = random_schedules.play(site, seed, (trace,))
    _picture(trace, " | ".join(configuration.plan.nodes))
    print(f"{verdict.at_ms / 1000:9.3f} == {verdict.harm or 'all well'}")
    return ExitCode.NO if verdict.harm else ExitCode.DONE


# -- everything -------------------------------------------------------------------------


def _all(configuration: Configuration, args: argparse.Namespace) -> int:
    from hostd.sim import random_schedules
    from hostd.sim.singles import singles
    from hostd.sim.whatif import play

    site, paper = site_of(configuration), Paper()
    each = list(singles(site))
    courses = _at_once("failures", functools.partial(play, site), [single.schedule for single in each])
    rows = list(zip(each, courses, strict=True))
    rows.sort(key=lambda row: whatif_words.worth(row[1]))
    if not args.json:
        _show_table(paper, site, rows)
    outcome, began_s = random_schedules.Outcome(), time.monotonic()
    seeds = range(args.first, args.first + args.seeds)
    for verdict in _at_once("schedules", functools.partial(random_schedules.play, site), seeds):
        outcome.add(verdict)
    took_s = time.monotonic() - began_s
    again = [{"seed": v.seed, "harm": v.harm, "replay": f"hostd simulate --replay {v.seed}"} for v in outcome.harmed]
    if args.json:
        table = [whatif_words.facts(single, course, site.plan) for single, course in rows]
        schedules = {"runs": outcome.runs, "virtual_ms": outcome.virtual_ms, "harmed": again}
        facts = {"schema": 1, "cluster": site.plan.cluster, "table": table, "schedules": schedules}
        print(json.dumps(facts, indent=2))
    else:
        _show_schedules(paper, outcome, took_s)
    is_bug = bool(outcome.harmed) or any(course.harm for _, course in rows)
    return ExitCode.NO if is_bug else ExitCode.DONE


def _at_once(noun: str, act: Callable[[Any], Any], inputs: Sequence[Any]) -> list[Any]:
    """``act`` of each, in order, on all processors; behind whatever else this machine has to do,
    since it may be a node that serves."""
    if not inputs:
        return []
    with ProcessPoolExecutor(initializer=_stand_back) as pool, Progress(noun, len(inputs)) as progress:
        try:
            futures = [pool.submit(act, each) for each in inputs]
            for _ in as_completed(futures):
                progress.step()
            return [future.result() for future in futures]
        except BaseException:  # Ctrl-C, or a failure of one: end the others, which may have seconds to go
            for worker in multiprocessing.active_children():
                worker.kill()
            raise


def _stand_back() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is told, and ends us
    os.nice(19)


def _show_table(paper: Paper, site: Any, rows: list[Any]) -> None:
    plan = site.plan
    paper.line(paper.colour(f'What becomes of "{plan.cluster}" if one thing fails', "bold"))
    of = "with fencing of the storage" if plan.cuts_storage else "without fencing"
    fencing = "with fencing" if plan.fencing else of
    lan = ", ".join(site.on_lan) or "no link"
    text = f"{counted(len(rows), 'failure')}, worst first, {fencing}; {lan} shares the clients' LAN."
    paper.wrapped("", text, indent=0)
    for grade in whatif_words.Grade:
        mine = [(single, course) for single, course in rows if whatif_words.grade(course) is grade]
        if not mine:
            continue
        paper.line()
        paper.line(paper.colour(whatif_words.TITLES[grade], whatif_words.COLOURS[grade]))
        for single, course in mine:
            paper.wrapped("- ", whatif_words.failure(single), indent=2)
            for line in whatif_words.consequences(course, plan):
                paper.wrapped("", line, indent=6)
            why = whatif_words.reasons(course)
            if why:
                paper.wrapped("      why:", why, indent=11)
    paper.line()
    _assumptions(paper)


def _assumptions(paper: Paper) -> None:
    from hostd.core.terms import Action
    from hostd.sim.whatif import ASSUMED_MS

    start_ms, stop_ms = ASSUMED_MS[Action.START], ASSUMED_MS[Action.STOP]
    text = (
        f"Assumed, since nobody knows: each agent starts in {start_ms / 1000:g} s and stops in {stop_ms / 1000:g} s; "
        "a fencing device acts within a second, and one of the next level after six; a failure that only a monitor "
        "sees comes in the middle of its interval, and may cost as much as one interval more. All else is virtual "
        "time by the timers of conf.d, from the failure on."
    )
    for line in textwrap.wrap(text, WIDTH):
        paper.line(paper.colour(line, "dim"))


def _show_schedules(paper: Paper, outcome: Any, took_s: float) -> None:
    if not outcome.runs:
        return
    paper.line()
    text = (
        f"{counted(outcome.runs, 'random schedule')} of failures, "
        f"{outcome.virtual_ms // 60_000} min of virtual time in {took_s:.0f} s: "
    )
    if not outcome.harmed:
        paper.wrapped("", f"{text}no rule was broken, and each time all was well again.", indent=0)
        return
    paper.wrapped("", f"{text}{len(outcome.harmed)} broke a rule of hostd. That is a bug: please report it.", indent=0)
    for verdict in outcome.harmed:
        paper.wrapped(f"seed {verdict.seed}", verdict.harm, indent=12, colour="red")
        paper.line(f"            hostd simulate --replay {verdict.seed}")
