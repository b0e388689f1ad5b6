"""Bytes of a file of ha.d → text that can be worked with and shown.

Decides how much is read and how bytes that are no text look.  These files
were written by hand, some long ago: nothing in them may stop the reading.
"""

import stat
from pathlib import Path
from typing import Final

from hostd.api import ConfigError

FILE_MAX: Final = 200_000
"""A hundred times an ordinary ha.cf: anything longer is another file."""
SHOWN_MAX: Final = 300
"""Characters of a line that are shown: the rest of a long one tells nobody anything."""


def read(path: Path) -> bytes:
    """The file's content.  Raises FileNotFoundError if there is none, ConfigError if it cannot be read."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ConfigError(f"{path}: is no regular file; name a directory with Heartbeat's files")
        with path.open("rb") as file:
            content = file.read(FILE_MAX + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(path) from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}; run as root, or copy the file") from error
    if len(content) > FILE_MAX:
        raise ConfigError(f"{path}: is longer than {FILE_MAX} bytes; this cannot be Heartbeat's file")
    return content


def decoded(content: bytes) -> str:
    """Text for every content: bytes that are no UTF-8 become lone surrogates, which :func:`shown` shows."""
    return content.decode("utf-8", "surrogateescape")


def shown(text: str) -> str:
    """One line, printable, cut if long; what cannot be printed looks like ``<1b>``."""
    printable = "".join(c if c.isprintable() else " " if c in "\t\n" else _hex(c) for c in text.strip(" \t\r\n"))
    return printable if len(printable) <= SHOWN_MAX else f"{printable[: SHOWN_MAX - 1]}…"


def _hex(character: str) -> str:
    return f"<{character.encode('utf-8', 'surrogateescape').hex()}>"


def is_plain(word: str) -> bool:
    """Printable throughout: fit for conf.d as it stands."""
    return word.isprintable()
