# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a payment costs in a batch of 1, 10 and 100: measured on these chains, from throw-away wallets of the same shape."""

from collections.abc import Sequence
from pathlib import Path

from custody.chains.bitcoin.rpc import BitcoinRpc
from custody.rules.payments import BatchSize
from devnet.birth import BITCOIN
from devnet.contracts import fund, mint
from devnet.measuring import SIZES, bitcoin_batches, evm_batches
from devnet.scenes.stage import Stage
from devnet.story import Story

ETHER = 10**18


def batches(stage: Stage, story: Story) -> None:
    """Gas on EVM, virtual bytes on Bitcoin; a larger batch costs each of its payments less."""
    story.chapter("Batches of 1, 10 and 100 from 3-of-4 wallets: what each payment costs")
    world, assets = stage.world, stage.deployment.bundle.assets
    usd = assets.get("USDX")

    def ether(safe: str) -> None:
        fund(stage.evm, safe, ETHER)

    def dollars(safe: str) -> None:
        mint(stage.evm, world.deployer, world.contracts.usd, safe, 1000)

    _tell(story, "ETH", "gas", evm_batches(stage.evm, world.contracts.safe, assets.get("ETH"), ether))
    _tell(story, "USDX", "gas", evm_batches(stage.evm, world.contracts.safe, usd, dollars))
    rpc = BitcoinRpc(world.net.bitcoind.url, BITCOIN, cookie=Path(world.net.bitcoind.cookie_file))
    depth = assets.confirmations[BITCOIN]
    _tell(story, "BTC", "vbytes", bitcoin_batches(world.net.bitcoind, rpc, assets.get("BTC"), depth))


def _tell(story: Story, asset: str, unit: str, found: Sequence[BatchSize]) -> None:
    for batch in found:
        story.tell(f"{asset:5} {batch.payments:4} paid at once: {batch.each:8,} {unit} each, {batch.size:10,} in all")
    each = [batch.each for batch in found]
    falls = [batch.payments for batch in found] == [*SIZES] and each == sorted(each, reverse=True)
    story.claim(f"{asset}: each payment costs less in a larger batch", falls, " > ".join(f"{e:,}" for e in each))
