"""What of [[notify]] would not work on this machine, or is open to others (a part of ``hostd check``).

Decides by the files that it names: those of secrets as strictly as a delivery
does, programs whether they are there, and a file of conf.d that holds a secret
itself, which others must not read.  Tells nobody anything.
"""

import math
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from hostd.api import AgentError, Notice, Parameters
from hostd.confd.complain import Complaints
from hostd.config import Notifier

_TELLING: Final = re.compile(r"authorization|password|passwd|secret|token|credential|api.?key", re.IGNORECASE)
"""Names of headers and variables whose values are secrets."""
_LONG: Final = 20
"""A part of a URL's path that is longer is no word but a token, as in the hooks of chat services."""


def everything(
    notifiers: tuple[Notifier, ...], types: Mapping[str, Parameters], directory: Path, complaints: Complaints
) -> None:
    for number, notifier in enumerate(notifiers):
        path = ("notify", number)
        for name in notifier.secrets:
            try:
                _notice(notifier).secret(name)
            except AgentError as error:
                complaints.error((*path, "secrets"), error.reason, error.cure)
        for field in types[notifier.type].fields if notifier.type in types else ():
            value = notifier.params.get(field.name)
            if isinstance(value, Path) and value != field.default and not value.exists():
                rule = f"({field.name}) is not there"
                complaints.error((*path, "params"), rule, "make it, or correct the path", value=str(value))
        open_to = readable(directory / complaints.place(path).file)
        for name in _secrets(notifier.params) if open_to else ():
            rule = f"({name}) holds a secret, and others may read {open_to}"
            cure = f"put it into a file of its own under secrets, or chmod 600 {open_to}"
            complaints.warn((*path, "params"), rule, cure)


def _notice(notifier: Notifier) -> Notice:
    """A notice of nothing: its secrets are read as those of a real one."""
    return Notice(
        type=notifier.type, params=notifier.params, secrets=notifier.secrets, kind="", event="", fields={}, text="",
        cluster="", node="", serial=0, at=0.0, dropped=0, deadline=math.inf,
    )  # fmt: skip


def readable(file: Path) -> Path | None:
    """The file, if others than its owner may read it."""
    return file if file.is_file() and stat.S_IMODE(file.stat().st_mode) & 0o044 else None


def _secrets(params: Mapping[str, Any]) -> Iterator[str]:
    """Names of parameters whose values, as they stand in conf.d, are secrets or have one in them."""
    for name, value in params.items():
        if isinstance(value, Mapping):
            yield from (f"{name}.{key}" for key in value if _TELLING.search(str(key)))
        elif isinstance(value, str) and "://" in value:
            url = urlsplit(value)
            words = [*url.path.split("/"), *url.query.split("&")]
            if url.password or _TELLING.search(url.query) or any(len(word) > _LONG for word in words):
                yield name
