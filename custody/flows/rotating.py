# SPDX-License-Identifier: AGPL-3.0-or-later
"""A wallet gets new keys, by a quorum of people and by the old keys' own (TRUST.md, "Wallets are born with a certificate").

On EVM the owner calls go out at a nonce of their own, signed by the old seats; once they are final the seats take the successor. On
Bitcoin there is nothing to send: the seats take it, and the coins under the old certificate are brought home (homing.py). Nothing of
the wallet begins meanwhile. Safe to repeat after a crash anywhere: an order stands in the store, its errand has its anchor, seats
accept a certificate once, and the mirror has it last.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Protocol, runtime_checkable

from custody.flows import payout_records as records
from custody.flows import rotation_orders, signing, sweep_records
from custody.flows.errands import Tidied, advance
from custody.flows.inventory import Wallet
from custody.flows.payouts import Post
from custody.flows.ports import SeatPort, UnitOfWork
from custody.flows.rotation_orders import Order
from custody.flows.signing import Ceremony
from custody.flows.sweep_records import ROTATION, SweepRun
from custody.rules.certificates import WalletCertificate
from custody.rules.errors import InvalidInput, Unavailable
from custody.rules.payments import Reservation, UnsignedPayout
from custody.rules.refusals import Refusal, Refused, Rule
from custody.rules.signatures import Signed


@runtime_checkable
class OwnerRotator(Protocol):
    """What only a chain of Safes can do."""

    def rotation(self, old: WalletCertificate, new: WalletCertificate, reservation: Reservation) -> UnsignedPayout:
        """The owner calls that turn old into new, alone, simulated. Raises Refused."""
        ...


def rotate(ceremony: Ceremony, post: Post, wallet: Wallet, *, idle: bool) -> Tidied | None:
    """Go on with the order under way; None where there is none, or where it was just carried out.

    `idle` says that nothing of the wallet's waits for the keys that are left: what was pinned before is signed by them, or voided.
    Raises Unavailable; Refused where the store or the chain has another history than the order.
    """
    order = ceremony.store.read(lambda work: rotation_orders.standing(work, wallet))
    if order is None:
        return None
    if wallet.chain.is_evm:
        found = _on_chain(ceremony, post, wallet, order, idle=idle)
        if found is not None:
            return found
        if ceremony.store.read(lambda work: rotation_orders.standing(work, wallet)) is None:
            return None
    elif not idle:
        return Tidied(why="what was pinned before its rotation to end")
    return _hand_over(ceremony, wallet, order)


# on the chain


def _on_chain(ceremony: Ceremony, post: Post, wallet: Wallet, order: Order, *, idle: bool) -> Tidied | None:
    """The owner calls, from their nonce to their final block; None once the Safe finally has its new owners, or people voided it."""
    run = ceremony.store.read(partial(_run_of, wallet=wallet, order=order))
    if run is None:
        if not idle:
            return Tidied(why="what was pinned before its rotation to be sent")
        run = _begin(ceremony, wallet, order)
    if not run.ended:
        if order.rotation is None:
            raise Refused([Refusal(Rule.SIGNATURE_MISSING, document="Rotation", wallet=wallet.name.hex())])
        sign = partial(signing.sign_rotation, ceremony, run.permit, wallet, order.rotation, order.certificate)
        found = advance(ceremony, post, wallet, run, sign)
        again = ceremony.store.read(partial(_run_of, wallet=wallet, order=order))
        if again is None or not again.ended:
            return found
    differs = ceremony.chain.preflight(wallet.name, order.certificate.message)
    if not differs:
        return None
    if ceremony.store.read(lambda work: records.void_of(work, run.anchor)) is None:
        return Tidied(why="people: " + "; ".join(str(refusal) for refusal in differs), fault=True)
    ceremony.store.run(lambda work: rotation_orders.close(work, wallet, order))
    return None


def _run_of(work: UnitOfWork, wallet: Wallet, order: Order) -> SweepRun | None:
    """The errand of an order: they are numbered alike, since an order ends only after its errand did."""
    run = sweep_records.newest(work, wallet.name, ROTATION)
    return run if run is not None and run.number == order.number else None


def _begin(ceremony: Ceremony, wallet: Wallet, order: Order) -> SweepRun:
    """Pin the next nonce to the owner calls, which go through in a simulation."""
    chain = ceremony.chain
    if not isinstance(chain, OwnerRotator):
        raise Unavailable(f"chain {wallet.chain}", "it cannot change the owners of a Safe")
    taken = ceremony.store.read(lambda work: work.transfers.taken(wallet.chain.name, wallet.name))
    reservation = chain.next_anchor(wallet.name, wallet.certificate, (), taken)
    unsigned = chain.rotation(wallet.certificate, order.certificate.message, reservation)
    return ceremony.store.run(partial(_record, wallet=wallet, unsigned=unsigned, now=ceremony.now))


def _record(work: UnitOfWork, wallet: Wallet, unsigned: UnsignedPayout, now: int) -> SweepRun:
    run = sweep_records.begin(work, wallet.name, unsigned, now, ROTATION)
    records.put_variant(work, unsigned, void=False)
    return run


# at the seats


def _hand_over(ceremony: Ceremony, wallet: Wallet, order: Order) -> Tidied | None:
    """Every new seat takes the successor, then every old one that can be reached; then the mirror has it.

    The new ones first: were an old one told to rest before a new one can sign, a wallet would have no quorum at all.
    """
    line = (*wallet.certificates, order.certificate)
    by_name = {seat.name: seat for seat in ceremony.seats}
    new = [key.key.seat for key in order.certificate.message.seats]
    if missing := [*_missing(by_name, new, line)]:
        return Tidied(why="its new seats: " + "; ".join(missing), fault=True)
    tell(ceremony.seats, line)
    ceremony.store.run(lambda work: rotation_orders.fulfil(work, wallet, order))
    return None


def _missing(
    seats: dict[str, SeatPort], names: Sequence[str], line: Sequence[Signed[WalletCertificate]]
) -> Iterator[str]:
    for name in names:
        if name not in seats:
            yield f"seat {name} is not configured"
        elif why := _accept(seats[name], line):
            yield f"seat {name}: {why}"


def tell(seats: Sequence[SeatPort], line: Sequence[Signed[WalletCertificate]]) -> tuple[str, ...]:
    """Let the seats of older certificates take the newest: from then on they sign sweeps into it and nothing else.

    Whoever is gone is passed over, and said: its old key opens nothing on EVM; on Bitcoin M of the old seats have to be told.
    """
    named = {key.key.seat for signed in line for key in signed.message.seats}
    told = ((seat.name, _accept(seat, line)) for seat in seats if seat.name in named)
    return tuple(f"seat {name}: {why}" for name, why in told if why)


def _accept(seat: SeatPort, line: Sequence[Signed[WalletCertificate]]) -> str:
    """The newest certificate, and where a seat lacks earlier ones those first; why not, empty where it has it."""
    try:
        try:
            seat.accept(line[-1])
        except Refused as refused:
            if Rule.NOT_SUCCESSOR not in {refusal.rule for refusal in refused.refusals}:
                raise
            for signed in line:
                seat.accept(signed)
    except (Refused, InvalidInput, Unavailable) as error:
        return str(error)
    return ""
