# SPDX-License-Identifier: AGPL-3.0-or-later
"""What every `ChainView` promises (custody/flows/ports/): one suite for the fake, for bitcoind and for Anvil."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal
from itertools import count
from typing import Protocol

import pytest
from eth_account.signers.local import LocalAccount
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from custody.chains.bitcoin.rpc import BitcoinRpc
from custody.chains.bitcoin.scripts import receive_address
from custody.chains.bitcoin.view import BitcoinView
from custody.chains.evm.client import EvmClient
from custody.chains.evm.view import EvmView
from custody.flows.ports import ChainView
from custody.rules.amounts import Asset, AssetKind, Assets
from custody.rules.deposits import BlockRef, Sighting
from custody.rules.errors import InvalidInput, Unavailable
from custody.rules.origins import BitcoinProof, ChainProof, NativeProof, measured
from custody.rules.refusals import Rule
from custody.rules.wallets import Address, Chain
from devnet.anvil import Anvil
from devnet.bitcoind import MINER, Bitcoind
from devnet.contracts import call_data, deploy_token, fund
from tests.fakes.bitcoin import ASSETS, BTC, REGTEST, bitcoin_certificate
from tests.fakes.chain import FakeChain
from tests.fakes.evm import CHAIN, account, in_one_block

ETH = Asset("ETH", CHAIN, AssetKind.NATIVE, 18)
FAKE_USD = Asset("USDX", CHAIN, AssetKind.ERC20, 6, Address(CHAIN, to_checksum_address("0x" + "c0" * 20)))
ELSEWHERE = Asset("XBT", Chain("bip122:000000000019d6689c085ae165831e93"), AssetKind.NATIVE, 8)
UNIT = 100_000  # above Bitcoin's dust, and small enough for a miner with one coin
_FRESH = count()

Payment = tuple[Address, int]


class Harness(Protocol):
    """A chain that a test can move, and the view under test."""

    view: ChainView
    asset: Asset

    def address(self) -> Address:
        """An address that nobody has paid yet."""
        ...

    def mine(self, *payments: Payment) -> BlockRef:
        """One block with these payments from somebody else and nothing more of ours."""
        ...

    def reorg(self, depth: int) -> None:
        """Replace the newest blocks by empty ones; the head is at least as high afterwards."""
        ...

    def cut(self) -> None:
        """The node stops answering the view."""
        ...


class FakeHarness:
    """The fake in memory."""

    def __init__(self, asset: Asset) -> None:
        self.asset = asset
        self._chain = FakeChain(asset.chain)
        self.view: ChainView = self._chain
        self._chain.mine_many(3)

    def address(self) -> Address:
        """Any address of the chain."""
        return evm_address() if self.asset.chain.is_evm else bitcoin_address()

    def mine(self, *payments: Payment) -> BlockRef:
        """A block of the fake's."""
        return self._chain.mine(*((self.asset, address, units) for address, units in payments))

    def reorg(self, depth: int) -> None:
        """The fake's own."""
        self._chain.reorg(depth)

    def cut(self) -> None:
        """Offline."""
        self._chain.offline = True


class BitcoinHarness:
    """bitcoind on regtest."""

    def __init__(self, node: Bitcoind) -> None:
        self.asset, self._node = BTC, node
        self._rpc = BitcoinRpc(node.url, REGTEST, cookie=node.cookie_file)
        self.view: ChainView = BitcoinView(self._rpc, ASSETS)

    def address(self) -> Address:
        """Of a wallet of its own."""
        return bitcoin_address()

    def mine(self, *payments: Payment) -> BlockRef:
        """One transaction of the miner's for the first payment to each address, more where one is paid twice."""
        waiting = list(payments)
        while waiting:
            batch = dict(reversed(waiting))
            for payment in batch.items():
                waiting.remove(payment)
            amounts = [{address.text: Decimal(units).scaleb(-8)} for address, units in batch.items()]
            self._node.rpc("send", amounts, None, "unset", None, {"fee_rate": 2, "locktime": 0}, wallet=MINER)
        self._node.mine()
        return self.view.head()

    def reorg(self, depth: int) -> None:
        """Empty blocks, one more than were taken: the payments wait in the mempool."""
        height = self._node.height
        self._node.rpc("invalidateblock", self._node.rpc("getblockhash", height - depth + 1))
        to = self._node.rpc("getnewaddress", wallet=MINER)
        for _ in range(depth + 1):
            self._node.rpc("generateblock", to, [])

    def cut(self) -> None:
        """A port that nobody listens on."""
        self._rpc._url = "http://127.0.0.1:9"


class EvmHarness:
    """Anvil, with its native coin or a token of ours."""

    def __init__(self, node: Anvil, *, token: bool) -> None:
        self._client = EvmClient(node.url, CHAIN)
        self._sender: LocalAccount = account("sender of the contract suite")
        fund(self._client, self._sender.address, 10**24)
        self.asset = ETH
        if token:
            contract = deploy_token(self._client, self._sender, "Dollar", "Dollars", "USDX")
            self.asset = replace(FAKE_USD, contract=Address.parse(CHAIN, contract))
        self._viewed = EvmClient(node.url, CHAIN)
        self.view: ChainView = EvmView(self._viewed, Assets((self.asset,), {CHAIN: 1}))
        for _ in range(3):
            self.mine()

    def address(self) -> Address:
        """An address where no code is."""
        return evm_address()

    def mine(self, *payments: Payment) -> BlockRef:
        """One transaction for each payment, all in one block."""
        if payments:
            in_one_block(self._client, [self._call(address.text, units) for address, units in payments])
        else:
            self._client.call("evm_mine")
        return self.view.head()

    def _call(self, to: str, units: int) -> tuple[LocalAccount, str | None, bytes, int]:
        if self.asset.contract is None:
            return self._sender, to, b"", units
        return self._sender, self.asset.contract.text, call_data("mint(address,uint256)", to, units), 0

    def reorg(self, depth: int) -> None:
        """Anvil's own; what was in the blocks is gone for good."""
        self._client.call("anvil_reorg", depth, [])

    def cut(self) -> None:
        """A port that nobody listens on."""
        self._viewed._provider.endpoint_uri = "http://127.0.0.1:9"  # type: ignore[assignment]  # a URI is a str


def evm_address() -> Address:
    """An address nobody has the key of."""
    return Address(CHAIN, str(to_checksum_address(keccak(text=f"contract suite {next(_FRESH)}")[-20:])))


def bitcoin_address() -> Address:
    """The first address of a wallet of its own."""
    return receive_address(bitcoin_certificate(name=f"contract-{next(_FRESH)}"), 0)


MAKERS: dict[str, tuple[str, Callable[..., Harness]]] = {
    "fake bitcoin": ("", lambda: FakeHarness(BTC)),
    "fake evm native": ("", lambda: FakeHarness(ETH)),
    "fake evm token": ("", lambda: FakeHarness(FAKE_USD)),
    "bitcoind": ("bitcoind", BitcoinHarness),
    "anvil native": ("anvil_snapshot", lambda node: EvmHarness(node, token=False)),
    "anvil token": ("anvil_snapshot", lambda node: EvmHarness(node, token=True)),
}


@pytest.fixture(params=list(MAKERS))
def chain(request: pytest.FixtureRequest) -> Harness:
    """One of the chains; a node starts only when its turn comes."""
    fixture, make = MAKERS[str(request.param)]
    return make(request.getfixturevalue(fixture)) if fixture else make()


def at(view: ChainView, height: int) -> BlockRef:
    """The canonical block at a height that exists."""
    found = view.block(height)
    assert found is not None
    assert (found.chain, found.height) == (view.chain, height)
    return found


def arrived(sightings: Sequence[Sighting]) -> dict[tuple[Address, int], int]:
    """What arrived at each address in each block, however many sightings tell it."""
    sums: defaultdict[tuple[Address, int], int] = defaultdict(int)
    for sighting in sightings:
        sums[sighting.address, sighting.proof.height] += sighting.amount.units
    return dict(sums)


def test_blocks_are_linked(chain: Harness) -> None:
    """Heights ascend by one, each block names its parent, and above the head there is none."""
    chain.mine()
    newest = chain.mine()
    assert chain.view.head() == newest == at(chain.view, newest.height)
    assert newest.parent == at(chain.view, newest.height - 1).hash
    assert len(newest.hash) == 32
    assert at(chain.view, 0).parent == bytes(32)
    assert newest.time >= at(chain.view, newest.height - 1).time
    assert chain.view.block(newest.height + 1) is None


def test_finality_follows_the_head(chain: Harness) -> None:
    """The final block is canonical, below the head, and moves with it."""
    before = chain.view.final()
    assert before == at(chain.view, before.height)
    assert before.height < chain.view.head().height
    chain.mine()
    assert chain.view.final().height == before.height + 1


def test_sightings(chain: Harness) -> None:
    """Everything that arrived at watched addresses, in order, each once, with a proof that holds."""
    one, two, stranger = chain.address(), chain.address(), chain.address()
    first = chain.mine((one, UNIT), (two, 2 * UNIT), (one, 3 * UNIT), (stranger, 5 * UNIT))
    chain.mine()
    last = chain.mine((two, 7 * UNIT))

    seen = chain.view.sightings(first.height, last.height, [one, two])
    assert arrived(seen) == {
        (one, first.height): 4 * UNIT,
        (two, first.height): 2 * UNIT,
        (two, last.height): 7 * UNIT,
    }
    heights = [s.proof.height for s in seen]
    assert heights == sorted(heights)
    assert len({s.identity for s in seen}) == len(seen)
    for sighting in seen:
        assert sighting.amount.asset == chain.asset
        assert sighting.proof.chain == chain.view.chain.name
        assert sighting.proof.block == at(chain.view, sighting.proof.height).hash
        assert sighting.amount.units == measured(sighting.proof)
        assert chain.view.confirm(sighting.proof) is None


def test_sightings_from_anywhere(chain: Harness) -> None:
    """A range gives the same whether read whole, block by block, or by somebody who starts late; nothing watched is nothing."""
    one, two = chain.address(), chain.address()
    blocks = [chain.mine((one, UNIT)), chain.mine((two, UNIT)), chain.mine((one, UNIT), (two, UNIT))]
    first, last = blocks[0].height, blocks[-1].height
    whole = list(chain.view.sightings(first, last, [one, two]))
    pieces = [s for b in blocks for s in chain.view.sightings(b.height, b.height, {two, one})]
    assert arrived(pieces) == arrived(whole)
    assert {s.identity for s in pieces} == {s.identity for s in whole}
    assert arrived(chain.view.sightings(last, last, [one])) == {(one, last): UNIT}
    assert list(chain.view.sightings(first, last, [])) == []
    assert list(chain.view.sightings(first, last, [chain.address()])) == []
    assert list(chain.view.sightings(last, first, [one])) == []


def test_no_sightings_of_blocks_that_are_not_there(chain: Harness) -> None:
    """A range above the head is unknown, not empty: a watcher must not follow past it."""
    head = chain.mine()
    with pytest.raises(Unavailable):
        chain.view.sightings(head.height, head.height + 1, [chain.address()])


def test_balance_at_each_block(chain: Harness) -> None:
    """The balance after each block, by arithmetic, asked in any order."""
    one, two = chain.address(), chain.address()
    before = chain.view.head()
    first = chain.mine((one, UNIT), (two, UNIT + 1))
    quiet = chain.mine()
    more = UNIT + 3
    last = chain.mine((one, more))

    def balance(addresses: Sequence[Address], block: BlockRef) -> int:
        return chain.view.balance(chain.asset, addresses, block)

    both = 2 * UNIT + 1
    assert [balance([one, two], b) for b in (last, before, quiet, first)] == [both + more, 0, both, both]
    assert balance([one], last) == UNIT + more
    assert balance([two, two], last) == UNIT + 1
    assert balance([], last) == 0
    assert balance([chain.address()], last) == 0


def test_reorg(chain: Harness) -> None:
    """What a reorg took back is refused, is seen no more, and its block can be asked nothing."""
    one = chain.address()
    block = chain.mine((one, UNIT))
    head = chain.mine()
    (sighting,) = chain.view.sightings(block.height, head.height, [one])
    assert chain.view.balance(chain.asset, [one], head) == UNIT

    chain.reorg(2)
    newest = chain.view.head()
    assert newest.height >= head.height
    assert at(chain.view, block.height).hash != block.hash
    assert at(chain.view, block.height - 1).hash == block.parent
    refusal = chain.view.confirm(sighting.proof)
    assert refusal is not None
    assert refusal.rule == Rule.ORIGIN
    assert list(chain.view.sightings(block.height, newest.height, [one])) == []
    assert chain.view.balance(chain.asset, [one], newest) == 0
    for gone in (block, head):
        with pytest.raises(Unavailable):
            chain.view.balance(chain.asset, [one], gone)


def test_altered_proofs_are_refused(chain: Harness) -> None:
    """A proof that states more than the chain, or stands elsewhere, is refused by name."""
    one = chain.address()
    block = chain.mine((one, UNIT))
    head = chain.mine()
    (sighting,) = chain.view.sightings(block.height, head.height, [one])
    proof = sighting.proof
    more: ChainProof
    if isinstance(proof, BitcoinProof):
        more = replace(proof, value=proof.value + 1)
    elif isinstance(proof, NativeProof):
        more = replace(proof, after=proof.after + 1)
    else:
        more = replace(proof, measured=proof.measured + 1)
    for odd in (
        more,
        replace(proof, block=head.hash),
        replace(proof, block=head.hash, height=head.height),
        replace(proof, block=bytes(32)),
        replace(proof, chain=ELSEWHERE.chain.name),
        replace(proof, address=chain.address().text),
    ):
        refusal = chain.view.confirm(odd)
        assert refusal is not None, odd
        assert refusal.rule == Rule.ORIGIN


def test_assets_of_other_chains(chain: Harness) -> None:
    """A view tells nothing about an asset of another chain."""
    with pytest.raises(InvalidInput) as caught:
        chain.view.balance(ELSEWHERE, [chain.address()], chain.view.head())
    assert caught.value.rule == Rule.WRONG_NETWORK


def test_no_answer_is_no_value(chain: Harness) -> None:
    """Once the node is silent every question raises; nothing is answered from memory."""
    one = chain.address()
    block = chain.mine((one, UNIT))
    (sighting,) = chain.view.sightings(block.height, block.height, [one])
    assert chain.view.balance(chain.asset, [one], block) == UNIT
    chain.cut()
    questions: list[Callable[[], object]] = [
        chain.view.head,
        chain.view.final,
        lambda: chain.view.block(block.height),
        lambda: chain.view.sightings(block.height, block.height, [one]),
        lambda: chain.view.confirm(sighting.proof),
        lambda: chain.view.balance(chain.asset, [one], block),
    ]
    for question in questions:
        with pytest.raises(Unavailable):
            question()
