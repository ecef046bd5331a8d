# SPDX-License-Identifier: AGPL-3.0-or-later
"""Wallet birth put together: seats, chains and store of one deployment (flows/birth.py says in which order)."""

from pathlib import Path

from custody.bootstrap import Deployment, wall_clock
from custody.chains.evm.safes import SafeContracts
from custody.chains.scripts import check_script, descriptor_builder, safe_builder
from custody.chains.views import open_view
from custody.flows.birth import admit_wallet, check_wallet, draft_successor, draft_wallet
from custody.flows.inventory import Wallet
from custody.parts import attestor, relayer, seats_named
from custody.rules.certificates import WalletCertificate, check_shape
from custody.rules.refusals import raise_if
from custody.rules.signatures import Signed
from custody.rules.wallets import Chain, Tier


def draft_certificate(
    deployment: Deployment, label: str, tier: Tier, chain: Chain, seat_names: list[str], m: int
) -> WalletCertificate:
    """Ask the named seats for keys and build the certificate; its birth is the chain's newest block."""
    raise_if(check_shape(m, len(seat_names)))
    node = deployment.node(chain)
    birth = open_view(chain, node.url, node.cookie, deployment.bundle.assets).head().height
    if chain.is_evm:
        script = safe_builder(
            SafeContracts.from_json(deployment.settings.safe_contracts[chain.name]), f"{label}/{chain}"
        )
    else:
        script = descriptor_builder()
    return draft_wallet(seats_named(deployment.settings, seat_names), label, tier, chain, m, birth, script)


def draft_next(deployment: Deployment, wallet: Wallet, seat_names: list[str], m: int) -> WalletCertificate:
    """Ask the named seats for new keys and build the wallet's next certificate; its birth is the chain's newest block."""
    raise_if(check_shape(m, len(seat_names)))
    node = deployment.node(wallet.chain)
    birth = open_view(wallet.chain, node.url, node.cookie, deployment.bundle.assets).head().height
    line = [signed.message for signed in wallet.certificates]
    return draft_successor(seats_named(deployment.settings, seat_names), line, m, birth, descriptor_builder())


def create_wallet(deployment: Deployment, signed: Signed[WalletCertificate]) -> str:
    """Check, let every seat accept, record, then put it on chain: deploy the Safe, or import the descriptor watch-only.

    Returns the Safe's address or the descriptor. Can be repeated: seats and chain answer the same again.
    """
    known = [s.message for chain in deployment.wallets().values() for s in chain]
    raise_if(check_wallet(deployment.roster, signed, known, check_script, wall_clock()))
    admit_wallet(deployment.store, signed, seats_named(deployment.settings, [s.key.seat for s in signed.message.seats]))
    return _put_on_chain(deployment, signed)


def show_heads(deployment: Deployment) -> frozenset[str]:
    """One statement while cold seats are up: the seats whose heads the attestor has seen. A silent one is left out and stops nothing.

    A seat signs nothing under a statement that does not name its head, and a cold one answers at ceremonies only: without this the
    first refill would need a ceremony more. Raises Unavailable and Refused as `AttestorPort.statement`.
    """
    return frozenset(position.seat for position in attestor(deployment.settings).statement().message.seats)


def _put_on_chain(deployment: Deployment, signed: Signed[WalletCertificate]) -> str:
    chain = Chain(signed.message.chain)
    node = deployment.node(chain)
    if chain.is_evm:
        from custody.chains.evm.client import EvmClient
        from custody.chains.evm.relay import deploy_certified

        deploy_certified(EvmClient(node.url, chain), relayer(deployment.settings), signed)
        return signed.message.safe[0].address
    from custody.chains.bitcoin.rpc import BitcoinRpc
    from custody.chains.bitcoin.second import agree
    from custody.chains.bitcoin.watching import watch_only

    raise_if(filter(None, [agree(signed.message)]))
    rpc = BitcoinRpc(node.url, chain, cookie=Path(node.cookie))
    watch_only(rpc, f"bulkhead-{signed.message.label}", signed.message)
    return signed.message.script[0].descriptor
