# SPDX-License-Identifier: AGPL-3.0-or-later
"""Payouts' entries against real chains (`PayoutReader`): what was paid confirms, and every lie about it is refused by name."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import pytest

from custody.chains.bitcoin.payouts import BitcoinPayouts
from custody.chains.bitcoin.rpc import BitcoinRpc
from custody.chains.bitcoin.scripts import change_address, receive_address
from custody.chains.bitcoin.view import BitcoinView
from custody.chains.evm.client import EvmClient
from custody.chains.evm.deploy import deploy_safe
from custody.chains.evm.leaves import library_hash
from custody.chains.evm.payouts import EvmPayouts
from custody.chains.evm.safes import deposit_safe
from custody.chains.evm.signatures import pack
from custody.chains.evm.transactions import send
from custody.chains.evm.view import EvmView
from custody.flows.panel import Panel
from custody.flows.ports import PayoutReader
from custody.rules.errors import Unavailable
from custody.rules.intents import Anchor, TransferIntent
from custody.rules.ledger import Account, AccountKind
from custody.rules.origins import Arrived, Executed
from custody.rules.payments import Envelope, Mined, Payment, Sweep
from custody.rules.payouts import LeafKind, Place, SafeTx, ToSign
from custody.rules.provenance import Holding
from custody.rules.refusals import Rule
from custody.rules.typed import ZERO32, ZERO_ADDRESS
from custody.rules.wallets import Address, Chain
from custody.vault.signing import OpenedKeys, sign_digests
from devnet.anvil import Anvil
from devnet.bitcoind import Bitcoind
from devnet.contracts import deploy_all, fund, mint
from devnet.throwaway import QUORUM, RelayerHand, SeatedWallet, seated_safe, seated_script
from tests.devnet import test_bitcoin_payouts as bitcoin
from tests.devnet import test_evm_payouts as evm
from tests.fakes.bitcoin import ASSETS, CONFIRMATIONS, REGTEST
from tests.fakes.evm import CHAIN, account, batch_call, exec_call, owned_call

SUSPENSE: Final = Account(AccountKind.SUSPENSE)
COMPANY: Final = Account(AccountKind.COMPANY_EQUITY)
DEPLOYER: Final = account("deployer")
COLD: Final = b"\xc0" * 32
"""Another customers' wallet of ours, by name."""
OPERATIONAL: Final = b"\x0b" * 32
BITCOIN: Final = 10**8
ETHER: Final = 10**18

Owned = dict[Address, Holding]


@dataclass(frozen=True)
class Told:
    """One entry's origin with the intents that held something, and who has which address."""

    view: PayoutReader
    executed: Executed
    intents: tuple[TransferIntent, ...]
    owned: Mapping[Address, Holding]

    def check(self) -> str:
        """`""` where it confirms, else the field that it is refused for."""
        refusal = self.view.confirm_executed(self.executed, self.intents, self.owned.get)
        if refusal is None:
            return ""
        assert refusal.rule is Rule.ORIGIN
        return str(dict(refusal.operands).get("field", "block"))


@dataclass(frozen=True)
class Chapter:
    """What happened on one chain. `batch` pays three intents; `twin` is another payout of the same wallet."""

    single: Told
    batch: Told
    twin: Told
    void: Told


def holding(name: bytes, owner: Account = SUSPENSE) -> Holding:
    """An address of a wallet of ours."""
    return Holding(Account(AccountKind.WALLET, name.hex()), owner)


def intent_of(payment: Payment, wallet: bytes) -> TransferIntent:
    """The intent that a payment is of; what no chain can tell is left empty."""
    return TransferIntent(
        id=payment.intent.hex(),
        proposal=ZERO32,
        chain=payment.destination.chain.name,
        wallet=wallet,
        certificate=ZERO32,
        asset=payment.asset,
        token=ZERO_ADDRESS,
        decimals=0,
        amount=payment.units,
        account="customer:ana",
        destination=payment.destination.text,
        destination_kind="enrolled",
        enrolment=ZERO32,
        purpose="withdrawal",
        maximum_fee=payment.maximum_fee,
        initiator="backend",
        policy=ZERO32,
        roster=1,
        not_before=0,
        expiry=2**40,
    )


def told(
    view: PayoutReader,
    owned: Owned,
    mined: Mined,
    anchor: Anchor,
    payments: Sequence[Payment],
    arrived: Sequence[Arrived] = (),
    *,
    void: bool = False,
    unheld: int = 0,
) -> Told:
    """What an honest worker would record; the last `unheld` payments are of intents that held nothing."""
    executed = Executed(
        chain=anchor.chain,
        height=mined.height,
        block=mined.block,
        transaction=mined.transaction,
        anchor=anchor,
        intents=tuple(payment.intent for payment in payments),
        arrived=tuple(sorted(arrived, key=lambda a: (a.wallet, a.asset))),
        fee=0 if Chain(anchor.chain).is_evm else mined.fee,
        void=void,
    )
    held = [] if void else payments[: len(payments) - unheld]
    return Told(view, executed, tuple(intent_of(payment, anchor.wallet) for payment in held), owned)


@dataclass(frozen=True)
class Ethereum:
    """A chain with everything that happened on it."""

    world: evm.World
    view: EvmView
    owned: Owned
    chapter: Chapter

    def told(self, mined: Mined, anchor: Anchor, payments: Sequence[Payment], *, void: bool = False) -> Told:
        """As recorded by whoever owns the worker."""
        return told(self.view, self.owned, mined, anchor, payments, void=void)


@pytest.fixture(scope="module")
def ethereum(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ethereum]:
    """One Safe that paid ether alone, a batch of everything with a sweep, one more, and a void."""
    anvil = Anvil(tmp_path_factory.mktemp("executed") / "anvil")
    try:
        anvil.start()
        client = EvmClient(anvil.url, CHAIN)
        fund(client, DEPLOYER.address, 10**6 * ETHER)
        contracts = deploy_all(client, DEPLOYER)
        assets = evm.registry(contracts)
        wallet = seated_safe(contracts.safe, "customer_hot/eip155:31338", assets, CHAIN)
        relayer = RelayerHand(CHAIN)
        fund(client, relayer.account.address, 100 * ETHER)
        world = evm.World(anvil, client, contracts, wallet, relayer, EvmPayouts(client, assets, relayer))
        deploy_safe(client, DEPLOYER, wallet.certificate.safe[0])
        fund(client, world.safe, 1000 * ETHER)
        for token in (contracts.usd, contracts.silent_usd):
            mint(client, DEPLOYER, token, world.safe, 10**6)
        view = EvmView(client, assets)
        customer = Account(AccountKind.CUSTOMER_AVAILABLE, "ana")
        owned = {
            Address(CHAIN, world.safe): holding(wallet.name),
            deposit_safe(wallet.certificate, 0): holding(wallet.name, customer),
            Address(CHAIN, evm.fresh()): holding(COLD),
            Address(CHAIN, evm.fresh()): holding(OPERATIONAL, COMPANY),
        }
        yield Ethereum(world, view, owned, ethereum_chapter(world, view, owned))
    finally:
        anvil.stop()


def ethereum_chapter(world: evm.World, view: EvmView, owned: Owned) -> Chapter:
    """Everything sent; the batch sweeps ether and dollars, pays the company its fees, and refills the cold wallet."""
    certificate, name = world.wallet.certificate, world.wallet.name
    cold, company = (
        next(a for a, h in owned.items() if h == holding(*who)) for who in ((COLD,), (OPERATIONAL, COMPANY))
    )
    deposit = deposit_safe(certificate, 0).text
    payments = [evm.pay("ETH", 5)]
    unsigned = world.build(payments)
    single = told(view, owned, world.send(unsigned), unsigned.anchor, payments)
    fund(world.client, deposit, 70)
    mint(world.client, DEPLOYER, world.contracts.usd, deposit, 30)
    world.payouts.deploy_deposits(world.wallet.signed, (0,))
    payments = [
        evm.pay("ETH", 11, intent=1),
        evm.pay("USDX", 12, intent=2),
        evm.pay("USDN", 13, company.text, intent=3),
        evm.pay("USDX", 14, cold.text, intent=4),
    ]
    reservation = world.payouts.next_anchor(name, certificate, payments, ())
    swept = [Sweep(0, "ETH", 70), Sweep(0, "USDX", 30)]
    unsigned = world.payouts.build(certificate, reservation, payments, swept)
    arrived = [Arrived(name, "ETH", 70), Arrived(name, "USDX", 30), Arrived(COLD, "USDX", 14)]
    batch = told(view, owned, world.send(unsigned), unsigned.anchor, payments, arrived, unheld=1)
    payments = [evm.pay("ETH", 11), evm.pay("USDX", 12)]
    unsigned = world.build(payments)
    twin = told(view, owned, world.send(unsigned), unsigned.anchor, payments)
    dead = [evm.pay("ETH", 1)]
    anchor = world.build(dead).anchor
    mined = world.send(world.payouts.void(certificate, anchor))
    return Chapter(single, batch, twin, told(view, owned, mined, anchor, dead, void=True))


@pytest.fixture(scope="module")
def satoshi(bitcoind: Bitcoind) -> Chapter:
    """One wallet that paid alone, three at once (one of them our cold wallet), once more, and a void."""
    wallet = seated_script("executed", ASSETS, REGTEST, birth=bitcoind.height)
    rpc = BitcoinRpc(bitcoind.url, REGTEST, cookie=bitcoind.cookie_file)
    world = bitcoin.World(bitcoind, wallet, BitcoinPayouts(rpc, ASSETS))
    view = BitcoinView(rpc, ASSETS)
    cold = seated_script("executed-cold", ASSETS, REGTEST)
    owned: Owned = {receive_address(cold.certificate, 0): holding(COLD)}
    for index in range(6):
        owned[receive_address(wallet.certificate, index)] = holding(wallet.name)
        owned[change_address(wallet.certificate, index)] = holding(wallet.name)
    world.fund(*[BITCOIN] * 6)

    def pay(payments: Sequence[Payment], *extra: Arrived) -> Told:
        unsigned = world.build(payments)
        change = sum(leaf.units for leaf in wallet.decode(unsigned).leaves) - sum(p.units for p in payments)
        arrived = [Arrived(wallet.name, "BTC", change), *extra]
        return told(view, owned, world.send(unsigned), unsigned.anchor, payments, arrived)

    single = pay([world.pay(10_000_000)])
    to = receive_address(cold.certificate, 0).text
    three = [world.pay(120_000_000), world.pay(2_000_000, intent=2), world.pay(3_000_000, to, intent=3)]
    batch = pay(three, Arrived(COLD, "BTC", 3_000_000))
    twin = pay([world.pay(2_000_000)])
    dead = [world.pay(4_000_000)]
    anchor = world.build(dead).anchor
    void = world.payouts.void(wallet.certificate, anchor)
    mined = world.send(void)
    arrived = [Arrived(wallet.name, "BTC", BITCOIN - void.fee)]
    bitcoind.mine(CONFIRMATIONS)
    return Chapter(single, batch, twin, told(view, owned, mined, anchor, dead, arrived, void=True))


@pytest.fixture(params=["evm", "bitcoin"])
def chapter(request: pytest.FixtureRequest) -> Chapter:
    """Both chains in turn."""
    if request.param == "evm":
        found: Chapter = request.getfixturevalue("ethereum").chapter
        return found
    chapter: Chapter = request.getfixturevalue("satoshi")
    return chapter


@pytest.mark.parametrize("which", ["single", "batch", "twin", "void"])
def test_what_happened_confirms(chapter: Chapter, which: str) -> None:
    """One payment, a batch with moves between wallets of ours, and a void; also in another order, and with panels between."""
    truth: Told = getattr(chapter, which)
    assert isinstance(truth.view, PayoutReader)
    assert truth.check() == ""
    assert replace(truth, intents=truth.intents[::-1]).check() == ""
    panel = Panel(Chain(truth.executed.chain), [truth.view])  # type: ignore[list-item]  # a whole view, told as its one port
    assert replace(truth, view=panel).check() == ""


def test_a_sweep_that_carries_no_intent(ethereum: Ethereum) -> None:
    """Two deposit addresses emptied by schedule: it confirms as it was, and neither as more, nor as a void, nor with a payment."""
    world, certificate, name = ethereum.world, ethereum.world.wallet.certificate, ethereum.world.wallet.name
    owned = {**ethereum.owned, deposit_safe(certificate, 1): holding(name)}
    for index in (0, 1):
        fund(world.client, deposit_safe(certificate, index).text, 40)
    world.payouts.deploy_deposits(world.wallet.signed, (0, 1))
    reservation = world.payouts.next_anchor(name, certificate, (), ())
    unsigned = world.payouts.build(certificate, reservation, (), [Sweep(0, "ETH", 40), Sweep(1, "ETH", 30)])
    assert {leaf.kind for leaf in world.wallet.decode(unsigned).leaves} == {LeafKind.SWEEP}
    mined = world.send(unsigned)
    truth = told(ethereum.view, owned, mined, unsigned.anchor, (), [Arrived(name, "ETH", 70)])
    assert truth.check() == ""
    assert stated(truth, arrived=(Arrived(name, "ETH", 71),)).check() == "arrived"
    assert stated(truth, arrived=()).check() == "arrived"
    assert stated(truth, void=True).check() == "void"
    assert stated(truth, fee=1).check() == "fee"
    paid = told(ethereum.view, owned, mined, unsigned.anchor, [evm.pay("ETH", 70)], [Arrived(name, "ETH", 70)])
    assert paid.check() == "payments"


def stated(truth: Told, **changes: object) -> Told:
    """The same with another statement."""
    return replace(truth, executed=replace(truth.executed, **changes))  # type: ignore[arg-type]


def first_intent(truth: Told, **changes: object) -> Told:
    """The same with another first intent."""
    return replace(truth, intents=(replace(truth.intents[0], **changes), *truth.intents[1:]))  # type: ignore[arg-type]


def more(truth: Told) -> Arrived:
    """What arrived first, and a unit more."""
    return replace(truth.executed.arrived[0], units=truth.executed.arrived[0].units + 1)


Lie = Callable[[Chapter], Told]
LIES: Final[Mapping[str, tuple[Lie, str]]] = {
    "other amount": (lambda c: first_intent(c.batch, amount=c.batch.intents[0].amount + 1), "payments"),
    "other destination": (lambda c: first_intent(c.batch, destination=c.batch.intents[1].destination), "payments"),
    "other asset": (lambda c: first_intent(c.batch, asset="XYZ"), "payments"),
    "an intent left out": (
        lambda c: stated(replace(c.batch, intents=c.batch.intents[1:]), intents=c.batch.executed.intents[1:]),
        "payments",
    ),
    "an intent whose hold is gone": (lambda c: replace(c.batch, intents=c.batch.intents[1:]), "payments"),
    "an intent added": (lambda c: replace(c.batch, intents=(*c.batch.intents, c.single.intents[0])), "payments"),
    "an intent twice": (lambda c: replace(c.batch, intents=(*c.batch.intents, c.batch.intents[0])), "payments"),
    "a digest more than payments": (
        lambda c: stated(c.batch, intents=(*c.batch.executed.intents, b"\7" * 32)),
        "intents",
    ),
    "other fee": (lambda c: stated(c.batch, fee=c.batch.executed.fee + 1), "fee"),
    "other anchor": (
        lambda c: stated(c.batch, anchor=replace(c.batch.executed.anchor, reference=c.twin.executed.anchor.reference)),
        "anchor",
    ),
    "an anchor that nobody has": (
        lambda c: stated(c.batch, anchor=replace(c.batch.executed.anchor, reference="1000")),
        "anchor",
    ),
    "other wallet": (
        lambda c: stated(c.batch, anchor=replace(c.batch.executed.anchor, wallet=COLD)),
        "wallet",
    ),
    "a wallet that is not known": (lambda c: replace(c.batch, owned={}), "wallet"),
    "a payment told as void": (lambda c: stated(replace(c.single, intents=()), void=True), "void"),
    "a void told as payment": (lambda c: stated(replace(c.void, intents=c.single.intents), void=False), "void"),
    "a void told as a payment that held nothing": (lambda c: stated(c.void, void=False), "void"),
    "more arrived": (lambda c: stated(c.batch, arrived=(more(c.batch), *c.batch.executed.arrived[1:])), "arrived"),
    "nothing arrived": (lambda c: stated(c.batch, arrived=()), "arrived"),
    "arrived elsewhere": (
        lambda c: stated(c.batch, arrived=tuple(replace(a, wallet=OPERATIONAL) for a in c.batch.executed.arrived)),
        "arrived",
    ),
    "the void brought more": (lambda c: stated(c.void, arrived=(Arrived(COLD, "BTC", 1),)), "arrived"),
    "the cold wallet is a stranger": (
        lambda c: replace(c.batch, owned={a: h for a, h in c.batch.owned.items() if h != holding(COLD)}),
        "payments or arrived",
    ),
    "other block": (lambda c: stated(c.batch, block=c.twin.executed.block), "block"),
    "no such block": (lambda c: stated(c.batch, block=b"\1" * 32), "block"),
    "other height": (lambda c: stated(c.batch, height=c.twin.executed.height), "block"),
    "the block of another": (
        lambda c: stated(c.batch, block=c.twin.executed.block, height=c.twin.executed.height),
        "transaction",
    ),
    "other transaction": (
        lambda c: stated(
            c.batch,
            transaction=c.twin.executed.transaction,
            block=c.twin.executed.block,
            height=c.twin.executed.height,
        ),
        "anchor",
    ),
    "no such transaction": (lambda c: stated(c.batch, transaction=b"\1" * 32), "transaction"),
    "other chain": (lambda c: stated(c.batch, chain="eip155:1"), "chain"),
    "an anchor of another chain": (
        lambda c: stated(c.batch, anchor=replace(c.batch.executed.anchor, chain="eip155:1")),
        "chain",
    ),
}
BY_WALLET: Final = {
    "wallet": {"anchor", "inputs"},
    "payments or arrived": {"payments", "arrived"},
    "chain": {"chain", "block"},
}


@pytest.mark.parametrize("lie", LIES)
def test_lies(chapter: Chapter, lie: str) -> None:
    """One thing stated otherwise than it happened: refused, for that thing."""
    tell, field = LIES[lie]
    assert tell(chapter).check() in BY_WALLET.get(field, {field})


def test_a_block_above_the_head_is_not_known(chapter: Chapter) -> None:
    """A node that is behind says nothing about it."""
    with pytest.raises(Unavailable):
        stated(chapter.batch, height=10**6).check()


def test_a_void_in_a_strangers_safe(ethereum: Ethereum) -> None:
    """Anybody can void the same nonce in a Safe of his own; a worker that says it was ours frees no hold."""
    world = ethereum.world
    stranger = seated_safe(world.contracts.safe, "mallory", world.wallet.assets, CHAIN)
    deploy_safe(world.client, DEPLOYER, stranger.certificate.safe[0])
    theirs = replace(world, wallet=stranger)
    anchor = Anchor(CHAIN.name, stranger.name, "0")
    mined = theirs.send(world.payouts.void(stranger.certificate, anchor))
    ours = replace(ethereum.chapter.single.executed.anchor, reference="0")
    assert ethereum.told(mined, ours, [evm.pay("ETH", 5)], void=True).check() == "anchor"
    other = {**ethereum.owned, Address(CHAIN, stranger.certificate.safe[0].address): holding(stranger.name)}
    assert told(ethereum.view, other, mined, anchor, [evm.pay("ETH", 5)], void=True).check() == ""


def test_the_nonce_of_a_deposit_safe_is_no_anchor(ethereum: Ethereum) -> None:
    """The batch ran a deposit Safe at that Safe's nonce 0; the wallet's own nonce 0 was another payout's."""
    single, batch = ethereum.chapter.single, ethereum.chapter.batch
    assert single.executed.anchor.reference == "0"
    assert stated(batch, anchor=single.executed.anchor).check() == "anchor"


def test_a_call_that_failed_is_a_void(ethereum: Ethereum) -> None:
    """Status 1 and ExecutionFailure: the nonce is burnt and nobody was paid, so only a void may be told."""
    world = ethereum.world
    payments = [evm.pay("ETH", 1)]
    unsigned = world.build(payments)
    assert isinstance(unsigned.payload, SafeTx)
    odd = replace(unsigned.payload, value=10**6 * ETHER, safe_tx_gas=30_000)
    mined = carried(world, world.wallet, odd)
    assert ethereum.told(mined, unsigned.anchor, payments, void=True).check() == ""
    assert ethereum.told(mined, unsigned.anchor, payments).check() == "void"


def carried(world: evm.World, wallet: SeatedWallet, tx: SafeTx) -> Mined:
    """A SafeTx that no seat would sign, signed by their keys and sent by anybody."""
    digest = library_hash(tx)
    to_sign = [ToSign(digest, Place(wallet.certificate.struct_hash))]
    given = [sign_digests(OpenedKeys(wallet.vaults[seat]), seat, wallet.certificate, to_sign) for seat in QUORUM]
    packed = pack(wallet.certificate, digest, given)
    gas = {"safe_tx_gas": tx.safe_tx_gas, "gas_price": tx.gas_price}
    call = exec_call(tx.to, tx.value, tx.data, packed, delegate=tx.operation == 1, **gas)
    receipt = send(world.client, DEPLOYER, tx.safe, call)
    envelope = Envelope(digest, receipt.transaction, Anchor(tx.chain, wallet.name, str(tx.nonce)), b"")
    mined = world.payouts.follow(wallet.certificate, [envelope])
    assert isinstance(mined, Mined)
    return mined


@pytest.mark.parametrize(
    ("how", "field"),
    [
        ("a refund besides", "transaction"),
        ("gas that lets the call fail", "safeTxGas"),
        ("delegatecall of other code", "transaction"),
        ("a deposit Safe pays a stranger", "transaction"),
        ("a call of anything", "transaction"),
        ("a void that is a call of itself", "transaction"),
    ],
)
def test_what_no_payout_is_made_of(ethereum: Ethereum, how: str, field: str) -> None:
    """Mined under the quorum's own signatures, and told as the payment that it looks like: no part of it is taken on trust."""
    world = ethereum.world
    payment = evm.pay("ETH", 6)
    blank = world.build([payment]).payload
    assert isinstance(blank, SafeTx)
    to, deposit = payment.destination.text, deposit_safe(world.wallet.certificate, 0).text
    fund(world.client, deposit, 6)
    swept = owned_call(world.safe, to, 6)
    odd = {
        "a refund besides": replace(blank, gas_price=1),
        "gas that lets the call fail": replace(blank, safe_tx_gas=50_000),
        "delegatecall of other code": replace(
            blank, to=evm.fresh(), value=0, data=batch_call([(to, 6, b"")]), operation=1
        ),
        "a deposit Safe pays a stranger": replace(blank, to=deposit, value=0, data=swept),
        "a call of anything": replace(blank, data=b"\1\2\3\4"),
        "a void that is a call of itself": replace(blank, to=world.safe, value=0, data=b"\xaf\xfe\xd0\xe0"),
    }[how]
    mined = carried(world, world.wallet, odd)
    anchor = Anchor(CHAIN.name, world.wallet.name, str(odd.nonce))
    assert ethereum.told(mined, anchor, [payment]).check() == field
    assert ethereum.told(mined, anchor, [payment], void=True).check() != ""


def test_a_token_that_moved_nothing(ethereum: Ethereum) -> None:
    """It answers true and logs nothing; the call succeeded, the receipt says so, and nobody was paid."""
    world, usd = ethereum.world, ethereum.world.contracts.usd
    code = world.client.call("eth_getCode", usd, "latest")
    payments = [evm.pay("USDX", 3)]
    unsigned = world.build(payments)
    world.client.call("anvil_setCode", usd, "0x600160005260206000f3")
    try:
        mined = world.send(unsigned)
    finally:
        world.client.call("anvil_setCode", usd, code)
    assert ethereum.told(mined, unsigned.anchor, payments).check() == "transfer"


def test_a_sweep_of_nobody(ethereum: Ethereum) -> None:
    """A deposit Safe without code: calling it succeeds and brings nothing, so nothing may be told to have arrived."""
    world, wallet = ethereum.world, ethereum.world.wallet
    deposit = deposit_safe(wallet.certificate, 0).text
    code = world.client.call("eth_getCode", deposit, "latest")
    fund(world.client, deposit, 9)
    payments = [evm.pay("ETH", 2)]
    reservation = world.payouts.next_anchor(wallet.name, wallet.certificate, payments, ())
    unsigned = world.payouts.build(wallet.certificate, reservation, payments, [Sweep(0, "ETH", 9)])
    world.client.call("anvil_setCode", deposit, "0x")
    try:
        mined = world.send(unsigned)
    finally:
        world.client.call("anvil_setCode", deposit, code)
    arrived = [Arrived(wallet.name, "ETH", 9)]
    assert told(ethereum.view, ethereum.owned, mined, unsigned.anchor, payments, arrived).check() == "sweep"
