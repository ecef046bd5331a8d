# SPDX-License-Identifier: AGPL-3.0-or-later
"""Opening a node as a `PayoutChain`, whatever kind of chain it is on. Drivers load only for the kind that is asked for."""

from pathlib import Path
from typing import TYPE_CHECKING

from custody.flows.ports import PayoutChain
from custody.rules.amounts import Assets
from custody.rules.errors import InvalidInput
from custody.rules.payouts import FeeBounds
from custody.rules.refusals import Rule
from custody.rules.wallets import Chain

if TYPE_CHECKING:
    from custody.chains.evm.relay import RelaySigner


def open_payouts(
    chain: Chain,
    url: str,
    cookie: str,
    assets: Assets,
    relayer: "RelaySigner | None" = None,
    fees: FeeBounds | None = None,
) -> PayoutChain:
    """Connect to one node and confirm that it is on this chain; raises InvalidInput or Unavailable.

    EVM needs the relayer's seat, which pays the gas; `fees` bound what a Bitcoin wallet pays.
    """
    if chain.is_evm:
        from custody.chains.evm.client import EvmClient  # noqa: PLC0415  # web3 takes a second to load
        from custody.chains.evm.payouts import EvmPayouts  # noqa: PLC0415

        if relayer is None:
            raise InvalidInput("relayer", Rule.MALFORMED, "none", f"the relayer's seat of {chain}")
        return EvmPayouts(EvmClient(url, chain), assets, relayer)
    from custody.chains.bitcoin.payouts import BitcoinPayouts  # noqa: PLC0415
    from custody.chains.bitcoin.rpc import BitcoinRpc  # noqa: PLC0415

    return BitcoinPayouts(BitcoinRpc(url, chain, cookie=Path(cookie)), assets, fees)
