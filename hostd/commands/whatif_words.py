"""What the what-if table says: a failure and its course in an operator's words.

Decides wording and which rows are worse than others; refuses to know how the
course was found.
"""

import enum
from typing import Any, Final

from hostd.commands import sentences
from hostd.core.plan import Plan
from hostd.core.terms import Phase, Why
from hostd.sim.singles import Single, What
from hostd.sim.whatif import Course

FAILURES: Final[dict[What, str]] = {
    What.POWER: "{node} loses its power",
    What.DAEMON_KILLED: "hostd on {node} is killed and not started again",
    What.HANGS: "{node} hangs for ever: no process runs, its kernel goes on",
    What.STANDS_STILL: "{node} stands still for {span}, clock and all, and goes on (a virtual machine)",
    What.LINK: "link {link} is cut",
    What.LINK_ONE_WAY: "link {link} carries nothing from {node} any more",
    What.LAN_NODE: "the clients' LAN is dead at {node}",
    What.LAN_BOTH: "the clients' LAN is dead at both nodes (its switch), for ever",
    What.LAN_BOTH_BACK: "the clients' LAN is dead at both nodes for {span} (its switch starts anew)",
    What.TIEBREAKER_NODE: "the tiebreaker is not reached from {node}",
    What.TIEBREAKER_BOTH: "the tiebreaker is gone for both nodes",
    What.DIES: "{service} dies on {node}: its main process ends",
    What.DIES_UNSEEN: "{service} fails on {node} in a way that only its monitor sees",
    What.START_FAILS: "{service} dies on {node} and cannot be started there again",
    What.STOP_FAILS: "{service} is to leave {node}, and its stop fails",
    What.FENCE_FAILS: "{node} loses its power, and no fencing device confirms it",
    What.FENCE_LEVEL_FAILS: "{node} loses its power, and its fencing devices of level {level} fail",
    What.SPLIT: "every link is cut at once, and the LAN still carries ARP",
    What.TOTAL_SPLIT: "nothing passes between the nodes any more, neither links nor ARP",
}


class Grade(enum.IntEnum):
    """How bad, worst first; the name is what JSON says."""

    BUG = 0
    RUNS_TWICE = 1
    RUNS_NOWHERE = 2
    WAITS = 3
    INTERRUPTED = 4
    UNHURT = 5


TITLES: Final[dict[Grade, str]] = {
    Grade.BUG: "A RULE OF HOSTD'S OWN IS BROKEN: please report it",
    Grade.RUNS_TWICE: "MAY RUN TWICE: processes or addresses on both nodes at once",
    Grade.RUNS_NOWHERE: "RUNS NOWHERE, until somebody repairs it",
    Grade.WAITS: "WAITS FOR YOU, and serves meanwhile",
    Grade.INTERRUPTED: "INTERRUPTED, and served again",
    Grade.UNHURT: "NO INTERRUPTION",
}

COLOURS: Final[dict[Grade, str]] = {
    Grade.BUG: "red",
    Grade.RUNS_TWICE: "red",
    Grade.RUNS_NOWHERE: "red",
    Grade.WAITS: "yellow",
    Grade.INTERRUPTED: "bold",
    Grade.UNHURT: "green",
}


def failure(single: Single) -> str:
    """The failure in one line."""
    return FAILURES[single.what].format(
        node=single.node,
        link=single.link,
        service=single.service,
        level=single.level,
        span=sentences.span(single.for_ms / 1_000),
    )


def grade(course: Course) -> Grade:
    if course.harm:
        return Grade.BUG
    if course.twice_ms or course.owners_ms:
        return Grade.RUNS_TWICE
    if nowhere(course):
        return Grade.RUNS_NOWHERE
    if course.blocked or course.waits:
        return Grade.WAITS
    return Grade.INTERRUPTED if course.out_ms else Grade.UNHURT


def nowhere(course: Course) -> tuple[str, ...]:
    """Services that served and serve no more."""
    return tuple(name for name, nodes in course.before.items() if nodes and not course.after[name])


def worth(course: Course) -> tuple[int, int]:
    """Sorts courses, the worst first."""
    return grade(course), -max(course.out_ms.values(), default=0)


def consequences(course: Course, plan: Plan) -> list[str]:
    """What becomes of the services, and what is dangerous about it; most important first."""
    told = []
    if course.harm:
        told.append(f"broken rule: {course.harm}")
    told += _twice(course, plan)
    if names := nowhere(course):
        told.append(f"{_and(names)} {_verb(names, 'runs', 'run')} nowhere{_given_up(course, names)}")
    told += _waiting(course)
    groups: dict[str, list[str]] = {}
    for name, nodes in course.after.items():
        before, out_ms = course.before[name], course.out_ms.get(name, 0)
        if not nodes or (nodes == before and not out_ms):
            continue
        where = f"on {_and(nodes)}" if nodes != before else f"on {_and(nodes)} as before"
        away = f"served again after {sentences.span(out_ms / 1_000)}" if out_ms else "without a break"
        groups.setdefault(f"{where}, {away}", []).append(name)
    told += [f"{_and(names)}: {course_}" for course_, names in groups.items()]
    if course.shot:
        told.append(f"{_and(course.shot)} is switched off by fencing")
    return told


def reasons(course: Course) -> str:
    """Why it comes so, in the words of `hostd why`."""
    told = [sentences.WHY[course.cleared]] if course.cleared is not None else []
    moved = [name for name, nodes in course.after.items() if nodes != course.before[name] and name in course.why]
    causes = dict.fromkeys(course.why[name] for name in moved)
    told += [sentences.WHY[why] for why in causes if why not in (Why.ADOPTED, Why.STAYS, Why.EVERYWHERE)]
    return "; ".join(told)


def facts(single: Single, course: Course, plan: Plan) -> dict[str, Any]:
    """A row as JSON."""
    return {
        "failure": single.what.name.lower(),
        "node": single.node or None,
        "link": single.link or None,
        "service": single.service or None,
        "text": failure(single),
        **course_facts(course, plan),
    }


def course_facts(course: Course, plan: Plan) -> dict[str, Any]:
    """A course as JSON; times are virtual milliseconds."""
    return {
        "grade": grade(course).name.lower(),
        "runs_on": {name: list(nodes) for name, nodes in course.after.items()},
        "ran_on": {name: list(nodes) for name, nodes in course.before.items()},
        "out_ms": course.out_ms,
        "settled_ms": course.settled_ms,
        "runs_nowhere": list(nowhere(course)),
        "processes_on_both_ms": course.twice_ms,
        "two_owners_ms": course.owners_ms,
        "blocked": [{"service": service, "node": node} for service, node in course.blocked],
        "given_up": [{"service": service, "node": node} for service, node in course.given_up],
        "waiting_nodes": list(course.waits),
        "fenced": list(course.shot),
        "consequences": consequences(course, plan),
        "reasons": reasons(course),
        "broken_rule": course.harm or None,
    }


def _twice(course: Course, plan: Plan) -> list[str]:
    told = []
    for name, twice_ms in course.twice_ms.items():
        service = plan.service(name)
        shared = any(resource.exclusive_storage for resource in service.resources)
        risk = "; it writes data: on a disk of both nodes they would be destroyed" if shared else ""
        if name in course.for_good:
            told.append(f"{name} has processes on both nodes, and nothing ends that{risk}")
        else:
            told.append(f"{name} has processes on both nodes for {sentences.span(twice_ms / 1_000)}{risk}")
    for address, owners_ms in course.owners_ms.items():
        if address in course.for_good:
            told.append(f"{address} is held by both nodes, and nothing ends that")
        else:
            told.append(f"{address} is held by both nodes for {sentences.span(owners_ms / 1_000)}")
    return told


def _waiting(course: Course) -> list[str]:
    told = [
        f"{service} cannot be stopped on {node} and may run: end it by hand, then `hostd cleanup {service}`"
        for service, node in course.blocked
    ]
    for node in course.waits:
        peer = next(other for other in course.phases if other != node)
        if course.phases[peer] in (Phase.PEER_LOST, Phase.STARTUP_FENCING):
            if node < peer:
                told.append(f"{node} and {peer} do not hear each other, and nothing moves until they do")
        else:
            told.append(f"{node} has no proof that {peer} is off and waits: `hostd confirm-down {peer}` if it is")
    return told


def _given_up(course: Course, names: tuple[str, ...]) -> str:
    given_up = [name for name in names if any(name == service for service, _ in course.given_up)]
    if not given_up:
        return ""
    return f"; if {_verb(names, 'it does', 'they do')} not return when the cause is gone: `hostd cleanup {given_up[0]}`"


def _and(names: tuple[str, ...] | list[str]) -> str:
    return ", ".join(names[:-1]) + (" and " if len(names) > 1 else "") + names[-1]


def _verb(names: tuple[str, ...], one: str, many: str) -> str:
    return one if len(names) == 1 else many
