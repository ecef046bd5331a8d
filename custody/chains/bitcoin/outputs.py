# SPDX-License-Identifier: AGPL-3.0-or-later
"""An index of every output that ever paid our scripts and of when it was spent, so that a balance is exact at any height.

It follows the chain block by block and keeps spent outputs, so a reorg is undone by arithmetic: outputs created above the
fork vanish and those spent above it are unspent again. It holds the newest hashes to find the fork by; where none of them is
canonical any more, it starts over from birth.

The file it may keep is a cache on the reader's own disk. A damaged one is thrown away and the chain read again; it is not
signed, so whoever can write it can lie to this process, as they could by changing its code.
"""

import json
import os
from collections import defaultdict
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Final

from custody.chains.bitcoin.blocks import Block, Outpoint, read_blocks, read_hash
from custody.chains.bitcoin.rpc import BitcoinRpc
from custody.rules.deposits import BlockRef
from custody.rules.errors import Unavailable

HASHES_KEPT: Final = 100
_SAVE_EVERY: Final = 20  # blocks: a restart reads at most so many again
_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Coin:
    """One output of ours: satoshi, the height that created it, and the height that spent it, if one did."""

    script: str
    value: int
    created: int
    spent: int | None = None

    def stands_at(self, height: int) -> bool:
        """Whether it was unspent after the block at this height."""
        return self.created <= height and (self.spent is None or self.spent > height)


class _Coins:
    """Outputs by outpoint and by script."""

    def __init__(self) -> None:
        self.by_outpoint: dict[Outpoint, Coin] = {}
        self.by_script: dict[str, set[Outpoint]] = defaultdict(set)

    def put(self, outpoint: Outpoint, coin: Coin) -> None:
        self.by_outpoint[outpoint] = coin
        self.by_script[coin.script].add(outpoint)

    def apply(self, block: Block, scripts: Collection[str]) -> None:
        """Record what a block creates for these scripts and spends of ours; all of it, or nothing where a value is odd."""
        height = block.ref.height
        created = [
            ((transaction.txid, output.index), Coin(output.script, output.value, height))
            for transaction in block.transactions
            for output in transaction.outputs
            if output.script in scripts
        ]
        for outpoint, coin in created:
            self.put(outpoint, coin)
        for transaction in block.transactions:
            for outpoint in transaction.spends:
                spent = self.by_outpoint.get(outpoint)
                if spent is not None:
                    self.by_outpoint[outpoint] = replace(spent, spent=height)

    def rewind(self, height: int) -> None:
        """Undo every block above a height."""
        for outpoint, coin in list(self.by_outpoint.items()):
            if coin.created > height:
                del self.by_outpoint[outpoint]
                self.by_script[coin.script].discard(outpoint)
            elif coin.spent is not None and coin.spent > height:
                self.by_outpoint[outpoint] = replace(coin, spent=None)


class OutputIndex:
    """Follows one chain for a growing set of scripts (hex). Not safe to share between threads.

    `birth` is the first height that is read: no script of ours can hold coins before it.
    """

    def __init__(self, rpc: BitcoinRpc, birth: int = 0, file: Path | None = None) -> None:
        self._rpc, self._birth, self._file = rpc, birth, file
        self._scripts: set[str] = set()
        self._coins = _Coins()
        self._hashes: dict[int, bytes] = {}
        self._unsaved = 0
        if file is not None:
            self._load(file)

    @property
    def height(self) -> int:
        """The newest block that was read; birth − 1 before the first."""
        return max(self._hashes, default=self._birth - 1)

    def balance(self, scripts: Collection[str], at: BlockRef) -> int:
        """Satoshi on these scripts after a canonical block. Raises Unavailable where that block is not canonical."""
        self._rewind_to_canonical()
        self._watch(set(scripts) - self._scripts)
        self._follow(at.height)
        known = self._hashes.get(at.height) or read_hash(self._rpc, at.height)
        if known != at.hash:
            raise Unavailable(f"block {at.height} of {at.chain}", f"{at.hash.hex()} is not canonical")
        coins = self._coins
        ours = (coins.by_outpoint[o] for script in set(scripts) for o in coins.by_script.get(script, ()))
        return sum(coin.value for coin in ours if coin.stands_at(at.height))

    def is_spent(self, outpoint: Outpoint, scripts: Collection[str], at: BlockRef) -> bool | None:
        """Whether a block up to this canonical one spends an output; None where none of them pays it to these scripts."""
        self.balance(scripts, at)  # follows the chain to that block, or raises
        coin = self._coins.by_outpoint.get(outpoint)
        if coin is None or coin.script not in scripts or coin.created > at.height:
            return None
        return not coin.stands_at(at.height)

    def watch(self, scripts: Collection[str]) -> None:
        """Follow these scripts from now on too; what was read already is read again for them, from birth."""
        self._rewind_to_canonical()
        self._watch(set(scripts) - self._scripts)

    def forget(self) -> None:
        """Drop all that was read; the next question reads the chain from birth again."""
        self._coins, self._hashes = _Coins(), {}
        self._unsaved += 1

    def _watch(self, new: set[str]) -> None:
        if not new:
            return
        if self._hashes:
            found, newest = _Coins(), b""
            for block in read_blocks(self._rpc, self._birth, self.height):
                found.apply(block, new)
                newest = block.ref.hash
            if newest != self._hashes[self.height]:
                raise Unavailable(
                    f"block {self.height} of {self._rpc.chain}", "the chain reorganised while it was read"
                )
            for outpoint, coin in found.by_outpoint.items():
                self._coins.put(outpoint, coin)
        self._scripts |= new
        self._unsaved += 1

    def _follow(self, last: int) -> None:
        for block in read_blocks(self._rpc, self.height + 1, last):
            newest = self._hashes.get(block.ref.height - 1)
            if newest is not None and newest != block.ref.parent:
                raise Unavailable(
                    f"block {block.ref.height} of {self._rpc.chain}", "the chain reorganised while it was read"
                )
            self._coins.apply(block, self._scripts)
            self._hashes[block.ref.height] = block.ref.hash
            self._hashes.pop(block.ref.height - HASHES_KEPT, None)
            self._unsaved += 1
        if self._unsaved >= _SAVE_EVERY:
            with suppress(OSError):  # a full disk takes the next start's time, and nothing of what was read
                self.save()

    def _rewind_to_canonical(self) -> None:
        """Go back to the newest block that is still canonical; to before birth where the reorg is deeper than we remember."""
        newest = self.height
        for height in sorted(self._hashes, reverse=True):
            if read_hash(self._rpc, height) == self._hashes[height]:
                if height != newest:
                    self._coins.rewind(height)
                return
            del self._hashes[height]
            self._unsaved += 1
        self._coins = _Coins()

    def save(self) -> None:
        """Write the cache file, whole or not at all; readable by its owner only. Does nothing without a file."""
        if self._file is None:
            return
        body = json.dumps(
            {
                "version": _VERSION,
                "chain": self._rpc.chain.name,
                "birth": self._birth,
                "scripts": sorted(self._scripts),
                "hashes": {str(height): block.hex() for height, block in self._hashes.items()},
                "coins": [[*o, c.script, c.value, c.created, c.spent] for o, c in self._coins.by_outpoint.items()],
            }
        )
        whole = json.dumps({"sha256": sha256(body.encode()).hexdigest(), "body": body}).encode()
        self._file.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._file.with_name(self._file.name + ".new")
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
            out.write(whole)
            out.flush()
            os.fsync(out.fileno())
        fresh.replace(self._file)
        self._unsaved = 0

    def _load(self, file: Path) -> None:
        try:
            outer = json.loads(file.read_bytes())
            body = json.loads(outer["body"])
            if outer["sha256"] != sha256(outer["body"].encode()).hexdigest():
                return
            if (body["version"], body["chain"], body["birth"]) != (_VERSION, self._rpc.chain.name, self._birth):
                return
            coins = _Coins()
            for txid, index, script, value, created, spent in body["coins"]:
                coins.put((txid, index), Coin(script, value, created, spent))
            hashes = {int(height): bytes.fromhex(block) for height, block in body["hashes"].items()}
            scripts = set(body["scripts"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return  # no cache, or a damaged one: the node is the source, and is read again
        self._coins, self._hashes, self._scripts = coins, hashes, scripts
