# SPDX-License-Identifier: AGPL-3.0-or-later
"""A node that answers something odd has not answered: never a zero, never a guess."""

from collections.abc import Callable

import pytest

from custody.chains.evm import wire
from custody.rules.errors import Unavailable
from tests.fakes.evm import CHAIN

HASH = "0x" + "ab" * 32
BLOCK = {"number": "0x2", "hash": HASH, "parentHash": "0x" + "cd" * 32, "timestamp": "0x10"}
LOG = {
    "blockNumber": "0x2",
    "blockHash": HASH,
    "transactionHash": HASH,
    "logIndex": "0x0",
    "address": "0x" + "11" * 20,
    "topics": [HASH],
    "data": "0x",
    "removed": False,
}


@pytest.mark.parametrize(
    ("text", "number"),
    [
        pytest.param("0x0", 0, id="zero"),
        pytest.param("0x" + "f" * 64, 2**256 - 1, id="256 bits"),
        pytest.param("0xDe0B6B3A7640000", 10**18, id="one ether"),
    ],
)
def test_quantity(text: str, number: int) -> None:
    """Whole numbers up to 256 bits, exactly."""
    assert wire.quantity(text) == number


@pytest.mark.parametrize("odd", [None, "", "0x", "12", 12, 1.0, True, "0x-1", "0x" + "f" * 65, "0xg", " 0x1", ["0x1"]])
def test_no_quantity(odd: object) -> None:
    """A missing balance is not zero."""
    with pytest.raises(Unavailable):
        wire.quantity(odd)


@pytest.mark.parametrize("odd", [None, "", "0x0", "ab", b"ab", "0xzz", {"0x": 1}])
def test_no_data(odd: object) -> None:
    """Half a byte, no prefix, or nothing."""
    with pytest.raises(Unavailable):
        wire.data(odd)


def test_data_of_a_size() -> None:
    """A hash has 32 bytes."""
    assert wire.data(HASH, size=32) == bytes.fromhex("ab" * 32)
    with pytest.raises(Unavailable):
        wire.data(HASH + "00", size=32)


def test_block() -> None:
    """A header; JSON null is the one way to say that there is none."""
    found = wire.block_ref(CHAIN, BLOCK)
    assert found is not None
    assert (found.height, found.hash, found.time) == (2, bytes.fromhex("ab" * 32), 16)
    assert wire.block_ref(CHAIN, None) is None


@pytest.mark.parametrize(
    "read",
    [
        pytest.param(lambda: wire.block_ref(CHAIN, BLOCK | {"hash": None}), id="pending block"),
        pytest.param(lambda: wire.block_ref(CHAIN, BLOCK | {"number": None}), id="block without height"),
        pytest.param(lambda: wire.block_ref(CHAIN, "0x2"), id="no block"),
        pytest.param(lambda: wire.logs(None), id="no logs"),
        pytest.param(lambda: wire.logs("0x"), id="a string of logs"),
        pytest.param(lambda: wire.logs([None]), id="a null log"),
        pytest.param(lambda: wire.logs([LOG | {"removed": True}]), id="removed by a reorg"),
        pytest.param(lambda: wire.logs([LOG | {"blockHash": None}]), id="pending log"),
        pytest.param(lambda: wire.logs([LOG | {"topics": "0x"}]), id="topics of another shape"),
        pytest.param(lambda: wire.logs([LOG | {"topics": ["0x01"]}]), id="short topic"),
        pytest.param(lambda: wire.logs([LOG | {"address": HASH}]), id="long address"),
        pytest.param(lambda: wire.abi(["uint256"], "0x", "balance"), id="no return data"),
        pytest.param(lambda: wire.abi(["address"], "0x" + "ff" * 32, "owner"), id="dirty address"),
    ],
)
def test_odd_answers(read: Callable[[], object]) -> None:
    """Each is Unavailable."""
    with pytest.raises(Unavailable):
        read()


def test_logs_and_names() -> None:
    """A log as it is used; topics name an address in 32 bytes; a block is named by a hash that must be canonical (EIP-1898)."""
    (log,) = wire.logs([LOG])
    assert (log.height, log.index, log.data, len(log.topics)) == (2, 0, b"", 1)
    address = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"
    assert wire.word_address(bytes.fromhex(wire.address_word(address)[2:])) == address
    assert wire.at_hash(log.block) == {"blockHash": HASH, "requireCanonical": True}
