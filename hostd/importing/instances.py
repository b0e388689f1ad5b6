"""conf/OCF/TYPE/INSTANCE: the parameter file of ``OCF::TYPE::INSTANCE`` → parameters.

Decides which of its lines can be taken as they stand.  Heartbeat had a shell
read the file; nothing is run here, so what only a shell could work out is
refused, and so is what should not stand where it would be shown.
"""

import re
import shlex
from typing import Final

from hostd.importing import texts
from hostd.importing.fates import Ledger, Line

SECRET: Final = re.compile(r"passw|passphrase|secret|token|credential", re.IGNORECASE)
_SET: Final = re.compile(r"(?:export +)?(?:OCF_RESKEY_)?([A-Za-z_][A-Za-z0-9_]*)=(.*)")


def parameters(content: bytes, file: str, ledger: Ledger) -> dict[str, str]:
    """Name → value, without ``OCF_RESKEY_``.  Every line gets its fate."""
    found: dict[str, str] = {}
    for number, raw in enumerate(texts.decoded(content).split("\n"), 1):
        text = raw.strip(" \t\r")
        if not text or text.startswith("#"):
            continue
        match = _SET.fullmatch(text)
        if match is None:
            line = Line(file, number, texts.shown(text.partition("=")[0]))
            ledger.refused(line, "", "is no NAME=VALUE", "work out what the shell made of it, and write it into params")
            continue
        name, line = match[1], Line(file, number, f"{match[1]}=…" if SECRET.search(match[1]) else texts.shown(text))
        value = _value(match[2])
        if SECRET.search(name):
            cure = "write it into params by hand, and chmod 600 that file of conf.d"
            ledger.refused(line, name, "looks like a secret, and is not copied", cure)
        elif value is None or not texts.is_plain(value):
            cure = "write its value into params by hand"
            ledger.refused(line, name, "only a shell can work out its value", cure)
        else:
            found[name] = value
            ledger.converted(line, name, f'params {name} = "{value}"')
    return found


def _value(text: str) -> str | None:
    if re.search(r"[$`]", text):
        return None
    try:
        words = shlex.split(text, comments=True)
    except ValueError:
        return None
    return words[0] if len(words) == 1 else "" if not words else None
