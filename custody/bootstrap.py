# SPDX-License-Identifier: AGPL-3.0-or-later
"""Puts a deployment together from its settings: policy, store and chains, for every process but the web's (custody/composing.py).

Genesis comes from a file of the home folder, never from the database, and everything mirrored is verified against it.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from custody.chains.addresses import ChainDeriver
from custody.chains.views import open_view
from custody.composing import GENESIS, check_activation, read_genesis, wall_clock
from custody.flows.inventory import Inventory, InventoryReader, Wallet
from custody.flows.mirror import ACTIVATION, BUNDLE, CERTIFICATE, ROSTER, certificates_from, rosters_from
from custody.flows.ports import ChainView, Store
from custody.rules.certificates import WalletCertificate
from custody.rules.errors import InvalidInput
from custody.rules.governance import PolicyActivation
from custody.rules.refusals import Rule, raise_if
from custody.rules.roster import Roster
from custody.rules.signatures import Signed
from custody.rules.wallets import Chain, Tier
from custody.settings import NodeSettings, Settings
from custody.store import open_store
from policies.bundle import Bundle, load


@dataclass(frozen=True)
class Deployment:
    """A born deployment, verified as it is opened piece by piece."""

    settings: Settings
    read_only: bool = False

    @cached_property
    def bundle(self) -> Bundle:
        """The policy bundle in the settings' folder; `activated` says whether it is in force."""
        return load(Path(self.settings.bundle))

    @cached_property
    def store(self) -> Store:
        """The ledger's store."""
        return open_store(self.settings.database, self.bundle.assets, read_only=self.read_only)

    @cached_property
    def rosters(self) -> tuple[Roster, ...]:
        """Every roster that is or was in force, oldest first, verified from this home's genesis."""
        versions = self.store.read(lambda work: work.documents.all(ROSTER))
        return rosters_from(versions, read_genesis(self.settings.home), wall_clock())

    @property
    def roster(self) -> Roster:
        """The newest roster in force."""
        return self.rosters[-1]

    @cached_property
    def activated(self) -> Signed[PolicyActivation]:
        """The activation of the bundle on disk; raises Refused where owners have not put exactly this one in force."""
        raise_if(self.store.read(lambda work: list(check_activation(self.bundle, work, self.roster, wall_clock()))))
        document = self.store.read(lambda work: work.documents.get(ACTIVATION, self.bundle.hash.hex()))
        return Signed.from_json(PolicyActivation, document)

    def wallets(self) -> dict[bytes, tuple[Signed[WalletCertificate], ...]]:
        """Every wallet's certificates, verified, read afresh."""
        documents = self.store.read(lambda work: work.documents.all(CERTIFICATE))
        return certificates_from(documents, self.roster)

    @cached_property
    def _reader(self) -> InventoryReader:
        return InventoryReader(ChainDeriver())

    def inventory(self) -> Inventory:
        """Every wallet and deposit address as of now; each signature is verified once."""
        return self.store.read(lambda work: self._reader.read(work, self.roster))

    def hot_wallet(self, chain: Chain) -> Wallet:
        """The one customer_hot wallet of a chain: deposit addresses belong to it."""
        found = [wallet for wallet in self.inventory().on(chain) if wallet.tier is Tier.CUSTOMER_HOT]
        if len(found) != 1:
            raise InvalidInput(
                "chain", Rule.UNKNOWN_WALLET, f"{len(found)} customer_hot wallets on {chain}", "exactly one"
            )
        return found[0]

    def node(self, chain: Chain) -> NodeSettings:
        """The watcher's node of a chain; raises InvalidInput where settings name none."""
        node = self.settings.nodes.get(chain.name)
        if node is None:
            raise InvalidInput("settings.nodes", Rule.UNKNOWN_CHAIN, f"none for {chain}", "a node for every chain")
        return node

    @cached_property
    def views(self) -> dict[Chain, ChainView]:
        """The watcher's own nodes, one per chain of the registry."""
        births = [c[0].message for c in self.wallets().values()]
        found: dict[Chain, ChainView] = {}
        for chain in self.bundle.assets.chains:
            birth = min((c.birth for c in births if c.chain == chain.name), default=0)
            cache = self.settings.home / f"outputs-{chain.name.replace(':', '-')}.json"
            node = self.node(chain)
            found[chain] = open_view(chain, node.url, node.cookie, self.bundle.assets, cache, birth)
        return found


def open_deployment(home: Path, *, read_only: bool = False) -> Deployment:
    """Open the deployment of a home folder."""
    return Deployment(Settings.load(home), read_only)


__all__ = [
    "ACTIVATION",
    "BUNDLE",
    "GENESIS",
    "Deployment",
    "check_activation",
    "open_deployment",
    "read_genesis",
    "wall_clock",
]
