# SPDX-License-Identifier: AGPL-3.0-or-later
"""Policy's answer to one transfer, as it is made and as it is kept: bundles, facts, matched rules, under one hash.

A record can be answered again by anybody who has the bundle, for ever (`bulkhead policy log replay`). It is a witness and decides
nothing: seats gather facts of their own and evaluate again.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from hashlib import sha256
from operator import attrgetter
from typing import Any, Final, TypeVar

from custody.rules.facts import QUANTITIES, SETTLED, Facts
from custody.rules.ledger import canonical
from custody.rules.requirement import Decision, PolicyInForce, displaying_floor, stricter
from custody.rules.typed import ZERO32
from custody.rules.wallets import Tier

DECISION: Final = "decision"
"""Kind of document under which records are kept that a newer one took the place of."""
_DOMAIN: Final = b"bulkhead decision record v1\x00"
_K = TypeVar("_K")
_V = TypeVar("_V")
_REMEMBERED: Final = 1024
"""How many decisions and joins of decisions are remembered, of each; beyond it all are forgotten and made again. Words: four times."""
_JOINED: Final[dict[tuple[int, ...], tuple[Sequence[Decision], Decision]]] = {}
_TOLD: Final[dict[int, tuple[Decision, Mapping[str, Any], tuple[str, ...]]]] = {}
"""By the identity of decisions, which is theirs for ever because each is kept beside its answer; to compare them would take longer."""
_PLACE: Final = "\x00"
_WRITTEN: Final = canonical(_PLACE).decode()
_words_and_flags = attrgetter(*SETTLED)
_NUMBERS: Final = tuple(sorted(QUANTITIES))  # as canonical JSON has them
_numbers = attrgetter(*_NUMBERS)


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
    tier, asset, amount = facts.from_tier, facts.asset, facts.amount
    answers: list[Decision] = []
    automatic, people = tier is Tier.CUSTOMER_HOT, 0
    for bundle in bundles:
        answers.append(bundle.evaluate(facts))
        if tier is None or asset is None or amount is None:  # unknown, so denied
            continue
        floors = bundle.floors
        automatic = automatic and amount <= floors.automatic_most.get(asset, 0)
        people = max(people, floors.people_for(tier, asset, amount))
    if len(answers) == 1 and (answers[0].requirement is None or (automatic and not people)):
        return answers[0]
    return _joined(answers, people, displaying_floor(tier), automatic=automatic)


def _joined(answers: Sequence[Decision], people: int, displaying: int, *, automatic: bool) -> Decision:
    """The stricter of all, with at least so many people and keys that display; the same for the same answers, as policies remember."""
    key = (people, displaying, automatic, *map(id, answers))
    known = _JOINED.get(key)
    if known is not None:
        return known[1]
    decision = answers[0]
    for answer in answers[1:]:
        decision = stricter(decision, answer)
    if not automatic:
        decision = decision.by_people()
    return _remember(_JOINED, key, (answers, decision.with_people(people, displaying)))[1]


@dataclass(frozen=True, slots=True)
class DecisionRecord:
    """One answer with everything it was made from. `previous` is the hash of the same transfer's record before it, or zero."""

    decision: Decision
    facts: Facts
    at: int
    what: What
    previous: bytes = ZERO32

    def to_json(self) -> dict[str, Any]:
        """The decision, and beside it facts, time (seconds since 1970, decimal), occasion, predecessor, and the hash of all of these.

        What it holds is shared with other records of the same decision: to be read and written down, never to be changed.
        """
        told, written = _told(self.decision)
        facts, said = _said(self.facts)
        at, what, previous = str(self.at), str(self.what), "0x" + self.previous.hex()
        if written and said:
            a, b, c, d, e = written
            text = f'{a}"{at}"{b}{said}{c}"{previous}"{d}"{what}"{e}'
            digest = sha256(_DOMAIN + text.encode()).hexdigest()
        else:
            digest = hash_of({**told, "facts": facts, "at": at, "what": what, "previous": previous}).hex()
        return {**told, "facts": facts, "at": at, "what": what, "previous": previous, "record": "0x" + digest}


def hash_of(body: Mapping[str, object]) -> bytes:
    """SHA-256 of a record's canonical JSON without its own hash."""
    return sha256(_DOMAIN + canonical({name: value for name, value in body.items() if name != "record"})).digest()


def _told(decision: Decision) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    """A decision's JSON, and the canonical JSON of a record of it around time, facts, predecessor and occasion."""
    known = _TOLD.get(id(decision))
    if known is None:
        body = decision.to_json()
        around = _around(body, ("at", "facts", "previous", "what"))
        known = _remember(_TOLD, id(decision), (decision, body, around))
    return known[1], known[2]


def _said(facts: Facts) -> tuple[Mapping[str, str], str]:
    """The JSON of facts, and its canonical text; empty where a quantity is no whole number, and where a word cannot be remembered."""
    numbers = _numbers(facts)
    for value in numbers:
        if type(value) is not int:
            return facts.to_json(), ""
    try:
        settled, around = _settled(*_words_and_flags(facts))
    except TypeError:  # it cannot be looked up
        return facts.to_json(), ""
    told = [f"{value}" for value in numbers]
    row = settled.copy()
    for name, digits in zip(_NUMBERS, told, strict=True):
        row[name] = digits
    if not around:
        return row, ""
    pieces = around.copy()
    pieces[1::2] = told
    return row, "".join(pieces)


@lru_cache(maxsize=4 * _REMEMBERED, typed=True)  # typed: True and 1 are told in two ways
def _settled(*values: Any) -> tuple[dict[str, str], list[str]]:  # noqa: ANN401  # of any type, as facts may be
    """JSON of words and flags, and the canonical JSON of facts that have these in parts, every other one for a quantity's digits."""
    row = Facts(**dict.fromkeys(_NUMBERS), **dict(zip(SETTLED, values, strict=True))).to_json()
    kept = {name: row[name] for name in SETTLED}
    parts = [""] * (2 * len(_NUMBERS) + 1)
    parts[::2] = _around(kept, _NUMBERS, _WRITTEN.strip('"')) or parts[::2]
    return {**kept, **dict.fromkeys(_NUMBERS, "")}, parts if parts[0] else []


def _around(body: Mapping[str, Any], names: Sequence[str], place: str = _WRITTEN) -> tuple[str, ...]:
    """Canonical JSON of a body around values to come, in the order of their names; empty where a place cannot be told from a value."""
    parts = canonical({**body, **dict.fromkeys(names, _PLACE)}).decode().split(place)
    return tuple(parts) if len(parts) == len(names) + 1 else ()


def _remember(known: dict[_K, _V], key: _K, value: _V) -> _V:
    if len(known) >= _REMEMBERED:
        known.clear()
    known[key] = value
    return value


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
