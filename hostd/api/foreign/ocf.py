"""The words of the OCF resource agent API 1.1: exit codes, places, meta-data.

Decides what an exit code means and cures, where an agent's file is, and what
its meta-data says.  Reads meta-data in two ways: from what the agent prints
(exact), and from the text of its file without running it (so that nothing is
executed where conf.d is only read; of the 141 agents of resource-agents 4.12,
134 give the same names and times either way).  Runs nothing itself.

Sources: github.com/ClusterLabs/OCF-spec (ra/1.1), resource-agents' developer guide.
"""

import difflib
import enum
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple
from xml.etree import ElementTree

from hostd.api.errors import AgentError, ConfigError

REASON_PREFIX: Final = "ocf-exit-reason:"
SOURCE_MAX: Final = 1_000_000
"""Bytes of an agent's file that are read; the largest of resource-agents has 70 kB."""


class Exit(enum.IntEnum):
    """Exit codes of the API, with the names of resource-agents."""

    SUCCESS = 0
    GENERIC = 1
    ARGS = 2
    UNIMPLEMENTED = 3
    PERM = 4
    INSTALLED = 5
    CONFIGURED = 6
    NOT_RUNNING = 7
    RUNNING_PROMOTED = 8
    FAILED_PROMOTED = 9
    DEGRADED = 190
    DEGRADED_PROMOTED = 191


_MEANING: Final = {
    Exit.GENERIC: ("failed", "see what it printed (hostd-agent run shows it)"),
    Exit.ARGS: ("a parameter does not fit this machine", "correct params, or this machine"),
    Exit.UNIMPLEMENTED: ("the agent does not know this action", "it cannot be used as a service here"),
    Exit.PERM: ("a permission is missing", "see that root may do what the agent does here"),
    Exit.INSTALLED: ("something that it needs is not installed", "install it on this node"),
    Exit.CONFIGURED: ("its parameters are wrong on any machine", "correct params in conf.d"),
    Exit.NOT_RUNNING: ("not running", "see what it printed (hostd-agent run shows it)"),
    Exit.RUNNING_PROMOTED: ("running in the promoted role", "hostd promotes nothing: demote it by hand"),
    Exit.FAILED_PROMOTED: ("failed in the promoted role", "see what it printed (hostd-agent run shows it)"),
    Exit.DEGRADED: ("running, but degraded", "see what it printed (hostd-agent run shows it)"),
    Exit.DEGRADED_PROMOTED: ("running promoted, but degraded", "see what it printed (hostd-agent run shows it)"),
}


def failure(action: str, code: int, output: str) -> AgentError:
    """The AgentError for an exit code: the reason in the agent's own words where it gave one."""
    if code < 0:
        return AgentError(f"{action} was killed by signal {-code}")
    try:
        meaning, cure = _MEANING[Exit(code)]
    except (ValueError, KeyError):
        meaning, cure = "which means nothing in OCF", "see what it printed (hostd-agent run shows it)"
    said = reason(output)
    return AgentError(f"{said or meaning} ({action}: exit code {code}{f', {meaning}' if said else ''})", cure=cure)


def reason(output: str) -> str:
    """What the agent gave as its reason, the last time that it gave one; else its last line; else ""."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    given = [line.partition(REASON_PREFIX)[2].strip() for line in lines if REASON_PREFIX in line]
    return (given or lines or [""])[-1][:500]


# -- which agent ----------------------------------------------------------------------


class Reference(NamedTuple):
    """One OCF agent: ``ocf:PROVIDER:TYPE`` and its file."""

    provider: str
    type: str
    root: Path

    @property
    def path(self) -> Path:
        return self.root / "resource.d" / self.provider / self.type


def root() -> Path:
    """The root of the tree of agents: the variable that the API itself has for it, else the usual place."""
    return Path(os.environ.get("OCF_ROOT", "/usr/lib/ocf"))


_WORD: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")


def find(text: str) -> Reference:
    """``ocf:PROVIDER:TYPE``, or ``ocf:TYPE`` for the provider heartbeat.  ConfigError if there is no such agent."""
    words = text.split(":")[1:]
    if len(words) not in (1, 2) or not all(map(_WORD.fullmatch, words)):
        raise ConfigError(f'"{text}" names no OCF agent; write ocf:PROVIDER:TYPE, such as ocf:heartbeat:apache')
    provider, kind = words if len(words) == 2 else ("heartbeat", words[0])
    found = Reference(provider, kind, root())
    if found.path.is_file():
        return found
    folder = found.root / "resource.d"
    if not folder.is_dir():
        raise ConfigError(f"there is no {folder}; apt-get install resource-agents, or set OCF_ROOT")
    if not (folder / provider).is_dir():
        cure = near(provider, _names(folder), f"providers here: {', '.join(_names(folder)) or 'none'}")
        raise ConfigError(f'there is no provider "{provider}" in {folder}; {cure}')
    raise ConfigError(
        f'there is no agent "{kind}" in {folder / provider}; '
        + near(kind, _names(folder / provider), "install the package that brings it")
    )


def _names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))


def near(name: str, known: Iterable[str], otherwise: str = "") -> str:
    """The names that may be meant, as a cure; where none is near, ``otherwise`` or all that are known."""
    known = list(known)
    by_lower = {each.lower(): each for each in known}
    near = [by_lower[each] for each in difflib.get_close_matches(name.lower(), by_lower, n=3, cutoff=0.6)]
    return f"did you mean {' or '.join(near)}?" if near else otherwise or f"known are {', '.join(sorted(known)[:20])}"


# -- what it says of itself -------------------------------------------------------------


class Parameter(NamedTuple):
    """One ``<parameter>``."""

    name: str
    type: str
    default: str | None
    """None also for an empty one, which is none."""
    is_required: bool
    is_deprecated: bool
    help: str


class Description(NamedTuple):
    """The part of an agent's meta-data that hostd uses."""

    summary: str
    parameters: tuple[Parameter, ...]
    timeouts: dict[str, str]
    """Per action, as a duration of conf.d; actions without a readable time are absent."""
    actions: frozenset[str]
    monitor_interval: str


def read_xml(text: str) -> Description:
    """From what ``meta-data`` printed.  AgentError if that is no meta-data."""
    start = text.find("<resource-agent")
    try:
        tree = ElementTree.fromstring(text[start:]) if start >= 0 else None
    except ElementTree.ParseError as error:
        raise AgentError(f"its meta-data is no XML: {error}", cure="mend the agent") from error
    if tree is None:
        raise AgentError("it printed no meta-data", cure="mend the agent, or use another")
    parameters = []
    for each in tree.iter("parameter"):
        content = each.find("content")
        parameters.append(
            Parameter(
                each.get("name", ""),
                "string" if content is None else content.get("type", "string"),
                None if content is None else content.get("default") or None,
                each.get("required") in ("1", "true"),
                each.get("deprecated") in ("1", "true") or each.find("deprecated") is not None,
                _one_line(each.findtext("shortdesc") or ""),
            )
        )
    actions = [dict(action.attrib) for action in tree.iter("action")]
    return _description(_one_line(tree.findtext("shortdesc") or ""), parameters, actions)


def read_source(text: str) -> Description:
    """From the text of the agent's file, which is not run: whatever meta-data stands in it literally."""
    start = text.find("<resource-agent")
    body = text[max(start, 0) :]
    parameters = {}
    for match in _PARAMETER.finditer(body):
        named, inside = _attributes(match[1]), match[2]
        content = _attributes((re.search(r"<content\s([^>]*)>", inside) or [""] * 2)[1])
        name = named.get("name", "")
        if _WORD.fullmatch(name) and name not in parameters:
            parameters[name] = Parameter(
                name,
                content.get("type", "string"),
                _literal(text, content.get("default")),
                named.get("required") in ("1", "true"),
                named.get("deprecated") in ("1", "true") or "<deprecated" in inside,
                _one_line(_tagged(inside, "shortdesc")),
            )
    head = body[: body.find("<parameter")] if "<parameter" in body else body
    actions = [_attributes(match[1]) for match in re.finditer(r"<action\s([^>]*?)/?>", body)]
    return _description(_one_line(_tagged(head, "shortdesc")), list(parameters.values()), actions)


_PARAMETER: Final = re.compile(r"<parameter\s([^>]*)>(.*?)</parameter>", re.DOTALL)


def _attributes(text: str) -> dict[str, str]:
    return {name: value for name, _, value in re.findall(r"""([\w-]+)\s*=\s*(["'])(.*?)\2""", text)}


def _tagged(text: str, tag: str) -> str:
    found = re.search(rf"<{tag}[^>]*>(.*?)</{tag}>", text, re.DOTALL)
    return found[1] if found else ""


def _one_line(text: str) -> str:
    return " ".join(text.split())[:200]


def _literal(source: str, default: str | None) -> str | None:
    """A default as it would be printed: of a shell variable, what is assigned to it once and plainly."""
    if default is None:
        return None
    variable = re.fullmatch(r"\$\{?(\w+)\}?", default)
    if variable:
        assigned = set(re.findall(rf"^\s*{variable[1]}=[\"']?([^\"'$`\n]*)[\"']?\s*$", source, re.MULTILINE))
        default = assigned.pop() if len(assigned) == 1 else "$"
    return None if "$" in default or "`" in default else default or None


def _description(summary: str, parameters: list[Parameter], actions: list[dict[str, str]]) -> Description:
    """Of several monitors, the shallowest of an unpromoted resource."""
    timeouts: dict[str, str] = {}
    interval = ""
    plain = [a for a in actions if a.get("role", "").lower() not in ("master", "promoted")]
    for action in sorted(plain, key=_depth):
        name = action.get("name", "")
        limit = duration(action.get("timeout", ""))
        if limit and name not in timeouts:
            timeouts[name] = limit
        if name == "monitor" and not interval:
            interval = duration(action.get("interval", ""))
    names = frozenset(action.get("name", "") for action in actions)
    return Description(summary, tuple(parameters), timeouts, names, interval)


def _depth(action: dict[str, str]) -> int:
    """Of a monitor; 0 for what is no small number."""
    text = action.get("depth", "")
    return int(text) if re.fullmatch(r"[0-9]{1,6}", text) else 0


def duration(text: str) -> str:
    """A time of meta-data as conf.d writes it; "" for none, zero, or what cannot be read."""
    found = re.fullmatch(r"\s*(\d{1,6})\s*(ms|msec|s|sec|m|min|h|hr|)\s*", text)
    if not found or int(found[1]) == 0:
        return ""
    unit = {"": "s", "sec": "s", "msec": "ms", "min": "m", "hr": "h"}.get(found[2], found[2])
    return f"{int(found[1])}{unit}"
