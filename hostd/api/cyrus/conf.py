"""What imapd.conf and cyrus.conf of Cyrus IMAP say, as far as an agent has to know it.

Reads them as ``lib/libconfig.c`` and ``master/masterconf.c`` do, but decides
nothing about their correctness: Cyrus itself checks them (``cyr_info
conf-lint``), so what cannot be read here is left out.
"""

import re
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from hostd.api.cyrus import imap
from hostd.api.errors import AgentError

IMAPD_CONF: Final = Path("/etc/imapd.conf")
CYRUS_CONF: Final = Path("/etc/cyrus.conf")
DEFAULTS: Final = {
    "cyrus_user": "cyrus",
    "mboxlist_db_path": "{configdirectory}/mailboxes.db",
    "proc_path": "{configdirectory}/proc",
    "mboxname_lockpath": "{configdirectory}/lock",
    "sasl_pwcheck_method": "auxprop",
}
"""Of the settings that are asked for here."""
INCLUDES_MAX: Final = 20  # a file may not include itself; more than a few are not met in practice


class Entry(NamedTuple):
    """One line of cyrus.conf: something that master runs."""

    section: str
    name: str
    options: dict[str, str]

    @property
    def command(self) -> list[str]:
        return self.options.get("cmd", "").split()

    @property
    def config(self) -> Path:
        """The imapd.conf that it reads."""
        command = self.command
        return Path(command[command.index("-C") + 1]) if "-C" in command[:-1] else IMAPD_CONF

    @property
    def socket(self) -> str:
        """The path of the socket that master listens on for it; "" if it is none."""
        listen = self.options.get("listen", "")
        return listen if listen.startswith("/") else ""

    @property
    def inet(self) -> tuple[str, int] | None:
        """(host or "", port) of a TCP listener; None if it has none.  Port 0 is one that has no such name."""
        listen = self.options.get("listen", "")
        if not listen or self.socket or not self.options.get("proto", "tcp").startswith("tcp"):
            return None
        host, _, port = listen.rpartition(":")
        return host.strip("[]"), _port(port)

    @property
    def speaks_imap(self) -> bool:
        return bool(self.command) and Path(self.command[0]).name == "imapd" and self.inet is not None

    @property
    def recovers(self) -> bool:
        """It repairs the databases after a crash, before anything uses them."""
        return self.section == "START" and "-r" in self.command and "ctl_cyrusdb" in self.options["cmd"]

    @property
    def has_tls(self) -> bool:
        return "-s" in self.command


def settings(config: Path, includes_left: int = INCLUDES_MAX) -> dict[str, str]:
    """Every setting of an imapd.conf and what it includes, with the ``DEFAULTS``.  AgentError if it cannot be read."""
    found: dict[str, str] = {}
    text = _read(config, "imapd.conf").replace("\\\n", "")
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        key, value = key.strip().lower(), value.strip()
        if not colon or key.startswith("#"):
            continue
        if key == "@include" and includes_left > 0:
            found |= settings(Path(value), includes_left - 1)
        else:
            found[key] = value
    found = DEFAULTS | found
    directory = found.get("configdirectory", "")
    return {key: re.sub(r"^\{configdirectory\}", directory, value) for key, value in found.items()}


def entries(services: Path) -> list[Entry]:
    """Everything that a cyrus.conf has master run, in its order.  AgentError if it cannot be read."""
    found, section = [], ""
    for line in _read(services, "cyrus.conf").splitlines():
        text = line.partition("#")[0].strip()
        if opening := re.fullmatch(r"(\w+)\s*\{", text):
            section = opening[1].upper()
        elif text.startswith("}"):
            section = ""
        elif section and (entry := re.match(r"(\w+)\s+(.*)", text)):
            options = re.findall(r'(\w+)=(?:"([^"]*)"|(\S+))', entry[2])
            found.append(Entry(section, entry[1], {key: quoted or word for key, quoted, word in options}))
    return found


def unheard(services: Path, doors: Sequence[tuple[str, int]]) -> list[str]:
    """Services of this cyrus.conf for whose port there is none of ``doors``, as (address, port)."""
    ports = {port for _, port in doors}
    return [
        f"{entry.name} ({entry.options['listen']})"
        for entry in entries(services)
        if entry.inet is not None and entry.inet[1] not in ports
    ]


def imap_door(services: Path, doors: Sequence[tuple[str, int]]) -> imap.Door:
    """Where the first imapd of this cyrus.conf is to be asked, given where master listens."""
    for entry in entries(services):
        if entry.speaks_imap and entry.inet is not None:
            host, port = entry.inet
            ip = next((ip for ip, number in doors if number == port), host)
            loopback = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}
            return imap.Door(loopback.get(ip, ip), port, entry.has_tls)
    raise AgentError(f"{services} has no imapd with a TCP port", cure="add it to SERVICES")


def _port(text: str) -> int:
    try:
        return int(text) if text.isdigit() else socket.getservbyname(text, "tcp")
    except OSError:
        return 0


def _read(path: Path, what: str) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError as error:
        raise AgentError(
            f"{path} cannot be read: {error.strerror}", cure=f"set the path of {what}; is its filesystem mounted?"
        ) from error
