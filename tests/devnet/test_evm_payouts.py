# SPDX-License-Identifier: AGPL-3.0-or-later
"""Payouts out of real Safes on Anvil: built, decoded by the seats' own decoder, signed by keys in vaults, carried, followed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import pytest
from eth_account import Account
from eth_utils.crypto import keccak

from custody.chains.evm import wire
from custody.chains.evm.client import EvmClient
from custody.chains.evm.deploy import deploy_safe
from custody.chains.evm.leaves import execute_data, library_hash
from custody.chains.evm.payouts import EvmPayouts
from custody.chains.evm.relay import deploy_deposits
from custody.chains.evm.safes import deposit_parameters, deposit_safe
from custody.chains.evm.signatures import pack
from custody.chains.evm.transactions import send, wait
from custody.chains.payouts import open_payouts
from custody.flows.contracts import apart
from custody.rules.amounts import Asset, AssetKind, Assets
from custody.rules.errors import InvalidInput, Unavailable
from custody.rules.payments import (
    Envelope,
    Mined,
    Outcome,
    Payment,
    Pending,
    Replaced,
    SeatSignatures,
    SignedPayout,
    Sweep,
    Unknown,
    UnsignedPayout,
)
from custody.rules.payouts import LeafKind, Place, PsbtPayload, SafeTx, ToSign
from custody.rules.refusals import Refused, Rule
from custody.rules.transfers import Transfer
from custody.rules.wallets import Address
from custody.vault.signing import OpenedKeys, sign_digests
from devnet.anvil import Anvil
from devnet.contracts import DevnetContracts, call_data, deploy_all, fund, mine, mint
from devnet.measuring import evm_batches
from devnet.throwaway import QUORUM, SEATS, RelayerHand, SeatedWallet, seated_safe
from tests.fakes.bitcoin import REGTEST
from tests.fakes.evm import CHAIN, account, exec_call
from tests.fakes.payouts import Workshop
from tests.fakes.trust import PAYEE

HANDLER_SLOT = "0x" + keccak(text="fallback_manager.handler.address").hex()
GUARD_SLOT = "0x" + keccak(text="guard_manager.guard.address").hex()
DEPLOYER = account("deployer")
ETHER = 10**18
USD = 10**6


@dataclass(frozen=True)
class World:
    """One chain, one funded 3-of-4 Safe with its seats, the relayer, and the chain's payouts."""

    node: Anvil
    client: EvmClient
    contracts: DevnetContracts
    wallet: SeatedWallet
    relayer: RelayerHand
    payouts: EvmPayouts

    @property
    def safe(self) -> str:
        """The Safe's address."""
        return self.wallet.certificate.safe[0].address

    def held(self, symbol: str, address: str) -> int:
        """Base units of an asset at an address, at the head."""
        asset = self.wallet.assets.get(symbol)
        if asset.contract is None:
            return wire.quantity(self.client.call("eth_getBalance", address, "latest"))
        asked = {"to": asset.contract.text, "data": "0x" + call_data("balanceOf(address)", address).hex()}
        return wire.quantity(self.client.call("eth_call", asked, "latest"))

    def build(
        self, payments: Sequence[Payment], sweeps: Sequence[Sweep] = (), taken: Sequence[str] = ()
    ) -> UnsignedPayout:
        """Reserve the next nonce and build."""
        certificate = self.wallet.certificate
        reservation = self.payouts.next_anchor(self.wallet.name, certificate, payments, taken)
        return self.payouts.build(certificate, reservation, payments, sweeps)

    def envelope(self, unsigned: UnsignedPayout, seats: Sequence[str] = QUORUM) -> Envelope:
        """Signed by these seats, put together and sealed."""
        signed = self.payouts.combine(self.wallet.certificate, unsigned, self.wallet.sign(unsigned, seats))
        return self.payouts.seal(self.wallet.signed, signed)

    def send(self, unsigned: UnsignedPayout) -> Mined:
        """All the way into a block."""
        envelope = self.envelope(unsigned)
        self.carry(envelope)
        mined = self.payouts.follow(self.wallet.certificate, [envelope])
        assert isinstance(mined, Mined)
        return mined

    def carry(self, envelope: Envelope) -> None:
        """Send it and wait for its block: Anvil says yes to a transaction a moment before it mines it."""
        self.payouts.broadcast(envelope)
        wait(self.client, envelope.transaction)

    def nonce(self) -> int:
        """The Safe's own."""
        return wire.quantity(self.client.read(self.safe, "nonce()"))


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A chain of this module's own."""
    anvil = Anvil(tmp_path_factory.mktemp("payouts") / "anvil")
    try:
        anvil.start()
        client = EvmClient(anvil.url, CHAIN)
        fund(client, DEPLOYER.address, 10**6 * ETHER)
        contracts = deploy_all(client, DEPLOYER)
        assets = registry(contracts)
        wallet = seated_safe(contracts.safe, "customer_hot/eip155:31338", assets, CHAIN)
        deploy_safe(client, DEPLOYER, wallet.certificate.safe[0])
        relayer = RelayerHand(CHAIN)
        fund(client, relayer.account.address, 100 * ETHER)
        fund(client, wallet.certificate.safe[0].address, 1000 * ETHER)
        for token in (contracts.usd, contracts.silent_usd):
            mint(client, DEPLOYER, token, wallet.certificate.safe[0].address, 10**6 * USD)
        yield World(anvil, client, contracts, wallet, relayer, EvmPayouts(client, assets, relayer))
    finally:
        anvil.stop()


def registry(contracts: DevnetContracts) -> Assets:
    """Ether, a dollar, and a dollar that returns no data."""

    def token(symbol: str, contract: str) -> Asset:
        return Asset(symbol, CHAIN, AssetKind.ERC20, 6, Address(CHAIN, contract))

    eth = Asset("ETH", CHAIN, AssetKind.NATIVE, 18)
    return Assets((eth, token("USDX", contracts.usd), token("USDN", contracts.silent_usd)), {CHAIN: 1})


@pytest.fixture
def world(chain: World) -> Iterator[World]:
    """The same for every test, put back afterwards."""
    before = chain.node.snapshot()
    yield chain
    chain.node.revert(before)


def fresh() -> str:
    """An address that nobody has used."""
    return str(Account.create().address)


def pay(asset: str, units: int, to: str | None = None, intent: int = 1) -> Payment:
    """One payment, of an intent by its number."""
    return Payment(intent.to_bytes(32), asset, units, Address(CHAIN, to or fresh()))


def rules(caught: pytest.ExceptionInfo[Refused]) -> list[Rule]:
    """The rules that refused, in order."""
    return [refusal.rule for refusal in caught.value.refusals]


@pytest.mark.parametrize("asset", ["ETH", "USDX", "USDN"])
def test_one_payment(world: World, asset: str) -> None:
    """Each asset alone: a plain call, the hash of library, contract and decoder the same, three seats' keys, one block."""
    to = fresh()
    unsigned = world.build([pay(asset, 1234, to)])
    assert isinstance(unsigned.payload, SafeTx)
    assert unsigned.payload.operation == 0
    decoded = world.wallet.decode(unsigned)
    assert decoded.digests == (unsigned.id,)
    assert decoded.anchor == unsigned.anchor
    assert [(leaf.asset, leaf.units, leaf.destination) for leaf in decoded.leaves] == [(asset, 1234, to)]
    mined = world.send(unsigned)
    assert (mined.outcome, mined.id) == (Outcome.DONE, unsigned.id)
    assert mined.size < unsigned.size < mined.size * 2
    assert world.held(asset, to) == 1234
    assert world.nonce() == int(unsigned.anchor.reference) + 1


def test_batch_of_every_asset(world: World) -> None:
    """Ether and both tokens in one SafeTx through MultiSendCallOnly; one nonce, every payee paid exactly."""
    payments = [
        pay(asset, 1000 + i, intent=i) for i, asset in enumerate(("ETH", "USDX", "USDN", "ETH", "USDX", "USDN"))
    ]
    unsigned = world.build(payments)
    assert isinstance(unsigned.payload, SafeTx)
    assert (unsigned.payload.operation, unsigned.payload.to) == (1, world.contracts.safe.multisend)
    assert UnsignedPayout.from_json(unsigned.to_json()) == unsigned
    assert world.wallet.decode(unsigned).digests == (unsigned.id,)
    mined = world.send(unsigned)
    assert [world.held(p.asset, p.destination.text) for p in payments] == [1000 + i for i in range(6)]
    assert mined.fee == mined.size * gas_price(world, mined)


def test_a_hundred_payments(world: World) -> None:
    """A hundred new addresses in one transaction, and what each costs."""
    payments = [pay(("ETH", "USDX", "USDN")[i % 3], 5 + i, intent=i) for i in range(100)]
    mined = world.send(world.build(payments))
    assert [world.held(p.asset, p.destination.text) for p in payments] == [5 + i for i in range(100)]
    assert mined.size / 100 < 60_000


FICKLE = "0x3a15600957600080fd5b00"
"""Reverts where its caller pays for gas, as in a block, and takes coins where nobody does, as in `eth_call`."""
DELEGATED = "0xef0100" + "c0" * 20
"""An ordinary account whose coins run code by EIP-7702."""


def test_a_contract_that_reverts_only_in_a_block(world: World) -> None:
    """It passes the simulation beside others and takes them all down; paid alone, as its code says, the others get theirs."""
    fickle, delegated, plain = fresh(), fresh(), [fresh(), fresh()]
    for address, code in ((fickle, FICKLE), (delegated, DELEGATED)):
        world.client.call("anvil_setCode", address, code)
    shop = Workshop()
    made = [shop.queued(number, destination=PAYEE[CHAIN.name]) for number in range(1, 5)]
    places = (fickle, plain[0], delegated, plain[1])
    queue = [
        replace(transfer, intent=replace(transfer.intent, destination=to, amount=number))
        for number, (transfer, to) in enumerate(zip(made, places, strict=True), 1)
    ]
    groups = apart(world.payouts, queue, lambda _: 0)
    assert [[transfer.intent.destination for transfer in group] for group in groups] == [plain, [fickle], [delegated]]

    def build(transfers: Sequence[Transfer]) -> UnsignedPayout:
        told = ((t.digest, t.intent.amount, t.intent.destination) for t in transfers)
        return world.build([Payment(digest, "ETH", units, Address(CHAIN, to)) for digest, units, to in told])

    before = world.nonce()
    mixed = build(queue[:2])  # nothing is wrong with it, says the simulation
    signed = world.payouts.combine(world.wallet.certificate, mixed, world.wallet.sign(mixed))
    envelope = world.payouts.seal(world.wallet.signed, signed)
    world.carry(envelope)
    reverted = world.payouts.follow(world.wallet.certificate, [envelope])
    assert isinstance(reverted, Mined)
    assert (reverted.outcome, world.nonce()) == (Outcome.REVERTED, before)
    assert world.held("ETH", plain[0]) == 0
    assert world.send(build(groups[0])).outcome is Outcome.DONE
    assert [world.held("ETH", address) for address in plain] == [2, 4]
    alone = build(groups[1])
    world.carry(only := world.envelope(alone))
    found = world.payouts.follow(world.wallet.certificate, [only])
    assert isinstance(found, Mined)
    assert (found.outcome, world.nonce()) == (Outcome.REVERTED, before + 1)  # it alone waits for people and their void


def gas_price(world: World, mined: Mined) -> int:
    """What the relayer paid for each gas, by the node."""
    receipt = world.client.call("eth_getTransactionReceipt", "0x" + mined.transaction.hex())
    assert isinstance(receipt, dict)
    return wire.quantity(receipt["effectiveGasPrice"])


def refused_leaf(world: World, payments: Sequence[Payment], sweeps: Sequence[Sweep] = ()) -> dict[str, object]:
    """The operands of the one refusal that building meets."""
    with pytest.raises(Refused) as caught:
        world.build(payments, sweeps)
    assert rules(caught) == [Rule.LEAF_FAILS]
    return dict(caught.value.refusals[0].operands)


@pytest.mark.parametrize("position", range(5))
def test_the_leaf_that_would_revert_is_named(world: World, position: int) -> None:
    """A contract that takes no ether, anywhere in a batch: its intent is named before anybody is asked to sign."""
    payments = [pay("ETH", 1, intent=i) for i in range(5)]
    payments[position] = pay("ETH", 1, world.contracts.usd, intent=77)
    told = refused_leaf(world, payments)
    assert (told["leaf"], told["name"]) == (position, f"intent {(77).to_bytes(32).hex()}")
    assert world.build([p for i, p in enumerate(payments) if i != position]).size > 0


def test_what_would_fail_is_found_before_signing(world: World) -> None:
    """More than there is, alone and in sum; a token that answers false; a token that is not there."""
    assert refused_leaf(world, [pay("ETH", 1001 * ETHER)])["leaf"] == 0
    assert refused_leaf(world, [pay("USDX", 600_000 * USD, intent=i) for i in range(2)])["leaf"] == 1
    usd = world.contracts.usd
    answers_false = "0x60006000526020" + "6000f3"
    code = world.client.call("eth_getCode", usd, "latest")
    world.client.call("anvil_setCode", usd, answers_false)
    told = refused_leaf(world, [pay("ETH", 1), pay("USDX", 1)])
    assert (told["leaf"], str(told["why"])) == (1, "the token answers 0x" + "00" * 32)
    world.client.call("anvil_setCode", usd, "0x")
    assert refused_leaf(world, [pay("USDX", 1)])["why"] == "there is no code at its address"
    world.client.call("anvil_setCode", usd, code)


def test_sweep_of_deposit_safes_in_a_batch(world: World) -> None:
    """Two deposit Safes, one of them not deployed yet, emptied of three assets and a payment made of it, in one SafeTx."""
    certificate, omnibus = world.wallet.certificate, world.safe
    deposits = {index: deposit_safe(certificate, index).text for index in (4, 9)}
    deploy_safe(world.client, DEPLOYER, deposit_parameters(certificate, 4))
    fund(world.client, deposits[4], 3 * ETHER)
    fund(world.client, deposits[9], 2 * ETHER)
    mint(world.client, DEPLOYER, world.contracts.usd, deposits[9], 50 * USD)
    mint(world.client, DEPLOYER, world.contracts.silent_usd, deposits[9], 7)
    mine(world.client, 3)
    sweeps = world.payouts.sweepable(certificate, (4, 9, 10))
    assert [(s.index, s.asset, s.units) for s in sweeps] == [
        (4, "ETH", 3 * ETHER),
        (9, "ETH", 2 * ETHER),
        (9, "USDX", 50 * USD),
        (9, "USDN", 7),
    ]
    payments = [pay("USDX", (10**6 + 20) * USD)]  # more than the omnibus has without the sweep
    told = refused_leaf(world, payments, sweeps)
    assert (told["leaf"], told["why"]) == (1, "there is no code at its address")
    world.payouts.deploy_deposits(world.wallet.signed, (4, 9))
    world.payouts.deploy_deposits(world.wallet.signed, (4, 9))
    assert world.client.code(deposits[9])
    before = world.held("ETH", omnibus)
    unsigned = world.build(payments, sweeps)
    leaves = world.wallet.decode(unsigned).leaves
    assert [leaf.kind for leaf in leaves] == [LeafKind.SWEEP] * 4 + [LeafKind.TOKEN]
    assert [leaf.source.index for leaf in leaves if leaf.source] == [4, 9, 9, 9]
    world.send(unsigned)
    assert [world.held(s.asset, deposits[s.index]) for s in sweeps] == [0] * 4
    assert world.held("ETH", omnibus) - before == 5 * ETHER
    assert world.held("USDX", omnibus) == 30 * USD
    only = world.payouts.next_anchor(world.wallet.name, certificate, (), ())
    fund(world.client, deposits[4], 1)
    assert world.send(world.payouts.build(certificate, only, (), [Sweep(4, "ETH", 1)])).outcome is Outcome.DONE


def tampered(given: list[SeatSignatures], how: str, others: list[SeatSignatures]) -> list[SeatSignatures]:
    """Signatures with one thing wrong."""
    (third,) = given[2].signatures
    return {
        "too few": given[:2],
        "one seat twice": [given[0], given[1], given[1]],
        "stranger": [*given[:2], replace(given[2], seat="mallory")],
        "another seat's": [*given[:2], replace(given[3], seat=given[2].seat)],
        "another payload's": [*given[:2], others[2]],
        "another certificate's": [*given[:2], replace(given[2], certificate=bytes(32))],
        "bit flipped": [*given[:2], replace(given[2], signatures=(bytes([third[0] ^ 1]) + third[1:],))],
        "contract signature, v = 0": [*given[:2], replace(given[2], signatures=(third[:64] + b"\x00",))],
        "pre-validated, v = 1": [*given[:2], replace(given[2], signatures=(third[:64] + b"\x01",))],
        "eth_sign, v = 31": [*given[:2], replace(given[2], signatures=(third[:64] + bytes([third[64] + 4]),))],
        "two signatures": [*given[:2], replace(given[2], signatures=(third, third))],
        "short": [*given[:2], replace(given[2], signatures=(third[:64],))],
    }[how]


@pytest.mark.parametrize(
    ("how", "rule"),
    [
        ("too few", None),
        ("one seat twice", Rule.SIGNER_TWICE),
        ("stranger", Rule.SIGNER_UNKNOWN),
        ("another seat's", Rule.SIGNATURE_INVALID),
        ("another payload's", Rule.SIGNATURE_INVALID),
        ("another certificate's", Rule.WRONG_WALLET),
        ("bit flipped", Rule.SIGNATURE_INVALID),
        ("contract signature, v = 0", Rule.SIGNATURE_INVALID),
        ("pre-validated, v = 1", Rule.SIGNATURE_INVALID),
        ("eth_sign, v = 31", Rule.SIGNATURE_INVALID),
        ("two signatures", Rule.MALFORMED),
        ("short", Rule.SIGNATURE_INVALID),
    ],
)
def test_signatures_that_do_not_make_a_transaction(world: World, how: str, rule: Rule | None) -> None:
    """Refused by name when they are put together; the chain never sees them."""
    unsigned, other = world.build([pay("ETH", 1)]), world.build([pay("ETH", 2)])
    given = tampered(world.wallet.sign(unsigned, SEATS), how, world.wallet.sign(other, SEATS))
    with pytest.raises(Refused) as caught:
        world.payouts.combine(world.wallet.certificate, unsigned, given)
    found = rules(caught)
    assert found[-1] is Rule.QUORUM_NOT_REACHED
    assert set(found[:-1]) == ({rule} if rule else set())


@pytest.mark.parametrize(
    "how", ["descending", "doubled", "one short", "another nonce", "another payee", "trailing byte"]
)
def test_stored_bytes_are_read_again(world: World, how: str) -> None:
    """What lies in the database is the attacker's: the relayer pays for none of it. On chain it would be GS020 or GS026."""
    unsigned = world.build([pay("ETH", 5)])
    signed = world.payouts.combine(world.wallet.certificate, unsigned, world.wallet.sign(unsigned))
    assert SignedPayout.from_json(signed.to_json()) == signed
    head, parts = signed.raw[:-224], [signed.raw[-224 + 65 * i :][:65] for i in range(3)]
    pad = signed.raw[-29:]
    assert head + b"".join(parts) + pad == signed.raw
    payload = unsigned.payload
    assert isinstance(payload, SafeTx)
    raw = {
        "descending": head + b"".join(parts[::-1]) + pad,
        "doubled": head + parts[0] * 2 + parts[1] + pad,
        "one short": execute_data(payload.to, payload.value, payload.data, 0, b"".join(parts[:2])),
        "another nonce": signed.raw,
        "another payee": execute_data(fresh(), payload.value, payload.data, 0, b"".join(parts)),
        "trailing byte": signed.raw + b"\x00",
    }[how]
    anchor = replace(unsigned.anchor, reference="7") if how == "another nonce" else unsigned.anchor
    sealed = len(world.relayer.signed)
    with pytest.raises(Refused) as caught:
        world.payouts.seal(world.wallet.signed, replace(signed, raw=raw, anchor=anchor))
    assert set(rules(caught)) <= {Rule.SIGNER_UNKNOWN, Rule.NOT_CANONICAL, Rule.QUORUM_NOT_REACHED}
    assert len(world.relayer.signed) == sealed


def test_any_quorum_in_any_order_signs(world: World) -> None:
    """Seats answer in any order, and one more than needed does no harm: owners stand in ascending order."""
    envelope = world.envelope(world.build([pay("ETH", 1)]), ("hot-4", "hot-2", "hot-3", "hot-1"))
    world.carry(envelope)
    assert isinstance(world.payouts.follow(world.wallet.certificate, [envelope]), Mined)


def test_the_same_bytes_again(world: World) -> None:
    """Before, while waiting, and when mined; and a payout that was done already gets no second envelope."""
    to = fresh()
    unsigned = world.build([pay("ETH", 9, to)])
    envelope = world.envelope(unsigned)
    certificate = world.wallet.certificate
    assert Envelope.from_json(envelope.to_json()) == envelope
    assert world.payouts.follow(certificate, [envelope]) == Unknown()
    world.client.call("evm_setAutomine", False)
    for _ in range(3):
        world.payouts.broadcast(envelope)
        assert world.payouts.follow(certificate, [envelope]) == Pending(envelope.transaction)
    world.client.call("evm_setAutomine", True)
    mine(world.client)
    world.payouts.broadcast(envelope)
    mined = world.payouts.follow(certificate, [envelope])
    assert isinstance(mined, Mined)
    assert (mined.id, mined.transaction, world.held("ETH", to)) == (unsigned.id, envelope.transaction, 9)
    signed = world.payouts.combine(certificate, unsigned, world.wallet.sign(unsigned))
    with pytest.raises(Refused) as caught:
        world.payouts.seal(world.wallet.signed, signed)
    assert rules(caught) == [Rule.ANCHOR_SPENT]


def test_an_envelope_whose_nonce_is_gone(world: World) -> None:
    """The relayer used its nonce for something else: known at once, sealed again, paid once."""
    to = fresh()
    unsigned = world.build([pay("ETH", 3, to)])
    stale = world.envelope(unsigned)
    world.payouts.deploy_deposits(world.wallet.signed, (77,))
    with pytest.raises(Refused) as caught:
        world.payouts.broadcast(stale)
    assert rules(caught) == [Rule.ENVELOPE_STALE]
    assert world.payouts.follow(world.wallet.certificate, [stale]) == Unknown()
    again = world.envelope(unsigned)
    assert again.id == stale.id
    world.carry(again)
    found = world.payouts.follow(world.wallet.certificate, [stale, again])
    assert isinstance(found, Mined)
    assert (found.transaction, world.held("ETH", to)) == (again.transaction, 3)


def test_payouts_in_a_row_before_any_is_mined(world: World) -> None:
    """Three nonces reserved, built, signed and sent while no block comes: gas from simulation, one block takes them all."""
    certificate, taken, sent, to = world.wallet.certificate, list[str](), list[Envelope](), [fresh() for _ in range(3)]
    world.client.call("evm_setAutomine", False)
    for address in to:
        unsigned = world.build([pay("USDX", 5, address)], taken=taken)
        taken.append(unsigned.anchor.reference)
        sent.append(world.envelope(unsigned))
        world.payouts.broadcast(sent[-1])
    world.client.call("evm_setAutomine", True)
    mine(world.client)
    found = [world.payouts.follow(certificate, [envelope]) for envelope in sent]
    assert [isinstance(fate, Mined) and fate.outcome for fate in found] == [Outcome.DONE] * 3
    assert [world.held("USDX", address) for address in to] == [5] * 3
    assert taken == [str(world.nonce() - 3 + i) for i in range(3)]


def test_a_payout_that_reverts_on_chain(world: World) -> None:
    """The wallet is emptied between simulation and block: the envelope is burnt, the nonce is not, and the void takes it."""
    certificate = world.wallet.certificate
    unsigned = world.build([pay("ETH", 900 * ETHER)])
    envelope = world.envelope(unsigned)
    fund(world.client, world.safe, ETHER)
    world.carry(envelope)
    found = world.payouts.follow(certificate, [envelope])
    assert isinstance(found, Mined)
    assert (found.outcome, world.nonce()) == (Outcome.REVERTED, int(unsigned.anchor.reference))
    void = world.payouts.void(certificate, unsigned.anchor)
    assert world.wallet.decode(void).is_void
    killing = world.envelope(void)
    world.carry(killing)
    fate = world.payouts.follow(certificate, [envelope, killing])
    assert isinstance(fate, Mined)
    assert (fate.id, fate.outcome, world.nonce()) == (void.id, Outcome.DONE, int(unsigned.anchor.reference) + 1)
    assert fate.size < void.size
    assert world.payouts.follow(certificate, [envelope]) == Replaced(killing.transaction)


def test_void_heals_a_nonce_that_seats_disagree_on(world: World) -> None:
    """Two seats signed one payment and two another at the same nonce: neither reaches three; the void does."""
    certificate = world.wallet.certificate
    reservation = world.payouts.next_anchor(world.wallet.name, certificate, (), ())
    one, two = (world.payouts.build(certificate, reservation, [pay("ETH", units)]) for units in (1, 2))
    mixed = [*world.wallet.sign(one, SEATS[:2]), *world.wallet.sign(two, SEATS[2:])]
    with pytest.raises(Refused) as caught:
        world.payouts.combine(certificate, one, mixed)
    assert rules(caught)[-1] is Rule.QUORUM_NOT_REACHED
    assert world.send(world.payouts.void(certificate, reservation.anchor)).outcome is Outcome.DONE
    assert world.send(world.build([pay("ETH", 1)])).outcome is Outcome.DONE


def test_a_receipt_with_status_1_may_be_a_failure(world: World) -> None:
    """safeTxGas above zero: the inner call fails, the nonce burns, the receipt says 1. Only the Safe's own event tells."""
    certificate = world.wallet.certificate
    unsigned = world.build([pay("ETH", 1)])
    payload = unsigned.payload
    assert isinstance(payload, SafeTx)
    odd = replace(payload, value=10**6 * ETHER, safe_tx_gas=30_000)
    digest = library_hash(odd)
    signatures = [
        sign_digests(
            OpenedKeys(world.wallet.vaults[seat]), seat, certificate, [ToSign(digest, Place(certificate.struct_hash))]
        )
        for seat in QUORUM
    ]
    packed = pack(certificate, digest, signatures)
    call = exec_call(odd.to, odd.value, odd.data, packed, safe_tx_gas=30_000)
    receipt = send(world.client, DEPLOYER, world.safe, call)
    assert receipt.succeeded
    envelope = Envelope(digest, receipt.transaction, unsigned.anchor, b"")
    found = world.payouts.follow(certificate, [envelope])
    assert isinstance(found, Mined)
    assert found.outcome is Outcome.FAILED


def test_a_reorg_sends_it_back(world: World) -> None:
    """The block vanishes: unknown again, and the same bytes are mined again."""
    unsigned = world.build([pay("ETH", 4)])
    envelope = world.envelope(unsigned)
    before = world.node.snapshot()
    world.carry(envelope)
    assert isinstance(world.payouts.follow(world.wallet.certificate, [envelope]), Mined)
    world.node.revert(before)
    assert world.payouts.follow(world.wallet.certificate, [envelope]) == Unknown()
    world.carry(envelope)
    assert isinstance(world.payouts.follow(world.wallet.certificate, [envelope]), Mined)


def test_preflight(world: World) -> None:
    """The Safe as certified; then another owner set, a Safe that is not there, and one whose handler was changed under it."""
    certificate = world.wallet.certificate
    assert list(world.payouts.preflight(world.wallet.name, certificate)) == []
    drifted = world.payouts.preflight(world.wallet.name, replace(certificate, m=2))
    assert [r.operands["field"] for r in drifted] == ["threshold"]
    elsewhere = seated_safe(world.contracts.safe, "nowhere", world.wallet.assets, CHAIN)
    assert [r.rule for r in world.payouts.preflight(bytes(32), elsewhere.certificate)] == [Rule.SAFE_DRIFT]
    with pytest.raises(Unavailable):
        world.payouts.void(elsewhere.certificate, replace(world.build([pay("ETH", 1)]).anchor, reference="0"))
    for slot, field in ((HANDLER_SLOT, "handler"), (GUARD_SLOT, "guard")):
        world.client.call("anvil_setStorageAt", world.safe, slot, "0x" + "00" * 12 + "66" * 20)
        assert field in [r.operands["field"] for r in world.payouts.preflight(world.wallet.name, certificate)]


def test_the_relayers_cap(world: World) -> None:
    """Gas above the roster's cap is refused by the relayer's own rule, before anything is signed."""
    poor = EvmPayouts(world.client, world.wallet.assets, replace(world.relayer, cap=1))
    unsigned = world.build([pay("ETH", 1)])
    signed = poor.combine(world.wallet.certificate, unsigned, world.wallet.sign(unsigned))
    with pytest.raises(Refused) as caught:
        poor.seal(world.wallet.signed, signed)
    assert rules(caught) == [Rule.RELAYER_CAP]


def test_bad_input(world: World) -> None:
    """Nothing to pay, no amount, an asset or address of another chain, another payload, another payout's envelope."""
    certificate = world.wallet.certificate
    bitcoin = Address(REGTEST, "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080")
    for payments in ([], [pay("ETH", 0)], [replace(pay("ETH", 1), destination=bitcoin)], [pay("BTC", 1)]):
        with pytest.raises(InvalidInput):
            world.build(payments)
    unsigned = world.build([pay("ETH", 1)])
    signatures = world.wallet.sign(unsigned)
    with pytest.raises(Refused):
        world.payouts.combine(certificate, replace(unsigned, id=bytes(32)), signatures)
    with pytest.raises(InvalidInput):
        world.payouts.combine(certificate, replace(unsigned, payload=PsbtPayload(CHAIN.name, b"")), signatures)
    envelope = world.envelope(unsigned)
    with pytest.raises(InvalidInput):
        world.payouts.broadcast(replace(envelope, transaction=bytes(32)))
    other = replace(envelope, anchor=replace(envelope.anchor, reference="99"))
    with pytest.raises(InvalidInput):
        world.payouts.follow(certificate, [envelope, other])


def test_opened_by_the_name_of_its_chain(world: World) -> None:
    """One way in for both kinds of chain; on EVM not without whoever pays the gas."""
    opened = open_payouts(CHAIN, world.node.url, "", world.wallet.assets, world.relayer)
    assert opened.chain == CHAIN
    assert list(opened.preflight(world.wallet.name, world.wallet.certificate)) == []
    with pytest.raises(InvalidInput):
        open_payouts(CHAIN, world.node.url, "", world.wallet.assets)


@pytest.mark.parametrize("asset", ["ETH", "USDX", "USDN"])
def test_measured_batches(world: World, asset: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Gas for each payment falls with the size of a batch; printed with `-s`."""

    def give(safe: str) -> None:
        fund(world.client, safe, ETHER)
        for token in (world.contracts.usd, world.contracts.silent_usd):
            mint(world.client, DEPLOYER, token, safe, 1000)

    found = evm_batches(world.client, world.contracts.safe, world.wallet.assets.get(asset), give)
    with capsys.disabled():
        print(f"\n{asset}: " + ", ".join(f"{b.payments}: {b.size} gas, {b.each} each" for b in found))
    assert [batch.payments for batch in found] == [1, 10, 100]
    assert found[0].each > found[1].each > found[2].each


def base_fee(world: World, wei: int) -> None:
    """What the next blocks ask for."""
    world.client.call("anvil_setNextBlockBaseFeePerGas", hex(wei))


def stuck(world: World, to: str, *, dropped: bool = False) -> tuple[UnsignedPayout, Envelope]:
    """A payout that waits while blocks ask for ten times its price; Anvil drops it at the next block, other nodes may keep it."""
    unsigned = world.build([pay("ETH", 6, to)])
    envelope = world.envelope(unsigned)
    world.client.call("evm_setAutomine", False)
    world.payouts.broadcast(envelope)
    base_fee(world, 10 * world.relayer.signed[-1].max_fee_per_gas)
    if dropped:
        mine(world.client)
    found = world.payouts.follow(world.wallet.certificate, [envelope])
    assert found == (Unknown() if dropped else Pending(envelope.transaction))
    return unsigned, envelope


@pytest.mark.parametrize("dropped", [False, True], ids=["waiting", "dropped"])
def test_a_stuck_relayers_nonce_is_healed(world: World, dropped: bool) -> None:
    """The same signed payout at the same nonce for more: the node replaces, one is mined, and it is paid once."""
    to = fresh()
    try:
        unsigned, first = stuck(world, to, dropped=dropped)
        signed = world.payouts.combine(world.wallet.certificate, unsigned, world.wallet.sign(unsigned))
        again = world.payouts.reseal(world.wallet.signed, signed, first)
        assert again is not None
        one, two = world.relayer.signed[-2:]
        assert (one.nonce, one.data, one.gas) == (two.nonce, two.data, two.gas)
        assert two.max_fee_per_gas >= one.max_fee_per_gas * 9 // 8
        world.payouts.broadcast(again)
        assert world.payouts.reseal(world.wallet.signed, signed, again) is None
        mine(world.client)
        mined = world.payouts.follow(world.wallet.certificate, [first, again])
        assert isinstance(mined, Mined)
        assert (mined.transaction, mined.id, world.held("ETH", to)) == (again.transaction, unsigned.id, 6)
        with pytest.raises(Refused) as caught:
            world.payouts.reseal(world.wallet.signed, signed, again)
        assert rules(caught) == [Rule.ANCHOR_SPENT]
    finally:
        world.client.call("anvil_dropAllTransactions")
        base_fee(world, 10**9)
        world.client.call("evm_setAutomine", True)


def test_a_stuck_deployment_is_outbid(world: World) -> None:
    """No block takes a deposit Safe's deployment: at its own nonce for more, once, and what waits behind it goes through."""
    certificate, sent = world.wallet.signed, dict[str, bytes]()
    address = deposit_safe(certificate.message, 55).text
    before = len(world.relayer.signed)

    def deploy() -> None:
        deploy_deposits(world.client, world.relayer, certificate, (55,), sent, seconds=0.3)

    try:
        world.client.call("evm_setAutomine", False)
        with pytest.raises(Unavailable, match="not in a block"):
            deploy()
        with pytest.raises(Unavailable, match="not in a block"):
            deploy()  # blocks ask for no more than it pays: waited for, and nothing else is sent
        assert len(world.relayer.signed) == before + 1
        base_fee(world, 10 * world.relayer.signed[-1].max_fee_per_gas)
        with pytest.raises(Unavailable, match="not in a block"):
            deploy()
        first, second = world.relayer.signed[before:]
        assert (first.nonce, first.to, first.data) == (second.nonce, second.to, second.data)
        assert second.max_fee_per_gas >= first.max_fee_per_gas * 9 // 8
        assert list(sent) == [address]
        mine(world.client)
        deploy()
        assert world.client.code(address)
        assert (sent, len(world.relayer.signed)) == ({}, before + 2)
        deploy()
        assert len(world.relayer.signed) == before + 2
    finally:
        world.client.call("anvil_dropAllTransactions")
        base_fee(world, 10**9)
        world.client.call("evm_setAutomine", True)


def test_a_bump_above_the_cap(world: World) -> None:
    """No room below the cap: refused by the relayer's own rule; with a little room it offers just what blocks ask."""
    try:
        unsigned, first = stuck(world, fresh())
        signed = world.payouts.combine(world.wallet.certificate, unsigned, world.wallet.sign(unsigned))
        last, price = world.relayer.signed[-1], wire.quantity(world.client.call("eth_gasPrice"))
        for cap, fits in ((last.gas * price * 5 // 4, True), (last.gas * last.max_fee_per_gas, False)):
            poor = replace(world.relayer, cap=cap)
            payouts = EvmPayouts(world.client, world.wallet.assets, poor)
            if fits:
                assert payouts.reseal(world.wallet.signed, signed, first) is not None
                assert last.max_fee_per_gas < poor.signed[-1].max_fee_per_gas <= price * 5 // 4
                continue
            with pytest.raises(Refused) as caught:
                payouts.reseal(world.wallet.signed, signed, first)
            assert rules(caught) == [Rule.RELAYER_CAP]
    finally:
        world.client.call("anvil_dropAllTransactions")
        base_fee(world, 10**9)
        world.client.call("evm_setAutomine", True)


def test_somebody_else_carries_it(world: World) -> None:
    """Anybody may send the signed call: its event says that it is ours, whoever paid for it, and that counts as done."""
    to = fresh()
    unsigned = world.build([pay("ETH", 8, to)])
    envelope = world.envelope(unsigned)
    signed = world.payouts.combine(world.wallet.certificate, unsigned, world.wallet.sign(unsigned))
    receipt = send(world.client, DEPLOYER, world.safe, signed.raw)
    mined = world.payouts.follow(world.wallet.certificate, [envelope])
    assert isinstance(mined, Mined)
    assert (mined.id, mined.transaction, world.held("ETH", to)) == (unsigned.id, receipt.transaction, 8)
