# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a payment costs in a batch: gas and virtual bytes of real transactions in real blocks, from 3-of-4 throw-away wallets.

Every transaction goes the worker's way: built, simulated, decoded by the seats' decoder, signed, put together, mined.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from eth_account import Account

from custody.chains.bitcoin.payouts import BitcoinPayouts
from custody.chains.bitcoin.rpc import BitcoinRpc
from custody.chains.bitcoin.scripts import receive_address
from custody.chains.evm.client import EvmClient
from custody.chains.evm.deploy import deploy_safe
from custody.chains.evm.payouts import EvmPayouts
from custody.chains.evm.safes import SafeContracts
from custody.flows.ports import PayoutChain
from custody.rules.amounts import Asset, Assets
from custody.rules.errors import Unavailable
from custody.rules.payments import BatchSize, Mined, Outcome, Payment
from custody.rules.wallets import Address
from devnet.bitcoind import MINER, Bitcoind
from devnet.contracts import fund, mine
from devnet.throwaway import QUORUM, RelayerHand, SeatedWallet, seated_safe, seated_script

SIZES: Final = (1, 10, 100)
ETHER: Final = 10**18
_SATOSHI_EACH: Final = 1_000_000
_FEE_EACH: Final = 100_000


def evm_batches(
    client: EvmClient, contracts: SafeContracts, asset: Asset, give: Callable[[str], None], sizes: Sequence[int] = SIZES
) -> tuple[BatchSize, ...]:
    """Gas of batches of one asset to addresses that held none of it before, the relayer's whole transaction included.

    `give` puts units of the asset on a Safe. On Anvil only, which makes ether out of nothing.
    """
    assets, relayer = Assets((asset,), {asset.chain: 1}), RelayerHand(asset.chain)
    wallet = seated_safe(contracts, "measurement", assets, asset.chain)
    safe = wallet.certificate.safe[0]
    fund(client, relayer.account.address, 10 * ETHER)
    deploy_safe(client, relayer.account, safe)
    give(safe.address)
    payouts = EvmPayouts(client, assets, relayer)
    at_once = partial(mine, client)  # Anvil says yes to a transaction a moment before it mines it by itself
    _pay(
        payouts, wallet, [_to(asset, str(Account.create().address), 1)], at_once
    )  # the first SafeTx also sets the nonce's slot
    return tuple(
        _pay(payouts, wallet, [_to(asset, str(Account.create().address), 1) for _ in range(size)], at_once)
        for size in sizes
    )


def bitcoin_batches(
    node: Bitcoind, rpc: BitcoinRpc, asset: Asset, depth: int, sizes: Sequence[int] = SIZES
) -> tuple[BatchSize, ...]:
    """Virtual bytes of batches to P2WPKH addresses out of one 3-of-4 P2WSH coin, with change. On regtest only.

    `depth` is the confirmations that a coin needs before it is spent.
    """
    assets = Assets((asset,), {asset.chain: depth})
    wallet = seated_script(f"measurement-{node.height}", assets, asset.chain, birth=node.height)
    payouts = BitcoinPayouts(rpc, assets)
    for index, size in enumerate(sizes):
        node.pay(receive_address(wallet.certificate, index).text, 2 * size * _SATOSHI_EACH)
    node.mine(depth)

    def fresh() -> Payment:
        return _to(asset, str(node.rpc("getnewaddress", wallet=MINER)), _SATOSHI_EACH)

    def mine() -> object:
        return node.mine(depth)

    return tuple(_pay(payouts, wallet, [fresh() for _ in range(size)], mine) for size in sizes)


def _to(asset: Asset, address: str, units: int) -> Payment:
    return Payment(bytes(32), asset.symbol, units, Address(asset.chain, address), _FEE_EACH)


def _any_coin(outpoints: Collection[str]) -> Collection[str]:
    """There is no ledger here: what is measured is a throwaway wallet."""
    return outpoints


def _pay(
    payouts: PayoutChain, wallet: SeatedWallet, payments: Sequence[Payment], mine: Callable[[], object]
) -> BatchSize:
    numbered = [replace(payment, intent=i.to_bytes(32)) for i, payment in enumerate(payments)]
    certificate = wallet.certificate
    reservation = payouts.next_anchor(wallet.name, certificate, numbered, (), _any_coin)
    unsigned = payouts.build(certificate, reservation, numbered)
    signed = payouts.combine(certificate, unsigned, wallet.sign(unsigned, QUORUM))
    envelope = payouts.seal(wallet.signed, signed)
    payouts.broadcast(envelope)
    mine()
    mined = payouts.follow(certificate, [envelope])
    if not isinstance(mined, Mined) or mined.outcome is not Outcome.DONE:
        raise Unavailable("measurement", f"a batch of {len(payments)} was not mined: {mined}")
    return BatchSize(len(payments), mined.size)
