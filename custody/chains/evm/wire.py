# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a node says over JSON-RPC, read strictly: anything of another shape is `Unavailable`, never a zero."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from eth_abi.abi import decode
from eth_abi.exceptions import DecodingError
from eth_utils.address import to_checksum_address

from custody.rules.deposits import BlockRef
from custody.rules.errors import Unavailable
from custody.rules.wallets import Chain

_DATA: Final = re.compile(r"0x(?:[0-9a-fA-F]{2})*")
_QUANTITY: Final = re.compile(r"0x[0-9a-fA-F]{1,64}")

BlockId = str | dict[str, object]
"""A tag or a height in hex, or an EIP-1898 object naming a hash."""


@dataclass(frozen=True, slots=True)
class Log:
    """One event log in its canonical place; `topics` are 32 bytes each."""

    height: int
    block: bytes
    transaction: bytes
    index: int
    address: str
    topics: tuple[bytes, ...]
    data: bytes


def quantity(value: object, what: str = "quantity") -> int:
    """A QUANTITY of the JSON-RPC: 0x and hex digits, up to 256 bits."""
    if not isinstance(value, str) or _QUANTITY.fullmatch(value) is None:
        raise Unavailable(what, f"the node answered {_brief(value)}, not a quantity")
    return int(value, 16)


def data(value: object, what: str = "data", size: int | None = None) -> bytes:
    """DATA of the JSON-RPC: 0x and whole bytes, of a size where one is given."""
    if not isinstance(value, str) or _DATA.fullmatch(value) is None:
        raise Unavailable(what, f"the node answered {_brief(value)}, not data")
    read = bytes.fromhex(value[2:])
    if size is not None and len(read) != size:
        raise Unavailable(what, f"the node answered {len(read)} bytes, not {size}")
    return read


def block_ref(chain: Chain, value: object) -> BlockRef | None:
    """A block's header; None for JSON null, which is how a node says that there is no such block."""
    if value is None:
        return None
    block = _object(value, "block")
    return BlockRef(
        chain=chain,
        height=quantity(block.get("number"), "block number"),
        hash=data(block.get("hash"), "block hash", 32),
        parent=data(block.get("parentHash"), "block parent", 32),
        time=quantity(block.get("timestamp"), "block time"),
    )


def logs(value: object) -> list[Log]:
    """The answer of eth_getLogs. A removed log, or one still pending, means that the chain just moved: Unavailable."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise Unavailable("logs", f"the node answered {_brief(value)}, not a list")
    return [_log(_object(item, "log")) for item in value]


def abi(types: Sequence[str], value: object, what: str) -> tuple[object, ...]:
    """Decode the answer of eth_call; empty or malformed bytes are `Unavailable`."""
    try:
        return tuple(decode(types, data(value, what)))
    except (DecodingError, OverflowError) as error:
        raise Unavailable(what, f"the contract answered what is not ({', '.join(types)})") from error


def at_hash(block: bytes) -> BlockId:
    """Name a block by its hash; a node refuses it where the block is no longer canonical (EIP-1898)."""
    return {"blockHash": "0x" + block.hex(), "requireCanonical": True}


def word_address(word: bytes) -> str:
    """The EIP-55 address in the last 20 bytes of a topic or a storage slot."""
    return str(to_checksum_address(word[-20:]))


def address_word(address: str) -> str:
    """An address as a topic to filter by: 32 bytes in hex."""
    return "0x" + address[2:].lower().rjust(64, "0")


def _log(log: Mapping[str, object]) -> Log:
    if log.get("removed") is True:
        raise Unavailable("logs", "the chain reorganised while it was read")
    topics = log.get("topics")
    if not isinstance(topics, Sequence) or isinstance(topics, str):
        raise Unavailable("log topics", f"the node answered {_brief(topics)}, not a list")
    return Log(
        height=quantity(log.get("blockNumber"), "log block"),
        block=data(log.get("blockHash"), "log block", 32),
        transaction=data(log.get("transactionHash"), "log transaction", 32),
        index=quantity(log.get("logIndex"), "log index"),
        address=word_address(data(log.get("address"), "log address", 20)),
        topics=tuple(data(topic, "log topic", 32) for topic in topics),
        data=data(log.get("data"), "log data"),
    )


def _object(value: object, what: str) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise Unavailable(what, f"the node answered {_brief(value)}, not an object")
    return value


def _brief(value: object) -> str:
    return repr(value)[:80]
