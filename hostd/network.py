"""What the brain has of the network: addresses here, neighbours on the LAN, the tiebreaker.

Decides in which order these are opened and closed, and that a change is told
only once the core knows how things stood before.  Refuses to know who wants
an address, and what follows from an answer.
"""

from collections.abc import Callable, Collection

from hostd.address import Addresses
from hostd.address_tasks import AddressTasks
from hostd.config import Configuration
from hostd.core.events import AddressFound, AddressLost, AnyEvent, LanTurned
from hostd.neighbours import Neighbours
from hostd.pings import Pings


class Network:
    """Of one brain.  ``put`` gets what happens; ``peer_stations()``: the MAC addresses that the peer published."""

    def __init__(
        self,
        configuration: Configuration,
        put: Callable[[AnyEvent], None],
        peer_stations: Callable[[], Collection[str]],
    ) -> None:
        plan, asked = configuration.plan, configuration.tiebreaker
        texts = dict.fromkeys(text for service in plan.services for text in service.addresses)
        self._put = put
        self._is_watched = False
        self.addresses = Addresses(tuple(texts), plan.address_lease_ms, self._changed)
        self._neighbours = Neighbours(
            self.addresses,
            configuration.announcements,
            put,
            lambda address, verified, detail: self.tasks.note_verified(address, verified, detail),
        )
        self.tasks = AddressTasks(
            self.addresses,
            self._neighbours,
            put,
            is_first=plan.is_first(configuration.node),
            peer_stations=peer_stations,
        )
        self._pings = Pings(
            asked.ping if asked else (),
            asked.deadtime_ms if asked else 0,
            needs_all=asked is not None and asked.needs_all,
            on_event=put,
        )

    async def open(self) -> None:
        """From now on ``addresses`` say what there is."""
        await self.addresses.open()
        await self._neighbours.open()

    async def watch(self) -> None:
        """The core has heard how the addresses stand: tell how the LAN stands, and from now on what changes."""
        self._put(LanTurned(self.addresses.dead()))
        await self._pings.open()
        self._is_watched = True

    async def close(self) -> None:
        """Nothing on the network is changed by that."""
        await self._pings.close()
        await self._neighbours.close()
        await self.addresses.close()

    def _changed(self, event: AddressLost | AddressFound | LanTurned) -> None:
        if self._is_watched:  # what is found before is told with Started
            self._put(event)
