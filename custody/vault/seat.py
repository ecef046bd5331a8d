# SPDX-License-Identifier: AGPL-3.0-or-later
"""A seat hosted by a process: its decisions are `rules.birth`, its memory and keys lie in its own OpenBao.

Every call reads the state, decides, writes the next state with check-and-set, completes the journal, and only then signs. The
state document carries its newest record, so that one write commits both; whoever comes after a crash writes the record out.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from custody.flows.ports import Clock
from custody.rules import birth
from custody.rules.birth import CheckScript, Outcome, SeatRecord, SeatState, Step
from custody.rules.certificates import SeatHead, SeatKey, WalletCertificate, WalletKey
from custody.rules.errors import InvalidInput, Unavailable
from custody.rules.refusals import Refusal, Refused, Rule, raise_if
from custody.rules.roster import RosterVersion
from custody.rules.signatures import Key, Signature, Signed
from custody.rules.typed import Domain, Struct
from custody.rules.wallets import Chain
from custody.vault.storage import CasConflict, Identity, Vault
from custody.vault.wallet_keys import Entropy, make_once

STATE: Final = "state"


def record_path(position: int) -> str:
    """Where one record of the journal lies: create-only, named by its position."""
    return f"journal/{position}"


@dataclass(frozen=True, slots=True)
class _Held:
    """The state as stored, and the version to write over."""

    state: SeatState
    version: int


class SeatHost:
    """One seat over its own vault. `SeatPort`, and `admit_roster` and `status` beside it; one call at a time."""

    def __init__(
        self, name: str, vault: Vault, check_script: CheckScript, clock: Clock, entropy: Entropy = os.urandom
    ) -> None:
        self._name = name
        self._vault = vault
        self._identity = Identity(vault)
        self._check_script = check_script
        self._clock = clock
        self._entropy = entropy

    @property
    def name(self) -> str:
        """The seat's id in the roster."""
        return self._name

    def identity(self) -> Key:
        """The seat's Ed25519 identity key."""
        return self._identity.key

    def sign_roster(self, version: RosterVersion) -> Signature:
        """Sign a version that names this seat: version 1 before genesis is pinned, a successor after. Raises Refused."""
        own = self.identity()
        state = self._move(lambda state, now: birth.sign_roster(state, version, own, now))
        return self._identity.sign(birth.roster_domain(state, version).digest(version))

    def pin(self, signed: Signed[RosterVersion]) -> None:
        """Pin genesis, once. Raises Refused."""
        own = self.identity()
        self._move(lambda state, now: birth.pin(state, signed, own, now))

    def admit_roster(self, signed: Signed[RosterVersion]) -> None:
        """Take the roster's next version. Raises Refused."""
        self._move(lambda state, now: birth.admit_roster(state, signed, now))

    def make_wallet_key(self, label: str, chain: Chain) -> SeatKey:
        """The one key for a label and chain with this seat's word for it; made on the first call. Raises Refused."""
        state = self._load().state
        raise_if(birth.check_key_request(state, label, chain.name))
        key = state.key(label, chain.name)
        if key is None:
            made = make_once(self._vault, label, chain, self._entropy)
            key = WalletKey(self._name, label, chain.name, made.public, made.xpub)
            fresh = key
            state = self._move(lambda state, now: birth.add_wallet_key(state, fresh, now))
        return SeatKey(key, self._sign(state, key))

    def accept(self, signed: Signed[WalletCertificate]) -> Signed[SeatHead]:
        """Accept a wallet's certificate, once, and answer with the head of the journal that has it. Raises Refused."""
        check = self._check_script
        return self._signed_head(self._move(lambda state, now: birth.accept_certificate(state, signed, check, now)))

    def head(self) -> Signed[SeatHead]:
        """The newest head of the journal, signed. Raises Refused before genesis."""
        return self._signed_head(self._load().state)

    def status(self) -> dict[str, Any]:
        """What the seat knows, for people; public parts only, unsigned, JSON."""
        state, own = self._load().state, self.identity()
        return {
            "seat": self._name,
            "identity": own.to_json(),
            "genesis": "0x" + state.genesis.hex() if state.pinned is not None else None,
            "roster": state.pinned.version.version if state.pinned is not None else None,
            "position": state.position,
            "head": "0x" + state.head.hex(),
            "time": state.time,
            "keys": [key.to_json() for key in state.keys],
            "wallets": [
                {
                    "wallet": "0x" + wallet.hex(),
                    "certificate": "0x" + line[-1].struct_hash.hex(),
                    **{name: getattr(line[-1], name) for name in ("label", "tier", "chain", "m", "n")},
                }
                for wallet, line in state.wallets.items()
            ],
        }

    def records(self, after: int = 0, limit: int = 1000) -> list[SeatRecord]:
        """The journal's records with position > after, ascending, as stored; `birth.check_chain` judges them."""
        last = min(self._load().state.position, after + limit)
        found = [self._record(position) for position in range(after + 1, last + 1)]
        return [record for record in found if record is not None]

    def _signed_head(self, state: SeatState) -> Signed[SeatHead]:
        head = birth.seat_head(state)
        if isinstance(head, Refusal):
            raise Refused([head])
        return Signed(head, (self._sign(state, head),))

    def _sign(self, state: SeatState, message: Struct) -> Signature:
        return self._identity.sign(Domain(state.genesis).digest(message))

    def _move(self, decide: Callable[[SeatState, int], Outcome]) -> SeatState:
        """Record a step before anything of it is signed (DESIGN.md, law 5); give the state that stands after it."""
        held = self._load()
        outcome = decide(held.state, self._clock())
        if not isinstance(outcome, Step):
            raise Refused(outcome)
        if outcome.record is not None:
            body = {"state": outcome.state.to_json(), "tail": outcome.record.to_json()}
            try:
                self._vault.write(STATE, body, cas=held.version)
            except CasConflict as error:
                raise Unavailable(f"seat {self._name}", "another process moved its state; ask again") from error
            self._complete(outcome.record)
        return outcome.state

    def _load(self) -> _Held:
        stored, version = self._vault.read(STATE)
        if stored is None:
            if self._record(1) is not None:  # a state that is gone, and a past that is not: never born again
                raise Refused(
                    [Refusal(Rule.HASH_CHAIN, seat=self._name, position=0, found="a journal without a state")]
                )
            return _Held(SeatState(self._name), 0)
        state, tail = SeatState.from_json(stored.get("state")), SeatRecord.from_json(stored.get("tail"))
        if state.seat != self._name:
            raise InvalidInput("seat.name", Rule.SEAT_UNKNOWN, repr(self._name), f"{state.seat!r}, whose vault this is")
        if (tail.position, tail.struct_hash) != (state.position, state.head):
            raise Refused([Refusal(Rule.HASH_CHAIN, seat=self._name, position=state.position, head=state.head.hex())])
        self._complete(tail)
        return _Held(state, version)

    def _complete(self, record: SeatRecord) -> None:
        """See the newest record written. Another one in its place means that an older state was restored: nothing goes on."""
        stored = self._record(record.position)
        if stored is None:
            try:
                self._vault.write(record_path(record.position), record.to_json(), cas=0)
                stored = record
            except CasConflict:  # written meanwhile
                stored = self._record(record.position)
        if stored != record or self._record(record.position + 1) is not None:
            raise Refused(
                [Refusal(Rule.HASH_CHAIN, seat=self._name, position=record.position, head=record.struct_hash.hex())]
            )

    def _record(self, position: int) -> SeatRecord | None:
        stored, _ = self._vault.read(record_path(position))
        return None if stored is None else SeatRecord.from_json(dict(stored), record_path(position))
