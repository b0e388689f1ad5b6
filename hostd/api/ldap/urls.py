"""The URLs at which slapd listens: ldap, ldaps and ldapi.

Decides where each leads from this machine.  Speaks no LDAP and does not know
who answers; for ldaps too, since the kernel tells that better than a
certificate could.
"""

import socket
import ssl
from typing import Final
from urllib.parse import unquote, urlsplit

from hostd.api import connections

SCHEMES: Final = ("ldap", "ldaps", "ldapi")
_USUAL_SOCKET: Final = "/run/slapd/ldapi"

unquote("%2F")  # has it make its table here, in the host, and not in each child anew


def is_one(url: str) -> bool:
    """Could slapd listen there?"""
    return urlsplit(url).scheme in SCHEMES and len(url.split()) == 1


def socket_of(url: str) -> str:
    """The path of an ldapi URL's socket; "" for every other URL."""
    parts = urlsplit(url)
    return (unquote(parts.netloc) or _USUAL_SOCKET) if parts.scheme == "ldapi" else ""


def connected(url: str, patience: float) -> socket.socket:
    """A connection to it, with this many seconds for each step.  OSError if there is none."""
    path = socket_of(url)
    if path:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(patience)
        try:
            connection.connect(path)
        except OSError:
            connection.close()
            raise
        return connection
    parts = urlsplit(url)
    host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(parts.hostname or "", parts.hostname)
    default = 636 if parts.scheme == "ldaps" else 389
    connection = connections.connected(host or "", parts.port or default, patience)
    if parts.scheme != "ldaps":
        return connection
    return ssl._create_unverified_context().wrap_socket(connection)
