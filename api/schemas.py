# SPDX-License-Identifier: AGPL-3.0-or-later
"""What travels in: shapes only. Whether a value is right is a rule's to say, and what it means is parsed in `documents.py`."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Text = Annotated[str, Field(max_length=400)]
Hex = Annotated[str, Field(pattern=r"^0x([0-9a-f]{2})*$", max_length=4096)]
Bytes32 = Annotated[str, Field(pattern=r"^0x[0-9a-f]{64}$")]
Integer = Annotated[str, Field(pattern=r"^(0|-?[1-9][0-9]{0,77})$", description="A decimal integer as a string.")]
Decimal = Annotated[
    str,
    Field(max_length=120, description='In the asset\'s own unit, such as "0.25": ^(0|[1-9][0-9]*)(\\.[0-9]+)?$'),
]
Seconds = Annotated[int, Field(ge=0, lt=2**64, description="Seconds since 1970.")]


class Closed(BaseModel):
    """A shape without another key, and without turning one type into another."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class KeyIn(Closed):
    """A public key: a 20-byte address for `eip712-secp256k1`, 32 bytes for `ed25519`."""

    scheme: Text
    public: Hex


class SignatureIn(Closed):
    """One signature over a typed message's EIP-712 digest in this deployment."""

    key: KeyIn
    value: Hex


Signatures = Annotated[list[SignatureIn], Field(min_length=1, max_length=16)]


class CustomerIn(Closed):
    """A new customer."""

    id: Text


class AddressIn(Closed):
    """Where a customer asks for a deposit address: a chain by its CAIP-2 name."""

    chain: Text


class ProposalIn(Closed):
    """A `Proposal` with the initiator's signature over it; `amount` is signed in base units, and travels in the asset's unit."""

    reference: Text
    account: Text
    chain: Text
    asset: Text
    amount: Decimal
    destination: Text
    purpose: Text
    expiry: Seconds
    signatures: Signatures


class ApprovalIn(Closed):
    """One person's yes: their signature over the digest of exactly one intent."""

    intent: Bytes32
    person: Text
    signature: SignatureIn


class RejectionMessage(Closed):
    """A no to one intent."""

    intent: Bytes32
    reason: Text


class RejectionIn(Closed):
    """A signed `Rejection`."""

    type: Text
    message: RejectionMessage
    signatures: Signatures


class EnrolmentMessage(Closed):
    """An outside address that coins of one owner may go to."""

    chain: Text
    address: Text
    owner: Text
    kind: Text
    evidence: Bytes32
    expiry: Integer


class EnrolmentIn(Closed):
    """A signed `Enrolment`."""

    type: Text
    message: EnrolmentMessage
    signatures: Signatures


class LegIn(Closed):
    """One customer's change by a trade, in base units; negative is what the customer gives."""

    customer: Text
    asset: Text
    change: Integer


class FeeLegIn(Closed):
    """A fee in base units."""

    customer: Text
    asset: Text
    units: Integer


class TradeIn(Closed):
    """One trade."""

    id: Text
    legs: Annotated[list[LegIn], Field(max_length=1000)]
    fees: Annotated[list[FeeLegIn], Field(max_length=1000)]


class SettlementMessage(Closed):
    """An atomic batch of trades, as it is signed."""

    id: Text
    client: Text
    schedule: Bytes32
    executed_at: Integer
    trades: Annotated[list[TradeIn], Field(max_length=2000)]


class SettlementIn(Closed):
    """A signed `Settlement`: the document itself, so its amounts are the base units that were signed."""

    type: Text
    message: SettlementMessage
    signatures: Signatures
