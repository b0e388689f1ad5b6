"""``IPaddr::10.0.0.1/24/eth0:1/10.0.0.255`` and its kin → an address of a service.

Decides what the parts are, by the rules of Heartbeat's wrapper scripts: the
third is the broadcast address if it begins with a digit, else the interface.
"""

import ipaddress
from typing import NamedTuple

from hostd.confd import values
from hostd.confd.values import Unfit


class Address(NamedTuple):
    """An address as conf.d writes it, and what of the original it leaves out (empty: nothing)."""

    text: str
    ip: str
    notes: tuple[str, ...]


def parse(argument: str, *, is_v6: bool = False) -> Address:
    """``ip[/mask[/interface or broadcast[/broadcast]]]``.  Raises Unfit with rule and cure."""
    ip_text, mask, third, fourth = _parts(argument)
    broadcast, interface = (third, "") if third[:1].isdigit() else (fourth, third)
    try:
        ip = ipaddress.IPv6Address(ip_text) if is_v6 else ipaddress.IPv4Address(ip_text)
    except ValueError:
        if not is_v6:
            _explain_number_dots(ip_text)
        raise Unfit(f"{ip_text} is no IPv{6 if is_v6 else 4} address", "correct it") from None
    notes = []
    # Without a mask, hostd takes that of the network it is in, as Heartbeat took the route's
    prefix = _prefix(mask, ip.max_prefixlen) if mask else None
    interface, colon, label = interface.partition(":")
    if interface == "lo":
        raise Unfit("is put on lo, which belongs to a real server behind LVS", "configure it on the system, not here")
    if colon:
        notes.append(f"the alias {interface}:{label} is gone: `ip address` shows the address, ifconfig does not")
    if broadcast and not _is_usual(ip, prefix, broadcast):
        notes.append(f"the broadcast address {broadcast} is not set: the kernel uses the network's own")
    text = f"{ip}{'' if prefix is None else f'/{prefix}'}{f'@{interface}' if interface else ''}"
    return Address(values.address(text), str(ip), tuple(notes))


def _parts(argument: str) -> tuple[str, str, str, str]:
    """As the wrappers' sed takes it apart: several slashes are one, and what comes fifth is dropped."""
    parts = [part for part in argument.split("/") if part]
    return (*parts, "", "", "", "")[:4]  # type: ignore[return-value]


def _explain_number_dots(text: str) -> None:
    octets = text.split(".")
    if all(octet.isdecimal() and octet.isascii() for octet in octets) and any(
        len(octet) > 1 and octet[0] == "0" for octet in octets
    ):
        raise Unfit(f"{text} has numbers with leading zeros, which some programs read as octal", "remove the zeros")


def _prefix(mask: str, longest: int) -> int:
    if mask.isascii() and mask.isdecimal() and len(mask) < 4 and int(mask) <= longest:
        return int(mask)
    if "." in mask and longest == 32:
        try:
            return ipaddress.IPv4Network(f"0.0.0.0/{mask}").prefixlen
        except ValueError:
            pass
    raise Unfit(f"{mask} is no netmask", f"use a prefix from 1 to {longest}, such as /24")


def _is_usual(ip: ipaddress.IPv4Address | ipaddress.IPv6Address, prefix: int | None, broadcast: str) -> bool:
    if prefix is None:
        return False
    return str(ipaddress.ip_interface(f"{ip}/{prefix}").network.broadcast_address) == broadcast
