# SPDX-License-Identifier: AGPL-3.0-or-later
"""Every wallet there is, and whose each address is: composed from certificates and attested bindings, never from a row.

"Internal" means derived from a certificate (TRUST.md). `Inventory` is a value; `InventoryReader` makes one from the mirror,
verifying every signature, and keeps what it has verified.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from custody.flows.mirror import CERTIFICATE, certificates_from
from custody.flows.ports import AddressDeriver, Branch, UnitOfWork
from custody.rules.certificates import DepositAddress, WalletCertificate
from custody.rules.ledger import Account, AccountKind
from custody.rules.payouts import CHANGE_WINDOW
from custody.rules.provenance import Holding
from custody.rules.refusals import Refusal, Refused, Rule, raise_if
from custody.rules.roster import Roster
from custody.rules.signatures import Signed
from custody.rules.typed import ZERO32
from custody.rules.wallets import Address, Chain, Tier

GAP: Final = {True: 5, False: 20}
"""Unbound receive indexes watched beyond the highest bound one: few on EVM (True), BIP-44's gap limit on Bitcoin (False)."""


@dataclass(frozen=True, slots=True)
class Wallet:
    """One wallet as its certificates have it, birth first. `place` is the Safe's address or the newest descriptor."""

    name: bytes
    certificates: tuple[Signed[WalletCertificate], ...]
    chain: Chain
    tier: Tier
    place: str
    bound: tuple[DepositAddress, ...]
    addresses: frozenset[Address]
    lowest_free: int
    """The lowest index that no binding uses, as the store counts it."""

    @property
    def certificate(self) -> WalletCertificate:
        """The newest certificate."""
        return self.certificates[-1].message

    @property
    def birth(self) -> int:
        """The height before which the wallet cannot hold coins."""
        return self.certificates[0].message.birth

    @property
    def next_index(self) -> int:
        """The index after the highest bound one."""
        return max((b.index + 1 for b in self.bound), default=0)

    @property
    def account(self) -> Account:
        """Its asset account in the ledger."""
        return Account(AccountKind.WALLET, self.name.hex())


class Inventory:
    """Wallets by name, and every watched address with its wallet and owner.

    Raises Refused: a certificate without its predecessor, a binding of a wallet that is not known or is operational, an
    address that its certificate does not derive, an index or an address twice.
    """

    def __init__(
        self,
        certificates: Sequence[Signed[WalletCertificate]],
        bindings: Sequence[Signed[DepositAddress]],
        derive: AddressDeriver,
    ) -> None:
        born = _successions(certificates)
        raise_if(_check_bindings([b.message for b in bindings], born, derive))
        bound: dict[bytes, list[DepositAddress]] = {name: [] for name in born}
        for binding in bindings:
            bound[binding.message.wallet].append(binding.message)
        self.wallets = {name: _wallet(name, line, tuple(bound[name]), derive) for name, line in born.items()}
        self._wallet_of = {address: wallet for wallet in self.wallets.values() for address in wallet.addresses}
        self._customer_of = {Address(w.chain, b.address): b.customer for w in self.wallets.values() for b in w.bound}

    def __iter__(self) -> Iterator[Wallet]:
        return iter(self.wallets.values())

    @property
    def tiers(self) -> dict[bytes, Tier]:
        """Each wallet's tier, by its name."""
        return {wallet.name: wallet.tier for wallet in self}

    def on(self, chain: Chain) -> tuple[Wallet, ...]:
        """The wallets of one chain."""
        return tuple(wallet for wallet in self if wallet.chain == chain)

    def wallet_of(self, address: Address) -> Wallet | None:
        """The wallet that an address derives from, or None where it is not ours."""
        return self._wallet_of.get(address)

    def customer_of(self, address: Address) -> str | None:
        """The customer that an attested binding names for an address, or None."""
        return self._customer_of.get(address)

    def owner_of(self, address: Address) -> Account:
        """Who is owed what arrives: the bound customer, else suspense; the company at its own wallets. Raises Refused."""
        wallet = self.wallet_of(address)
        if wallet is None:
            raise Refused(
                [Refusal(Rule.UNKNOWN_WALLET, address=str(address), want="an address derived from a certificate")]
            )
        if not wallet.tier.is_customer:
            return Account(AccountKind.COMPANY_EQUITY)
        customer = self.customer_of(address)
        return Account(AccountKind.CUSTOMER_AVAILABLE, customer) if customer else Account(AccountKind.SUSPENSE)

    def holding_of(self, address: Address) -> Holding | None:
        """Where an arrival is booked: the wallet that has it, and who is owed it. None for an address that is not ours."""
        wallet = self.wallet_of(address)
        return None if wallet is None else Holding(wallet.account, self.owner_of(address))

    def watched(self, chain: Chain) -> set[Address]:
        """Every address of one chain at which an arrival is ours to book."""
        return {address for wallet in self.on(chain) for address in wallet.addresses}

    def customer_addresses(self, chain: Chain) -> set[Address]:
        """Every address of customer-tier wallets on one chain: what backs customers' balances."""
        return {address for wallet in self.on(chain) if wallet.tier.is_customer for address in wallet.addresses}

    def is_current(self, work: UnitOfWork) -> bool:
        """Whether the store still has as many certificates and bindings as this was made from."""
        if len(work.documents.all(CERTIFICATE)) != sum(len(wallet.certificates) for wallet in self):
            return False
        return all(self.is_bound_as(work, wallet) for wallet in self)

    def is_bound_as(self, work: UnitOfWork, wallet: Wallet) -> bool:
        """Whether no address of a wallet was bound since; cheap enough for each commit.

        A watcher whose inventory is behind would book a customer's coins to suspense, so it asks inside its transaction.
        """
        return work.customers.next_index(wallet.name) == wallet.lowest_free


class InventoryReader:
    """Reads the mirror into an inventory, verifying each signature once: quorum on certificates, attestor on bindings."""

    def __init__(self, derive: AddressDeriver) -> None:
        self._derive = derive
        self._roster: Roster | None = None
        self._documents: Sequence[object] = ()
        self._certificates: tuple[Signed[WalletCertificate], ...] = ()
        self._verified: set[Signed[DepositAddress]] = set()
        self._inventory: Inventory | None = None

    def read(self, work: UnitOfWork, roster: Roster) -> Inventory:
        """The inventory as of this unit of work; the same object while nothing changed. Raises Refused, InvalidInput."""
        if self._roster is None or self._roster.version != roster.version:
            self._roster, self._documents, self._inventory = roster, (), None
            self._verified.clear()
        documents = work.documents.all(CERTIFICATE)
        if self._inventory is not None and documents == self._documents and self._inventory.is_current(work):
            return self._inventory
        lines = certificates_from(documents, roster)
        bindings = work.customers.addresses()
        fresh = [b for b in bindings if b not in self._verified]
        raise_if(refusal for b in fresh for refusal in check_binding(b, roster))
        self._inventory = Inventory([c for line in lines.values() for c in line], bindings, self._derive)
        self._documents = documents
        self._verified.update(fresh)
        return self._inventory


def check_binding(signed: Signed[DepositAddress], roster: Roster) -> Iterator[Refusal]:
    """Whether the roster's attestor signed exactly this binding in this deployment."""
    if roster.version.attestor not in signed.signers(roster.domain):
        binding = signed.message
        yield Refusal(Rule.SIGNATURE_INVALID, document="DepositAddress", customer=binding.customer, index=binding.index)


def _successions(
    certificates: Sequence[Signed[WalletCertificate]],
) -> dict[bytes, tuple[Signed[WalletCertificate], ...]]:
    following = {c.message.previous: c for c in certificates if c.message.previous != ZERO32}
    born: dict[bytes, tuple[Signed[WalletCertificate], ...]] = {}
    for birth in (c for c in certificates if c.message.previous == ZERO32):
        line, newest = [birth], birth.message.struct_hash
        while (successor := following.get(newest)) is not None and len(line) < len(certificates):
            line.append(successor)
            newest = successor.message.struct_hash
        born[birth.message.struct_hash] = tuple(line)
    placed = sum(len(line) for line in born.values())
    if placed != len(certificates):
        raise Refused(
            [Refusal(Rule.NOT_SUCCESSOR, certificates=len(certificates), placed=placed, want="one line per wallet")]
        )
    return born


def _check_bindings(
    bindings: Sequence[DepositAddress], born: dict[bytes, tuple[Signed[WalletCertificate], ...]], derive: AddressDeriver
) -> Iterator[Refusal]:
    taken: dict[tuple[bytes, int] | str, str] = {}
    for binding in bindings:
        line = born.get(binding.wallet)
        if line is None:
            yield Refusal(Rule.UNKNOWN_WALLET, wallet=binding.wallet.hex(), customer=binding.customer)
            continue
        yield from check_derived(binding, [c.message for c in line], derive)
        for key in ((binding.wallet, binding.index), f"{binding.chain}/{binding.address}"):
            if taken.setdefault(key, binding.customer) != binding.customer:
                yield Refusal(Rule.INDEX_BOUND, index=binding.index, customer=taken[key], other=binding.customer)


def check_derived(
    binding: DepositAddress, certificates: Sequence[WalletCertificate], derive: AddressDeriver
) -> Iterator[Refusal]:
    """A binding against its wallet's certificates: a customer tier, the wallet's chain, an address that one of them derives."""
    newest = certificates[-1]
    if not Tier(newest.tier).is_customer:
        yield Refusal(Rule.TIER_NOT_CUSTOMER, tier=newest.tier, customer=binding.customer)
    if binding.chain != newest.chain:
        yield Refusal(Rule.WRONG_NETWORK, got=binding.chain, want=newest.chain)
    derived = [derive.derive(certificate, Branch.RECEIVE, binding.index).text for certificate in reversed(certificates)]
    if binding.address not in derived:
        yield Refusal(Rule.ADDRESS_MISMATCH, index=binding.index, got=binding.address, want=derived[0])


def _wallet(
    name: bytes, line: tuple[Signed[WalletCertificate], ...], bound: tuple[DepositAddress, ...], derive: AddressDeriver
) -> Wallet:
    newest = line[-1].message
    chain = Chain(newest.chain)
    main = derive.main(newest)
    place = main.text if main else newest.script[0].descriptor
    used = {binding.index for binding in bound}
    free = next(index for index in range(len(used) + 1) if index not in used)
    wallet = Wallet(name, line, chain, Tier(newest.tier), place, bound, frozenset(), free)
    return replace(wallet, addresses=frozenset(_addresses(wallet, derive)))


def _addresses(wallet: Wallet, derive: AddressDeriver) -> Iterator[Address]:
    """The Safe, what is bound, a window beyond it, and the window of change; an old Bitcoin script stays watched after a rotation."""
    yield from (Address(wallet.chain, binding.address) for binding in wallet.bound)
    gap, first = GAP[wallet.chain.is_evm], wallet.next_index
    for signed in wallet.certificates:
        certificate = signed.message
        if (main := derive.main(certificate)) is not None:
            yield main
        if wallet.chain.is_evm and wallet.tier is not Tier.CUSTOMER_HOT:
            continue  # only the omnibus owns deposit Safes
        used = {binding.index for binding in wallet.bound}
        holes = {i for i in range(first) if i not in used} if first <= len(used) + gap else set()
        yield from (derive.derive(certificate, Branch.RECEIVE, i) for i in (*sorted(holes), *range(first, first + gap)))
        if not wallet.chain.is_evm:
            yield from (derive.derive(certificate, Branch.CHANGE, i) for i in range(CHANGE_WINDOW))
