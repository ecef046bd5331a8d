# SPDX-License-Identifier: AGPL-3.0-or-later
"""Puts a deployment together from its settings: policy, store and chains, for every process but the web's (custody/composing.py).

Genesis comes from a file of the home folder, never from the database, and everything mirrored is verified against it.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from custody.attestor import RemoteAttestor
from custody.chains.addresses import ChainDeriver
from custody.chains.views import open_view
from custody.composing import GENESIS, read_genesis, wall_clock
from custody.flows.inventory import Inventory, InventoryReader, Wallet
from custody.flows.mirror import ACTIVATION, BUNDLE, CERTIFICATE, ROSTER, certificates_from, rosters_from
from custody.flows.ports import ChainView, Store
from custody.governing import BundleReader, check_registry
from custody.rules.certificates import WalletCertificate
from custody.rules.errors import InvalidInput, Unavailable
from custody.rules.governance import PolicyActivation
from custody.rules.refusals import Rule
from custody.rules.roster import Roster
from custody.rules.signatures import Signed
from custody.rules.wallets import Chain, Tier
from custody.settings import NodeSettings, Settings
from custody.store import open_store
from policies.bundle import Bundle, load
from policies.succession import Lineage


@dataclass(frozen=True)
class Deployment:
    """A born deployment, verified as it is opened piece by piece."""

    settings: Settings
    read_only: bool = False

    @cached_property
    def first_bundle(self) -> Bundle:
        """The bundle in the settings' folder: what a deployment is born with, and nothing else."""
        return load(Path(self.settings.bundle))

    @cached_property
    def bundle(self) -> Bundle:
        """The bundle in force as this was opened; the first one while owners have signed none."""
        lineage = self.lineage()
        signed = lineage.steps or lineage.waiting or lineage.against
        return lineage.newest.bundle if signed else self.first_bundle

    @cached_property
    def store(self) -> Store:
        """The ledger's store, whose books are read by the asset registry in force."""
        if self.bundle.documents["assets"] == self.first_bundle.documents["assets"]:
            return self._mirror
        return open_store(self.settings.database, self.bundle.assets, read_only=self.read_only)

    @cached_property
    def _mirror(self) -> Store:
        """The same store for documents alone: which registry is in force stands in them."""
        return open_store(self.settings.database, self.first_bundle.assets, read_only=self.read_only)

    def lineage(self) -> Lineage:
        """Every bundle that is or was in force as of now, and what waits, read afresh; nothing before birth."""
        if not (self.settings.home / GENESIS).exists():
            return Lineage((), (), ())
        rosters = self.rosters

        def at(now: int) -> Lineage:
            return self._mirror.read(lambda work: self._bundles.read(work, rosters, now))

        found = at(wall_clock())
        return at(self.clock()) if found.waiting else found

    def clock(self) -> int:
        """Seconds since 1970: the attestor's time where genesis declares that, else this machine's. Raises Unavailable."""
        if self.roster.version.clock != "statement":
            return wall_clock()
        return max(self.told(), wall_clock())

    def told(self) -> int:
        """The attestor's time. Raises Unavailable."""
        told = str(RemoteAttestor(Path(self.settings.attestor.socket)).status().get("time"))
        if not told.isdecimal():
            raise Unavailable("attestor", "it tells no time")
        return int(told)

    @cached_property
    def _bundles(self) -> BundleReader:
        return BundleReader()

    @property
    def genesis(self) -> bytes:
        """What this home was born with."""
        return read_genesis(self.settings.home)

    @cached_property
    def rosters(self) -> tuple[Roster, ...]:
        """Every roster that is or was in force, oldest first, verified from this home's genesis."""
        versions = self._mirror.read(lambda work: work.documents.all(ROSTER))
        return rosters_from(versions, self.genesis, wall_clock())

    @property
    def roster(self) -> Roster:
        """The newest roster in force."""
        return self.rosters[-1]

    @cached_property
    def activated(self) -> Signed[PolicyActivation]:
        """The activation of the bundle in force; raises Refused where owners have put none in force."""
        return self.lineage().newest.signed

    def wallets(self) -> dict[bytes, tuple[Signed[WalletCertificate], ...]]:
        """Every wallet's certificates, verified, read afresh."""
        documents = self.store.read(lambda work: work.documents.all(CERTIFICATE))
        return certificates_from(documents, self.roster)

    @cached_property
    def _reader(self) -> InventoryReader:
        return InventoryReader(ChainDeriver())

    def inventory(self) -> Inventory:
        """Every wallet and deposit address as of now; each signature is verified once.

        Raises Unavailable where a bundle with another asset registry came in force since this was opened.
        """
        lineage = self.lineage()
        if lineage.steps:
            check_registry(lineage.newest.bundle, self.bundle.assets)
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
    "open_deployment",
    "read_genesis",
    "wall_clock",
]
