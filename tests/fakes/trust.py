# SPDX-License-Identifier: AGPL-3.0-or-later
"""A born deployment and true requests to a seat: rosters, people, certificates, intents, payloads and statements, all signed.

`Ask` says what is asked; each of its fields changes exactly one thing, and everything after it is built and signed accordingly.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Final

from embit.ec import PublicKey  # type: ignore[import-untyped]
from embit.psbt import PSBT, DerivationPath  # type: ignore[import-untyped]
from embit.script import Script  # type: ignore[import-untyped]
from embit.transaction import Transaction, TransactionInput, TransactionOutput  # type: ignore[import-untyped]
from eth_abi.abi import encode
from eth_keys.datatypes import PublicKey as EvmKey
from eth_utils.address import to_checksum_address

from custody.chains.bitcoin import decode as bitcoin_decode
from custody.chains.bitcoin.scripts import change_address, receive_address, script_pubkey, witness_script
from custody.chains.evm import decode as evm_decode
from custody.keyfiles import Signer
from custody.rules.amounts import Asset, AssetKind, Assets
from custody.rules.approvals import Approval
from custody.rules.birth import SeatState
from custody.rules.certificates import Enrolment, WalletCertificate
from custody.rules.facts import Facts
from custody.rules.governance import PolicyActivation
from custody.rules.intents import Anchor, Proposal, TransferIntent
from custody.rules.payouts import Decoded, Payload, PsbtPayload, SafeTx, Surroundings
from custody.rules.requirement import Decision, Floors, Outcome, Requirement, RuleWords
from custody.rules.roster import ApiClient, Person, Roster, RosterVersion
from custody.rules.seat_journal import SeatJournal, admit_policy
from custody.rules.seat_request import BundleInForce, Policies, Request, Transfer
from custody.rules.settlements import FeeSchedule
from custody.rules.signatures import Signed
from custody.rules.statements import AssetCoverage, ChainHeight, IntentFacts, SafeState, SeatPosition, Statement
from custody.rules.typed import ZERO32, ZERO_ADDRESS, Domain
from custody.rules.wallets import Address, Chain, Tier
from tests.fakes.authenticator import Authenticator, Lies
from tests.fakes.seat import (
    BITCOIN,
    COLD,
    EVM,
    HOT,
    NOW,
    YEAR,
    Deployment,
    FakeVault,
    ed25519,
    seat_in_memory,
    secp256k1,
    signed_by,
)

ETH: Final = Asset("ETH", EVM, AssetKind.NATIVE, 18, dust=1000)
USDX: Final = Asset("USDX", EVM, AssetKind.ERC20, 6, Address(EVM, str(to_checksum_address("0x" + "77" * 20))))
BTC: Final = Asset("BTC", BITCOIN, AssetKind.NATIVE, 8, dust=546)
ASSETS: Final = Assets((ETH, USDX, BTC), {EVM: 0, BITCOIN: 3})
BUNDLE: Final = b"\x0b" * 32
STRANGER: Final = str(to_checksum_address("0x" + "a1" * 20))
PAYEE: Final = {
    EVM.name: str(to_checksum_address("0x" + "c0" * 20)),
    BITCOIN.name: "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080",
}
GROUPS: Final = {
    "ana": ("operations", "treasury"),
    "bo": ("risk",),
    "cy": ("risk", "operations"),
    "dee": ("operations", "operator"),
    "authority": (),
}
CLIENTS: Final = {
    "backend": (("read", "propose"), "customer"),
    "finance": (("propose",), "finance_staff"),
    "desk": (("propose",), "operator"),
    "settler": (("read", "settle"), "system"),
}
FLOORS: Final = Floors(
    people={
        Tier.CUSTOMER_HOT: {"ETH": ((10**19, 2), (10**20, 3)), "USDX": (), "BTC": ((10**8, 2), (10**9, 3))},
        Tier.CUSTOMER_COLD: {"ETH": ((0, 2),), "USDX": ((0, 2),), "BTC": ((0, 2),)},
        Tier.OPERATIONAL: {"ETH": ((0, 1),), "USDX": ((0, 1),), "BTC": ((0, 1),)},
    },
    automatic_most={"ETH": 5 * 10**18, "USDX": 10**9, "BTC": 5 * 10**7},
    automatic_day={"ETH": 9 * 10**18, "USDX": 10**10, "BTC": 9 * 10**7},
)
TWO: Final = Requirement((("operations", 1), ("risk", 1)))


@cache
def passkey(name: str) -> Authenticator:
    """A person's passkey, beside their device."""
    return Authenticator(f"{name}'s passkey")


class Trusted(Deployment):
    """Four people in groups, an address authority, and API clients for each role."""

    def __post_init__(self) -> None:
        super().__post_init__()
        people = tuple(
            Person(n, n.title(), g, (secp256k1(n).key, passkey(n).key), (True, False), NOW + YEAR)
            for n, g in GROUPS.items()
        )
        clients = tuple(ApiClient(n, ed25519(n).key, s, role, NOW + YEAR) for n, (s, role) in CLIENTS.items())
        self.version = replace(
            self.version,
            people=people,
            clients=clients,
            address_authorities=("authority",),
            policy_owners=("ana", "bo", "cy"),
            thresholds=replace(self.version.thresholds, policy=2),
        )

    def genesis(self, version: RosterVersion | None = None, without: str = "") -> Signed[RosterVersion]:
        """Version 1 signed by everybody it names."""
        message = version or self.version
        domain = Domain(message.struct_hash)
        signers: list[Signer] = [*(secp256k1(n) for n in GROUPS), *(ed25519(n) for n in CLIENTS), ed25519("attestor")]
        return signed_by(message, domain, signers).joined(seat.sign_roster(message) for seat in self.seats)


@dataclass(frozen=True)
class World:
    """What stays the same from test to test: the deployment, its certificates, and the state of one hot and one cold seat."""

    deployment: Trusted
    certificates: Mapping[tuple[str, str], Signed[WalletCertificate]]
    states: Mapping[str, SeatState]

    @property
    def domain(self) -> Domain:
        """Genesis."""
        return self.deployment.domain

    def certificate(self, tier: Tier, chain: Chain) -> WalletCertificate:
        """The newest, and only, certificate of a wallet."""
        return self.certificates[tier.value, chain.name].message


@cache
def world() -> World:
    """Eight seats, pinned, with a wallet for each tier and chain."""
    vaults = {name: FakeVault() for name in (*HOT, *COLD)}
    hosts = {name: seat_in_memory(name, vault) for name, vault in vaults.items()}
    deployment = Trusted(list(hosts.values()))
    deployment.pinned()
    found = {}
    for tier in Tier:
        for chain in (EVM, BITCOIN):
            signed = deployment.people_sign(deployment.draft(f"{tier.value}/{chain}", tier, chain))
            found[tier.value, chain.name] = signed
            hosts["cold-1" if tier is Tier.CUSTOMER_COLD else "hot-1"].accept(signed)
    states = {n: SeatState.from_json((vaults[n].read("state")[0] or {})["state"]) for n in ("hot-1", "cold-1")}
    return World(deployment, found, states)


@dataclass(frozen=True)
class FakePolicy:
    """A policy that answers one thing. `PolicyInForce`."""

    answer: Callable[[Facts], Decision]
    hash: bytes = BUNDLE
    floors: Floors = FLOORS

    def evaluate(self, facts: Facts) -> Decision:
        """See `PolicyInForce`."""
        return self.answer(facts)

    def words_of(self, rule: str) -> RuleWords | None:
        """See `PolicyInForce`."""
        return RuleWords("Two desks look at it.", "1 of operations, 1 of risk") if rule == "P01" else None


def answers(outcome: Outcome, requirement: Requirement | None = TWO, bundle: bytes = BUNDLE) -> FakePolicy:
    """A policy of one answer."""
    denied = ("D01",) if outcome is Outcome.DENY else ()
    decision = Decision(outcome, None if denied else requirement, ("P01",), denied, (), (), (bundle,))
    return FakePolicy(lambda _: decision, bundle)


def bundle(policy: FakePolicy, cap: int = 10**30) -> BundleInForce:
    """A bundle of one policy over the tests' assets."""
    symbols = [asset.symbol for asset in ASSETS]
    return BundleInForce(
        policy, ASSETS, FeeSchedule(policy.hash, dict.fromkeys(symbols, 25), 3600, dict.fromkeys(symbols, cap))
    )


@dataclass(frozen=True)
class Ask:
    """A request to a seat. Each field changes one thing; what is built from it afterwards follows."""

    chain: Chain = EVM
    tier: Tier = Tier.CUSTOMER_HOT
    payments: int = 1
    to_tier: Tier | None = None
    """Pays a wallet of ours instead of the payee."""
    both: Mapping[str, Any] = field(default_factory=dict)
    """Changes values of proposal and intent alike."""
    proposal: Mapping[str, Any] = field(default_factory=dict)
    intent: Mapping[str, Any] = field(default_factory=dict)
    proposer: str = "backend"
    approvers: tuple[str, ...] = ("ana", "bo")
    passkeys: Mapping[str, Lies] = field(default_factory=dict)
    """Which of them approve in a browser, and what it says instead of the truth."""
    enrolment: Mapping[str, Any] = field(default_factory=dict)
    authority: str = "authority"
    facts: Mapping[str, Any] = field(default_factory=dict)
    statement: Mapping[str, Any] = field(default_factory=dict)
    rows: Mapping[str, Any] = field(default_factory=dict)
    safe: Mapping[str, Any] = field(default_factory=dict)
    attestor: str = "attestor"
    policy: FakePolicy = field(default_factory=lambda: answers(Outcome.REQUIRE))
    pinned: Mapping[bytes, BundleInForce] = field(default_factory=dict)
    cap: int = 10**30
    nonce: int = 7
    payload: Callable[[Any], Payload] | None = None
    decoded: Callable[[Any], Any] | None = None
    journal: Callable[[SeatJournal], SeatJournal] | None = None
    request: Callable[[Request], Request] | None = None
    now: int = NOW + 1000


@dataclass(frozen=True)
class Built:
    """The arguments of `decide`."""

    request: Request
    decoded: Decoded
    journal: SeatJournal
    policy: Policies
    now: int


def journal_of(seat: str = "hot-1") -> SeatJournal:
    """A seat's journal after birth, with the tests' bundle in force."""
    domain = world().domain
    activation = PolicyActivation(BUNDLE, ZERO32, ZERO32, "cy", NOW)
    signed = signed_by(activation, domain, [secp256k1("ana"), secp256k1("bo")])
    learned = admit_policy(SeatJournal(world().states[seat]), signed, NOW)
    assert isinstance(learned, SeatJournal), learned
    return learned


def transfers_of(ask: Ask) -> tuple[Transfer, ...]:
    """Proposals, intents, approvals and enrolments."""
    return tuple(_transfer(ask, number) for number in range(ask.payments))


def _transfer(ask: Ask, number: int) -> Transfer:
    w, native = world(), ETH if ask.chain.is_evm else BTC
    certificate = w.certificate(ask.tier, ask.chain)
    values: dict[str, Any] = {
        "account": "customer:ada" if ask.to_tier is None and ask.tier.is_customer else "company",
        "chain": ask.chain.name,
        "asset": native.symbol,
        "amount": (10**18 if ask.chain.is_evm else 10**7) + number,
        "destination": PAYEE[ask.chain.name] if ask.to_tier is None else internal_address(ask.to_tier, ask.chain),
        "purpose": "withdrawal" if ask.to_tier is None else "rebalance",
    } | dict(ask.both)
    proposal = Proposal(**({"reference": f"order {number}", "expiry": NOW + 4000, **values} | dict(ask.proposal)))
    enrolment = None
    if ask.to_tier is None:
        kind = "customer_withdrawal" if ask.tier.is_customer else "allow_listed"
        said = {"chain": values["chain"], "address": values["destination"], "owner": values["account"], "kind": kind}
        enrolment = Enrolment(**({**said, "evidence": b"\1" * 32, "expiry": NOW + YEAR} | dict(ask.enrolment)))
    asset = next((a for a in ASSETS if a.symbol == values["asset"]), native)
    intent = TransferIntent(
        **(
            {
                "id": f"019b76da-7c00-7000-8000-{number:012d}",
                "proposal": proposal.struct_hash,
                "wallet": certificate.struct_hash,
                "certificate": certificate.struct_hash,
                "token": asset.contract.text if asset.contract else ZERO_ADDRESS,
                "decimals": asset.decimals,
                "destination_kind": enrolment.kind if enrolment else "internal_wallet",
                "enrolment": enrolment.struct_hash if enrolment else ZERO32,
                "maximum_fee": 0 if ask.chain.is_evm else 20_000,
                "initiator": ask.proposer,
                "policy": BUNDLE,
                "roster": 1,
                "not_before": NOW,
                "expiry": NOW + 4000,
                **values,
            }
            | dict(ask.intent)
        )
    )
    signer = secp256k1(ask.proposer) if ask.proposer in GROUPS else ed25519(ask.proposer)
    digest = w.domain.digest(intent)
    approvals = tuple(
        Approval(
            digest, n, passkey(n).over(digest, ask.passkeys[n]) if n in ask.passkeys else secp256k1(n).sign(digest)
        )
        for n in ask.approvers
    )
    signed = signed_by(enrolment, w.domain, [secp256k1(ask.authority)]) if enrolment else None
    return Transfer(signed_by(proposal, w.domain, [signer]), intent, approvals, signed)


def internal_address(tier: Tier, chain: Chain) -> str:
    """Where a transfer to a wallet of ours goes."""
    certificate = world().certificate(tier, chain)
    return certificate.safe[0].address if chain.is_evm else change_address(certificate, 3).text


def transfer_data(to: str, units: int) -> bytes:
    """An ERC-20 transfer's call data."""
    return bytes.fromhex("a9059cbb") + encode(["address", "uint256"], [to, units])


def packed(to: str, value: int, data: bytes, operation: int = 0) -> bytes:
    """One leaf of a MultiSend batch."""
    return bytes([operation]) + bytes.fromhex(to[2:]) + value.to_bytes(32) + len(data).to_bytes(32) + data


def multi_send(leaves: bytes) -> bytes:
    """multiSend's call data."""
    return bytes.fromhex("8d80ff0a") + encode(["bytes"], [leaves])


def safe_tx(
    certificate: WalletCertificate, to: str, value: int = 0, data: bytes = b"", nonce: int = 7, operation: int = 0
) -> SafeTx:
    """A SafeTx of a certified Safe with everything idle at zero."""
    safe = certificate.safe[0].address
    return SafeTx(certificate.chain, safe, to, value, data, operation, 0, 0, 0, ZERO_ADDRESS, ZERO_ADDRESS, nonce)


def batch_tx(certificate: WalletCertificate, leaves: bytes, nonce: int = 7) -> SafeTx:
    """A SafeTx that runs a batch through the certificate's MultiSendCallOnly."""
    return safe_tx(certificate, certificate.safe[0].multisend, data=multi_send(leaves), nonce=nonce, operation=1)


def call_of(intent: TransferIntent) -> tuple[str, int, bytes]:
    """The call that pays an intent."""
    if intent.asset == "ETH":
        return intent.destination, intent.amount, b""
    return intent.token, 0, transfer_data(intent.destination, intent.amount)


def evm_payload(ask: Ask, intents: list[TransferIntent]) -> SafeTx:
    """One call, or a batch."""
    certificate = world().certificate(ask.tier, EVM)
    if len(intents) == 1:
        to, value, data = call_of(intents[0])
        return safe_tx(certificate, to, value, data, ask.nonce)
    return batch_tx(certificate, b"".join(packed(*call_of(intent)) for intent in intents), ask.nonce)


def scope_keys(scope: Any, certificate: WalletCertificate, branch: int, index: int) -> None:
    """Put the key paths of a place into a PSBT's input or output."""
    script = witness_script(certificate, branch, index)
    for i in range(script[-2] - 0x50):
        key = PublicKey.parse(script[2 + 34 * i : 35 + 34 * i])
        scope.bip32_derivations[key] = DerivationPath(
            b"\1\2\3\4", [0x80000030, 0x80000001, 0x80000000, 0x80000002, branch, index]
        )


def coin(certificate: WalletCertificate, units: int, index: int = 0, salt: int = 0) -> Transaction:
    """A transaction that paid a wallet's receive address: output 1 of it."""
    script = Script(script_pubkey(receive_address(certificate, index)))
    vin = [TransactionInput(bytes([salt + 1]) * 32, 0, sequence=0xFFFFFFFD)]
    return Transaction(
        2, vin, [TransactionOutput(1000, Script(b"\x00\x14" + b"\7" * 20)), TransactionOutput(units, script)], 0
    )


def psbt_of(
    certificate: WalletCertificate,
    outputs: list[tuple[int, bytes]],
    *,
    units: int = 2 * 10**8,
    fee: int = 5_000,
    coins: int = 1,
    change: int | None = 5,
) -> PSBT:
    """An unsigned PSBT that spends coins of a wallet, with change where there is an index for it."""
    previous = [coin(certificate, units, index, index) for index in range(coins)]
    vin = [TransactionInput(tx.txid(), 1, sequence=0xFFFFFFFD) for tx in previous]
    vout = [TransactionOutput(value, Script(script)) for value, script in outputs]
    if change is not None:
        rest = units * coins - fee - sum(value for value, _ in outputs)
        vout.append(TransactionOutput(rest, Script(script_pubkey(change_address(certificate, change)))))
    psbt = PSBT(Transaction(2, vin, vout, 0), {})
    for index, (scope, tx) in enumerate(zip(psbt.inputs, previous, strict=True)):
        scope.non_witness_utxo = tx
        scope_keys(scope, certificate, 0, index)
    if change is not None:
        scope_keys(psbt.outputs[-1], certificate, 1, change)
    return psbt


def bitcoin_payload(ask: Ask, intents: list[TransferIntent]) -> PsbtPayload:
    """Outputs for each intent, and change."""
    outputs = [(i.amount, script_pubkey(Address(BITCOIN, i.destination))) for i in intents]
    coins = 1 + sum(value for value, _ in outputs) // (2 * 10**8)
    psbt = psbt_of(world().certificate(ask.tier, BITCOIN), outputs, coins=coins)
    if ask.to_tier is not None:
        for scope in psbt.outputs[:-1]:
            scope_keys(scope, world().certificate(ask.to_tier, BITCOIN), 1, 3)
    return PsbtPayload(BITCOIN.name, psbt.serialize())


def decode(payload: Payload, certificate: WalletCertificate, others: tuple[WalletCertificate, ...] = ()) -> Decoded:
    """What the host does with a payload."""
    around = Surroundings(certificate.struct_hash, certificate, ASSETS, others)
    if isinstance(payload, SafeTx):
        return evm_decode.decode(payload, around)
    return bitcoin_decode.decode(payload, around)


def anchor_of(payload: Payload, certificate: WalletCertificate) -> Anchor:
    """The anchor that an honest attestor would name."""
    if isinstance(payload, SafeTx):
        return Anchor(payload.chain, certificate.struct_hash, str(payload.nonce))
    try:
        first = PSBT.parse(payload.psbt).inputs[0]
    except Exception:  # noqa: BLE001 - a payload that is broken on purpose
        return Anchor(payload.chain, certificate.struct_hash, "0:0")
    return Anchor(payload.chain, certificate.struct_hash, f"{first.txid.hex()}:{first.vout}")


def facts_of(ask: Ask, transfer: Transfer, digest: bytes) -> IntentFacts:
    """What an honest attestor says about an intent."""
    said: dict[str, Any] = {
        "intent": digest,
        "hold_stands": True,
        "balance_covers": True,
        "usd": 1_000_000,
        "customer_24h": 1_000_000,
        "wallet_1h": 1_000_000,
        "initiator_24h": 1_000_000,
        "settled_24h": 0,
        "swept_24h": transfer.intent.amount if transfer.intent.purpose == "fee_sweep" else 0,
        "destination_after": transfer.intent.amount,
        "first_seen": NOW + 10,
        "destination_first_seen": NOW - 10**6,
    }
    return IntentFacts(**(said | dict(ask.facts)))


def safe_state(certificate: WalletCertificate, **changes: Any) -> SafeState:
    """A Safe as certified."""
    safe = certificate.safe[0]
    owners = tuple(EvmKey.from_compressed_bytes(s.key.public).to_checksum_address() for s in certificate.seats)
    said: dict[str, Any] = {
        "wallet": certificate.struct_hash,
        "chain": certificate.chain,
        "address": safe.address,
        "deployed": True,
        "nonce": 7,
        "owners": owners,
        "threshold": certificate.m,
        "singleton": safe.singleton,
        "handler": safe.handler,
        "guard": ZERO_ADDRESS,
        "modules": (),
    }
    return SafeState(**(said | changes))


def statement_of(ask: Ask, transfers: tuple[Transfer, ...], anchor: Anchor, journal: SeatJournal) -> Signed[Statement]:
    """What an honest attestor signs for this payout."""
    w = world()
    row = {
        "reserves": 10**30,
        "on_chain": 10**30,
        "in_ledger": 10**30,
        "available": 10**30 - 100,
        "held": 50,
        "suspense": 50,
    }
    row |= {"in_flight": 0, "accrued_fees": 10**30, "matured_fees": 10**30} | dict(ask.rows)
    heights = tuple(ChainHeight(chain.name, 100, b"\1" * 32, NOW) for chain in (EVM, BITCOIN))
    safes = (safe_state(w.certificate(ask.tier, EVM), **ask.safe),) if ask.chain.is_evm else ()
    said: dict[str, Any] = {
        "sequence": 9,
        "time": ask.now - 20,
        "anchor": (anchor,),
        "intents": tuple(facts_of(ask, t, w.domain.digest(t.intent)) for t in transfers),
        "heights": heights,
        "coverage": tuple(AssetCoverage(asset.symbol, **row) for asset in ASSETS),
        "safes": safes,
        "seats": (SeatPosition(journal.state.seat, journal.state.position, journal.state.head),),
        "ledger_position": 3,
        "ledger_head": b"\1" * 32,
        "roster": 1,
        "policy": BUNDLE,
    }
    return signed_by(Statement(**(said | dict(ask.statement))), w.domain, [ed25519(ask.attestor)])


def build(ask: Ask, base: Request | None = None) -> Built:
    """A request, and everything else that `decide` takes. `base` gives payload, void and rotation of a request without intents."""
    w = world()
    certificate = w.certificate(ask.tier, ask.chain)
    seat = "cold-1" if ask.tier is Tier.CUSTOMER_COLD else "hot-1"
    journal = ask.journal(journal_of(seat)) if ask.journal else journal_of(seat)
    transfers = transfers_of(ask) if base is None else ()
    intents = [transfer.intent for transfer in transfers]
    payload: Payload = base.payload if base else (evm_payload if ask.chain.is_evm else bitcoin_payload)(ask, intents)
    payload = ask.payload(payload) if ask.payload else payload
    others = tuple(
        signed for signed in w.certificates.values() if ask.to_tier and signed.message.tier == ask.to_tier.value
    )
    statement = statement_of(ask, transfers, anchor_of(payload, certificate), journal)
    request = (
        replace(base, payload=payload, statement=statement)
        if base
        else Request(payload, certificate.struct_hash, statement, transfers, others)
    )
    request = ask.request(request) if ask.request else request
    known = tuple(signed.message for signed in request.certificates)
    decoded = decode(request.payload, certificate, known)
    decoded = ask.decoded(decoded) if ask.decoded else decoded
    return Built(request, decoded, journal, Policies(bundle(ask.policy, ask.cap), ask.pinned), ask.now)


def roster() -> Roster:
    """Version 1."""
    found = world().states["hot-1"].pinned
    assert found is not None
    return found
