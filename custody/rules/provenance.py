# SPDX-License-Identifier: AGPL-3.0-or-later
"""Whether an entry says what its origin says: the rules that record one and those that audit it later are the same ones.

Pure. That a chain event happened is asked of a node elsewhere (`flows/verification.py`); here is what follows from it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from eth_utils.address import is_address, to_checksum_address

from custody.rules.amounts import Amount, Asset, AssetKind, Assets
from custody.rules.errors import InvalidInput, UnbalancedEntry
from custody.rules.hold_origins import Standing, check_executed, check_hold, check_release
from custody.rules.ledger import (
    Account,
    AccountKind,
    Entry,
    JournalEntry,
    Posting,
    check_manual,
    credit_deposit,
    credited_to,
    loss_of,
    manual,
    reverse,
    settle,
)
from custody.rules.origins import ChainProof, Executed, Hold, Release, Reversal, TokenProof, measured
from custody.rules.refusals import Refusal, Rule
from custody.rules.roster import Roster
from custody.rules.settlements import FeeSchedule, ManualEntry, Settlement, check_settlement
from custody.rules.signatures import Signed
from custody.rules.wallets import Address, Chain, Tier


@dataclass(frozen=True, slots=True)
class Holding:
    """An address of ours: the wallet account that has what arrives there, and the account that is owed it."""

    wallet: Account
    owner: Account


HoldingOf = Callable[[Address], Holding | None]
"""Derived from certificates and attested bindings, never from a row; None for an address that is not ours."""


@dataclass(frozen=True, slots=True)
class Authorities:
    """Against whom origins are checked. `rosters` are verified versions, oldest first; `schedules` signed ones by bundle hash."""

    assets: Assets
    rosters: Sequence[Roster]
    schedules: Mapping[bytes, FeeSchedule]
    holding_of: HoldingOf
    tiers: Mapping[bytes, Tier] = field(default_factory=dict)
    """Each certified wallet's tier, by its name."""

    def roster_at(self, time: int) -> Roster:
        """The version in force at a time, in seconds since 1970; the oldest given for anything before it."""
        in_force = [roster for roster in self.rosters if roster.version.not_before <= time]
        return in_force[-1] if in_force else self.rosters[0]


def check_entry(
    recorded: JournalEntry,
    reversed_entry: JournalEntry | None,
    balances: Mapping[tuple[Account, Asset], int],
    customers: frozenset[str],
    authorities: Authorities,
    standing: Mapping[bytes, Standing] = MappingProxyType({}),
) -> Iterator[Refusal]:
    """An entry against its own origin.

    `reversed_entry` is the entry that a reversal names, if there is one; `balances` are those before this entry, recomputed;
    `standing` are the holds that stand before it, by their intents' digests.
    """
    origin, at, assets = recorded.entry.origin, recorded.recorded_at, authorities.assets
    if isinstance(origin, Reversal):
        yield from _check_reversal(recorded, origin, reversed_entry, balances)
    elif isinstance(origin, Hold):
        yield from check_hold(recorded, authorities.roster_at(at), assets, customers)
    elif isinstance(origin, Release):
        yield from check_release(recorded, standing, authorities.roster_at(at), assets)
    elif isinstance(origin, Executed):
        yield from check_executed(recorded, standing, authorities.tiers.get(origin.anchor.wallet), assets, balances)
        yield from _check_places(origin, authorities.holding_of)
    elif not isinstance(origin, Signed):
        yield from _check_credit(recorded.entry, origin, authorities, balances)
    elif isinstance(origin.message, ManualEntry):
        signed_manual = Signed(origin.message, origin.signatures)
        yield from check_signed_manual(signed_manual, authorities.roster_at(at), assets, customers, at)
        yield from _same_postings(recorded.entry, lambda: manual(signed_manual, assets))
    else:
        signed = Signed(origin.message, origin.signatures)
        schedule = authorities.schedules.get(origin.message.schedule)
        if schedule is None:
            yield Refusal(
                Rule.ORIGIN_UNKNOWN, schedule=origin.message.schedule.hex(), why="no signed fee schedule of this hash"
            )
        else:
            yield from check_signed_settlement(signed, authorities.roster_at(at), schedule, assets, customers, at)
        yield from _same_postings(recorded.entry, lambda: settle(signed, assets))


def check_signed_settlement(
    signed: Signed[Settlement],
    roster: Roster,
    schedule: FeeSchedule,
    assets: Assets,
    customers: frozenset[str],
    now: int,
) -> Iterator[Refusal]:
    """A settlement in full: its signer, its trades and fees, and that it can be booked. Every reason at once."""
    yield from check_settler(signed, roster, now)
    found = [*_unknown_assets(signed.message, assets), *check_settlement(signed.message, schedule, customers)]
    yield from found or _bookable(lambda: settle(signed, assets))


def _unknown_assets(settlement: Settlement, assets: Assets) -> Iterator[Refusal]:
    known = {asset.symbol for asset in assets}
    for trade in settlement.trades:
        named = {leg.asset for leg in trade.legs} | {fee.asset for fee in trade.fees}
        for symbol in sorted(named - known):
            yield Refusal(Rule.UNKNOWN_ASSET, field=f"trade {trade.id}", got=symbol, want=", ".join(sorted(known)))


def check_settler(signed: Signed[Settlement], roster: Roster, now: int) -> Iterator[Refusal]:
    """Signed by exactly the API client it names: unexpired, with the settle scope, by that client's own key."""
    name = signed.message.client
    client = next((c for c in roster.version.clients if c.id == name), None)
    if not signed.signatures:
        yield Refusal(Rule.SIGNATURE_MISSING, document="Settlement", signer=name)
    if client is None:
        yield Refusal(Rule.SIGNER_UNKNOWN, field="settlement.client", got=name, want="an API client of the roster")
        return
    if client.expires <= now:
        yield Refusal(Rule.SIGNER_EXPIRED, client=name, expired=client.expires, now=now)
    if "settle" not in client.scopes:
        yield Refusal(Rule.SCOPE_MISSING, client=name, scopes=list(client.scopes), want="settle")
    digest = roster.domain.digest(signed.message)
    for signature in signed.signatures:
        if signature.key != client.key:  # a key borrowed from another client must not speak for this one
            yield Refusal(
                Rule.SIGNER_UNKNOWN, field="settlement.signature", got=str(signature.key), want=str(client.key)
            )
        elif not signature.is_over(digest):
            yield Refusal(Rule.SIGNATURE_INVALID, document="Settlement", signer=name)


def check_signed_manual(
    signed: Signed[ManualEntry], roster: Roster, assets: Assets, customers: frozenset[str], now: int
) -> Iterator[Refusal]:
    """A manual entry in full: enough distinct people, an allowed move, and that it can be booked. Every reason at once."""
    yield from roster.check_quorum(signed, roster.version.thresholds.manual_entry, None, now)
    if not signed.message.id:
        yield Refusal(Rule.MALFORMED, field="manual_entry.id", got="empty", want="an id")
    try:
        found = list(check_manual(signed.message, customers))
    except InvalidInput as error:
        found = [refusal_of(error)]
    yield from found
    yield from (refusal for refusal in _bookable(lambda: manual(signed, assets)) if refusal not in found)


def refusal_of(error: InvalidInput | UnbalancedEntry) -> Refusal:
    """What could not be constructed, as one reason among others."""
    if isinstance(error, UnbalancedEntry):
        return Refusal(Rule.NOT_ZERO_SUM, asset=error.asset, debits=error.debits, credits=error.credits)
    return Refusal(Rule(error.rule), field=error.field, got=error.got, want=error.want)


def _bookable(make: Callable[[], Entry]) -> Iterator[Refusal]:
    try:
        make()
    except (InvalidInput, UnbalancedEntry) as error:
        yield refusal_of(error)


def _same_postings(entry: Entry, make: Callable[[], Entry]) -> Iterator[Refusal]:
    try:
        want = make().postings
    except (InvalidInput, UnbalancedEntry):
        return  # told already, by whoever checked that it can be booked
    yield from _compare(entry.postings, want)


def _compare(got: tuple[Posting, ...], want: tuple[Posting, ...]) -> Iterator[Refusal]:
    if got != want:
        yield Refusal(Rule.ORIGIN, field="postings", got=_told(got), want=_told(want))


def _told(postings: tuple[Posting, ...]) -> list[str]:
    return [f"{p.side} {p.account} {p.amount.units} {p.amount.asset}" for p in postings]


def _check_places(done: Executed, holding_of: HoldingOf) -> Iterator[Refusal]:
    """Native coin taken from an event that names its address was brought to the wallet that it is said to have reached."""
    for arrived in done.arrived:
        _, _, place = arrived.event.rpartition("/")
        if Chain(done.chain).is_evm and is_address(place):
            at = holding_of(Address(Chain(done.chain), to_checksum_address(place)))
            if at is None or at.wallet != Account(AccountKind.WALLET, arrived.wallet.hex()):
                got = None if at is None else str(at.wallet)
                yield Refusal(Rule.ORIGIN, field="arrived.event", got=got, want=f"wallet:{arrived.wallet.hex()}")


def _check_credit(
    entry: Entry, proof: ChainProof, authorities: Authorities, balances: Mapping[tuple[Account, Asset], int]
) -> Iterator[Refusal]:
    """A credit is exactly what the proof measured, at the wallet the address derives from, owed to whom it is bound."""
    asset, holding = (
        _asset_of(proof, authorities.assets),
        authorities.holding_of(Address(Chain(proof.chain), proof.address)),
    )
    if asset is None:
        yield Refusal(Rule.UNKNOWN_ASSET, chain=proof.chain, contract=getattr(proof, "contract", "native"))
    if holding is None:
        yield Refusal(Rule.UNKNOWN_WALLET, address=proof.address, want="an address derived from a certificate")
    units = measured(proof)
    if units < 1 or (asset is not None and units < asset.dust):
        yield Refusal(Rule.DUST, measured=units, want=f"at least {asset.dust if asset else 1}")
    elif asset is not None and holding is not None:
        owner = credited_to(proof, holding.owner)
        if owner.kind is AccountKind.CUSTOMER_AVAILABLE:
            # The binding may be younger than the coins, which then went to suspense: still owed, and never the company's.
            # Refusing that would let a stranger who pays an address not yet bound stop the attestor for good.
            suspense = credited_to(proof, Account(AccountKind.SUSPENSE))
            owner = suspense if any(p.account == suspense for p in entry.postings) else owner
        lost = balances.get((loss_of(owner), asset), 0)
        yield from _compare(
            entry.postings, credit_deposit(proof, holding.wallet, owner, Amount(asset, units), lost).postings
        )


def _asset_of(proof: ChainProof, assets: Assets) -> Asset | None:
    """The registry's asset that a proof is about; a look-alike contract is none."""
    contract = proof.contract if isinstance(proof, TokenProof) else None
    kind = AssetKind.NATIVE if contract is None else AssetKind.ERC20
    found = (
        a
        for a in assets.on(Chain(proof.chain))
        if a.kind is kind and (a.contract.text if a.contract else None) == contract
    )
    return next(found, None)


def _check_reversal(
    recorded: JournalEntry,
    reversal: Reversal,
    credited: JournalEntry | None,
    balances: Mapping[tuple[Account, Asset], int],
) -> Iterator[Refusal]:
    """A reversal takes back one earlier credit or payout, exactly: no more than an account still had, the rest to `reorg_loss`."""
    proof = None if credited is None else credited.entry.origin
    if credited is None or credited.position >= recorded.position or not isinstance(proof, ChainProof | Executed):
        want = "an earlier credit of a chain event, or a payout"
        yield Refusal(Rule.ORIGIN, field="reversal.entry", got=reversal.entry, want=want)
        return
    shown = (proof.chain, proof.height, proof.block)
    if (reversal.chain, reversal.height, reversal.orphaned) != shown or reversal.canonical == reversal.orphaned:
        yield Refusal(Rule.ORIGIN, field="reversal.orphaned", got=reversal.orphaned.hex(), want=proof.block.hex())
        return
    yield from _compare(recorded.entry.postings, reverse(credited, reversal, balances).postings)
