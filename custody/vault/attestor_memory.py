# SPDX-License-Identifier: AGPL-3.0-or-later
"""Everything the attestor remembers: its promises (attestor_key.py), genesis, the newest roster, and the statement clock."""

from typing import Final

from custody.rules.errors import InvalidInput, Unavailable
from custody.rules.refusals import Refusal, Refused, Rule
from custody.rules.roster import RosterVersion
from custody.rules.signatures import Signed
from custody.vault.attestor_key import AttestorVault
from custody.vault.storage import CasConflict, Vault

_GENESIS: Final = "genesis"
_ROSTER: Final = "roster"
_CLOCK: Final = "clock"
_TRIES: Final = 5


class VaultMemory(AttestorVault):
    """Implements `AttestorMemory` over the attestor's own vault; every write is check-and-set."""

    def __init__(self, vault: Vault) -> None:
        super().__init__(vault)
        self._documents = vault

    def pinned(self) -> Signed[RosterVersion] | None:
        """Genesis as it was pinned."""
        stored, _ = self._documents.read(_GENESIS)
        return None if stored is None else Signed.from_json(RosterVersion, dict(stored))

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


def _whole_number(stored: object, name: str, where: str) -> int:
    """A number of a stored document, zero where there is no document; raises InvalidInput where it is damaged."""
    if stored is None:
        return 0
    value = stored.get(name) if isinstance(stored, dict) else None
    if not isinstance(value, str) or not value.isdecimal():
        raise InvalidInput(f"{where}.{name}", Rule.MALFORMED, repr(value), "a decimal integer in a string")
    return int(value)
