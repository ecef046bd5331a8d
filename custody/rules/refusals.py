# SPDX-License-Identifier: AGPL-3.0-or-later
"""A refusal is a value: it names its rule and carries its numbers (STYLE.md, rule 4)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from custody.rules.errors import CustodyError


class Rule(StrEnum):
    """Every rule that can refuse something, by the name a person and a program both see."""

    # shape of input
    MALFORMED = "malformed"
    UNKNOWN_ASSET = "unknown_asset"
    UNKNOWN_CHAIN = "unknown_chain"
    UNKNOWN_CUSTOMER = "unknown_customer"
    UNKNOWN_WALLET = "unknown_wallet"
    WRONG_NETWORK = "wrong_network"
    WRONG_CHECKSUM = "wrong_checksum"
    TOO_MANY_PLACES = "too_many_decimal_places"
    NOT_POSITIVE = "amount_not_positive"
    NEGATIVE = "amount_negative"
    DUST = "dust"
    TOO_LARGE = "amount_exceeds_uint256"
    ALREADY_EXISTS = "already_exists"
    # trust
    WRONG_GENESIS = "wrong_genesis"
    NOT_PINNED = "genesis_not_pinned"
    SIGNATURE_INVALID = "signature_invalid"
    SIGNATURE_MISSING = "signature_missing"
    SIGNER_UNKNOWN = "signer_not_in_roster"
    SIGNER_EXPIRED = "signer_expired"
    SIGNER_TWICE = "one_signer_twice"
    QUORUM_NOT_REACHED = "quorum_not_reached"
    KEY_REUSED = "key_reused"
    NAME_REUSED = "name_reused"
    SCOPES_SHARED = "propose_and_settle_share_a_key"
    AUTHORITY_PROPOSES = "address_authority_proposes"
    THRESHOLD_OUT_OF_RANGE = "threshold_out_of_range"
    QUORUMS_TOO_DISJOINT = "two_m_minus_n_below_two"
    ORGANISATION_HOLDS_QUORUM = "organisation_holds_quorum"
    SEAT_UNKNOWN = "seat_not_in_roster"
    SEAT_TIER = "seat_kind_does_not_fit_tier"
    TIER_CHANGED = "tier_or_chain_changed"
    CODE_HASH = "code_hash_mismatch"
    INITIALIZER = "initializer_calls_out"
    SCRIPT_MISMATCH = "script_does_not_match_keys"
    NOT_SUCCESSOR = "not_the_successor"
    TOO_EARLY = "not_yet_valid"
    ROSTER_OLDER = "roster_older_than_pinned"
    ALREADY_ACCEPTED = "already_accepted"
    NOT_OWN_KEY = "own_key_not_in_certificate"
    CLOCK_NOT_DEVNET = "statement_clock_outside_devnet"
    INDEX_BOUND = "index_bound_to_another_customer"
    INDEX_TOO_FAR = "index_beyond_watched_window"
    TIER_NOT_CUSTOMER = "customer_address_outside_customer_tier"
    ADDRESS_MISMATCH = "address_does_not_derive_from_certificate"
    RELAYER_VALUE = "relayer_sends_value"
    RELAYER_TARGET = "relayer_calls_something_uncertified"
    RELAYER_CAP = "relayer_above_cap"
    # ledger
    INSUFFICIENT_BALANCE = "insufficient_balance"
    NOT_ZERO_SUM = "does_not_sum_to_zero"
    FEE_ABOVE_SCHEDULE = "fee_above_schedule"
    FEE_WITHOUT_TRADE = "fee_without_trade"
    SCOPE_MISSING = "scope_missing"
    MOVE_NOT_ALLOWED = "manual_entry_moves_between_these_accounts"
    ALREADY_RECORDED = "already_recorded"
    HASH_CHAIN = "hash_chain_broken"
    ROW_DAMAGED = "row_damaged"
    ORIGIN = "origin_not_confirmed"
    ORIGIN_UNKNOWN = "origin_could_not_be_checked"
    BALANCE_MISMATCH = "balance_differs_from_journal"
    HISTORY_CHANGED = "attested_history_changed"
    RETURNING = "coins_may_be_a_payouts_own"
    DEPOSIT_REVERSED = "deposit_reversed"
    # coverage (DESIGN.md, law 2)
    COVERAGE = "coverage"
    COVERAGE_UNKNOWN = "coverage_unknown"
    STALE = "stale"
    SEQUENCE = "sequence_not_newer"
    SAFE_DRIFT = "safe_state_differs_from_certificate"
    # policy and approvals (DESIGN.md, law 3)
    FACT_UNKNOWN = "fact_missing_or_impossible"
    POLICY_DENIES = "denied_by_policy"
    NOTHING_PERMITS = "nothing_permits"
    INITIATOR_APPROVES = "initiator_approves_own_transfer"
    WRONG_DIGEST = "approves_another_digest"
    # payload: what a transaction would do (DESIGN.md, law 4)
    WRONG_WALLET = "payload_of_another_wallet"
    DELEGATECALL = "delegatecall_outside_multisend"
    UNKNOWN_CALL = "call_of_unknown_form"
    GAS_FIELDS = "gas_refund_fields_not_zero"
    NOT_CANONICAL = "not_the_canonical_encoding"
    SAFE_CHANGED = "changes_the_safe_itself"
    SWEEP_STRANGER = "sweep_pays_another_than_its_omnibus"
    PREVIOUS_MISSING = "previous_transaction_missing"
    PREVIOUS_MISMATCH = "previous_transaction_does_not_match"
    SIGHASH = "sighash_not_all"
    FOREIGN_INPUT = "input_not_of_this_wallet"
    FOREIGN_KEY = "key_material_of_a_stranger"
    CHANGE_TOO_FAR = "change_beyond_index_window"
    TRANSACTION_SHAPE = "version_locktime_or_sequence"
    FEE_TOO_HIGH = "fee_above_bounds"
    MAXIMUM_FEE = "fee_above_intents_maximum"
    PAYLOAD_MISMATCH = "payload_does_not_match_intents"
    NOT_VOID = "not_the_canonical_void"
    NOT_ROTATION = "does_not_turn_old_into_new"
    # a seat's own decision (TRUST.md, "A seat decides by itself")
    PROPOSAL_MISMATCH = "intent_differs_from_its_proposal"
    PROPOSAL_BOUND = "proposal_bound_to_another_intent"
    INTENT_BOUND = "intent_bound_to_another_anchor"
    ANCHOR_BOUND = "anchor_bound_to_another_payload"
    ANCHOR_SPENT = "anchor_already_consumed"
    ANCHOR_FAR = "anchor_far_beyond_the_next_nonce"
    EXPIRED = "expired"
    EXPIRY_TOO_FAR = "expiry_too_far"
    DELAY = "delay_not_over"
    ENROLMENT = "destination_not_enrolled"
    OWNER_MISMATCH = "destination_of_another_owner"
    OWN_ADDRESS = "pays_its_own_wallet"
    TOKEN_MISMATCH = "token_differs_from_registry"
    CERTIFICATE_OLDER = "not_the_newest_certificate"
    POLICY_OLDER = "policy_not_in_force"
    WALL = "wall_between_tiers"
    HOLD = "hold_does_not_stand"
    STATEMENT_MISMATCH = "statement_names_another_payout"
    BEHIND = "seat_behind_its_attested_head"
    FROZEN = "frozen"
    FREEZE_TOO_LONG = "freeze_too_long"
    AUTOMATIC_CAP = "automatic_cap_reached"
    # transfers: proposing, approving, authorizing
    IDEMPOTENCY_MISMATCH = "idempotency_key_with_another_body"
    UNKNOWN_TRANSFER = "unknown_transfer"
    ILLEGAL_MOVE = "status_move_not_allowed"
    SIGNATURE_ASKED = "a_signature_was_asked_for"
    OUTPOINT_BOUND = "outpoint_bound_to_another_payout"
    # building and sending a payout (TRUST.md, "One anchor per payout")
    LEAF_FAILS = "simulation_of_a_leaf_fails"
    TRANSACTION_TOO_LARGE = "transaction_too_large"
    COIN_GONE = "reserved_coin_cannot_be_spent"
    ENVELOPE_STALE = "relayers_nonce_used_by_another_transaction"
    SECOND_DECODER = "second_decoder_disagrees"
    # requests to the API (TERMS.md, "API"; RFC 9421, RFC 9530)
    NOT_COVERED = "component_not_signed"
    CONTENT_DIGEST = "content_digest_mismatch"
    REPLAYED = "request_replayed"
    BODY_TOO_LARGE = "body_too_large"
    MEDIA_TYPE = "media_type_not_json"
    IDEMPOTENCY_MISSING = "idempotency_key_missing"
    IDEMPOTENCY_IN_FLIGHT = "idempotency_key_in_flight"
    NO_ROUTE = "no_such_route"
    METHOD = "method_not_allowed"
    UNAVAILABLE = "unavailable"
    BUSY = "too_many_writes_waiting"
    INTERNAL = "internal_error"


@dataclass(frozen=True, slots=True)
class Refusal:
    """One reason against something, with the rule's name and its numbers."""

    rule: Rule
    operands: Mapping[str, object]

    def __init__(self, rule: Rule, **operands: object) -> None:
        object.__setattr__(self, "rule", rule)
        object.__setattr__(self, "operands", dict(operands))

    def __str__(self) -> str:
        told = ", ".join(f"{name}={value!s}" for name, value in self.operands.items())
        return f"{self.rule.value}({told})"


class Refused(CustodyError):
    """Raised at the end of a flow that was refused; nothing was changed."""

    def __init__(self, refusals: Iterable[Refusal]) -> None:
        self.refusals = tuple(refusals)
        super().__init__(*self.refusals)

    def __str__(self) -> str:
        return "refused: " + "; ".join(str(r) for r in self.refusals)


def raise_if(refusals: Iterable[Refusal]) -> None:
    """Raise `Refused` with all of them, if there is any."""
    found = tuple(refusals)
    if found:
        raise Refused(found)
