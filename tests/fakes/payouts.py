# SPDX-License-Identifier: AGPL-3.0-or-later
"""The worker's world in memory: payout chains that mine, seats that really decide and sign, an attestor, and a fuse that kills."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from hashlib import sha256
from typing import Any, TypeVar

from embit.psbt import PSBT  # type: ignore[import-untyped]
from embit.script import Script  # type: ignore[import-untyped]

from custody.chains.bitcoin import psbts
from custody.chains.bitcoin.scripts import change_address, script_pubkey, witness_script
from custody.chains.evm.signatures import pack
from custody.chains.payloads import decode
from custody.flows import worker
from custody.flows.ports import UnitOfWork
from custody.rules.birth import SeatState
from custody.rules.certificates import WalletCertificate
from custody.rules.errors import Unavailable
from custody.rules.governance import PolicyActivation
from custody.rules.intents import Anchor
from custody.rules.payments import (
    Credited,
    Envelope,
    Followed,
    Mined,
    Outcome,
    Paid,
    Payment,
    Pending,
    Replaced,
    Reservation,
    SeatSignatures,
    SignedPayout,
    Sweep,
    Unknown,
    UnsignedPayout,
    none_credited,
)
from custody.rules.payouts import VOID_CHANGE, DecodedPayload, PsbtPayload, SafeTx, Surroundings, void_safe_tx
from custody.rules.refusals import Refusal, Refused, Rule
from custody.rules.requirement import Outcome as Answer
from custody.rules.seat import decide
from custody.rules.seat_journal import SeatJournal, admit_policy
from custody.rules.seat_request import Policies, Request
from custody.rules.signatures import Signed
from custody.rules.statements import ChainHeight, SeatPosition, Statement
from custody.rules.transfers import Transfer
from custody.rules.typed import ZERO32
from custody.rules.wallets import Address, Chain, Tier
from custody.vault.seat import SeatHost
from custody.vault.signing import OpenedKeys, sign_digests
from tests.fakes import treasury
from tests.fakes.chain import FakeChain
from tests.fakes.seat import BITCOIN, EVM, HOT, NOW, ed25519, secp256k1, signed_by
from tests.fakes.store import FakeStore
from tests.fakes.treasury import Treasury
from tests.fakes.trust import (
    ASSETS,
    BUNDLE,
    Ask,
    FakePolicy,
    answers,
    batch_tx,
    bundle,
    facts_of,
    packed,
    psbt_of,
    safe_state,
    safe_tx,
    transfer_data,
    world,
)

T = TypeVar("T")


class Died(Exception):
    """The worker's process is gone."""


@dataclass
class Fuse:
    """Kills at the n-th commit or call of a port: before it happens, or after, when only the answer is lost. 0 never."""

    left: int = 0
    after: bool = False
    burnt: int = 0

    def __call__(self, do: Callable[[], T]) -> T:
        """Do it, unless it is time."""
        self.burnt += 1
        if self.left and (self.burnt > self.left or (self.burnt == self.left and not self.after)):
            raise Died  # what is dead gives nothing back either
        result = do()
        if self.burnt == self.left:
            raise Died
        return result


class Fused:
    """Any port behind a fuse."""

    def __init__(self, target: Any, fuse: Fuse, *names: str) -> None:
        self._target, self._fuse, self._names = target, fuse, names

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._target, name)
        if name not in self._names:
            return found
        return lambda *args, **kwargs: self._fuse(lambda: found(*args, **kwargs))


@cache
def states() -> dict[str, SeatState]:
    """The four hot seats, each with every hot and operational certificate accepted."""
    for seat in world().deployment.seats:
        for (tier, _), signed in world().certificates.items():
            if seat.name in HOT and tier != Tier.CUSTOMER_COLD.value:
                seat.accept(signed)
    hosts = {seat.name: seat for seat in world().deployment.seats if isinstance(seat, SeatHost)}
    return {name: SeatState.from_json((hosts[name]._vault.read("state")[0] or {})["state"]) for name in HOT}


class FakeSeat:
    """One seat: the real `decide` over a journal of its own, and real signatures by the keys of its vault."""

    def __init__(self, name: str, policy: FakePolicy, clock: Callable[[], int]) -> None:
        self.name, self._policy, self._clock = name, policy, clock
        self._host = next(s for s in world().deployment.seats if s.name == name)
        activation = PolicyActivation(BUNDLE, ZERO32, ZERO32, "cy", NOW)
        signed = signed_by(activation, world().domain, [secp256k1("ana"), secp256k1("bo")])
        learned = admit_policy(SeatJournal(states()[name]), signed, NOW)
        assert isinstance(learned, SeatJournal), learned
        self.journal = learned
        self.silent, self.lies, self.asked = False, False, list[bytes]()
        self.refuses: tuple[Refusal, ...] = ()

    def sign(self, request: Request) -> SeatSignatures:
        """See `SeatPort`."""
        if self.silent:
            raise Unavailable(f"seat {self.name}", "no answer")
        self.asked.append(request.hash)
        if self.refuses:
            raise Refused(self.refuses)
        request = Request.from_json(request.to_json())
        certificate = self.journal.state.wallets[request.wallet][-1]
        others = tuple(signed.message for signed in request.certificates)
        found = decode(request.payload, Surroundings(request.wallet, certificate, ASSETS, others))
        plan = decide(request, found, self.journal, Policies(bundle(self._policy), {}), self._clock())
        if isinstance(plan, tuple):
            raise Refused(plan)
        for record in plan.records:
            self.journal = self.journal.apply(record)
        made = sign_digests(OpenedKeys(self._host._vault), self.name, certificate, plan.to_sign)  # type: ignore[attr-defined]
        return replace(made, signatures=tuple(bytes(65) for _ in made.signatures)) if self.lies else made


class FakeAttestor:
    """Speaks well of everything, binds an intent to one anchor, and knows every seat's head."""

    def __init__(self, seats: Sequence[FakeSeat], clock: Callable[[], int], chain: "FakePayouts") -> None:
        self._seats, self._clock, self._chain = seats, clock, chain
        self.sequence, self.down, self.against = 10, False, tuple[Refusal, ...]()
        self.bound: dict[bytes, Anchor] = {}
        self.transfers: Callable[[bytes], Transfer | None] = lambda _: None
        self.rows: dict[str, int] = {}

    def statement(self) -> Signed[Statement]:
        """See `AttestorPort`."""
        return self._said((), ())

    def attest(self, anchor: Anchor, intents: Sequence[bytes]) -> Signed[Statement]:
        """See `AttestorPort`."""
        if self.against:
            raise Refused(self.against)
        if any(self.bound.get(intent, anchor) != anchor for intent in intents):
            raise Refused([Refusal(Rule.INTENT_BOUND, anchor=anchor.reference)])
        self.bound |= dict.fromkeys(intents, anchor)
        return self._said((anchor,), tuple(intents))

    def _said(self, anchors: tuple[Anchor, ...], intents: tuple[bytes, ...]) -> Signed[Statement]:
        if self.down:
            raise Unavailable("attestor", "no answer")
        self.sequence += 1
        now = self._clock()
        facts = tuple(
            facts_of(Ask(facts={"first_seen": NOW}), found, digest)  # type: ignore[arg-type]
            for digest in intents
            if (found := self.transfers(digest)) is not None
        )
        body = replace(
            treasury.statement(now, **self.rows).message,
            sequence=self.sequence,
            anchor=anchors,
            intents=facts,
            heights=tuple(ChainHeight(chain.name, 100, b"\1" * 32, NOW) for chain in (EVM, BITCOIN)),
            safes=tuple(
                safe_state(world().certificate(tier, EVM), nonce=self._chain.nonce)
                for tier in (Tier.CUSTOMER_HOT, Tier.OPERATIONAL)
            ),
            seats=tuple(SeatPosition(s.name, s.journal.state.position, s.journal.state.head) for s in self._seats),
        )
        return signed_by(body, world().domain, [ed25519("attestor")])


@dataclass
class FakePayouts:
    """One chain's payouts: EVM by default. A nonce or a coin is consumed by the first transaction in a block that spends it."""

    chain: Chain = EVM
    nonce: int = 7
    view: FakeChain = field(init=False)
    drift: tuple[Refusal, ...] = ()
    reverting: set[bytes] = field(default_factory=set)
    """Intents whose leaf cannot be paid."""
    lost: str = ""
    """`before`: what is sent does not arrive; `after`: it arrives, and nobody says so."""
    stale: bool = False
    fails: Outcome = Outcome.DONE
    pool: dict[bytes, Envelope] = field(default_factory=dict)
    mined: dict[str, tuple[Envelope, int]] = field(default_factory=dict)
    """By the anchor's reference: what consumed it, and in which block."""
    reverted: dict[bytes, int] = field(default_factory=dict)
    sent: list[Envelope] = field(default_factory=list)
    built: dict[bytes, UnsignedPayout] = field(default_factory=dict)
    fee: int = 5_000
    asks: int = 0
    """The fee that a block wants by now: satoshi, or on EVM anything above 0 for another envelope at the same nonce."""
    resealed: set[bytes] = field(default_factory=set)
    code: set[str] = field(default_factory=set)
    """Addresses where a contract stands."""
    stranger: bool = False
    """The next block consumes the anchor by a transaction that nobody here made."""

    def __post_init__(self) -> None:
        self.view = FakeChain(self.chain)

    # what a test does

    def mine(self, count: int = 1) -> None:
        """Blocks, the first of which takes what waits; the change of a Bitcoin payout arrives in it."""
        for envelope in list(self.pool.values()):
            at, height = envelope.anchor.reference, self.view.head().height + 1
            del self.pool[envelope.transaction]
            if self.fails is Outcome.REVERTED:
                self.reverted[envelope.transaction] = height
            elif at not in self.mined and (not self.chain.is_evm or int(at) == self.nonce):
                self.mined[at] = envelope, height
                self.nonce += 1
        for _ in range(count):
            self.view.mine()

    def paid(self) -> list[Paid]:
        """Everything that was ever paid."""
        return [paid for envelope, _ in self.mined.values() for paid in self.built[envelope.id].paid]

    # PayoutChain

    def preflight(self, wallet: bytes, certificate: WalletCertificate) -> Sequence[Refusal]:
        """See `PayoutChain`."""
        return self.drift

    def contracts(self, addresses: Collection[Address]) -> frozenset[Address]:
        """See `CodeReader`."""
        return frozenset(address for address in addresses if address.text in self.code)

    def next_anchor(
        self,
        wallet: bytes,
        certificate: WalletCertificate,
        payments: Sequence[Payment],
        taken: Collection[str],
        credited: Credited = none_credited,
    ) -> Reservation:
        """See `PayoutChain`."""
        if self.chain.is_evm:
            free = next(str(n) for n in range(self.nonce, self.nonce + 99) if str(n) not in taken)
        else:
            first = PSBT.parse(self._psbt(certificate, payments)).inputs[0]
            free = f"{first.txid.hex()}:{first.vout}"
        return Reservation(Anchor(certificate.chain, wallet, free), (free,), 0 if self.chain.is_evm else 5)

    def build(
        self,
        certificate: WalletCertificate,
        reservation: Reservation,
        payments: Sequence[Payment],
        sweeps: Sequence[Sweep] = (),
    ) -> UnsignedPayout:
        """See `PayoutChain`."""
        for position, payment in enumerate(payments):
            if payment.intent in self.reverting:
                raise Refused([Refusal(Rule.LEAF_FAILS, leaf=position, name="payment", why="reverts")])
        fee = 0 if self.chain.is_evm else self.fee
        paid = tuple(
            Paid(p.intent, p.asset, p.units, p.destination.text, fee if not i else 0) for i, p in enumerate(payments)
        )
        payload: SafeTx | PsbtPayload
        if self.chain.is_evm:
            payload = _safe_tx(certificate, int(reservation.anchor.reference), payments)
        else:
            payload = PsbtPayload(self.chain.name, self._psbt(certificate, payments))
        return self._unsigned(certificate, reservation.anchor, payload, paid, fee)

    def void(self, certificate: WalletCertificate, anchor: Anchor, outbid: int = 0) -> UnsignedPayout:
        """See `PayoutChain`; on Bitcoin for what was paid before and what a block wants by now."""
        if not self.chain.is_evm:
            fee = outbid + max(self.fee, self.asks)
            psbt = _whole(psbt_of(certificate, [], fee=fee, change=VOID_CHANGE), certificate)
            return self._unsigned(certificate, anchor, PsbtPayload(self.chain.name, psbt), (), fee)
        tx = void_safe_tx(certificate.chain, certificate.safe[0].address, int(anchor.reference))
        return self._unsigned(certificate, anchor, tx, (), 0)

    def combine(
        self, certificate: WalletCertificate, unsigned: UnsignedPayout, signatures: Sequence[SeatSignatures]
    ) -> SignedPayout:
        """See `PayoutChain`; really checked."""
        if isinstance(unsigned.payload, PsbtPayload):
            raw = psbts.finalize(certificate, unsigned.payload.psbt, signatures)
        else:
            raw = unsigned.id + pack(certificate, unsigned.id, signatures)
        return SignedPayout(unsigned.id, unsigned.anchor, raw, len(raw))

    def seal(self, certificate: Signed[WalletCertificate], signed: SignedPayout) -> Envelope:
        """See `PayoutChain`; the relayer's nonce is how many transactions the node knows."""
        raw = signed.raw
        if self.chain.is_evm:
            raw += (len(self.pool) + len(self.mined) + len(self.reverted)).to_bytes(2)
        return Envelope(signed.id, sha256(raw).digest(), signed.anchor, raw)

    def broadcast(self, envelope: Envelope) -> None:
        """See `PayoutChain`."""
        self.sent.append(envelope)
        if self.stale:
            self.stale = False
            self.reverted[b"another call"] = 0
            raise Refused([Refusal(Rule.ENVELOPE_STALE, nonce=0, relayer=1)])
        if self.lost != "before" and (not self.chain.is_evm or envelope.transaction in self.resealed):
            self.pool = {k: e for k, e in self.pool.items() if e.anchor != envelope.anchor}  # it replaces what waits
        if self.lost != "before" and envelope.anchor.reference not in self.mined:
            self.pool[envelope.transaction] = envelope
        if self.lost:
            raise Unavailable("node", "the connection broke")

    def outbid(
        self,
        certificate: WalletCertificate,
        reservation: Reservation,
        sent: UnsignedPayout,
        maxima: Mapping[bytes, int],
    ) -> UnsignedPayout | None:
        """See `FeeBumper`: out of the change, up to what the intents allow."""
        if self.chain.is_evm or self.asks <= sent.fee:
            return None
        if self.asks > sum(maxima.values()):
            raise Refused([Refusal(Rule.MAXIMUM_FEE, fee=self.asks, most=sum(maxima.values()))])
        assert isinstance(sent.payload, PsbtPayload)
        script = script_pubkey(change_address(certificate, reservation.change))
        (held,) = [units for units, paid in psbts.paid_scripts(sent.payload.psbt) if paid == script]
        raised = psbts.with_change(sent.payload.psbt, script, held - (self.asks - sent.fee))
        return self._unsigned(certificate, sent.anchor, PsbtPayload(self.chain.name, raised), sent.paid, self.asks)

    def reseal(self, certificate: Signed[WalletCertificate], signed: SignedPayout, last: Envelope) -> Envelope | None:
        """See `FeeBumper`: the same nonce, and one more byte for the price."""
        if not self.chain.is_evm or not self.asks:
            return None
        made = Envelope(signed.id, sha256(last.raw + b"+").digest(), signed.anchor, last.raw + b"+")
        self.resealed.add(made.transaction)
        return made

    def follow(self, certificate: WalletCertificate, envelopes: Sequence[Envelope], since: int = 0) -> Followed:
        """See `PayoutChain`."""
        by_id, at = {e.id: e for e in envelopes}, envelopes[0].anchor.reference
        if at in self.mined:
            envelope, height = self.mined[at]
            if envelope.id not in by_id or self.stranger:
                return Replaced(envelope.transaction)
            return self._mined(envelope, height, self.fails)
        for envelope in envelopes:
            if envelope.transaction in self.pool:
                return Pending(envelope.transaction)
        for envelope in envelopes[::-1]:
            if envelope.transaction in self.reverted:
                return self._mined(envelope, self.reverted[envelope.transaction], Outcome.REVERTED)
        return Unknown()

    def _mined(self, envelope: Envelope, height: int, outcome: Outcome) -> Followed:
        block = self.view.block(height)
        if block is None:
            return Unknown()
        fee = self.fee if self.chain.is_evm else self.built[envelope.id].fee
        return Mined(envelope.id, envelope.transaction, height, block.hash, outcome, fee, 100)

    def _unsigned(
        self,
        certificate: WalletCertificate,
        anchor: Anchor,
        payload: SafeTx | PsbtPayload,
        paid: tuple[Paid, ...],
        fee: int,
    ) -> UnsignedPayout:
        others = tuple(s.message for s in world().certificates.values() if s.message != certificate)
        decoded = decode(payload, Surroundings(certificate.struct_hash, certificate, ASSETS, others))
        assert isinstance(decoded, DecodedPayload), decoded
        digest = decoded.digests[0] if self.chain.is_evm else psbts.txid(payload.psbt)  # type: ignore[union-attr]
        made = UnsignedPayout(digest, anchor, certificate.struct_hash, payload, paid, fee, 100)
        self.built[digest] = made
        return made

    def _psbt(self, certificate: WalletCertificate, payments: Sequence[Payment]) -> bytes:
        outputs = [(p.units, script_pubkey(p.destination)) for p in payments]
        return _whole(psbt_of(certificate, outputs, fee=self.fee, change=5), certificate)


def _whole(psbt: PSBT, certificate: WalletCertificate) -> bytes:
    """With the scripts that a signer needs."""
    for index, scope in enumerate(psbt.inputs):
        scope.witness_script = Script(witness_script(certificate, 0, index))
    return bytes(psbt.serialize())


def _safe_tx(certificate: WalletCertificate, nonce: int, payments: Sequence[Payment]) -> SafeTx:
    calls = [_call(payment) for payment in payments]
    if len(calls) == 1:
        return safe_tx(certificate, *calls[0], nonce=nonce)
    return batch_tx(certificate, b"".join(packed(*call) for call in calls), nonce)


def _call(payment: Payment) -> tuple[str, int, bytes]:
    asset = ASSETS.get(payment.asset)
    if asset.contract is None:
        return payment.destination.text, payment.units, b""
    return asset.contract.text, 0, transfer_data(payment.destination.text, payment.units)


@dataclass
class Workshop:
    """A furnished treasury, two chains, four hot seats and an attestor; `parts` is the worker's own view of them."""

    policy: FakePolicy = field(default_factory=lambda: answers(Answer.REQUIRE))
    chain: Chain = EVM
    now: int = NOW + 1000
    store: Any = field(default_factory=FakeStore)  # the fake, whose insides tests change; or a real one

    def __post_init__(self) -> None:
        kernel = treasury.kernel(self.policy)
        self.treasury = Treasury(self.store, kernel, self.now)
        self.payouts = FakePayouts(self.chain)
        self.seats = [FakeSeat(name, self.policy, lambda: self.now) for name in HOT]
        self.attestor = FakeAttestor(self.seats, lambda: self.now, self.payouts)
        self.attestor.transfers = lambda digest: self.treasury.store.read(lambda work: work.transfers.get(digest))
        self.fuse = Fuse()
        self.pace = worker.Pace(retry=0)

    def parts(self, fuse: Fuse | None = None) -> worker.Parts:
        """What a worker that begins now is composed of."""
        fuse = fuse or Fuse()
        methods = (
            "preflight",
            "next_anchor",
            "build",
            "void",
            "combine",
            "seal",
            "outbid",
            "reseal",
            "broadcast",
            "follow",
        )
        return worker.Parts(
            store=Fused(self.treasury.store, fuse, "run"),  # type: ignore[arg-type]
            kernel=lambda: self.treasury.kernel,
            chains={self.chain: Fused(self.payouts, fuse, *methods)},  # type: ignore[dict-item]
            views={self.chain: self.payouts.view},
            seats=[Fused(seat, fuse, "sign") for seat in self.seats],  # type: ignore[misc]
            attestor=Fused(self.attestor, fuse, "statement", "attest"),  # type: ignore[arg-type]
            decode=decode,
            clock=lambda: self.now,
        )

    def step(self, fuse: Fuse | None = None) -> worker.StepReport:
        """One step of the worker."""
        return worker.step(self.parts(fuse), self.pace)

    def queued(self, number: int = 1, **changes: Any) -> Transfer:
        """A withdrawal of ada's that two people approved."""
        message = treasury.proposal(number, **changes)
        transfer = self.treasury.propose(message, key=f"k{number}", number=number)
        return self.treasury.approve(transfer, "ana", "bo")

    def get(self, transfer: Transfer) -> Transfer:
        """As it stands."""
        return self.treasury.get(transfer)

    def run(self, *transfers: Transfer, steps: int = 12) -> None:
        """Steps with a block after each, until these are at their end."""
        for _ in range(steps):
            self.step()
            if all(self.get(transfer).status.is_final for transfer in transfers):
                return
            self.payouts.mine()

    def kept(self, transfer: Transfer) -> Sequence[Envelope]:
        """The stored bytes of a transfer's payout."""

        def read(work: UnitOfWork) -> Sequence[Envelope]:
            permit = work.transfers.permit_of(transfer.digest)
            return () if permit is None else work.transfers.kept(permit.reservation.anchor)

        return self.treasury.store.read(read)
