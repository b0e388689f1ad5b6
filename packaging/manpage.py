"""One man page: ``manpage.py PAGE.in`` prints it as roff, for man(1) and groff.

A page is written by hand in the man macros.  What the program itself knows is
filled in from its parsers and registry, so that it cannot go stale, where a
line of the page says so::

    @commands PROGRAM@   every command with its text, arguments, options and examples
    @options@            the options that all commands share
    @links@              every type of [[heartbeat.link]] and its keys
    @agents@             every agent that comes along, its parameters and time limits

Decides nothing of what is said.
"""

import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import hostd
from hostd.api import ConfigError, Field, Parameters
from hostd.commands import completion
from hostd.config import Directories
from hostd.registry import Registry


def page(source: Path) -> str:
    """The page, its placeholders filled in."""
    return "\n".join(line for raw in source.read_text().splitlines() for line in filled(raw)) + "\n"


def filled(line: str) -> Iterator[str]:
    match = re.fullmatch(r"@(\w+)(?: ([\w-]+))?@", line)
    if match is None:
        yield line.replace("@version@", hostd.__version__)
    elif match[1] == "commands":
        for command in completion.commands(match[2]):
            yield from of_command(match[2], command)
    elif match[1] == "options":
        for option in completion.common():
            yield from of_option(option)
    elif match[1] == "links":
        for name, parameters in sorted(bundled().link_types().items()):
            yield f".SS type = \\(dq{name}\\(dq"
            yield from of_fields(parameters)
    elif match[1] == "agents":
        yield from of_agents(bundled())
    else:
        sys.exit(f"manpage: {line} is no placeholder")


def bundled() -> Registry:
    """What comes with hostd, and nothing of the machine that this is built on."""
    return Registry.load(Directories(), system=Path("/nonexistent"))


# -- commands ---------------------------------------------------------------------------


def of_command(program: str, command: completion.Command) -> Iterator[str]:
    formatter = command.parser._get_formatter()
    usage = formatter._format_usage(None, command.parser._get_positional_actions(), [], "").strip()
    arguments = usage.removeprefix(command.parser.prog).strip()
    yield f".SS {roff(program)} {roff(command.name)} {roff(arguments)}".rstrip()
    yield from paragraph(command.parser.description or command.summary)
    common = {option.words for option in completion.common()}
    for option in (*command.arguments, *command.options):
        if option.words not in common and "--help" not in option.words and (option.words or option.help):
            yield from of_option(option)
    if command.parser.epilog:
        yield ".PP"
        yield from preformatted(command.parser.epilog)


def of_option(option: completion.Option) -> Iterator[str]:
    words = ", ".join(f"\\fB{roff(word)}\\fR" for word in option.words)
    value = f"\\fI{roff(option.value)}\\fR" if option.value and not (option.choices and not option.words) else ""
    yield ".TP"
    yield f"{words} {value}".strip() or f"\\fB{roff(' | '.join(option.choices))}\\fR"
    yield roff(option.help) or "\\&"


# -- links and agents ------------------------------------------------------------------


def of_agents(registry: Registry) -> Iterator[str]:
    for name, agent in sorted(registry.agents.items()):
        yield f".SS {roff(name)}"
        try:
            parameters = agent.parameters(name)
        except ConfigError as error:  # one that stands for many, and needs to be told which
            yield from paragraph(f"{agent.summary} {str(error).partition('; ')[2] or error}")
            continue
        yield from paragraph(f"{parameters.summary or agent.summary}.")
        yield from of_fields(parameters)
        limits = ", ".join(f"{verb} {limit}" for verb, limit in parameters.timeouts.items())
        depth = f", at depth {parameters.monitor_depth}" if parameters.monitor_depth else ""
        yield from paragraph(f"Time limits: {limits}. Monitored every {parameters.monitor_interval}{depth}.")
        if parameters.exclusive_storage:
            yield from paragraph("Its data must never be written by two nodes at once.")
        if parameters.guards_storage:
            yield from paragraph("While it is started, the storage itself refuses the other node's writes.")


def of_fields(parameters: Parameters) -> Iterator[str]:
    for field in parameters.fields:
        yield ".TP"
        yield f"\\fB{roff(field.name)}\\fR ({roff(kind_of(field))})"
        choices = (
            f" One of: {', '.join(str(choice) for choice in field.choices if choice != '')}."
            if any(field.choices)
            else ""
        )
        yield roff(f"{field.help}{'.' if choices else ''}{choices}") or "\\&"


def kind_of(field: Field) -> str:
    kind = {"str": "text", "int": "number", "float": "number", "bool": "true or false"}.get(
        field.type.__name__.lower(), field.type.__name__.lower()
    )
    if field.secret:
        return f"{kind}, secret"
    if field.is_required:
        return f"{kind}, required"
    shown = {True: "true", False: "false"}.get(field.default, field.default) if field.type is bool else field.default
    return kind if shown in (None, "") else f"{kind}, default {shown}"


# -- roff -------------------------------------------------------------------------------


def roff(text: str) -> str:
    """Plain text as it is to appear, on one line."""
    return protected(" ".join(text.split()))


def protected(line: str) -> str:
    line = line.replace("\\", "\\e").replace("-", "\\-").replace("`", "\\(ga").replace("'", "\\(aq")
    for character, name in {"→": "\\(->", "…": "\\&...", "–": "\\(en", "—": "\\(em", "·": "\\(bu"}.items():
        line = line.replace(character, name)
    return f"\\&{line}" if line.startswith(".") else line


def paragraph(text: str) -> Iterator[str]:
    yield ".PP"
    yield from map(protected, textwrap.wrap(" ".join(text.split()), 100, break_on_hyphens=False))


def preformatted(text: str) -> Iterator[str]:
    yield ".nf"
    yield from (protected(line) or "\\&" for line in text.strip("\n").splitlines())
    yield ".fi"


if __name__ == "__main__":
    sys.stdout.write(page(Path(sys.argv[1])))
