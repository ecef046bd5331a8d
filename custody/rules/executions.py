# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a mined transaction did, as read from a node, against what a payout's entry states and against its intents.

Pure. Reading it is each chain's own (`chains/*/executed.py`); here both kinds of chain are judged by the same rules.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from custody.rules.intents import TransferIntent
from custody.rules.ledger import Account, AccountKind
from custody.rules.origins import Executed
from custody.rules.provenance import Holding, HoldingOf
from custody.rules.refusals import Refusal, Rule
from custody.rules.wallets import Address


@dataclass(frozen=True, slots=True)
class Moved:
    """Base units of a registry asset that reached an address."""

    asset: str
    units: int
    to: Address


@dataclass(frozen=True, slots=True)
class Execution:
    """One consumed anchor. `source` is the address that held it, as ours; `fee` is what the wallet paid, in base units.

    `payments` need an intent each; `returned` is what came back into the anchor's own wallet without one: change, sweeps, a void's
    one change. `void` is the one canonical no-op, or an execution that failed and paid nobody.
    """

    source: Holding
    payments: tuple[Moved, ...]
    returned: tuple[Moved, ...]
    fee: int
    void: bool


def wallet_account(executed: Executed) -> Account:
    """The ledger account of the wallet whose anchor an entry names."""
    return Account(AccountKind.WALLET, executed.anchor.wallet.hex())


def check_execution(
    executed: Executed, intents: Sequence[TransferIntent], found: Execution, holding_of: HoldingOf
) -> Refusal | None:
    """Whether the transaction did what its entry states: void or not, its fee, its payments one to one, what arrived.

    `intents` are those of `executed.intents` that held something. The others move coins between customers' wallets and cost
    nothing, so that many payments are left over, each to such a wallet; anything else left over went to a stranger.
    """
    for field, stated, stands in (("void", executed.void, found.void), ("fee", executed.fee, found.fee)):
        if stated != stands:
            return Refusal(Rule.ORIGIN, field=field, got=stated, want=stands)
    refusal = None if found.void else _check_paid(executed, intents, found, holding_of)
    return refusal or _check_arrived(executed, found, holding_of)


def _check_paid(
    executed: Executed, intents: Sequence[TransferIntent], found: Execution, holding_of: HoldingOf
) -> Refusal | None:
    """As multisets, both directions: an extra payment is a theft, a missing one a customer debited for nothing."""
    paid = Counter((moved.asset, moved.to.text, moved.units) for moved in found.payments)
    wanted = Counter((intent.asset, intent.destination, intent.amount) for intent in intents)
    for missing in sorted((wanted - paid).elements()):
        return Refusal(Rule.ORIGIN, field="payments", got=_told(found.payments), want=_line(*missing))
    chain, left = found.source.wallet, list((paid - wanted).elements())
    addresses = {moved.to.text: moved.to for moved in found.payments}
    for asset, to, units in sorted(left):
        at = holding_of(addresses[to])
        if at is None or not (_is_customers(at) and _is_customers(found.source)):
            return Refusal(Rule.ORIGIN, field="payments", got=_line(asset, to, units), want="an intent that it pays")
    unheld = len(executed.intents) - len(intents)
    if len(left) != unheld:
        want = f"{unheld} payments without a hold out of {chain}"
        return Refusal(Rule.ORIGIN, field="intents", got=len(left), want=want)
    return None


def _check_arrived(executed: Executed, found: Execution, holding_of: HoldingOf) -> Refusal | None:
    """By wallet and asset. Fees swept to the operational tier are the company's there already, so they are not told."""
    units: Counter[tuple[bytes, str]] = Counter()
    for moved in (*found.payments, *found.returned):
        at = holding_of(moved.to)
        if at is not None and (_is_customers(at) or not _is_customers(found.source)):
            units[bytes.fromhex(at.wallet.owner), moved.asset] += moved.units
    stands = sorted((wallet.hex(), asset, total) for (wallet, asset), total in units.items() if total)
    told: Counter[tuple[bytes, str]] = Counter()
    for arrived in executed.arrived:
        told[arrived.wallet, arrived.asset] += arrived.units
    stated = sorted((wallet.hex(), asset, total) for (wallet, asset), total in told.items())
    return None if stated == stands else Refusal(Rule.ORIGIN, field="arrived", got=stated, want=stands)


def _is_customers(holding: Holding) -> bool:
    """Whether coins there back what customers are owed; the company's own wallets are owed to the company alone."""
    return holding.owner.kind is not AccountKind.COMPANY_EQUITY


def _told(payments: Sequence[Moved]) -> list[str]:
    return [_line(moved.asset, moved.to.text, moved.units) for moved in payments]


def _line(asset: str, to: str, units: int) -> str:
    return f"{units} {asset} to {to}"
