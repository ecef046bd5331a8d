# SPDX-License-Identifier: AGPL-3.0-or-later
"""Step 8: send the stored bytes, follow them to finality, post the entries (DESIGN.md). And how an anchor that must die dies.

Only stored bytes go out, and the same again is harmless; what became of them is asked of the anchor, not of a receipt. An unknown
outcome is a state of its own, out of which the same bytes are sent again and nothing is ever rebuilt.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from custody.flows import payout_records as records
from custody.flows import sweep_records
from custody.flows.inventory import Wallet
from custody.flows.kernel import Kernel
from custody.flows.payout_records import Variant, mark
from custody.flows.ports import ChainView, Deposit, PayoutChain, Store, UnitOfWork
from custody.flows.reorgs import UNBOOKED
from custody.rules import holds
from custody.rules.amounts import Asset, Assets
from custody.rules.certificates import WalletCertificate
from custody.rules.deposits import DepositStatus
from custody.rules.errors import InvalidInput, Unavailable
from custody.rules.intents import Anchor, TransferIntent, Void
from custody.rules.ledger import Account, AccountKind, loss_of, suspense_of
from custody.rules.origins import Arrived, BitcoinProof, Executed, TokenProof, payout_identity
from custody.rules.payments import Envelope, Followed, Mined, Outcome, Pending, Replaced, Unknown
from custody.rules.payouts import Decoded, DecodedPayload, LeafKind, Payload, Surroundings
from custody.rules.provenance import refusal_of
from custody.rules.refusals import Refusal, Refused, Rule
from custody.rules.signatures import Signed
from custody.rules.transfers import Permit, Status, SubStatus, Transfer, move
from custody.rules.wallets import Tier

ENVELOPES_MOST: Final = 5
"""Envelopes of one variant; an EVM call that reverts again and again only burns the relayer's gas, and people have to look."""

Decode = Callable[[Payload, Surroundings], Decoded]
"""The pure decoder of a payload, by its kind."""


@dataclass(frozen=True)
class Post:
    """What sending and following one chain's payouts needs. `now` is seconds since 1970."""

    store: Store
    kernel: Kernel
    chain: PayoutChain
    view: ChainView
    decode: Decode
    now: int


def settle(post: Post, permit: Permit) -> Status | None:
    """Move a payout whose bytes are stored one stage on; its transfers' status afterwards, None once all are at their end.

    Raises Unavailable where a node does not answer, except while sending: that is BROADCAST_UNKNOWN. Safe to repeat.
    """
    anchor = permit.reservation.anchor
    standing = post.store.read(lambda work: (records.carried(work, permit), work.transfers.kept(anchor)))
    carried, kept = standing
    if not carried or not kept:
        return carried[0].status if carried else None
    if carried[0].status in {Status.BROADCASTING, Status.BROADCAST_UNKNOWN}:
        _send(post, permit, kept)
    elif carried[0].status in {Status.CONFIRMING, Status.CANCELLING}:
        _follow(post, permit, carried, kept)
    after = post.store.read(lambda work: records.carried(work, permit))
    return after[0].status if after else None


# sending


def _send(post: Post, permit: Permit, kept: Sequence[Envelope]) -> None:
    """Send the newest bytes. Where the relayer's nonce was used by another call, the same signed payout gets a new envelope."""
    envelope = kept[-1]
    told = f"0x{envelope.transaction.hex()}"
    try:
        post.chain.broadcast(envelope)
    except Unavailable as error:
        _mark(post, permit, Status.BROADCAST_UNKNOWN, None, f"whether the node took {told}: {error.why}")
        return
    except (Refused, InvalidInput) as error:
        rules = {refusal.rule for refusal in _refusals(error)}
        if rules == {Rule.ENVELOPE_STALE}:
            _seal_again(post, permit, envelope, kept)
        elif rules != {Rule.ANCHOR_SPENT}:
            _mark(post, permit, Status.BROADCASTING, None, f"people: {told} cannot be sent: {_text(error)}")
            return
        else:  # some variant of it, or something else, is in a block: `follow` says which
            _mark(
                post, permit, Status.CONFIRMING, SubStatus.PENDING_BLOCKCHAIN_CONFIRMATIONS, "what consumed its anchor"
            )
        return
    _mark(post, permit, Status.CONFIRMING, SubStatus.PENDING_BLOCKCHAIN_CONFIRMATIONS, f"{told} to be in a block")


def _seal_again(post: Post, permit: Permit, old: Envelope, kept: Sequence[Envelope]) -> None:
    """A new envelope around the very payout that the quorum signed; its anchor lets only one of them do anything."""
    anchor = permit.reservation.anchor
    first = _nonce_before(post, anchor)
    if first is not None:  # it can only revert until then, and would use up its tries for another's sake
        _mark(post, permit, _standing(post, permit), None, f"nonce {first} of its wallet to be consumed first")
        return
    if sum(envelope.id == old.id for envelope in kept) >= ENVELOPES_MOST:
        _mark(
            post, permit, _standing(post, permit), None, f"people: {ENVELOPES_MOST} envelopes came to nothing; a void"
        )
        return
    signed = post.store.read(lambda work: records.signed_of(work, anchor, old.id))
    wallet = _wallet(post.kernel, anchor)
    if signed is None:
        raise Unavailable("signed payout", f"none is stored for 0x{old.id.hex()}")
    try:
        fresh = post.chain.seal(_certificate(post, permit, wallet), signed)
    except Refused as error:
        if {refusal.rule for refusal in error.refusals} != {Rule.ANCHOR_SPENT}:
            raise
        _mark(post, permit, Status.CONFIRMING, SubStatus.PENDING_BLOCKCHAIN_CONFIRMATIONS, "what consumed its anchor")
        return

    def work(work: UnitOfWork) -> None:
        work.transfers.keep(fresh, post.now)
        mark(
            work,
            permit,
            _status_of(work, permit, Status.BROADCASTING),
            post.now,
            None,
            f"the node to take 0x{fresh.transaction.hex()}",
        )

    post.store.run(work)


def _nonce_before(post: Post, anchor: Anchor) -> str | None:
    """The wallet's next nonce on the chain, where it comes before this one; None where it is this one's turn, and on Bitcoin."""
    wallet = _wallet(post.kernel, anchor)
    if not wallet.chain.is_evm:
        return None
    now = post.chain.next_anchor(wallet.name, wallet.certificate, (), ()).anchor.reference
    return now if int(now) < int(anchor.reference) else None


def _standing(post: Post, permit: Permit) -> Status:
    """Where its transfers stand: what is only waited for moves none of them, or its history would grow with every step."""
    carried = post.store.read(lambda work: records.carried(work, permit))
    stands = carried[0].status if carried else Status.CONFIRMING
    return Status.BROADCASTING if stands is Status.BROADCAST_UNKNOWN else stands


def _status_of(work: UnitOfWork, permit: Permit, otherwise: Status) -> Status:
    """A payout that is being voided stays so whatever happens to its bytes."""
    carried = records.carried(work, permit)
    return Status.CANCELLING if carried and carried[0].status is Status.CANCELLING else otherwise


# following


def _follow(post: Post, permit: Permit, carried: Sequence[Transfer], kept: Sequence[Envelope]) -> None:
    wallet = _wallet(post.kernel, permit.reservation.anchor)
    found: Followed = post.chain.follow(_certificate(post, permit, wallet).message, kept)
    match found:
        case Mined(outcome=Outcome.REVERTED):
            if found.transaction == kept[-1].transaction:
                _seal_again(post, permit, kept[-1], kept)
            else:
                _send_again(post, permit, carried, kept)
        case Mined():
            _finish(post, permit, wallet, found)
        case Replaced():
            by = f"0x{found.by.hex()}" if found.by else "another transaction"
            sub_status = None if carried[0].status is Status.CANCELLING else SubStatus.REPLACED
            _mark(
                post,
                permit,
                Status.CONFIRMING,
                sub_status,
                f"people: {by} consumed its anchor and is none of its variants",
            )
        case Unknown():
            _send_again(post, permit, carried, kept)
        case Pending():
            if carried[0].status is Status.CANCELLING and found.transaction != kept[-1].transaction:
                _send_again(post, permit, carried, kept)  # the void has to come before the payout that waits there


def _send_again(post: Post, permit: Permit, carried: Sequence[Transfer], kept: Sequence[Envelope]) -> None:
    """The same bytes: a reorg or a full mempool lost them, or they never arrived."""
    if carried[0].status is Status.CANCELLING:
        _send_void(post, permit, kept)
        return
    _mark(
        post, permit, Status.BROADCASTING, SubStatus.REORGED, f"the node to take 0x{kept[-1].transaction.hex()} again"
    )


def _send_void(post: Post, permit: Permit, kept: Sequence[Envelope]) -> None:
    told = f"0x{kept[-1].transaction.hex()}"
    try:
        post.chain.broadcast(kept[-1])
    except Unavailable as error:
        _mark(post, permit, Status.CANCELLING, None, f"whether the node took {told}: {error.why}")
    except (Refused, InvalidInput) as error:
        rules = {refusal.rule for refusal in _refusals(error)}
        if rules == {Rule.ENVELOPE_STALE}:
            _seal_again(post, permit, kept[-1], kept)
        elif rules != {Rule.ANCHOR_SPENT}:
            _mark(post, permit, Status.CANCELLING, None, f"people: {told} cannot be sent: {_text(error)}")
    else:
        _mark(post, permit, Status.CANCELLING, None, f"its anchor to be finally consumed; {told} was sent")


def _finish(post: Post, permit: Permit, wallet: Wallet, mined: Mined) -> None:
    """Once its block is final and the watcher has booked what came back: entry and status in one transaction."""
    height = f"block {mined.height} to become final"
    if mined.height > post.view.final().height:
        _mark(post, permit, Status.CONFIRMING, SubStatus.PENDING_BLOCKCHAIN_CONFIRMATIONS, height)
        return
    block = post.view.block(mined.height)
    if block is None or block.hash != mined.block:
        raise Unavailable(f"chain {post.chain.chain}", f"its nodes disagree about block {mined.height}")
    try:
        done, ended = _executed(post, permit, wallet, mined)
        post.store.run(lambda work: _post(work, post, permit, wallet, done, ended))
    except (Refused, InvalidInput) as error:
        _mark(post, permit, Status.CONFIRMING, None, f"people: the ledger cannot take it: {_text(error)}")


def book_without_intents(
    post: Post, permit: Permit, wallet: Wallet, mined: Mined, also: Callable[[UnitOfWork, Executed, bool], None]
) -> str:
    """Book a sweep or its void, which carried nobody's transfer; what it waits for, nothing once that is done.

    `also` belongs to the same transaction, and is told whether any account moved. Raises Unavailable where nodes disagree.
    """
    if mined.height > post.view.final().height:
        return f"block {mined.height} to become final"
    block = post.view.block(mined.height)
    if block is None or block.hash != mined.block:
        raise Unavailable(f"chain {post.chain.chain}", f"its nodes disagree about block {mined.height}")

    def work(work: UnitOfWork) -> str:
        _check_followed(work, wallet, done)
        arrived = _booked(work, post.kernel, wallet, done)
        if isinstance(arrived, str):
            return arrived
        whole, assets = replace(done, arrived=arrived), post.kernel.assets
        entry = holds.pay(whole, (), wallet.tier, assets, _lost(work, assets, ()))
        if entry is not None:
            work.journal.append(entry, post.now)
        also(work, whole, entry is not None)
        return ""

    try:
        done, _ = _executed(post, permit, wallet, mined)
        return post.store.run(work)
    except (Refused, InvalidInput) as error:
        return f"people: the ledger cannot take it: {_text(error)}"


def _executed(post: Post, permit: Permit, wallet: Wallet, mined: Mined) -> tuple[Executed, Status]:
    """The origin of the entry, and where it leaves the transfers. A call that failed burnt its nonce and paid nobody."""
    anchor = permit.reservation.anchor
    variant = next(
        (v for v in post.store.read(lambda work: records.variants(work, anchor)) if v.unsigned.id == mined.id), None
    )
    if variant is None:
        raise Refused([Refusal(Rule.ORIGIN, field="variant", got=mined.id.hex(), want="one that was recorded")])
    failed = mined.outcome is Outcome.FAILED
    decoded = None if failed else _decoded(post, wallet, variant)
    # One coin of the wallet's back into it, for nobody: on a chain of coins that reads as a void, whoever meant it.
    lone = decoded is not None and not permit.intents and len(decoded.inputs) == len(decoded.leaves) == 1
    done = Executed(
        chain=anchor.chain,
        height=mined.height,
        block=mined.block,
        transaction=mined.transaction,
        anchor=anchor,
        intents=permit.intents,
        arrived=() if decoded is None else tuple(_arrived(post, wallet, decoded)),
        fee=0 if wallet.chain.is_evm else mined.fee,
        void=failed or variant.void or lone,
    )
    return done, Status.FAILED if failed else Status.CANCELLED if variant.void else Status.COMPLETED


def _certificates(post: Post, wallet: Wallet) -> dict[bytes, tuple[Wallet, WalletCertificate]]:
    inventory = post.kernel.inventory
    return {s.message.struct_hash: (w, s.message) for w in inventory.on(wallet.chain) for s in w.certificates}


def _decoded(post: Post, wallet: Wallet, variant: Variant) -> DecodedPayload:
    certificates = _certificates(post, wallet)
    signing = certificates[variant.unsigned.certificate][1]
    others = tuple(message for digest, (_, message) in certificates.items() if digest != signing.struct_hash)
    around = Surroundings(wallet.name, signing, post.kernel.assets, others)
    decoded = post.decode(variant.unsigned.payload, around)
    if not isinstance(decoded, DecodedPayload):
        raise Refused(decoded)
    return decoded


def _arrived(post: Post, wallet: Wallet, decoded: DecodedPayload) -> Iterator[Arrived]:
    """What it brought wallets of ours, by wallet and asset; fees swept to the operational tier are the company's there already."""
    certificates = _certificates(post, wallet)
    units: dict[tuple[bytes, str], int] = {}
    for leaf in decoded.leaves:
        to = certificates.get(leaf.place.certificate) if leaf.place is not None else None
        paid = (
            wallet
            if leaf.kind in {LeafKind.CHANGE, LeafKind.SWEEP, LeafKind.VOID}
            else to[0]
            if to is not None
            else None
        )
        if paid is None or not leaf.units or (wallet.tier.is_customer and paid.tier is Tier.OPERATIONAL):
            continue
        key = (paid.name, leaf.asset)
        units[key] = units.get(key, 0) + leaf.units
    for (name, asset), total in sorted(units.items()):
        yield Arrived(name, asset, total)


def _post(work: UnitOfWork, post: Post, permit: Permit, wallet: Wallet, done: Executed, ended: Status) -> None:
    carried = records.carried(work, permit)
    if not carried:
        return
    _check_followed(work, wallet, done)
    arrived = _booked(work, post.kernel, wallet, done)
    if isinstance(arrived, str):
        status = _status_of(work, permit, Status.CONFIRMING)
        sub_status = SubStatus.PENDING_BLOCKCHAIN_CONFIRMATIONS if status is Status.CONFIRMING else None
        mark(work, permit, status, post.now, sub_status, arrived)
        return
    done = replace(done, arrived=arrived)
    holding = [transfer.intent for transfer in carried if transfer.hold is not None]
    entry = holds.pay(done, holding, wallet.tier, post.kernel.assets, _lost(work, post.kernel.assets, holding))
    if entry is not None:
        work.journal.append(entry, post.now)
    else:  # there is nothing to reverse of it, and a reorg has to find it all the same
        work.documents.put(f"{UNBOOKED}/{done.chain}", payout_identity(done), done.to_json())
    told = {Status.COMPLETED: SubStatus.CONFIRMED, Status.CANCELLED: SubStatus.CANCELLED_BY_USER}.get(ended)
    why = f"0x{done.transaction.hex()} in final block {done.height}"
    for transfer in carried:
        work.transfers.update(move(transfer, ended, post.now, told), transfer, why)


def _check_followed(work: UnitOfWork, wallet: Wallet, done: Executed) -> None:
    followed = work.deposits.followed(wallet.chain, done.height)
    if followed is not None and followed != done.block:  # its watcher went back already, and would not look here again
        raise Unavailable(f"watcher of {wallet.chain}", f"it follows another block {done.height} by now")


def _lost(work: UnitOfWork, assets: Assets, holding: Sequence[TransferIntent]) -> dict[tuple[Account, Asset], int]:
    """What accounts that get something back had spent of it, while a reorg had undone this payout or another."""
    sources = {(source, amount.asset) for intent in holding for source, _, amount in holds.parts(intent, assets)}
    sources |= {(Account(AccountKind.COMPANY_SURPLUS), asset) for asset in assets}
    return {(loss_of(source), asset): work.journal.balance(loss_of(source), asset) for source, asset in sources}


def _booked(work: UnitOfWork, kernel: Kernel, wallet: Wallet, done: Executed) -> tuple[Arrived, ...] | str:
    """What came back, event by event as the watcher booked it; or what it has still to book before this entry may take it.

    Only what stands where the entry takes it from counts: a coin that was credited to a customer is that customer's by now.
    """
    found = [d for d in work.deposits.at_or_above(wallet.chain, done.height) if _is_of(d, done)]
    taken: list[Arrived] = []
    for arrived in done.arrived:
        suspended = wallet.tier.is_customer or arrived.wallet != wallet.name
        left = arrived.units
        for deposit in found:
            at, sighting = kernel.inventory.wallet_of(deposit.sighting.address), deposit.sighting
            if at is None or (at.name, sighting.amount.asset.symbol) != (arrived.wallet, arrived.asset):
                continue
            if deposit.status is not DepositStatus.CREDITED:
                continue
            event = sighting.identity
            has = (
                work.journal.balance(suspense_of(event), sighting.amount.asset) if suspended else sighting.amount.units
            )
            if units := min(left, has):
                taken.append(replace(arrived, units=units, event=event if suspended else ""))
                left -= units
        if left:
            to = "suspense" if suspended else str(AccountKind.COMPANY_EQUITY)
            return f"the watcher to book {arrived.units} {arrived.asset} that came back in block {done.height}, to {to}"
    return tuple(taken)


def _is_of(deposit: Deposit, done: Executed) -> bool:
    """In the payout's block and, where the proof names one, in its transaction."""
    proof = deposit.sighting.proof
    transaction = (
        proof.txid
        if isinstance(proof, BitcoinProof)
        else proof.transaction
        if isinstance(proof, TokenProof)
        else done.transaction
    )
    return (proof.height, proof.block, transaction) == (done.height, done.block, done.transaction)


# voiding


def void(store: Store, kernel: Kernel, signed: Signed[Void], now: int) -> Permit:
    """Take people's word that an anchor has to die; its transfers become CANCELLING, and no hold is freed yet (TRUST.md).

    Raises Refused: quorum_not_reached, unknown_transfer (no permit of that anchor), anchor_bound_to_another_payload (other
    intents than the permit's), status_move_not_allowed. The same again is fine.
    """
    anchor, intents = signed.message.anchor, signed.message.intents

    def work(work: UnitOfWork) -> Permit:
        permits = (permit for permit in work.transfers.examine_permitted() if isinstance(permit, Permit))
        permit = next((p for p in permits if p.reservation.anchor == anchor), None)
        if permit is None and (sweep := sweep_records.open_at(work, anchor)) is not None:
            permit = sweep.permit
        if permit is None:
            raise Refused(
                [
                    Refusal(
                        Rule.UNKNOWN_TRANSFER,
                        anchor=anchor.reference,
                        want="the anchor of an unfinished payout or sweep",
                    )
                ]
            )
        refusals = [*kernel.roster.check_quorum(signed, kernel.roster.version.thresholds.void, None, now)]
        if sorted(intents) != sorted(permit.intents):
            got, want = [i.hex() for i in intents], [i.hex() for i in permit.intents]
            refusals.append(Refusal(Rule.ANCHOR_BOUND, got=got, want=want))
        if refusals:
            raise Refused(refusals)
        known = records.void_of(work, anchor)
        if known is None:
            records.put_void(work, signed)
        if any(transfer.status is not Status.CANCELLING for transfer in records.carried(work, permit)):
            why = "signatures of the seats over its void"
            mark(work, permit, Status.CANCELLING, now, SubStatus.CANCELLED_BY_USER, why)
        return permit

    return store.run(work)


def _wallet(kernel: Kernel, anchor: Anchor) -> Wallet:
    wallet = kernel.inventory.wallets.get(anchor.wallet)
    if wallet is None or wallet.chain.name != anchor.chain:
        raise Refused([Refusal(Rule.UNKNOWN_WALLET, wallet=anchor.wallet.hex(), chain=anchor.chain)])
    return wallet


def _certificate(post: Post, permit: Permit, wallet: Wallet) -> Signed[WalletCertificate]:
    known = post.store.read(lambda work: records.variants(work, permit.reservation.anchor))
    return records.certificate_of(wallet, known[-1] if known else None)


def _mark(post: Post, permit: Permit, to: Status, sub_status: SubStatus | None, why: str) -> None:
    """Say where a payout stands; one that is being voided stays CANCELLING and says the same."""

    def work(work: UnitOfWork) -> None:
        status = _status_of(work, permit, to)
        mark(work, permit, status, post.now, sub_status if status is to else None, why)

    post.store.run(work)


def _refusals(error: Refused | InvalidInput) -> tuple[Refusal, ...]:
    return error.refusals if isinstance(error, Refused) else (refusal_of(error),)


def _text(error: Refused | InvalidInput) -> str:
    return "; ".join(str(refusal) for refusal in _refusals(error))
