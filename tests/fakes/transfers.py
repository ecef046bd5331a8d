# SPDX-License-Identifier: AGPL-3.0-or-later
"""Transfers and enrolments in dicts, for the fake store; the contract suite holds them to the real ones."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from custody.flows.ports import Damaged, Enrolled, Moved
from custody.rules.approvals import Approval
from custody.rules.certificates import Enrolment
from custody.rules.errors import InvalidInput
from custody.rules.facts import Purpose
from custody.rules.intents import Anchor, Rejection
from custody.rules.payments import Envelope
from custody.rules.refusals import Refusal, Refused, Rule, raise_if
from custody.rules.seat_journal import anchor_key
from custody.rules.signatures import Signed
from custody.rules.transfers import Permit, Reserved, Status, Transfer

DAY, HOUR = 86_400, 3600


@dataclass
class TransferState:
    """Immutable values in containers of their own."""

    transfers: dict[bytes, Transfer] = field(default_factory=dict)
    keys: dict[tuple[str, str], tuple[bytes, bytes]] = field(default_factory=dict)
    moves: list[tuple[bytes, Moved]] = field(default_factory=list)
    approvals: list[Approval] = field(default_factory=list)
    rejections: list[tuple[str, Signed[Rejection]]] = field(default_factory=list)
    permits: list[Permit] = field(default_factory=list)
    envelopes: list[Envelope] = field(default_factory=list)
    enrolments: list[Enrolled] = field(default_factory=list)
    damaged: set[bytes | Anchor] = field(default_factory=set)
    """Transfers and enrolments, by digest, and permits, by anchor, whose rows somebody changed behind everybody's back."""
    unreadable: set[bytes] = field(default_factory=set)
    """Damaged transfers, by digest, of whose document nothing can be read."""

    def copy(self) -> "TransferState":
        """A snapshot."""
        return TransferState(
            dict(self.transfers),
            dict(self.keys),
            list(self.moves),
            list(self.approvals),
            list(self.rejections),
            list(self.permits),
            list(self.envelopes),
            list(self.enrolments),
            set(self.damaged),
            set(self.unreadable),
        )


class FakeEnrolments:
    """See `Enrolments`."""

    def __init__(self, state: TransferState, check: Callable[[], None]) -> None:
        self._state, self._check = state, check

    def add(self, signed: Signed[Enrolment], at: int) -> None:
        """Once."""
        self._check()
        known = self.get(signed.message.struct_hash)
        if known is not None and known.enrolment != signed:
            raise Refused([Refusal(Rule.ALREADY_EXISTS, address=signed.message.address)])
        if known is None:
            self._state.enrolments.append(Enrolled(signed, at))

    def get(self, digest: bytes) -> Enrolled | None:
        """By hash."""
        return next((self._whole(e) for e in self._state.enrolments if _hash(e) == digest), None)

    def at(self, chain: str, address: str) -> Sequence[Enrolled]:
        """Of an address, newest first."""
        found = [
            self._whole(e)
            for e in self._state.enrolments
            if (e.enrolment.message.chain, e.enrolment.message.address) == (chain, address)
        ]
        return found[::-1]

    def of(self, owner: str) -> Sequence[Enrolled]:
        """Of an owner, newest first."""
        return [self._whole(e) for e in self._state.enrolments if e.enrolment.message.owner == owner][::-1]

    def examine(self, after: int = 0, limit: int = 1000) -> Sequence[tuple[int, Enrolled | Damaged]]:
        """In the order they came."""
        listed = list(enumerate(self._state.enrolments, start=1))[after : after + limit]
        return [
            (n, _damaged("enrolments", _hash(e).hex()) if _hash(e) in self._state.damaged else e) for n, e in listed
        ]

    def _whole(self, found: Enrolled) -> Enrolled:
        if _hash(found) in self._state.damaged:
            raise InvalidInput("enrolments", Rule.ROW_DAMAGED, "something else", "what was signed")
        return found


def _hash(enrolled: Enrolled) -> bytes:
    return enrolled.enrolment.message.struct_hash


def _damaged(table: str, name: str, **more: Any) -> Damaged:
    return Damaged(name, Refusal(Rule.ROW_DAMAGED, table=table, digest=name, why="it says something else"), **more)


class FakeTransfers:
    """See `Transfers`."""

    def __init__(self, state: TransferState, check: Callable[[], None]) -> None:
        self._state, self._check = state, check

    def add(self, transfer: Transfer, scope: str, key: str, body: bytes, submitted: Transfer | None = None) -> None:
        """A new one."""
        self._check()
        raise_if(self._refusals(transfer, scope, key))
        self._state.transfers[transfer.digest] = transfer
        self._state.keys[scope, key] = (body, transfer.digest)
        for each in (submitted, transfer):
            if each is not None:
                self._note(each, each.waiting_for)

    def asked(self, scope: str, key: str) -> tuple[bytes, Transfer] | None:
        """By key."""
        known = self._state.keys.get((scope, key))
        return None if known is None else (known[0], self._whole(self._state.transfers[known[1]]))

    def get(self, digest: bytes) -> Transfer | None:
        """By digest."""
        found = self._state.transfers.get(digest)
        return None if found is None else self._whole(found)

    def find(self, transfer: str) -> Transfer | None:
        """By id."""
        return next((self._whole(t) for t in self._state.transfers.values() if t.intent.id == transfer), None)

    def of_proposal(self, proposal: bytes) -> Transfer | None:
        """Of a proposal."""
        return next((self._whole(t) for t in self._state.transfers.values() if t.intent.proposal == proposal), None)

    def examine(
        self,
        after: int = 0,
        limit: int = 100,
        *,
        account: str | None = None,
        wallet: bytes | None = None,
        statuses: Collection[Status] = (),
    ) -> Sequence[tuple[int, Transfer | Damaged]]:
        """Numbered from 1, with those that are damaged."""
        filters: Any = {"account": account, "wallet": wallet, "statuses": statuses}
        return [(number, self._examined(t)) for number, t in self._listed(after, limit, **filters)]

    def _listed(
        self, after: int, limit: int, account: str | None, wallet: bytes | None, statuses: Collection[Status]
    ) -> Sequence[tuple[int, Transfer]]:
        found = (
            (number, t)
            for number, t in enumerate(self._state.transfers.values(), 1)
            if number > after
            and account in (None, t.intent.account)
            and wallet in (None, t.intent.wallet)
            and (not statuses or t.status in statuses)
        )
        return list(found)[:limit]

    def update(self, transfer: Transfer, was: Transfer, why: str = "") -> None:
        """A move."""
        self._check()
        known = self._state.transfers.get(was.digest)
        if known is None or (known.status, known.moved_at) != (was.status, was.moved_at):
            raise Refused([Refusal(Rule.ILLEGAL_MOVE, intent=was.digest.hex(), was=was.status.value)])
        self._state.transfers[was.digest] = transfer
        self._note(transfer, why or transfer.waiting_for)

    def history(self, digest: bytes) -> Sequence[Moved]:
        """Steps."""
        return [moved for of, moved in self._state.moves if of == digest]

    def expiring(self, now: int, limit: int = 100, beyond: int = 0) -> Sequence[bytes]:
        """Past their expiry."""
        found = (t for t in self._state.transfers.values() if not t.status.is_final and not t.status.is_asked)
        return [t.digest for t in found if t.intent.expiry <= now][beyond:][:limit]

    def approve(self, approval: Approval, at: int) -> None:
        """A yes."""
        self._check()
        self._known(approval.intent)
        mine = [a for a in self.approvals(approval.intent) if a.person == approval.person]
        if mine and mine != [approval]:
            raise Refused([Refusal(Rule.SIGNER_TWICE, person=approval.person)])
        if not mine:
            self._state.approvals.append(approval)

    def approvals(self, digest: bytes) -> Sequence[Approval]:
        """Every yes."""
        return [a for a in self._state.approvals if a.intent == digest]

    def reject(self, person: str, rejection: Signed[Rejection], at: int) -> None:
        """A no."""
        self._check()
        self._known(rejection.message.intent)
        mine = [r for p, r in self._state.rejections if (p, r.message.intent) == (person, rejection.message.intent)]
        if mine and mine != [rejection]:
            raise Refused([Refusal(Rule.SIGNER_TWICE, person=person)])
        if not mine:
            self._state.rejections.append((person, rejection))

    def rejections(self, digest: bytes) -> Sequence[Signed[Rejection]]:
        """Every no."""
        return [r for _, r in self._state.rejections if r.message.intent == digest]

    def reserved(self, account: str, wallet: bytes, initiator: str, now: int, besides: bytes = b"") -> Reserved:
        """What others take up."""
        return Reserved(
            sum(t.usd for t in self._counted(now - DAY, besides) if t.intent.account == account),
            sum(t.usd for t in self._counted(now - HOUR, besides) if t.intent.wallet == wallet),
            sum(t.usd for t in self._counted(now - DAY, besides) if t.intent.initiator == initiator),
        )

    def swept(self, asset: str, now: int, besides: bytes = b"") -> int:
        """Fee sweeps."""
        found = (t.intent for t in self._counted(now - DAY, besides))
        return sum(i.amount for i in found if (i.asset, i.purpose) == (asset, Purpose.FEE_SWEEP))

    def heading_to(self, destinations: Collection[str], asset: str, besides: bytes = b"") -> int:
        """On their way to us."""
        found = (t.intent for t in self._counted(2**63, besides))
        inside = (i for i in found if i.asset == asset and i.purpose != Purpose.WITHDRAWAL)
        return sum(i.amount for i in inside if i.destination in destinations)

    def leaving(self, wallet: bytes, asset: str, besides: Collection[bytes] = ()) -> int:
        """Permitted."""
        found = (t for t in self._state.transfers.values() if t.status.is_asked and t.digest not in besides)
        return sum(t.intent.amount for t in found if (t.intent.wallet, t.intent.asset) == (wallet, asset))

    def permit(self, permit: Permit) -> None:
        """A permit."""
        self._check()
        raise_if(self._permit_refusals(permit))
        for digest in permit.intents:
            self._known(digest)
        self._state.permits.append(permit)

    def permit_of(self, digest: bytes) -> Permit | None:
        """Of an intent."""
        return next((p for p in self._state.permits if digest in p.intents), None)

    def permitted(self) -> Sequence[Permit]:
        """Unfinished."""
        found = self.examine_permitted()
        if damaged := [permit for permit in found if isinstance(permit, Damaged)]:
            raise InvalidInput(damaged[0].name, Rule.ROW_DAMAGED, "something else", "what stood there")
        return [permit for permit in found if isinstance(permit, Permit)]

    def examine_permitted(self) -> Sequence[Permit | Damaged]:
        """With those that are damaged."""
        return [
            _damaged("permits", anchor_key(p.reservation.anchor), anchor=p.reservation.anchor)
            if p.reservation.anchor in self._state.damaged
            else p
            for p in self._unfinished()
        ]

    def _unfinished(self) -> Sequence[Permit]:
        ends = {t.digest for t in self._state.transfers.values() if t.status.is_final}
        return [p for p in self._state.permits if not set(p.intents) <= ends]

    def taken(self, chain: str, wallet: bytes) -> frozenset[str]:
        """References."""
        mine = (p.reservation for p in self._unfinished())
        return frozenset(r for m in mine if (m.anchor.chain, m.anchor.wallet) == (chain, wallet) for r in m.references)

    def keep(self, envelope: Envelope, at: int) -> None:
        """Bytes."""
        self._check()
        if not any(p.reservation.anchor == envelope.anchor for p in self._state.permits):
            raise Refused([Refusal(Rule.ORIGIN, anchor=envelope.anchor.reference)])
        same = [e for e in self.kept(envelope.anchor) if e.transaction == envelope.transaction]
        if same and same != [envelope]:
            raise Refused([Refusal(Rule.ALREADY_EXISTS, transaction=envelope.transaction.hex())])
        if not same:
            self._state.envelopes.append(envelope)

    def kept(self, anchor: Anchor) -> Sequence[Envelope]:
        """Of an anchor."""
        return [e for e in self._state.envelopes if e.anchor == anchor]

    def _examined(self, transfer: Transfer) -> Transfer | Damaged:
        if transfer.digest not in self._state.damaged:
            return transfer
        intent, name = transfer.intent, transfer.digest.hex()
        named = frozenset[str]() if transfer.digest in self._state.unreadable else frozenset({intent.asset})
        return _damaged("transfers", name, wallet=intent.wallet, assets=named)

    def _whole(self, transfer: Transfer) -> Transfer:
        if transfer.digest in self._state.damaged:
            where = f"transfers[{transfer.intent.id}]"
            raise InvalidInput(where, Rule.ROW_DAMAGED, "something else", "what stands in the intent")
        return transfer

    def _known(self, digest: bytes) -> None:
        if digest not in self._state.transfers:
            raise KeyError(digest)

    def _note(self, transfer: Transfer, why: str) -> None:
        at = max(transfer.moved_at, transfer.created_at)
        self._state.moves.append((transfer.digest, Moved(at, transfer.status, transfer.sub_status, why)))

    def _counted(self, since: int, besides: bytes) -> Iterator[Transfer]:
        for transfer in self._state.transfers.values():
            done = transfer.status is Status.COMPLETED and transfer.moved_at > since
            if transfer.live and transfer.digest != besides and (done or not transfer.status.is_final):
                yield transfer

    def _refusals(self, new: Transfer, scope: str, key: str) -> Iterator[Refusal]:
        if (scope, key) in self._state.keys:
            yield Refusal(Rule.IDEMPOTENCY_MISMATCH, key=key)
        if any(t.intent.proposal == new.intent.proposal for t in self._state.transfers.values()):
            yield Refusal(Rule.PROPOSAL_BOUND, proposal=new.intent.proposal.hex())
        if new.digest in self._state.transfers or self.find(new.intent.id) is not None:
            yield Refusal(Rule.ALREADY_RECORDED, kind="transfer", id=new.intent.id)

    def _permit_refusals(self, new: Permit) -> Iterator[Refusal]:
        anchor, references = new.reservation.anchor, new.reservation.references
        if anchor.reference not in references or len(set(references)) != len(references):
            yield Refusal(Rule.MALFORMED, field="permit", references=list(references))
        for known in self._state.permits:
            at = known.reservation.anchor
            if at == anchor:
                yield Refusal(Rule.ANCHOR_BOUND, anchor=anchor.reference)
            shared = set(known.reservation.references) & set(references) if at.chain == anchor.chain else set()
            if any(":" in reference or at.wallet == anchor.wallet for reference in shared):
                yield Refusal(Rule.OUTPOINT_BOUND, references=sorted(shared))
            if bound := set(known.intents) & set(new.intents):
                yield Refusal(Rule.INTENT_BOUND, intents=[digest.hex() for digest in bound])
