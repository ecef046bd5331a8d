# SPDX-License-Identifier: AGPL-3.0-or-later
"""A seat decides by itself: one lie a row, on both chains, and every control shown to be the one that stops an attack.

`test_each_check_is_needed` takes every check away in turn: some attack of this table must then be signed.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any, Final

import pytest

from custody.chains.evm.safes import deposit_safe
from custody.rules import seat
from custody.rules.approvals import Approval
from custody.rules.intents import NONCES_AHEAD
from custody.rules.payouts import Leaf, LeafKind
from custody.rules.refusals import Refusal, Rule
from custody.rules.requirement import Outcome, Requirement
from custody.rules.seat import CHECKS, decide
from custody.rules.seat_case import Case
from custody.rules.seat_request import Kind, Plan, Request
from custody.rules.statements import SeatPosition
from custody.rules.wallets import Tier
from tests.fakes.attacks import (
    HOT,
    OTHER,
    Row,
    added_leaf,
    bitcoin_churn,
    bitcoin_sweep,
    bitcoin_void,
    bound,
    changed_leaf,
    counter,
    extra_facts,
    frozen,
    hot,
    pays,
    rolled,
    rotated,
    rotation,
    successor,
    sweep,
    void,
    with_successor,
)
from tests.fakes.seat import BITCOIN, EVM, NOW, ed25519, secp256k1, signed_by
from tests.fakes.trust import (
    PAYEE,
    STRANGER,
    TWO,
    Ask,
    answers,
    bundle,
    packed,
    psbt_of,
    transfer_data,
    transfers_of,
    world,
)

Base = Callable[[], Request | None]
AUTO: Final = answers(Outcome.AUTOMATIC)
SWAP: Final = bytes.fromhex("694e80c3") + (2).to_bytes(32)
BTC: Final[dict[str, Any]] = {"chain": BITCOIN}
FEES: Final[dict[str, Any]] = {"to_tier": Tier.OPERATIONAL, "both": {"purpose": "fee_sweep"}, "proposer": "finance"}
COLD: Final[dict[str, Any]] = {"tier": Tier.CUSTOMER_COLD, "to_tier": HOT, "proposer": "desk"}
VENDOR: Final[dict[str, Any]] = {"tier": Tier.OPERATIONAL, "both": {"purpose": "vendor_payment"}, "proposer": "finance"}
LOW: Final[dict[str, Any]] = {"available": 0}
FEE: Final = 10**30 - 100 - 20_000
"""Available, where the company has exactly a Bitcoin move's maximum fee in customers' wallets."""


def two_keys(r: Request) -> Request:
    """The same person's approval twice, in place of a second person's."""
    t = r.transfers[0]
    return replace(r, transfers=(replace(t, approvals=(t.approvals[0], t.approvals[0])),))


def forged(r: Request) -> Request:
    """Bo's approval with Ana's signature."""
    t = r.transfers[0]
    return replace(
        r,
        transfers=(
            replace(t, approvals=(t.approvals[0], replace(t.approvals[1], signature=t.approvals[0].signature))),
        ),
    )


def of_another(r: Request) -> Request:
    """Approvals of another intent, for instance of another amount."""
    t = r.transfers[0]
    digest = world().domain.digest(replace(t.intent, amount=t.intent.amount - 1))
    stale = tuple(Approval(digest, n, secp256k1(n).sign(digest)) for n in ("ana", "bo"))
    return replace(r, transfers=(replace(t, approvals=stale),))


def signed_elsewhere(r: Request) -> Request:
    """A proposal signed for another deployment."""
    domain = replace(world().domain, genesis=OTHER)
    t = r.transfers[0]
    return replace(r, transfers=(replace(t, proposal=signed_by(t.proposal.message, domain, [ed25519("backend")])),))


def unsigned(r: Request) -> Request:
    """A proposal that nobody signed."""
    t = r.transfers[0]
    return replace(r, transfers=(replace(t, proposal=replace(t.proposal, signatures=())),))


def no_enrolment(r: Request) -> Request:
    """The enrolment left out."""
    return replace(r, transfers=(replace(r.transfers[0], enrolment=None),))


def anchored(reference: str = "7") -> Any:
    """The hot Safe's anchor."""
    return replace(void().void.message.anchor, reference=reference)  # type: ignore[union-attr]


def spent_on(field: str) -> Any:
    """A journal in which this request's intent or proposal belongs to another one."""
    t = transfers_of(Ask())[0]
    if field == "intents":
        return lambda j: replace(j, intents={world().domain.digest(t.intent): "elsewhere"})
    return lambda j: replace(j, proposals={t.proposal.message.struct_hash: OTHER})


# What can be wrong with anything that moves coins; asked of a payout, a sweep, a void and a rotation where the check applies.
COMMON: Final[dict[str, Any]] = {
    "another wallet asked": (Rule.WRONG_WALLET, {"request": lambda r: replace(r, wallet=OTHER)}),
    "statement by a stranger": (Rule.SIGNATURE_INVALID, {"attestor": "mallory"}),
    "statement too old": (Rule.STALE, {"statement": {"time": NOW + 1000 - 601}}),
    "statement from the future": (Rule.STALE, {"statement": {"time": NOW + 1000 + 31}}),
    "statement replayed": (Rule.SEQUENCE, {"journal": lambda j: replace(j, sequence=9)}),
    "statement of an older roster": (Rule.ROSTER_OLDER, {"statement": {"roster": 0}}),
    "statement of another policy": (Rule.POLICY_OLDER, {"statement": {"policy": OTHER}}),
    "seat behind the attested policy": (Rule.POLICY_OLDER, {"journal": lambda j: replace(j, policies=())}),
    "statement for another nonce": (Rule.STATEMENT_MISMATCH, {"statement": {"anchor": (anchored("8"),)}}),
    "statement for no anchor": (Rule.STATEMENT_MISMATCH, {"statement": {"anchor": ()}}),
    "nonce consumed": (Rule.ANCHOR_SPENT, {"safe": {"nonce": 8}}),
}
AHEAD: Final[dict[str, Any]] = {
    "a nonce far ahead, to be sent when somebody likes": (
        Rule.ANCHOR_FAR,
        {"payload": lambda tx: replace(tx, nonce=7 + NONCES_AHEAD + 1)},
    ),
}
HEADS: Final[dict[str, Any]] = {
    "restored from an old copy": (Rule.BEHIND, {"statement": {"seats": (SeatPosition("hot-1", 99, OTHER),)}}),
    "a forked journal": (Rule.BEHIND, {"statement": {"seats": (SeatPosition("hot-1", 6, OTHER),)}}),
    "no head of this seat": (Rule.BEHIND, {"statement": {"seats": ()}}),
}
SAFES: Final[dict[str, Any]] = {
    "a module": (Rule.SAFE_DRIFT, {"safe": {"modules": (STRANGER,)}}),
    "a guard": (Rule.SAFE_DRIFT, {"safe": {"guard": STRANGER}}),
    "another handler": (Rule.SAFE_DRIFT, {"safe": {"handler": STRANGER}}),
    "another singleton": (Rule.SAFE_DRIFT, {"safe": {"singleton": STRANGER}}),
    "a lower threshold": (Rule.SAFE_DRIFT, {"safe": {"threshold": 1}}),
    "an owner more": (Rule.SAFE_DRIFT, {"safe": {"owners": (STRANGER,)}}),
    "no state of the Safe": (Rule.SAFE_DRIFT, {"statement": {"safes": ()}}),
}
MOVES: Final[dict[str, Any]] = {
    "the whole deployment frozen": (Rule.FROZEN, {"journal": frozen("all")}),
    "the chain frozen": (Rule.FROZEN, {"journal": frozen(f"chain:{EVM.name}")}),
    "an owner call hidden in it": (Rule.SAFE_CHANGED, {"payload": added_leaf(SWAP)}),
    "an intent that it does not carry": (Rule.STATEMENT_MISMATCH, {"statement": {"intents": extra_facts(Ask())}}),
    "the anchor bound to another payload": (Rule.ANCHOR_BOUND, {"journal": bound(anchored())}),
    "a void leaf hidden in it": (
        Rule.QUORUM_NOT_REACHED,
        {"decoded": lambda d: replace(d, leaves=(*d.leaves, Leaf(LeafKind.VOID)))},
    ),
    "change to a certificate that this seat never saw": (
        Rule.CERTIFICATE_OLDER,
        {"decoded": lambda d: replace(d, leaves=(*d.leaves, Leaf(LeafKind.CHANGE, "ETH", 1, STRANGER)))},
    ),
}


def rows_of(name: str, base: Base, *tables: dict[str, Any]) -> list[Row]:
    """A table on one base."""
    return [Row(f"{name}: {k}", Ask(**fields), rule, base) for table in tables for k, (rule, fields) in table.items()]


LIES: Final[list[tuple[str, Rule, dict[str, Any]]]] = [
    # who proposed it
    ("nobody signed the proposal", Rule.SIGNER_UNKNOWN, {"request": unsigned}),
    ("a key without the propose scope", Rule.SIGNER_UNKNOWN, {"proposer": "settler"}),
    ("a proposal of another deployment", Rule.SIGNER_UNKNOWN, {"request": signed_elsewhere}),
    ("another initiator named", Rule.PROPOSAL_MISMATCH, {"intent": {"initiator": "desk"}}),
    ("a proposer who joined after the pinned roster", Rule.SIGNER_UNKNOWN, {**rolled(), "proposer": "newbie"}),
    ("a pinned roster that nobody knows", Rule.ROSTER_OLDER, {"intent": {"roster": 7}}),
    # the intent is its proposal's
    ("another proposal's hash", Rule.PROPOSAL_MISMATCH, {"intent": {"proposal": OTHER}}),
    ("another destination", Rule.PROPOSAL_MISMATCH, {"proposal": {"destination": STRANGER}}),
    ("another amount", Rule.PROPOSAL_MISMATCH, {"proposal": {"amount": 1}}),
    ("another account", Rule.PROPOSAL_MISMATCH, {"proposal": {"account": "customer:bob"}}),
    ("another asset", Rule.PROPOSAL_MISMATCH, {"proposal": {"asset": "USDX"}}),
    ("another chain", Rule.PROPOSAL_MISMATCH, {"proposal": {"chain": BITCOIN.name}}),
    ("another purpose", Rule.PROPOSAL_MISMATCH, {"proposal": {"purpose": "rebalance"}}),
    ("an intent that outlives its proposal", Rule.PROPOSAL_MISMATCH, {"proposal": {"expiry": NOW + 3999}}),
    (
        "two intents of one proposal",
        Rule.PROPOSAL_BOUND,
        {"payments": 2, "both": {"amount": 10**18}, "proposal": {"reference": "same"}},
    ),
    ("a proposal bound before", Rule.PROPOSAL_BOUND, {"journal": spent_on("proposals")}),
    ("an intent bound to another anchor", Rule.INTENT_BOUND, {"journal": spent_on("intents")}),
    ("an anchor that was voided", Rule.ANCHOR_BOUND, {"journal": bound(anchored(), voided=True)}),
    # when
    ("expired", Rule.EXPIRED, {"now": NOW + 4000}),
    ("not yet", Rule.TOO_EARLY, {"intent": {"not_before": NOW + 1001}}),
    (
        "a clock set back",
        Rule.EXPIRED,
        {
            "intent": {"expiry": NOW + 950},
            "now": NOW + 900,
            "journal": lambda j: replace(j, state=replace(j.state, time=NOW + 960)),
        },
    ),
    # from where
    ("another certificate", Rule.CERTIFICATE_OLDER, {"intent": {"certificate": OTHER}}),
    ("another wallet", Rule.WRONG_WALLET, {"intent": {"wallet": OTHER}}),
    (
        "the old keys after a rotation",
        Rule.CERTIFICATE_OLDER,
        {"journal": with_successor, "intent": {"certificate": successor().message.struct_hash}},
    ),
    # what
    ("another token contract", Rule.TOKEN_MISMATCH, {"intent": {"token": STRANGER}}),
    ("other decimals", Rule.TOKEN_MISMATCH, {"intent": {"decimals": 6}}),
    ("dust", Rule.DUST, {"both": {"amount": 999}}),
    # to where
    ("nobody enrolled it", Rule.ENROLMENT, {"request": no_enrolment}),
    ("an enrolment of another address", Rule.ENROLMENT, {"enrolment": {"address": STRANGER}}),
    ("an enrolment on another chain", Rule.ENROLMENT, {"enrolment": {"chain": BITCOIN.name}}),
    ("another enrolment's hash", Rule.ENROLMENT, {"intent": {"enrolment": OTHER}}),
    (
        "an allow-listed address as a withdrawal's",
        Rule.ENROLMENT,
        {"intent": {"destination_kind": "allow_listed"}},
    ),
    ("a stranger called internal", Rule.ENROLMENT, {"intent": {"destination_kind": "internal_wallet"}}),
    ("enrolled by somebody who is no authority", Rule.SIGNATURE_INVALID, {"authority": "ana"}),
    ("an authority proposes", Rule.AUTHORITY_PROPOSES, {"proposer": "authority"}),
    ("an enrolment that lapsed", Rule.EXPIRED, {"enrolment": {"expiry": NOW + 1000}}),
    ("somebody else's address", Rule.OWNER_MISMATCH, {"enrolment": {"owner": "customer:bob"}}),
    ("a customer without a name", Rule.WALL, {"both": {"account": "customer:"}}),
    ("an empty account", Rule.WALL, {"both": {"account": ""}, "rows": LOW}),
    (
        "its own deposit address",
        Rule.OWN_ADDRESS,
        {"both": {"destination": deposit_safe(hot(), 3).text}},
    ),
    (
        "a place that may be a customer's",
        Rule.OWN_ADDRESS,
        {**BTC, **COLD, "rows": {"available": FEE}, "decoded": lambda d: _place(d, branch=0)},
    ),
    # law 1
    (
        "a vendor paid with customers' coins",
        Rule.WALL,
        {
            "both": {"account": "company", "purpose": "vendor_payment"},
            "rows": LOW,
            "enrolment": {"kind": "allow_listed"},
        },
    ),
    (
        "customers' coins to operational, called a refill",
        Rule.WALL,
        {**FEES, "both": {"purpose": "rebalance"}, "rows": LOW},
    ),
    (
        "a fee sweep on a customer's account",
        Rule.WALL,
        {**FEES, "both": {"purpose": "fee_sweep", "account": "customer:ada"}, "rows": LOW},
    ),
    ("fees that have not matured", Rule.WALL, {**FEES, "rows": {**LOW, "matured_fees": 10**18 - 1}}),
    ("fees above the day's cap", Rule.WALL, {**FEES, "rows": LOW, "cap": 10**18 - 1}),
    (
        "fees above the day's cap by the statement",
        Rule.WALL,
        {**FEES, "rows": LOW, "cap": 10**18, "facts": {"swept_24h": 10**18 + 1}},
    ),
    (
        "fees above the day's cap by this seat",
        Rule.WALL,
        {**FEES, "rows": LOW, "cap": 10**18, "journal": lambda j: replace(j, swept=counter("ETH", 1))},
    ),
    (
        "a customer paid out of operational",
        Rule.WALL,
        {**VENDOR, "both": {"account": "customer:ada", "purpose": "withdrawal"}},
    ),
    # payload against intents
    ("another destination in the payload", Rule.PAYLOAD_MISMATCH, {"payload": pays(STRANGER, 10**18)}),
    ("another amount in the payload", Rule.PAYLOAD_MISMATCH, {"payload": pays(PAYEE[EVM.name], 10**18 + 1)}),
    (
        "another token in the payload",
        Rule.PAYLOAD_MISMATCH,
        {"payload": pays("0x" + "77" * 20, 0, transfer_data(PAYEE[EVM.name], 10**18))},
    ),
    (
        "a hidden leaf more",
        Rule.PAYLOAD_MISMATCH,
        {"payload": added_leaf(transfer_data(STRANGER, 1), "0x" + "77" * 20)},
    ),
    ("one payment left out", Rule.PAYLOAD_MISMATCH, {"payments": 2, "payload": pays(PAYEE[EVM.name], 10**18)}),
    # the statement's word
    ("a hold that fell", Rule.HOLD, {"facts": {"hold_stands": False}}),
    ("an empty account debited", Rule.INSUFFICIENT_BALANCE, {"facts": {"balance_covers": False}}),
    ("a shortfall", Rule.COVERAGE, {"rows": {"reserves": 10**30 - 1, "on_chain": 10**30 - 1}}),
    ("a shortfall in flight", Rule.COVERAGE, {"rows": {"in_flight": 1}}),
    ("fees that are no surplus", Rule.COVERAGE, FEES),
    ("a surplus that nobody credited", Rule.COVERAGE, {"rows": {"in_ledger": 5}}),
    ("coverage unknown", Rule.COVERAGE_UNKNOWN, {"statement": {"coverage": ()}}),
    ("no height for the chain", Rule.COVERAGE_UNKNOWN, {"statement": {"heights": ()}}),
    # law 3
    ("denied by policy", Rule.POLICY_DENIES, {"policy": answers(Outcome.DENY)}),
    ("a pinned policy that was never in force", Rule.POLICY_OLDER, {"intent": {"policy": OTHER}}),
    (
        "the pinned policy is stricter",
        Rule.POLICY_DENIES,
        {
            "intent": {"policy": OTHER},
            "pinned": {OTHER: bundle(answers(Outcome.DENY, bundle=OTHER))},
            "journal": lambda j: replace(j, policies=(OTHER, *j.policies)),
        },
    ),
    ("nobody approved", Rule.QUORUM_NOT_REACHED, {"approvers": ()}),
    ("one person of two", Rule.QUORUM_NOT_REACHED, {"approvers": ("ana",)}),
    ("two of the wrong group", Rule.QUORUM_NOT_REACHED, {"approvers": ("ana", "dee")}),
    ("an outsider", Rule.QUORUM_NOT_REACHED, {"approvers": ("ana", "mallory")}),
    ("one person twice", Rule.SIGNER_TWICE, {"request": two_keys}),
    ("one person in two groups", Rule.QUORUM_NOT_REACHED, {"approvers": ("cy",)}),
    ("a forged approval", Rule.SIGNER_UNKNOWN, {"request": forged}),
    ("approvals of another amount", Rule.WRONG_DIGEST, {"request": of_another}),
    ("the initiator approves", Rule.INITIATOR_APPROVES, {"proposer": "dee", "approvers": ("dee", "bo")}),
    ("the delay is not over", Rule.DELAY, {"policy": answers(Outcome.REQUIRE, replace(TWO, delay=971))}),
    (
        "never seen by the attestor",
        Rule.DELAY,
        {"policy": answers(Outcome.REQUIRE, replace(TWO, delay=1)), "facts": {"first_seen": 0}},
    ),
    (
        "below this seat's floor",
        Rule.QUORUM_NOT_REACHED,
        {
            "both": {"amount": 10**19 + 1},
            "approvers": ("ana",),
            "policy": answers(Outcome.REQUIRE, Requirement((("operations", 1),))),
        },
    ),
    (
        "automatic above the floor",
        Rule.QUORUM_NOT_REACHED,
        {"both": {"amount": 10**19 + 1}, "approvers": (), "policy": AUTO},
    ),
    (
        "automatic above the seat's cap",
        Rule.AUTOMATIC_CAP,
        {"both": {"amount": 5 * 10**18 + 1}, "approvers": (), "policy": AUTO},
    ),
    (
        "automatic above the day's share of this seat",
        Rule.AUTOMATIC_CAP,
        {
            "approvers": (),
            "policy": AUTO,
            "journal": lambda j: replace(j, automatic=counter("ETH", 5 * 10**18 + 1)),
        },
    ),
    (
        "many small ones above the day's share",
        Rule.AUTOMATIC_CAP,
        {"payments": 7, "approvers": (), "policy": AUTO},
    ),
    (
        "automatic while clocks disagree",
        Rule.AUTOMATIC_CAP,
        {"approvers": (), "policy": AUTO, "statement": {"time": NOW + 1000 - 121}},
    ),
    ("automatic out of operational", Rule.AUTOMATIC_CAP, {**VENDOR, "approvers": (), "policy": AUTO}),
    ("automatic out of cold", Rule.AUTOMATIC_CAP, {**COLD, "approvers": (), "policy": AUTO}),
    # Bitcoin
    (
        "bitcoin: a fee above what the intent allows",
        Rule.MAXIMUM_FEE,
        {**BTC, "intent": {"maximum_fee": 4_999}},
    ),
    (
        "bitcoin: another destination",
        Rule.PAYLOAD_MISMATCH,
        {
            **BTC,
            "both": {"amount": 10**7},
            "decoded": lambda d: _first(d, destination="bcrt1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqdku202"),
        },
    ),
    (
        "bitcoin: the anchor bound to another payout",
        Rule.ANCHOR_BOUND,
        {**BTC, "journal": lambda j: _bitcoin_bound(j)},
    ),
    (
        "bitcoin: change to a successor never seen",
        Rule.CERTIFICATE_OLDER,
        {**BTC, "decoded": changed_leaf(place=None)},
    ),
    (
        "bitcoin: a shortfall of the fee",
        Rule.COVERAGE,
        {**BTC, **FEES, "intent": {}, "rows": {"available": 10**30 - 100 - 10**7}},
    ),
    (
        "bitcoin: a refill whose fee customers would pay",
        Rule.COVERAGE,
        {**BTC, **COLD, "rows": {"available": FEE + 1}},
    ),
    (
        "bitcoin: a refill whose fee would deepen a shortfall",
        Rule.COVERAGE,
        {**BTC, **COLD, "rows": {"reserves": 10**30 - 1, "on_chain": 10**30 - 1}},
    ),
    (
        "bitcoin: into cold, and the surplus is another move's already",
        Rule.COVERAGE,
        {
            **BTC,
            "to_tier": Tier.CUSTOMER_COLD,
            "both": {"purpose": "cold_sweep"},
            "proposer": "desk",
            "rows": {"available": FEE, "in_flight": 1},
        },
    ),
    ("bitcoin: one approval", Rule.QUORUM_NOT_REACHED, {**BTC, "approvers": ("bo",)}),
    (
        "bitcoin: automatic above the seat's cap",
        Rule.AUTOMATIC_CAP,
        {**BTC, "both": {"amount": 5 * 10**7 + 1}, "approvers": (), "policy": AUTO},
    ),
    (
        "bitcoin: statement for another outpoint",
        Rule.STATEMENT_MISMATCH,
        {**BTC, "statement": {"anchor": (anchored("00:1"),)}},
    ),
    ("bitcoin: a hold that fell", Rule.HOLD, {**BTC, "facts": {"hold_stands": False}}),
    ("bitcoin: frozen customer", Rule.FROZEN, {**BTC, "journal": frozen("customer:ada")}),
    ("bitcoin: cold with one person", Rule.QUORUM_NOT_REACHED, {**BTC, **COLD, "approvers": ("ana",)}),
    (
        "bitcoin: cold statement a day old",
        Rule.STALE,
        {**BTC, **COLD, "statement": {"time": NOW + 1000 - 43_201}},
    ),
]
"""What can be wrong with a payout alone."""

PAYOUT_ROWS: Final = [
    *rows_of("payout", lambda: None, COMMON, AHEAD, HEADS, SAFES, MOVES),
    *(Row(f"payout: {name}", Ask(**fields), rule) for name, rule, fields in LIES),
]


def _place(decoded: Any, **changes: Any) -> Any:
    leaves = tuple(
        replace(leaf, place=replace(leaf.place, **changes)) if leaf.kind is LeafKind.NATIVE else leaf
        for leaf in decoded.leaves
    )
    return replace(decoded, leaves=leaves)


def _first(decoded: Any, **changes: Any) -> Any:
    return replace(decoded, leaves=(replace(decoded.leaves[0], **changes), *decoded.leaves[1:]))


def _bitcoin_bound(journal: Any) -> Any:
    outpoint = f"{psbt_of(hot(BITCOIN), []).inputs[0].txid.hex()}:1"
    return bound(replace(anchored(outpoint), chain=BITCOIN.name, wallet=hot(BITCOIN).struct_hash))(journal)


SWEEP_ROWS: Final = [
    *rows_of("sweep", sweep, COMMON, AHEAD, HEADS, SAFES, MOVES),
    Row(
        "sweep: a payment hidden in it",
        Ask(payload=added_leaf(transfer_data(STRANGER, 1), "0x" + "77" * 20)),
        Rule.PAYLOAD_MISMATCH,
        sweep,
    ),
    Row(
        "sweep: the old keys into the old certificate after a rotation",
        Ask(journal=with_successor),
        Rule.CERTIFICATE_OLDER,
        sweep,
    ),
    Row(
        "sweep: fees above what a seat burns in a day",
        Ask(
            chain=BITCOIN, rows=LOW, journal=lambda j: replace(rotated(j), automatic=counter("BTC", 6 * 10**7 - 1_999))
        ),
        Rule.AUTOMATIC_CAP,
        bitcoin_sweep,
    ),
    Row(
        "sweep: coins of the newest certificate into itself",
        Ask(chain=BITCOIN, rows=LOW),
        Rule.SWEEP_NEWEST,
        bitcoin_churn,
    ),
    Row(
        "sweep: after a rotation back into the old certificate",
        Ask(chain=BITCOIN, rows=LOW, journal=rotated),
        Rule.CERTIFICATE_OLDER,
        bitcoin_churn,
    ),
    Row(
        "sweep: into a successor that this seat never accepted",
        Ask(chain=BITCOIN, rows=LOW),
        Rule.SWEEP_NEWEST,
        bitcoin_sweep,
    ),
]
VOID_ROWS: Final = [
    *rows_of("void", void, COMMON, HEADS),
    *rows_of("void", lambda: void(nonce=7 + NONCES_AHEAD + 1), AHEAD),
    Row("void: one person", Ask(), Rule.QUORUM_NOT_REACHED, lambda: void(people=("ana",))),
    Row("void: nobody", Ask(), Rule.QUORUM_NOT_REACHED, lambda: void(people=())),
    Row("void: of another anchor", Ask(), Rule.STATEMENT_MISMATCH, lambda: void(nonce=8)),
    Row("void: a payment in its place", Ask(payload=pays(PAYEE[EVM.name], 1)), Rule.NOT_VOID, void),
    Row("void: an owner call in its place", Ask(payload=pays(hot().safe[0].address, 0, SWAP)), Rule.NOT_VOID, void),
    Row("void: forgets an intent", Ask(journal=bound(anchored(), intents=(b"\4" * 32,))), Rule.ANCHOR_BOUND, void),
    Row(
        "void: bitcoin: another coin spent",
        Ask(chain=BITCOIN, statement={"anchor": (anchored("00:1"),)}),
        Rule.STATEMENT_MISMATCH,
        bitcoin_void,
    ),
]
ROTATION_ROWS: Final = [
    *rows_of("rotation", rotation, COMMON, AHEAD, SAFES),
    Row("rotation: the anchor bound to another payload", Ask(journal=bound(anchored())), Rule.ANCHOR_BOUND, rotation),
    Row("rotation: one person", Ask(), Rule.QUORUM_NOT_REACHED, lambda: rotation(people=("bo",))),
    Row("rotation: from another certificate", Ask(), Rule.CERTIFICATE_OLDER, lambda: rotation(old=OTHER)),
    Row(
        "rotation: a second one from the same certificate",
        Ask(journal=with_successor),
        Rule.CERTIFICATE_OLDER,
        lambda: rotation(new=OTHER),
    ),
    Row("rotation: one owner kept", Ask(), Rule.NOT_ROTATION, lambda: rotation(calls=3)),
    Row(
        "rotation: and a lower threshold",
        Ask(),
        Rule.NOT_ROTATION,
        lambda: rotation(extra=packed(hot().safe[0].address, 0, SWAP)),
    ),
    Row(
        "rotation: and a payment",
        Ask(payload=added_leaf(transfer_data(STRANGER, 1), "0x" + "77" * 20)),
        Rule.NOT_ROTATION,
        rotation,
    ),
    Row(
        "rotation: into a certificate that nobody signed",
        Ask(request=lambda r: replace(r, certificates=(replace(r.certificates[0], signatures=()),))),
        Rule.NOT_SUCCESSOR,
        rotation,
    ),
]
ROWS: Final = [*PAYOUT_ROWS, *SWEEP_ROWS, *VOID_ROWS, *ROTATION_ROWS]

ACCEPTED: Final = [
    Row("eth", Ask(), Rule.MALFORMED),
    Row("token", Ask(both={"asset": "USDX", "amount": 10**6}), Rule.MALFORMED),
    Row("a batch of five", Ask(payments=5), Rule.MALFORMED),
    Row("bitcoin", Ask(chain=BITCOIN), Rule.MALFORMED),
    Row("bitcoin, a batch of five", Ask(chain=BITCOIN, payments=5), Rule.MALFORMED),
    Row("an outsider's approval beside enough", Ask(approvers=("ana", "mallory", "bo")), Rule.MALFORMED),
    Row("automatic", Ask(policy=AUTO, approvers=()), Rule.MALFORMED),
    Row("automatic, six small ones", Ask(policy=AUTO, approvers=(), payments=5), Rule.MALFORMED),
    Row("automatic on bitcoin", Ask(chain=BITCOIN, policy=AUTO, approvers=()), Rule.MALFORMED),
    Row(
        "people where the automatic counter is full", Ask(policy=AUTO, both={"amount": 5 * 10**18 + 1}), Rule.MALFORMED
    ),
    Row("people while clocks disagree", Ask(policy=AUTO, statement={"time": NOW + 1000 - 121}), Rule.MALFORMED),
    Row(
        "a day's counter that is a day old",
        Ask(
            policy=AUTO,
            approvers=(),
            journal=lambda j: replace(j, automatic=counter("ETH", 10**30, NOW + 1000 - 86_400)),
        ),
        Rule.MALFORMED,
    ),
    Row("fees that matured", Ask(**FEES, rows=LOW), Rule.MALFORMED),
    Row("fees up to the day's cap", Ask(**FEES, rows=LOW, cap=10**18), Rule.MALFORMED),
    Row("a vendor", Ask(**VENDOR), Rule.MALFORMED),
    Row("a vendor in a shortfall", Ask(**VENDOR, rows={"reserves": 0, "on_chain": 0}), Rule.MALFORMED),
    Row(
        "the company makes customers whole",
        Ask(
            tier=Tier.OPERATIONAL,
            to_tier=HOT,
            both={"purpose": "make_whole"},
            proposer="finance",
            rows={"reserves": 0, "on_chain": 0},
        ),
        Rule.MALFORMED,
    ),
    Row("a refill out of cold in a shortfall", Ask(**COLD, rows={"reserves": 0, "on_chain": 0}), Rule.MALFORMED),
    Row(
        "bitcoin: a refill, the statement hours old",
        Ask(
            chain=BITCOIN,
            **COLD,
            rows={"available": FEE},
            statement={"time": NOW + 1000 - 43_200},
            facts={"first_seen": NOW - 10**5},
        ),
        Rule.MALFORMED,
    ),
    Row("into cold", Ask(to_tier=Tier.CUSTOMER_COLD, both={"purpose": "cold_sweep"}, proposer="desk"), Rule.MALFORMED),
    Row("the delay just over", Ask(policy=answers(Outcome.REQUIRE, replace(TWO, delay=970))), Rule.MALFORMED),
    Row("a later nonce", Ask(nonce=9), Rule.MALFORMED),
    Row("the furthest nonce", Ask(nonce=7 + NONCES_AHEAD), Rule.MALFORMED),
    Row("a roster version since", Ask(**rolled()), Rule.MALFORMED),
    Row("a freeze of somebody else", Ask(journal=frozen("customer:bob")), Rule.MALFORMED),
    Row("sweep", Ask(), Rule.MALFORMED, sweep),
    Row("bitcoin sweep", Ask(chain=BITCOIN, rows=LOW, journal=rotated), Rule.MALFORMED, bitcoin_sweep),
    Row("void", Ask(), Rule.MALFORMED, void),
    Row("void of an anchor that is bound", Ask(journal=bound(anchored(), intents=(OTHER,))), Rule.MALFORMED, void),
    Row(
        "void while everything is frozen and drifts",
        Ask(journal=frozen("all"), safe={"modules": (STRANGER,)}),
        Rule.MALFORMED,
        void,
    ),
    Row("bitcoin void", Ask(chain=BITCOIN), Rule.MALFORMED, bitcoin_void),
    Row("rotation", Ask(), Rule.MALFORMED, rotation),
    Row(
        "rotation by a seat that was handed the successor early", Ask(journal=with_successor), Rule.MALFORMED, rotation
    ),
    Row(
        "rotation by a seat that is behind",
        Ask(statement={"seats": (SeatPosition("hot-1", 99, OTHER),)}),
        Rule.MALFORMED,
        rotation,
    ),
]


@cache
def built(row: Row) -> Any:
    """A row's arguments, made once."""
    return row.build()


def verdict(row: Row) -> tuple[Refusal, ...] | Plan:
    """What the seat answers."""
    b = built(row)
    return decide(b.request, b.decoded, b.journal, b.policy, b.now)


@pytest.mark.parametrize("row", [pytest.param(row, id=row.id) for row in ACCEPTED])
def test_honest_requests_are_signed(row: Row) -> None:
    """Everything that is in order gets a plan: one record, and the digests that the payload has."""
    plan = verdict(row)
    assert isinstance(plan, Plan), [str(refusal) for refusal in plan]
    assert len(plan.records) == 1
    assert plan.to_sign == built(row).decoded.to_sign != ()


@pytest.mark.parametrize("row", [pytest.param(row, id=row.id) for row in ROWS])
def test_one_lie_is_refused_by_its_rule(row: Row) -> None:
    """Each row differs from an honest request in one thing, and the refusal names it."""
    refusals = verdict(row)
    assert isinstance(refusals, tuple), "signed"
    assert row.rule in {refusal.rule for refusal in refusals}, [str(refusal) for refusal in refusals]


KIND: Final = {Kind.PAYOUT: PAYOUT_ROWS, Kind.SWEEP: SWEEP_ROWS, Kind.VOID: VOID_ROWS, Kind.ROTATION: ROTATION_ROWS}


@cache
def refusing(row: Row) -> frozenset[str]:
    """The checks that refuse a row, each asked by itself."""
    b = built(row)
    if isinstance(b.decoded, tuple):
        return frozenset(("decoder",))
    roster = b.journal.roster
    assert roster is not None
    case = Case(b.request, b.decoded, b.journal, b.policy, b.now, roster)
    kind = b.request.kind
    return frozenset(check.__name__ for check in CHECKS[kind] if [*check(case)])


@pytest.mark.parametrize(
    ("kind", "check"),
    [
        pytest.param(kind, check, id=f"{kind.name}-{check.__name__}")
        for kind, checks in CHECKS.items()
        for check in checks
    ],
)
def test_each_check_is_needed(monkeypatch: pytest.MonkeyPatch, kind: Kind, check: seat.Check) -> None:
    """With one check taken away an attack of the table is signed; so the check is what stops it, and the table would tell."""
    only = [row for row in KIND[kind] if refusing(row) == {check.__name__}]
    assert only, f"no row that {check.__name__} alone refuses"
    monkeypatch.setattr(seat, "CHECKS", {**CHECKS, kind: tuple(c for c in CHECKS[kind] if c is not check)})
    for row in only:
        assert isinstance(verdict(row), Plan), row.id
