"""Options that most commands share, and where their values come from.

Decides the precedence: command line, environment, default.
"""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from hostd.config import Directories

RUNTIME: Final = Path("/run/hostd")


def common() -> argparse.ArgumentParser:
    """A parent parser.  No option has a default here (SUPPRESS), so that one
    given before the command is not undone by the command's own parser."""
    parser = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    group = parser.add_argument_group("where things are")
    group.add_argument("--config", type=Path, metavar="DIR", help="default: $HOSTD_CONFIG or /etc/hostd/conf.d")
    group.add_argument(
        "--agents", type=Path, action="append", metavar="DIR", help="more agents; may be given several times"
    )
    group.add_argument(
        "--plugins", type=Path, action="append", metavar="DIR", help="more plugins; may be given several times"
    )
    group.add_argument("--runtime-dir", type=Path, metavar="DIR", help="default: $HOSTD_RUNTIME_DIR or /run/hostd")
    group.add_argument("--state-dir", type=Path, metavar="DIR", help="default: $HOSTD_STATE_DIR or /var/lib/hostd")
    group.add_argument("--node", metavar="NAME", help="this node; default: $HOSTD_NODE or `uname -n`")
    return parser


def add(subparsers: Any, name: str, summary: str, **more: Any) -> argparse.ArgumentParser:
    """A command's own parser, with the common options; ``more`` as for ArgumentParser."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        name,
        help=summary,
        description=more.pop("description", summary[0].upper() + summary[1:] + "."),
        parents=[common()],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        **more,
    )
    return parser


def runtime(namespace: argparse.Namespace) -> Path:
    """The directory of the control socket."""
    return _path(namespace, "runtime_dir", "HOSTD_RUNTIME_DIR", RUNTIME)


def directories(namespace: argparse.Namespace) -> "Directories":
    """All directories."""
    from hostd.config import Directories

    usual = Directories()
    return Directories(
        config=_path(namespace, "config", "HOSTD_CONFIG", usual.config),
        agents=tuple(getattr(namespace, "agents", None) or ()),
        plugins=tuple(getattr(namespace, "plugins", None) or ()),
        runtime=runtime(namespace),
        state=_path(namespace, "state_dir", "HOSTD_STATE_DIR", usual.state),
    )


def names_config(namespace: argparse.Namespace) -> bool:
    """The operator says which conf.d is meant."""
    return bool(getattr(namespace, "config", None) or os.environ.get("HOSTD_CONFIG"))


def node(namespace: argparse.Namespace) -> str:
    """The name of this node."""
    return getattr(namespace, "node", None) or os.environ.get("HOSTD_NODE") or os.uname().nodename


def _path(namespace: argparse.Namespace, option: str, variable: str, usual: Path) -> Path:
    given = getattr(namespace, option, None) or os.environ.get(variable)
    return Path(given) if given else usual
