"""One value of conf.d at a time: what it must look like, and what it comes to.

Each parser takes what tomllib made of a value and returns it in the terms of
the plan, or raises :class:`Unfit` with the rule and the cure.  They know
nothing of keys, files or of each other's values.
"""

import ipaddress
import math
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

T = TypeVar("T")

UNITS_MS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
DURATION_MAX_MS: Final = 30 * UNITS_MS["d"]
"""Longer than anybody means; a number of milliseconds written as seconds mostly lands beyond."""
TEXT_MAX: Final = 4_096
"""PATH_MAX, the longest text that any key needs."""


class Unfit(ValueError):
    """The value breaks a rule.  ``rule`` goes on after it, ``cure`` is an order."""

    def __init__(self, rule: str, cure: str) -> None:
        super().__init__(f"{rule}; {cure}")
        self.rule, self.cure = rule, cure


def text(value: Any) -> str:
    if not isinstance(value, str):
        raise Unfit("must be a text", "put it in quotes")
    if not value.strip():
        raise Unfit("is empty", "give it a value or remove the line")
    if len(value) > TEXT_MAX or not value.isprintable():
        raise Unfit("is too long or has unprintable characters", "write it on one line, in plain text")
    return value


def flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise Unfit("must be true or false", "write true or false, without quotes")
    return value


def whole(low: int, high: int) -> Callable[[Any], int]:
    """A whole number from ``low`` to ``high``, both included."""

    def parse(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise Unfit("must be a whole number", f"use a number from {low} to {high}, without quotes")
        if not low <= value <= high:
            raise Unfit("is out of range", f"use a number from {low} to {high}")
        return value

    return parse


def duration_ms(value: Any) -> int:
    """``"100ms"``, ``"2s"``, ``"1.5m"``, ``"1h"``, ``"1d"``, or a number of seconds → milliseconds."""
    cure = 'use a text with a unit ("100ms", "2s", "5m", "1h") or a number of seconds'
    if isinstance(value, str):
        found = re.fullmatch(r"(\d{1,12}(?:\.\d{1,6})?) ?(ms|s|m|h|d)?", value, re.ASCII)
        if not found:
            raise Unfit("is not a duration", cure)
        if not found[2]:
            raise Unfit("has no unit", f'write "{value}s" if seconds are meant')
        amount = float(found[1]) * UNITS_MS[found[2]]
    elif isinstance(value, int | float) and not isinstance(value, bool):
        amount = float(value) * UNITS_MS["s"]
    else:
        raise Unfit("is not a duration", cure)
    if not math.isfinite(amount) or not 0 <= amount <= DURATION_MAX_MS:
        raise Unfit("is not between 0 and 30 days", cure)
    milliseconds = round(amount)
    if abs(milliseconds - amount) > 1e-6:
        raise Unfit("is finer than a millisecond", "use whole milliseconds")
    return milliseconds


def duration(low: str, high: str) -> Callable[[Any], int]:
    """A duration from ``low`` to ``high`` (written as durations), both included."""

    def parse(value: Any) -> int:
        milliseconds = duration_ms(value)
        if not duration_ms(low) <= milliseconds <= duration_ms(high):
            raise Unfit("is out of range", f"use a duration from {low} to {high}")
        return milliseconds

    return parse


def duration_text(milliseconds: int) -> str:
    """The shortest text that :func:`duration_ms` reads back: 1500 → ``1500ms``, 60000 → ``1m``."""
    for unit, size in reversed(UNITS_MS.items()):
        if milliseconds and milliseconds % size == 0:
            return f"{milliseconds // size}{unit}"
    return "0s"


def choice(*allowed: str, rule: str = "is not one of its values") -> Callable[[Any], str]:
    """One of a few texts."""

    def parse(value: Any) -> str:
        if not isinstance(value, str) or value not in allowed:
            raise Unfit(rule, f"use {one_of(allowed)}")
        return value

    return parse


def one_of(words: Sequence[str]) -> str:
    """``"a", "b" or "c"``."""
    quoted = [f'"{word}"' for word in words]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} or {quoted[-1]}"


def counted(number: int, noun: str) -> str:
    """``1 error``, ``2 errors``: for nouns whose plural is so made."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def several(parse: Callable[[Any], T], items_max: int) -> Callable[[Any], tuple[T, ...]]:
    """A list of what ``parse`` reads."""

    def parse_all(value: Any) -> tuple[T, ...]:
        if not isinstance(value, list):
            raise Unfit("must be a list", "put it in square brackets: [ … ]")
        if len(value) > items_max:
            raise Unfit(f"has {len(value)} items", f"use at most {items_max}")
        return tuple(parse(item) for item in value)

    return parse_all


def name(pattern: str, meaning: str, length_max: int = 64) -> Callable[[Any], str]:
    """A text of certain characters; ``meaning`` says in words which."""

    def parse(value: Any) -> str:
        if not re.fullmatch(pattern, text(value), re.ASCII) or len(value) > length_max:
            raise Unfit("is no name that can be used here", f"use up to {length_max} {meaning}")
        return text(value)

    return parse


service_name = name(r"[A-Za-z0-9][A-Za-z0-9_-]*", "letters, digits, - and _, beginning with a letter or digit")
"""Also the name of a folder and of a cgroup: no point, so that neither can be a system's own."""
node_name = name(r"[A-Za-z0-9][A-Za-z0-9._-]*", "letters, digits, - . and _ (the name that `uname -n` prints)")
link_name = name(r"[A-Za-z0-9][A-Za-z0-9_.:/-]*", "letters, digits, - _ . : and /", 32)
interface_name = name(r"(?!\.{1,2}$)[^\s/:@]+", "characters, as `ip link` shows it", 15)
"""IFNAMSIZ, less the zero at its end."""


def path_in(directory: Path) -> Callable[[Any], Path]:
    """A path; a relative one is meant from ``directory``, where the file is."""

    def parse(value: Any) -> Path:
        # normpath and not resolve(): the file need not be there, and links may change
        return Path(os.path.normpath(directory / text(value)))

    return parse


def ip(value: Any) -> str:
    """An IPv4 or IPv6 address, in its one canonical spelling."""
    try:
        return str(ipaddress.ip_address(text(value)))
    except ValueError as error:
        if isinstance(error, Unfit):
            raise
        raise Unfit("is no IP address", "use one such as 172.23.2.1 or fd00::1") from None


def address(value: Any) -> str:
    """A service address: ``ADDRESS[/PREFIX][@INTERFACE]``, in its one canonical spelling."""
    body, at, interface = text(value).partition("@")
    host, slash, prefix = body.partition("/")
    if at:
        interface_name(interface)
    try:
        ip_address = ipaddress.ip_address(host)
        network = ipaddress.ip_interface(body).network
    except ValueError:
        example = "172.23.2.13/24, fd00::13/64 or 172.23.2.13/24@eth0"
        raise Unfit("is no address of a service", f"use one such as {example}") from None
    if getattr(ip_address, "scope_id", None):
        raise Unfit("names its interface by %", f"write {host.partition('%')[0]}{slash}{prefix}@INTERFACE")
    if ip_address.is_loopback or ip_address.is_multicast or ip_address.is_unspecified:
        raise Unfit("is a loopback, multicast or empty address", "use one that clients on the LAN can reach")
    if str(ip_address) == "255.255.255.255":
        raise Unfit("is the broadcast address", "use one that clients on the LAN can reach")
    if ip_address.version == 6 and ip_address.is_link_local and not at:
        raise Unfit("is link-local and names no interface", f"write {body}@INTERFACE")
    if slash and network.num_addresses > 2:
        if ip_address == network.network_address:
            raise Unfit(f"is the address of the network {network} itself", "use a host's address within it")
        if ip_address.version == 4 and ip_address == network.broadcast_address:
            raise Unfit(f"is the broadcast address of {network}", "use a host's address within it")
    spelt = f"{ip_address}/{network.prefixlen}" if slash else str(ip_address)
    return f"{spelt}@{interface}" if at else spelt


def bare(service_address: str) -> str:
    """``172.23.2.13/24@eth0`` → ``172.23.2.13``."""
    return service_address.partition("@")[0].partition("/")[0]
