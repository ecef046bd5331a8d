# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the scenes share: senders who are nobody to us, blocks, and the watcher run to the head."""

import json
from dataclasses import dataclass, field
from typing import Final

from eth_account import Account
from eth_account.signers.local import LocalAccount

from custody import parts
from custody.bootstrap import Deployment, wall_clock
from custody.chains.evm.client import EvmClient
from custody.flows.ports import AttestorPort
from custody.flows.worker import Parts
from custody.rules.ledger import Account as LedgerAccount
from custody.rules.ledger import AccountKind
from custody.rules.wallets import Chain
from custody.watcher import catch_up
from devnet.birth import BITCOIN, EVM, World

FINAL_BLOCKS: Final = 3
"""Enough more blocks on either chain for what is in one to be final."""


@dataclass
class Stage:
    """One world with its deployment opened once, and everybody's addresses by (customer, chain)."""

    world: World
    deployment: Deployment
    addresses: dict[tuple[str, Chain], str] = field(default_factory=dict)
    worker: Parts | None = None
    """The worker's parts, opened by the first scene that works: each opening derives every address again."""

    @property
    def evm(self) -> EvmClient:
        """The EVM node."""
        return EvmClient(self.world.net.anvil.url, EVM)

    @property
    def attestor(self) -> AttestorPort:
        """The attestor, over its socket."""
        return parts.attestor(self.deployment.settings)

    def stranger(self, ether: int = 100) -> LocalAccount:
        """A fresh account with some ether and no tie to us."""
        account: LocalAccount = Account.create()
        self.world.net.anvil.set_balance(account.address, ether * 10**18)
        return account

    def mine(self, blocks: int = FINAL_BLOCKS) -> None:
        """Empty blocks on both chains."""
        self.world.net.anvil.mine(blocks)
        self.world.net.bitcoind.mine(blocks)

    def watch(self) -> dict[str, int]:
        """Run the watcher to the head of both chains; what it did, added up."""
        done = {"seen": 0, "credited": 0, "orphaned": 0, "reversed": 0, "dust": 0}
        d = self.deployment
        for line in catch_up(d.store, d.views, d.inventory, d.bundle.assets, wall_clock):
            report = json.loads(line)
            for name in done:
                done[name] += int(report[name])
        return done

    def available(self, customer: str, symbol: str) -> int:
        """What a customer can use, in base units."""
        return self._balance(LedgerAccount(AccountKind.CUSTOMER_AVAILABLE, customer), symbol)

    def suspense(self, symbol: str) -> int:
        """What arrived and is nobody's yet, in base units."""
        return self._balance(LedgerAccount(AccountKind.SUSPENSE), symbol)

    def _balance(self, account: LedgerAccount, symbol: str) -> int:
        asset = self.deployment.bundle.assets.get(symbol)
        return self.deployment.store.read(lambda work: work.journal.balance(account, asset))


CHAINS: Final = (EVM, BITCOIN)
