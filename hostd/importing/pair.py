"""Two nodes' files against each other.

Decides which differences are meant (each node's own tty, card, address), and
which are a mistake that Heartbeat never noticed.  Knows the names of the two
nodes, not what conf.d makes of the media.
"""

import difflib
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from hostd.importing import texts
from hostd.importing.directives import Meaning, Medium
from hostd.importing.fates import Ledger, Line
from hostd.importing.haresources import FILE, groups
from hostd.importing.site import Site

LINES_MAX: Final = 20
"""Lines of a difference that are shown."""


class Both(msgspec.Struct, frozen=True):
    """A medium as each node's ha.cf has it; ``there`` is None if the other's was not read."""

    here: Medium
    there: Medium | None


def media(here: Meaning, there: Meaning | None, ledger: Ledger) -> list[Both]:
    """The n-th medium of a kind on one node is the n-th of that kind on the other."""
    if there is None:
        return [Both(medium, None) for medium in here.media]
    found = []
    waiting = list(there.media)
    for medium in here.media:
        same = next((other for other in waiting if _is_same(medium, other)), None)
        other = same or next((other for other in waiting if other.kind is medium.kind), None)
        if other is None:
            reason = "the other node's ha.cf has no such medium: they never met over it"
            ledger.refused(medium.line, medium.name, reason, "add it there, or remove it here")
        else:
            waiting.remove(other)
            found.append(Both(medium, other))
    for medium in waiting:
        reason = "this node's ha.cf has no such medium: they never met over it"
        ledger.refused(medium.line, medium.name, reason, "add it here, or remove it there")
    return found


def _is_same(one: Medium, other: Medium) -> bool:
    return (one.kind, one.settings) == (other.kind, other.settings)


def compare(here: Meaning, there: Meaning, ledger: Ledger) -> None:
    """What must be one for both, and is not: this directory's value is taken, and it is said."""
    pairs = {
        "node": (sorted(here.nodes), sorted(there.nodes)),
        "cluster": (here.name, there.name),
        "auto_failback": (here.failback, there.failback),
        "ping": (sorted(here.ping), sorted(there.ping)),
        "watchdog": (here.watchdog, there.watchdog),
        **{name: (mine, there.times.table()[name]) for name, mine in here.times.table().items()},
    }
    derived = here.times.table().keys() - here.other_lines.keys() - there.other_lines.keys()
    for name, (mine, theirs) in pairs.items():
        if mine != theirs and name not in derived:
            line = there.other_lines.get(name) or here.other_lines.get(name) or Line("peer/ha.cf", 0)
            reason = f"the nodes differ: {_said(mine)} here, {_said(theirs)} there; hostd has one for both"
            cure = "change it in conf.d if that is wrong"
            ledger.warned(line, name, f"{_said(mine)}, this directory's", reason, cure)
    if (here.is_crm is None) != (there.is_crm is None):
        on = here.is_crm or there.is_crm
        assert on is not None
        ledger.refused(on, "crm", "is on at one node and off at the other", "find out which of them runs the cluster")


def _said(value: object) -> str:
    match value:
        case None:
            return "none"
        case bool():
            return "on" if value else "off"
        case list():
            return " ".join(str(item) for item in value) or "none"
        case _:
            return str(value)


def scripts(used: Iterable[str], here: Site, there: Site, ledger: Ledger) -> None:
    """The site's own scripts that haresources names: both nodes must have them, and best the same."""
    if not there.has_scripts:
        return  # a copy of the three files: nothing is known
    for name in sorted(used):
        mine = here.own_script(name)
        if mine is None:
            continue
        theirs = there.own_script(name)
        line = Line(f"peer/resource.d/{texts.shown(name)}", 0)
        if theirs is None:
            ledger.refused(line, "", "is missing: the other node could not take its group over", "copy it there")
        elif theirs != mine:
            ledger.warned(line, "", "", "differs from this directory's", "find out why: diff the two")


def differences(here: bytes, there: bytes | None, ledger: Ledger) -> None:
    """haresources must say the same on both nodes; Heartbeat never looked."""
    if there is None:
        reason = "the other node has none, so it never took anything over"
        ledger.refused(Line(f"peer/{FILE}", 0), "", reason, "copy this node's there, or name the right --peer")
        return
    mine, theirs = _canonical(here), _canonical(there)
    if mine == theirs:
        if here != there:
            line = Line(f"peer/{FILE}", 0)
            ledger.not_needed(line, "", "differs in comments, blanks or capitals only")
        return
    shown = [text for text in difflib.unified_diff(mine, theirs, lineterm="", n=0) if text[:1] in "+-"][2:]
    for text in shown[:LINES_MAX]:
        is_theirs = text[0] == "+"
        side = "only the peer's file has this group" if is_theirs else "only this directory's file has this group"
        reason = f"{side}: with different files both nodes may run the same"
        cure = "decide which is right; this directory's was converted"
        number = _number(there if is_theirs else here, text[1:])
        ledger.refused(Line(f"peer/{FILE}" if is_theirs else FILE, number, text[1:]), "", reason, cure)
    if len(shown) > LINES_MAX:
        rest = f"{len(shown) - LINES_MAX} more lines differ"
        ledger.refused(Line(f"peer/{FILE}", 0), "", rest, f"diff the two {FILE}")


def _canonical(content: bytes) -> list[str]:
    """One text per group; the order of groups says nothing."""
    found = [" ".join((group.node, *(word.text for word in group.words))) for group in groups(content)]
    return sorted(map(texts.shown, found))


def _number(content: bytes, canonical: str) -> int:
    lines: Sequence[tuple[str, int]] = [
        (texts.shown(" ".join((group.node, *(word.text for word in group.words)))), group.line.number)
        for group in groups(content)
    ]
    return next((number for text, number in lines if text == canonical), 0)
