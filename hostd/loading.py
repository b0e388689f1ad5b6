"""One extension file → one module, or the reason why not.

Decides which folders are looked into, whom a file must belong to, and
whether what is in it keeps to the hooks.  It never calls a hook and does not
know what an agent is good for; ``hostd.registry`` does.

A file is compiled from the very bytes whose owner was checked: no byte code
of somebody else's making is read, and none is written.
"""

import difflib
import inspect
import os
import re
import stat
import sys
import tomllib
import traceback
import types
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, Final, NamedTuple

import hostd
from hostd import hookspecs

SYSTEM: Final = Path("/etc/hostd")
"""Where the operator drops extensions; the only folders whose owner is checked."""

FILE_SIZE_MAX: Final = 1_000_000
"""An extension of ours has some 5 kB; a file beyond this is no extension."""

_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_PREFIX: Final = "_hostd_extension_"
"""Private names in sys.modules, so that ``agents/ldap.py`` never hides a library ``ldap``."""


class LoadError(Exception):
    """This extension cannot be used: the reason, in one line."""


class Origin(NamedTuple):
    """Where an extension may come from, weakest first in :func:`origins`."""

    folder: Path
    checked: bool
    """True: refuse what others than root may change.  False: warn only."""


def origins(kind: str, named: tuple[Path, ...], system: Path = SYSTEM) -> list[Origin]:
    """The folders for ``kind`` ("agents" or "plugins"); a later one overrides an earlier one."""
    bundled = bundled_folder(kind)
    found = [Origin(bundled, checked=False)] if bundled else []
    found.append(Origin(system / kind, checked=True))
    return found + [Origin(folder, checked=False) for folder in named]


def bundled_folder(kind: str) -> Path | None:
    """The extensions that came with hostd: in the wheel, else in the checkout it runs from."""
    package = Path(hostd.__file__).resolve().parent
    if (package / "_bundled" / kind).is_dir():
        return package / "_bundled" / kind
    settings = package.parent / "pyproject.toml"
    try:
        project = tomllib.loads(settings.read_text()).get("project", {})
    except (OSError, tomllib.TOMLDecodeError):
        return None  # installed beside something else: a folder called "agents" there is not ours
    beside = package.parent / kind
    return beside if project.get("name") == "hostd" and beside.is_dir() else None


def files(folder: Path) -> list[Path]:
    """The extension files of a folder in name order; none if there is no such folder."""
    try:
        entries = sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [e for e in entries if e.suffix == ".py" and not e.name.startswith((".", "_"))]


def loose(path: Path) -> str:
    """Why others than root could change what ``path`` names, or "" if they cannot.

    Looks at the path and at all its parents, and at what they lead to if they
    are links.  A sticky folder (``/tmp``) protects what others own in it.
    """
    absolute = path.absolute()
    for each in dict.fromkeys([absolute, *absolute.parents, absolute.resolve(), *absolute.resolve().parents]):
        status = each.stat()
        if status.st_uid != 0:
            return f"{each} belongs to uid {status.st_uid}, not to root; chown root {each}"
        if each.is_dir() and status.st_mode & stat.S_ISVTX:
            continue
        if status.st_mode & stat.S_IWOTH or (status.st_mode & stat.S_IWGRP and status.st_gid != 0):
            mode = stat.S_IMODE(status.st_mode)
            return f"{each} may be written by others than root (mode {mode:04o}); chmod go-w {each}"
    return ""


def load_file(path: Path, checked: bool) -> types.ModuleType:
    """Execute the file in a module of its own.  Raises LoadError with the reason in one line."""
    if not _NAME.fullmatch(path.stem):
        raise LoadError(f'"{path.stem}" is no name for an extension; use letters, digits, "_" and "-"')
    try:
        source = _read(path, checked)
    except OSError as error:
        raise LoadError(f"cannot be read: {error.strerror}") from error
    module = types.ModuleType(_PREFIX + re.sub(r"\W", "_", str(path)))
    module.__file__ = str(path)
    sys.modules[module.__name__] = module
    try:
        exec(compile(source, str(path), "exec", dont_inherit=True), module.__dict__)  # noqa: S102 - this is what loading is
    except BaseException as error:  # the edge: a file may raise whatever it likes
        del sys.modules[module.__name__]
        if isinstance(error, KeyboardInterrupt):
            raise
        raise LoadError(last_line(error, path)) from error
    return module


def _read(path: Path, checked: bool) -> bytes:
    with path.open("rb") as file:
        if checked and (reason := loose(path)):
            raise LoadError(f"refused: {reason}")
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise LoadError("is no regular file")
        if status.st_size > FILE_SIZE_MAX:
            raise LoadError(f"has {status.st_size} bytes; more than {FILE_SIZE_MAX} is no extension")
        return file.read(FILE_SIZE_MAX)


def last_line(error: BaseException, path: Path | None = None) -> str:
    """A traceback's last line, with the line of ``path`` (or the innermost place) where it happened."""
    said = traceback.format_exception_only(error)[-1].strip()
    if isinstance(error, SyntaxError):
        return f"{said} (line {error.lineno})" if error.lineno else said
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if path is not None and frame.filename == str(path)]
    if not frames:
        return said
    frame = (own or frames)[-1]
    return f"{said} ({Path(frame.filename).name}, line {frame.lineno})"


def entry_points(group: str) -> Iterator[tuple[str, str, Callable[[], Any]]]:
    """Name, where from, and how to load, of each entry point; loading one may raise anything."""
    for entry in metadata.entry_points(group=group):
        package = entry.dist.name if entry.dist else "?"
        yield entry.name, f"{entry.value} of package {package}", entry.load


# -- does it keep to the hooks? ---------------------------------------------------


def hooks(module: Any) -> dict[str, Any]:
    """The functions of a module that are marked with ``@hookimpl``."""
    members = {name: getattr(module, name, None) for name in dir(module)}
    return {n: f for n, f in members.items() if inspect.isroutine(f) and hasattr(f, "hostd_impl")}


def is_wrapper(function: Any) -> bool:
    return bool(function.hostd_impl.get("wrapper") or function.hostd_impl.get("hookwrapper"))


def agent_complaints(module: Any) -> list[str]:
    """What keeps a module from being an agent, each a sentence."""
    found = hooks(module)
    required = ("start", "stop", "monitor")
    if not found:
        return [_unmarked(module, required)]
    complaints = _signature_complaints(found, specified(hookspecs.AgentSpec))
    complaints += [f"a wrapper ({n}) belongs into a plugin" for n, f in found.items() if is_wrapper(f)]
    missing = [name for name in required if name not in found]
    if missing:
        complaints.append(f"has no hook {', '.join(missing)}; an agent must have start, stop and monitor")
    return complaints


def plugin_complaints(module: Any) -> list[str]:
    """What keeps a module from being a plugin, each a sentence."""
    found = hooks(module)
    own, agents = specified(hookspecs.PluginSpec), specified(hookspecs.AgentSpec)
    if not found:
        return [_unmarked(module, tuple(own))]
    complaints = _signature_complaints(found, own | agents)
    complaints += [
        f"{place(function)}: {name} answers for every agent; a plugin may only wrap it (wrapper=True)"
        for name, function in found.items()
        if name in agents and not is_wrapper(function)
    ]
    return complaints


def specified(specification: type) -> dict[str, tuple[str, ...]]:
    """The hooks of a specification and the arguments of each."""
    return {
        name: tuple(inspect.signature(function).parameters)[1:]
        for name, function in vars(specification).items()
        if hasattr(function, "hostd_spec")
    }


def place(function: Any) -> str:
    code = function.__code__
    return f"{Path(code.co_filename).name}, line {code.co_firstlineno}"


def _unmarked(module: Any, names: tuple[str, ...]) -> str:
    plain = [name for name in names if inspect.isroutine(getattr(module, name, None))]
    if plain:
        return f"has no hooks: {', '.join(plain)} lack the mark @hookimpl (from hostd.api import hookimpl)"
    wanted = ", ".join(names)
    return f"has no hooks; mark its functions ({wanted}) with @hookimpl (from hostd.api import hookimpl)"


def _signature_complaints(found: dict[str, Any], known: dict[str, tuple[str, ...]]) -> list[str]:
    complaints = []
    for name, function in found.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            cure = f'; did you mean "{near[0]}"?' if near else f"; known are {', '.join(known)}"
            complaints.append(f'{place(function)}: unknown hook "{name}"{cure}')
            continue
        complaints += [f"{place(function)}: {c}" for c in _mistakes(name, function, known[name])]
    return complaints


def _mistakes(name: str, function: Any, arguments: tuple[str, ...]) -> list[str]:
    mistakes = []
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        mistakes.append(f"{name} is async; hooks are plain functions, called in a process of their own")
    if inspect.isgeneratorfunction(function) and not is_wrapper(function):
        mistakes.append(f"{name} yields but is no wrapper; return instead")
    for argument in inspect.signature(function).parameters.values():
        if argument.kind in (argument.VAR_POSITIONAL, argument.VAR_KEYWORD, argument.KEYWORD_ONLY):
            mistakes.append(f"{name} takes {argument}; write out the plain arguments ({', '.join(arguments)})")
        elif argument.name not in arguments:
            near = difflib.get_close_matches(argument.name, arguments, n=1, cutoff=0.3)
            hint = f'; did you mean "{near[0]}"?' if near else ""
            mistakes.append(
                f'{name} takes an argument "{argument.name}" that the hook does not have '
                f"(it has: {', '.join(arguments) or 'none'}){hint}"
            )
        elif argument.default is not argument.empty:
            mistakes.append(f'{name} gives argument "{argument.name}" a default; a hook takes none')
    return mistakes
