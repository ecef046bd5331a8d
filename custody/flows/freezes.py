# SPDX-License-Identifier: AGPL-3.0-or-later
"""Freezes in the mirror: recorded by anybody who carries them, verified by every process that reads them.

They stop proposals and authorization. What stops signatures is the freeze that each seat was handed (`SeatPort.freeze`): whoever
deletes a row here thaws no seat. A row that does not hold stops nobody, and an unfreeze that does not hold frees nobody.
"""

from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Final, TypeVar

from custody.flows import reversals
from custody.flows.kernel import Kernel
from custody.flows.ports import Documents, Store, UnitOfWork
from custody.rules.errors import InvalidInput
from custody.rules.freezes import check_extension, check_freeze, check_unfreeze, earliest_end, is_recent, is_scope
from custody.rules.governance import Freeze, Unfreeze
from custody.rules.ledger import canonical
from custody.rules.refusals import Refusal, Refused, Rule, raise_if
from custody.rules.roster import Roster
from custody.rules.signatures import Signed
from custody.rules.typed import Struct

FREEZE: Final = "freeze"
UNFREEZE: Final = "unfreeze"

M = TypeVar("M", bound=Struct)


def freeze(store: Store, kernel: Kernel, signed: Signed[Freeze], now: int) -> None:
    """Mirror one person's freeze; the same again is fine.

    Raises Refused: quorum_not_reached (nobody of the roster, a machine's key), freeze_too_long (over a day, lapsed, or extended
    by the group that froze before), malformed (a scope that there cannot be).
    """

    def record(work: UnitOfWork) -> None:
        if signed in _rows(work.documents):
            return
        known = [f for f in _rows(work.documents) if is_recent(f, now) and _holds(f, kernel.roster)]
        refusals = check_freeze(signed, kernel.roster, now), check_extension(signed, known, kernel.roster, now)
        raise_if(refusal for found in refusals for refusal in found)
        _put(work.documents, FREEZE, signed)

    store.run(record)


def unfreeze(store: Store, kernel: Kernel, signed: Signed[Unfreeze], now: int) -> None:
    """Mirror a quorum's unfreeze; the same again is fine. What it ends is a person's freeze, or what a reversed deposit stops.

    Raises Refused: not_successor (no such freeze in the mirror), quorum_not_reached, too_early (a roster's delay at the least).
    """

    def record(work: UnitOfWork) -> None:
        reversed_deposit = reversals.find(work, signed.message.freeze)
        if reversed_deposit is not None:
            raise_if(reversals.check_lift(signed, reversed_deposit, kernel.roster, now))
            reversals.lift(work, signed)
            return
        frozen = find(work, kernel.roster, signed.message.freeze)
        raise_if(check_unfreeze(signed, frozen, kernel.roster, now))
        _put(work.documents, UNFREEZE, signed)

    store.run(record)


def find(work: UnitOfWork, roster: Roster, digest: bytes) -> Freeze:
    """A mirrored freeze that holds, by its struct hash. Raises Refused(not_successor)."""
    named = (f for f in _rows(work.documents) if f.message.struct_hash == digest)
    found = [f.message for f in named if _holds(f, roster)]
    if not found:
        raise Refused([Refusal(Rule.NOT_SUCCESSOR, freeze=digest.hex(), want="a freeze that the mirror knows")])
    return found[0]


def draft_unfreeze(work: UnitOfWork, roster: Roster, digest: bytes, reason: str) -> Unfreeze:
    """What a quorum signs to end a freeze: at the earliest that the roster's delay lets it. Raises Refused(not_successor)."""
    reversed_deposit = reversals.find(work, digest)
    if reversed_deposit is not None:
        return Unfreeze(digest, reason, reversals.earliest_lift(reversed_deposit, roster))
    return Unfreeze(digest, reason, earliest_end(find(work, roster, digest), roster))


def strange(kernel: Kernel, work: UnitOfWork, scope: str) -> str | None:
    """What a person should know before freezing a scope that names nothing known here; None where it names something.

    No refusal: this comes from rows, and somebody who changed them may not keep a person from freezing.
    """
    kind, _, name = scope.partition(":")
    if not is_scope(scope):
        return f"{scope} names nothing that can be frozen"
    if kind == "customer" and not work.customers.is_known(name):
        return f"{name} is no customer that is known here"
    if kind == "wallet" and bytes.fromhex(name.removeprefix("0x")) not in kernel.inventory.wallets:
        return f"{name} is no wallet that is known here"
    if kind == "chain" and name not in {chain.name for chain in kernel.assets.chains}:
        return f"{name} is no chain of this deployment"
    return None


class FreezeReader:
    """The freezes in force by a mirror. What it has verified once it keeps until it lapses, though its row be deleted."""

    def __init__(self) -> None:
        self._verified: dict[Signed[Freeze], None] = {}
        self.people: dict[bytes, str] = {}
        """Who signed each of those that were read last, by its struct hash: whom to ask."""

    def read(self, work: UnitOfWork, roster: Roster, now: int) -> tuple[Freeze, ...]:
        """Every freeze that lapses later than now and that no quorum ended, in the order they were recorded."""
        for signed in _rows(work.documents):
            if signed not in self._verified and signed.message.lapses > now and _holds(signed, roster):
                self._verified[signed] = None
        self._verified = {signed: None for signed in self._verified if signed.message.lapses > now}
        known = {signed.message.struct_hash: signed.message for signed in self._verified}
        people = {signed.message.struct_hash: roster.people_who_signed(signed, now) for signed in self._verified}
        self.people = {digest: ", ".join(sorted(who)) for digest, who in people.items() if who}
        ended = set(_ended(work.documents, known, roster, now)) if known else set[bytes]()
        return tuple(frozen for digest, frozen in known.items() if digest not in ended)


def _holds(signed: Signed[Freeze], roster: Roster) -> bool:
    """Whether somebody of the roster signed this, by the time that it names: it lapses a day after that at the latest."""
    return not any(check_freeze(signed, roster, signed.message.from_time))


def _ended(documents: Documents, known: Mapping[bytes, Freeze], roster: Roster, now: int) -> Iterator[bytes]:
    for row in documents.all(UNFREEZE):
        signed = _parsed(Unfreeze, row)
        frozen = None if signed is None else known.get(signed.message.freeze)
        if signed is not None and frozen is not None and not any(check_unfreeze(signed, frozen, roster, now)):
            yield frozen.struct_hash


def _rows(documents: Documents) -> Sequence[Signed[Freeze]]:
    found = (_parsed(Freeze, row) for row in documents.all(FREEZE))
    return [signed for signed in found if signed is not None]


def _parsed(kind: type[M], row: Mapping[str, object]) -> Signed[M] | None:
    """A row as a signed document; None for what is none, which is somebody's row and nobody's word."""
    try:
        return Signed.from_json(kind, dict(row))
    except InvalidInput:
        return None


def _put(documents: Documents, kind: str, signed: Signed[M]) -> None:
    body = signed.to_json()  # signatures are part of the name: a forged row takes no true one's place
    documents.put(kind, sha256(canonical(body)).hexdigest(), body)
