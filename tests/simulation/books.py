# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the invariants know of a run: the journal replayed by additions of their own, and what the chains did, read off the chains.

Nothing here is taken from a balance that the store keeps or from a rule of custody's; where both are needed they are compared.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from custody.rules.amounts import Asset
from custody.rules.deposits import BlockRef
from custody.rules.intents import Anchor, TransferIntent
from custody.rules.ledger import Account, AccountKind, JournalEntry
from custody.rules.origins import BitcoinProof, Executed, Hold, NativeProof, Release, Reversal, TokenProof, identity_of
from custody.rules.wallets import Address, Chain, Tier
from tests.fakes.seat import BITCOIN, EVM
from tests.simulation.world import World

Paid = tuple[str, str, int]
"""Asset, destination, units: every transfer of a run has an amount of its own, so this names one."""


@dataclass(frozen=True)
class Payment:
    """One canonical payment out of a wallet of ours, not by a thief."""

    paid: Paid
    wallet: bytes
    block: BlockRef


@dataclass
class Books:
    """The journal so far."""

    entries: list[JournalEntry] = field(default_factory=list)
    balances: Counter[tuple[Account, Asset]] = field(default_factory=Counter)
    credits: dict[int, str] = field(default_factory=dict)
    standing: Counter[str] = field(default_factory=Counter)
    """By chain event: credits less reversals."""
    proofs: dict[str, TokenProof | NativeProof | BitcoinProof] = field(default_factory=dict)
    held: dict[bytes, tuple[int, TransferIntent]] = field(default_factory=dict)
    """Every hold there ever was: its position and intent, by the intent's digest."""
    freed: dict[bytes, int] = field(default_factory=dict)
    """The position at which a hold ended."""
    accrued: Counter[str] = field(default_factory=Counter)
    """Fees that customers ever paid, by asset."""
    owed: list[Counter[str]] = field(default_factory=lambda: [Counter()])
    """What customers were owed after each position, by asset."""

    def update(self, world: World) -> list[JournalEntry]:
        """Take in what is new."""
        fresh = list(world.read(lambda work: work.journal.read(len(self.entries), 100_000)))
        for recorded in fresh:
            self._take(recorded, world)
        return fresh

    def _take(self, recorded: JournalEntry, world: World) -> None:
        self.entries.append(recorded)
        owed, origin = Counter(self.owed[-1]), recorded.entry.origin
        for posting in recorded.entry.postings:
            kind, symbol = posting.account.kind, posting.amount.asset.symbol
            self.balances[posting.account, posting.amount.asset] += posting.change
            if kind in {AccountKind.CUSTOMER_AVAILABLE, AccountKind.CUSTOMER_HELD, AccountKind.SUSPENSE}:
                owed[symbol] += posting.change
            if (
                kind is AccountKind.ACCRUED_FEES
                and posting.change > 0
                and not isinstance(origin, Release | Executed | Reversal)
            ):
                self.accrued[symbol] += posting.change
        self.owed.append(owed)
        match origin:
            case TokenProof() | NativeProof() | BitcoinProof():
                name = identity_of(origin)
                self.credits[recorded.position], self.proofs[name] = name, origin
                self.standing[name] += 1
            case Reversal() if origin.entry in self.credits:
                self.standing[self.credits[origin.entry]] -= 1
            case Reversal():  # of a payout: its holds stand again
                executed = self.entries[origin.entry - 1].entry.origin
                for digest in executed.intents if isinstance(executed, Executed) else ():
                    self.freed.pop(digest, None)
            case Hold():
                self.held[world.born.domain.digest(origin.intent)] = recorded.position, origin.intent
            case Release():
                self.freed[origin.intent] = recorded.position
            case Executed():
                for digest in origin.intents:
                    self.freed[digest] = recorded.position
            case _:
                pass

    def owes(self, digest: bytes, position: int) -> bool:
        """Whether after a position a hold's units were still owed to its customer: held, or available before it was held."""
        return digest in self.held and self.freed.get(digest, position + 1) > position


def payments(world: World) -> Iterator[Payment]:
    """Everything that our wallets paid on the chains as they stand: to others, and from one wallet of ours to another."""
    inventory = world.inventory
    for ref, done in world.evm.executions():
        wallet = inventory.wallet_of(Address(EVM, done.safe))
        for moved in done.moves:
            if wallet is not None and moved.source == done.safe:
                yield Payment((moved.symbol, moved.to, moved.units), wallet.name, ref)
    node = world.bitcoin
    for ref, name, spend in node.canonical():
        sources = [node.places.get(coin.script) for each in spend.inputs if (coin := node.coin(each)) is not None]
        ours = next((place[0] for place in sources if place is not None), None)
        if ours is None or spend.outside or name in node.thefts:
            continue
        for units, script in spend.outputs:
            place = node.places.get(script)
            if place is None or place[0] != ours:
                yield Payment(("BTC", node.address_of(script), units), ours.struct_hash, ref)


def consumed(world: World, anchor: Anchor, height: int) -> bool:
    """Whether an anchor was consumed up to the canonical block of a height."""
    if anchor.chain == EVM.name:
        certificate = next(
            c.message for c in world.born.certificates.values() if c.message.struct_hash == anchor.wallet
        )
        return world.evm.blocks[height].state.nonces.get(certificate.safe[0].address, 0) > int(anchor.reference)
    txid, _, vout = anchor.reference.partition(":")
    return (txid, int(vout)) in world.bitcoin.blocks[height].state.spent


def on_chain(world: World, tiers: frozenset[Tier], chain: Chain, symbol: str, height: int) -> int:
    """Base units at every address of wallets of these tiers after a canonical block."""
    inventory = world.inventory
    addresses = {a for wallet in inventory.on(chain) if wallet.tier in tiers for a in wallet.addresses}
    if chain == BITCOIN:
        return world.bitcoin.holds([*addresses], height)
    state = world.evm.blocks[height].state
    return sum(state.holds(symbol, address.text) for address in addresses)
