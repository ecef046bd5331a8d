# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the fake chain offers beyond the contract (tests/contract/test_chain_view.py): it is steered, and repeats itself."""

import pytest

from custody.rules.amounts import Asset, AssetKind
from custody.rules.errors import Unavailable
from custody.rules.origins import NativeProof
from custody.rules.wallets import Address, Chain
from tests.fakes.bitcoin import BTC, REGTEST
from tests.fakes.chain import FakeChain

EVM = Chain("eip155:31338")
ETH = Asset("ETH", EVM, AssetKind.NATIVE, 18)
SAFE = Address(EVM, "0x" + "11" * 20)
OURS = Address(REGTEST, "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080")


def test_same_calls_same_hashes() -> None:
    """The seed and the calls decide every hash; another seed gives others."""

    def made(seed: str) -> tuple[bytes, bytes]:
        chain = FakeChain(REGTEST, seed=seed)
        chain.mine((BTC, OURS, 5))
        chain.reorg(1, [(BTC, OURS, 5)])
        (sighting,) = chain.sightings(0, 1, [OURS])
        return chain.head().hash, sighting.proof.block

    assert made("a") == made("a") != made("b")


def test_a_block_comes_back() -> None:
    """A reorg of a reorg: the first block is canonical again, under the hash it had."""
    chain = FakeChain(REGTEST)
    first = chain.mine((BTC, OURS, 5))
    (sighting,) = chain.sightings(0, 1, [OURS])
    dropped = chain.reorg(1, [], [])
    assert chain.confirm(sighting.proof) is not None
    chain.rollback(2)
    assert chain.confirm(sighting.proof) is not None  # the head is lower; the block is known, and not canonical
    chain.adopt(dropped)
    assert chain.head() == first
    assert chain.confirm(sighting.proof) is None
    with pytest.raises(ValueError, match="follow"):
        chain.adopt(dropped)


def test_native_proof_counts_outflows() -> None:
    """What left an address in the same block does not hide what arrived."""
    chain = FakeChain(EVM)
    chain.mine((ETH, SAFE, 100))
    block = chain.mine((ETH, SAFE, 30), (ETH, SAFE, 5), spends=[(ETH, SAFE, 90)])
    (sighting,) = chain.sightings(2, 2, [SAFE])
    assert sighting.amount.units == 35
    assert isinstance(sighting.proof, NativeProof)
    assert (sighting.proof.before, sighting.proof.after, sighting.proof.outflows) == (100, 45, 90)
    assert chain.balance(ETH, [SAFE], block) == 45


def test_spending_what_is_not_there() -> None:
    """A test that spends too much is wrong, and the chain stays as it was."""
    chain = FakeChain(EVM)
    with pytest.raises(ValueError, match="spends more"):
        chain.mine(spends=[(ETH, SAFE, 1)])
    assert chain.head().height == 0
    with pytest.raises(ValueError, match="not on"):
        chain.mine((BTC, OURS, 1))


def test_failing_calls() -> None:
    """The node dies after so many answers, and comes back."""
    chain = FakeChain(REGTEST)
    chain.calls_left = 2
    assert chain.head() == chain.final()
    for _ in range(2):
        with pytest.raises(Unavailable):
            chain.head()
    chain.offline, chain.calls_left = False, None
    assert chain.head().height == 0


def test_a_lagging_node_is_unknown() -> None:
    """A proof from a block that this node never saw and has not reached is neither held nor refused."""
    ahead, behind = FakeChain(REGTEST), FakeChain(REGTEST)
    ahead.mine_many(3)
    block = ahead.mine((BTC, OURS, 5))
    (sighting,) = ahead.sightings(block.height, block.height, [OURS])
    with pytest.raises(Unavailable):
        behind.confirm(sighting.proof)
