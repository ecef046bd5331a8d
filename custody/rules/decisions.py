# SPDX-License-Identifier: AGPL-3.0-or-later
"""Policy's answer to one transfer, as it is made and as it is kept: bundles, facts, matched rules, under one hash.

A record can be answered again by anybody who has the bundle, for ever (`bulkhead policy log replay`). It is a witness and decides
nothing: seats gather facts of their own and evaluate again.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from typing import Any, Final

from custody.rules.facts import Facts
from custody.rules.ledger import canonical
from custody.rules.requirement import Decision, PolicyInForce, stricter
from custody.rules.typed import ZERO32
from custody.rules.wallets import Tier

DECISION: Final = "decision"
"""Kind of document under which records are kept that a newer one took the place of."""
_DOMAIN: Final = b"bulkhead decision record v1\x00"


class What(StrEnum):
    """When it was asked: as the transfer was proposed, or again before signatures were."""

    PROPOSED = "proposed"
    AUTHORIZED = "authorized"


def decided(bundles: Sequence[PolicyInForce], facts: Facts) -> Decision:
    """The stricter answer of at least one bundle, with the floors and automatic caps that seats will ask for.

    Raises InvalidInput for an asset without floors, ValueError without a bundle: nobody's policy is none.
    """
    if not bundles:
        raise ValueError("no bundle decides")
    decision = bundles[0].evaluate(facts)
    for bundle in bundles[1:]:
        decision = stricter(decision, bundle.evaluate(facts))
    tier, asset, amount = facts.from_tier, facts.asset, facts.amount
    if tier is None or asset is None or amount is None:  # unknown, so denied
        return decision
    most = min(bundle.floors.automatic_most.get(asset, 0) for bundle in bundles)
    if tier is not Tier.CUSTOMER_HOT or amount > most:
        decision = decision.by_people()
    return decision.with_people(max(bundle.floors.people_for(tier, asset, amount) for bundle in bundles))


@dataclass(frozen=True, slots=True)
class DecisionRecord:
    """One answer with everything it was made from. `previous` is the hash of the same transfer's record before it, or zero."""

    decision: Decision
    facts: Facts
    at: int
    what: What
    previous: bytes = ZERO32

    def to_json(self) -> dict[str, Any]:
        """The decision, and beside it facts, time (seconds since 1970, decimal), occasion, predecessor, and the hash of all of these."""
        body = {
            **self.decision.to_json(),
            "facts": self.facts.to_json(),
            "at": str(self.at),
            "what": str(self.what),
            "previous": "0x" + self.previous.hex(),
        }
        return {**body, "record": "0x" + hash_of(body).hex()}


def hash_of(body: Mapping[str, object]) -> bytes:
    """SHA-256 of a record's canonical JSON without its own hash."""
    return sha256(_DOMAIN + canonical({name: value for name, value in body.items() if name != "record"})).digest()


def record_after(before: Mapping[str, object] | None, decision: Decision, facts: Facts, at: int) -> DecisionRecord:
    """The record of an answer that was asked for again."""
    text = str((before or {}).get("record", "")).removeprefix("0x")
    previous = bytes.fromhex(text) if len(text) == 64 else ZERO32
    return DecisionRecord(decision, facts, at, What.AUTHORIZED, previous)


def is_whole(body: Mapping[str, object]) -> bool:
    """Whether a record is what its hash says."""
    return body.get("record") == "0x" + hash_of(body).hex()


def bundles_of(body: Mapping[str, object]) -> tuple[bytes, ...]:
    """The hashes of the bundles that answered. Raises ValueError where the record names none that can be read."""
    told = body.get("bundles")
    found = tuple(bytes.fromhex(str(text).removeprefix("0x")) for text in (told if isinstance(told, Iterable) else ()))
    if not found or any(len(digest) != 32 for digest in found):
        raise ValueError("no bundles")
    return found
