# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a seat decides at birth: pin genesis, make one key for each wallet, accept each certificate once (TRUST.md).

Pure: state in, refusals or the next state out. The process that hosts a seat runs these functions, and so will the secrets
engine inside OpenBao. Every change is one record in the seat's own journal, a hash chain whose head the identity key signs.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final, Self

from custody.rules.certificates import SeatHead, WalletCertificate, WalletKey, check_succession
from custody.rules.errors import InvalidInput
from custody.rules.refusals import Refusal, Rule
from custody.rules.roster import (
    Roster,
    RosterVersion,
    check_agreed,
    check_genesis,
    check_lineage,
    check_successor,
    check_version,
)
from custody.rules.signatures import Key, Signed
from custody.rules.typed import ZERO32, Bytes32, Domain, Struct, Uint64

CheckScript = Callable[[WalletCertificate], Iterator[Refusal]]
"""Derives the script or the Safe again from a certificate's keys; chain code, so it is handed in."""

LATER: Final = ":"
"""Stands between a wallet's first label and the number of a later certificate: a seat makes one key for each label and chain."""
_LABEL: Final = re.compile(r"[a-z0-9][a-z0-9_.:/#-]{0,99}")


class RecordKind(StrEnum):
    """What a seat did."""

    ROSTER_SIGNED = "roster_signed"
    PINNED = "pinned"
    ROSTER_SEEN = "roster_seen"
    ROSTER_ADMITTED = "roster_admitted"
    WALLET_KEY = "wallet_key"
    CERTIFICATE = "certificate"


@dataclass(frozen=True, slots=True)
class SeatRecord(Struct):
    """One line of a seat's journal: `digest` is the struct hash of what it is about, `previous` the head before it."""

    position: Uint64
    kind: str
    digest: Bytes32
    time: Uint64
    previous: Bytes32


@lru_cache(maxsize=256)
def _stored(signed: Signed[Any]) -> Mapping[str, Any]:
    """The JSON of a roster or certificate, made once and left alone: every step of a seat writes all of them again."""
    return signed.to_json()


@dataclass(frozen=True, slots=True)
class SeatState:
    """Everything a seat remembers. `genesis` is zero and `roster` None until it has pinned.

    `drafts` are roster versions it signed that have not taken force; `seen` the successors that a quorum signed, with the time
    at which this seat first saw each; `certificates` stand in the order of acceptance; `head` is the hash of the journal's
    newest record; `time` (seconds since 1970) never runs back.
    """

    seat: str
    genesis: bytes = ZERO32
    roster: Signed[RosterVersion] | None = None
    drafts: tuple[bytes, ...] = ()
    keys: tuple[WalletKey, ...] = ()
    certificates: tuple[Signed[WalletCertificate], ...] = ()
    position: int = 0
    head: bytes = ZERO32
    time: int = 0
    seen: tuple[tuple[bytes, int], ...] = ()

    @property
    def pinned(self) -> Roster | None:
        """The newest roster that it knows, or None before genesis."""
        return Roster(self.roster, self.genesis) if self.roster is not None else None

    def key(self, label: str, chain: str) -> WalletKey | None:
        """The one key made for a label and chain."""
        return next((k for k in self.keys if (k.label, k.chain) == (label, chain)), None)

    @property
    def wallets(self) -> dict[bytes, tuple[WalletCertificate, ...]]:
        """Each wallet's name (its first certificate's hash) to its certificates, the newest last."""
        found: dict[bytes, tuple[WalletCertificate, ...]] = {}
        wallet_of: dict[bytes, bytes] = {}
        for certificate in (signed.message for signed in self.certificates):
            name = certificate.struct_hash
            wallet = wallet_of[name] = wallet_of[certificate.previous] if certificate.previous != ZERO32 else name
            found[wallet] = (*found.get(wallet, ()), certificate)
        return found

    def to_json(self) -> dict[str, Any]:
        """The stored form."""
        return {
            "seat": self.seat,
            "genesis": "0x" + self.genesis.hex(),
            "roster": dict(_stored(self.roster)) if self.roster is not None else None,
            "drafts": ["0x" + digest.hex() for digest in self.drafts],
            "keys": [key.to_json() for key in self.keys],
            "certificates": [dict(_stored(signed)) for signed in self.certificates],
            "position": str(self.position),
            "head": "0x" + self.head.hex(),
            "time": str(self.time),
            "seen": [["0x" + digest.hex(), str(time)] for digest, time in self.seen],
        }

    @classmethod
    def from_json(cls, data: object) -> Self:
        """Read the stored form; raises InvalidInput where it is not whole, so that a damaged state is never a new one."""
        if not isinstance(data, dict):
            raise InvalidInput("seat state", Rule.MALFORMED, type(data).__name__, "an object")
        try:
            return cls(
                seat=str(data["seat"]),
                genesis=_digest(data["genesis"]),
                roster=None if data["roster"] is None else Signed.from_json(RosterVersion, data["roster"]),
                drafts=tuple(_digest(d) for d in data["drafts"]),
                keys=tuple(WalletKey.from_json(k) for k in data["keys"]),
                certificates=tuple(Signed.from_json(WalletCertificate, c) for c in data["certificates"]),
                position=int(data["position"]),
                head=_digest(data["head"]),
                time=int(data["time"]),
                seen=tuple(
                    (_digest(digest), int(time)) for digest, time in data.get("seen", ())
                ),  # none: the delay begins
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidInput("seat state", Rule.MALFORMED, repr(error), "what to_json wrote") from error


@dataclass(frozen=True, slots=True)
class Step:
    """An accepted move: the state after it, and its journal record; no record where the seat had done this before."""

    state: SeatState
    record: SeatRecord | None


Outcome = Step | tuple[Refusal, ...]
"""Either a step, or at least one refusal."""


def sign_roster(state: SeatState, version: RosterVersion, own: Key, now: int) -> Outcome:
    """Whether to sign a version: before genesis a version 1, after it a successor of the newest one; it names this seat.

    Genesis itself is signed again on request, so that an interrupted birth can be repeated.
    """
    digest = version.struct_hash
    if digest in (state.genesis, *state.drafts):
        return Step(state, None)
    refusals = [*_check_proposed(state, version), *_check_named(state.seat, version, own)]
    after = replace(state, drafts=(*state.drafts, digest))
    return _step(after, RecordKind.ROSTER_SIGNED, digest, now, refusals)


def _check_proposed(state: SeatState, version: RosterVersion) -> Iterator[Refusal]:
    pinned = state.pinned
    if pinned is None:
        yield from check_version(version)
        if version.version != 1 or version.previous != ZERO32:
            yield Refusal(Rule.NOT_SUCCESSOR, version=version.version, want="version 1 with a zero predecessor")
    elif version.version == 1:
        yield Refusal(Rule.WRONG_GENESIS, got=version.struct_hash.hex(), pinned=state.genesis.hex())
    elif version.version <= pinned.version.version:
        yield Refusal(Rule.ROSTER_OLDER, version=version.version, pinned=pinned.version.version)
    else:
        yield from check_lineage(pinned, version)


def _check_named(name: str, version: RosterVersion, own: Key) -> Iterator[Refusal]:
    named = {seat.id: seat.identity for seat in version.seats}
    if named.get(name) != own:
        yield Refusal(Rule.SEAT_UNKNOWN, seat=name, identity=str(own), named=str(named.get(name)))


def pin(state: SeatState, signed: Signed[RosterVersion], own: Key, now: int) -> Outcome:
    """Pin genesis, once: everybody named has signed it, this seat among them with its own identity key."""
    digest = signed.message.struct_hash
    if state.pinned is not None:
        if digest != state.genesis:
            return (Refusal(Rule.WRONG_GENESIS, got=digest.hex(), pinned=state.genesis.hex()),)
        return Step(state, None)
    refusals = [*check_genesis(signed, max(now, state.time)), *_check_named(state.seat, signed.message, own)]
    after = replace(state, genesis=digest, roster=signed, drafts=())
    return _step(after, RecordKind.PINNED, digest, now, refusals)


def admit_roster(state: SeatState, signed: Signed[RosterVersion], now: int) -> Outcome:
    """Take the next version, by the quorum of the old and of the new; an older one is refused for ever (a replay).

    The old one's delay counts from when this seat first saw the new one, so that nobody who has a quorum's keys can put a roster in
    force before the others could see it. Handed in for the first time it is only noted: `check_in_force` says from when it counts.
    """
    pinned, new, time = state.pinned, signed.message, max(now, state.time)
    if pinned is None:
        return (_not_pinned(state),)
    digest = new.struct_hash
    if digest == pinned.version.struct_hash:
        return Step(state, None)
    if new.version <= pinned.version.version:
        return (Refusal(Rule.ROSTER_OLDER, version=new.version, pinned=pinned.version.version),)
    known = dict(state.seen)
    if digest not in known and pinned.version.delay > 0:
        noted = replace(state, seen=(*state.seen, (digest, time)))
        return _step(noted, RecordKind.ROSTER_SEEN, digest, now, check_agreed(pinned, signed, time))
    refusals = check_successor(pinned, signed, time, known.get(digest, time))
    after = replace(state, roster=signed, drafts=(), seen=())
    return _step(after, RecordKind.ROSTER_ADMITTED, digest, now, refusals)


def check_in_force(state: SeatState, version: RosterVersion) -> Iterator[Refusal]:
    """Whether a version that was handed in is the one that this seat goes by now; if not, from when it may be."""
    pinned = state.pinned
    if pinned is not None and pinned.version.struct_hash != version.struct_hash:
        seen = dict(state.seen).get(version.struct_hash, state.time)
        earliest = max(version.not_before, seen + pinned.version.delay)
        yield Refusal(Rule.TOO_EARLY, version=version.version, seen=seen, not_before=earliest, now=state.time)


def check_key_request(state: SeatState, label: str, chain: str) -> Iterator[Refusal]:
    """Whether a key may be made for a label and chain at all; asked before any secret exists."""
    if state.pinned is None:
        yield _not_pinned(state)
    elif chain not in state.pinned.version.chains:
        yield Refusal(Rule.UNKNOWN_CHAIN, chain=chain, want=", ".join(state.pinned.version.chains))
    if _LABEL.fullmatch(label) is None:
        yield Refusal(Rule.MALFORMED, field="label", got=label, want=_LABEL.pattern)


def add_wallet_key(state: SeatState, key: WalletKey, now: int) -> Outcome:
    """Bind a new key to its label and chain: one key for each, and never one key for two."""
    if state.key(key.label, key.chain) == key:
        return Step(state, None)
    refusals = [*check_key_request(state, key.label, key.chain), *_check_new_key(state, key)]
    return _step(replace(state, keys=(*state.keys, key)), RecordKind.WALLET_KEY, key.struct_hash, now, refusals)


def _check_new_key(state: SeatState, key: WalletKey) -> Iterator[Refusal]:
    if key.seat != state.seat:
        yield Refusal(Rule.NOT_OWN_KEY, seat=state.seat, key_of=key.seat)
    if state.key(key.label, key.chain) is not None:
        yield Refusal(Rule.ALREADY_EXISTS, label=key.label, chain=key.chain)
    for other in state.keys:
        if other.material == key.material and (other.label, other.chain) != (key.label, key.chain):
            yield Refusal(Rule.KEY_REUSED, label=key.label, chain=key.chain, made_for=f"{other.label} on {other.chain}")


def accept_certificate(
    state: SeatState, signed: Signed[WalletCertificate], check_script: CheckScript, now: int
) -> Outcome:
    """Accept a certificate once: quorum of the pinned roster, this seat's own key in it, the script derived again.

    The same certificate again changes nothing. A second birth for a label and chain is refused, as are keys of another wallet. A
    successor keeps its wallet's Safe, whose owners the rotation changed; its script, on Bitcoin, is its own. A seat that a successor
    does not name takes it all the same: from then on its old keys only sweep (docs/decisions/0016).
    """
    certificate, digest = signed.message, signed.message.struct_hash
    if digest in (c.message.struct_hash for c in state.certificates):
        return Step(state, None)
    if state.pinned is None:
        return (_not_pinned(state),)
    refusals = [
        *state.pinned.check_certificate(signed, max(now, state.time)),
        *_check_own_key(state, certificate),
        *_check_place(state, certificate),
    ]
    if certificate.previous != ZERO32 and certificate.safe:
        refusals += _check_same_safe(state, certificate)
    elif len(certificate.safe) + len(certificate.script) == 1:  # anything else was refused above and cannot be derived
        refusals += check_script(certificate)
    after = replace(state, certificates=(*state.certificates, signed))
    return _step(after, RecordKind.CERTIFICATE, digest, now, refusals)


def _check_own_key(state: SeatState, certificate: WalletCertificate) -> Iterator[Refusal]:
    # A certificate with somebody else's key in this seat's slot would make this seat's share useless, or theirs double.
    mine = state.key(certificate.label, certificate.chain)
    slots = [s.key for s in certificate.seats if s.key.seat == state.seat]
    if not slots and _may_know(state, certificate):
        return
    if mine is None or slots != [mine]:
        yield Refusal(
            Rule.NOT_OWN_KEY,
            seat=state.seat,
            label=certificate.label,
            got=[key.xpub or key.public.hex() for key in slots],
            want=(mine.xpub or mine.public.hex())
            if mine is not None
            else "a key that this seat made for the label first",
        )


def _may_know(state: SeatState, certificate: WalletCertificate) -> bool:
    """Whether a certificate without this seat is still its business.

    The next one of a wallet that it knows; or the first of one for whose later certificate it made a key, under a label that
    continues the first one's. Knowing one gives no right: every signature needs this seat's own key in the certificate that signs.
    """
    if certificate.previous != ZERO32:
        return True  # what it has to follow is checked with its place
    later = certificate.label + LATER
    return any(key.chain == certificate.chain and key.label.startswith(later) for key in state.keys)


def _check_same_safe(state: SeatState, certificate: WalletCertificate) -> Iterator[Refusal]:
    """A Safe keeps its address, its code and its initializer for ever; what follows changes owners and threshold alone."""
    line = next((w for w in state.wallets.values() if w[-1].struct_hash == certificate.previous), ())
    if line and certificate.safe != line[0].safe:
        yield Refusal(
            Rule.SCRIPT_MISMATCH, got=[safe.address for safe in certificate.safe], want=line[0].safe[0].address
        )


def _check_place(state: SeatState, certificate: WalletCertificate) -> Iterator[Refusal]:
    """A birth has a label of its own; a successor follows the newest of its wallet; no key serves two wallets."""
    wallets = state.wallets
    line = next((w for w, line in wallets.items() if line[-1].struct_hash == certificate.previous), None)
    if certificate.previous != ZERO32:
        if line is None:
            yield Refusal(Rule.NOT_SUCCESSOR, previous=certificate.previous.hex(), want="a wallet's newest certificate")
        else:
            yield from check_succession(wallets[line][-1], certificate)
    offered = {s.key.material for s in certificate.seats}
    for wallet, others in wallets.items():
        if wallet == line:
            continue
        if any((c.label, c.chain) == (certificate.label, certificate.chain) for c in others):
            yield Refusal(Rule.ALREADY_ACCEPTED, label=certificate.label, chain=certificate.chain, wallet=wallet.hex())
        if shared := offered & {s.key.material for c in others for s in c.seats}:
            yield Refusal(Rule.KEY_REUSED, label=certificate.label, wallet=wallet.hex(), keys=sorted(shared))


def seat_head(state: SeatState) -> SeatHead | Refusal:
    """What the identity key signs about the journal; a refusal before genesis, when there is no domain to sign in."""
    if state.pinned is None:
        return _not_pinned(state)
    return SeatHead(state.seat, state.position, state.head, state.pinned.version.version, state.time)


def roster_domain(state: SeatState, version: RosterVersion) -> Domain:
    """Version 1 is signed under its own hash, everything after it under genesis."""
    return Domain(state.genesis if state.pinned is not None else version.struct_hash)


def check_chain(records: Iterable[SeatRecord]) -> Iterator[Refusal]:
    """A seat's journal from its first record on: positions without a gap, hashes that join, time that never runs back."""
    position, head, time = 0, ZERO32, 0
    for record in records:
        if record.position != position + 1 or record.previous != head or record.time < time:
            yield Refusal(Rule.HASH_CHAIN, position=record.position, after=position, previous=record.previous.hex())
        position, head, time = record.position, record.struct_hash, record.time


def _not_pinned(state: SeatState) -> Refusal:
    return Refusal(Rule.NOT_PINNED, seat=state.seat, want="genesis pinned first")


def _step(after: SeatState, kind: RecordKind, digest: bytes, now: int, refusals: Iterable[Refusal]) -> Outcome:
    """What would stand after a move, put behind a journal record of it; or the refusals, if there are any."""
    if found := tuple(refusals):
        return found
    record = SeatRecord(after.position + 1, kind, digest, max(now, after.time), after.head)
    return Step(replace(after, position=record.position, head=record.struct_hash, time=record.time), record)


def _digest(text: object) -> bytes:
    if not isinstance(text, str) or re.fullmatch("0x[0-9a-f]{64}", text) is None:
        raise ValueError(text)
    return bytes.fromhex(text[2:])
