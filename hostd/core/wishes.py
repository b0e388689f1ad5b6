"""What does the operator want?  Decides which wish is the newest.

From: commands given here, and wishes that the peer publishes.  Refuses to
know what follows from a wish.  A wish is a key (kind, subject) and a value
under a stamp (serial, node); the highest stamp wins everywhere, so that both
nodes come to the same, in whatever order they learn of it.
"""

from hostd.core.snapshot import Wish, WishKind


class Wishes:
    """The newest wish for every kind and subject."""

    __slots__ = ("known", "serial")

    def __init__(self) -> None:
        self.known: dict[tuple[WishKind, str], Wish] = {}
        self.serial = 0

    def merge(self, wishes: tuple[Wish, ...]) -> list[Wish]:
        """Take those that are newer than what is known; which they were."""
        taken = []
        for wish in wishes:
            self.serial = max(self.serial, wish.serial)
            old = self.known.get((wish.kind, wish.subject))
            if old is None or wish.stamp > old.stamp:
                self.known[wish.kind, wish.subject] = wish
                taken.append(wish)
        return taken

    def make(self, node: str, kind: WishKind, subject: str, value: str) -> Wish:
        """A new wish, newer than all that are known here."""
        self.serial += 1
        wish = Wish(kind, subject, value, self.serial, node)
        self.known[kind, subject] = wish
        return wish

    def value(self, kind: WishKind, subject: str) -> str:
        """The wished value; empty if there is no wish or it was taken back."""
        wish = self.known.get((kind, subject))
        return wish.value if wish is not None else ""

    def has(self, kind: WishKind, subject: str) -> bool:
        return bool(self.value(kind, subject))

    def in_maintenance(self, service: str) -> bool:
        """Hands off this service, by a wish for it or for everything."""
        return self.has(WishKind.MAINTENANCE, service) or self.has(WishKind.MAINTENANCE, "")

    def stamp(self, kind: WishKind, subject: str) -> tuple[int, str]:
        wish = self.known.get((kind, subject))
        return wish.stamp if wish is not None else (0, "")

    def all(self) -> tuple[Wish, ...]:
        """In an order that depends on nothing but the wishes."""
        return tuple(sorted(self.known.values(), key=lambda wish: (wish.kind.value, wish.subject)))
