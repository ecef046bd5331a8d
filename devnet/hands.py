# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a person does to a living devnet that nobody can do to a real chain: pay out of nothing, make blocks, let a day pass."""

from eth_account import Account

from custody.bootstrap import open_deployment
from custody.chains.evm.client import EvmClient
from custody.chains.evm.transactions import send
from custody.rules.amounts import Amount
from custody.rules.wallets import Address
from devnet.birth import EVM, open_deployer
from devnet.contracts import mint, transfer
from devnet.network import Devnet
from devnet.prices import Feed

_GAS_MONEY = 10**18


def pay(net: Devnet, address: str, amount: str, symbol: str) -> Amount:
    """Somebody who is nobody to us pays an address, in the asset's own unit; in a block, not final yet.

    Raises InvalidInput: unknown_asset, no amount of it, no address of its chain; Unavailable.
    """
    asset = open_deployment(net.home, read_only=True).bundle.assets.get(symbol)
    paid, to = Amount.parse(asset, amount), Address.parse(asset.chain, address).text
    if not asset.chain.is_evm:
        net.bitcoind.pay(to, paid.units)
        net.bitcoind.mine(1)
        return paid
    client, stranger = EvmClient(net.anvil.url, EVM), Account.create()
    native = asset.contract is None
    net.anvil.set_balance(stranger.address, _GAS_MONEY + (paid.units if native else 0))
    if native:
        send(client, stranger, to, value=paid.units)
    else:
        token = str(asset.contract)
        mint(client, open_deployer(net), token, stranger.address, paid.units)
        transfer(client, stranger, token, to, paid.units)
    return paid


def mine(net: Devnet, blocks: int) -> tuple[int, int]:
    """Empty blocks on both chains; their new heights, Anvil's first."""
    net.bitcoind.mine(blocks)
    return net.anvil.mine(blocks), net.bitcoind.height


def advance(net: Devnet, seconds: int) -> int:
    """Let time pass on the statement's clock; gives the time there now.

    The attestor looks first, because what it has not seen yet (an enrolment) begins to age only when it does; and both feeders
    quote again, because every price of before is stale now. Raises Refused where genesis does not declare that clock; Unavailable.
    """
    feed = Feed.open(net.home.absolute())
    feed.attestor.statement()
    now = feed.attestor.advance(seconds)
    feed.quote(now)
    return now
