"""Addresses of services that conf.d had and has no longer: they are taken off this node.

Decides which those are, by a note of the addresses of the plan in the runtime
directory, and by hostd's mark on them: so neither a second hostd on this
machine nor an address of the machine's own is ever hit.  Without a lease they
would stay for ever, and answer.
"""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from hostd.address import Addresses
from hostd.core.plan import Plan, Service
from hostd.core.snapshot import Wish, WishKind
from hostd.decoding import UNDECODABLE
from hostd.interfaces import ServiceAddress

log = logging.getLogger("hostd.addresses")

FILE_NAME: Final = "addresses"
SIZE_MAX: Final = 1_000_000


def clear(
    addresses: Addresses, runtime: Path, plan: Plan, set_aside: Iterable[Service], wishes: Iterable[Wish]
) -> None:
    """Take them off, and note what may be one next time.

    What is ``set_aside`` may run here, and keeps its addresses.  While the
    operator has said hands off for everything, nothing is done.
    """
    path = runtime / FILE_NAME
    known = [text for service in (*plan.services, *set_aside) for text in service.addresses]
    ours = {ServiceAddress.parse(text).ip for text in known}
    former = [text for text in _noted(path) if ServiceAddress.parse(text).ip not in ours]
    if not any(wish.kind is WishKind.MAINTENANCE and not wish.subject and wish.value for wish in wishes):
        for text in former:
            done, detail = addresses.remove_former(ServiceAddress.parse(text).ip)
            if done:
                log.warning("%s is no address of conf.d any more: %s", text, detail or "removed")
        former = []
    try:
        fresh = path.with_suffix(".new")
        fresh.write_bytes(msgspec.json.encode(sorted({*known, *former})))
        fresh.rename(path)
    except OSError as error:
        log.error("%s: %s", path, error)


def _noted(path: Path) -> list[str]:
    try:
        with path.open("rb") as file:
            noted = msgspec.json.decode(file.read(SIZE_MAX), type=list[str])
            return [text for text in noted if ServiceAddress.parse(text)]
    except FileNotFoundError:
        return []  # the first brain of this boot
    except (OSError, ValueError, *UNDECODABLE) as error:
        log.error("%s: %s", path, error)
        return []
