# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the attestor says about a payout: that holds stand and balances cover, and the facts that policy asks of each intent.

Everything is recomputed from audited entries, from certificates and enrolments whose signatures hold, and from the attestor's own
nodes and memory. Of a row nothing is taken but a document that proves itself.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from custody.flows.inventory import Inventory, Wallet
from custody.flows.panel import Panel
from custody.flows.ports import Prices, UnitOfWork
from custody.flows.sights import Sighted
from custody.flows.verification import AuditState
from custody.rules import holds
from custody.rules.amounts import Asset, Assets
from custody.rules.deposits import BlockRef
from custody.rules.facts import Purpose
from custody.rules.in_flight import DAY, HOUR, Attested, Flight, Move, Outgoing, outgoing
from custody.rules.intents import NONCES_AHEAD, Anchor, TransferIntent
from custody.rules.ledger import Account, AccountKind, loss_of
from custody.rules.payments import Reservation
from custody.rules.refusals import Refusal, Rule
from custody.rules.roster import Roster
from custody.rules.statements import IntentFacts, SafeState
from custody.rules.typed import ZERO32
from custody.rules.wallets import Address, Chain
from custody.rules.walls import CUSTOMER

INTENTS_MOST: Final = 1000


@dataclass(frozen=True, slots=True)
class Ground:
    """What one statement stands on: roster and inventory as verified, an audited ledger, one final block per chain.

    `intents` are those asked for that were found in the journal or prove themselves, by digest; `sighted` what the store shows and
    may be seen for the first time; `prices` are none where no intent is asked for. `reserved` is what permits of these intents pin,
    as rows have it: it is only ever looked at to refuse.
    """

    roster: Roster
    inventory: Inventory
    ledger: AuditState
    finals: Mapping[Chain, BlockRef]
    intents: Mapping[bytes, TransferIntent]
    sighted: Sighted
    prices: Prices
    reserved: tuple[Reservation, ...] = ()


def reserved(work: UnitOfWork, intents: Mapping[bytes, TransferIntent]) -> Iterator[Reservation]:
    """What the recorded permits of these intents pin on Bitcoin, each once."""
    seen = set[bytes]()
    for digest, intent in intents.items():
        if digest in seen or Chain(intent.chain).is_evm:
            continue
        permit = work.transfers.permit_of(digest)
        if permit is not None:
            seen.update(permit.intents)
            yield permit.reservation


def consumed(
    anchor: Anchor, ground: Ground, panels: Mapping[Chain, Panel], states: Mapping[bytes, SafeState]
) -> bool | None:
    """Whether an anchor is finally consumed: the Safe's nonce has passed it, or a final block spends it. None: no such anchor.

    Asked at the very block at which reserves are counted, so that no coin is in both or in neither.
    """
    wallet = ground.inventory.wallets.get(anchor.wallet)
    if wallet is None or wallet.chain.name != anchor.chain:
        return None
    if not wallet.chain.is_evm:
        return panels[wallet.chain].is_spent(anchor.reference, wallet.addresses, ground.finals[wallet.chain])
    state = states.get(anchor.wallet)
    if state is None or re.fullmatch("0|[1-9][0-9]{0,18}", anchor.reference) is None:
        return None
    nonce = int(anchor.reference)
    return None if nonce > state.nonce + NONCES_AHEAD else nonce < state.nonce


def flown(ground: Ground, flights: Sequence[Flight], assets: Assets, besides: Anchor | None) -> Outgoing:
    """What attested payouts out of customer tiers will still take, but for the one at an anchor."""
    inventory = ground.inventory

    def leaves(intent: TransferIntent) -> bool:
        to = inventory.wallet_of(Address(Chain(intent.chain), intent.destination))
        return to is None or not to.tier.is_customer

    def from_customers(flight: Flight) -> bool:
        wallet = inventory.wallets.get(flight.attested.anchor.wallet)
        return wallet is None or wallet.tier.is_customer

    ours = [flight for flight in flights if from_customers(flight)]
    return outgoing(ours, leaves, lambda chain: holds.native_of(chain, assets).symbol, ground.ledger.holds, besides)


@dataclass(frozen=True)
class Asking:
    """One request to speak for a payout, beside everything it is judged by. `time` is the statement's."""

    anchor: Anchor
    digests: Sequence[bytes]
    ground: Ground
    flights: Sequence[Flight]
    panels: Mapping[Chain, Panel]
    states: Mapping[bytes, SafeState]
    assets: Assets
    time: int

    @cached_property
    def intents(self) -> dict[bytes, TransferIntent]:
        """Those asked for that there are."""
        return {digest: self.ground.intents[digest] for digest in self.digests if digest in self.ground.intents}

    @cached_property
    def moves(self) -> dict[bytes, Move]:
        """Everything that windows count, these intents included."""
        return self.ground.ledger.moves.together(self.flights) | {d: Move(i) for d, i in self.intents.items()}

    @property
    def attested(self) -> list[Attested]:
        """What is to be remembered before anything is signed."""
        return [Attested(digest, self.anchor, intent, self.time) for digest, intent in self.intents.items()]

    def refusals(self) -> Iterator[Refusal]:
        """Every reason against speaking for this payout. What was already attested elsewhere, the memory refuses."""
        if len(set(self.digests)) != len(self.digests) or len(self.digests) > INTENTS_MOST:
            yield Refusal(
                Rule.MALFORMED, field="intents", got=len(self.digests), want=f"at most {INTENTS_MOST}, each once"
            )
        yield from self._check_anchor()
        yield from self._check_coins()
        for digest in self.digests:
            intent = self.intents.get(digest)
            if intent is None:
                yield Refusal(Rule.HOLD, intent=digest.hex())
            else:
                yield from self._check_intent(digest, intent)
        yield from self._check_balances()

    def _check_anchor(self) -> Iterator[Refusal]:
        """A real one: an intent bound to an anchor that does not exist could never be paid, nor voided."""
        known = consumed(self.anchor, self.ground, self.panels, self.states)
        told = {"chain": self.anchor.chain, "wallet": self.anchor.wallet.hex(), "anchor": self.anchor.reference}
        if known is None:
            yield Refusal(
                Rule.COIN_GONE, **told, want="the next nonces of a certified Safe, or a final output of the wallet"
            )
        elif known:
            yield Refusal(Rule.ANCHOR_SPENT, **told)

    def _check_coins(self) -> Iterator[Refusal]:
        """Every coin that pays these intents stands credited, at an address of this wallet, and unspent.

        Whoever knows the descriptor can pay an index that nobody watches: a payout that spends such a coin is mined, no entry can be
        made of it that an audit explains, and every later statement fails. Without intents nothing new is spent: a void takes the
        anchor alone, and an anchor that was credited once may need one.
        """
        chain, wallet = Chain(self.anchor.chain), self.anchor.wallet
        if chain.is_evm or not self.digests:
            return
        pinned = (r.references for r in self.ground.reserved if r.anchor == self.anchor)
        for outpoint in sorted({self.anchor.reference}.union(*pinned)):
            coin = Anchor(chain.name, wallet, outpoint)
            told = {"chain": chain.name, "wallet": wallet.hex(), "coin": outpoint}
            if f"{chain.name}/{outpoint}" not in self.ground.ledger.coins:
                yield Refusal(Rule.COIN_GONE, **told, want="an output whose deposit the ledger has credited")
            elif coin != self.anchor and consumed(coin, self.ground, self.panels, self.states) is not False:
                yield Refusal(Rule.COIN_GONE, **told, want="an unspent final output of the wallet")

    def _check_intent(self, digest: bytes, intent: TransferIntent) -> Iterator[Refusal]:
        if (intent.chain, intent.wallet) != (self.anchor.chain, self.anchor.wallet):
            yield Refusal(
                Rule.WRONG_WALLET, intent=digest.hex(), got=self.anchor.wallet.hex(), want=intent.wallet.hex()
            )
        for asset, lost in self._lost(intent):
            yield Refusal(Rule.DEPOSIT_REVERSED, intent=digest.hex(), lost=lost, asset=asset.symbol)
        if intent.expiry <= self.time:
            yield Refusal(Rule.EXPIRED, intent=digest.hex(), expired=intent.expiry, now=self.time)

    def _lost(self, intent: TransferIntent) -> Iterator[tuple[Asset, int]]:
        """What its customer had spent of deposits that a reorg took back: nothing more goes out to him until that is filled."""
        if intent.account.startswith(CUSTOMER):
            loss = loss_of(Account(AccountKind.CUSTOMER_AVAILABLE, intent.account.removeprefix(CUSTOMER)))
            yield from ((a, units) for a in self.assets if (units := self.ground.ledger.balances.get((loss, a), 0)))

    def _check_balances(self) -> Iterator[Refusal]:
        """The accounts debited, and the wallet, have what these take, whatever else holds or flies."""
        balances = self.ground.ledger.balances
        own, needed = self._accounts(), self._needed()
        for account, asset in sorted(own, key=str):
            units, needs = balances.get((account, asset), 0), needed.get((account, asset), 0)
            if units < needs:
                yield Refusal(
                    Rule.INSUFFICIENT_BALANCE, account=str(account), asset=asset.symbol, balance=units, need=needs
                )

    def _accounts(self) -> set[tuple[Account, Asset]]:
        """Every account that one of these intents debits, holds in or pays from."""
        found = {key for intent in self.intents.values() for key in self._pays(intent)}
        for intent in self.intents.values():
            for source, waiting, amount in holds.parts(intent, self.assets):
                found |= {(source, amount.asset), (waiting, amount.asset)}
        return found

    def _needed(self) -> dict[tuple[Account, Asset], int]:
        """Base units that each account has to have: what stands held in it, and what flies though its hold was taken away."""
        needed: dict[tuple[Account, Asset], int] = defaultdict(int)
        standing = self.ground.ledger.holds
        for hold in standing.values():
            for _, waiting, amount in holds.parts(hold.intent, self.assets):
                needed[waiting, amount.asset] += amount.units
        others = [f.attested for f in self.flights if not f.ended and f.attested.anchor != self.anchor]
        for attested in others:
            if attested.digest not in standing:
                for source, _, amount in holds.parts(attested.intent, self.assets):
                    needed[source, amount.asset] += amount.units
        for intent in (*self.intents.values(), *(attested.intent for attested in others)):
            for key, units in self._pays(intent).items():
                needed[key] += units
        return needed

    def _pays(self, intent: TransferIntent) -> dict[tuple[Account, Asset], int]:
        """What leaves the wallet's account: the amount, and on Bitcoin the most that the network may take."""
        account = Account(AccountKind.WALLET, intent.wallet.hex())
        found = {(account, self.assets.get(intent.asset)): intent.amount}
        if not Chain(intent.chain).is_evm:
            native = account, holds.native_of(intent.chain, self.assets)
            found[native] = found.get(native, 0) + intent.maximum_fee
        return found

    # facts

    def facts(self, first_sight: Callable[[bytes], int]) -> tuple[IntentFacts, ...]:
        """What a seat cannot know by itself, of each intent. `first_sight` gives a time, zero for what was never seen.

        Whoever is asked for these has found no refusal, so holds stand and balances cover. Raises Unavailable without a price.
        """
        return tuple(self._facts(digest, intent, first_sight) for digest, intent in self.intents.items())

    def _facts(self, digest: bytes, intent: TransferIntent, first_sight: Callable[[bytes], int]) -> IntentFacts:
        destination = Address(Chain(intent.chain), intent.destination)
        to = self.ground.inventory.wallet_of(destination)
        place = to.certificate.struct_hash if to is not None else intent.enrolment
        return IntentFacts(
            intent=digest,
            hold_stands=True,
            balance_covers=True,
            usd=self._usd(digest),
            customer_24h=self._window(DAY, lambda move: move.account == intent.account),
            wallet_1h=self._window(HOUR, lambda move: move.wallet == intent.wallet),
            initiator_24h=self._window(DAY, lambda move: move.initiator == intent.initiator),
            settled_24h=self._settled(intent),
            swept_24h=self._swept(intent),
            destination_after=self._destination_after(to, intent),
            first_seen=first_sight(digest),
            destination_first_seen=0 if place == ZERO32 else first_sight(place),
        )

    def _usd(self, digest: bytes) -> int:
        intent = self.moves[digest].intent
        return self.ground.prices.value(self.assets.get(intent.asset), intent.amount)

    def _window(self, seconds: int, whose: Callable[[TransferIntent], bool]) -> int:
        """Micro-USD at today's prices of all that counts."""
        counted = (d for d, move in self.moves.items() if whose(move.intent) and move.counts(self.time, seconds))
        return sum(self._usd(digest) for digest in counted)

    def _settled(self, intent: TransferIntent) -> int:
        """Fresh inflow by settlements; the company has none."""
        if not intent.account.startswith(CUSTOMER):
            return 0
        account = Account(AccountKind.CUSTOMER_AVAILABLE, intent.account.removeprefix(CUSTOMER))
        settled = self.ground.ledger.moves.settled_since(account, self.time - DAY)
        return sum(self.ground.prices.value(asset, units) for asset, units in settled.items())

    def _swept(self, intent: TransferIntent) -> int:
        sweeps = (move for move in self.moves.values() if move.intent.purpose == Purpose.FEE_SWEEP)
        return sum(m.intent.amount for m in sweeps if m.intent.asset == intent.asset and m.counts(self.time, DAY))

    def _destination_after(self, to: Wallet | None, intent: TransferIntent) -> int:
        """Base units there afterwards: by chain or ledger, whichever says more. Of a stranger's we know only what we pay."""
        if to is None:
            return intent.amount
        asset = self.assets.get(intent.asset)
        on_chain = self.panels[to.chain].balance(asset, to.addresses, self.ground.finals[to.chain])
        pending = (m.intent for m in self.moves.values() if not m.ended and m.intent.asset == intent.asset)
        coming = sum(i.amount for i in pending if Address(Chain(i.chain), i.destination) in to.addresses)
        return max(on_chain, self.ground.ledger.balances.get((to.account, asset), 0)) + coming

    def unswept(self, asset: str) -> int:
        """Base units of fees that these intents themselves hold for a sweep: pending ones are off the matured fees already."""
        sweeps = (i for i in self.intents.values() if i.asset == asset and i.purpose == Purpose.FEE_SWEEP)
        return sum(intent.amount for intent in sweeps)
