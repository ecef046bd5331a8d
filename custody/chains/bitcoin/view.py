# SPDX-License-Identifier: AGPL-3.0-or-later
"""Read-only eyes on a Bitcoin chain: `ChainView` over one bitcoind. Needs no wallet, no txindex and no key.

Hashes and transaction ids are in the order in which Bitcoin displays them. A coinbase output is never a deposit: nobody who
mines to a deposit address is credited, because such coins vanish with any reorg and cannot be spent for 100 blocks. They do
stand in `balance`, which is what the chain says.
"""

import re
from collections.abc import Collection, Sequence
from pathlib import Path

from custody.chains.bitcoin import executed as payouts
from custody.chains.bitcoin.blocks import block_ref, parse_transaction, read_blocks, read_hash, read_head, read_header
from custody.chains.bitcoin.outputs import OutputIndex
from custody.chains.bitcoin.rpc import NOT_FOUND, BitcoinRpc, RpcError, as_object
from custody.chains.bitcoin.scripts import script_pubkey
from custody.chains.bitcoin.watching import watch_only
from custody.rules.amounts import Amount, Asset, AssetKind, Assets
from custody.rules.deposits import BlockRef, Sighting
from custody.rules.errors import InvalidInput, Unavailable
from custody.rules.intents import TransferIntent
from custody.rules.origins import BitcoinProof, ChainProof, Executed
from custody.rules.provenance import HoldingOf
from custody.rules.refusals import Refusal, Rule
from custody.rules.wallets import Address, Chain

__all__ = ["BitcoinView", "watch_only"]


class BitcoinView:
    """One Bitcoin chain through one node.

    `birth` is the height before which none of our scripts can hold coins; `cache` a file that lets a restart resume.
    """

    def __init__(self, rpc: BitcoinRpc, assets: Assets, cache: Path | None = None, birth: int = 0) -> None:
        natives = [a for a in assets.on(rpc.chain) if a.kind is AssetKind.NATIVE]
        if len(natives) != 1:
            raise InvalidInput("assets", Rule.UNKNOWN_ASSET, f"{len(natives)} native assets", f"one on {rpc.chain}")
        self._rpc, self._asset = rpc, natives[0]
        self._confirmations = assets.confirmations[rpc.chain]
        if self._confirmations < 1:
            raise InvalidInput("assets.confirmations", Rule.MALFORMED, str(self._confirmations), "at least 1")
        self._index = OutputIndex(rpc, birth, cache)

    @property
    def chain(self) -> Chain:
        """The chain whose genesis block the node has."""
        return self._rpc.chain

    def head(self) -> BlockRef:
        """The newest block."""
        return read_head(self._rpc)

    def final(self) -> BlockRef:
        """The block that has the registry's number of confirmations (its own counts as one); genesis while there are fewer."""
        height = max(0, read_head(self._rpc).height - self._confirmations + 1)
        found = self.block(height)
        if found is None:
            raise Unavailable(f"block {height} of {self.chain}", "the chain reorganised while it was read")
        return found

    def block(self, height: int) -> BlockRef | None:
        """The canonical block at a height, or None above the head."""
        if height < 0:
            raise InvalidInput("height", Rule.NEGATIVE, str(height), "zero or more")
        found = read_hash(self._rpc, height)
        if found is None:
            return None
        return block_ref(as_object(self._rpc.call("getblockheader", found.hex()), "getblockheader"), self.chain)

    def sightings(self, first: int, last: int, watched: Collection[Address]) -> Sequence[Sighting]:
        """Every output to a watched address in blocks first..last, one each, coinbases apart. Unavailable above the head."""
        ours = self._scripts(watched)
        found: list[Sighting] = []
        for block in read_blocks(self._rpc, max(first, 0), last):
            for transaction in block.transactions:
                for output in transaction.outputs:
                    address = ours.get(output.script)
                    if address is None or transaction.coinbase:
                        continue
                    proof = BitcoinProof(
                        chain=self.chain.name,
                        height=block.ref.height,
                        block=block.ref.hash,
                        txid=bytes.fromhex(transaction.txid),
                        vout=output.index,
                        address=address.text,
                        value=output.value,
                    )
                    found.append(Sighting(Amount(self._asset, output.value), address, proof))
        return found

    def confirm(self, proof: ChainProof) -> Refusal | None:
        """Block canonical at that height, the output in it with that value and script; a node that is behind raises."""
        if not isinstance(proof, BitcoinProof):
            return Refusal(Rule.ORIGIN, field="kind", got=type(proof).__name__, want="BitcoinProof")
        if proof.chain != self.chain.name:
            return Refusal(Rule.ORIGIN, field="chain", got=proof.chain, want=self.chain.name)
        try:
            address = Address.parse(self.chain, proof.address, "proof.address")
        except InvalidInput as error:  # a journal row that was tampered with is a finding, not a crash
            return Refusal(Rule.ORIGIN, field="address", got=proof.address, want=error.want)
        return self._confirm_block(proof) or self._confirm_output(proof, script_pubkey(address))

    def confirm_executed(
        self, executed: Executed, intents: Sequence[TransferIntent], holding_of: HoldingOf
    ) -> Refusal | None:
        """See `PayoutReader`: recomputed from the block and the coins that it spent; a node that is behind raises."""
        if {executed.chain, executed.anchor.chain} != {self.chain.name}:
            return Refusal(Rule.ORIGIN, field="chain", got=executed.chain, want=self.chain.name)
        return payouts.confirm_executed(self._rpc, self._asset, executed, intents, holding_of)

    def balance(self, asset: Asset, addresses: Collection[Address], at: BlockRef) -> int:
        """Satoshi on these addresses after a canonical block, from an index that reads each block once."""
        if asset.chain != self.chain:
            raise InvalidInput("asset", Rule.WRONG_NETWORK, str(asset.chain), str(self.chain))
        if asset != self._asset:
            raise InvalidInput("asset", Rule.UNKNOWN_ASSET, str(asset), str(self._asset))
        return self._index.balance(self._scripts(addresses), at)

    def is_spent(self, outpoint: str, addresses: Collection[Address], at: BlockRef) -> bool | None:
        """See `OutpointReader`. `outpoint` is `txid:vout`; what is written otherwise is an output of nobody."""
        txid, _, vout = outpoint.partition(":")
        if re.fullmatch("[0-9a-f]{64}:(0|[1-9][0-9]{0,8})", outpoint) is None:
            return None
        return self._index.is_spent((txid, int(vout)), self._scripts(addresses).keys(), at)

    def watch(self, addresses: Collection[Address]) -> None:
        """Follow addresses before they are handed out: the first `balance` of one that is new reads the chain from birth."""
        self._index.watch(self._scripts(addresses))

    def read_again(self) -> None:
        """Believe nothing that the node told of outputs so far: it, or another one, told otherwise of the same block."""
        self._index.forget()

    def save(self) -> None:
        """Write the cache file now; it is written by itself every few blocks."""
        self._index.save()

    def _scripts(self, addresses: Collection[Address]) -> dict[str, Address]:
        return {script_pubkey(a).hex(): a for a in addresses if a.chain == self.chain}

    def _confirm_block(self, proof: BitcoinProof) -> Refusal | None:
        found = read_header(self._rpc, proof.block)
        if found is None:
            canonical = read_hash(self._rpc, proof.height)
            if canonical is None:  # the node may only be behind: that is not a reason to reverse anything
                raise Unavailable(f"block {proof.height} of {self.chain}", "the node has not reached it")
            return Refusal(Rule.ORIGIN, field="block", got=proof.block.hex(), want=canonical.hex())
        ref, canonical_now = found
        if not canonical_now:
            return Refusal(Rule.ORIGIN, field="block", got=proof.block.hex(), want="a canonical block")
        if ref.height != proof.height:
            return Refusal(Rule.ORIGIN, field="height", got=proof.height, want=ref.height)
        return None

    def _confirm_output(self, proof: BitcoinProof, script: bytes) -> Refusal | None:
        try:
            answer = self._rpc.call("getrawtransaction", proof.txid.hex(), True, proof.block.hex())  # noqa: FBT003
        except RpcError as error:
            if error.code == NOT_FOUND:
                return Refusal(
                    Rule.ORIGIN, field="transaction", got=proof.txid.hex(), want="a transaction of that block"
                )
            raise
        transaction = parse_transaction(as_object(answer, "getrawtransaction"))
        if transaction.coinbase:
            return Refusal(Rule.ORIGIN, field="transaction", got="a coinbase", want="a payment")
        if proof.vout >= len(transaction.outputs):
            return Refusal(Rule.ORIGIN, field="vout", got=proof.vout, want=f"below {len(transaction.outputs)}")
        output = transaction.outputs[proof.vout]
        if output.value != proof.value:
            return Refusal(Rule.ORIGIN, field="value", got=proof.value, want=output.value)
        if output.script != script.hex():
            return Refusal(Rule.ORIGIN, field="address", got=proof.address, want=output.script)
        return None
