"""``hostd import``: Heartbeat's /etc/ha.d → conf.d, with the fate of every line.

Parses, asks ``hostd.importing``, prints.  Runs nothing of what it reads, and
overwrites nothing.
"""

import argparse
import ipaddress
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hostd.api import ConfigError
from hostd.commands import options
from hostd.commands.exits import ExitCode

if TYPE_CHECKING:
    from hostd.confd.complain import Complaint
    from hostd.importing.conversion import Result, Wish

DESCRIPTION = """\
Converts ha.cf, haresources, authkeys and resource.d of Linux-HA Heartbeat.
Every line gets its fate: converted, converted with a warning, not needed, or
refused with the reason and the cure. Reads only; nothing is started or stopped.

With -o the files go into a new or empty directory, with a new key; without it
they are printed. What is refused is missing in them until it is cured."""

EPILOG = """\
examples:
  hostd import /etc/ha.d --check               what would become of it?
  hostd import /etc/ha.d                       and the files, printed
  hostd import /etc/ha.d --peer ./other/ha.d   compared with the other node's
  hostd import /etc/ha.d -o /etc/hostd/conf.d  written, then: hostd check
  hostd import ./old/ha.d --address node1=10.0.0.1 --address node2=10.0.0.2

exit code: 0 everything was converted (warnings at most), 1 something was
refused, 2 there is nothing to convert, or the output directory is not empty"""


def register(subparsers: Any) -> None:
    """Add this command to ``hostd``."""
    summary = "convert Heartbeat's /etc/ha.d to conf.d"
    parser = options.add(subparsers, "import", summary, description=DESCRIPTION, epilog=EPILOG)
    parser.add_argument("directory", type=Path, metavar="DIR", help="Heartbeat's directory, such as /etc/ha.d")
    parser.add_argument("--peer", type=Path, metavar="DIR", help="the other node's, to be compared")
    parser.add_argument("-o", "--output", type=Path, metavar="OUT", help="write the files there")
    parser.add_argument("--check", action="store_true", help="only report")
    parser.add_argument(
        "--address",
        action="append",
        default=[],
        metavar="NODE=ADDRESS",
        help="a node's own address, where ucast names the other's only; may be given several times",
    )
    parser.add_argument(
        "--keep-scripts", action="store_true", help="keep init scripts where hostd has an agent of its own"
    )
    parser.add_argument("--json", action="store_true", help="facts for tools")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Convert, print, perhaps write, and return the exit code."""
    from hostd.commands import import_report
    from hostd.importing.conversion import convert
    from hostd.importing.fates import Verdict
    from hostd.registry import Registry

    try:
        if args.output is not None and not args.check:
            _refuse_what_is_there(args.output)
        registry = Registry.load(options.directories(args))
        result = convert(_wish(args, frozenset(registry.agents)))
        complaints = _examined(args, result, registry)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return ExitCode.WRONG_USE
    is_written = args.output is not None and not args.check and bool(result.files)
    if args.json:
        print(json.dumps(import_report.facts(result, complaints), indent=2))
    else:
        report = import_report.Report(args.directory, result, complaints, is_local=_is_local(result))
        report.everything(args.output if is_written else None, with_files=not args.check)
    is_refused = result.ledger.count(Verdict.REFUSED) > 0 or any(complaint.is_fatal for complaint in complaints)
    return ExitCode.NO if is_refused else ExitCode.DONE


def _wish(args: argparse.Namespace, agents: frozenset[str]) -> "Wish":
    from hostd.importing.conversion import Wish

    node = options.node(args)
    own: dict[str, list[str]] = {}
    if node.lower() == os.uname().nodename.lower():
        own = _interfaces()
    return Wish(
        directory=args.directory,
        peer=args.peer,
        node=node,
        agents=agents,
        keep_scripts=args.keep_scripts,
        addresses=_addresses(args.address),
        interfaces=own,
    )


def _addresses(given: list[str]) -> dict[str, list[str]]:
    """``NODE=ADDRESS`` of the command line."""
    found: dict[str, list[str]] = {}
    for text in given:
        node, _, address = text.partition("=")
        try:
            canonical = str(ipaddress.ip_address(address))
        except ValueError:
            raise ConfigError(
                f"--address {text}: is not NODE=ADDRESS; write it so: --address node1=192.168.1.1"
            ) from None
        found.setdefault(node.lower(), []).append(canonical)
    return found


def _interfaces() -> dict[str, list[str]]:
    """This machine's addresses, by interface."""
    import socket

    import psutil

    return {
        name: [
            address.address.partition("%")[0]
            for address in addresses
            if address.family in (socket.AF_INET, socket.AF_INET6)
        ]
        for name, addresses in psutil.net_if_addrs().items()
    }


def _is_local(result: "Result") -> bool:
    return result.here is not None and result.here == os.uname().nodename.lower()


def _refuse_what_is_there(output: Path) -> None:
    """Nothing is ever overwritten."""
    try:
        entries = sorted(entry.name for entry in output.iterdir())
    except FileNotFoundError:
        return
    except OSError as error:
        raise ConfigError(f"{output}: {error.strerror}; name a directory that is new or empty") from error
    if entries:
        raise ConfigError(
            f"{output}: is not empty (it has {entries[0]}), and nothing is overwritten;"
            " name a new directory, or empty it"
        )


def _examined(args: argparse.Namespace, result: "Result", registry: Any) -> "tuple[Complaint, ...]":
    """Write the files, to where they are wanted or for the moment of a look, and say what is wrong with them."""
    from hostd import keys
    from hostd.importing import proof
    from hostd.importing.conversion import KEY_FILE

    if not result.files:
        return ()
    with tempfile.TemporaryDirectory(prefix="hostd-import-") as scratch:
        proof.write(result.files, Path(scratch))
        complaints = proof.complaints(Path(scratch), result.nodes, registry)
    if args.output is not None and not args.check:
        try:
            args.output.mkdir(parents=True, exist_ok=True)
            proof.write(result.files, args.output)
        except OSError as error:
            raise ConfigError(f"{args.output}: cannot be written: {error.strerror}; name another directory") from error
        keys.make(args.output / KEY_FILE)
    return complaints
