"""The door of ``hostd``: which command is meant?

Imports the one module of the command that was asked for and no other, so
that ``hostd --help`` and completion answer at once.
"""

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import Final, NamedTuple

import hostd
from hostd.commands import options
from hostd.commands.exits import ExitCode


class Entry(NamedTuple):
    module: str
    summary: str


COMMANDS: Final = {
    "run": Entry("run", "the daemon in the foreground (what systemd starts)"),
    "check": Entry("check", "validate conf.d, agents, plugins, key, and this machine"),
    "status": Entry("status", "nodes, links, services, problems; works on any node"),
    "why": Entry("why", "why a service runs where it runs, or does not"),
    "log": Entry("log", "the cluster's timeline: one line per event"),
    "ledger": Entry("ledger", "each recovery on this node, phase by phase"),
    "report": Entry("report", "one archive with all that explains what happened"),
    "replay": Entry("replay", "run recorded events through the core again"),
    "metrics": Entry("metrics", "the metrics of this node, in Prometheus' format"),
    "move": Entry("move", "move a service to the other node, once"),
    "standby": Entry("standby", "empty a node"),
    "online": Entry("standby", "take a node back"),
    "stop": Entry("service", "stop a service and keep it stopped"),
    "start": Entry("service", "end of an operator's stop"),
    "maintenance": Entry("maintenance", "hands off: no start, stop or recovery"),
    "cleanup": Entry("service", "forget a service's failures, probe again"),
    "confirm-down": Entry("confirm_down", "confirm that a silent node is off"),
    "plan": Entry("plan", "what a reload of the present files would do"),
    "reload": Entry("reload", "read conf.d again; touches only what changed"),
    "fence": Entry("fence", "shoot a node, or see whether it could be shot"),
    "leave": Entry("leave", "move everything away, say goodbye, exit"),
    "detach": Entry("leave", "exit and leave the services running, for an upgrade"),
    "keygen": Entry("keygen", "make the cluster key"),
    "import": Entry("import_", "convert Heartbeat's /etc/ha.d to conf.d"),
    "simulate": Entry("simulate", "what would happen to this conf.d if something failed?"),
}
"""Command → the module that registers it."""

EXAMPLES: Final = """\
examples:
  hostd check                  would this conf.d work here?
  hostd status                 what runs where, and what is wrong
  hostd status --watch         the same, again and again
  hostd why mysql              why is it there, or not?
  hostd move mysql             to its primary, or if there, to the next node
  hostd plan                   what would the changed files do?
  hostd standby clustnode2     empty a node before working on it
  hostd COMMAND --help         more, with examples

exit codes: 0 done or healthy, 1 the answer is no, 2 wrong use or bad
configuration, 3 the daemon is not reachable, 4 refused for safety"""


def parser_for(name: str | None) -> argparse.ArgumentParser:
    """The whole parser; only the module of command ``name`` is imported."""
    parser = argparse.ArgumentParser(
        prog="hostd",
        description="High availability for two nodes: heartbeat, IP takeover, services.",
        epilog=EXAMPLES,
        parents=[options.common()],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"hostd {hostd.__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command", required=True)
    chosen = COMMANDS[name].module if name is not None else None
    if chosen is not None:
        importlib.import_module(f"hostd.commands.{chosen}").register(subparsers)
    for command, entry in COMMANDS.items():
        if entry.module != chosen:
            subparsers.add_parser(command, help=entry.summary, add_help=False)
    return parser


def command_in(words: Sequence[str]) -> str | None:
    """The command among the words: the first that is neither an option nor an option's value."""
    takes_value = {
        option for action in options.common()._actions if action.nargs != 0 for option in action.option_strings
    }
    is_value = False
    for word in words:
        if not is_value and not word.startswith("-"):
            return word if word in COMMANDS else None
        is_value = not is_value and word in takes_value
    return None


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    namespace = parser_for(command_in(words)).parse_args(words)
    try:
        return int(namespace.run(namespace))
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 130
    except BrokenPipeError:  # `hostd log | head`
        sys.stderr.close()
        return ExitCode.DONE


if __name__ == "__main__":
    sys.exit(main())
