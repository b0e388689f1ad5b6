"""What of conf.d is secret, and the same texts without it.

Decides by names: a key that sounds like a secret (password, token, key, …)
and what an agent marks as one.  The file is read as TOML to find the values,
and replaced as text, so that comments and order stay; if a value is left
after all, the file is not given away.
"""

import re
import tomllib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from hostd.config import Directories

HIDDEN: Final = "***"
SECRET_NAME: Final = re.compile(
    r"pass(word|wd|phrase)?$|passw|secret|token|credential|community|authorization|^key$|[_-]key$|pwd", re.I
)
SHORT: Final = 4
"""Values shorter than this are hidden in their own line only: elsewhere they would hit innocent text."""


def of_configuration(directories: "Directories") -> tuple[dict[str, str], set[str], list[str]]:
    """File → its text without secrets; the secret values; what was left out, and why."""
    texts: dict[str, str] = {}
    secrets: set[str] = set()
    left_out: list[str] = []
    marked = _marked(directories)
    for path in sorted(directories.config.glob("*.toml")):
        try:
            text = path.read_text()
            found = {value for _, value in _secrets(tomllib.loads(text), marked)}
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            left_out.append(f"conf.d/{path.name}: it cannot be read, so it may hold secrets: {error}")
            continue
        texts[path.name] = text
        secrets |= found
    for name, text in list(texts.items()):
        hidden = _hidden(text, secrets, marked)
        try:
            left = [key for key, value in _secrets(tomllib.loads(hidden), marked) if value != HIDDEN]
        except tomllib.TOMLDecodeError:
            left = ["a value"]
        if left:
            left_out.append(f"conf.d/{name}: {left[0]} could not be hidden")
            del texts[name]
        else:
            texts[name] = hidden
    return texts, {value for value in secrets if len(value) >= SHORT}, left_out


def without(body: bytes, secrets: set[str]) -> bytes:
    """The same with every secret replaced, the longest first."""
    for secret in sorted(secrets, key=len, reverse=True):
        body = body.replace(secret.encode(), HIDDEN.encode())
    return body


def is_in(body: bytes, secrets: set[str]) -> bool:
    return any(secret.encode() in body for secret in secrets)


def _marked(directories: "Directories") -> frozenset[str]:
    """Names of parameters that some agent calls a secret."""
    from hostd.api import ConfigError
    from hostd.registry import Registry

    found: set[str] = set()
    registry = Registry.load(directories)
    for name, agent in registry.agents.items():
        try:
            found |= {field.name for field in agent.parameters(name).fields if field.secret}
        except ConfigError:  # it needs more than its bare name; then names alone decide
            continue
    return frozenset(found)


def _secrets(tree: Any, marked: frozenset[str], name: str = "") -> Iterator[tuple[str, str]]:
    """Each secret by its key.  What stands in a table ``secrets`` is the path of a file, and may be shown."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            if key == "secrets" or (name == "cluster" and key == "key"):
                continue
            if key == "notify":
                yield from _hooks(value)
            inherited = name if _is_secret(name, marked) else key
            yield from _secrets(value, marked, inherited)
    elif isinstance(tree, list):
        for item in tree:
            yield from _secrets(item, marked, name)
    elif isinstance(tree, str) and tree and _is_secret(name, marked):
        yield name, tree


def _hooks(notifiers: Any) -> Iterator[tuple[str, str]]:
    """The URLs of webhooks, in which chat services have their tokens."""
    for notifier in notifiers if isinstance(notifiers, list) else ():
        params = notifier.get("params") if isinstance(notifier, dict) else None
        url = params.get("url") if isinstance(params, dict) else None
        if isinstance(url, str) and url:
            yield "url", url


def _is_secret(name: str, marked: frozenset[str]) -> bool:
    return name in marked or SECRET_NAME.search(name) is not None


_QUOTED: Final = r'"""(?:[^"\\]|\\.|"(?!""))*"""|\'\'\'.*?\'\'\'|"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\''
_KEY_AND_VALUE: Final = re.compile(rf'((?<![\w-])"?([A-Za-z0-9_-]+)"?\s*=\s*)({_QUOTED})', re.S)


def _hidden(text: str, secrets: set[str], marked: frozenset[str]) -> str:
    """Values of secret keys as they stand there, in whatever quotes, comments included; then the same
    values elsewhere.  A path that is nobody's secret is the place of one, and stays."""

    def hide(match: "re.Match[str]") -> str:
        try:
            value = tomllib.loads(f"x = {match[3]}")["x"]
        except tomllib.TOMLDecodeError:
            value = ""
        is_place = value.startswith("/") and value not in secrets
        return match[0] if is_place or not _is_secret(match[2], marked) else f'{match[1]}"{HIDDEN}"'

    shown = _KEY_AND_VALUE.sub(hide, text)
    return without(shown.encode(), {value for value in secrets if len(value) >= SHORT}).decode()
