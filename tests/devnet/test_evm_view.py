# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the watcher sees on a real chain: coins that arrived, by measure, and nothing that only looks like it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import cast

import pytest
from eth_abi.abi import encode

from custody.chains.addresses import ChainDeriver
from custody.chains.evm.client import EvmClient
from custody.chains.evm.deploy import deploy_safe
from custody.chains.evm.safes import deposit_parameters, deposit_safe
from custody.chains.evm.transactions import send, wait
from custody.chains.evm.view import EvmView
from custody.flows.deposits import StepReport, step
from custody.flows.inventory import Inventory
from custody.flows.kernel import Kernel
from custody.flows.mirror import CERTIFICATE, put_signed
from custody.flows.ports import ChainView, SafeReader, UnitOfWork
from custody.flows.reversals import check_reversed
from custody.rules.amounts import Asset, AssetKind, Assets
from custody.rules.certificates import DepositAddress, WalletCertificate
from custody.rules.deposits import BlockRef, Sighting
from custody.rules.errors import InvalidInput, Unavailable
from custody.rules.intents import TransferIntent
from custody.rules.ledger import Account as LedgerAccount
from custody.rules.ledger import AccountKind
from custody.rules.origins import BitcoinProof, ChainProof, NativeProof, TokenProof
from custody.rules.refusals import Rule
from custody.rules.signatures import Signed
from custody.rules.typed import ZERO_ADDRESS
from custody.rules.wallets import Address, Chain
from devnet.anvil import Anvil
from devnet.contracts import DevnetContracts, call_data, creation_code, deploy_all, fund, mine, mint, transfer
from tests.fakes.evm import (
    CHAIN,
    account,
    batch_call,
    evm_certificate,
    execute,
    in_one_block,
    owned_call,
    signed_call,
)
from tests.fakes.store import FakeStore

ALICE = account("alice, an independent sender")
BOB = account("bob, another")
DEPLOYER = account("deployer")
ETHER = 10**18
USD = 10**6
QUORUM = ["hot-1", "hot-2", "hot-3"]


@dataclass(frozen=True)
class World:
    """One chain with everything on it."""

    node: Anvil
    client: EvmClient
    contracts: DevnetContracts
    certificate: WalletCertificate
    assets: Assets
    view: EvmView

    @property
    def omnibus(self) -> Address:
        """The hot wallet's Safe, deployed."""
        return Address(CHAIN, self.certificate.safe[0].address)

    def deposit(self, index: int) -> Address:
        """A customer's address."""
        return deposit_safe(self.certificate, index)

    def seen(self, since: int, watched: Sequence[Address]) -> Sequence[Sighting]:
        """What a watcher that never looked before sees after a height; every proof holds when asked again."""
        view = EvmView(self.client, self.assets)
        found = view.sightings(since + 1, view.head().height, watched)
        assert [view.confirm(sighting.proof) for sighting in found] == [None] * len(found)
        assert [s.proof.height for s in found] == sorted(s.proof.height for s in found)
        return found


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A chain of this module's own, every devnet contract, a deployed hot wallet, senders with money."""
    anvil = Anvil(tmp_path_factory.mktemp("view") / "anvil")
    try:
        anvil.start()
        client = EvmClient(anvil.url, CHAIN)
        for who in (DEPLOYER, ALICE, BOB):
            fund(client, who.address, 10**6 * ETHER)
        contracts = deploy_all(client, DEPLOYER)
        certificate = evm_certificate(contracts.safe)
        deploy_safe(client, DEPLOYER, certificate.safe[0])
        for token in (contracts.usd, contracts.silent_usd, contracts.fake_usd, contracts.fee_usd):
            for owner in (ALICE.address, BOB.address, contracts.forwarder, contracts.reverter):
                mint(client, DEPLOYER, token, owner, 10**9 * USD)
        assets = registry(contracts)
        yield World(anvil, client, contracts, certificate, assets, EvmView(client, assets))
    finally:
        anvil.stop()


def registry(contracts: DevnetContracts) -> Assets:
    """Every token but the look-alike; the two odd ones stand here to show that measuring holds even then."""

    def token(symbol: str, contract: str) -> Asset:
        return Asset(symbol, CHAIN, AssetKind.ERC20, 6, Address(CHAIN, contract))

    return Assets(
        (
            Asset("ETH", CHAIN, AssetKind.NATIVE, 18),
            token("USDX", contracts.usd),
            token("USDS", contracts.silent_usd),
            token("USDL", contracts.lying_usd),
            token("USDF", contracts.fee_usd),
        ),
        {CHAIN: 1},
    )


@pytest.fixture
def world(chain: World) -> Iterator[World]:
    """The same for every test, put back afterwards."""
    before = chain.node.snapshot()
    yield chain
    chain.node.revert(before)


Act = Callable[[World, str], object]


def through(contract: Callable[[World], str], signature: str, *, wei: int = 0, gas: int | None = None) -> Act:
    """ALICE calls a sender contract that pays the address."""
    return lambda w, to: send(w.client, ALICE, contract(w), call_data(signature, to), value=wei, gas=gas)


def coinbase(world: World, to: str) -> None:
    """The address as the block's own beneficiary: 3 gwei of tip on each of 21,000 gas."""
    world.client.call("anvil_setCoinbase", to)
    tip = {"chainId": CHAIN.evm_id, "gas": 21_000, "maxFeePerGas": 10**11, "maxPriorityFeePerGas": 3 * 10**9}
    nonce = int(str(world.client.call("eth_getTransactionCount", ALICE.address, "latest")), 16)
    raw = ALICE.sign_transaction({**tip, "nonce": nonce, "to": BOB.address, "value": 0}).raw_transaction
    sent = str(world.client.call("eth_sendRawTransaction", "0x" + raw.hex()))
    wait(world.client, bytes.fromhex(sent[2:]))  # mined, or the beneficiary would be put back too early
    world.client.call("anvil_setCoinbase", ZERO_ADDRESS)


def two_tokens_at_once(world: World, to: str) -> None:
    """Two transfers of the same token in one transaction."""
    data = call_data("sendTwice(address,address,uint256,uint256)", world.contracts.usd, to, 5 * USD, 7 * USD)
    send(world.client, ALICE, world.contracts.forwarder, data)


@pytest.mark.parametrize(
    ("act", "expected"),
    [
        pytest.param(lambda w, to: send(w.client, ALICE, to, value=ETHER), [("ETH", ETHER)], id="native, direct"),
        pytest.param(lambda w, to: send(w.client, ALICE, to, value=1), [("ETH", 1)], id="one wei"),
        pytest.param(
            through(lambda w: w.contracts.forwarder, "forward(address)", wei=ETHER + 1),
            [("ETH", ETHER + 1)],
            id="native, internal call",
        ),
        pytest.param(
            lambda w, to: send(w.client, ALICE, None, creation_code("Legacy") + encode(["address"], [to]), value=9),
            [("ETH", 9)],
            id="native, self-destruction",
        ),
        pytest.param(coinbase, [("ETH", 63 * 10**12)], id="native, block reward"),
        pytest.param(
            lambda w, to: in_one_block(w.client, [(ALICE, to, b"", ETHER), (BOB, to, b"", 2 * ETHER)]),
            [("ETH", 3 * ETHER)],
            id="native, two in one block are one balance change",
        ),
        pytest.param(
            lambda w, to: transfer(w.client, ALICE, w.contracts.usd, to, 5 * USD), [("USDX", 5 * USD)], id="token"
        ),
        pytest.param(
            lambda w, to: transfer(w.client, ALICE, w.contracts.silent_usd, to, 5 * USD),
            [("USDS", 5 * USD)],
            id="token that returns no data",
        ),
        pytest.param(two_tokens_at_once, [("USDX", 5 * USD), ("USDX", 7 * USD)], id="token, two in one transaction"),
        pytest.param(
            lambda w, to: in_one_block(
                w.client,
                [
                    (ALICE, w.contracts.usd, call_data("transfer(address,uint256)", to, 5), 0),
                    (BOB, w.contracts.usd, call_data("transfer(address,uint256)", to, 7), 0),
                    (ALICE, to, b"", 11),
                ],
            ),
            [("USDX", 5), ("USDX", 7), ("ETH", 11)],
            id="both in one block",
        ),
        pytest.param(
            lambda w, to: mint(w.client, DEPLOYER, w.contracts.usd, to, 2**200),
            [("USDX", 2**200)],
            id="token, above 2^64",
        ),
        pytest.param(
            lambda w, to: transfer(w.client, ALICE, w.contracts.fee_usd, to, 100 * USD),
            [("USDF", 99 * USD)],
            id="fee on transfer: what arrived, not what was logged",
        ),
        pytest.param(lambda w, to: transfer(w.client, ALICE, w.contracts.usd, to, 0), [], id="transfer of 0"),
        pytest.param(lambda w, to: send(w.client, ALICE, to, value=0), [], id="native 0"),
        pytest.param(
            lambda w, to: transfer(w.client, ALICE, w.contracts.lying_usd, to, 5 * USD), [], id="log, no balance change"
        ),
        pytest.param(lambda w, to: transfer(w.client, ALICE, w.contracts.fake_usd, to, 5 * USD), [], id="look-alike"),
        pytest.param(
            through(lambda w: w.contracts.reverter, "forward(address)", wei=ETHER, gas=200_000),
            [],
            id="reverted native",
        ),
        pytest.param(
            lambda w, to: send(
                w.client,
                ALICE,
                w.contracts.reverter,
                call_data("sendToken(address,address,uint256)", w.contracts.usd, to, USD),
                gas=300_000,
            ),
            [],
            id="reverted token",
        ),
    ],
)
@pytest.mark.parametrize("deployed", [False, True], ids=["undeployed", "deployed"])
def test_sightings(world: World, act: Act, expected: list[tuple[str, int]], *, deployed: bool) -> None:
    """Each way coins come, and each way they only seem to; to an address with a Safe and to one still without."""
    if deployed:
        deploy_safe(world.client, DEPLOYER, deposit_parameters(world.certificate, 7))
        fund(world.client, world.deposit(7).text, 5)  # and some coins in it already
        mine(world.client)
    since = world.view.head().height
    before = world.node.height
    act(world, world.deposit(7).text)
    assert world.node.height > before
    found = world.seen(since, [world.deposit(3), world.deposit(7), world.omnibus])
    assert sorted((s.amount.asset.symbol, s.amount.units) for s in found) == sorted(expected)
    assert {s.address for s in found} <= {world.deposit(7)}


def test_measured_is_credited_in_log_order(world: World) -> None:
    """Two logs of a token that keeps a fee, in one block: the first in full, the second only what is left."""
    since = world.view.head().height
    to = world.deposit(1)
    data = call_data("sendTwice(address,address,uint256,uint256)", world.contracts.fee_usd, to.text, 100, 200)
    send(world.client, ALICE, world.contracts.forwarder, data)
    proofs = [s.proof for s in world.seen(since, [to])]
    assert [(p.logged, p.measured) for p in proofs if isinstance(p, TokenProof)] == [(100, 100), (200, 197)]


def test_self_transfer_credits_nothing(world: World) -> None:
    """A Safe that sends coins and tokens to itself, as a void does, has received nothing."""
    safe = world.omnibus
    send(world.client, ALICE, safe.text, value=ETHER)
    transfer(world.client, ALICE, world.contracts.usd, safe.text, 9 * USD)
    since = world.view.head().height
    leaves = [
        (safe.text, ETHER // 2, b""),
        (world.contracts.usd, 0, call_data("transfer(address,uint256)", safe.text, 4 * USD)),
    ]
    execute(world.client, DEPLOYER, safe.text, signed_call(world.client, safe.text, QUORUM, safe.text, ETHER // 2))
    batch = signed_call(
        world.client, safe.text, QUORUM, world.contracts.safe.multisend, data=batch_call(leaves), delegate=True
    )
    execute(world.client, DEPLOYER, safe.text, batch)
    assert world.seen(since, [safe]) == []


def test_arrivals_beside_own_outflows(world: World) -> None:
    """In one block the omnibus pays out twice, sweeps a deposit Safe, and both receive more: each arrival is found exactly."""
    w, safe, inner = world, world.omnibus.text, world.deposit(5).text
    deploy_safe(w.client, DEPLOYER, deposit_parameters(w.certificate, 5))
    for to in (safe, inner):
        send(w.client, ALICE, to, value=10 * ETHER)
        transfer(w.client, ALICE, w.contracts.usd, to, 10 * USD)
    since = w.view.head().height
    pay = call_data("transfer(address,uint256)", BOB.address, 2 * USD)
    leaves = [
        (BOB.address, ETHER, b""),
        (w.contracts.forwarder, 2 * ETHER, call_data("forward(address)", BOB.address)),
        (w.contracts.usd, 0, pay),
        (inner, 0, owned_call(safe, safe, 4 * ETHER)),
        (inner, 0, owned_call(safe, w.contracts.usd, 0, call_data("transfer(address,uint256)", safe, 3 * USD))),
    ]
    batch = signed_call(w.client, safe, QUORUM, w.contracts.safe.multisend, data=batch_call(leaves), delegate=True)
    more = call_data("transfer(address,uint256)", safe, 7)
    in_one_block(
        w.client,
        [
            (DEPLOYER, safe, batch, 0),
            (ALICE, safe, b"", 5),
            (BOB, inner, b"", 6),
            (BOB, w.contracts.usd, more, 0),
        ],
    )
    found = w.seen(since, [w.omnibus, w.deposit(5)])
    assert {(s.address.text, s.amount.asset.symbol, s.amount.units) for s in found} == {
        (safe, "ETH", 4 * ETHER + 5),
        (inner, "ETH", 6),
        (safe, "USDX", 3 * USD),
        (safe, "USDX", 7),
    }
    native = {p.address: p.outflows for p in (s.proof for s in found) if isinstance(p, NativeProof)}
    assert native == {safe: 3 * ETHER, inner: 4 * ETHER}


def test_an_arrival_hidden_by_an_equal_outflow(world: World) -> None:
    """The balance is the same at both ends, of one block and of several: what arrived is found all the same."""
    w, safe = world, world.omnibus.text
    send(w.client, ALICE, safe, value=5 * ETHER)
    since = w.view.head().height
    call = signed_call(w.client, safe, QUORUM, BOB.address, ETHER)
    in_one_block(w.client, [(DEPLOYER, safe, call, 0), (ALICE, safe, b"", ETHER)])
    assert [s.amount.units for s in w.seen(since, [w.omnibus])] == [ETHER]
    since = w.view.head().height
    send(w.client, ALICE, safe, value=2 * ETHER)
    mine(w.client, 3)
    execute(w.client, DEPLOYER, safe, signed_call(w.client, safe, QUORUM, BOB.address, 2 * ETHER))
    assert [s.amount.units for s in w.seen(since, [w.omnibus])] == [2 * ETHER]


def test_a_gas_refund_is_an_outflow(world: World) -> None:
    """No seat signs one, yet where a Safe did refund its sender in wei, an arrival in that block is still exact."""
    w, safe = world, world.omnibus.text
    send(w.client, ALICE, safe, value=5 * ETHER)
    since = w.view.head().height
    call = signed_call(w.client, safe, QUORUM, BOB.address, ETHER, gas_price=1)
    in_one_block(w.client, [(DEPLOYER, safe, call, 0), (ALICE, safe, b"", 7)])
    (found,) = w.seen(since, [w.omnibus])
    assert found.amount.units == 7
    assert isinstance(found.proof, NativeProof)
    assert found.proof.outflows > ETHER


def test_a_fall_beyond_known_outflows_is_left_out(world: World) -> None:
    """A plain account that pays: nothing is seen and nothing raised; reconciliation is who names it."""
    since = world.view.head().height
    send(world.client, BOB, ALICE.address, value=ETHER)
    assert world.seen(since, [Address(CHAIN, BOB.address)]) == []


def test_a_failed_safe_transaction_sent_nothing(world: World) -> None:
    """`safeTxGas` > 0: status 1, `ExecutionFailure`, nonce burnt, nothing left; counted as sent, it would be a false credit."""
    w, safe = world, world.omnibus.text
    send(w.client, ALICE, safe, value=ETHER)
    since = w.view.head().height
    call = signed_call(w.client, safe, QUORUM, w.contracts.reverter, 7, safe_tx_gas=50_000)
    assert send(w.client, DEPLOYER, safe, call, gas=400_000).succeeded
    assert w.view.balance(w.assets.get("ETH"), [w.omnibus], w.view.head()) == ETHER
    assert w.seen(since, [w.omnibus]) == []


def test_a_delegatecall_elsewhere_counts_no_outflow(world: World) -> None:
    """Only the pinned MultiSendCallOnly is believed: a contract of the same shape could claim outflows that never were."""
    w, safe = world, world.omnibus.text
    send(w.client, ALICE, safe, value=ETHER)
    since = w.view.head().height
    lie = batch_call([(BOB.address, ETHER, b"")])
    call = signed_call(w.client, safe, QUORUM, BOB.address, data=lie, delegate=True)  # no code there: does nothing
    execute(w.client, DEPLOYER, safe, call)
    assert w.seen(since, [w.omnibus]) == []


def test_bisection_equals_block_by_block(world: World) -> None:
    """Over many blocks and addresses, one scan finds what scanning every block alone finds, and all of it."""
    watched = [world.deposit(i) for i in range(12)]
    since = world.view.head().height
    for turn in range(25):
        if turn % 3 == 0:
            mine(world.client, 2)
        send(world.client, ALICE, watched[turn * 7 % 12].text, value=turn + 1)
        if turn % 4 == 0:
            transfer(world.client, BOB, world.contracts.usd, watched[turn % 12].text, turn + 1)
    whole = world.seen(since, watched)
    last = world.view.head().height
    single = [s for height in range(since + 1, last + 1) for s in world.view.sightings(height, height, watched)]
    assert sorted(whole, key=lambda s: s.identity) == sorted(single, key=lambda s: s.identity)
    assert sum(s.amount.units for s in whole if s.amount.asset.symbol == "ETH") == sum(range(1, 26))
    assert world.view.sightings(0, last, watched)[: len(whole)] == whole


def test_nothing_to_see(world: World) -> None:
    """No range, nobody watched, blocks that do not exist, an address of another chain."""
    head = world.view.head().height
    assert world.view.sightings(head + 1, head, [world.omnibus]) == ()
    assert world.view.sightings(0, head, []) == ()
    with pytest.raises(Unavailable):
        world.view.sightings(head, head + 1, [world.omnibus])
    with pytest.raises(InvalidInput) as caught:
        world.view.sightings(0, head, [Address(Chain("eip155:1"), world.omnibus.text)])
    assert caught.value.rule == Rule.WRONG_NETWORK


@pytest.fixture
def proofs(world: World) -> dict[type, ChainProof]:
    """A native and a token deposit, as proven."""
    since = world.view.head().height
    send(world.client, ALICE, world.deposit(2).text, value=ETHER)
    transfer(world.client, ALICE, world.contracts.usd, world.deposit(2).text, 5 * USD)
    return {type(s.proof): s.proof for s in world.seen(since, [world.deposit(2)])}


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        pytest.param(NativeProof, {"after": 2 * ETHER}, id="native: more after"),
        pytest.param(NativeProof, {"outflows": 1}, id="native: outflows that were not"),
        pytest.param(NativeProof, {"address": BOB.address}, id="native: another address"),
        pytest.param(NativeProof, {"block": bytes(32)}, id="native: another block"),
        pytest.param(NativeProof, {"height": 1}, id="native: another height"),
        pytest.param(NativeProof, {"chain": "eip155:1"}, id="native: another chain"),
        pytest.param(TokenProof, {"measured": 6 * USD}, id="token: measured more"),
        pytest.param(TokenProof, {"measured": 4 * USD}, id="token: measured less"),
        pytest.param(TokenProof, {"logged": 6 * USD}, id="token: logged more"),
        pytest.param(TokenProof, {"log_index": 1}, id="token: another log"),
        pytest.param(TokenProof, {"transaction": bytes(32)}, id="token: another transaction"),
        pytest.param(TokenProof, {"address": BOB.address}, id="token: another address"),
        pytest.param(TokenProof, {"contract": BOB.address}, id="token: unregistered contract"),
        pytest.param(TokenProof, {"block": bytes(32)}, id="token: another block"),
    ],
)
def test_altered_proof_is_refused(
    world: World, proofs: dict[type, ChainProof], kind: type, changes: dict[str, object]
) -> None:
    """A journal row that claims anything but what the chain shows does not hold."""
    assert world.view.confirm(proofs[kind]) is None
    refusal = world.view.confirm(replace(proofs[kind], **changes))  # type: ignore[arg-type]
    assert refusal is not None
    assert refusal.rule == Rule.ORIGIN


def test_a_proof_above_the_head_is_unknown(world: World, proofs: dict[type, ChainProof]) -> None:
    """The node may only lag: that is no reason to take a credit back."""
    with pytest.raises(Unavailable):
        world.view.confirm(replace(proofs[NativeProof], height=10**6))


def test_proofs_in_lower_case_and_of_bitcoin(world: World, proofs: dict[type, ChainProof]) -> None:
    """Spelling of an address is no matter; a Bitcoin proof is not for this chain."""
    native = proofs[NativeProof]
    assert isinstance(native, NativeProof)
    assert world.view.confirm(replace(native, address=native.address.lower())) is None
    foreign = BitcoinProof("bip122:0f9188f13cb7b2c71f2a335e3a4fc328", 1, bytes(32), bytes(32), 0, "bcrt1q", 1)
    assert world.view.confirm(foreign) is not None


def test_a_proof_of_the_look_alike_is_refused(world: World, proofs: dict[type, ChainProof]) -> None:
    """A view whose registry does not know the token confirms none of its proofs."""
    poorer = Assets((Asset("ETH", CHAIN, AssetKind.NATIVE, 18),), {CHAIN: 1})
    view = EvmView(world.client, poorer)
    assert view.confirm(proofs[NativeProof]) is None
    assert view.confirm(proofs[TokenProof]) is not None


def test_reorg_takes_a_deposit_back_and_brings_it_again(world: World) -> None:
    """The proof of an orphaned block is refused; the same coins in another block are another sighting."""
    to = world.deposit(4)
    since = world.view.head().height
    send(world.client, ALICE, to.text, value=ETHER)
    transfer(world.client, ALICE, world.contracts.usd, to.text, USD)
    orphaned = world.seen(since, [to])
    old = world.view.head()
    world.client.call("anvil_reorg", 2, [])
    assert world.view.block(old.height) != old
    for sighting in orphaned:
        refusal = world.view.confirm(sighting.proof)
        assert refusal is not None
        assert refusal.rule == Rule.ORIGIN
        assert refusal.operands["canonical"] is not None
    assert world.seen(since, [to]) == []
    with pytest.raises(Unavailable):
        world.view.balance(world.assets.get("ETH"), [to], old)
    with pytest.raises(Unavailable):
        world.view.safe_state(world.certificate.wallet, world.certificate, old)
    send(world.client, BOB, to.text, value=ETHER)
    again = world.seen(since, [to])
    assert [s.amount.units for s in again] == [ETHER]
    assert again[0].identity not in {s.identity for s in orphaned}


def test_a_reorg_beyond_finality_reverses_credits_to_the_unit(world: World) -> None:
    """At finality + 1 on a real node: ether and tokens leave their customer again, a withdrawal waits, and coming back they are hers."""
    to = world.deposit(0)
    signed = Signed(world.certificate, ())
    bound = Signed(DepositAddress(signed.message.struct_hash, CHAIN.name, "ana", 0, to.text), ())
    inventory, store = Inventory([signed], [bound], ChainDeriver()), FakeStore()

    def furnish(work: UnitOfWork) -> None:
        put_signed(work.documents, CERTIFICATE, signed)
        work.customers.add("ana")
        work.customers.add_address(bound)

    def balances(kind: AccountKind) -> list[int]:
        account = LedgerAccount(kind, "ana" if kind is AccountKind.CUSTOMER_AVAILABLE else "")
        assets = [world.assets.get(symbol) for symbol in ("ETH", "USDX")]
        return store.read(lambda work: [work.journal.balance(account, asset) for asset in assets])

    def refused() -> list[Rule]:
        """What a withdrawal of hers would be told."""
        asked = cast("TransferIntent", SimpleNamespace(account="customer:ana"))
        kernel = cast("Kernel", SimpleNamespace(assets=world.assets, roster=None))
        return store.read(lambda work: [refusal.rule for refusal in check_reversed(work, kernel, asked, 1)])

    def watch() -> StepReport:
        while (told := step(store, world.view, inventory, world.assets, lambda: 1)).behind:
            pass
        return told

    store.run(furnish)
    watch()
    pays = [(ETHER, USD), (2 * ETHER, 3 * USD)]
    for ether, usd in pays:
        send(world.client, ALICE, to.text, value=ether)
        transfer(world.client, ALICE, world.contracts.usd, to.text, usd)
    mine(world.client, 2)
    assert watch().credited == 4
    assert balances(AccountKind.CUSTOMER_AVAILABLE) == [3 * ETHER, 4 * USD]
    above = world.view.head().height - world.view.final().height

    world.client.call(
        "anvil_reorg", above + 1, []
    )  # the newest final block goes, and the last payment of tokens with it
    told = watch()
    assert (told.reversed, balances(AccountKind.CUSTOMER_AVAILABLE)) == (1, [3 * ETHER, USD])
    assert [type(e.entry.origin).__name__ for e in store.read(lambda work: work.journal.read())][-1] == "Reversal"
    assert refused() == [Rule.DEPOSIT_REVERSED]

    transfer(world.client, ALICE, world.contracts.usd, to.text, 3 * USD)
    mine(world.client, 2)
    assert (watch().credited, balances(AccountKind.CUSTOMER_AVAILABLE)) == (1, [3 * ETHER, 4 * USD])
    assert refused() == []


@pytest.mark.parametrize("symbols", [("ETH",), ("USDX",), ("ETH", "USDX")], ids=["native", "token", "both"])
@pytest.mark.parametrize("method", ["eth_getLogs", "eth_getBlockByNumber"])
def test_reorg_during_a_scan_is_unavailable(world: World, method: str, symbols: tuple[str, ...]) -> None:
    """A branch change between two questions of one scan: no answer, rather than a mixed one."""
    to = world.deposit(4)
    since = world.view.head().height
    send(world.client, ALICE, to.text, value=ETHER)
    transfer(world.client, ALICE, world.contracts.usd, to.text, USD)

    class Shaky(EvmClient):
        """Reorganises once, right after the first question of a kind."""

        calm = True

        def call(self, asked: str, *params: object) -> object:
            answer = super().call(asked, *params)
            if asked == "eth_getLogs" and self.calm and method == "eth_getLogs":
                self.calm = False
                super().call("anvil_reorg", 2, [])
            return answer

        def batch(self, calls: Sequence[tuple[str, Sequence[object]]]) -> list[object]:
            answers = super().batch(calls)
            if calls and calls[0][0] == method and self.calm:
                self.calm = False
                super().call("anvil_reorg", 2, [])
            return answers

    assets = Assets(tuple(world.assets.get(symbol) for symbol in symbols), {CHAIN: 1})
    shaky = EvmView(Shaky(world.node.url, CHAIN), assets)
    with pytest.raises(Unavailable):
        shaky.sightings(since + 1, since + 2, [to])
    assert shaky.sightings(since + 1, since + 2, [to]) == []


def test_consecutive_scans_reuse_only_the_same_branch(world: World) -> None:
    """A view that follows the chain keeps balances at its last block; after a reorg they are read anew."""
    to = world.deposit(6)
    view = EvmView(world.client, world.assets)
    first = view.head().height + 1
    send(world.client, ALICE, to.text, value=5)
    assert [s.amount.units for s in view.sightings(first, first, [to])] == [5]
    world.client.call("anvil_reorg", 1, [])
    send(world.client, ALICE, to.text, value=3)
    found = view.sightings(first + 1, first + 1, [to])
    assert [(s.amount.units, s.proof.before) for s in found if isinstance(s.proof, NativeProof)] == [(3, 0)]
    send(world.client, ALICE, to.text, value=4)
    assert [s.amount.units for s in view.sightings(first + 2, first + 2, [to, world.deposit(8)])] == [4]


def test_head_and_final(world: World) -> None:
    """The `finalized` tag, two below the head on this devnet; parents link; nothing above the head."""
    mine(world.client, 5)
    head, final = world.view.head(), world.view.final()
    assert final.height == head.height - 2
    assert world.view.block(final.height) == final
    parent = world.view.block(head.height - 1)
    assert parent is not None
    assert head.parent == parent.hash
    assert world.view.block(head.height + 1) is None
    assert world.view.chain == CHAIN


def test_balances(world: World) -> None:
    """Together, each address once, at the block that is named, beyond 64 bits."""
    a, b = world.deposit(10), world.deposit(11)
    eth, usd = world.assets.get("ETH"), world.assets.get("USDX")
    send(world.client, ALICE, a.text, value=300_000 * ETHER)
    earlier = world.view.head()
    send(world.client, BOB, b.text, value=200_000 * ETHER)
    mint(world.client, DEPLOYER, world.contracts.usd, a.text, 2**200)
    mint(world.client, DEPLOYER, world.contracts.usd, b.text, 2**199)
    now = world.view.head()
    assert 2**64 < world.view.balance(eth, [a, b], now) == 500_000 * ETHER
    assert world.view.balance(eth, [a, b, a], earlier) == 300_000 * ETHER
    assert world.view.balance(usd, [a, b], now) == 2**200 + 2**199
    assert world.view.balance(usd, [a, b], earlier) == 0
    assert world.view.balance(usd, [], now) == 0
    genesis = world.view.block(0)
    assert genesis is not None
    assert world.view.balance(usd, [a], genesis) == 0  # before the contract had code
    with pytest.raises(InvalidInput):
        world.view.balance(Asset("ETH", Chain("eip155:1"), AssetKind.NATIVE, 18), [a], now)
    with pytest.raises(InvalidInput):
        world.view.balance(eth, [Address(Chain("eip155:1"), a.text)], now)
    with pytest.raises(Unavailable):
        world.view.balance(eth, [a], replace(now, hash=bytes(32)))
    with pytest.raises(Unavailable):
        world.view.balance(eth, [a], replace(now, height=now.height - 1))


def test_a_token_that_does_not_answer_is_unavailable(world: World) -> None:
    """A contract without `balanceOf` has no balance, not even zero."""
    for contract in (world.contracts.forwarder, world.contracts.safe.singleton):  # one reverts, one answers nothing
        no_token = Asset("BAD", CHAIN, AssetKind.ERC20, 6, Address(CHAIN, contract))
        with pytest.raises(Unavailable):
            world.view.balance(no_token, [world.omnibus], world.view.head())


def test_safe_state(world: World) -> None:
    """Owners, threshold, nonce, singleton, handler; after drift: a module, a guard, one owner less are all seen."""
    w, safe = world, world.omnibus.text
    parameters = w.certificate.safe[0]
    born = w.view.safe_state(w.certificate.wallet, w.certificate, w.view.head())
    assert (born.deployed, born.nonce, born.threshold, born.guard, born.modules) == (True, 0, 3, ZERO_ADDRESS, ())
    assert (born.singleton, born.handler) == (parameters.singleton, parameters.handler)
    assert set(born.owners) == {account(seat.key.seat).address for seat in w.certificate.seats}
    modules = ["0x" + (0xDD00 + i).to_bytes(20).hex() for i in range(60)]
    calls = [call_data("enableModule(address)", module) for module in modules]
    calls.append(call_data("setFallbackHandler(address)", BOB.address))
    calls.append(call_data("removeOwner(address,address,uint256)", born.owners[0], born.owners[1], 2))
    batch = batch_call([(safe, 0, data) for data in calls])
    execute(
        w.client,
        DEPLOYER,
        safe,
        signed_call(w.client, safe, QUORUM, w.contracts.safe.multisend, data=batch, delegate=True),
    )
    guard_slot = "0x4a204f620c8c5ccdca3fd54d003badd85ba500436a431f0cbda4f558c93c34c8"  # as Safe's GuardManager has it
    w.client.call("anvil_setStorageAt", safe, guard_slot, "0x" + ALICE.address[2:].rjust(64, "0"))
    mine(w.client)
    drifted = w.view.safe_state(w.certificate.wallet, w.certificate, w.view.head())
    assert drifted.guard == ALICE.address
    assert (drifted.nonce, drifted.threshold, drifted.handler) == (1, 2, BOB.address)
    assert len(drifted.modules) == 60
    assert {module.lower() for module in drifted.modules} == set(modules)
    assert born.owners[1] not in drifted.owners


def test_safe_state_before_deployment(world: World) -> None:
    """Not there yet: deployed False and zeros; other code at the address: Unavailable."""
    other = evm_certificate(world.contracts.safe, salt=99)
    state = world.view.safe_state(other.wallet, other, world.view.head())
    assert (state.deployed, state.nonce, state.owners, state.threshold) == (False, 0, (), 0)
    assert (state.singleton, state.handler, state.address) == (ZERO_ADDRESS, ZERO_ADDRESS, other.safe[0].address)
    planted = replace(other, safe=(replace(other.safe[0], address=world.contracts.usd),))
    with pytest.raises(Unavailable):
        world.view.safe_state(planted.wallet, planted, world.view.head())
    impostor = "0x" + world.client.code(world.omnibus.text).hex() + "00"  # answers every question as a Safe does
    world.client.call("anvil_setCode", world.omnibus.text, impostor)
    mine(world.client)
    with pytest.raises(Unavailable, match="SafeProxy"):
        world.view.safe_state(world.certificate.wallet, world.certificate, world.view.head())


def test_contracts_travel_as_json(world: World) -> None:
    """Where everything stands, there and back."""
    assert DevnetContracts.from_json(world.contracts.to_json()) == world.contracts


def test_view_fills_its_ports(world: World) -> None:
    """The type checker holds these two lines."""
    chain_view: ChainView = world.view
    safe_reader: SafeReader = world.view
    assert chain_view.chain == CHAIN
    assert safe_reader is not None


def test_node_gone(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Every question to a node that died is Unavailable; none is answered from memory."""
    anvil = Anvil(tmp_path_factory.mktemp("gone") / "anvil")
    anvil.start()
    eth = Asset("ETH", CHAIN, AssetKind.NATIVE, 18)
    view = EvmView(EvmClient(anvil.url, CHAIN), Assets((eth,), {CHAIN: 1}))
    head, address = view.head(), Address(CHAIN, BOB.address)
    assert view.sightings(0, 0, [address]) == []
    anvil.stop()
    proof = NativeProof(CHAIN.name, 0, head.hash, BOB.address, 0, 1, 0)
    questions: list[Callable[[], object]] = [
        view.head,
        view.final,
        lambda: view.block(0),
        lambda: view.sightings(0, 0, [address]),
        lambda: view.confirm(proof),
        lambda: view.balance(eth, [address], head),
        lambda: view.safe_state(bytes(32), evm_certificate(), BlockRef(CHAIN, 0, head.hash, head.parent, 0)),
    ]
    for question in questions:
        with pytest.raises(Unavailable):
            question()
