# SPDX-License-Identifier: AGPL-3.0-or-later
"""Documents that wait for people's signatures, gathered one by one: drafts in the mirror, and beside each what people added.

Nothing rests on a row of these. A signature is verified when it is added and again whenever it is read, and the document counts
only where it is carried to: the same rules judge it there, whoever gathered it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final, Generic, TypeVar

from custody.flows.ports import Documents, Store, UnitOfWork
from custody.rules.errors import InvalidInput
from custody.rules.ledger import canonical
from custody.rules.refusals import Refusal, Refused, Rule
from custody.rules.roster import Roster
from custody.rules.signatures import Signature, Signed
from custody.rules.typed import Struct

M = TypeVar("M", bound=Struct)
GATHERING: Final = "gathering"
_MOST: Final = 64
"""Signatures of one draft that are kept: each of the roster's people has one or two keys."""


@dataclass(frozen=True)
class Gathering(Generic[M]):
    """A draft, its digest, who drafted it and when, and the people whose signatures hold now."""

    signed: Signed[M]
    digest: bytes
    by: str
    at: int
    people: tuple[str, ...]


def draft(store: Store, roster: Roster, message: Struct, by: str, now: int) -> bytes:
    """Keep a message for people to sign; the same again is fine. Returns its digest."""
    digest, kind = roster.domain.digest(message), _kind(type(message))
    body = {"message": message.to_json(), "by": by, "at": str(now)}

    def work(work: UnitOfWork) -> None:
        if work.documents.get(kind, digest.hex()) is None:
            work.documents.put(kind, digest.hex(), body)

    store.run(work)
    return digest


def add(store: Store, roster: Roster, kind: type[M], digest: bytes, signature: Signature, now: int) -> Gathering[M]:
    """Add one person's signature; the same again is fine. Whoever signed at a page may add one with a key that displays.

    Raises Refused: not_successor (no such draft), signature_invalid (over another message), one_signer_twice, signer_unknown and
    signer_expired (nobody of the newest roster).
    """

    def work(work: UnitOfWork) -> Gathering[M]:
        found = find(work, roster, kind, digest, now)
        if signature in found.signed.signatures:
            return found
        person = roster.people_by_key.get(signature.key)
        if person is None:
            raise Refused([Refusal(Rule.SIGNER_UNKNOWN, key=str(signature.key), want="a person of the newest roster")])
        if person.expires <= now:
            raise Refused([Refusal(Rule.SIGNER_EXPIRED, person=person.id, expired=person.expires, now=now)])
        if not signature.is_over(digest):
            raise Refused([Refusal(Rule.SIGNATURE_INVALID, document=kind.__name__, person=person.id)])
        mine = [each for each in found.signed.signatures if roster.people_by_key.get(each.key) == person]
        if mine and (not roster.displays(signature.key) or any(roster.displays(each.key) for each in mine)):
            raise Refused([Refusal(Rule.SIGNER_TWICE, person=person.id, document=kind.__name__)])
        body = signature.to_json()
        work.documents.put(_beside(digest), sha256(canonical(body)).hexdigest(), body)
        return find(work, roster, kind, digest, now)

    return store.run(work)


def find(work: UnitOfWork, roster: Roster, kind: type[M], digest: bytes, now: int) -> Gathering[M]:
    """One draft with what people added. Raises Refused(not_successor)."""
    row = work.documents.get(_kind(kind), digest.hex())
    found = None if row is None else _read(work.documents, roster, kind, row, now)
    if found is None or found.digest != digest:
        raise Refused(
            [Refusal(Rule.NOT_SUCCESSOR, document=kind.__name__, got=digest.hex(), want="a draft that is kept here")]
        )
    return found


def drafts(work: UnitOfWork, roster: Roster, kind: type[M], now: int) -> Iterator[Gathering[M]]:
    """Every draft of a kind that can be read, oldest first."""
    for row in work.documents.all(_kind(kind)):
        found = _read(work.documents, roster, kind, row, now)
        if found is not None:
            yield found


def _read(documents: Documents, roster: Roster, kind: type[M], row: Mapping[str, Any], now: int) -> Gathering[M] | None:
    """A row as a draft; None for what is none, which is somebody's row and nobody's word."""
    try:
        message, by, at = kind.from_json(row["message"]), str(row["by"]), int(row["at"])
    except (InvalidInput, KeyError, ValueError):
        return None
    digest = roster.domain.digest(message)
    held = [each for each in _signatures(documents, digest) if each.is_over(digest)]
    signed = Signed(message, ()).joined(held)
    return Gathering(signed, digest, by, at, tuple(sorted(roster.people_who_signed(signed, now))))


def _signatures(documents: Documents, digest: bytes) -> Sequence[Signature]:
    found = []
    for row in documents.all(_beside(digest))[:_MOST]:
        try:
            found.append(Signature.from_json(row))
        except InvalidInput:
            continue  # a damaged row is no signature
    return found


def _kind(kind: type[Struct]) -> str:
    return f"{GATHERING}:{kind.__name__}"


def _beside(digest: bytes) -> str:
    return f"{GATHERING}:{digest.hex()}"
