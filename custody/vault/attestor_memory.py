# SPDX-License-Identifier: AGPL-3.0-or-later
"""Everything the attestor remembers: its promises (attestor_key.py), genesis, roster, seats' heads, payouts, first sights, its clock."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Final

from custody.rules.errors import InvalidInput, Unavailable
from custody.rules.in_flight import DAY, Attested, Flight
from custody.rules.intents import Anchor
from custody.rules.refusals import Refusal, Refused, Rule, raise_if
from custody.rules.roster import RosterVersion
from custody.rules.signatures import Signed
from custody.rules.statements import SeatPosition
from custody.vault.attestor_key import AttestorVault
from custody.vault.storage import CasConflict, Vault

_GENESIS: Final = "genesis"
_ROSTER: Final = "roster"
_HEADS: Final = "heads"
_CLOCK: Final = "clock"
_PAYOUTS: Final = "payouts"
_FLIGHTS: Final = "flights"
_SEEN: Final = "seen"
_TRIES: Final = 5
_HEAD: Final = re.compile("[0-9a-f]{64}")


class VaultMemory(AttestorVault):
    """Implements `AttestorMemory` over the attestor's own vault; every write is check-and-set."""

    def __init__(self, vault: Vault) -> None:
        super().__init__(vault)
        self._documents = vault
        self._payouts: dict[bytes, Attested] = {}
        self._sights: dict[bytes, int] = {}
        self._seen: set[str] | None = None
        self._genesis: Signed[RosterVersion] | None = None

    def pinned(self) -> Signed[RosterVersion] | None:
        """Genesis as it was pinned, which is once: it is read and parsed once, too."""
        if self._genesis is None:
            stored, _ = self._documents.read(_GENESIS)
            self._genesis = None if stored is None else Signed.from_json(RosterVersion, dict(stored))
        return self._genesis

    def pin(self, signed: Signed[RosterVersion]) -> None:
        """Pin genesis, once; the same one again is fine."""
        try:
            self._documents.write(_GENESIS, signed.to_json(), cas=0)
        except CasConflict:
            pinned = self.pinned()
            if pinned is None or pinned.message != signed.message:
                want = pinned.message.struct_hash.hex() if pinned else ""
                raise Refused([Refusal(Rule.WRONG_GENESIS, got=signed.message.struct_hash.hex(), want=want)]) from None

    def see_roster(self, version: int, digest: bytes) -> None:
        """Note the newest roster version; what was seen once is never forgotten for an older one."""
        stored, at = self._documents.read(_ROSTER)
        seen = _whole_number(stored, "version", _ROSTER)
        if stored is not None and (seen, stored.get("digest")) == (version, digest.hex()):
            return
        if stored is not None and version <= seen:
            raise Refused([Refusal(Rule.ROSTER_OLDER, version=version, pinned=seen)])
        try:
            self._documents.write(_ROSTER, {"version": str(version), "digest": digest.hex()}, cas=at)
        except CasConflict as error:
            raise Unavailable("attestor's vault", "another process saw a roster meanwhile") from error

    def see_heads(self, heads: Collection[SeatPosition]) -> Sequence[SeatPosition]:
        """Note the newest head of each seat: one that ran back, or another at the same position, keeps what was seen first.

        A cold seat is silent between ceremonies. Forgotten at a restart, its head would be missing from the statement that the
        next ceremony brings, and a seat restored from an old copy could not be told from itself.
        """
        stored, at = self._documents.read(_HEADS)
        known = dict(_positions(stored or {}))
        newest = dict(known)
        for head in heads:
            seen = newest.get(head.seat)
            if seen is None or head.position > seen.position:
                newest[head.seat] = head
        if newest != known:
            body = {name: f"{head.position}:{head.head.hex()}" for name, head in sorted(newest.items())}
            try:
                self._documents.write(_HEADS, body, cas=at)
            except CasConflict as error:
                raise Unavailable("attestor's vault", "another process saw heads meanwhile") from error
        return [newest[name] for name in sorted(newest)]

    # payouts

    def attest(self, payout: Sequence[Attested]) -> None:
        """Bind each intent to its anchor for ever. Raises Refused(INTENT_BOUND), and then binds none of them.

        They are listed first: cut off here, an intent that is listed and not bound was never signed for, and is nobody's yet.
        """
        raise_if(_bound_elsewhere(payout, [self._payout(asked.digest) for asked in payout]))
        listed, at = self._listed()
        new = {asked.digest.hex(): "0" for asked in payout if asked.digest.hex() not in listed}
        if new:
            self._list(listed | new, at)
        for asked in payout:
            if self._payout(asked.digest) is None:
                with suppress(CasConflict):
                    self._documents.write(f"{_PAYOUTS}/{asked.digest.hex()}", asked.to_json(), cas=0)
        raise_if(_bound_elsewhere(payout, [self._payout(asked.digest) for asked in payout]))

    def bound_to(self, digests: Collection[bytes]) -> Mapping[bytes, Anchor]:
        """The anchor of each of these that was ever attested; it is kept for ever."""
        known = ((digest, self._payout(digest)) for digest in sorted(digests))
        return {digest: attested.anchor for digest, attested in known if attested is not None}

    def flights(self) -> Sequence[Flight]:
        """What is in flight, and what ended within a day."""
        listed, _ = self._listed()
        found = ((self._payout(bytes.fromhex(name)), int(ended)) for name, ended in sorted(listed.items()))
        return [Flight(attested, ended) for attested, ended in found if attested is not None]

    def land(self, intents: Collection[bytes], at: int) -> None:
        """Their anchor was finally consumed."""
        if not intents:
            return
        listed, version = self._listed()
        landed = {digest.hex(): str(at) for digest in intents if listed.get(digest.hex()) == "0"}
        kept = {name: ended for name, ended in listed.items() if ended == "0" or int(ended) > at - DAY}
        self._list(kept | landed, version)

    def unseen(self, digests: Collection[bytes]) -> Sequence[bytes]:
        """Those never seen. Names are listed once: a start reads no time that nobody asks for."""
        if self._seen is None:
            self._seen = set(self._documents.list(_SEEN))
        return [digest for digest in digests if digest.hex() not in self._seen]

    def first_sight(self, digest: bytes, now: int) -> int:
        """When this was first seen, which no row can date back."""
        known = self._sights.get(digest)
        if known is None:
            known = self._sights[digest] = self._sight(f"{_SEEN}/{digest.hex()}", now)
            if self._seen is not None:
                self._seen.add(digest.hex())
        return known

    def _sight(self, path: str, now: int) -> int:
        if self._seen is None or path.rpartition("/")[2] in self._seen:
            stored, _ = self._documents.read(path)
            if stored is not None:
                return _whole_number(stored, "at", path)
        try:
            self._documents.write(path, {"at": str(now)}, cas=0)
        except CasConflict:  # another process saw it first
            return _whole_number(self._documents.read(path)[0], "at", path)
        return now

    def _payout(self, digest: bytes) -> Attested | None:
        if digest not in self._payouts:
            stored, _ = self._documents.read(f"{_PAYOUTS}/{digest.hex()}")
            if stored is None:
                return None
            self._payouts[digest] = Attested.from_json(dict(stored))
        return self._payouts[digest]

    def _listed(self) -> tuple[dict[str, str], int]:
        stored, at = self._documents.read(_FLIGHTS)
        listed = {} if stored is None else dict(stored)
        if not all(isinstance(ended, str) and ended.isdecimal() for ended in listed.values()):
            raise InvalidInput(_FLIGHTS, Rule.MALFORMED, "another shape", "times in decimal by digest")
        return {name: str(ended) for name, ended in listed.items()}, at

    def _list(self, listed: dict[str, str], at: int) -> None:
        try:
            self._documents.write(_FLIGHTS, listed, cas=at)
        except CasConflict as error:
            raise Unavailable("attestor's vault", "another process attested meanwhile") from error

    # time

    def offset(self) -> int:
        """Seconds that the statement clock was moved forward by."""
        return _whole_number(self._documents.read(_CLOCK)[0], "offset", _CLOCK)

    def advance(self, seconds: int) -> int:
        """Move the statement clock forward, never back."""
        if seconds <= 0:
            raise InvalidInput("seconds", Rule.NOT_POSITIVE, str(seconds), "more than zero: this clock never runs back")
        for _ in range(_TRIES):
            stored, at = self._documents.read(_CLOCK)
            offset = _whole_number(stored, "offset", _CLOCK) + seconds
            try:
                self._documents.write(_CLOCK, {"offset": str(offset)}, cas=at)
            except CasConflict:
                continue
            return offset
        raise Unavailable("attestor's vault", "other processes keep moving the clock")


def _bound_elsewhere(payout: Sequence[Attested], known: Sequence[Attested | None]) -> Iterator[Refusal]:
    for asked, stored in zip(payout, known, strict=True):
        if stored is not None and stored.anchor != asked.anchor:
            told = {
                "bound_to": stored.anchor.reference,
                "got": asked.anchor.reference,
                "wallet": stored.anchor.wallet.hex(),
            }
            yield Refusal(Rule.INTENT_BOUND, intent=asked.digest.hex(), **told)


def _positions(stored: Mapping[str, object]) -> Iterator[tuple[str, SeatPosition]]:
    """Heads by seat; raises InvalidInput on a damaged document, which is never an empty one."""
    for name, value in stored.items():
        position, _, head = str(value).partition(":")
        if not position.isdecimal() or _HEAD.fullmatch(head) is None:
            raise InvalidInput(f"{_HEADS}.{name}", Rule.MALFORMED, repr(value), "position:head")
        yield name, SeatPosition(name, int(position), bytes.fromhex(head))


def _whole_number(stored: object, name: str, where: str) -> int:
    """A number of a stored document, zero where there is no document; raises InvalidInput where it is damaged."""
    if stored is None:
        return 0
    value = stored.get(name) if isinstance(stored, dict) else None
    if not isinstance(value, str) or not value.isdecimal():
        raise InvalidInput(f"{where}.{name}", Rule.MALFORMED, repr(value), "a decimal integer in a string")
    return int(value)
