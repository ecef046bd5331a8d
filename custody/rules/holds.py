# SPDX-License-Identifier: AGPL-3.0-or-later
"""The entries of a transfer: what it holds, what frees the hold, and what a final transaction moved.

A withdrawal holds its customer's balance and its share of the fee. Between our own wallets only the fee is held, out of
`company_surplus`. Whatever a payout pays to an address of ours (change, sweeps, internal moves) the watcher books as an arrival
like any other, to suspense or to the company; the payout's own entry takes exactly that back, so that nothing counts twice. Out of
suspense it takes it event by event: a stranger's coins in the same block stay where they are.
"""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from custody.rules.amounts import Amount, Asset, Assets
from custody.rules.errors import InvalidInput
from custody.rules.facts import Purpose
from custody.rules.intents import TransferIntent
from custody.rules.ledger import Account, AccountKind, Entry, Posting, Side, loss_of, suspense_of
from custody.rules.origins import Executed, Hold, Release
from custody.rules.refusals import Rule
from custody.rules.wallets import Chain, Tier
from custody.rules.walls import COMPANY, CUSTOMER

_EQUITY: Final = Account(AccountKind.COMPANY_EQUITY)
_SURPLUS: Final = Account(AccountKind.COMPANY_SURPLUS)

_PAYS: Final[Mapping[Purpose, tuple[AccountKind | None, AccountKind]]] = {
    Purpose.FEE_SWEEP: (AccountKind.ACCRUED_FEES, AccountKind.COMPANY_SURPLUS),
    Purpose.VENDOR_PAYMENT: (AccountKind.COMPANY_EQUITY, AccountKind.COMPANY_EQUITY),
    Purpose.MAKE_WHOLE: (AccountKind.COMPANY_EQUITY, AccountKind.COMPANY_EQUITY),
    Purpose.REBALANCE: (None, AccountKind.COMPANY_SURPLUS),
    Purpose.COLD_SWEEP: (None, AccountKind.COMPANY_SURPLUS),
}
"""Which company account pays the amount (None: it stays the customers'), and which the network's fee."""

Part = tuple[Account, Account, Amount]
"""Where units come from, where they wait, and how many."""


def native_of(chain: str, assets: Assets) -> Asset:
    """The chain's own coin, in which fees are paid. Raises InvalidInput where the registry has none."""
    for asset in assets.on(Chain(chain)):
        if asset.contract is None:
            return asset
    raise InvalidInput("chain", Rule.UNKNOWN_ASSET, chain, "a chain with a native asset")


def _accounts(intent: TransferIntent) -> tuple[tuple[Account, Account] | None, tuple[Account, Account]]:
    """(from, waiting) of the amount, None where nobody's account pays it, and of the fee."""
    if intent.account.startswith(CUSTOMER):
        owner = intent.account.removeprefix(CUSTOMER)
        own = (Account(AccountKind.CUSTOMER_AVAILABLE, owner), Account(AccountKind.CUSTOMER_HELD, owner))
        return own, own
    if intent.account != COMPANY or intent.purpose not in {p.value for p in _PAYS}:
        raise InvalidInput(
            "intent.account", Rule.UNKNOWN_CUSTOMER, intent.account, f"{COMPANY} or {CUSTOMER}ID, with its purpose"
        )
    amount, fee = _PAYS[Purpose(intent.purpose)]
    return None if amount is None else _company(amount), _company(fee)


def _company(kind: AccountKind) -> tuple[Account, Account]:
    return Account(kind), Account(AccountKind.COMPANY_HELD, kind.value)


def parts(intent: TransferIntent, assets: Assets) -> tuple[Part, ...]:
    """What an intent holds: the amount where an account of the ledger pays it, and the maximum fee. May be nothing.

    Raises InvalidInput for an account, purpose or asset that does not exist.
    """
    asset, native = assets.get(intent.asset), native_of(intent.chain, assets)
    amount, fee = _accounts(intent)
    found: list[Part] = []
    if amount is not None:
        found.append((*amount, Amount(asset, intent.amount)))
    if intent.maximum_fee:
        found.append((*fee, Amount(native, intent.maximum_fee)))
    return tuple(found)


def hold(origin: Hold, assets: Assets) -> Entry | None:
    """The entry that holds what an accepted intent moves; None where it holds nothing (a move inside customer tiers on EVM)."""
    return _moved(origin, ((source, waiting, units) for source, waiting, units in parts(origin.intent, assets)))


def release(origin: Release, intent: TransferIntent, assets: Assets) -> Entry | None:
    """The exact opposite of the hold."""
    return _moved(origin, ((waiting, source, units) for source, waiting, units in parts(intent, assets)))


def _moved(origin: Hold | Release, moves: Iterable[Part]) -> Entry | None:
    postings: list[Posting] = []
    for debited, credited, units in moves:
        postings += [Posting(debited, Side.DEBIT, units), Posting(credited, Side.CREDIT, units)]
    return Entry(origin, tuple(postings)) if postings else None


def fee_shares(fee: int, maxima: Sequence[int]) -> tuple[int, ...]:
    """Split a fee by what each intent allows, never more than that; the odd units go to the first that have room.

    Raises InvalidInput where they allow less together.
    """
    most = sum(maxima)
    if fee > most:
        raise InvalidInput("done.fee", Rule.MAXIMUM_FEE, str(fee), f"at most {most}")
    shares = [fee * maximum // most if most else 0 for maximum in maxima]
    left = fee - sum(shares)
    for position, maximum in enumerate(maxima):
        if left and shares[position] < maximum:
            shares[position] += 1
            left -= 1
    return tuple(shares)


def pay(
    done: Executed,
    intents: Sequence[TransferIntent],
    tier: Tier,
    assets: Assets,
    lost: Mapping[tuple[Account, Asset], int] = MappingProxyType({}),
) -> Entry | None:
    """What a final transaction moved; None where that is nothing (a void on EVM of intents that held nothing).

    `intents` are those of `done.intents` that hold something, in that order; `tier` is that of the wallet whose anchor it was;
    `lost` are the balances of `reorg_loss`, in base units: what a hold gives back to an account that spent it in between, while a
    reorg had undone this payout, fills that first.

    A withdrawal is debited what was paid, and gets back what its share of the fee did not use. A void's fee comes out of what each
    intent may cost at most, which people approved and its hold has; only what is above that is the company's
    (docs/decisions/0009). Coins that reached a wallet of another side than the source's stand in the ledger by the watcher's entry:
    fees swept are the company's there, and coins that make customers whole are in suspense until this entry takes them to
    `company_surplus`. Raises InvalidInput (a fee above what the intents allow together; an unknown asset).
    """
    lines = _Lines(done, assets, lost)
    native = native_of(done.chain, assets)
    maxima = [intent.maximum_fee for intent in intents]
    shared = min(done.fee, sum(maxima)) if done.void or not intents else done.fee
    if shared < done.fee:
        lines.out_of(_SURPLUS if tier.is_customer else _EQUITY, Amount(native, done.fee - shared))
    for intent, share in zip(intents, fee_shares(shared, maxima), strict=True):
        _settle(lines, intent, share, void=done.void)
    for arrived in done.arrived:
        back = Amount(assets.get(arrived.asset), arrived.units)
        if not tier.is_customer and arrived.wallet == done.anchor.wallet:
            lines.out_of(_EQUITY, back)
        elif tier.is_customer:
            lines.out_of(suspense_of(arrived.event), back)
        else:  # make_whole: operational coins that are the customers' from here on
            lines.move(suspense_of(arrived.event), _SURPLUS, back)
    return lines.entry()


def _settle(lines: "_Lines", intent: TransferIntent, share: int, *, void: bool) -> None:
    amount, fee = _accounts(intent)
    native = native_of(intent.chain, lines.assets)
    if amount is not None:
        source, waiting = amount
        units = Amount(lines.assets.get(intent.asset), intent.amount)
        if void:
            lines.move(waiting, source, units)
        else:
            lines.out_of(waiting, units)
    source, waiting = fee
    if share:
        lines.out_of(waiting, Amount(native, share))
    if intent.maximum_fee > share:
        lines.move(waiting, source, Amount(native, intent.maximum_fee - share))


class _Lines:
    """Postings of one payout, added up by account, side and asset in the order they first came."""

    def __init__(self, done: Executed, assets: Assets, lost: Mapping[tuple[Account, Asset], int]) -> None:
        self.assets, self._done = assets, done
        self._lost = dict(lost)
        self._wallet = Account(AccountKind.WALLET, done.anchor.wallet.hex())
        self._units: dict[tuple[Account, Side, Asset], int] = {}

    def out_of(self, account: Account, amount: Amount) -> None:
        """Coins that left the wallet, and whose they were."""
        self._add(account, Side.DEBIT, amount)
        self._add(self._wallet, Side.CREDIT, amount)

    def move(self, debited: Account, credited: Account, amount: Amount) -> None:
        """From one account to another, or first to what that one lost to a reorg."""
        self._add(debited, Side.DEBIT, amount)
        loss = loss_of(credited)
        filled = min(self._lost.get((loss, amount.asset), 0), amount.units)
        if filled:
            self._lost[loss, amount.asset] -= filled
            self._add(loss, Side.CREDIT, Amount(amount.asset, filled))
        if filled < amount.units:
            self._add(credited, Side.CREDIT, Amount(amount.asset, amount.units - filled))

    def _add(self, account: Account, side: Side, amount: Amount) -> None:
        key = (account, side, amount.asset)
        self._units[key] = self._units.get(key, 0) + amount.units

    def entry(self) -> Entry | None:
        """All of it."""
        postings = (
            Posting(account, side, Amount(asset, units)) for (account, side, asset), units in self._units.items()
        )
        return Entry(self._done, tuple(postings)) if self._units else None
