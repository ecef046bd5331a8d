# SPDX-License-Identifier: AGPL-3.0-or-later
"""Where coins pass, drawn: the tiers as rooms, the walls between them, and the one way that a transfer takes. Data for a template."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from custody.flows.inventory import Wallet
from custody.flows.kernel import Kernel
from custody.rules.wallets import Address, Chain, Tier

if TYPE_CHECKING:
    from api.console.transfer_view import TransferView

OUTSIDE: Final = "outside"
ROOMS: Final = (Tier.CUSTOMER_COLD.value, Tier.CUSTOMER_HOT.value, Tier.OPERATIONAL.value, OUTSIDE)
WIDTH: Final = 160
GAP: Final = 24


@dataclass(frozen=True)
class Room:
    """One room of the picture; `x` is its left edge."""

    name: str
    x: int
    on: bool

    @property
    def middle(self) -> int:
        """Its middle."""
        return self.x + WIDTH // 2


@dataclass(frozen=True)
class Picture:
    """The rooms, from which to which coins go (None where it is not known), and the sentence that says the same."""

    rooms: tuple[Room, ...]
    source: Room | None
    target: Room | None
    words: str


def picture(kernel: Kernel, view: "TransferView") -> Picture:
    """The picture of one transfer. What is not known is said, never drawn."""
    intent, route = view.transfer.intent, view.seen.route
    source = None if view.source is None else view.source.tier.value
    to = _room_of(kernel, intent.chain, intent.destination) if route is None else route.to
    target = OUTSIDE if to is None else to.tier.value
    rooms = tuple(Room(name, number * (WIDTH + GAP), name in {source, target}) for number, name in enumerate(ROOMS))
    by_name = {room.name: room for room in rooms}
    start, end = by_name.get(source or ""), by_name.get(target or "")
    told = f"from {_words(source)} to {_words(target)}"
    return Picture(rooms, start, end, told)


def _room_of(kernel: Kernel, chain: str, destination: str) -> Wallet | None:
    """The wallet of ours that an address derives from. Raises InvalidInput for what is no address."""
    return kernel.inventory.wallet_of(Address.parse(Chain(chain), destination))


def _words(name: str | None) -> str:
    if name is None:
        return "a place that is not known"
    return "the outside" if name == OUTSIDE else "the " + name.replace("_", " ") + " tier"
