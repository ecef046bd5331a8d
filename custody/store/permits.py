# SPDX-License-Identifier: AGPL-3.0-or-later
"""Permits and what they pin, and signed bytes. UNIQUE columns are the guarantee; the refusals here only say it in words."""

from collections.abc import Iterator, Sequence

from sqlmodel import Session, col, select

from custody.flows.ports import Damaged
from custody.rules.errors import InvalidInput
from custody.rules.intents import Anchor
from custody.rules.json_text import read_json
from custody.rules.payments import Envelope, Reservation
from custody.rules.refusals import Refusal, Refused, Rule, raise_if
from custody.rules.seat_journal import anchor_key
from custody.rules.transfers import Permit
from custody.store.tables import EnvelopeRow, PermitIntentRow, PermitReferenceRow, PermitRow, TransferRow
from custody.store.transfers_mapping import envelope, read_as, text


def add(session: Session, permit: Permit) -> None:
    """Record it; a sweep's has no intent. Raises Refused: anchor or outpoint bound to another payout, intent to another anchor."""
    raise_if(_refusals(session, permit))
    anchor = permit.reservation.anchor
    row = PermitRow(
        chain=anchor.chain,
        wallet=anchor.wallet,
        reference=anchor.reference,
        statement=permit.statement,
        at=permit.at,
        body=text(permit.reservation.to_json()),
    )
    session.add(row)
    session.flush()
    number = row.number or 0
    for line, reference in enumerate(permit.reservation.references):
        session.add(
            PermitReferenceRow(chain=anchor.chain, wallet=anchor.wallet, reference=reference, permit=number, line=line)
        )
    for line, intent in enumerate(permit.intents):
        session.add(PermitIntentRow(transfer=intent, permit=number, line=line))
    session.flush()


def _refusals(session: Session, permit: Permit) -> Iterator[Refusal]:
    anchor, references = permit.reservation.anchor, permit.reservation.references
    if anchor.reference not in references or len(set(references)) != len(references):
        yield Refusal(
            Rule.MALFORMED, field="permit", references=list(references), want="the anchor among them, each once"
        )
    if _of_anchor(session, anchor) is not None:
        yield Refusal(Rule.ANCHOR_BOUND, chain=anchor.chain, wallet=anchor.wallet.hex(), anchor=anchor.reference)
    same = select(PermitReferenceRow).where(
        PermitReferenceRow.chain == anchor.chain, col(PermitReferenceRow.reference).in_(references)
    )
    for row in session.exec(same):
        if ":" in row.reference or bytes(row.wallet) == anchor.wallet:
            yield Refusal(Rule.OUTPOINT_BOUND, chain=anchor.chain, reference=row.reference)
    bound = select(PermitIntentRow).where(col(PermitIntentRow.transfer).in_(permit.intents))
    for carried in session.exec(bound):
        yield Refusal(Rule.INTENT_BOUND, intent=bytes(carried.transfer).hex(), permit=carried.permit)


def of_intent(session: Session, digest: bytes) -> Permit | None:
    """The permit that carries an intent."""
    row = session.exec(select(PermitIntentRow).where(PermitIntentRow.transfer == digest)).first()
    if row is None:
        return None
    found = session.get(PermitRow, row.permit)
    return None if found is None else _permit(session, found)


def unfinished(session: Session, pending: Sequence[str]) -> Sequence[Permit]:
    """Permits of which a transfer is in one of these statuses, oldest first. Raises InvalidInput on a damaged row."""
    return [_permit(session, row) for row in _unfinished(session, pending)]


def examine(session: Session, pending: Sequence[str]) -> Sequence[Permit | Damaged]:
    """The same; a damaged row is told."""
    return [_examined(session, row) for row in _unfinished(session, pending)]


def _unfinished(session: Session, pending: Sequence[str]) -> Sequence[PermitRow]:
    wanted = select(PermitRow).where(col(PermitRow.number).in_(_open(pending)))
    return session.exec(wanted.order_by(col(PermitRow.number))).all()


def _examined(session: Session, row: PermitRow) -> Permit | Damaged:
    try:
        return _permit(session, row)
    except InvalidInput as error:
        anchor = Anchor(row.chain, bytes(row.wallet), row.reference)
        told = {"table": "permits", "anchor": anchor_key(anchor), "why": str(error)}
        return Damaged(anchor_key(anchor), Refusal(Rule.ROW_DAMAGED, **told), anchor)


def taken(session: Session, chain: str, wallet: bytes, pending: Sequence[str]) -> frozenset[str]:
    """References that they pin."""
    wanted = select(PermitReferenceRow.reference).where(
        PermitReferenceRow.chain == chain,
        PermitReferenceRow.wallet == wallet,
        col(PermitReferenceRow.permit).in_(_open(pending)),
    )
    return frozenset(session.exec(wanted))


def keep(session: Session, new: Envelope, at: int) -> None:
    """Append signed bytes of a recorded anchor; other bytes of the same id raise Refused, and so does an anchor of no permit."""
    row = _of_anchor(session, new.anchor)
    if row is None or row.number is None:
        raise Refused([Refusal(Rule.ORIGIN, anchor=new.anchor.reference, want="an anchor that a permit pinned")])
    same = select(EnvelopeRow).where(EnvelopeRow.permit == row.number, EnvelopeRow.digest == new.transaction)
    known = session.exec(same).first()
    if known is not None and (known.payout, known.raw) != (new.id, new.raw):
        raise Refused([Refusal(Rule.ALREADY_EXISTS, transaction=new.transaction.hex())])
    if known is None:
        session.add(EnvelopeRow(permit=row.number, digest=new.transaction, payout=new.id, raw=new.raw, at=at))
        session.flush()


def kept(session: Session, anchor: Anchor) -> Sequence[Envelope]:
    """Signed bytes of an anchor, oldest first."""
    permit = _of_anchor(session, anchor)
    if permit is None:
        return []
    wanted = select(EnvelopeRow).where(EnvelopeRow.permit == permit.number).order_by(col(EnvelopeRow.number))
    return [envelope(row, permit) for row in session.exec(wanted)]


def _open(pending: Sequence[str]):  # type: ignore[no-untyped-def]  # noqa: ANN202  # SQLAlchemy's type of a subquery
    return (
        select(PermitIntentRow.permit)
        .join(TransferRow, col(TransferRow.digest) == col(PermitIntentRow.transfer))
        .where(col(TransferRow.status).in_(pending))
    )


def _of_anchor(session: Session, anchor: Anchor) -> PermitRow | None:
    wanted = select(PermitRow).where(
        PermitRow.chain == anchor.chain, PermitRow.wallet == anchor.wallet, PermitRow.reference == anchor.reference
    )
    return session.exec(wanted).first()


def _permit(session: Session, row: PermitRow) -> Permit:
    where = f"permits[{row.number}]"
    reservation = read_as(where, lambda: Reservation.from_json(read_json(row.body, where)))
    references = select(PermitReferenceRow.reference).where(PermitReferenceRow.permit == row.number)
    intents = select(PermitIntentRow.transfer).where(PermitIntentRow.permit == row.number)
    pinned = tuple(session.exec(references.order_by(col(PermitReferenceRow.line))))
    if (reservation.anchor, reservation.references) != (Anchor(row.chain, bytes(row.wallet), row.reference), pinned):
        raise InvalidInput(where, Rule.ROW_DAMAGED, "another anchor or other references", "those of its reservation")
    carried = tuple(bytes(digest) for digest in session.exec(intents.order_by(col(PermitIntentRow.line))))
    return Permit(reservation, carried, row.statement, row.at)
