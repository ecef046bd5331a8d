# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the worker writes down of a payout before it acts, so that a killed one goes on from there (DESIGN.md, law 5).

Everything lies in the mirror of documents, in kinds of the anchor's own: what is to be signed before a seat is asked, each seat's
answer, and the signed call before it goes out. Nobody believes a row of these: seats decode the payload, chains check signatures,
and the attestor asks the chain what became of it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from custody.flows.inventory import Wallet
from custody.flows.ports import UnitOfWork
from custody.rules.certificates import WalletCertificate
from custody.rules.errors import InvalidInput
from custody.rules.intents import Anchor, Void
from custody.rules.payments import SeatSignatures, SignedPayout, UnsignedPayout
from custody.rules.refusals import Rule
from custody.rules.seat_journal import anchor_key
from custody.rules.seat_request import Request
from custody.rules.signatures import Signed
from custody.rules.transfers import Permit, Status, SubStatus, Transfer, move

TOLD: Final = 2_000
"""Characters of a reason that are kept with a transfer."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One transaction that may consume an anchor; `void` is the one that pays nobody."""

    unsigned: UnsignedPayout
    void: bool


def put_variant(work: UnitOfWork, unsigned: UnsignedPayout, *, void: bool) -> None:
    """Record what is to be signed."""
    body = {"unsigned": unsigned.to_json(), "void": void}
    work.documents.put(_kind("payout", unsigned.anchor), unsigned.id.hex(), body)


def variants(work: UnitOfWork, anchor: Anchor) -> tuple[Variant, ...]:
    """Every variant of an anchor, oldest first. Raises InvalidInput on a damaged row."""
    return tuple(_variant(row) for row in work.documents.all(_kind("payout", anchor)))


def certificate_of(wallet: Wallet, made: Variant | None) -> Signed[WalletCertificate]:
    """The certificate whose keys sign a variant, the newest where there is none yet: a rotation may have made a newer one since."""
    by_hash = {signed.message.struct_hash: signed for signed in wallet.certificates}
    return wallet.certificates[-1] if made is None else by_hash.get(made.unsigned.certificate, wallet.certificates[-1])


def _variant(row: object) -> Variant:
    if not isinstance(row, dict) or set(row) != {"unsigned", "void"} or type(row["void"]) is not bool:
        raise InvalidInput("variant", Rule.ROW_DAMAGED, type(row).__name__, "an object of unsigned and void")
    return Variant(UnsignedPayout.from_json(row["unsigned"]), row["void"])


def put_request(work: UnitOfWork, anchor: Anchor, request: Request) -> None:
    """Record what seats are about to be asked, under its statement's number."""
    work.documents.put(_kind("request", anchor), str(request.statement.message.sequence), request.to_json())


def newest_request(work: UnitOfWork, anchor: Anchor, *, void: bool) -> Request | None:
    """What seats were asked last about a payout, or about its void."""
    found = [Request.from_json(row) for row in work.documents.all(_kind("request", anchor))]
    return next((request for request in reversed(found) if (request.void is not None) == void), None)


def put_signatures(work: UnitOfWork, unsigned: UnsignedPayout, made: SeatSignatures) -> None:
    """Record a seat's answer to one variant. The same signatures again are fine."""
    kind = _kind("signatures", unsigned.anchor)
    if work.documents.get(kind, f"{unsigned.id.hex()}/{made.seat}") is None:
        work.documents.put(kind, f"{unsigned.id.hex()}/{made.seat}", made.to_json())


def bring_signatures(work: UnitOfWork, unsigned: UnsignedPayout, made: SeatSignatures) -> None:
    """Record an answer that people carried here; the newest one counts, or a damaged file would bar a cold seat's true answer."""
    number, newest = _brought(work, unsigned, made.seat)
    if newest != made:
        work.documents.put(_kind("brought", unsigned.anchor), _answer(unsigned, made.seat, number), made.to_json())


def signatures(work: UnitOfWork, unsigned: UnsignedPayout, seats: Iterable[str]) -> dict[str, SeatSignatures]:
    """The answers of these seats to one variant, as far as they came; `combine` says whether they hold."""
    found: dict[str, SeatSignatures] = {}
    for seat in seats:
        _, brought = _brought(work, unsigned, seat)
        row = work.documents.get(_kind("signatures", unsigned.anchor), f"{unsigned.id.hex()}/{seat}")
        if brought is not None:
            found[seat] = brought
        elif row is not None:
            found[seat] = SeatSignatures.from_json(row)
    return found


def _brought(work: UnitOfWork, unsigned: UnsignedPayout, seat: str) -> tuple[int, SeatSignatures | None]:
    """How many answers of a seat were carried here, and the newest of them."""
    number, row = 0, None
    kind = _kind("brought", unsigned.anchor)
    while (found := work.documents.get(kind, _answer(unsigned, seat, number))) is not None:
        number, row = number + 1, found
    return number, None if row is None else SeatSignatures.from_json(row)


def _answer(unsigned: UnsignedPayout, seat: str, number: int) -> str:
    return f"{unsigned.id.hex()}/{seat}/{number}"


def put_signed(work: UnitOfWork, signed: SignedPayout) -> None:
    """Record what a quorum signed; once, since any M of the signatures serve."""
    kind = _kind("signed", signed.anchor)
    if work.documents.get(kind, signed.id.hex()) is None:
        work.documents.put(kind, signed.id.hex(), signed.to_json())


def signed_of(work: UnitOfWork, anchor: Anchor, digest: bytes) -> SignedPayout | None:
    """What a quorum signed of one variant."""
    row = work.documents.get(_kind("signed", anchor), digest.hex())
    return None if row is None else SignedPayout.from_json(row)


def put_void(work: UnitOfWork, signed: Signed[Void]) -> None:
    """Record people's word that an anchor has to die; once."""
    work.documents.put("void", anchor_key(signed.message.anchor), signed.to_json())


def void_of(work: UnitOfWork, anchor: Anchor) -> Signed[Void] | None:
    """People's word that an anchor has to die."""
    row = work.documents.get("void", anchor_key(anchor))
    return None if row is None else Signed.from_json(Void, row)


def carried(work: UnitOfWork, permit: Permit) -> tuple[Transfer, ...]:
    """The transfers of a permit that are not at their end, in its order."""
    found = (work.transfers.get(digest) for digest in permit.intents)
    return tuple(transfer for transfer in found if transfer is not None and not transfer.status.is_final)


def mark(
    work: UnitOfWork, permit: Permit, to: Status, now: int, sub_status: SubStatus | None = None, why: str = ""
) -> None:
    """Move every transfer of a payout together; what stands so already is left alone."""
    for transfer in carried(work, permit):
        if (transfer.status, transfer.sub_status, transfer.waiting_for) != (to, sub_status, why[:TOLD]):
            work.transfers.update(move(transfer, to, now, sub_status, why[:TOLD]), transfer)


def _kind(what: str, anchor: Anchor) -> str:
    return f"{what}:{anchor_key(anchor)}"
