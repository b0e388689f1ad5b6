"""An agent of ours as an OCF agent of API 1.1, for Pacemaker: one executable file.

Decides what stands in that file: meta-data as text (so that it is printed
without Python, by any user, whatever is missing), the interpreter and the
agent by their absolute paths, and the actions that are passed on to
``hostd.exported``.  It does not know what an action does.

Valid by resource-agents' ra-api-1.dtd and metadata.rng.
"""

import re
import sys
from pathlib import Path
from typing import Any, Final
from xml.sax.saxutils import escape, quoteattr

import hostd
from hostd.api import ConfigError, Field, Parameters

PROVIDER: Final = Path("/usr/lib/ocf/resource.d/hostd")
"""Where Pacemaker looks for agents of the provider hostd."""

_TEMPLATE: Final = """\
#!/bin/sh
#
# {name}: {summary}
# An OCF resource agent (API 1.1), written by hostd-agent export of hostd {version}.
# It runs hostd's agent without hostd's daemon; do not edit: export it again.
#
#   {agent}

PYTHON={python}
AGENT={agent_word}

reason() {{
	echo "${{OCF_EXIT_REASON_PREFIX-ocf-exit-reason:}}$1" >&2
}}

usage() {{
	echo "usage: $0 {{start|stop|monitor|validate-all|meta-data|usage}}"
}}

case "$1" in
meta-data)
	cat <<'END_OF_META_DATA'
{meta_data}
END_OF_META_DATA
	exit 0
	;;
usage|help)
	usage
	exit 0
	;;
start|stop|monitor|validate-all)
	;;
*)
	usage >&2
	exit 3
	;;
esac

for needed in "$PYTHON" "$AGENT"; do
	if [ ! -r "$needed" ]; then
		reason "$needed is not there: hostd is not installed as it was at the export"
		exit 5
	fi
done
exec "$PYTHON" -I -m hostd.exported "$AGENT" "$1"
"""


def script(name: str, agent: Path, parameters: Parameters, *, summary: str, python: str = sys.executable) -> str:
    """The text of the OCF agent.  ConfigError if the agent cannot be exported."""
    if not agent.is_absolute() or not agent.is_file():
        raise ConfigError(f"{name} is no file of its own ({agent}); only an agent in a file can be exported")
    return _TEMPLATE.format(
        name=name,
        summary=_one_line(summary),
        version=hostd.__version__,
        agent=agent,
        python=_word(python),
        agent_word=_word(str(agent)),
        meta_data=meta_data(name, parameters, summary=summary),
    )


def meta_data(name: str, parameters: Parameters, *, summary: str) -> str:
    """The XML of OCF for an agent's parameters and time limits."""
    long = f"{summary}. This is hostd's agent {name}, run without hostd."
    if parameters.exclusive_storage:
        long += " It writes data that two nodes must never write at once: use it with fencing."
    lines = [
        '<?xml version="1.0"?>',
        '<!DOCTYPE resource-agent SYSTEM "ra-api-1.dtd">',
        f'<resource-agent name={quoteattr(name)} version="{hostd.__version__}">',
        "<version>1.1</version>",
        f'<longdesc lang="en">{escape(long)}</longdesc>',
        f'<shortdesc lang="en">{escape(_one_line(summary))}</shortdesc>',
        "<parameters>",
        *(line for field in parameters.fields for line in _parameter(field)),
        "</parameters>",
        "<actions>",
        *_actions(parameters),
        "</actions>",
        "</resource-agent>",
    ]
    return "\n".join(lines)


def _parameter(field: Field) -> list[str]:
    kind, hint = _TYPES.get(field.type, ("string", ""))
    hints = [field.help, hint]
    if field.choices:
        hints.append(f"one of {', '.join(repr(choice) for choice in field.choices)}")
    if field.secret:
        hints.append("a secret: better given as @FILE, the file that holds it")
    default = "" if field.default is None or field.is_required or field.secret else _text(field.default)
    content = f'<content type="{kind}"' + (f" default={quoteattr(default)}" if default else "") + "/>"
    return [
        f'<parameter name={quoteattr(field.name)} required="{int(field.is_required)}" unique="0">',
        f'<longdesc lang="en">{escape("; ".join(filter(None, hints)) or field.name)}</longdesc>',
        f'<shortdesc lang="en">{escape(field.help or field.name)}</shortdesc>',
        content,
        "</parameter>",
    ]


_TYPES: Final[dict[Any, tuple[str, str]]] = {
    bool: ("boolean", ""),
    int: ("integer", ""),
    float: ("string", "a number"),
    list: ("string", 'separated by commas, or as TOML has it: ["one", "two, three"]'),
    dict: ("string", "a table as TOML has it: { name = value }"),
    Path: ("string", "an absolute path"),
}


def _text(value: Any) -> str:
    """A default as ``hostd.exported`` reads it back."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return str(value)


def _actions(parameters: Parameters) -> list[str]:
    limits = parameters.timeouts
    monitor = f'interval="{parameters.monitor_interval}" depth="{parameters.monitor_depth}"'
    return [
        f'<action name="start" timeout="{limits["start"]}"/>',
        f'<action name="stop" timeout="{limits["stop"]}"/>',
        f'<action name="monitor" timeout="{limits["monitor"]}" {monitor}/>',
        '<action name="validate-all" timeout="20s"/>',
        '<action name="meta-data" timeout="5s"/>',
        '<action name="usage" timeout="5s"/>',
    ]


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _word(path: str) -> str:
    """A path as one word of the shell, never anything else."""
    if not re.fullmatch(r"[A-Za-z0-9_./+@:-]+", path):
        raise ConfigError(f'"{path}" has characters that no path in a script should have; install hostd elsewhere')
    return path
