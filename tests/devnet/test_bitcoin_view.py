# SPDX-License-Identifier: AGPL-3.0-or-later
"""BitcoinView on a real bitcoind: arrivals, finality, reorgs, and balances against the node's own UTXO set."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from decimal import Decimal
from itertools import count
from pathlib import Path

import pytest

from custody.chains.bitcoin import outputs
from custody.chains.bitcoin.blocks import Block, read_blocks
from custody.chains.bitcoin.rpc import BitcoinRpc
from custody.chains.bitcoin.scripts import receive_address
from custody.chains.bitcoin.view import BitcoinView
from custody.rules.amounts import Asset, AssetKind, Assets
from custody.rules.deposits import BlockRef
from custody.rules.errors import InvalidInput, Unavailable
from custody.rules.origins import BitcoinProof, NativeProof
from custody.rules.refusals import Rule
from custody.rules.wallets import Address
from devnet.bitcoind import MINER, Bitcoind
from tests.fakes.bitcoin import ASSETS, BTC, CONFIRMATIONS, MAIN, REGTEST, bitcoin_certificate

_WALLETS = count()


@pytest.fixture
def rpc(bitcoind: Bitcoind) -> BitcoinRpc:
    """A client of the shared node."""
    return BitcoinRpc(bitcoind.url, REGTEST, cookie=bitcoind.cookie_file)


@pytest.fixture
def view(rpc: BitcoinRpc) -> BitcoinView:
    """A view that has read nothing yet."""
    return BitcoinView(rpc, ASSETS)


@pytest.fixture
def ours() -> list[Address]:
    """Three addresses that nobody has ever paid: a wallet of its own for each test."""
    certificate = bitcoin_certificate(name=f"view-{next(_WALLETS)}")
    return [receive_address(certificate, i) for i in range(3)]


@pytest.fixture
def forked(bitcoind: Bitcoind) -> Iterator[list[str]]:
    """Blocks that a test invalidates are put in here; afterwards the node forgets that they were."""
    blocks: list[str] = []
    yield blocks
    for block in blocks:
        bitcoind.rpc("reconsiderblock", block)


def pay(bitcoind: Bitcoind, payments: Mapping[Address, int]) -> bytes:
    """One transaction of the miner's to several addresses; its id."""
    amounts = [{a.text: Decimal(units).scaleb(-8)} for a, units in payments.items()]
    sent = bitcoind.rpc("send", amounts, None, "unset", None, {"fee_rate": 2, "locktime": 0}, wallet=MINER)
    assert isinstance(sent, dict)
    return bytes.fromhex(sent["txid"])


def unspent(bitcoind: Bitcoind, addresses: list[Address]) -> int:
    """What the node's UTXO set holds on these addresses at the tip."""
    found = bitcoind.rpc("scantxoutset", "start", [f"addr({a})" for a in addresses])
    assert isinstance(found, dict)
    return int(Decimal(found["total_amount"]).scaleb(8))


def mine_empty(bitcoind: Bitcoind, blocks: int) -> None:
    """Blocks without any transaction of the mempool, so that a payment stays out."""
    to = bitcoind.rpc("getnewaddress", wallet=MINER)
    for _ in range(blocks):
        bitcoind.rpc("generateblock", to, [])


def head(view: BitcoinView) -> BlockRef:
    """The newest block, which must be canonical at its height."""
    found = view.head()
    assert view.block(found.height) == found
    return found


def test_blocks_follow_each_other(bitcoind: Bitcoind, view: BitcoinView) -> None:
    """Head, final and every block by height; above the head there is none."""
    bitcoind.mine(2)
    newest = head(view)
    parent = view.block(newest.height - 1)
    assert parent is not None
    assert newest.parent == parent.hash
    assert view.final() == view.block(newest.height - CONFIRMATIONS + 1)
    assert view.block(newest.height + 1) is None
    genesis = view.block(0)
    assert genesis is not None
    assert (genesis.parent, genesis.hash.hex()[:32]) == (bytes(32), REGTEST.name.removeprefix("bip122:"))
    with pytest.raises(InvalidInput):
        view.block(-1)


def test_sightings(bitcoind: Bitcoind, view: BitcoinView, ours: list[Address]) -> None:
    """Two outputs of one transaction, another transaction, another block; from any height, and only what is watched."""
    first = view.head().height + 1
    both = pay(bitcoind, {ours[0]: 10_000_000, ours[1]: 20_000_000})
    again = pay(bitcoind, {ours[0]: 1_000})
    bitcoind.mine()
    later = pay(bitcoind, {ours[2]: 123_456_789})
    bitcoind.mine()
    last = head(view).height
    assert last == first + 1

    seen = view.sightings(first, last, ours)
    got = {(s.address, s.amount.units, proof_of(s.proof).txid, s.proof.height) for s in seen}
    assert got == {
        (ours[0], 10_000_000, both, first),
        (ours[1], 20_000_000, both, first),
        (ours[0], 1_000, again, first),
        (ours[2], 123_456_789, later, last),
    }
    assert len({s.identity for s in seen}) == 4
    assert [s.proof.height for s in seen] == sorted(s.proof.height for s in seen)
    assert sum(s.amount.units for s in seen if s.address != ours[2]) == 30_001_000
    assert all(s.amount.asset == BTC and s.proof.block == ref_hash(view, s.proof.height) for s in seen)
    assert [view.confirm(s.proof) for s in seen] == [None] * 4

    assert view.sightings(0, last, ours) == seen
    assert view.sightings(last, last, ours) == seen[-1:]
    assert view.sightings(first, last, ours[2:]) == seen[-1:]
    assert list(view.sightings(first, last, [])) == []
    assert list(view.sightings(last, first, ours)) == []
    with pytest.raises(Unavailable):
        view.sightings(first, last + 1, ours)


def proof_of(proof: object) -> BitcoinProof:
    """The proof, which on Bitcoin is of one kind."""
    assert isinstance(proof, BitcoinProof)
    return proof


def ref_hash(view: BitcoinView, height: int) -> bytes:
    """The hash of the canonical block at a height."""
    found = view.block(height)
    assert found is not None
    return found.hash


def test_unconfirmed_is_no_deposit(bitcoind: Bitcoind, view: BitcoinView, ours: list[Address]) -> None:
    """What only the mempool knows is not seen, however many blocks go by without it; it is once a block has it."""
    first = view.head().height + 1
    txid = pay(bitcoind, {ours[0]: 700_000})
    mine_empty(bitcoind, CONFIRMATIONS + 1)
    assert view.sightings(first, head(view).height, ours) == []
    bitcoind.mine()
    (seen,) = view.sightings(first, head(view).height, ours)
    assert (proof_of(seen.proof).txid, seen.proof.height) == (txid, head(view).height)


@pytest.mark.parametrize("still_ours", [False, True], ids=["away from us", "to us again"])
def test_a_replaced_payment_is_no_deposit(
    bitcoind: Bitcoind, view: BitcoinView, ours: list[Address], still_ours: bool
) -> None:
    """A payment that its sender replaces by a higher fee (BIP-125) never was: what counts is the one that a block has, once."""
    first = view.head().height + 1
    replaced = pay(bitcoind, {ours[0]: 800_000})
    to = ours[0].text if still_ours else str(bitcoind.rpc("getnewaddress", wallet=MINER))
    options = {"fee_rate": 40, "outputs": [{to: Decimal("0.00800000")}]}
    bumped = bitcoind.rpc("bumpfee", replaced.hex(), options, wallet=MINER)
    assert isinstance(bumped, dict)
    bitcoind.mine(CONFIRMATIONS)
    found = view.sightings(first, head(view).height, ours)
    wanted = [(bytes.fromhex(bumped["txid"]), 800_000)] if still_ours else []
    assert [(proof_of(s.proof).txid, s.amount.units) for s in found] == wanted
    assert bumped["txid"] != replaced.hex()
    for seen in found:
        refusal = view.confirm(replace(proof_of(seen.proof), txid=replaced))
        assert refusal is not None


def test_coinbase_is_no_deposit(bitcoind: Bitcoind, view: BitcoinView, ours: list[Address]) -> None:
    """Somebody mines to our address: nothing to credit, though the chain holds it."""
    bitcoind.mine(1, ours[0].text)
    at = head(view)
    assert list(view.sightings(at.height, at.height, ours)) == []
    held = view.balance(BTC, ours, at)
    assert held == unspent(bitcoind, ours) > 0
    block = bitcoind.rpc("getblock", at.hash.hex())
    assert isinstance(block, dict)
    proof = BitcoinProof(REGTEST.name, at.height, at.hash, bytes.fromhex(block["tx"][0]), 0, ours[0].text, held)
    refusal = view.confirm(proof)
    assert refusal is not None
    assert refusal.operands["got"] == "a coinbase"


def test_confirm_refuses_every_changed_field(bitcoind: Bitcoind, view: BitcoinView, ours: list[Address]) -> None:
    """A journal row whose proof was altered is found out, field by field."""
    pay(bitcoind, {ours[0]: 70_000, ours[1]: 80_000})
    bitcoind.mine(2)
    at = head(view)
    good = proof_of(view.sightings(at.height - 1, at.height, ours[:1])[0].proof)
    assert view.confirm(good) is None
    other = proof_of(view.sightings(at.height - 1, at.height, ours[1:2])[0].proof)
    changes: dict[str, object] = {
        "chain": MAIN.name,
        "height": good.height + 1,
        "block": at.hash,
        "txid": bytes(32),
        "vout": other.vout,
        "address": ours[1].text,
        "value": good.value + 1,
    }
    for field, value in changes.items():
        refusal = view.confirm(replace(good, **{field: value}))  # type: ignore[arg-type]  # one field of each kind
        assert refusal is not None, field
        assert refusal.rule == Rule.ORIGIN
    for odd in (replace(good, vout=99), replace(good, address="bc1nonsense"), replace(good, block=b"\x11" * 32)):
        assert view.confirm(odd) is not None
    assert view.confirm(NativeProof(REGTEST.name, at.height, at.hash, "0x" + "11" * 20, 0, 1, 0)) is not None
    with pytest.raises(Unavailable):  # a node that lags behind knows nothing about such a block
        view.confirm(replace(good, height=10**6, block=b"\x11" * 32))


def test_reorg(bitcoind: Bitcoind, view: BitcoinView, ours: list[Address], forked: list[str]) -> None:
    """The block goes, its proof with it; the payment comes back in another block, with another identity."""
    pay(bitcoind, {ours[0]: 5_000_000})
    bitcoind.mine(2)
    old = head(view)
    (before,) = view.sightings(old.height - 1, old.height, ours)
    assert view.balance(BTC, ours, old) == 5_000_000

    gone = before.proof.block.hex()
    bitcoind.rpc("invalidateblock", gone)
    forked.append(gone)
    refusal = view.confirm(before.proof)  # the head is lower now, and the node has seen the block: it is not canonical
    assert refusal is not None
    assert view.head().height == before.proof.height - 1
    mine_empty(bitcoind, 3)
    tip = head(view)
    assert ref_hash(view, before.proof.height) != before.proof.block
    assert view.confirm(before.proof) is not None
    assert list(view.sightings(before.proof.height, tip.height, ours)) == []
    assert view.balance(BTC, ours, tip) == 0 == unspent(bitcoind, ours)
    with pytest.raises(Unavailable):
        view.balance(BTC, ours, old)

    bitcoind.mine()
    (after,) = view.sightings(before.proof.height, head(view).height, ours)
    assert proof_of(after.proof).txid == proof_of(before.proof).txid
    assert after.identity != before.identity
    assert view.confirm(after.proof) is None
    assert view.balance(BTC, ours, head(view)) == 5_000_000


def test_balance_at_every_height(bitcoind: Bitcoind, view: BitcoinView) -> None:
    """Coins come and go; at each height the balance is what arithmetic says, at the tip what the UTXO set says."""
    name = f"spender-{next(_WALLETS)}"
    bitcoind.rpc("createwallet", name)
    texts = [str(bitcoind.rpc("getnewaddress", wallet=name)) for _ in range(3)]
    ours = [Address.parse(REGTEST, text) for text in texts]
    start = head(view)
    expected = {start.height: 0}

    def step(change: int) -> None:
        bitcoind.mine()
        newest = head(view)
        expected[newest.height] = expected[newest.height - 1] + change

    pay(bitcoind, {ours[0]: 10_000_000})
    step(10_000_000)
    pay(bitcoind, {ours[1]: 20_000_000})  # 0.1 + 0.2
    step(20_000_000)
    assert view.balance(BTC, ours, head(view)) == 30_000_000
    step(0)
    stranger = str(bitcoind.rpc("getnewaddress", wallet=MINER))
    options = {"locktime": 0, "fee_rate": 3, "change_address": texts[2], "include_unsafe": True}
    sent = bitcoind.rpc("send", [{stranger: Decimal("0.12345678")}], None, "unset", None, options, wallet=name)
    assert isinstance(sent, dict)
    told = bitcoind.rpc("gettransaction", sent["txid"], wallet=name)
    assert isinstance(told, dict)
    step(-12_345_678 + int(Decimal(told["fee"]).scaleb(8)))
    bitcoind.rpc("sendall", [stranger], None, "unset", 3, wallet=name)
    bitcoind.mine()
    expected[head(view).height] = 0

    fresh = BitcoinView(view._rpc, ASSETS)
    for index in (view, fresh):
        for height, units in expected.items():
            at = index.block(height)
            assert at is not None
            assert index.balance(BTC, ours, at) == units, height
        assert index.balance(BTC, ours, head(view)) == unspent(bitcoind, ours)
        assert index.balance(BTC, [*ours, *ours], head(view)) == 0


def test_created_and_spent_in_one_block(bitcoind: Bitcoind, view: BitcoinView) -> None:
    """A chain of transactions inside one block leaves only its end."""
    name = f"chained-{next(_WALLETS)}"
    bitcoind.rpc("createwallet", name)
    first, second = (Address.parse(REGTEST, str(bitcoind.rpc("getnewaddress", wallet=name))) for _ in range(2))
    pay(bitcoind, {first: 1_000_000})
    bitcoind.rpc("syncwithvalidationinterfacequeue")  # the other wallet hears of it a moment later
    options = {"locktime": 0, "fee_rate": 2, "include_unsafe": True, "subtract_fee_from_outputs": [0]}
    bitcoind.rpc("send", [{second.text: Decimal("0.01")}], None, "unset", None, options, wallet=name)
    bitcoind.mine()
    at = head(view)
    assert view.balance(BTC, [first], at) == 0
    assert view.balance(BTC, [second], at) == unspent(bitcoind, [first, second]) > 0
    assert {s.address for s in view.sightings(at.height, at.height, [first, second])} == {first, second}


def test_address_added_later(bitcoind: Bitcoind, view: BitcoinView, ours: list[Address]) -> None:
    """An address that was paid before anybody watched it is found in full, from birth."""
    pay(bitcoind, {ours[0]: 30_000, ours[1]: 40_000})
    bitcoind.mine()
    assert view.balance(BTC, ours[:1], head(view)) == 30_000
    bitcoind.mine()
    assert view.balance(BTC, ours[:2], head(view)) == 70_000
    view.watch(ours)
    assert view.balance(BTC, ours, head(view)) == 70_000


def test_birth(bitcoind: Bitcoind, rpc: BitcoinRpc, view: BitcoinView, ours: list[Address]) -> None:
    """Nothing before birth is read: what was paid earlier, which cannot be, is not counted."""
    pay(bitcoind, {ours[0]: 30_000})
    bitcoind.mine()
    early = head(view)
    pay(bitcoind, {ours[0]: 50_000})
    bitcoind.mine()
    born = BitcoinView(rpc, ASSETS, birth=early.height + 1)
    assert born.balance(BTC, ours, head(view)) == 50_000
    assert born.balance(BTC, ours, early) == 0


def test_cache_resumes(
    bitcoind: Bitcoind, rpc: BitcoinRpc, ours: list[Address], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A restart reads only what is new; a reorg while it was away is undone; a damaged file is read as none."""
    file = tmp_path / "cache" / "outputs.json"
    pay(bitcoind, {ours[0]: 30_000})
    bitcoind.mine(2)
    first = BitcoinView(rpc, ASSETS, file)
    start = head(first)
    assert first.balance(BTC, ours, start) == 30_000
    first.save()
    assert file.stat().st_mode & 0o777 == 0o600

    read: list[tuple[int, int]] = []

    def watched(node: BitcoinRpc, low: int, high: int) -> Iterator[Block]:
        read.append((low, high))
        return read_blocks(node, low, high)

    monkeypatch.setattr(outputs, "read_blocks", watched)
    bitcoind.mine()
    again = BitcoinView(rpc, ASSETS, file)
    assert again.balance(BTC, ours, head(again)) == 30_000
    assert read == [(start.height + 1, start.height + 1)]

    gone = ref_hash(again, start.height - 1).hex()
    bitcoind.rpc("invalidateblock", gone)
    mine_empty(bitcoind, 5)
    away = BitcoinView(rpc, ASSETS, file)
    assert away.balance(BTC, ours, head(away)) == 0 == unspent(bitcoind, ours)
    bitcoind.mine()
    assert away.balance(BTC, ours, head(away)) == 30_000

    body = json.loads(file.read_text())
    body["body"] = body["body"].replace("30000", "99999")
    file.write_text(json.dumps(body))
    assert BitcoinView(rpc, ASSETS, file).balance(BTC, ours, head(away)) == 30_000
    file.write_text("[")
    assert BitcoinView(rpc, ASSETS, file).balance(BTC, ours, head(away)) == 30_000


def test_reorg_deeper_than_remembered(
    bitcoind: Bitcoind, view: BitcoinView, ours: list[Address], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no remembered block is canonical any more, the chain is read again from birth."""
    monkeypatch.setattr(outputs, "HASHES_KEPT", 3)
    pay(bitcoind, {ours[0]: 30_000})
    bitcoind.mine()
    pay(bitcoind, {ours[1]: 60_000})
    bitcoind.mine(6)
    old = head(view)
    assert view.balance(BTC, ours, old) == 90_000
    bitcoind.rpc("invalidateblock", ref_hash(view, old.height - 5).hex())
    mine_empty(bitcoind, 8)
    assert view.balance(BTC, ours, head(view)) == 30_000 == unspent(bitcoind, ours)


def test_another_asset_refused(view: BitcoinView, ours: list[Address]) -> None:
    """A view of one chain tells nothing about another's assets, nor about one that it does not carry."""
    at = view.head()
    other = Asset("XBT", MAIN, AssetKind.NATIVE, 8)
    with pytest.raises(InvalidInput) as caught:
        view.balance(other, ours, at)
    assert caught.value.rule == Rule.WRONG_NETWORK
    with pytest.raises(InvalidInput) as caught:
        view.balance(replace(BTC, symbol="TBTC"), ours, at)
    assert caught.value.rule == Rule.UNKNOWN_ASSET


def test_a_registry_without_this_chain(rpc: BitcoinRpc) -> None:
    """A view is not made without exactly one native asset on its chain."""
    with pytest.raises(InvalidInput):
        BitcoinView(rpc, Assets((replace(BTC, chain=MAIN),), {MAIN: 6}))


def test_wrong_network_and_stopped_node(tmp_path: Path) -> None:
    """A node of another network is refused; one that stopped is Unavailable, and comes back with its new cookie."""
    node = Bitcoind(tmp_path / "own")
    try:
        node.start()
        with pytest.raises(InvalidInput) as caught:
            BitcoinRpc(node.url, MAIN, cookie=node.cookie_file)
        assert caught.value.rule == Rule.WRONG_NETWORK
        view = BitcoinView(BitcoinRpc(node.url, REGTEST, cookie=node.cookie_file), ASSETS)
        before = view.head()
        address = receive_address(bitcoin_certificate(name="own"), 0)
        node.stop()
        for call in (
            view.head,
            view.final,
            lambda: view.block(1),
            lambda: view.sightings(0, 1, [address]),
            lambda: view.balance(BTC, [address], before),
            lambda: view.confirm(BitcoinProof(REGTEST.name, 1, before.hash, bytes(32), 0, address.text, 1)),
        ):
            with pytest.raises(Unavailable):
                call()
        node.start()
        assert view.head() == before
    finally:
        node.stop()


def test_is_spent(bitcoind: Bitcoind, view: BitcoinView) -> None:
    """An output is spent from the block that spends it on; what is nobody's, or not there yet, is no output of ours."""
    name = f"spending-{next(_WALLETS)}"
    bitcoind.rpc("createwallet", name)
    ours = Address.parse(REGTEST, str(bitcoind.rpc("getnewaddress", wallet=name)))
    before = head(view)
    txid = pay(bitcoind, {ours: 1_000_000}).hex()
    bitcoind.mine()
    stands = head(view)
    bitcoind.rpc("syncwithvalidationinterfacequeue")
    options = {"locktime": 0, "fee_rate": 2, "subtract_fee_from_outputs": [0]}
    bitcoind.rpc(
        "send", [{str(bitcoind.rpc("getnewaddress", wallet=MINER)): "0.01"}], None, "unset", None, options, wallet=name
    )
    waiting = [view.is_spent(f"{txid}:{vout}", [ours], stands) for vout in (0, 1)]
    assert sorted(waiting, key=str) == [False, None]  # one of them is the miner's change; the mempool spends nothing
    outpoint = f"{txid}:{waiting.index(False)}"
    bitcoind.mine()
    assert [view.is_spent(outpoint, [ours], at) for at in (before, stands, head(view))] == [None, False, True]
    for odd in (f"{txid}:7", f"{'00' * 32}:0", txid, outpoint.upper(), f"{outpoint} ", "5"):
        assert view.is_spent(odd, [ours], head(view)) is None
    assert view.is_spent(outpoint, [], head(view)) is None
