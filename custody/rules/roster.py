# SPDX-License-Identifier: AGPL-3.0-or-later
"""Who is who: a chain of versions, each signed by a quorum of the old and of the new (TRUST.md, "Genesis and roster").

Version 1 is signed by everybody it names. Its struct hash is genesis, the salt of every signature after it.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from custody.rules.certificates import WalletCertificate, check_certificate
from custody.rules.errors import InvalidInput
from custody.rules.refusals import Refusal, Rule
from custody.rules.signatures import DISPLAYING, Key, Scheme, Signed
from custody.rules.typed import ZERO32, Bytes32, Domain, EvmHex, Struct, Uint16, Uint64, Uint256
from custody.rules.wallets import DEVNET_CHAINS, Chain

SCOPES: Final = ("read", "propose", "settle")
CLOCKS: Final = ("wall", "statement")
SHOWING_LEAST: Final = 2
"""People with a key that displays. Rosters and bundles need one among their signers, so a deployment that lost its only one would stay
as it is for ever, and its cold coins with it."""


@dataclass(frozen=True, slots=True)
class Person(Struct):
    """One member of staff. `groups` say what they may approve; more keys of one person still fill one slot.

    `displays` tells, key by key, whether the device shows what it signs; a passkey never does, nor does a program's key.
    """

    id: str
    name: str
    groups: tuple[str, ...]
    keys: tuple[Key, ...]
    displays: tuple[bool, ...]
    expires: Uint64


@dataclass(frozen=True, slots=True)
class ApiClient(Struct):
    """A program that may call the API with an Ed25519 key; propose and settle never share one."""

    id: str
    key: Key
    scopes: tuple[str, ...]
    role: str
    expires: Uint64


@dataclass(frozen=True, slots=True)
class RosterSeat(Struct):
    """One key-holder in one trust domain; `cold` seats are offline outside a ceremony."""

    id: str
    operator: str
    organisation: str
    identity: Key
    cold: bool


@dataclass(frozen=True, slots=True)
class Relayer(Struct):
    """The address that pays EVM gas: operational tier, inventoried, never above its cap (wei)."""

    chain: str
    address: EvmHex
    cap: Uint256


@dataclass(frozen=True, slots=True)
class PriceFeeder(Struct):
    """A signer of prices."""

    id: str
    key: Key


@dataclass(frozen=True, slots=True)
class Thresholds(Struct):
    """How many distinct people each kind of document needs."""

    roster: Uint16
    certificate: Uint16
    policy: Uint16
    manual_entry: Uint16
    void: Uint16
    unfreeze: Uint16


@dataclass(frozen=True, slots=True)
class RosterVersion(Struct):
    """One version of the roster. `previous` is zero in version 1; `delay` is seconds between signing and force."""

    version: Uint64
    previous: Bytes32
    chains: tuple[str, ...]
    clock: str
    people: tuple[Person, ...]
    clients: tuple[ApiClient, ...]
    address_authorities: tuple[str, ...]
    policy_owners: tuple[str, ...]
    feeders: tuple[PriceFeeder, ...]
    attestor: Key
    seats: tuple[RosterSeat, ...]
    relayers: tuple[Relayer, ...]
    thresholds: Thresholds
    delay: Uint64
    not_before: Uint64


class Roster:
    """A verified version with its look-ups; `earlier` are the verified versions before it, oldest first, where they are known."""

    def __init__(self, signed: Signed[RosterVersion], genesis: bytes, earlier: tuple["Roster", ...] = ()) -> None:
        self.signed = signed
        self.version = signed.message
        self.earlier = earlier
        self.domain = Domain(genesis)

    @cached_property
    def people_by_key(self) -> dict[Key, Person]:
        """Every key of a person to that person."""
        return {key: person for person in self.version.people for key in person.keys}

    @cached_property
    def _displaying(self) -> frozenset[Key]:
        return frozenset(
            key for p in self.version.people for key, shows in zip(p.keys, p.displays, strict=False) if shows
        )

    def displays(self, key: Key) -> bool:
        """Whether this version says of a person's key that it shows what it signs; never of a scheme that is handed 32 bytes."""
        return key.scheme in DISPLAYING and key in self._displaying

    @cached_property
    def seats(self) -> dict[str, RosterSeat]:
        """Seats by name."""
        return {seat.id: seat for seat in self.version.seats}

    @cached_property
    def clients_by_key(self) -> dict[Key, ApiClient]:
        """API clients by key."""
        return {client.key: client for client in self.version.clients}

    def people_who_signed(self, signed: Signed[Struct], now: int) -> frozenset[str]:
        """Ids of the distinct, unexpired people with a valid signature over this exact message."""
        people = (self.people_by_key.get(key) for key in signed.signers(self.domain))
        return frozenset(person.id for person in people if person is not None and person.expires > now)

    def check_quorum(
        self, signed: Signed[Struct], needed: int, among: Iterable[str] | None, now: int
    ) -> Iterator[Refusal]:
        """Whether enough distinct people signed; `among` narrows who counts. A threshold below one never passes."""
        voters = self.people_who_signed(signed, now)
        counted = voters if among is None else voters & frozenset(among)
        if needed < 1 or len(counted) < needed:
            document = type(signed.message).__name__
            yield Refusal(Rule.QUORUM_NOT_REACHED, document=document, signed=sorted(counted), needed=needed)

    def check_displaying(self, signed: Signed[Struct], among: Iterable[str] | None, now: int) -> Iterator[Refusal]:
        """Whether somebody signed with a key that displays: for what decides who may sign at all, a page's word is not enough.

        `among` narrows who counts, as in `check_quorum`.
        """
        shown = Signed(signed.message, tuple(s for s in signed.signatures if self.displays(s.key)))
        signers = self.people_who_signed(shown, now)
        if signers if among is None else signers & frozenset(among):
            return
        yield Refusal(
            Rule.DISPLAYING_MISSING, document=type(signed.message).__name__, displaying=[], needed=1, missing=1
        )

    def check_certificate(self, signed: Signed[WalletCertificate], now: int) -> Iterator[Refusal]:
        """A wallet certificate against this roster: its shape, each seat's identity signature, the quorum of people."""
        certificate = signed.message
        organisations = {seat.id: seat.organisation for seat in self.version.seats}
        cold = frozenset(seat.id for seat in self.version.seats if seat.cold)
        yield from check_certificate(certificate, organisations, cold)
        if certificate.chain not in self.version.chains:
            yield Refusal(Rule.UNKNOWN_CHAIN, chain=certificate.chain, want=", ".join(self.version.chains))
        for seat_key in certificate.seats:
            seat = self.seats.get(seat_key.key.seat)
            digest = self.domain.digest(seat_key.key)
            if seat and not (seat_key.signature.key == seat.identity and seat_key.signature.is_over(digest)):
                yield Refusal(Rule.SIGNATURE_INVALID, document="WalletKey", signer=seat.id)
        yield from self.check_quorum(signed, self.version.thresholds.certificate, None, now)
        yield from self.check_displaying(signed, None, now)


def relayer_key(relayer: Relayer) -> Key:
    """The key a relayer signs version 1 with: the one that pays gas, known by its address."""
    return Key(Scheme.EIP712_SECP256K1, bytes.fromhex(relayer.address[2:]))


def named_keys(version: RosterVersion) -> dict[str, tuple[Key, ...]]:
    """Everybody a version names, each with the keys of which one has to sign version 1."""
    named: dict[str, tuple[Key, ...]] = {}
    named |= {f"person:{p.id}": p.keys for p in version.people}
    named |= {f"client:{c.id}": (c.key,) for c in version.clients}
    named |= {f"feeder:{f.id}": (f.key,) for f in version.feeders}
    named |= {f"seat:{s.id}": (s.identity,) for s in version.seats}
    named |= {f"relayer:{r.address}": (relayer_key(r),) for r in version.relayers}
    return named | {"attestor": (version.attestor,)}


def check_version(version: RosterVersion) -> Iterator[Refusal]:
    """What a version says by itself: every key and name once, thresholds in range, scopes apart, clock allowed."""
    named = named_keys(version)
    for name, keys in named.items():
        if not keys:
            yield Refusal(Rule.MALFORMED, field=name, got="no key", want="at least one key")
    held = {key.material: key for keys in named.values() for key in keys}  # a passkey named for two pages is one key
    for material, count in Counter(key.material for keys in named.values() for key in keys).items():
        if count > 1:
            holders = [name for name, keys in named.items() if any(key.material == material for key in keys)]
            yield Refusal(Rule.KEY_REUSED, field="roster.keys", key=str(held[material]), holders=holders)
    rows = (version.people, version.clients, version.feeders, version.seats)
    for name, count in Counter(f"{type(row).__name__}:{row.id}" for group in rows for row in group).items():
        if count > 1:
            yield Refusal(Rule.NAME_REUSED, name=name, times=count)
    yield from _check_thresholds(version)
    yield from _check_roles(version)
    for seat in version.seats:
        if seat.identity.scheme != "ed25519":
            yield Refusal(Rule.MALFORMED, field=f"seat:{seat.id}.identity", got=seat.identity.scheme, want="ed25519")
    if not version.seats:
        yield Refusal(Rule.MALFORMED, field="roster.seats", got="none", want="at least one seat")
    yield from _check_chains(version)
    if version.clock not in CLOCKS:
        yield Refusal(Rule.MALFORMED, field="roster.clock", got=version.clock, want=" or ".join(CLOCKS))
    if version.clock == "statement" and not set(version.chains) <= set(DEVNET_CHAINS):
        yield Refusal(Rule.CLOCK_NOT_DEVNET, chains=list(version.chains), devnet=list(DEVNET_CHAINS))


def _check_chains(version: RosterVersion) -> Iterator[Refusal]:
    if not version.chains:
        yield Refusal(Rule.MALFORMED, field="roster.chains", got="none", want="at least one chain")
    for name in version.chains:
        try:
            Chain(name)
        except InvalidInput as error:
            yield Refusal(Rule.UNKNOWN_CHAIN, field="roster.chains", got=name, want=error.want)
    for relayer in version.relayers:
        if relayer.chain not in version.chains or not relayer.chain.startswith("eip155:"):
            yield Refusal(
                Rule.UNKNOWN_CHAIN, field="roster.relayers", got=relayer.chain, want="an EVM chain of this version"
            )


def _check_thresholds(version: RosterVersion) -> Iterator[Refusal]:
    limits = {"policy": len(version.policy_owners) - 1}  # the author of a bundle never counts
    for name, needed in version.thresholds.to_json().items():
        most = limits.get(name, len(version.people))
        if not 1 <= int(needed) <= most:
            yield Refusal(
                Rule.THRESHOLD_OUT_OF_RANGE, field=f"roster.thresholds.{name}", got=needed, want=f"1 to {most}"
            )
    if version.thresholds.manual_entry < 2:
        yield Refusal(
            Rule.THRESHOLD_OUT_OF_RANGE,
            field="roster.thresholds.manual_entry",
            got=version.thresholds.manual_entry,
            want="2",
        )


def _check_roles(version: RosterVersion) -> Iterator[Refusal]:
    people = {person.id for person in version.people}
    for field, ids in (("policy_owners", version.policy_owners), ("address_authorities", version.address_authorities)):
        for unknown in sorted(set(ids) - people):
            yield Refusal(Rule.SIGNER_UNKNOWN, field=f"roster.{field}", got=unknown, want="a person of this version")
        if len(set(ids)) != len(ids):
            yield Refusal(Rule.SIGNER_TWICE, field=f"roster.{field}", got=list(ids), want="each once")
    for person in version.people:
        if len(person.displays) != len(person.keys):
            yield Refusal(
                Rule.MALFORMED, field=f"person:{person.id}.displays", got=len(person.displays), want=len(person.keys)
            )
        for key, displays in zip(person.keys, person.displays, strict=False):
            if displays and key.scheme not in DISPLAYING:
                field = f"person:{person.id}.displays"
                yield Refusal(Rule.NOT_DISPLAYING, field=field, key=str(key), want=", ".join(sorted(DISPLAYING)))
    showing = sorted(person.id for person in version.people if any(person.displays))
    if len(showing) < SHOWING_LEAST:
        missing = SHOWING_LEAST - len(showing)
        yield Refusal(
            Rule.DISPLAYING_MISSING, field="roster.people", displaying=showing, needed=SHOWING_LEAST, missing=missing
        )
    for client in version.clients:
        if odd := sorted(set(client.scopes) - set(SCOPES)):
            yield Refusal(Rule.MALFORMED, field=f"client:{client.id}.scopes", got=odd, want=", ".join(SCOPES))
        if {"propose", "settle"} <= set(client.scopes):
            yield Refusal(Rule.SCOPES_SHARED, client=client.id)


def check_genesis(signed: Signed[RosterVersion], now: int) -> Iterator[Refusal]:
    """Version 1: whole in itself, and signed by everybody it names under its own hash as salt."""
    version = signed.message
    yield from check_version(version)
    if version.version != 1 or version.previous != ZERO32:
        yield Refusal(Rule.NOT_SUCCESSOR, version=version.version, want="version 1 with a zero predecessor")
    signers = signed.signers(Domain(version.struct_hash))
    for name, keys in named_keys(version).items():
        if not signers & set(keys):
            yield Refusal(Rule.SIGNATURE_MISSING, document="RosterVersion", signer=name)
    yield from Roster(signed, version.struct_hash).check_displaying(signed, None, now)
    for person in version.people:
        if person.expires <= now:
            yield Refusal(Rule.SIGNER_EXPIRED, person=person.id, expired=person.expires, now=now)


def check_lineage(old: Roster, new: RosterVersion) -> Iterator[Refusal]:
    """A next version before anybody signed it: whole in itself, names its predecessor, keeps the clock and every chain."""
    yield from check_version(new)
    if new.version != old.version.version + 1 or new.previous != old.version.struct_hash:
        yield Refusal(Rule.NOT_SUCCESSOR, version=new.version, want=old.version.version + 1)
    if new.clock != old.version.clock or not set(old.version.chains) <= set(new.chains):
        yield Refusal(Rule.NOT_SUCCESSOR, field="clock or chains", got=new.clock, want=old.version.clock)


def check_agreed(old: Roster, signed: Signed[RosterVersion], now: int) -> Iterator[Refusal]:
    """A next version but for its time: it follows, names a time after the old one's delay, and both quorums signed it."""
    new = signed.message
    yield from check_lineage(old, new)
    if new.not_before < old.version.not_before + old.version.delay:
        yield Refusal(Rule.TOO_EARLY, not_before=new.not_before, delay=old.version.delay, now=now)
    yield from old.check_quorum(signed, old.version.thresholds.roster, None, now)
    yield from old.check_displaying(signed, None, now)  # by the old one's word: a new one would name its own keys so
    joined = Roster(signed, old.domain.genesis)
    yield from joined.check_quorum(signed, new.thresholds.roster, None, now)


def check_successor(old: Roster, signed: Signed[RosterVersion], now: int, seen: int | None = None) -> Iterator[Refusal]:
    """A next version: names its predecessor, quorum of the old and of the new, in force only after the old one's delay.

    Keeps the clock and every chain; a chain may be added. `seen` is when whoever asks first saw it, which the delay counts from: a
    seat and the attestor know that by themselves, a reader of the mirror does not.
    """
    new = signed.message
    yield from check_agreed(old, signed, now)
    earliest = new.not_before if seen is None else max(new.not_before, seen + old.version.delay)
    if now < earliest:
        yield Refusal(Rule.TOO_EARLY, not_before=earliest, delay=old.version.delay, now=now)
