# SPDX-License-Identifier: AGPL-3.0-or-later
"""Read-only eyes on one EVM chain: `ChainView` and `SafeReader` (custody/flows/ports/) over one node.

State is asked for by block hash, so an answer is never about another branch; where a block vanishes while a range is
read, `Unavailable` is raised and the caller tries again.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace

from eth_utils.address import to_checksum_address

from custody.chains.evm import executed as payouts
from custody.chains.evm.client import EvmClient
from custody.chains.evm.native import native_sightings
from custody.chains.evm.safe_states import read_safe
from custody.chains.evm.scan import Scan, balances
from custody.chains.evm.tokens import token_sightings
from custody.rules.amounts import Asset, AssetKind, Assets
from custody.rules.certificates import WalletCertificate
from custody.rules.deposits import BlockRef, Sighting
from custody.rules.errors import InvalidInput, Unavailable
from custody.rules.intents import TransferIntent
from custody.rules.origins import BitcoinProof, ChainProof, Executed, NativeProof
from custody.rules.provenance import HoldingOf
from custody.rules.refusals import Refusal, Rule
from custody.rules.statements import SafeState
from custody.rules.wallets import Address, Chain


class EvmView:
    """One chain as one node has it. Final means the `finalized` block (TRUST.md)."""

    def __init__(self, client: EvmClient, assets: Assets) -> None:
        self._client, self._assets = client, assets
        self._tokens = tuple(a for a in assets.on(client.chain) if a.kind is AssetKind.ERC20)
        self._native = next((a for a in assets.on(client.chain) if a.kind is AssetKind.NATIVE), None)
        self._ended: tuple[bytes, dict[str, int]] = (b"", {})

    @property
    def chain(self) -> Chain:
        """The chain that the node was confirmed to be on."""
        return self._client.chain

    def head(self) -> BlockRef:
        """The newest block."""
        return self._tagged("latest")

    def final(self) -> BlockRef:
        """The newest finalized block."""
        return self._tagged("finalized")

    def block(self, height: int) -> BlockRef | None:
        """The canonical block at a height, or None above the head."""
        return self._client.header(hex(height))

    def sightings(self, first: int, last: int, watched: Collection[Address]) -> Sequence[Sighting]:
        """Arrivals at watched Safes, deployed or not, in blocks first..last, ordered by height.

        How coins are told from claims stands in `native` and `tokens`. A node with limits on log queries answers short
        ranges only: on Unavailable ask again for a shorter one.
        """
        addresses = self._texts(watched)
        if first > last or not addresses:
            return ()
        scan = Scan(self._client, first, last)
        found = list(token_sightings(scan, self._tokens, addresses))
        ended: dict[str, int] = {}
        if self._native is not None:
            at, known = self._ended
            native, ended = native_sightings(scan, self._native, addresses, known if at == scan.hash(first - 1) else {})
            found += native
        scan.settle()
        self._ended = (scan.hash(last), ended)  # by hash: on another branch it is not used
        return sorted(found, key=lambda sighting: sighting.proof.height)

    def confirm(self, proof: ChainProof) -> Refusal | None:
        """Recompute a proof from the chain: None if it holds, else a refusal that says what stands there."""
        if isinstance(proof, BitcoinProof) or proof.chain != str(self.chain):
            return Refusal(Rule.ORIGIN, chain=proof.chain, want=str(self.chain))
        if (elsewhere := self._check_block(proof.height, proof.block)) is not None:
            return elsewhere
        address = str(to_checksum_address(proof.address))
        scan = Scan(self._client, proof.height, proof.height)
        if isinstance(proof, NativeProof):
            found = native_sightings(scan, self._native, [address], {})[0] if self._native is not None else []
            spelled: ChainProof = replace(proof, address=address)
        else:
            found = list(token_sightings(scan, self._tokens, [address]))
            spelled = replace(proof, address=address, contract=str(to_checksum_address(proof.contract)))
        scan.settle()
        if any(sighting.proof == spelled for sighting in found):
            return None
        return Refusal(Rule.ORIGIN, stated=spelled.to_json(), found=[sighting.proof.to_json() for sighting in found])

    def confirm_executed(
        self, executed: Executed, intents: Sequence[TransferIntent], holding_of: HoldingOf
    ) -> Refusal | None:
        """See `PayoutReader`: recomputed from the Safe's own events; a node that is behind raises."""
        if {executed.chain, executed.anchor.chain} != {self.chain.name}:
            return Refusal(Rule.ORIGIN, chain=executed.chain, want=str(self.chain))
        elsewhere = self._check_block(executed.height, executed.block)
        return elsewhere or payouts.confirm_executed(self._client, self._assets, executed, intents, holding_of)

    def balance(self, asset: Asset, addresses: Collection[Address], at: BlockRef) -> int:
        """Base units of one asset that these addresses hold together at a block, each counted once."""
        if asset.chain != self.chain:
            raise InvalidInput("asset", Rule.WRONG_NETWORK, str(asset.chain), str(self.chain))
        total = sum(balances(self._client, asset, self._texts(addresses), at.hash))
        self._stands(at)
        return total

    def safe_state(self, wallet: bytes, certificate: WalletCertificate, at: BlockRef) -> SafeState:
        """The Safe of a certificate at a block; `deployed` False and zeros where it is not there yet."""
        state = read_safe(self._client, wallet, certificate, at.hash)
        self._stands(at)
        return state

    def _check_block(self, height: int, block: bytes) -> Refusal | None:
        """Canonical at that height. A node that lags, or whose chain got shorter, cannot say that the block is not there."""
        canonical = self.block(height)
        if canonical is None:
            raise Unavailable(f"block {height} of {self.chain}", "the node has no block so high")
        if canonical.hash != block:
            return Refusal(Rule.ORIGIN, height=height, block=block.hex(), canonical=canonical.hash.hex())
        return None

    def _tagged(self, tag: str) -> BlockRef:
        found = self._client.header(tag)
        if found is None:
            raise Unavailable(f"{tag} block of {self.chain}", "the node has none")
        return found

    def _stands(self, at: BlockRef) -> None:
        """Some nodes ignore `requireCanonical`, so ask."""
        found = self.block(at.height)
        if found is None or found.hash != at.hash:
            raise Unavailable(f"block {at.height} {at.hash.hex()} of {self.chain}", "it is not canonical")

    def _texts(self, addresses: Collection[Address]) -> list[str]:
        for address in addresses:
            if address.chain != self.chain:
                raise InvalidInput("address", Rule.WRONG_NETWORK, f"{address} on {address.chain}", str(self.chain))
        return sorted({address.text for address in addresses})
