# SPDX-License-Identifier: AGPL-3.0-or-later
"""A deployment behind the real console: truly signed roster, certificates and shipped rules, SQLite, and people with two keys each.

Everybody has a keystore key, which displays, and a passkey named for the console's own origin. Only the chains and the attestor's
word are made up; whatever the pages show or take goes through the flows that serve every deployment.
"""

import secrets
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import uvicorn
from eth_utils.address import to_checksum_address
from fastapi import FastAPI

from api.console.app import create_console
from api.console.parts import ConsoleParts
from api.deriving import Draft, draft_from
from api.parts import ApiParts
from custody.chains.addresses import ChainDeriver
from custody.commands.deriver import deriver_handlers
from custody.flows import freezes, gathering, proposals
from custody.flows.freezes import FreezeReader
from custody.flows.inventory import Wallet
from custody.flows.kernel import Kernel
from custody.flows.ports import UnitOfWork
from custody.governing import in_force, store_activation
from custody.rules.amounts import Amount, Asset, Assets
from custody.rules.approvals import Approval
from custody.rules.errors import Unavailable
from custody.rules.governance import Freeze, Unfreeze
from custody.rules.intents import Proposal, Rejection
from custody.rules.ledger import Account, AccountKind
from custody.rules.passkeys import PASSKEY, Passkey
from custody.rules.payments import UnsignedPayout
from custody.rules.roster import Person, Roster
from custody.rules.seat_request import Policies
from custody.rules.signatures import Signed
from custody.rules.statements import Statement
from custody.rules.transfers import Status, Transfer
from custody.rules.wallets import Tier
from custody.store import migrate, open_store
from tests.fakes import treasury
from tests.fakes.authenticator import Authenticator
from tests.fakes.governed import activation
from tests.fakes.seat import BITCOIN, EVM, NOW, YEAR, Clock, ed25519, secp256k1, signed_by
from tests.fakes.seated import shipped
from tests.fakes.trust import PAYEE, world

PEOPLE: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "ana": ("Ana Araujo", ("operations", "treasury")),
    "bo": ("Bo <b onclick=alert(1)>Berg</b>", ("operations", "treasury", "operator")),
    "cleo": ("Cleo Conti", ("risk",)),
    "dan": ("Dan Dietrich", ("risk", "treasury")),
    "eve": ("Eve Eriksen", ("executive",)),
    "gil": ("Gil Garcia", ("finance", "finance_staff")),
    "hana": ("Hana Horvat", ("compliance",)),
    "vic": ("Vic Vidal", ("viewer",)),
    "max": ("Max Meier", ("auditor",)),
}
DAY: Final = 86_400
NASTY: Final = (
    '<img src=x onerror="document.body.dataset.pwned=1"><script>document.body.dataset.pwned=1</script>&\u202e"\''
)
"""What somebody might call an order, a customer or a reason."""


class Attestor:
    """Signs statements over made-up totals that cover everything."""

    def __init__(self, desk: "World") -> None:
        self._desk = desk
        self.silent = False

    def bind(self, request: Any) -> Any:
        """See `AddressBinder`."""
        return signed_by(request, world().domain, [ed25519("attestor")])

    def latest(self) -> Signed[Statement]:
        """See `StatementDesk`."""
        if self.silent:
            raise Unavailable("attestor", "does not answer")
        return treasury.statement(self._desk.clock(), policy=shipped().hash)

    def numbered(self, sequence: int) -> Signed[Statement] | None:
        """See `StatementDesk`."""
        return None


@dataclass
class World:
    """The deployment, and the console over it on a port of its own."""

    folder: Path
    port: int
    clock: Clock = field(default_factory=Clock)
    wall: Clock = field(default_factory=Clock)
    earlier: tuple[Roster, ...] = ()
    """Versions between the first and the newest."""
    _number: int = 0
    _turn: Any = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        url = f"sqlite:///{self.folder / 'ledger.db'}"
        migrate(url)
        self.store = open_store(url, self.assets)
        self.attestor = Attestor(self)
        self.freezes = FreezeReader()
        self.store.run(self._furnish)
        self.parts = ApiParts(
            self.store,
            lambda: self.roster,
            lambda: self.kernel,
            self.attestor,
            self.attestor,
            self.wall,
            self.clock,
            secrets.token_bytes,
            NOW - 10,
        )
        self.console = ConsoleParts(self.parts, self.origin, decode)
        self.app = create_console(self.console, strangers=10_000)

    @property
    def origin(self) -> str:
        """Where browsers find it, and what its passkeys are named for."""
        return f"http://localhost:{self.port}"

    @property
    def url(self) -> str:
        """Where it listens."""
        return self.origin

    @cached_property
    def assets(self) -> Assets:
        """The shipped registry."""
        return shipped().assets

    @cached_property
    def passkeys(self) -> Mapping[str, Authenticator]:
        """Everybody's passkey."""
        return {name: Authenticator(f"{name}'s passkey", self.origin) for name in PEOPLE}

    @cached_property
    def roster(self) -> Roster:
        """Version 2, which gave everybody a passkey, signed by everybody of version 1."""
        first = treasury.roster()
        people = tuple(
            Person(name, full, groups, (secp256k1(name).key, self.passkeys[name].key), (True, False), NOW + YEAR)
            for name, (full, groups) in PEOPLE.items()
        )
        version = replace(
            first.version,
            version=2,
            previous=first.version.struct_hash,
            people=people,
            address_authorities=("hana",),
            policy_owners=("ana", "cleo", "dan", "eve"),
            thresholds=replace(first.version.thresholds, unfreeze=2),
            delay=3600,
        )
        return Roster(
            signed_by(version, world().domain, [secp256k1(name) for name in PEOPLE]), first.domain.genesis, (first,)
        )

    def replace_passkey(self, person: str) -> None:
        """The next roster version: this person has another passkey, and the old one is gone."""
        old, made = self.roster, Authenticator(f"{person}'s next passkey", self.origin)
        people = tuple(replace(p, keys=(p.keys[0], made.key)) if p.id == person else p for p in old.version.people)
        version = replace(old.version, version=3, previous=old.version.struct_hash, people=people)
        signed = signed_by(version, world().domain, [secp256k1(name) for name in PEOPLE])
        self.earlier, self.passkeys = (old,), {**self.passkeys, person: made}
        self.roster = Roster(signed, old.domain.genesis, (treasury.roster(), old))
        held = Passkey(person, made.key, made.credential_id, ("internal",))
        self.store.run(lambda work: work.documents.put(PASSKEY, str(held.key), held.to_json()))

    @cached_property
    def policies(self) -> Policies:
        """The shipped bundle in force."""
        return Policies(in_force(shipped()), {})

    @property
    def kernel(self) -> Kernel:
        """What transfers are judged by: the shipped bundle, and the freezes that hold."""
        known = self.store.read(lambda work: self.freezes.read(work, self.roster, self.clock()))
        base = treasury.kernel(policies=self.policies)
        return replace(
            base,
            rosters=(treasury.roster(), *self.earlier, self.roster),
            freezes=known,
            frozen_by=self.freezes.people,
        )

    def asset(self, symbol: str) -> Asset:
        """One asset."""
        return self.assets.get(symbol)

    def _furnish(self, work: UnitOfWork) -> None:
        first = activation(shipped(), None, ("ana", "cleo", "dan"), author="bo")
        store_activation(work, first, shipped(), NOW - 2 * DAY)
        ada = Account(AccountKind.CUSTOMER_AVAILABLE, "ada")
        work.customers.add("ada")
        work.customers.add("bo")
        eth, btc = self.asset("ETH"), self.asset("BTC")
        for height, (asset, units, tier) in enumerate(
            (
                (eth, 10_000 * 10**18, "customer_hot"),
                (btc, 100 * 10**8, "customer_hot"),
                (eth, 90_000 * 10**18, "customer_cold"),
            ),
            1,
        ):
            work.journal.append(treasury.deposit(asset, units, ada, Tier(tier), height), NOW - 2 * DAY)
        for chain in (EVM, BITCOIN):
            said = treasury.enrolment(chain).message
            work.enrolments.add(signed_by(said, world().domain, [secp256k1("hana")]), NOW - 2 * DAY)
        for name, authenticator in self.passkeys.items():
            held = Passkey(name, authenticator.key, authenticator.credential_id, ("internal",))
            work.documents.put(PASSKEY, str(held.key), held.to_json())

    def propose(self, amount: str = "20", asset: str = "ETH", by: Any = None, **changes: Any) -> Transfer:
        """A customer of their own asks for some of theirs, by the trading backend: no test fills another's windows."""
        with self._turn:
            self._number += 1
            number = self._number
        customer = f"c{number}"
        moved = Amount.parse(self.asset(asset), amount)
        chain = moved.asset.chain
        to = _address(number) if chain.is_evm else PAYEE[chain.name]
        self.store.run(lambda work: self._welcome(work, customer, moved, to, number))
        said = Proposal(
            **{
                "reference": f"order {number}",
                "account": f"customer:{customer}",
                "chain": chain.name,
                "asset": asset,
                "amount": moved.units,
                "destination": to,
                "purpose": "withdrawal",
                "expiry": self.clock() + 20 * DAY,
                **changes,
            }
        )
        signed = signed_by(said, world().domain, [by or ed25519("backend")])
        entropy = number.to_bytes(10)
        return proposals.propose(self.store, self.kernel, signed, f"k{number}", self.clock(), entropy)

    def crowd(self, count: int) -> None:
        """So many proposals."""
        for _ in range(count):
            self.propose("20")

    def _welcome(self, work: UnitOfWork, customer: str, moved: Amount, to: str, number: int) -> None:
        work.customers.add(customer)
        owner = Account(AccountKind.CUSTOMER_AVAILABLE, customer)
        entry = treasury.deposit(moved.asset, 2 * moved.units, owner, Tier.CUSTOMER_HOT, 100 + number)
        work.journal.append(entry, NOW - 2 * DAY)
        said = treasury.enrolment(moved.asset.chain, owner=f"customer:{customer}", address=to).message
        work.enrolments.add(signed_by(said, world().domain, [secp256k1("hana")]), NOW - 2 * DAY)

    def propose_as(self, person: str, amount: str, **changes: Any) -> Transfer:
        """A person of operations asks for ada."""
        return self.propose(amount, by=secp256k1(person), **changes)

    def reject(self, transfer: Transfer, person: str) -> Transfer:
        """Somebody's no, by keystore."""
        signed = signed_by(Rejection(transfer.digest, "no"), world().domain, [secp256k1(person)])
        return proposals.reject(self.store, self.kernel, signed, self.clock())

    def freeze(self, scope: str, person: str) -> Signed[Freeze]:
        """One person's freeze, by keystore."""
        message = Freeze(scope, f"{person} looks at it", self.clock(), self.clock() + 6 * 3600)
        signed = signed_by(message, world().domain, [secp256k1(person)])
        freezes.freeze(self.store, self.kernel, signed, self.clock())
        return signed

    def thaw(self) -> None:
        """Everything that is frozen is ended by two people, after the delay."""
        running = self.kernel.freezes
        self.clock.now += 3601
        for frozen in running:
            message = Unfreeze(frozen.struct_hash, "looked at", frozen.from_time + 3600)
            signed = signed_by(message, world().domain, [secp256k1("ana"), secp256k1("cleo")])
            freezes.unfreeze(self.store, self.kernel, signed, self.clock())

    def approve_by_keystore(self, transfer: Transfer, person: str) -> Transfer:
        """As `bulkhead approve` does, with a key that displays."""
        approval = Approval(transfer.digest, person, secp256k1(person).sign(transfer.digest))
        return proposals.approve(self.store, self.kernel, approval, self.clock())

    def approve_by_passkey(self, transfer: Transfer, person: str) -> Transfer:
        """A yes that some page gathered."""
        approval = Approval(transfer.digest, person, self.passkeys[person].over(transfer.digest))
        return proposals.approve(self.store, self.kernel, approval, self.clock())

    def draft_unfreeze(self, frozen: Signed[Freeze]) -> bytes:
        """A draft that nobody signed yet."""
        message = Unfreeze(frozen.message.struct_hash, "looked at", frozen.message.from_time + 3600)
        return gathering.draft(self.store, self.roster, message, "ana", self.clock())

    def under_way(self) -> list[object]:
        """Every transfer that is not at its end."""
        statuses = [status for status in Status if not status.is_final]
        return self.store.read(lambda work: [*work.transfers.examine(0, 1000, statuses=statuses)])

    def get(self, transfer: Transfer) -> Transfer:
        """As it stands."""
        found = self.store.read(lambda work: work.transfers.get(transfer.digest))
        assert found is not None
        return found

    def approvals(self, transfer: Transfer) -> Sequence[Approval]:
        """Every yes."""
        return self.store.read(lambda work: work.transfers.approvals(transfer.digest))


def _address(number: int) -> str:
    """An address outside."""
    return str(to_checksum_address("0x" + "c0" * 18 + number.to_bytes(2).hex()))


def decode(unsigned: UnsignedPayout, wallet: Wallet, others: Sequence[Wallet], assets: Assets) -> Draft:
    """The deriver's own verb, in this process."""
    verb = deriver_handlers(ChainDeriver())["decode"]
    rows = [[a.symbol, a.chain.name, a.kind.value, str(a.decimals), a.contract and a.contract.text] for a in assets]
    line = [signed.message.to_json() for each in (wallet, *others) for signed in reversed(each.certificates)]
    return draft_from(
        verb({"unsigned": unsigned.to_json(), "wallet": wallet.name.hex(), "certificates": line, "assets": rows})
    )


class Served(Protocol):
    """An application and its port."""

    app: FastAPI
    port: int


S = TypeVar("S", bound=Served)


@contextmanager
def serving(made: S) -> Iterator[S]:
    """The console under uvicorn on its port."""
    config = uvicorn.Config(
        made.app, host="127.0.0.1", port=made.port, log_level="critical", ws="none", proxy_headers=False
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield made
    finally:
        server.should_exit = True
        thread.join(60)
