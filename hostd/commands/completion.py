"""Completion for bash and zsh: ``python -m hostd.commands.completion SHELL PROGRAM`` prints the file.

Made from the very parsers that take the command line, so it cannot go stale.
Decides what may follow a word; names of services and nodes are read from
conf.d by the shell itself, since a daemon or an interpreter would be too slow
for a keystroke.  The man pages ask it for the same parsers.
"""

import argparse
import re
import sys
from typing import Final, NamedTuple

from hostd.commands import agent_main, main, options

_LISTS: Final = {"SERVICE": "services", "NODE": "nodes", "NAME": "agents"}
"""Metavar → the shell function that lists what it may be."""

_FOLDERS: Final = ("DIR",)
_FILES: Final = ("FILE", "OUT", "NAME")

_SHELL_LISTS: Final = r"""
_hostd_conf() { cat "${HOSTD_CONFIG:-/etc/hostd/conf.d}"/*.toml 2>/dev/null; }
_hostd_services() { _hostd_conf | sed -nE 's/^[[:space:]]*\[service\."?([A-Za-z0-9_-]+).*/\1/p' | sort -u; }
_hostd_nodes() { _hostd_conf | sed -nE 's/^[[:space:]]*nodes[[:space:]]*=[[:space:]]*\[([^]]*)\].*/\1/p' | tr -d '", ' \
    | sort -u; }
_hostd_agents() { hostd-agent list --json 2>/dev/null | sed -n '/"agents"/,/\]/s/.*"name": "\([^"]*\)".*/\1/p'; }
""".replace("""tr -d '", ' \\\n""", """tr -d '" ' | tr , '\\n' \\\n""")


class Option(NamedTuple):
    """One option: its spellings, what its value stands for ("" if it takes none), its help."""

    words: tuple[str, ...]
    value: str
    choices: tuple[str, ...]
    help: str


class Command(NamedTuple):
    """One command of a program, as its parser takes it."""

    name: str
    summary: str
    options: tuple[Option, ...]
    arguments: tuple[Option, ...]
    """Positional; ``words`` is empty."""
    parser: argparse.ArgumentParser


def commands(program: str) -> list[Command]:
    """All commands of ``hostd`` or ``hostd-agent``, in the order of its help."""
    if program == "hostd":
        parsers = {name: _chosen(main.parser_for(name))[name] for name in main.COMMANDS}
        summaries = {name: entry.summary for name, entry in main.COMMANDS.items()}
    else:
        parsers = _chosen(agent_main.parser())
        summaries = {action.dest: action.help or "" for action in _subparsers(agent_main.parser())._choices_actions}
    return [_command(name, summaries[name], parser) for name, parser in parsers.items()]


def common() -> list[Option]:
    """The options that every command takes."""
    return [_option(action) for action in options.common()._actions]


def _subparsers(parser: argparse.ArgumentParser) -> "argparse._SubParsersAction[argparse.ArgumentParser]":
    return next(action for action in parser._actions if isinstance(action, argparse._SubParsersAction))


def _chosen(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    return dict(_subparsers(parser).choices)


def _command(name: str, summary: str, parser: argparse.ArgumentParser) -> Command:
    found = [_option(action) for action in parser._actions if action.help != argparse.SUPPRESS]
    return Command(
        name,
        summary,
        tuple(option for option in found if option.words),
        tuple(option for option in found if not option.words),
        parser,
    )


def _option(action: argparse.Action) -> Option:
    metavar = action.metavar[0] if isinstance(action.metavar, tuple) else action.metavar
    value = "" if action.nargs == 0 else metavar or action.dest.upper()
    choices = tuple(str(choice) for choice in action.choices or ())
    return Option(tuple(action.option_strings), value, choices, (action.help or "").replace("%%", "%"))


# -- bash ------------------------------------------------------------------------------


def bash(program: str) -> str:
    """A file for /usr/share/bash-completion/completions."""
    found = commands(program)
    with_value = sorted(
        {word for command in found for option in command.options if option.value for word in option.words}
    )
    lines = [f"# {program}(8): made from its parsers.", _SHELL_LISTS.strip(), "", f"_{_identifier(program)}() {{"]
    lines += [
        '    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} command="" known="" i at=0',
        "    COMPREPLY=()",
        "    for ((i = 1; i < COMP_CWORD; i++)); do",
        "        case ${COMP_WORDS[i]} in",
        f"            {'|'.join(with_value)}) ((i++)) ;;",
        "            -*) ;;",
        "            *) if [[ -z $command ]]; then command=${COMP_WORDS[i]}; else ((at++)); fi ;;",
        "        esac",
        "    done",
        "    case $command$prev in",
    ]
    for command in found:
        for option in command.options:
            words = _bash_values(option)
            if option.value:
                patterns = "|".join(f"{command.name}{word}" for word in option.words)
                lines.append(f"        {patterns}) {words}; return ;;")
    for option in common() if program == "hostd" else ():
        lines.append(f"        {'|'.join(option.words)}) {_bash_values(option)}; return ;;")
    lines += ["    esac", "    case $command in"]
    names = " ".join(command.name for command in found)
    lines.append(f"        '') known='{names} --help --version' ;;")
    for command in found:
        words = " ".join(word for option in command.options for word in option.words)
        lines.append(f"        {command.name}) [[ $cur == -* ]] && known='{words}' ;;")
    lines += [
        "    esac",
        '    if [[ -n $known ]]; then COMPREPLY=($(compgen -W "$known" -- "$cur")); return; fi',
        "    case $command$at in",
    ]
    for command in found:
        for at, argument in enumerate(command.arguments):
            lines.append(f"        {command.name}{at}) {_bash_values(argument)} ;;")
    lines += ["    esac", "}", f"complete -F _{_identifier(program)} {program}"]
    return "\n".join(lines) + "\n"


def _bash_values(option: Option) -> str:
    if option.choices:
        return f"COMPREPLY=($(compgen -W '{' '.join(option.choices)}' -- \"$cur\"))"
    if option.value in _LISTS:
        also = 'COMPREPLY+=($(compgen -f -- "$cur"))' if option.value in _FILES else ":"
        return f'COMPREPLY=($(compgen -W "$(_hostd_{_LISTS[option.value]})" -- "$cur")); {also}'
    if option.value in _FOLDERS:
        return 'COMPREPLY=($(compgen -d -- "$cur"))'
    return 'COMPREPLY=($(compgen -f -- "$cur"))' if option.value in _FILES else ":"


# -- zsh --------------------------------------------------------------------------------


def zsh(program: str) -> str:
    """A file for a folder of zsh's ``fpath``."""
    found = commands(program)
    lines = [f"#compdef {program}", f"# {program}(8): made from its parsers.", _SHELL_LISTS.strip(), ""]
    lines += [f"_{_identifier(program)}_commands() {{", "    local -a known=("]
    lines += [f"        {_quoted(f'{command.name}:{command.summary}')}" for command in found]
    lines += ["    )", "    _describe command known", "}", ""]
    lines += [f"_{_identifier(program)}() {{", "    local curcontext=$curcontext state line", "    typeset -A opt_args"]
    shared = common() if program == "hostd" else []
    specs = [spec for option in shared for spec in _zsh_option(option)]
    lines.append("    _arguments -C \\")
    lines += [f"        {spec} \\" for spec in specs]
    lines.append(f"        '1:command:_{_identifier(program)}_commands' '*::argument:->rest'")
    lines += ["    [[ $state == rest ]] || return", "    case ${line[1]} in"]
    for command in found:
        specs = [spec for option in command.options for spec in _zsh_option(option)]
        specs += [_quoted(f":{argument.value}:{_zsh_values(argument)}") for argument in command.arguments]
        lines += [f"        {command.name}) _arguments \\"]
        lines += [f"            {spec} \\" for spec in specs]
        lines += ["            && return ;;"]
    lines += ["    esac", "}", "", f'_{_identifier(program)} "$@"']
    return "\n".join(lines) + "\n"


def _zsh_option(option: Option) -> list[str]:
    help_ = re.sub(r"([\[\]:])", r"\\\1", option.help)
    value = f":{option.value}:{_zsh_values(option)}" if option.value else ""
    return [_quoted(f"{word}[{help_}]{value}") for word in option.words]


def _zsh_values(option: Option) -> str:
    if option.choices:
        return f"({' '.join(option.choices)})"
    if option.value in _LISTS:
        return f"{{compadd -- $(_hostd_{_LISTS[option.value]})}}"
    if option.value in _FOLDERS:
        return "_files -/"
    return "_files" if option.value in _FILES else " "


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _identifier(program: str) -> str:
    return program.replace("-", "_") + "_command"


def print_for(shell: str, program: str) -> None:
    sys.stdout.write({"bash": bash, "zsh": zsh}[shell](program))


if __name__ == "__main__":
    print_for(*sys.argv[1:])
