# SPDX-License-Identifier: AGPL-3.0-or-later
"""Opening a node as a `ChainView`, whatever kind of chain it is on. Drivers load only for the kind that is asked for."""

from pathlib import Path

from custody.flows.ports import ChainView
from custody.rules.amounts import Assets
from custody.rules.wallets import Chain


def open_view(
    chain: Chain, url: str, cookie: str, assets: Assets, cache: Path | None = None, birth: int = 0
) -> ChainView:
    """Connect to one node and confirm that it is on this chain; raises InvalidInput or Unavailable.

    `cache` keeps Bitcoin's output index between runs; `birth` is the first block that can hold coins of ours.
    """
    if chain.is_evm:
        from custody.chains.evm.client import EvmClient  # web3 takes a second to load
        from custody.chains.evm.view import EvmView

        return EvmView(EvmClient(url, chain), assets)
    from custody.chains.bitcoin.rpc import BitcoinRpc
    from custody.chains.bitcoin.view import BitcoinView

    return BitcoinView(BitcoinRpc(url, chain, cookie=Path(cookie)), assets, cache, birth)
