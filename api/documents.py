# SPDX-License-Identifier: AGPL-3.0-or-later
"""Between schemas and the domain: shapes in become signed documents, and what the domain has becomes JSON out. One mapper each way.

Answers carry amounts twice: in the asset's own unit, and as `base_units`, both strings.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from api.schemas import ApprovalIn, Closed, ProposalIn
from custody.flows.inventory import Wallet
from custody.flows.ports import Damaged, Enrolled, Moved, UnitOfWork
from custody.flows.proposals import Draft
from custody.rules.amounts import Amount, Asset, Assets
from custody.rules.approvals import Approval
from custody.rules.certificates import DepositAddress
from custody.rules.coverage import liabilities, surplus
from custody.rules.errors import InvalidInput
from custody.rules.intents import Proposal, Rejection
from custody.rules.ledger import Account, AccountKind
from custody.rules.refusals import Refusal, Rule
from custody.rules.requirement import Outcome
from custody.rules.signatures import Signature, Signed
from custody.rules.statements import Statement
from custody.rules.transfers import Transfer
from custody.rules.typed import Struct

Json = dict[str, object]
M = TypeVar("M", bound=Struct)


def hexed(value: bytes) -> str:
    """0x and lower-case hex."""
    return "0x" + value.hex()


def money(asset: Asset, units: int) -> Json:
    """One amount; below zero only where it is a shortfall."""
    return {"asset": asset.symbol, "amount": Amount(asset, units).decimal, "base_units": str(units)}


def proposal_of(body: ProposalIn, assets: Assets) -> Signed[Proposal]:
    """The signed proposal. Raises InvalidInput: unknown_asset, and everything of `Amount.parse`."""
    amount = Amount.parse(assets.get(body.asset), body.amount)
    proposal = Proposal(
        reference=body.reference,
        account=body.account,
        chain=body.chain,
        asset=body.asset,
        amount=amount.units,
        destination=body.destination,
        purpose=body.purpose,
        expiry=body.expiry,
    )
    return Signed(proposal, tuple(Signature.from_json(s.model_dump()) for s in body.signatures))


def approval_of(body: ApprovalIn) -> Approval:
    """The approval. Raises InvalidInput."""
    return Approval.from_json(body.model_dump())


def rejection_of(body: Closed) -> Signed[Rejection]:
    """The signed no. Raises InvalidInput."""
    return Signed.from_json(Rejection, body.model_dump())


def balances(work: UnitOfWork, customer: str, assets: Assets) -> list[Json]:
    """What a customer has of each asset, available and held."""
    kinds = {"available": AccountKind.CUSTOMER_AVAILABLE, "held": AccountKind.CUSTOMER_HELD}
    rows: list[Json] = []
    for asset in assets:
        units = {name: work.journal.balance(Account(kind, customer), asset) for name, kind in kinds.items()}
        told = {name: money(asset, value) for name, value in units.items()}
        rows.append({"asset": asset.symbol, "chain": asset.chain.name, **told})
    return rows


def address_out(signed: Signed[DepositAddress]) -> Json:
    """A binding, with the attestor's signature that whoever shows the address checks first."""
    binding = signed.message
    return {
        "chain": binding.chain,
        "address": binding.address,
        "index": str(binding.index),
        "wallet": hexed(binding.wallet),
        "customer": binding.customer,
        "document": signed.to_json(),
    }


def enrolment_out(enrolled: Enrolled) -> Json:
    """An enrolment with the time of its first sight here."""
    message = enrolled.enrolment.message
    told = {"digest": hexed(message.struct_hash), "first_seen": enrolled.seen_at}
    return {**told, **message.to_json(), "document": enrolled.enrolment.to_json()}


def transfer_out(transfer: Transfer, assets: Assets) -> Json:
    """Where a transfer stands. `intent` is what people sign, `digest` its EIP-712 digest in this deployment."""
    intent = transfer.intent
    return {
        "id": intent.id,
        "digest": hexed(transfer.digest),
        "status": transfer.status.value,
        "sub_status": None if transfer.sub_status is None else transfer.sub_status.value,
        "waiting_for": transfer.waiting_for or None,
        "reference": transfer.proposal.message.reference,
        "account": intent.account,
        "chain": intent.chain,
        **money(assets.get(intent.asset), intent.amount),
        "destination": intent.destination,
        "purpose": intent.purpose,
        "initiator": intent.initiator,
        "usd_micro": str(transfer.usd),
        "created_at": transfer.created_at,
        "moved_at": transfer.moved_at,
        "expires_at": intent.expiry,
        "decision": _without_facts(transfer.decision),
        "intent": intent.to_json(),
        "proposal": transfer.proposal.to_json(),
    }


def _without_facts(decision: Mapping[str, object] | None) -> Json | None:
    """Policy's answer without what it counted: windows hold what others do with the same wallet."""
    return None if decision is None else {name: value for name, value in decision.items() if name != "facts"}


def listed_out(found: Transfer | Damaged, assets: Assets) -> Json:
    """A transfer in a list; of a damaged row its digest and what is wrong with it, since nothing in it is anybody's word."""
    if isinstance(found, Damaged):
        return _damaged_out(found.name, found.why)
    try:
        return transfer_out(found, assets)
    except InvalidInput as error:  # an asset of nobody, column and document alike
        digest = found.digest.hex()
        return _damaged_out(digest, Refusal(Rule.ROW_DAMAGED, table="transfers", digest=digest, why=str(error)))


def _damaged_out(digest: str, why: Refusal) -> Json:
    operands = {name: str(value) for name, value in why.operands.items()}
    return {"digest": f"0x{digest}", "damaged": {"rule": why.rule.value, "operands": operands}}


def people_out(
    history: Sequence[Moved], approvals: Sequence[Approval], rejections: Sequence[Signed[Rejection]]
) -> Json:
    """Every status it had and every document that people added; whoever counts approvals verifies them again."""
    return {
        "history": [
            {"at": m.at, "status": m.status.value, "sub_status": m.sub_status and m.sub_status.value, "why": m.why}
            for m in history
        ],
        "approvals": [approval.to_json() for approval in approvals],
        "rejections": [signed.to_json() for signed in rejections],
    }


def draft_out(draft: Draft, assets: Assets) -> Json:
    """What policy answers now, each rule with its first unmet condition, who would be below zero, and what freeze it would wait for.

    `asks` is whom it would wait for: `nobody` where it goes by itself, though its decision names who is asked beyond the seats' caps.
    """
    decision = draft.decision
    asks = None if decision.requirement is None else str(decision.requirement)
    told = decision.to_json()
    told["unmet"] = [{"rule": u.rule, "part": u.part, "condition": u.condition} for u in decision.unmet]
    return {
        **money(assets.get(draft.intent.asset), draft.intent.amount),
        "usd_micro": str(draft.usd),
        "initiator": draft.initiator.id,
        "from_tier": draft.route.source.tier.value,
        "destination_kind": draft.intent.destination_kind,
        "decision": told,
        "asks": "nobody" if decision.outcome is Outcome.AUTOMATIC else asks,
        "refusals": [
            {"rule": r.rule.value, "operands": {k: str(v) for k, v in r.operands.items()}}
            for r in (*decision.refusals(), *draft.short, *draft.frozen)
        ],
    }


def wallet_out(work: UnitOfWork, wallet: Wallet, assets: Iterable[Asset]) -> Json:
    """A wallet as its certificates have it, with the ledger's balance."""
    certificate = wallet.certificate
    return {
        "name": hexed(wallet.name),
        "label": certificate.label,
        "tier": wallet.tier.value,
        "chain": wallet.chain.name,
        "place": wallet.place,
        "m": certificate.m,
        "n": certificate.n,
        "seats": [seat.key.seat for seat in certificate.seats],
        "certificate": hexed(certificate.struct_hash),
        "certificates": len(wallet.certificates),
        "deposit_addresses": len(wallet.bound),
        "ledger": [money(a, work.journal.balance(wallet.account, a)) for a in assets if a.chain == wallet.chain],
    }


def coverage_out(statement: Statement, assets: Assets) -> Json:
    """Law 2's arithmetic for each asset, in base units and in its own unit."""
    rows = []
    for row in statement.coverage:
        asset = assets.get(row.asset)
        numbers: Mapping[str, int] = {
            "on_chain": row.on_chain,
            "in_ledger": row.in_ledger,
            "reserves": row.reserves,
            "available": row.available,
            "held": row.held,
            "suspense": row.suspense,
            "liabilities": liabilities(row),
            "in_flight": row.in_flight,
            "surplus": surplus(row),
            "accrued_fees": row.accrued_fees,
            "matured_fees": row.matured_fees,
        }
        rows.append({"asset": row.asset, **{name: money(asset, units) for name, units in numbers.items()}})
    return {
        "sequence": str(statement.sequence),
        "time": statement.time,
        "ledger_position": str(statement.ledger_position),
        "heights": [height.to_json() for height in statement.heights],
        "items": rows,
    }


def typed_signed(kind: type[M], body: Closed) -> Signed[M]:
    """A signed document of a known kind. Raises InvalidInput."""
    return Signed.from_json(kind, body.model_dump())


def digest_of(text: str, field: str) -> bytes:
    """32 bytes from 0x hex. Raises InvalidInput."""
    try:
        raw = bytes.fromhex(text.removeprefix("0x"))
    except ValueError as error:
        raise InvalidInput(field, Rule.MALFORMED, repr(text[:80]), "0x and 64 hex digits") from error
    if len(raw) != 32 or hexed(raw) != text:
        raise InvalidInput(field, Rule.MALFORMED, repr(text[:80]), "0x and 64 hex digits")
    return raw
