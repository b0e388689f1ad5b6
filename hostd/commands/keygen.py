"""``hostd keygen``: makes the cluster key.

Parses, calls ``hostd.keys``, says what to do with the file.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from hostd.api import ConfigError
from hostd.commands import options
from hostd.commands.exits import ExitCode

DESCRIPTION = """\
Makes the key with which heartbeats are sealed, in a new file of mode 0600.
Both nodes need the same file. A file that is there is never overwritten."""

EPILOG = """\
examples:
  hostd keygen                                    /etc/hostd/cluster.key
  hostd keygen ./cluster.key
  scp -p /etc/hostd/cluster.key clustnode2:/etc/hostd/

to replace a key without a break, add the new line below the old one on both
nodes, then put it above the old one, then remove the old one; after each step
`hostd detach` and start hostd again on one node after the other"""


def register(subparsers: Any) -> None:
    """Add this command to ``hostd``."""
    parser = options.add(subparsers, "keygen", "make the cluster key", description=DESCRIPTION, epilog=EPILOG)
    parser.add_argument(
        "file",
        nargs="?",
        type=Path,
        default=Path("/etc/hostd/cluster.key"),
        metavar="FILE",
        help="default: /etc/hostd/cluster.key",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Make it, and return the exit code."""
    from hostd import keys

    file: Path = args.file
    try:
        keys.make(file)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return ExitCode.WRONG_USE
    print(f"{file} made (mode 0600). The other node needs the same file:")
    print(f"  scp -p {file} OTHERNODE:{file.absolute()}")
    return ExitCode.DONE
