# SPDX-License-Identifier: AGPL-3.0-or-later
"""A request for seats that no worker made: everything in it is true, but nobody authorized it."""

from collections.abc import Mapping
from functools import partial

from custody.flows import sweeping
from custody.flows.authorization import Withheld, authorize
from custody.flows.inventory import Wallet
from custody.flows.ports import SeatPort, UnitOfWork
from custody.rules import seat_request
from custody.rules.intents import Anchor
from custody.rules.payments import Payment, Reservation
from custody.rules.refusals import Rule
from custody.rules.seat_request import Request
from custody.rules.signatures import Signed
from custody.rules.statements import Statement
from custody.rules.transfers import Transfer
from custody.rules.wallets import Address, Chain
from devnet.scenes.attacks import rules_of
from devnet.scenes.desk import Desk
from devnet.story import Story


def next_anchor(desk: Desk, transfer: Transfer) -> Reservation:
    """The anchor that a withdrawal's wallet would pay it by, now."""
    wallet, chain = _wallet(desk, transfer), Chain(transfer.intent.chain)
    store = desk.stage.deployment.store
    taken = store.read(lambda work: work.transfers.taken(chain.name, wallet.name))
    return desk.worker.chains[chain].next_anchor(
        wallet.name,
        wallet.certificate,
        [_payment(transfer)],
        taken,
        lambda outpoints: store.read(lambda work: work.deposits.credited(chain, outpoints)),
    )


def attest(desk: Desk, transfer: Transfer, anchor: Anchor) -> Signed[Statement]:
    """The attestor's genuine word on this withdrawal at this anchor, as of now."""
    return desk.stage.attestor.attest(anchor, [transfer.digest])


def request_of(desk: Desk, transfer: Transfer) -> Request:
    """The request that seats would be asked with, were it authorized: true payload, approvals, enrolment, a fresh statement."""
    wallet, chain = _wallet(desk, transfer), Chain(transfer.intent.chain)
    builder, payment = desk.worker.chains[chain], _payment(transfer)
    reservation = next_anchor(desk, transfer)
    sweeps = sweeping.plan(desk.worker.kernel(), builder, desk.worker.views[chain], wallet, [payment])
    unsigned = builder.build(wallet.certificate, reservation, [payment], sweeps)
    material = desk.stage.deployment.store.read(lambda work: _material(work, transfer))
    return Request(unsigned.payload, wallet.name, attest(desk, transfer, reservation.anchor), (material,))


def withheld(desk: Desk, transfer: Transfer, statement: Signed[Statement]) -> set[str]:
    """The rules by which authorize withholds a permit now; empty where it gave one."""
    chain = desk.worker.chains[Chain(transfer.intent.chain)]
    store, kernel = desk.stage.deployment.store, desk.worker.kernel()
    found = authorize(store, kernel, [transfer.digest], statement, chain, desk.clock())
    return {str(r.rule) for r in found.refusals[transfer.digest]} if isinstance(found, Withheld) else set()


def all_refuse(story: Story, what: str, rule: Rule, seats: Mapping[str, SeatPort], request: Request) -> None:
    """Claim that every one of these seats refuses this request, and for this one reason alone."""
    told = {name: rules_of(partial(seat.sign, request)) for name, seat in seats.items()}
    held = bool(told) and all(rules == {str(rule)} for rules in told.values())
    story.claim(f"{what}: refused by {', '.join(told)}", held, rule if held else told)


def _wallet(desk: Desk, transfer: Transfer) -> Wallet:
    return desk.worker.kernel().inventory.wallets[transfer.intent.wallet]


def _payment(transfer: Transfer) -> Payment:
    intent = transfer.intent
    destination = Address(Chain(intent.chain), intent.destination)
    return Payment(transfer.digest, intent.asset, intent.amount, destination, intent.maximum_fee)


def _material(work: UnitOfWork, transfer: Transfer) -> seat_request.Transfer:
    intent = transfer.intent
    enrolled = work.enrolments.at(intent.chain, intent.destination)
    enrolment = next(e.enrolment for e in enrolled if e.enrolment.message.struct_hash == intent.enrolment)
    approvals = tuple(work.transfers.approvals(transfer.digest))
    return seat_request.Transfer(transfer.proposal, intent, approvals, enrolment)
