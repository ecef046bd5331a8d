# SPDX-License-Identifier: AGPL-3.0-or-later
"""Whole seats with keys, journals and the shipped bundle: a born deployment that can be asked to sign, over vaults of the test's choice."""

import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from custody.rules.birth import SeatState
from custody.rules.certificates import SeatHead, WalletCertificate
from custody.rules.governance import PolicyActivation
from custody.rules.intents import Void
from custody.rules.payouts import void_safe_tx
from custody.rules.roster import RosterVersion
from custody.rules.seat_journal import SeatJournal
from custody.rules.seat_request import Request
from custody.rules.signatures import Signed
from custody.rules.statements import SeatPosition
from custody.rules.typed import ZERO32
from custody.rules.wallets import Tier
from custody.vault.keyring import RemoteSeat
from custody.vault.seat import SeatHost
from custody.vault.storage import Vault
from custody.vault.verbs import seat_handlers
from custody.wire import Stop, serve
from policies.bundle import Bundle
from tests.fakes import attacks, trust
from tests.fakes.seat import BITCOIN, COLD, EVM, HOT, NOW, Clock, FakeVault, seat_in_memory, secp256k1, signed_by
from tests.fakes.trust import Ask, Trusted, World
from tests.unit.shipped import open_shipped

LATER: Final = NOW + 1000
"""When requests are made: `Ask.now`."""


@cache
def shipped() -> Bundle:
    """The shipped bundle with two made-up tokens."""
    with tempfile.TemporaryDirectory() as folder:
        return open_shipped(Path(folder))


@dataclass
class Seated:
    """Eight seats that pinned, accepted every wallet of their kind, and put the shipped bundle in force."""

    hosts: Mapping[str, SeatHost]
    world: World
    clock: Clock
    _sequence: int = field(default=100)

    def activation(self, bundle: bytes, previous: bytes = ZERO32) -> Signed[PolicyActivation]:
        """An activation that the owners signed."""
        return _activation(self.world, bundle, previous)

    def positions(self) -> tuple[SeatPosition, ...]:
        """What an honest attestor knows of every seat."""
        heads: list[SeatHead] = [host.head().message for host in self.hosts.values()]
        return tuple(SeatPosition(head.seat, head.position, head.head) for head in heads)

    def ask(self, base: Request | None = None, **fields: Any) -> Request:
        """A request as `trust.Ask` describes it, under the shipped bundle, with a statement newer than every one before."""
        self._sequence += 1
        digest = shipped().hash
        said = {"policy": digest, "sequence": self._sequence, "seats": self.positions(), **fields.pop("statement", {})}
        intent = {"policy": digest, **fields.pop("intent", {})}
        return trust.build(Ask(statement=said, intent=intent, **fields), base).request

    def void(self, intents: tuple[bytes, ...], nonce: int = 7) -> Request:
        """The void of (hot Safe, nonce), signed by two people."""
        certificate = self.world.certificate(Tier.CUSTOMER_HOT, EVM)
        payload = void_safe_tx(EVM.name, certificate.safe[0].address, nonce)
        void = Void(trust.anchor_of(payload, certificate), intents)
        signed = signed_by(void, self.world.domain, [secp256k1("ana"), secp256k1("bo")])
        wallet = certificate.struct_hash
        statement = trust.statement_of(Ask(), (), void.anchor, SeatJournal(self.world.states["hot-1"]))
        return self.ask(Request(payload, wallet, statement, void=signed))


class _Watched:
    """A vault that remembers what was written to it, in order."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self.written: list[tuple[str, Mapping[str, object], int]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._vault, name)

    def write(self, path: str, data: Mapping[str, object], cas: int) -> None:
        """See `Vault`."""
        self._vault.write(path, data, cas)
        self.written.append((path, data, cas))


@dataclass(frozen=True)
class _Birth:
    """A birth to repeat: what each vault was given, write by write, and the world that came of it."""

    identities: Mapping[str, Ed25519PrivateKey]
    written: Mapping[str, Sequence[tuple[str, Mapping[str, object], int]]]
    version: RosterVersion
    certificates: Mapping[tuple[str, str], Signed[WalletCertificate]]
    states: Mapping[str, SeatState]


_BIRTHS: Final[dict[tuple[object, ...], _Birth]] = {}
"""By what a birth depends on. One takes half a second of signing and deriving, and most tests want the same one."""


def _activation(world: World, bundle: bytes, previous: bytes = ZERO32) -> Signed[PolicyActivation]:
    message = PolicyActivation(bundle, previous, ZERO32, "cy", NOW)
    return signed_by(message, world.domain, [secp256k1("ana"), secp256k1("bo")])


def _give_birth(vaults: Mapping[str, Vault], *, policy: bool, clock: str) -> _Birth:
    """Genesis, every wallet, and the bundle in force, over empty vaults."""
    watched = {name: _Watched(vault) for name, vault in vaults.items()}
    hosts = {name: seat_in_memory(name, vault, Clock()) for name, vault in watched.items()}
    deployment = Trusted(list(hosts.values()))
    deployment.version = replace(deployment.version, clock=clock)
    deployment.pinned()
    found = {}
    for tier in Tier:
        for chain in (EVM, BITCOIN):
            signed = deployment.people_sign(deployment.draft(f"{tier.value}/{chain}", tier, chain))
            found[tier.value, chain.name] = signed
            for name in COLD if tier is Tier.CUSTOMER_COLD else HOT:
                hosts[name].accept(signed)
    states = {n: SeatState.from_json((vaults[n].read("state")[0] or {})["state"]) for n in ("hot-1", "cold-1")}
    if policy:
        for host in hosts.values():
            host.admit_policy(_activation(World(deployment, found, states), shipped().hash), shipped().to_json())
    identities = {name: vault._identity for name, vault in vaults.items() if isinstance(vault, FakeVault)}
    written = {name: vault.written for name, vault in watched.items()}
    return _Birth(identities, written, deployment.version, found, states)


def _born(vaults: Mapping[str, Vault], *, policy: bool, clock: str) -> _Birth:
    """The vaults as they are after a birth: the first time by living through it, then write by write as it was."""
    real = tuple((name, v.identity_public()) for name, v in vaults.items() if not isinstance(v, FakeVault))
    key = (policy, clock, real)
    if key not in _BIRTHS:
        _BIRTHS[key] = _give_birth(vaults, policy=policy, clock=clock)
        return _BIRTHS[key]
    birth = _BIRTHS[key]
    for name, vault in vaults.items():
        if isinstance(vault, FakeVault):
            vault._identity = birth.identities[name]
        for write in birth.written[name]:
            vault.write(*write)
    return birth


@contextmanager
def seated(vaults: Mapping[str, Vault], *, policy: bool = True, clock: str = "wall") -> Iterator[Seated]:
    """A deployment over these empty vaults, the others in memory; while it lives, everything in `trust` speaks of it."""
    hand = Clock()
    all_vaults: dict[str, Vault] = {name: vaults.get(name) or FakeVault() for name in (*HOT, *COLD)}
    birth = _born(all_vaults, policy=policy, clock=clock)
    hosts = {name: seat_in_memory(name, vault, hand) for name, vault in all_vaults.items()}
    deployment = Trusted(list(hosts.values()))
    deployment.version = birth.version
    world = World(deployment, birth.certificates, birth.states)
    with pytest.MonkeyPatch.context() as patch:
        for module in (trust, attacks):
            patch.setattr(module, "world", lambda: world)
        hand.now = LATER
        yield Seated(hosts, world, hand)


def reopened(seat: SeatHost, vault: Vault, clock: Clock) -> SeatHost:
    """The seat in a new process: only what its vault has."""
    return seat_in_memory(seat.name, vault, clock)


@contextmanager
def by_wire(host: SeatHost) -> Iterator[RemoteSeat]:
    """A remote seat over a thread that serves a host."""
    stop, ready = Stop(), threading.Event()
    with tempfile.TemporaryDirectory(prefix="seat-") as folder:  # short: a socket's path has 107 bytes
        path = Path(folder) / "s"
        server = threading.Thread(target=serve, args=(path, seat_handlers(host), ready.set, stop))
        server.start()
        try:
            assert ready.wait(60)
            yield RemoteSeat(host.name, path)
        finally:
            stop.ring()
            server.join()
            stop.close()
