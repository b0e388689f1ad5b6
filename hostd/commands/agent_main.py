"""``hostd-agent``: finds, shows and runs agents without the daemon."""

import argparse
import sys
from collections.abc import Callable, Sequence

import hostd
from hostd.commands import agent_export, agent_list, agent_new, agent_run, agent_show, agent_test

EXAMPLES = """examples:
  hostd-agent list
  hostd-agent show httpd
  hostd-agent run httpd monitor config=/srv/httpd.conf
  hostd-agent run ./my_agent.py start seconds=5
  hostd-agent new my_agent
  hostd-agent test ./my_agent.py
  hostd-agent export httpd ./agents

exit codes: 0 done or healthy, 1 the answer is no, 2 wrong use or bad configuration,
4 refused for safety
"""


def parser() -> argparse.ArgumentParser:
    """Of the whole command."""
    top = argparse.ArgumentParser(
        prog="hostd-agent",
        description="Resource agents: what is found, what may be set, one action by hand, the proof.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"hostd-agent {hostd.__version__}")
    subparsers = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in (agent_list, agent_show, agent_run, agent_test, agent_new, agent_export):
        command.register(subparsers)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    top = parser()
    namespace, more = top.parse_known_args(argv)
    if more and hasattr(namespace, "params") and all("=" in word and word[0] != "-" for word in more):
        namespace.params += more  # argparse takes no key=value that comes after an option
    elif more:
        top.error(f"unrecognized arguments: {' '.join(more)}")
    run: Callable[[argparse.Namespace], int] = namespace.run
    try:
        return run(namespace)
    except BrokenPipeError:
        sys.stderr.close()  # whoever read our output has had enough
        return 0


if __name__ == "__main__":
    sys.exit(main())
