# SPDX-License-Identifier: AGPL-3.0-or-later
"""Payloads changed after people approved, carried straight to seats' own processes by whoever owns the worker.

Each is the worker's true request with one lie in it: true approvals, a fresh statement that speaks for this very anchor. What
refuses it is the seat's own decoder and rules; and the same request without the lie is signed at the end.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import cycle

from embit.psbt import PSBT, OutputScope  # type: ignore[import-untyped]
from embit.script import Script  # type: ignore[import-untyped]
from embit.transaction import TransactionOutput  # type: ignore[import-untyped]
from eth_abi.abi import decode
from eth_account import Account
from eth_utils.address import to_checksum_address

from custody.chains.bitcoin.scripts import script_pubkey
from custody.chains.evm.leaves import Call, payment_call, safe_tx
from custody.flows.authorization import SigningPermit
from custody.rules.approvals import Approval
from custody.rules.payouts import PsbtPayload, SafeTx
from custody.rules.refusals import Rule
from custody.rules.seat_request import Request
from custody.rules.transfers import Status
from custody.rules.wallets import Address
from devnet.birth import BITCOIN, EVM
from devnet.contracts import call_data
from devnet.scenes.attacks import Attacker, refused
from devnet.scenes.attacks_people import COINS, LARGE, SMALL
from devnet.scenes.desk import Desk, find
from devnet.scenes.handed import next_anchor
from devnet.scenes.stage import Stage
from devnet.story import Story

Lie = tuple[str, Rule, Request]


def payloads(stage: Stage, story: Story) -> None:
    """Every lie on both chains, each to another seat; then a second anchor for the same intents; then the truth is signed."""
    story.chapter("Refused: payloads tampered with after approval, handed straight to seats")
    desk = Desk(stage)
    attacker = Attacker(desk)
    transfers = [find(stage, reference) for reference in (LARGE, SMALL, COINS)]
    desk.pass_a_day()
    attacker.step([])
    permits = [attacker.permit(transfer) for transfer in transfers]
    evm, bitcoin = (attacker.asked(permits[which].reservation.anchor) for which in (0, 2))
    before = attacker.positions()
    seats = cycle(attacker.seats.items())
    paying = attacker.signing(permits[0], evm)
    lies = [*_evm_lies(stage, evm, paying), *_people_lies(stage, evm), *_bitcoin_lies(stage, bitcoin)]
    for (what, rule, request), (name, seat) in zip(lies, seats, strict=False):
        refused(story, f"seat {name}", what, rule, lambda seat=seat, request=request: seat.sign(request))  # type: ignore[misc]
    story.claim("nothing was signed: no seat's journal moved", attacker.positions() == before)
    _two_anchors(stage, story, attacker, [(paying, evm), (attacker.signing(permits[2], bitcoin), bitcoin)])
    desk.work(story, *transfers)
    ended = [desk.now(transfer).status for transfer in transfers]
    story.claim("the same, with no lie in it: signed and paid", ended == [Status.COMPLETED] * 3, ", ".join(ended))


def _evm_lies(stage: Stage, request: Request, permit: SigningPermit) -> Iterator[Lie]:
    """What a SafeTx can be made to do besides what was approved."""
    payload, stranger = request.payload, Account.create().address
    if not isinstance(payload, SafeTx):
        raise TypeError(type(payload).__name__)
    assets, certificate = stage.deployment.bundle.assets, permit.wallet.certificate
    calls, thief = calls_of(payload), Address(EVM, stranger)
    first = next(payment for payment in permit.payments if payment.asset == "USDX")

    def paid(**changes: object) -> Sequence[Call]:
        was, now = (payment_call(p, assets, EVM) for p in (first, replace(first, **changes)))  # type: ignore[arg-type]
        return [now if (c.to, c.value, c.data) == (was.to, was.value, was.data) else c for c in calls]

    def calling(changed: Sequence[Call]) -> Request:
        return replace(request, payload=safe_tx(certificate, payload.nonce, changed))

    def with_fields(**changes: object) -> Request:
        return replace(request, payload=replace(payload, **changes))  # type: ignore[arg-type]

    usd, safe = stage.world.contracts.usd, certificate.safe[0].address
    owner = call_data("addOwnerWithThreshold(address,uint256)", stranger, 1)
    allowance = call_data("approve(address,uint256)", stranger, 2**256 - 1)
    yield (
        "operation=1 into a stranger's contract",
        Rule.DELEGATECALL,
        with_fields(to=stranger, data=call_data("transfer(address,uint256)", stranger, 0), operation=1),
    )
    yield "another destination", Rule.PAYLOAD_MISMATCH, calling(paid(destination=thief))
    yield "another token", Rule.PAYLOAD_MISMATCH, calling(paid(asset="USDN"))
    yield "one unit more", Rule.PAYLOAD_MISMATCH, calling(paid(units=first.units + 1))
    yield "a hidden extra leaf", Rule.PAYLOAD_MISMATCH, calling([*calls, Call("", stranger, 1, b"")])
    yield "a payment left out", Rule.PAYLOAD_MISMATCH, calling([c for c in calls if c in paid(units=1)])
    yield "an allowance for a stranger", Rule.UNKNOWN_CALL, calling([*calls, Call("", usd, 0, allowance)])
    yield "a new owner among the leaves", Rule.SAFE_CHANGED, calling([*calls, Call("", safe, 0, owner)])
    yield (
        "gas refunded in tokens to a stranger",
        Rule.GAS_FIELDS,
        with_fields(base_gas=10**9, gas_price=1, gas_token=usd, refund_receiver=stranger),
    )


def _people_lies(stage: Stage, request: Request) -> Iterator[Lie]:
    """True payload, and approvals that an owner of the database would make up."""
    cast, which = stage.world.cast, next(i for i, t in enumerate(request.transfers) if t.intent.asset == "USDX")
    transfer = request.transfers[which]
    by = {approval.person: approval for approval in transfer.approvals}
    digest = by["ana"].intent

    def approved(*approvals: Approval) -> Request:
        changed = [*request.transfers]
        changed[which] = replace(transfer, approvals=approvals)
        return replace(request, transfers=tuple(changed))

    second = Approval(digest, "ana", cast.spare["ana"].sign(digest))
    yield "ana under two keys and cleo, as if three people", Rule.SIGNER_TWICE, approved(by["ana"], second, by["cleo"])
    yield (
        "ana's second key in dan's name",
        Rule.QUORUM_NOT_REACHED,
        approved(by["ana"], replace(second, person="dan"), by["cleo"]),
    )
    yield "no approvals at all", Rule.QUORUM_NOT_REACHED, approved()
    intent = replace(transfer.intent, amount=transfer.intent.amount + 1)
    raised = [*request.transfers]
    raised[which] = replace(transfer, intent=intent)
    yield "the amount raised in the approved intent", Rule.PROPOSAL_MISMATCH, replace(request, transfers=tuple(raised))


def _bitcoin_lies(stage: Stage, request: Request) -> Iterator[Lie]:
    """What a PSBT can be made to do besides what was approved."""
    raw, thief = request.payload, str(stage.world.net.bitcoind.rpc("getnewaddress", wallet="miner"))
    if not isinstance(raw, PsbtPayload):
        raise TypeError(type(raw).__name__)
    stranger = Script(script_pubkey(Address(BITCOIN, thief)))
    paid = request.transfers[0].intent.amount

    def lie(change: Callable[["PSBT", "OutputScope", "OutputScope"], object]) -> Request:
        psbt = PSBT.parse(raw.psbt)
        back = next(scope for scope in psbt.outputs if scope.bip32_derivations)
        to = next(scope for scope in psbt.outputs if not scope.bip32_derivations)
        change(psbt, back, to)
        return replace(request, payload=PsbtPayload(raw.chain, bytes(psbt.serialize())))

    def extra(psbt: "PSBT", back: "OutputScope", _: "OutputScope") -> None:
        back.value -= 50_000
        psbt.outputs.append(OutputScope(vout=TransactionOutput(50_000, stranger)))

    def to_stranger(_: "PSBT", back: "OutputScope", __: "OutputScope") -> None:
        back.script_pubkey = stranger
        back.bip32_derivations.clear()

    yield "change to a stranger", Rule.PAYLOAD_MISMATCH, lie(to_stranger)
    yield (
        "change to a stranger that still names our keys",
        Rule.FOREIGN_KEY,
        lie(lambda _, back, __: setattr(back, "script_pubkey", stranger)),
    )
    yield "another destination", Rule.PAYLOAD_MISMATCH, lie(lambda _, __, to: setattr(to, "script_pubkey", stranger))
    yield "one satoshi more", Rule.PAYLOAD_MISMATCH, lie(lambda _, __, to: setattr(to, "value", to.value + 1))
    yield "an extra output", Rule.PAYLOAD_MISMATCH, lie(extra)
    yield (
        "a fee of 10 %",
        Rule.FEE_TOO_HIGH,
        lie(lambda _, back, __: setattr(back, "value", back.value - paid // 10)),
    )
    yield "a lock time", Rule.TRANSACTION_SHAPE, lie(lambda psbt, _, __: setattr(psbt, "locktime", 500))
    yield (
        "a sequence that waits ten blocks",
        Rule.TRANSACTION_SHAPE,
        lie(lambda psbt, _, __: setattr(psbt.inputs[0], "sequence", 10)),
    )
    yield (
        "SIGHASH_NONE|ANYONECANPAY",
        Rule.SIGHASH,
        lie(lambda psbt, _, __: setattr(psbt.inputs[0], "sighash_type", 0x82)),
    )


def _two_anchors(
    stage: Stage, story: Story, attacker: Attacker, payouts: Sequence[tuple[SigningPermit, Request]]
) -> None:
    """Two seats sign the truth; then the same intents are offered on another nonce and on another coin ("please sign again")."""
    story.chapter("Refused: the same intents on a second anchor")
    attacker.step(["hot-1", "hot-2"])
    attestor, seat = stage.attestor, attacker.seats["hot-1"]
    for permit, request in payouts:
        if isinstance(request.payload, SafeTx):
            second = attacker.next_nonce(permit.permit)
            payload = replace(request.payload, nonce=int(second.reference))
            other = replace(request, payload=payload)
            where = "nonce"
        else:
            free = next_anchor(attacker.desk, find(stage, COINS))
            built = attacker.chain(free.anchor).build(permit.wallet.certificate, free, permit.payments)
            other = replace(request, payload=built.payload)
            second, where = free.anchor, "coin"
        intents = permit.permit.intents
        what = f"another {where} for what two seats signed"
        refused(
            story,
            "the attestor",
            what,
            Rule.INTENT_BOUND,
            lambda second=second, intents=intents: attestor.attest(second, intents),  # type: ignore[misc]
        )
        refused(story, "seat hot-1", what, Rule.INTENT_BOUND, lambda other=other: seat.sign(other))  # type: ignore[misc]
        fresh = attacker.seats["hot-3"]
        refused(
            story,
            "seat hot-3, which signed nothing",
            what,
            Rule.STATEMENT_MISMATCH,
            lambda other=other, fresh=fresh: fresh.sign(other),  # type: ignore[misc]
        )


def calls_of(payload: SafeTx) -> list[Call]:
    """The calls of a SafeTx: itself, or the leaves of its batch (MultiSend packs operation, to, value, length and data)."""
    if not payload.operation:
        return [Call("", payload.to, payload.value, payload.data)]
    (leaves,) = decode(["bytes"], payload.data[4:])
    found, at = [], 0
    while at < len(leaves):
        size = int.from_bytes(leaves[at + 53 : at + 85])
        to = to_checksum_address(leaves[at + 1 : at + 21])
        found.append(Call("", str(to), int.from_bytes(leaves[at + 21 : at + 53]), leaves[at + 85 : at + 85 + size]))
        at += 85 + size
    return found
