"""``hostd report``: all that explains what happened here, in one archive without secrets.

Decides what goes in, and that what may hold a secret stays out: a file in
which a secret is left after all is left out and named.  Each part by itself:
what cannot be had is said in the archive and stops nothing else.
"""

import argparse
import contextlib
import datetime
import io
import json
import os
import platform
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from hostd.commands import ask, options, redaction
from hostd.commands.exits import ExitCode
from hostd.confd.values import counted

EPILOG: Final = """\
examples:
  hostd report                      hostd-report-NODE-DATE.tar.gz, of this node
  hostd report --ssh                of the other one, too, if root may log in there
  hostd report -o - | ssh admin 'cat > report.tar.gz'
  hostd replay hostd-report-*.tar.gz

In it, for each node: flight recorder, timeline, conf.d and what is secret in it
replaced by ***, status, hostd check, versions, evidence of actions that hung, the
last lines of the journal, interfaces and addresses. No key, no file of a secret."""

JOURNAL_LINES: Final = 5_000
FILE_MAX: Final = 32_000_000
COMMAND_MAX_S: Final = 20
PEER_MAX_S: Final = 90

Part = tuple[str, bytes]


def register(subparsers: Any) -> None:
    parser = options.add(subparsers, "report", "one archive with all that explains what happened", epilog=EPILOG)
    parser.add_argument(
        "-o", "--output", metavar="FILE", default="", help="default: a name with node and date; -: stdout"
    )
    parser.add_argument("--ssh", action="store_true", help="fetch the other node's part as root@NODE")
    parser.set_defaults(run=run)


def run(namespace: argparse.Namespace) -> int:
    node = options.node(namespace)
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    name = f"hostd-report-{node}-{stamp}"
    parts = list(_parts(namespace, node))
    codes = [ExitCode.DONE]
    if namespace.ssh:
        theirs, complaint = _of_peer(namespace, node)
        parts += theirs
        if complaint:
            print(complaint, file=sys.stderr)
            codes.append(ExitCode.NO)
    body = packed(name, parts)
    if namespace.output == "-":
        sys.stdout.buffer.write(body)
        return max(codes)
    path = Path(namespace.output or f"{name}.tar.gz")
    try:
        with open(path, "wb", opener=lambda file, flags: os.open(file, flags, 0o600)) as file:
            file.write(body)
    except OSError as error:
        print(f"{path}: {error.strerror}", file=sys.stderr)
        return ExitCode.WRONG_USE
    nodes = ", ".join(dict.fromkeys(part.partition("/")[0] for part, _ in parts))
    print(f"{path}: {counted(len(parts), 'file')} of {nodes}, {len(body) // 1024} kB")
    return max(codes)


def packed(name: str, parts: list[Part]) -> bytes:
    """A tar.gz; everything in it is root's, plain, and below one folder."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for part, body in parts:
            info = tarfile.TarInfo(f"{name}/{part}")
            info.size, info.mtime, info.mode = len(body), int(time.time()), 0o600
            tar.addfile(info, io.BytesIO(body))
    return out.getvalue()


def _parts(namespace: argparse.Namespace, node: str) -> Iterator[Part]:
    """This node's; a secret of conf.d is in none of them."""
    directories = options.directories(namespace)
    sources, secrets, left_out = redaction.of_configuration(directories)
    for file, text in sources.items():
        yield f"{node}/conf.d/{file}", text.encode()
    found: dict[str, Callable[[], bytes]] = {
        "status.json": lambda: _status(namespace),
        "check.txt": lambda: _hostd(namespace, "check"),
        "agents.txt": lambda: _hostd(namespace, "list", module="agent_main"),
        "ledger.json": lambda: _hostd(namespace, "ledger", "--json"),
        "versions.json": _versions,
        "journal.txt": lambda: _command(
            "journalctl", "--no-pager", "-o", "short-iso-precise", "-n", str(JOURNAL_LINES), "-u", "hostd"
        ),
        "addresses.txt": lambda: _command("ip", "-d", "address") + _command("ip", "route"),
        "processes.txt": lambda: _command("ps", "-eo", "pid,ppid,stat,wchan:20,comm", "--forest"),
    }
    for name in ("timeline.jsonl.1", "timeline.jsonl", "incarnation", "services.json", "told.json", "wishes.json"):
        found[name] = lambda name=name: (directories.state / name).read_bytes()  # type: ignore[misc]
    for path in sorted(directories.state.glob("flight-*.rec")):
        found[path.name] = path.read_bytes
    for path in sorted((directories.state / "evidence").glob("*"))[-20:]:
        found[f"evidence/{path.name}"] = path.read_bytes
    for name, read in found.items():
        try:
            body = read()
        except FileNotFoundError:
            continue
        except (OSError, subprocess.SubprocessError) as error:
            left_out.append(f"{name}: {error}")
            continue
        body = body[-FILE_MAX:]
        if not name.endswith(".rec"):
            body = redaction.without(body, secrets)
        elif redaction.is_in(body, secrets):
            left_out.append(f"{name}: a secret of conf.d is in it")
            continue
        yield f"{node}/{name}", body
    if left_out:
        yield f"{node}/left-out.txt", "".join(f"{line}\n" for line in left_out).encode()


def _status(namespace: argparse.Namespace) -> bytes:
    from hostd.requests import plain

    try:
        return json.dumps(plain(ask.status(options.runtime(namespace), retry_s=1.0)), indent=2).encode()
    except ask.Unanswered as error:
        return f"{error}\n".encode()


def _hostd(namespace: argparse.Namespace, *words: str, module: str = "main") -> bytes:
    """Another command of ours, in a process of its own: what it does wrong must not end the report."""
    places = [
        f"--config={options.directories(namespace).config}",
        f"--state-dir={options.directories(namespace).state}",
    ]
    places += [f"--runtime-dir={options.runtime(namespace)}", f"--node={options.node(namespace)}"]
    for kind in ("agents", "plugins"):
        places += [f"--{kind}={folder}" for folder in getattr(options.directories(namespace), kind)]
    return _command(sys.executable, "-m", f"hostd.commands.{module}", *words, *(places if module == "main" else ()))


def _command(*argv: str) -> bytes:
    """What it prints; a program that is not there is no file in the archive."""
    done = subprocess.run(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=COMMAND_MAX_S,
        check=False,
    )
    return done.stdout


def _versions() -> bytes:
    import hostd

    found = {"hostd": hostd.__version__, "python": sys.version, "machine": platform.platform(), "uptime_s": None}
    with contextlib.suppress(OSError):
        found["debian"] = Path("/etc/debian_version").read_text().strip()
        found["uptime_s"] = Path("/proc/uptime").read_text().split()[0]
    from importlib import metadata

    for name in ("pluggy", "pyroute2", "msgspec", "psutil", "pyserial", "cryptography", "toml"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return json.dumps(found, indent=2).encode()


def _of_peer(namespace: argparse.Namespace, node: str) -> tuple[list[Part], str]:
    """The other node's part as it makes it itself, and why there is none."""
    peers = [name for name in _nodes(namespace, node) if name != node]
    if len(peers) != 1:
        return [], "the other node is not asked: neither hostd here nor conf.d tells its name"
    peer = peers[0]
    cure = f"try ssh root@{peer} hostd report -o - | wc -c, or make it there: hostd report"
    argv = ["ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", f"root@{peer}", "hostd report -o -"]
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=PEER_MAX_S, check=False)
        if not done.stdout:  # 1 is a report with something missing, which it says itself
            return [], f"{peer} gave no report: {_last(done.stderr) or f'ssh ended with {done.returncode}'}; {cure}"
        with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
            members = [member for member in tar if member.isreg() and member.size <= FILE_MAX]
            names = [f"{peer}/" + "/".join(Path(member.name).parts[2:]) for member in members]
            bodies = [source.read() for member in members if (source := tar.extractfile(member)) is not None]
    except (OSError, subprocess.SubprocessError, tarfile.TarError) as error:
        reason = "it took too long" if isinstance(error, subprocess.TimeoutExpired) else "what came is no report"
        return [], f"{peer} gave no report: {error.strerror if isinstance(error, OSError) else reason}; {cure}"
    return [(name, body) for name, body in zip(names, bodies, strict=True) if ".." not in name], ""


def _nodes(namespace: argparse.Namespace, node: str) -> tuple[str, ...]:
    """Of the daemon, and if that is down, of conf.d."""
    try:
        return tuple(ask.status(options.runtime(namespace)).nodes)
    except ask.Unanswered:
        from hostd.config import examine
        from hostd.registry import Registry

        directories = options.directories(namespace)
        registry = Registry.load(directories)
        found = examine(directories.config, node, registry.parameters, registry.link_types()).configuration
        return found.plan.nodes if found is not None else ()


def _last(output: bytes) -> str:
    """The last line that a program printed."""
    lines = output.decode(errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else ""
