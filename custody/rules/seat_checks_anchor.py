# SPDX-License-Identifier: AGPL-3.0-or-later
"""One anchor per payout: what a seat bound once it binds to nothing else, and what the payload may do at all (TRUST.md)."""

from collections.abc import Iterator
from typing import Final

from custody.rules.intents import NONCES_AHEAD
from custody.rules.payouts import LeafKind
from custody.rules.refusals import Refusal, Rule
from custody.rules.seat_case import Case
from custody.rules.seat_journal import anchor_key

_STAYS: Final = frozenset({LeafKind.SWEEP, LeafKind.CHANGE})


def check_payload_wallet(case: Case) -> Iterator[Refusal]:
    """The payload is the asked wallet's, under a certificate that this seat accepted."""
    if case.request.wallet != case.decoded.wallet or case.decoded.anchor.wallet != case.decoded.wallet:
        yield Refusal(Rule.WRONG_WALLET, got=case.decoded.wallet.hex(), want=case.request.wallet.hex())
    if case.certificate is None:
        known = [certificate.struct_hash.hex() for certificate in case.line]
        yield Refusal(
            Rule.UNKNOWN_WALLET, wallet=case.decoded.wallet.hex(), got=case.decoded.certificate.hex(), known=known
        )


def check_newest(case: Case) -> Iterator[Refusal]:
    """The newest certificate's keys sign; after a rotation the old ones only sweep, and only into the newest (TRUST.md)."""
    if not case.line or case.decoded.certificate == case.line[-1].struct_hash:
        return
    into = {leaf.place.certificate for leaf in case.decoded.leaves if leaf.place is not None}
    if case.items or into != {case.line[-1].struct_hash}:
        yield Refusal(Rule.CERTIFICATE_OLDER, got=case.decoded.certificate.hex(), want=case.line[-1].struct_hash.hex())


def check_sweep_older(case: Case) -> Iterator[Refusal]:
    """A coin moves without intents only out from under an older certificate (TRUST.md, deposit addresses).

    Under the newest it lies where it belongs: whoever has it moved anyway burns fees, or spends a coin that nobody credited yet, which
    the books could never explain. On EVM a sweep brings what lies on deposit addresses in.
    """
    older = case.line and case.decoded.certificate != case.line[-1].struct_hash
    if not older and not case.decoded.chain.startswith("eip155:"):
        yield Refusal(Rule.SWEEP_NEWEST, got=case.decoded.certificate.hex(), want="an older certificate of the wallet")


def check_change(case: Case) -> Iterator[Refusal]:
    """Change goes back to the newest certificate that this seat accepted, not to a successor that it never saw."""
    newest = case.line[-1].struct_hash if case.line else b""
    for leaf in case.decoded.leaves:
        if leaf.kind is LeafKind.CHANGE and (leaf.place is None or leaf.place.certificate != newest):
            yield Refusal(Rule.CERTIFICATE_OLDER, change=leaf.destination, want=newest.hex())


def check_owners_untouched(case: Case) -> Iterator[Refusal]:
    """Owners change under a rotation alone."""
    if case.decoded.changes_owners:
        yield Refusal(Rule.SAFE_CHANGED, anchor=case.decoded.anchor.reference, want="a signed Rotation")


def check_not_void(case: Case) -> Iterator[Refusal]:
    """An anchor is killed under quorum alone."""
    if any(leaf.kind is LeafKind.VOID for leaf in case.decoded.leaves):
        yield Refusal(Rule.QUORUM_NOT_REACHED, document="Void", anchor=case.decoded.anchor.reference)


def check_stays_inside(case: Case) -> Iterator[Refusal]:
    """A payload without intents moves coins inside the wallet and nowhere else; it neither kills an anchor nor changes owners."""
    rules = {LeafKind.OWNER_CHANGE: Rule.SAFE_CHANGED, LeafKind.VOID: Rule.QUORUM_NOT_REACHED}
    for leaf in case.decoded.leaves:
        if leaf.kind not in _STAYS:
            told = {"leaf": leaf.kind.value, "to": leaf.destination, "units": leaf.units}
            yield Refusal(rules.get(leaf.kind, Rule.PAYLOAD_MISMATCH), what="leaf without intent", **told)


def check_anchor(case: Case) -> Iterator[Refusal]:
    """An anchor belongs to one payout: other digests only for a variant, which differs in fee alone; none once it was voided."""
    bound = case.journal.anchors.get(anchor_key(case.decoded.anchor))
    if bound is None:
        return
    if bound.voided:
        yield Refusal(
            Rule.ANCHOR_BOUND,
            anchor=case.decoded.anchor.reference,
            got="another payload",
            want="nothing: it was voided",
        )
    asked = {item.digest for item in case.items}
    if bound.meaning != case.decoded.meaning or set(bound.intents) != asked:
        intents = [intent.hex() for intent in bound.intents]
        yield Refusal(Rule.ANCHOR_BOUND, anchor=case.decoded.anchor.reference, bound_to=intents)


def check_nonce_near(case: Case) -> Iterator[Refusal]:
    """One of the next nonces of the Safe, by the statement's final block.

    Whoever gets one signed far ahead holds a payment back, and sends it long after it expired; nothing can void it until then.
    """
    if case.safe is not None and case.decoded.chain.startswith("eip155:"):
        nonce, most = int(case.decoded.anchor.reference), case.safe.nonce + NONCES_AHEAD
        if nonce > most:
            yield Refusal(Rule.ANCHOR_FAR, nonce=nonce, next=case.safe.nonce, most=most)


def check_intents_unbound(case: Case) -> Iterator[Refusal]:
    """An intent is paid by one anchor for ever (Radiant: "please sign again")."""
    here = anchor_key(case.decoded.anchor)
    for item in case.items:
        bound = case.journal.intents.get(item.digest)
        if bound is not None and bound != here:
            yield Refusal(Rule.INTENT_BOUND, intent=item.digest.hex(), bound_to=bound, got=here)


def check_proposals_unbound(case: Case) -> Iterator[Refusal]:
    """A proposal becomes one intent for ever."""
    for item in case.items:
        bound = case.journal.proposals.get(item.proposal)
        if bound is not None and bound != item.digest:
            yield Refusal(
                Rule.PROPOSAL_BOUND, proposal=item.proposal.hex(), bound_to=bound.hex(), got=item.digest.hex()
            )


def check_freeze(case: Case) -> Iterator[Refusal]:
    """No freeze in force covers the wallet, the chain or an account. Voids and rotations pass: both take a quorum of people."""
    chain, wallet = f"chain:{case.decoded.chain}", f"wallet:{case.decoded.wallet.hex()}"
    scopes = {"all", chain, wallet, wallet.replace("wallet:", "wallet:0x")} | {
        item.intent.account for item in case.items
    }
    scopes |= {
        f"wallet:{prefix}{item.place.certificate.hex()}" for item in case.items if item.place for prefix in ("", "0x")
    }
    for freeze in case.journal.frozen(case.time):
        if freeze.scope in scopes:
            yield Refusal(Rule.FROZEN, scope=freeze.scope, lapses=freeze.lapses, reason=freeze.reason)
