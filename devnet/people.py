# SPDX-License-Identifier: AGPL-3.0-or-later
"""The people and programs of the devnet, each with a key file of their own, and the roster that names them."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

from custody.keyfiles import Ed25519Signer, Secp256k1Signer, Signer, make_keystore, make_pem, open_key
from custody.rules.passkeys import enrolled
from custody.rules.roster import ApiClient, Person, PriceFeeder, Relayer, RosterSeat, RosterVersion, Thresholds
from custody.rules.signatures import DISPLAYING, Key, Signed
from custody.rules.typed import ZERO32, Domain, Struct

M = TypeVar("M", bound=Struct)

PASSWORD: Final = "devnet"  # noqa: S105  # the devnet's key files protect nothing; a real one asks its owner
WEAK_SCRYPT: Final = 4096  # the library's default costs a second a key; these keys protect nothing

PEOPLE: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "ana": ("Ana Araujo", ("operations", "treasury")),
    "bo": ("Bo Berg", ("operations", "treasury", "operator")),
    "cleo": ("Cleo Conti", ("risk",)),
    "dan": ("Dan Dietrich", ("risk", "treasury")),
    "eve": ("Eve Eriksen", ("executive",)),
    "fay": ("Fay Fournier", ("board",)),
    "gil": ("Gil Garcia", ("finance", "finance_staff")),
    "hana": ("Hana Horvat", ("compliance",)),
}
SPARE: Final = ("ana",)
"""Who has a second key, as people with a spare hardware wallet do: two keys, and still one person."""
POLICY_OWNERS: Final = ("cleo", "dan", "eve", "fay", "ana")
"""Five, so that four are left to loosen a policy that one of them wrote."""
ADDRESS_AUTHORITIES: Final = ("hana",)
CLIENTS: Final[Mapping[str, tuple[tuple[str, ...], str]]] = {
    "backend": (("read", "propose"), "customer"),
    "matching": (("settle",), "system"),
    "auditor": (("read",), "system"),
    "rebalancer": (("propose",), "operator"),
}
FEEDERS: Final = ("feed-1", "feed-2")
ORGANISATIONS: Final = ("Alder Trust", "Birch Custody", "Cedar Vaults", "Bulkhead Operations")
_FAR: Final = 4_102_444_800  # 2100-01-01: the devnet's entries do not expire on anybody


@dataclass(frozen=True, slots=True)
class Cast:
    """Everybody's open key files."""

    people: Mapping[str, Secp256k1Signer]
    programs: Mapping[str, Ed25519Signer]
    spare: Mapping[str, Secp256k1Signer] = field(default_factory=dict)
    """Second keys, by person."""
    passkeys: Mapping[str, Key] = field(default_factory=dict)
    """By person: a passkey that somebody made at the console's page and left among the key files before genesis."""

    def keys(self, person: str) -> tuple[Key, ...]:
        """Every key of a person, the one they usually sign with first."""
        second, passkey = self.spare.get(person), self.passkeys.get(person)
        more = [] if second is None else [second.key]
        return (self.people[person].key, *more, *([] if passkey is None else [passkey]))

    def displays(self, person: str) -> tuple[bool, ...]:
        """Key by key, whether it shows what it signs."""
        return tuple(key.scheme in DISPLAYING for key in self.keys(person))

    def sign(self, domain: Domain, signed: Signed[M], names: Iterable[str]) -> Signed[M]:
        """The document with these people's or programs' signatures added."""
        signers: Mapping[str, Signer] = {**self.people, **self.programs}
        return signed.joined(signers[name].sign(domain.digest(signed.message)) for name in names)


def gather(folder: Path) -> Cast:
    """Open everybody's key file, made on first use; the password stands beside them, for the devnet only."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    (folder / "password").write_text(PASSWORD + "\n", encoding="ascii")
    people = {name: _person(folder / f"{name}.json") for name in PEOPLE}
    programs = {name: _program(folder / f"{name}.pem") for name in (*CLIENTS, *FEEDERS)}
    return Cast(people, programs, {name: _person(folder / f"{name}-2.json") for name in SPARE}, _passkeys(folder))


def _passkeys(folder: Path) -> Mapping[str, Key]:
    """What `passkey-NAME.json` files hold, each verified whole, as whoever signs a roster has to. Raises InvalidInput."""
    files = ((name, folder / f"passkey-{name}.json") for name in PEOPLE)
    made = {name: enrolled(json.loads(file.read_text(encoding="utf-8"))) for name, file in files if file.exists()}
    return {name: passkey.key for name, passkey in made.items() if passkey.person == name}


def open_feeders(folder: Path) -> Cast:
    """The price feeders' keys alone: whoever quotes has no business with anybody else's."""
    return Cast({}, {name: _program(folder / f"{name}.pem") for name in FEEDERS})


def _person(path: Path) -> Secp256k1Signer:
    if not path.exists():
        return make_keystore(path, PASSWORD, WEAK_SCRYPT)
    signer = open_key(path, PASSWORD)
    if not isinstance(signer, Secp256k1Signer):
        raise TypeError(f"{path.name} is no keystore")
    return signer


def _program(path: Path) -> Ed25519Signer:
    if not path.exists():
        return make_pem(path, PASSWORD)
    signer = open_key(path, PASSWORD)
    if not isinstance(signer, Ed25519Signer):
        raise TypeError(f"{path.name} is no Ed25519 key")
    return signer


def roster_version(
    cast: Cast, seats: Mapping[str, Key], attestor: Key, relayer: str, chains: tuple[str, ...], cap: int, now: int
) -> RosterVersion:
    """Version 1 of the devnet. `cap` is the relayer's, in wei; `chains` are CAIP-2 names, the EVM one first."""
    return RosterVersion(
        version=1,
        previous=ZERO32,
        chains=chains,
        clock="statement",
        people=tuple(
            Person(name, full, groups, cast.keys(name), cast.displays(name), _FAR)
            for name, (full, groups) in PEOPLE.items()
        ),
        clients=tuple(
            ApiClient(name, cast.programs[name].key, scopes, role, _FAR) for name, (scopes, role) in CLIENTS.items()
        ),
        address_authorities=ADDRESS_AUTHORITIES,
        policy_owners=POLICY_OWNERS,
        feeders=tuple(PriceFeeder(name, cast.programs[name].key) for name in FEEDERS),
        attestor=attestor,
        seats=tuple(
            RosterSeat(
                name,
                f"operator of {name}",
                ORGANISATIONS[(int(name[-1]) - 1) % len(ORGANISATIONS)],
                key,
                name.startswith("cold"),
            )
            for name, key in sorted(seats.items())
        ),
        relayers=(Relayer(chains[0], relayer, cap),),
        thresholds=Thresholds(roster=4, certificate=3, policy=3, manual_entry=2, void=2, unfreeze=3),
        delay=86_400,
        not_before=now,
    )
