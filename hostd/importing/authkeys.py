"""authkeys: nothing of it is taken over, and why.

Decides the fate of each line.  The keys are read to be judged and compared
only; none is ever shown or kept.
"""

import re
from pathlib import Path
from typing import Final

from hostd.importing import texts
from hostd.importing.fates import Ledger, Line

FILE: Final = "authkeys"
_METHODS: Final = {"crc": "a checksum and no key: anybody on the medium could speak", "md5": "", "sha1": ""}
_SAMPLES: Final = frozenset({"HI!", "Hello!", "hello", "password", "secret", "changeme"})
"""Of the sample file and of tutorials."""
_WHY: Final = (
    "hostd encrypts and authenticates with a key of 32 random bytes; a word made for {method} signatures, "
    "known to whoever read the file in its time, is none"
)
CURE: Final = "hostd keygen makes the new key (with -o it is there already): the same file on both nodes"


def judge(content: bytes, path: Path, ledger: Ledger) -> None:
    """The fate of every line, and of the file's mode."""
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        reason = f"has mode {mode:04o}: others could read the keys, and Heartbeat refused to start"
        ledger.warned(Line(FILE, 0), "", "", reason, "its keys are worth nothing: use them nowhere else")
    chosen: int | None = None
    found: set[int] = set()
    for number, raw in enumerate(texts.decoded(content).split("\n"), 1):
        words = raw.split()
        if not words or words[0].startswith("#"):
            continue
        if words[0].startswith("a"):
            chosen = _auth(words, number, ledger)
        elif re.fullmatch(r"[0-9]{1,2}", words[0]) and int(words[0]) <= 15:
            found.add(int(words[0]))
            _key(words, number, chosen, ledger)
        else:
            reason = "begins neither with auth nor with a key's number from 0 to 15"
            ledger.warned(
                Line(FILE, number, "(not shown)"), "", "", reason, "nothing is lost: hostd has a key of its own"
            )
    if chosen is not None and chosen not in found:
        reason = f"names key {chosen}, which is not there: Heartbeat would not start"
        ledger.warned(Line(FILE, 0), "auth", "", reason, "nothing to do: hostd has a key of its own")


def _auth(words: list[str], number: int, ledger: Ledger) -> int | None:
    line = Line(FILE, number, "auth …")
    if len(words) > 1 and re.fullmatch(r"[0-9]{1,2}", words[1]):
        line = Line(FILE, number, f"auth {words[1]}")
        ledger.not_needed(line, "auth", "of two keys in cluster.key, the first is the one used")
        return int(words[1])
    ledger.warned(line, "auth", "", "names no key", "nothing is lost: hostd has a key of its own")
    return None


def _key(words: list[str], number: int, chosen: int | None, ledger: Ledger) -> None:
    method = words[1] if len(words) > 1 else ""
    known = next((name for name in _METHODS if method == name), None)
    line = Line(FILE, number, f"{words[0]} {known or '…'} (key not shown)" if len(words) > 2 else f"{words[0]} …")
    if known is None:
        reason = "has no method that Heartbeat knows (crc, md5, sha1): is a blank missing?"
        ledger.warned(line, f"key {words[0]}", "cluster.key, new", reason, CURE)
        return
    reasons = [_METHODS[known] or _WHY.format(method=known)]
    if len(words) > 2 and words[2] in _SAMPLES:
        reasons.append("this one stands in tutorials")
    if chosen is None:
        reasons.append("there is no auth line above it")
    ledger.warned(line, f"key {words[0]}", "cluster.key, new", ", and ".join(reasons), CURE)


def keys(content: bytes) -> dict[str, tuple[str, ...]]:
    """Number → method and key, to compare two nodes' files; not to be shown."""
    lines = [line.split() for line in texts.decoded(content).split("\n")]
    return {words[0]: tuple(words[1:3]) for words in lines if words and not words[0].startswith("#")}
