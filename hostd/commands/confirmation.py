"""The operator types a node's name before what cannot be taken back is done to it.

Decides what counts as confirmed: the name itself, from a terminal.  Refuses to
know what is done then.
"""

import sys


def is_typed(node: str, warning: str, purpose: str) -> bool:
    """Warn, and ask for the node's name: "Type the node's name to ``purpose``: ".  Says why, if it is not confirmed."""
    if not sys.stdin.isatty():
        print("refused for safety: nobody is there to type the node's name; override: --yes", file=sys.stderr)
        return False
    print(warning)
    try:
        typed = input(f"Type the node's name to {purpose}: ")
    except EOFError:
        print()  # the prompt's line is still open
        typed = ""
    if typed.strip() != node:
        print("not confirmed", file=sys.stderr)
        return False
    return True
