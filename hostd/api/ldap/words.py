"""What slapd says when it cannot start, and what helps.

Decides which of its lines say something, and which cure belongs to which
words.  Knows no process and starts nothing.
"""

import re
from typing import Final

from hostd.api.ldap import configuration

NOISE: Final = re.compile(r"@\(#\)|Maintainers|slapd st(opped|arting)|connections_destroy")
CURES: Final = (
    (r"Address already in use", "ss -lntp shows who listens there; end it, or change urls"),
    (r"Cannot assign requested address", "an address of urls is not on this node: list it before this agent"),
    (r"bind\(\d+\) failed errno=2 ", "create the folder of the ldapi socket"),
    (r"getaddrinfo", "name addresses in urls, not names"),
    (r"URL .* parse error", 'urls are such as "ldap://172.23.2.14/"'),
    (r"No (passwd|group) entry", "set user and group"),
    (r"Permission denied", "chown -R {user}: {folders}"),
    (r"invalid path: No such file", "mount or create the folder of the database for {user}: {folders}"),
    (r"MDB_|bi_db_open failed|mdb_", "the database in {folders} is damaged: move it away, load a backup by slapadd"),
    (r"line \d+|config", "slaptest -u {chosen}"),
)


def cure(words: str, config: str, user: str) -> str:
    """What helps when it said this; ``user``: who it was to run as, "" if that was not chosen."""
    found = next((text for pattern, text in CURES if re.search(pattern, words)), "see its log")
    folders, chosen = " ".join(configuration.databases(config)), " ".join(configuration.chosen(config))
    return found.format(user=user or "its user", folders=folders, chosen=chosen)


def plain(output: str, lines: int = 4) -> str:
    """The last lines that say something, without slapd's stamps of time and thread."""
    said = [re.sub(r"^[0-9a-f.]+ 0x[0-9a-f]+ ", "", line).strip() for line in output.splitlines()]
    return "; ".join([line for line in said if line and not NOISE.search(line)][-lines:])
