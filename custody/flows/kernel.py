# SPDX-License-Identifier: AGPL-3.0-or-later
"""What transfers are judged by outside a seat: verified rosters and wallets, the policies in force, and the world's few words."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from custody.flows.inventory import Inventory, Wallet
from custody.flows.ports import AddressDeriver, PriceSource
from custody.rules.amounts import Assets
from custody.rules.governance import Freeze
from custody.rules.intents import TransferIntent
from custody.rules.refusals import Refusal, Rule
from custody.rules.roster import Roster
from custody.rules.seat_request import BundleInForce, Policies
from custody.rules.wallets import Chain, Tier


@dataclass(frozen=True)
class Kernel:
    """Everything verified that proposals and authorization read. Made anew whenever a document changes; holds no key.

    `rosters` are verified versions, oldest first; `maximum_fee` is what one intent may cost the wallet on a chain, in base units
    of its native asset (nothing on EVM, where the relayer pays); `oldest` is how old a statement may be, in seconds; `frozen_by` says
    who signed a freeze, by its struct hash, for people to read.
    """

    rosters: Sequence[Roster]
    inventory: Inventory
    policies: Policies
    derive: AddressDeriver
    prices: PriceSource
    maximum_fee: Mapping[Chain, int]
    freezes: Sequence[Freeze] = field(default_factory=tuple)
    oldest: int = 600
    frozen_by: Mapping[bytes, str] = field(default_factory=dict)

    @property
    def roster(self) -> Roster:
        """The newest version."""
        return self.rosters[-1]

    @property
    def assets(self) -> Assets:
        """The registry of the newest bundle."""
        return self.policies.newest.assets

    def roster_of(self, version: int) -> Roster | None:
        """The version of this number, where it is known."""
        return next((roster for roster in self.rosters if roster.version.version == version), None)

    def bundles(self, pinned: bytes) -> tuple[BundleInForce, ...]:
        """The bundle that an intent pins, and the newest one; nothing where the pinned one is not known."""
        found = self.policies.of(pinned)
        if found is None:
            return ()
        return (found,) if found is self.policies.newest else (found, self.policies.newest)

    def wallets(self, chain: Chain, tier: Tier) -> tuple[Wallet, ...]:
        """The wallets of one tier on one chain."""
        return tuple(wallet for wallet in self.inventory.on(chain) if wallet.tier is tier)

    def frozen(self, scopes: set[str], now: int) -> Freeze | None:
        """A freeze in force that covers one of these scopes: from when it is known, since the clock of whoever signed it may be ahead."""
        return next((f for f in self.freezes if now < f.lapses and f.scope in scopes | {"all"}), None)

    def freeze_of(self, intent: TransferIntent, now: int) -> Freeze | None:
        """A freeze in force of an intent's account, chain or wallet."""
        wallet = intent.wallet.hex()
        scopes = {intent.account, f"chain:{intent.chain}", f"wallet:{wallet}", f"wallet:0x{wallet}"}
        return self.frozen(scopes, now)


def check_fee(kernel: Kernel, intent: TransferIntent) -> Iterator[Refusal]:
    """An intent allows the network no more than this deployment does on its chain: whoever made it cannot burn coins as a fee.

    Seats hold to bounds of their own (`rules.payouts.FeeBounds`); this is refused before anybody is asked.
    """
    most = next((units for chain, units in kernel.maximum_fee.items() if chain.name == intent.chain), 0)
    if intent.maximum_fee > most:
        yield Refusal(Rule.MAXIMUM_FEE, field="maximum_fee", got=intent.maximum_fee, most=most)


def check_frozen(kernel: Kernel, intent: TransferIntent, now: int) -> Iterator[Refusal]:
    """No freeze in force covers its account, chain or wallet: nothing is authorized, and what is proposed waits for the freeze's end."""
    freeze = kernel.freeze_of(intent, now)
    if freeze is not None:
        by = kernel.frozen_by.get(freeze.struct_hash)
        told = {} if by is None else {"by": by}
        yield Refusal(Rule.FROZEN, scope=freeze.scope, lapses=freeze.lapses, reason=freeze.reason, **told)
