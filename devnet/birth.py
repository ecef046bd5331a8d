# SPDX-License-Identifier: AGPL-3.0-or-later
"""A deployment is born on the devnet: the same steps as anywhere, with the devnet's people signing.

Nothing here has a way round a check: keys are made by the seats, version 1 is signed by everybody it names, certificates by a
quorum, and each part decides for itself.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from eth_account import Account
from eth_account.signers.local import LocalAccount

from custody import parts
from custody.birthing import create_wallet, draft_certificate, show_heads
from custody.bootstrap import GENESIS, Deployment, open_deployment, wall_clock
from custody.chains.evm.client import EvmClient
from custody.flows.birth import Part, found, machines_sign
from custody.governing import store_activation
from custody.rules.governance import PolicyActivation
from custody.rules.signatures import Key, Signed
from custody.rules.typed import ZERO32, Domain
from custody.rules.wallets import Chain, Tier
from custody.settings import NodeSettings, PartSettings, Settings
from custody.vault.engine_client import MOUNT
from devnet.contracts import DevnetContracts, deploy_all
from devnet.network import COLD_SEATS, HOT_SEATS, Devnet, Hosting
from devnet.people import POLICY_OWNERS, Cast, gather, roster_version
from devnet.processes import NodeFailed
from devnet.services import Console, Loop, Service, Web, socket_path

EVM: Final = Chain("eip155:31338")
BITCOIN: Final = Chain("bip122:0f9188f13cb7b2c71f2a335e3a4fc328")
_TOKENS: Final = ("0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359")
"""What stands in the shipped registry for the two tokens that a devnet deploys."""
SHIPPED: Final = Path(__file__).resolve().parent.parent / "policies" / "shipped"
RELAYER_CAP: Final = 10 * 10**18
CERTIFIERS: Final = ("ana", "cleo", "eve")
"""Who signs wallet certificates in the devnet: a quorum of the roster's people."""

Birth = tuple[str, Tier, Chain, tuple[str, ...]]
"""Label, tier, chain and seats of a wallet; each is 3-of-4."""

WALLETS: Final[tuple[Birth, ...]] = tuple(
    (tier.value, tier, chain, COLD_SEATS if tier is Tier.CUSTOMER_COLD else HOT_SEATS)
    for tier in Tier
    for chain in (EVM, BITCOIN)
)
"""Every wallet at birth."""


REBALANCING: Final = 20
"""Seconds between two looks at hot wallets: a person who waits for an overflow sees it, and two cores carry it."""


@dataclass(frozen=True)
class World:
    """A born devnet: nodes, processes, people and contracts."""

    net: Devnet
    cast: Cast
    contracts: DevnetContracts
    deployer: LocalAccount
    services: "Services"

    @property
    def deployment(self) -> Deployment:
        """The deployment, opened afresh."""
        return open_deployment(self.net.home)


class Services:
    """Bulkhead's own processes over one network. Cold seats run only inside `ceremony`."""

    def __init__(self, net: Devnet) -> None:
        self._net = net
        lifetime = net.anvil.lifetime

        def part(name: str, *arguments: str, at: Path | None = None) -> Service:
            return Service(name, net.folder / f"{name}.d", net.home, arguments, lifetime, at=at)

        def loop(name: str, *arguments: str, said: str = "") -> Loop:
            return Loop(name, net.folder / f"{name}.d", net.home, arguments, lifetime, said=said)

        def seat(name: str) -> Service:
            server = net.hot.get(name) or net.cold[name]
            at = str(socket_path(net.folder / f"{name}.d"))
            return part(name, "seat", "serve", name, "--approle", str(server.approle_file), "--socket", at)

        hosted = net.hosting is Hosting.PROCESS  # in an engine a seat lives and dies with its server
        self.hot = {name: seat(name) for name in net.hot if hosted}
        self.cold = {name: seat(name) for name in COLD_SEATS if hosted}
        self.attestor = part("attestor", "attestor", "serve")
        self.relayer = part("relayer", "relayer", "serve")
        self.deriver = part("deriver", "deriver", "serve", at=self.attestor.socket.with_name("deriver.sock"))
        self.web = Web("api", net.folder / "api.d", net.home, ("api", "serve"), lifetime)
        self.console = Console("console", net.folder / "console.d", net.home, ("console", "serve"), lifetime)
        self.life = loop("life", "devnet", "live")
        self.watcher, self.worker = loop("watcher", "watch"), loop("worker", "worker")
        self.feeders = loop("feeders", "devnet", "quote", said="quoted")
        people = net.home / "people"
        proposes = ("--key", str(people / "rebalancer.pem"), "--password-file", str(people / "password"))
        self.rebalancer = loop("rebalancer", "rebalance", *proposes, "--every", str(REBALANCING))

    @property
    def online(self) -> list[Service]:
        """What answers on a socket and runs all the time, before birth too."""
        return [*self.hot.values(), self.attestor, self.relayer, self.deriver]

    @property
    def loops(self) -> list[Service]:
        """What acts by itself in a born deployment that is left living; a demonstration does these steps where it tells them."""
        return [self.watcher, self.worker, self.feeders, self.rebalancer]

    @property
    def all(self) -> list[Service]:
        """Every process there can be, the cold seats last."""
        return [self.life, *self.loops, self.console, self.web, *self.online, *self.cold.values()]

    @property
    def shown(self) -> list[Service]:
        """What a person who came to look finds besides: the console, and customers and people who give it something to show."""
        return [self.console, self.life]

    def check_living(self) -> None:
        """Whether everything that was to live on does: a loop says nothing where it is well. Raises NodeFailed."""
        for service in (*self.loops, self.web, *self.online):
            if service.pid is None:
                raise NodeFailed(service.name, "ended at once", service.log)

    def start(self, services: list[Service]) -> None:
        """Start processes at once; two at a time, since each loads its libraries first."""
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda service: service.start(), services))

    def stop(self) -> None:
        """Stop everything of ours, whoever started it: first who asks, then who answers."""
        asking: list[Service] = [self.life, *self.loops, self.console, self.web]
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda service: service.stop(), asking))
            list(pool.map(lambda service: service.stop(), [s for s in self.all if s not in asking]))

    @contextmanager
    def ceremony(self, names: Sequence[str] = COLD_SEATS) -> Iterator[None]:
        """The named cold seats brought up, unsealed, and their processes with them; all stopped again at the end."""
        seats = [self.cold[name] for name in names if name in self.cold]
        with self._net.ceremony(names):
            try:
                self.start(seats)
                yield
            finally:
                with ThreadPoolExecutor(4) as pool:
                    list(pool.map(lambda service: service.stop(), seats))


def raise_world(net: Devnet, services: Services, progress: Callable[[str], None], *, living: bool = False) -> World:
    """Start Bulkhead's processes over a running network, and give birth where that has not happened yet.

    `living` starts those too that act by themselves. Whoever calls stops the services again, also where this fails.
    """
    cast = gather(net.home / "people")
    deployer = open_deployer(net)
    contracts = _contracts(net, deployer, progress)
    _settings(net, services, contracts)
    parts.ledger_before_birth(Settings.load(net.home))
    progress("starting seats, attestor, relayer, deriver")
    services.start(services.online)
    world = World(net, cast, contracts, deployer, services)
    missing = _missing_wallets(world)
    started: list[Future[bool]] = []
    with ThreadPoolExecutor(4) as beside:

        def begin(service: Service) -> None:
            started.append(beside.submit(service.start))

        if missing:
            _give_birth(world, missing, services.loops if living else [], begin, progress)
        else:
            for service in (services.web, *(services.loops if living else ())):
                begin(service)
        for one in started:
            one.result()
    progress(f"the API answers at {services.web.url}")
    if living:
        services.check_living()
    return world


def _give_birth(
    world: World,
    missing: tuple[Birth, ...],
    loops: list[Service],
    begin: Callable[[Service], None],
    progress: Callable[[str], None],
) -> None:
    """What of the birth has not happened yet. Others begin beside it: the API once there is a genesis, loops once wallets are there."""
    with world.services.ceremony():
        progress("cold seats are up for the birth ceremony")
        if not (world.net.home / GENESIS).exists():
            _found(world, progress)
        begin(world.services.web)  # for three seconds it takes no request anyway
        _activate(world, progress)
        _make_wallets(world, missing, progress)
        for loop in loops:
            begin(loop)
        show_heads(world.deployment)  # while cold seats are up: a refill needs them
    progress("cold seats are stopped again")


def _contracts(net: Devnet, deployer: LocalAccount, progress: Callable[[str], None]) -> DevnetContracts:
    """Where Safe and the test tokens stand; deployed at the first start."""
    known = net.folder / "contracts.json"
    if known.exists():
        return DevnetContracts.from_json(json.loads(known.read_text(encoding="ascii")))
    progress("deploying Safe 1.4.1 and the test tokens")
    net.anvil.set_balance(deployer.address, 1000 * 10**18)
    contracts = deploy_all(EvmClient(net.anvil.url, EVM), deployer)
    fresh = known.with_suffix(".fresh")
    fresh.write_text(json.dumps(contracts.to_json(), indent=1) + "\n", encoding="ascii")
    fresh.replace(known)
    return contracts


def open_deployer(net: Devnet) -> LocalAccount:
    """The account that deploys and mints the test tokens; a devnet's toy, and nobody in the roster."""
    path = net.folder / "deployer.key"
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(Account.create().key.hex() + "\n", encoding="ascii")
    account: LocalAccount = Account.from_key(path.read_text(encoding="ascii").strip())
    return account


def _settings(net: Devnet, services: Services, contracts: DevnetContracts) -> None:
    """Write the bundle with the deployed tokens in it, and where everything is; ports may differ from the last run."""
    bundle = net.home / "policy"
    if not bundle.exists():
        fresh = net.home / "policy.fresh"
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.copytree(SHIPPED, fresh)
        text = (fresh / "assets.yaml").read_text(encoding="ascii")
        for shipped, deployed in zip(_TOKENS, (contracts.usd, contracts.silent_usd), strict=True):
            text = text.replace(shipped, deployed)
        (fresh / "assets.yaml").write_text(text, encoding="ascii")
        fresh.rename(bundle)
    nodes = {
        EVM.name: NodeSettings(net.anvil.url),
        BITCOIN.name: NodeSettings(net.bitcoind.url, str(net.bitcoind.cookie_file)),
    }
    Settings(
        home=net.home,
        database=f"sqlite:///{net.home / 'ledger.db'}",
        bundle=str(bundle),
        nodes=nodes,
        attestor_nodes={chain: (node,) for chain, node in nodes.items()},
        seats=_seats(net, services),
        attestor=PartSettings(str(services.attestor.socket), str(net.attestor.approle_file)),
        relayer=PartSettings(str(services.relayer.socket), str(net.relayer.approle_file)),
        safe_contracts={EVM.name: contracts.safe.to_json()},
    ).save()


def _seats(net: Devnet, services: Services) -> dict[str, PartSettings]:
    """Where each seat is asked: its engine's mount, or its process's socket."""
    hosted = {**services.hot, **services.cold}
    return {
        name: PartSettings(str(hosted[name].socket), str(server.approle_file))
        if name in hosted
        else PartSettings("", str(server.approle_file), MOUNT)
        for name, server in {**net.hot, **net.cold}.items()
    }


def _found(world: World, progress: Callable[[str], None]) -> None:
    """Identity keys, version 1, everybody's signature, genesis; then the bundle's activation by its owners."""
    net, cast = world.net, world.cast
    settings = Settings.load(net.home)
    seats, attestor, relayer = parts.seats(settings), parts.attestor(settings), parts.relayer(settings)
    identities: Mapping[str, Key] = {name: seat.identity() for name, seat in seats.items()}
    pays = "0x" + relayer.identity().public.hex()
    net.anvil.set_balance(pays, RELAYER_CAP // 2)
    chains = (EVM.name, BITCOIN.name)
    version = roster_version(cast, identities, attestor.identity(), pays, chains, RELAYER_CAP, wall_clock())
    everybody = (*cast.people, *cast.programs)
    signed = cast.sign(Domain(version.struct_hash), Signed(version, ()), everybody)
    machines: list[Part] = [*seats.values(), attestor, relayer]
    complete = machines_sign(signed, machines)
    roster = found(parts.ledger_before_birth(settings), complete, machines, wall_clock())
    (net.home / GENESIS).write_text(f"0x{roster.domain.genesis.hex()}\n", encoding="ascii")
    progress(
        f"genesis 0x{roster.domain.genesis.hex()}, signed by {len(complete.signatures)} keys, pinned by {len(machines)} parts"
    )


def _activate(world: World, progress: Callable[[str], None]) -> None:
    """The owners put the bundle in force, once, and every seat verifies that for itself; seats that did answer the same."""
    deployment = world.deployment
    lineage = deployment.lineage()
    if (
        len(lineage.steps) > 1
    ):  # the owners have put another in force since, and `bulkhead policy activate` hands that over
        return
    if not lineage.steps:
        first = deployment.first_bundle
        activation = PolicyActivation(first.hash, ZERO32, ZERO32, "gil", wall_clock())
        owners = world.cast.sign(deployment.roster.domain, Signed(activation, ()), POLICY_OWNERS[:3])
        deployment.store.run(lambda work: store_activation(work, owners, first, wall_clock()))
    step = deployment.lineage().newest
    for seat in parts.seats(deployment.settings).values():
        seat.admit_policy(step.signed, step.bundle.to_json())
    told = f"0x{step.bundle.hash.hex()} in force, signed by {', '.join(POLICY_OWNERS[:3])}, verified by every seat"
    progress(f"policy bundle {told}")


def _missing_wallets(world: World) -> tuple[Birth, ...]:
    if not (world.net.home / GENESIS).exists():
        return WALLETS
    made = {(line[0].message.label, line[0].message.chain) for line in world.deployment.wallets().values()}
    return tuple(wallet for wallet in WALLETS if (wallet[0], wallet[2].name) not in made)


def _make_wallets(world: World, missing: tuple[Birth, ...], progress: Callable[[str], None]) -> None:
    deployment, cast = world.deployment, world.cast
    for label, tier, chain, seats in missing:
        draft = draft_certificate(deployment, label, tier, chain, list(seats), 3)
        where = create_wallet(deployment, cast.sign(deployment.roster.domain, Signed(draft, ()), CERTIFIERS))
        progress(f"{label} on {chain}: 3 of 4, {where if chain.is_evm else 'wsh(sortedmulti(3,…))'}")
