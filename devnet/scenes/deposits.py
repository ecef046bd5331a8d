# SPDX-License-Identifier: AGPL-3.0-or-later
"""Coins arrive on both chains, from people who are nobody to us; some of them only seem to."""

from typing import Final

from custody.chains.addresses import ChainDeriver
from custody.chains.evm.transactions import send
from custody.flows.customers import add_customer, issue_address
from custody.flows.ports import Branch
from custody.rules.wallets import Tier
from devnet.birth import BITCOIN, EVM
from devnet.contracts import call_data, mint, transfer
from devnet.scenes.stage import CHAINS, Stage
from devnet.story import Story

CUSTOMERS: Final = ("alice", "bob", "carol")
ETHER: Final = 10**18
DOLLAR: Final = 10**6
COIN: Final = 10**8


def inventory(stage: Stage, story: Story) -> None:
    """Every wallet there is."""
    story.chapter("Inventory: every wallet, and nothing else")
    wallets = sorted(stage.deployment.inventory(), key=lambda w: (w.tier, w.chain))
    for wallet in wallets:
        certificate = wallet.certificate
        seats = ", ".join(s.key.seat for s in certificate.seats)
        story.tell(
            f"{wallet.tier:14} {'EVM    ' if wallet.chain.is_evm else 'Bitcoin'} {certificate.m} of {certificate.n}: {seats}"
        )
        story.tell(f"               {wallet.place[:110]}")
    keys = [s.key.public or s.key.xpub for wallet in wallets for s in wallet.certificate.seats]
    story.claim("six wallets: three tiers on two chains", len(wallets) == len(Tier) * len(CHAINS), f"{len(wallets)}")
    story.claim("no key in two wallets", len(set(keys)) == len(keys), f"{len(keys)} keys, {len(set(keys))} distinct")
    running = [seat for seat, server in stage.world.net.cold.items() if server.pid is not None]
    story.claim("the cold seats are stopped", not running, running or "stopped")


def customers(stage: Stage, story: Story) -> None:
    """Three customers, each with an address of their own per chain, attested and derived again."""
    story.chapter("Three customers, each with a deposit address per chain")
    deployment = stage.deployment
    for customer in CUSTOMERS:
        add_customer(deployment.store, customer)
        for chain in CHAINS:
            wallet = deployment.hot_wallet(chain)
            signed = issue_address(
                deployment.store, stage.attestor, deployment.roster, wallet, customer, ChainDeriver()
            )
            stage.addresses[customer, chain] = signed.message.address
            story.tell(f"{customer:6} {signed.message.address}")
    distinct = len(set(stage.addresses.values()))
    story.claim(
        "each address is one customer's alone, signed by the attestor, derived again here", distinct == 6, distinct
    )


def arrivals(stage: Stage, story: Story) -> None:
    """Bitcoin, ether (by an internal call too) and two tokens; nothing counts before it is final."""
    story.chapter("Deposits from independent senders: BTC, ETH, a token, and a token that returns no data")
    net, contracts, at = stage.world.net, stage.world.contracts, stage.addresses
    net.bitcoind.pay(at["alice", BITCOIN], 150_000_000)
    net.bitcoind.pay(at["carol", BITCOIN], 20_000_001)
    net.bitcoind.mine(1)
    sender = stage.stranger()
    send(stage.evm, sender, at["bob", EVM], value=10 * ETHER + 1)
    send(stage.evm, sender, contracts.forwarder, call_data("forward(address)", at["alice", EVM]), value=2 * ETHER)
    for token, customer, units in (
        (contracts.usd, "bob", 500_000 * DOLLAR),
        (contracts.silent_usd, "carol", 1_000 * DOLLAR + 7),
    ):
        mint(stage.evm, stage.world.deployer, token, sender.address, units)
        transfer(stage.evm, sender, token, at[customer, EVM], units)
    seen = stage.watch()
    early = stage.available("alice", "BTC") + stage.available("carol", "BTC")
    story.claim("seen, and Bitcoin not credited below finality", seen["seen"] >= 4 and early == 0, seen)
    stage.mine()
    stage.watch()
    expected = {
        ("alice", "BTC"): 150_000_000,
        ("carol", "BTC"): 20_000_001,
        ("bob", "ETH"): 10 * ETHER + 1,
        ("alice", "ETH"): 2 * ETHER,
        ("bob", "USDX"): 500_000 * DOLLAR,
        ("carol", "USDN"): 1_000 * DOLLAR + 7,
    }
    got = {key: stage.available(*key) for key in expected}
    story.claim(
        "each credited at finality, to the base unit, an internal call too",
        got == expected,
        "" if got == expected else got,
    )


def reorganised(stage: Stage, story: Story) -> None:
    """A deposit is reorged away on each chain and comes back in another block."""
    story.chapter("A reorganisation takes a deposit away; it comes back in another block")
    net, at = stage.world.net, stage.addresses
    net.bitcoind.pay(at["bob", BITCOIN], 30_000_000)
    (first,) = net.bitcoind.mine(1)
    seen = stage.watch()["seen"]
    net.bitcoind.rpc("invalidateblock", first)
    target = net.bitcoind.rpc("getnewaddress", wallet="miner")
    empty = [net.bitcoind.rpc("generateblock", target, []) for _ in range(2)]
    orphaned = stage.watch()["orphaned"]
    story.claim(
        "Bitcoin: seen, then orphaned with its block", (seen, orphaned) == (1, 1) and len(empty) == 2, (seen, orphaned)
    )
    story.claim("nothing was credited meanwhile", stage.available("bob", "BTC") == 0, stage.available("bob", "BTC"))
    stage.mine(4)
    credited = stage.watch()["credited"]
    story.claim(
        "credited once from its new block", stage.available("bob", "BTC") == 30_000_000 and credited == 1, credited
    )
    sender = stage.stranger()
    before = stage.available("carol", "ETH")
    receipt = send(stage.evm, sender, at["carol", EVM], value=3 * ETHER)
    seen = stage.watch()["seen"]
    net.anvil.rpc("anvil_reorg", 1, [])
    changed = stage.evm.call("eth_getBlockByNumber", hex(receipt.height), False)  # noqa: FBT003  # JSON-RPC has no names
    moved = isinstance(changed, dict) and changed.get("hash") != "0x" + receipt.block.hex()
    orphaned = stage.watch()["orphaned"]
    story.claim(
        "EVM: the block's hash changed, its deposit orphaned", moved and (seen, orphaned) == (1, 1), (seen, orphaned)
    )
    send(stage.evm, sender, at["carol", EVM], value=3 * ETHER)
    stage.mine()
    stage.watch()
    got = stage.available("carol", "ETH") - before
    story.claim("sent again by its sender, credited once", got == 3 * ETHER, got)


def impostors(stage: Stage, story: Story) -> None:
    """A look-alike token, a reverted call, a log with nothing behind it; and money at an address nobody holds."""
    story.chapter("What only looks like a deposit credits nothing")
    net, contracts, at = stage.world.net, stage.world.contracts, stage.addresses
    sender = stage.stranger()
    before = {symbol: stage.available("alice", symbol) for symbol in ("ETH", "USDX", "USDN")}
    for token in (contracts.fake_usd, contracts.lying_usd):
        mint(stage.evm, stage.world.deployer, token, sender.address, 9_000 * DOLLAR)
        transfer(stage.evm, sender, token, at["alice", EVM], 9_000 * DOLLAR)
    reverted = send(
        stage.evm, sender, contracts.reverter, call_data("forward(address)", at["alice", EVM]), value=ETHER, gas=300_000
    )
    story.claim("the call that pays alice and reverts was mined", not reverted.succeeded, reverted.height)
    stage.mine()
    stage.watch()
    after = {symbol: stage.available("alice", symbol) for symbol in before}
    story.claim(
        "look-alike token, lying log and reverted call credited nothing",
        before == after,
        "" if before == after else after,
    )
    hot = stage.deployment.hot_wallet(BITCOIN)
    unbound = ChainDeriver().derive(hot.certificate, Branch.RECEIVE, hot.next_index + 3)
    net.bitcoind.pay(unbound.text, 5 * COIN // 10)
    net.bitcoind.mine(1)
    send(stage.evm, sender, stage.deployment.hot_wallet(EVM).place, value=ETHER // 2)
    stage.mine()
    stage.watch()
    held = stage.suspense("BTC"), stage.suspense("ETH")
    story.claim(
        "money at our addresses that no customer holds is owed to suspense", held == (COIN // 2, ETHER // 2), held
    )
