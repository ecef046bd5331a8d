# SPDX-License-Identifier: AGPL-3.0-or-later
"""After a rotation on Bitcoin, coins under an older certificate are brought under the newest (TRUST.md, deposit addresses).

Addresses cannot follow their wallet: deposits to old ones are credited as ever, and then come home from there. The old seats' keys
sign it, M of them, as a sweep inside the wallet: nobody approves it, and nothing can be taken by it but a fee within each seat's
automatic cap. The fee is the company's, out of `company_surplus`, which has to have it before anything is signed.
"""

from collections.abc import Collection
from functools import partial
from typing import Final, Protocol, runtime_checkable

from custody.flows import payout_records as records
from custody.flows import signing, sweep_records
from custody.flows.errands import Tidied, advance
from custody.flows.inventory import Wallet
from custody.flows.payouts import Post
from custody.flows.ports import UnitOfWork
from custody.flows.rotating import tell
from custody.flows.signing import Ceremony
from custody.flows.sweep_records import HOME, SweepRun
from custody.rules import holds
from custody.rules.certificates import WalletCertificate
from custody.rules.ledger import Account, AccountKind
from custody.rules.payments import Credited, UnsignedPayout

SHARE: Final = 4
"""A sweep's fee is at most this part of what one seat lets go by itself in a day, so that fees never hold up withdrawals."""


@runtime_checkable
class HomeSweeper(Protocol):
    """What only a chain of coins can do."""

    def home(
        self,
        wallet: bytes,
        older: WalletCertificate,
        newest: WalletCertificate,
        taken: Collection[str],
        credited: Credited,
        most: int,
    ) -> UnsignedPayout | None:
        """Credited coins under an older certificate as one output under the newest; None where there are none. Raises Refused."""
        ...


def bring_home(ceremony: Ceremony, post: Post, wallet: Wallet) -> Tidied | None:
    """Go on with the sweep under way, or begin one where coins lie under an older certificate; None where there is nothing to do.

    Safe to repeat after a crash anywhere. Raises Unavailable, and Refused where the network asks for more than the bounds allow.
    """
    if wallet.chain.is_evm or len(wallet.certificates) < 2:
        return None
    run = ceremony.store.read(lambda work: sweep_records.newest(work, wallet.name, HOME))
    if run is None or run.ended:
        run = _begin(ceremony, wallet)
    if run is None:
        return None
    started = run
    if not ceremony.store.read(lambda work: work.transfers.kept(started.anchor)):
        tell(ceremony.seats, wallet.certificates)
    sign = partial(signing.sign_sweep, ceremony, run.permit, wallet)
    return advance(ceremony, post, wallet, run, sign)


def _begin(ceremony: Ceremony, wallet: Wallet) -> SweepRun | None:
    chain, kernel, name = ceremony.chain, ceremony.kernel, wallet.name.hex()
    if not isinstance(chain, HomeSweeper):
        return None
    if kernel.frozen({f"chain:{wallet.chain}", f"wallet:{name}", f"wallet:0x{name}"}, ceremony.now) is not None:
        return None
    taken = ceremony.store.read(lambda work: work.transfers.taken(wallet.chain.name, wallet.name))

    def credited(outpoints: Collection[str]) -> Collection[str]:
        return ceremony.store.read(lambda work: work.deposits.credited(wallet.chain, outpoints))

    most = ceremony.store.read(lambda work: _most(work, ceremony, wallet))
    for older in wallet.certificates[:-1]:
        unsigned = chain.home(wallet.name, older.message, wallet.certificate, taken, credited, most)
        if unsigned is not None:
            return ceremony.store.run(partial(_record, wallet=wallet, unsigned=unsigned, now=ceremony.now))
    return None


def _most(work: UnitOfWork, ceremony: Ceremony, wallet: Wallet) -> int:
    """Satoshi that the fee may be: what the company has for it, and a part of what one seat lets go by itself in a day."""
    native = holds.native_of(wallet.chain.name, ceremony.kernel.assets)
    kind = AccountKind.COMPANY_SURPLUS if wallet.tier.is_customer else AccountKind.COMPANY_EQUITY
    has = work.journal.balance(Account(kind), native)
    day = ceremony.kernel.policies.newest.rules.floors.automatic_day.get(native.symbol, 0)
    m, n = wallet.certificate.m, wallet.certificate.n
    return min(has, day * (m - 1) // max(1, n - 1) // SHARE)


def _record(work: UnitOfWork, wallet: Wallet, unsigned: UnsignedPayout, now: int) -> SweepRun:
    run = sweep_records.begin(work, wallet.name, unsigned, now, HOME)
    records.put_variant(work, unsigned, void=False)
    return run
