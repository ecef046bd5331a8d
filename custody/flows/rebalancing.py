# SPDX-License-Identifier: AGPL-3.0-or-later
"""What rebalancing wants: a hot wallet above its cap overflows into cold, one below its floor is refilled, both to the target.

Pure. It reads two figures of each balance, the chain's at a final block and the ledger's, and believes the one that moves less:
the lesser before coins are sent away, the greater before coins are fetched. Transfers and ledger come from one snapshot, in which
a payout's end and its posting are one, so that none is counted twice or not at all; the chain's figure may lag behind or run ahead.

Neither direction begins the other. A refill leaves hot at no more than its cap even if nothing else ever leaves; an overflow leaves
what customers already asked for, so that approving them needs no refill. A customer who asks and waits keeps nothing above the cap.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from custody.flows.inventory import Wallet
from custody.flows.kernel import Kernel
from custody.flows.ports import Branch, ChainView
from custody.rules import words
from custody.rules.amounts import Amount, Asset
from custody.rules.deposits import BlockRef
from custody.rules.errors import Unavailable
from custody.rules.facts import Purpose
from custody.rules.holds import native_of
from custody.rules.hot_bands import HotBand
from custody.rules.payouts import CHANGE_WINDOW
from custody.rules.refusals import Refusal, Refused, Rule
from custody.rules.transfers import Status, Transfer
from custody.rules.wallets import Address, Chain, Tier

WORTH: Final = 20
"""A move is of at least so many times what it may cost the network: less would burn surplus to move little."""
_NO: Final = frozenset({Status.REJECTED, Status.CANCELLED, Status.BLOCKED, Status.FAILED})
_MOVES: Final = frozenset({Purpose.REBALANCE.value, Purpose.COLD_SWEEP.value})


class Direction(StrEnum):
    """Which way coins go."""

    OVERFLOW = "overflow"
    REFILL = "refill"


PURPOSE: Final[Mapping[Direction, Purpose]] = {
    Direction.OVERFLOW: Purpose.COLD_SWEEP,
    Direction.REFILL: Purpose.REBALANCE,
}
PATIENCE: Final[Mapping[Direction, int]] = {Direction.OVERFLOW: 3_600, Direction.REFILL: 86_400}
"""Seconds for which a no to the last proposal stands; shorter where waiting leaves more to lose."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a wallet's addresses hold of an asset together, in base units, at one final block."""

    wallet: bytes
    asset: str
    units: int
    at: BlockRef


@dataclass(frozen=True, slots=True)
class Turn:
    """The newest proposal that this initiator made of one asset in one direction; `number` is that of the next one."""

    number: int = 0
    last: Transfer | None = None


@dataclass(frozen=True, slots=True)
class InFlight:
    """One snapshot of the store. `ledger` has each wallet's balance of each asset, `surplus` the company's, in base units."""

    transfers: Sequence[Transfer]
    ledger: Mapping[tuple[bytes, str], int]
    surplus: Mapping[str, int]
    turns: Mapping[tuple[str, Direction], Turn]
    unread: Mapping[str, str] = field(default_factory=dict)
    """Assets of which something in the store cannot be read, by symbol, and what: nothing of them is proposed."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One move to propose. `key` is the same for the same situation, so that a repetition after a crash proposes nothing twice."""

    direction: Direction
    asset: Asset
    source: bytes
    to: bytes
    destination: str
    units: int
    key: str
    why: str

    @property
    def purpose(self) -> Purpose:
        """What policy is asked as."""
        return PURPOSE[self.direction]


@dataclass(frozen=True, slots=True)
class Rests:
    """Nothing to propose for an asset, and why; a `fault` is for people to mend."""

    asset: Asset
    why: str
    fault: bool = False


@dataclass(frozen=True, slots=True)
class _Case:
    """One asset with its two wallets, their balances by chain and by ledger, and what is in flight between them and elsewhere."""

    asset: Asset
    band: HotBand
    hot: Wallet
    cold: Wallet
    on_chain: Mapping[bytes, int]
    in_ledger: Mapping[bytes, int]
    flight: InFlight
    fee: int
    """What the payout may cost the wallet, in the asset's own units; zero for a token and where the relayer pays."""

    def least(self, wallet: Wallet) -> int:
        """What surely is there."""
        return min(self.on_chain[wallet.name], self.in_ledger[wallet.name])

    def most(self, wallet: Wallet) -> int:
        """What may be there."""
        return max(self.on_chain[wallet.name], self.in_ledger[wallet.name])

    def leaving(self, wallet: Wallet, *, decided: bool | None = None) -> int:
        """What unfinished transfers take out of a wallet; only decided ones, or only undecided ones, where told."""
        chosen = (t for t in self._live() if t.intent.wallet == wallet.name and decided in (None, _is_decided(t)))
        return sum(self._takes(transfer) for transfer in chosen)

    def arriving(self, wallet: Wallet) -> int:
        """What unfinished transfers bring to a wallet."""
        places = {address.text for address in wallet.addresses}
        return sum(t.intent.amount for t in self._live() if t.intent.destination in places and self._is_mine(t))

    def _live(self) -> Iterator[Transfer]:
        chain = self.asset.chain.name
        return (t for t in self.flight.transfers if t.live and not t.status.is_final and t.intent.chain == chain)

    def _is_mine(self, transfer: Transfer) -> bool:
        return transfer.intent.asset == self.asset.symbol

    def _takes(self, transfer: Transfer) -> int:
        fee = transfer.intent.maximum_fee if self.asset.contract is None else 0
        return fee + (transfer.intent.amount if self._is_mine(transfer) else 0)

    def say(self, units: int) -> str:
        """An amount for people; below zero where more is promised than is there."""
        return str(Amount(self.asset, units))


def read_chain(kernel: Kernel, chain: Chain, view: ChainView) -> tuple[Reading, ...]:
    """Both wallets' balances of every asset at one final block. Raises Unavailable; Refused where a tier has not one wallet."""
    at = view.final()
    return tuple(
        Reading(wallet.name, asset.symbol, view.balance(asset, wallet.addresses, at), at)
        for wallet in pair(kernel, chain)
        for asset in _assets(kernel, chain)
    )


def pair(kernel: Kernel, chain: Chain) -> tuple[Wallet, Wallet]:
    """The hot and the cold wallet of a chain. Raises Refused where there is not exactly one of each."""
    found = []
    for tier in (Tier.CUSTOMER_HOT, Tier.CUSTOMER_COLD):
        wallets = kernel.wallets(chain, tier)
        if len(wallets) != 1:
            raise Refused([Refusal(Rule.UNKNOWN_WALLET, tier=tier, chain=chain.name, wallets=len(wallets))])
        found.append(wallets[0])
    return found[0], found[1]


def plan(
    kernel: Kernel, chain: Chain, readings: Sequence[Reading], flight: InFlight, now: int
) -> tuple[Wanted | Rests, ...]:
    """For every asset of a chain that has levels, the one move to propose, or why there is none.

    Raises Unavailable where a balance was not read, by chain or by ledger: nothing is assumed, and nothing of the chain proposed.
    """
    return tuple(_of_asset(case, kernel, now) for case in list(_cases(kernel, chain, readings, flight)))


def _assets(kernel: Kernel, chain: Chain) -> tuple[Asset, ...]:
    return tuple(asset for asset in kernel.assets.on(chain) if asset.symbol in kernel.policies.newest.hot)


def _cases(kernel: Kernel, chain: Chain, readings: Sequence[Reading], flight: InFlight) -> Iterator[_Case]:
    hot, cold = pair(kernel, chain)
    names = (hot.name, cold.name)
    if len({reading.at.hash for reading in readings if reading.wallet in names}) > 1:
        raise Unavailable(f"balances on {chain}", "they were read at different blocks")
    read = {(reading.wallet, reading.asset): reading.units for reading in readings}
    for asset in _assets(kernel, chain):
        for told, where in ((read, chain.name), (flight.ledger, "the ledger")):
            missing = [name.hex() for name in names if (name, asset.symbol) not in told]
            if missing:
                raise Unavailable(f"balance of {asset}", f"not read from {where} for wallet {missing[0]}")
        fee = kernel.maximum_fee.get(chain, 0) if asset.contract is None else 0
        band, symbol = kernel.policies.newest.hot[asset.symbol], asset.symbol
        on_chain = {name: read[name, symbol] for name in names}
        in_ledger = {name: flight.ledger[name, symbol] for name in names}
        yield _Case(asset, band, hot, cold, on_chain, in_ledger, flight, fee)


def _of_asset(case: _Case, kernel: Kernel, now: int) -> Wanted | Rests:
    # What a damaged row moves may be anything: we would send away what is promised, or fetch what is on its way.
    if (unread := case.flight.unread.get(case.asset.symbol)) is not None:
        return Rests(case.asset, unread, fault=True)
    if (sent := _pending(case, Direction.OVERFLOW)) is not None:
        return sent
    stays = case.least(case.hot) - case.leaving(case.hot, decided=True)
    if stays > case.band.cap:  # also while a refill is asked for: the cap is what we can afford to lose
        return _overflow(case, kernel, stays, now)
    if (fetched := _pending(case, Direction.REFILL)) is not None:
        return fetched
    comes = case.most(case.hot) + case.arriving(case.hot) - case.leaving(case.hot)
    if comes < case.band.floor:
        return _refill(case, kernel, comes, now)
    chain, ledger = case.on_chain[case.hot.name], case.in_ledger[case.hot.name]
    if chain != ledger:
        told = f"the chain says {case.say(chain)}, the ledger {case.say(ledger)}; less what is in flight"
        return Rests(case.asset, f"{told}, neither is beyond a level")
    return Rests(case.asset, f"{case.say(chain)}, less what is in flight, is between floor and cap")


def _pending(case: _Case, direction: Direction) -> Rests | None:
    last = _turn(case, direction).last
    if last is None or not last.live or last.status.is_final:
        return None
    return Rests(case.asset, f"transfer {last.intent.id} is under way: {last.status.value}")


def _overflow(case: _Case, kernel: Kernel, stays: int, now: int) -> Wanted | Rests:
    band = case.band
    promised = case.leaving(case.hot, decided=False)
    keeps = min(band.cap, band.target + promised)
    units = stays - keeps - case.fee
    why = f"hot stays with {case.say(stays)}, above its cap of {case.say(band.cap)}; {case.say(keeps)} remain"
    return _proposed(case, kernel, Direction.OVERFLOW, units, why, now)


def _refill(case: _Case, kernel: Kernel, comes: int, now: int) -> Wanted | Rests:
    """To the target, by what cold surely has, by the largest refill, and by the room that policy counts below the cap."""
    band = case.band
    has = max(0, case.least(case.cold) - case.leaving(case.cold) - case.fee)
    room = band.cap - case.most(case.hot) - case.arriving(case.hot)
    bounds = {
        "its target": band.target - comes,
        "what cold has": has,
        "the largest refill": band.refill_most,
        "the room below its cap": room,
    }
    bound = min(bounds, key=lambda name: bounds[name])
    low = f"hot comes to {case.say(comes)}, below its floor of {case.say(band.floor)}"
    return _proposed(case, kernel, Direction.REFILL, bounds[bound], f"{low}; filled up to {bound}", now)


def _proposed(case: _Case, kernel: Kernel, direction: Direction, units: int, why: str, now: int) -> Wanted | Rests:
    """The move, unless it is not worth its fee, nobody can pay that, or somebody said no to the same lately."""
    asset, turn = case.asset, _turn(case, direction)
    worth = max(asset.dust, WORTH * case.fee)
    if units < worth:
        return Rests(asset, f"{why}; {case.say(max(0, units))} is less than a move is worth ({case.say(worth)})")
    chain_fee = kernel.maximum_fee.get(asset.chain, 0)
    native = native_of(asset.chain.name, kernel.assets)
    if case.flight.surplus.get(native.symbol, 0) < chain_fee:
        need = Amount(native, chain_fee)
        return Rests(asset, f"{why}; company_surplus is below the fee of {need}: the company makes it up first")
    last, until = turn.last, 0
    if last is not None and last.status in _NO:
        until = last.moved_at + PATIENCE[direction]
    if last is not None and now < until:
        return Rests(
            asset, f"{why}; transfer {last.intent.id} was {last.status.value}, asked again at {words.at(until)}"
        )
    source, to = (case.hot, case.cold) if direction is Direction.OVERFLOW else (case.cold, case.hot)
    key = key_of(case.hot.name, asset.symbol, direction, turn.number)
    return Wanted(direction, asset, source.name, to.name, _place(kernel, to).text, units, key, why)


def key_of(hot: bytes, asset: str, direction: Direction, number: int) -> str:
    """The idempotency key and the reference of a proposal: the same until what it became has ended."""
    return f"rebalance-{hot.hex()[:16]}-{asset}-{direction}-{number}"


def _turn(case: _Case, direction: Direction) -> Turn:
    return case.flight.turns.get((case.asset.symbol, direction), Turn())


def _place(kernel: Kernel, wallet: Wallet) -> Address:
    """The Safe, or the last change address of the window: what arrives there is nobody's deposit, and own change takes the first."""
    main = kernel.derive.main(wallet.certificate)
    return main if main is not None else kernel.derive.derive(wallet.certificate, Branch.CHANGE, CHANGE_WINDOW - 1)


def _is_decided(transfer: Transfer) -> bool:
    """Whether nobody is asked any more; moves between our own wallets are people's answer to the same question."""
    return transfer.status is Status.QUEUED or transfer.status.is_asked or transfer.intent.purpose in _MOVES
