# SPDX-License-Identifier: AGPL-3.0-or-later
"""A seat hosted by a process: it decides by `rules.birth` and `rules.seat`, and has memory and keys in its own OpenBao.

Every call reads the journal, decides, records the step (`seat_memory`), and only then signs. Signing wallet payloads is in
`SeatHost.sign`: decode, recall, decide, record, sign.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final

from custody.chains.payloads import decode
from custody.flows.ports import Clock
from custody.rules import birth, seat_journal
from custody.rules.attested import verify_signature
from custody.rules.birth import CheckScript, Outcome, SeatRecord, SeatState, Step
from custody.rules.certificates import SeatHead, SeatKey, WalletCertificate, WalletKey
from custody.rules.errors import Unavailable
from custody.rules.governance import Freeze, PolicyActivation, Unfreeze
from custody.rules.payments import SeatSignatures
from custody.rules.payouts import Decoded, DecodedPayload, Surroundings, ToSign
from custody.rules.refusals import Refusal, Refused, Rule, raise_if
from custody.rules.roster import RosterVersion
from custody.rules.seat import decide
from custody.rules.seat_journal import Learned, SeatJournal
from custody.rules.seat_request import BundleInForce, Policies, Request
from custody.rules.signatures import Key, Signature, Signed
from custody.rules.statements import Statement
from custody.rules.succession import JudgeTerms, Terms
from custody.rules.typed import Domain, Struct
from custody.rules.wallets import Chain
from custody.vault.seat_memory import Line, SeatMemory, check_size
from custody.vault.signing import OpenedKeys, sign_digests
from custody.vault.storage import CasConflict, Identity, Vault
from custody.vault.wallet_keys import Entropy, make_once

ReadBundle = Callable[[Mapping[str, object]], BundleInForce]
"""Reads a bundle's documents and computes its hash; policies are handed in (DESIGN.md, arrows). Raises InvalidInput."""

CERTIFICATES_MOST: Final = 32
"""Certificates that a request may bring: each costs derivations before anything is refused."""


def bundle_path(digest: bytes) -> str:
    """Where the documents of a bundle lie: create-only, named by its hash, which is computed again whenever they are read."""
    return f"bundles/{digest.hex()}"


@dataclass(frozen=True, slots=True)
class Recorded:
    """Digests that stand in the journal, and the certificate whose key may sign them."""

    certificate: WalletCertificate
    to_sign: Sequence[ToSign]


class SeatHost:
    """One seat over its own vault. `SeatPort`, and `status`, `records` and `lines` beside it; one call at a time."""

    def __init__(
        self,
        name: str,
        vault: Vault,
        check_script: CheckScript,
        clock: Clock,
        entropy: Entropy = os.urandom,
        *,
        read_bundle: ReadBundle,
        terms: JudgeTerms,
    ) -> None:
        self._name = name
        self._vault = vault
        self._memory = SeatMemory(name, vault)
        self._identity = Identity(vault)
        self._check_script = check_script
        self._clock = clock
        self._entropy = entropy
        self._read_bundle = read_bundle
        self._terms = terms
        self._bundles: dict[bytes, BundleInForce] = {}

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

    def admit_roster(self, signed: Signed[RosterVersion], statement: Signed[Statement] | None = None) -> None:
        """Take the roster's next version; raises Refused. The first time it is noted, and too_early says from when it counts.

        `statement` tells a devnet's time; it may name the very version that is handed in.
        """

        def admit(state: SeatState, now: int) -> Outcome:
            pinned = state.pinned
            if statement is None or pinned is None or pinned.version.clock != "statement":
                return birth.admit_roster(state, signed, now)
            if pinned.version.attestor not in statement.signers(pinned.domain):
                return (Refusal(Rule.SIGNATURE_INVALID, document="Statement", signer=str(pinned.version.attestor)),)
            return birth.admit_roster(state, signed, max(now, statement.message.time))

        state = self._move(admit)
        raise_if(birth.check_in_force(state, signed.message))

    def make_wallet_key(self, label: str, chain: Chain) -> SeatKey:
        """The one key for a label and chain with this seat's word for it; made on the first call. Raises Refused."""
        state = self._memory.load().state
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

    def admit_policy(
        self,
        signed: Signed[PolicyActivation],
        documents: Mapping[str, object],
        statement: Signed[Statement] | None = None,
    ) -> Signed[SeatHead]:
        """Put a bundle in force: its owners' activation, and its documents, which this seat reads and hashes. Raises Refused.

        One that follows another is only noted the first time, and too_early says from when it counts: by the path that this seat
        works out from both bundles' documents, the old ones out of its own vault. `statement` tells a devnet's time.
        """
        bundle, activation = self._read_bundle(documents), signed.message
        if bundle.hash != activation.bundle:
            got, want = activation.bundle.hex(), bundle.hash.hex()
            raise Refused([Refusal(Rule.NOT_SUCCESSOR, field="bundle", got=got, want=want)])
        asked = self._asked_of(self._memory.load().journal, activation, documents)

        def learn(journal: SeatJournal, now: int) -> Learned:
            told = _told(journal, statement, now)
            learned = told if isinstance(told, tuple) else seat_journal.admit_policy(journal, signed, told, asked)
            if isinstance(learned, SeatJournal) and learned.policies != journal.policies:
                # before the journal names it: a crash between leaves a document that nothing reads, not a gap
                self._keep_bundle(bundle, documents)
            return learned

        head = self._learn(learn, signed)
        raise_if(seat_journal.check_admitted(self._memory.load().journal, activation, asked))
        return head

    def _asked_of(
        self, journal: SeatJournal, activation: PolicyActivation, documents: Mapping[str, object]
    ) -> Terms | None:
        """What the bundle in force asks of this one; None where it does not follow that bundle, which is refused for that."""
        if not journal.policies or activation.previous != journal.policies[-1]:
            return None
        newest = journal.policies[-1]
        stored, _ = self._vault.read(bundle_path(newest))
        if stored is None or self._read_bundle(stored).hash != newest:
            raise Unavailable(f"seat {self._name}", f"its vault has lost policy bundle {newest.hex()}")
        return self._terms(stored, documents)

    def freeze(self, signed: Signed[Freeze]) -> Signed[SeatHead]:
        """Take a freeze that one person signed. Raises Refused."""

        def learn(journal: SeatJournal, now: int) -> Learned:
            roster = journal.roster
            if roster is not None and roster.version.clock == "statement":
                now = max(
                    now, signed.message.from_time
                )  # it travels without a statement that could tell a devnet's time
            return seat_journal.admit_freeze(journal, signed, now)

        return self._learn(learn, signed, share=2)

    def unfreeze(self, signed: Signed[Unfreeze]) -> Signed[SeatHead]:
        """End a freeze early, by quorum and after its delay. Raises Refused where it is not known here, or ended already."""
        return self._learn(lambda journal, now: seat_journal.admit_unfreeze(journal, signed, now), signed)

    def sign(self, request: Request) -> SeatSignatures:
        """Sign a payload with this seat's wallet key, if `rules.seat` says yes; the same request again, the same signatures.

        The record is in the journal before the first signature exists (DESIGN.md, law 5). Raises Refused with every reason.
        """
        return self.sign_recorded(self.record(request), self.opened_keys())

    def opened_keys(self) -> OpenedKeys:
        """No key yet; for as long as one request lasts."""
        return OpenedKeys(self._vault)

    def sign_recorded(self, recorded: Recorded, keys: OpenedKeys) -> SeatSignatures:
        """The signatures of what `record` has put into the journal."""
        return sign_digests(keys, self._name, recorded.certificate, recorded.to_sign)

    def record(self, request: Request) -> Recorded:
        """Decide on a payload and put it into the journal, so that it may be signed. Raises Refused with every reason.

        Whoever signs many records them all first: a vault that gathers its writes then stores them at once.
        """
        held = self._memory.load()
        policies = self._policies(held.journal, request)
        decoded = self._decode(held.journal, request, policies.newest)
        journal = held.journal
        if isinstance(decoded, DecodedPayload):
            journal = self._memory.recall(journal, request, decoded)
        plan = decide(request, decoded, journal, policies, self._time(journal, request))
        if isinstance(plan, tuple):
            raise Refused(plan)
        if isinstance(decoded, tuple):
            raise Refused(decoded)
        for record in plan.records:
            journal = journal.apply(record)
            held = self._memory.commit(held, journal, record.to_json())
        line = held.state.wallets[decoded.wallet]
        certificate = next(each for each in line if each.struct_hash == decoded.certificate)
        return Recorded(certificate, plan.to_sign)

    def _policies(self, journal: SeatJournal, request: Request) -> Policies:
        """The newest bundle, and those that intents pin, of those whose activation this seat verified."""
        if journal.roster is None:
            raise Refused([Refusal(Rule.NOT_PINNED, seat=self._name, want="genesis pinned first")])
        if not journal.policies:
            want = "a bundle whose activation this seat verified"
            raise Refused([Refusal(Rule.POLICY_OLDER, seat=self._name, want=want)])
        asked = {transfer.intent.policy for transfer in request.transfers} & set(journal.policies)
        return Policies(self._bundle(journal.policies[-1]), {digest: self._bundle(digest) for digest in asked})

    def _bundle(self, digest: bytes) -> BundleInForce:
        found = self._bundles.get(digest)
        if found is None:
            stored, _ = self._vault.read(bundle_path(digest))
            found = None if stored is None else self._read_bundle(stored)
            if found is None or found.hash != digest:
                raise Unavailable(f"seat {self._name}", f"its vault has lost policy bundle {digest.hex()}")
            self._bundles[digest] = found
        return found

    def _keep_bundle(self, bundle: BundleInForce, documents: Mapping[str, object]) -> None:
        check_size("bundle", documents)
        with suppress(CasConflict):  # there already; what lies there is hashed when it is read
            self._vault.write(bundle_path(bundle.hash), documents, cas=0)

    def _decode(self, journal: SeatJournal, request: Request, newest: BundleInForce) -> Decoded:
        """What the payload does, by the wallet's newest certificate; else by an older one, whose coins a sweep may bring home."""
        line = journal.state.wallets.get(request.wallet, ())
        if not line:
            return (Refusal(Rule.UNKNOWN_WALLET, wallet=request.wallet.hex(), want="a wallet that this seat accepted"),)
        if len(request.certificates) > CERTIFICATES_MOST:
            got, want = len(request.certificates), f"at most {CERTIFICATES_MOST}"
            return (Refusal(Rule.MALFORMED, field="certificates", got=got, want=want),)
        offered = [signed.message for signed in (*journal.state.certificates, *request.certificates)]
        others = {c.struct_hash: c for c in offered if c.chain == line[-1].chain}
        answers: list[Decoded] = []
        for certificate in request.in_order(line):
            besides = tuple(c for digest, c in others.items() if digest != certificate.struct_hash)
            decoded = decode(request.payload, Surroundings(request.wallet, certificate, newest.assets, besides))
            if isinstance(decoded, DecodedPayload):
                return decoded
            answers.append(decoded)
        return answers[0]

    def _time(self, journal: SeatJournal, request: Request) -> int:
        """This machine's time; in a devnet that declares it, the statement's where that is later (TRUST.md, Journal of a seat).

        A statement that nobody signed moves nothing: `decide` refuses it, and only what was recorded is remembered.
        """
        now, roster = self._clock(), journal.roster
        if roster is not None and roster.version.clock == "statement":
            return max(now, request.statement.message.time)
        return now

    def head(self) -> Signed[SeatHead]:
        """The newest head of the journal, signed. Raises Refused before genesis."""
        return self._signed_head(self._memory.load().state)

    def status(self) -> dict[str, Any]:
        """What the seat knows, for people; public parts only, unsigned, JSON."""
        journal, own = self._memory.load().journal, self.identity()
        state = journal.state
        return {
            "seat": self._name,
            "identity": own.to_json(),
            "genesis": "0x" + state.genesis.hex() if state.pinned is not None else None,
            "roster": state.pinned.version.version if state.pinned is not None else None,
            "position": state.position,
            "head": "0x" + state.head.hex(),
            "time": state.time,
            "policies": ["0x" + bundle.hex() for bundle in journal.policies],
            "noted": [["0x" + activation.hex(), seen] for activation, seen in journal.noted],
            "frozen": [freeze.scope for freeze in journal.frozen(max(self._clock(), state.time))],
            "statement": journal.sequence,
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
        return [line.record for line in self.lines(after, limit)]

    def lines(self, after: int = 0, limit: int = 1000) -> list[Line]:
        """The same with the messages that were recorded."""
        last = min(self._memory.load().state.position, after + limit)
        found = [self._memory.line(position) for position in range(after + 1, last + 1)]
        return [line for line in found if line is not None]

    def _signed_head(self, state: SeatState) -> Signed[SeatHead]:
        head = birth.seat_head(state)
        if isinstance(head, Refusal):
            raise Refused([head])
        return Signed(head, (self._sign(state, head),))

    def _sign(self, state: SeatState, message: Struct) -> Signature:
        return self._identity.sign(Domain(state.genesis).digest(message))

    def _move(self, step: Callable[[SeatState, int], Outcome]) -> SeatState:
        """Record a step of birth before anything of it is signed (DESIGN.md, law 5); give the state that stands after it."""
        held = self._memory.load()
        outcome = step(held.state, self._clock())
        if not isinstance(outcome, Step):
            raise Refused(outcome)
        if outcome.record is not None:
            self._memory.commit(held, replace(held.journal, state=outcome.state, tail=outcome.record))
        return outcome.state

    def _learn(
        self, learn: Callable[[SeatJournal, int], Learned], signed: Signed[Any], share: int = 1
    ) -> Signed[SeatHead]:
        """Record what the seat was told, with the signatures that made it true; nothing where it knew."""
        held = self._memory.load()
        learned = learn(held.journal, self._clock())
        if not isinstance(learned, SeatJournal):
            raise Refused(learned)
        if learned is not held.journal:
            held = self._memory.commit(held, learned, signed.to_json(), share)
        return self._signed_head(held.state)


def _told(journal: SeatJournal, statement: Signed[Statement] | None, now: int) -> int | tuple[Refusal, ...]:
    """This machine's time; in a devnet that declares it, the attestor's where that is later. A statement that is nobody's is refused."""
    roster = journal.roster
    if statement is None or roster is None or roster.version.clock != "statement":
        return now
    return tuple(verify_signature(statement, roster)) or max(now, statement.message.time)
