# SPDX-License-Identifier: AGPL-3.0-or-later
"""Where a proposal's coins would come from and go to: one wallet of ours, and an enrolled address or another wallet of ours.

"Internal" means derived from a certificate, never a row; an enrolment is worth what its authority's signature is.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from custody.flows.inventory import Wallet
from custody.flows.kernel import Kernel
from custody.flows.ports import Branch, Enrolled, UnitOfWork
from custody.rules.amounts import Asset
from custody.rules.certificates import Enrolment
from custody.rules.errors import InvalidInput
from custody.rules.facts import Destination, Owner, Purpose
from custody.rules.intents import Proposal
from custody.rules.payments import Derived
from custody.rules.payouts import CHANGE_WINDOW
from custody.rules.provenance import refusal_of
from custody.rules.refusals import Refusal, Refused, Rule, raise_if
from custody.rules.roster import Roster
from custody.rules.signatures import Signed
from custody.rules.typed import ZERO32
from custody.rules.wallets import Address, Chain, Tier
from custody.rules.walls import COMPANY, CUSTOMER, check_walls, way_of

_KIND = {Purpose.WITHDRAWAL: Destination.CUSTOMER_WITHDRAWAL, Purpose.VENDOR_PAYMENT: Destination.ALLOW_LISTED}


@dataclass(frozen=True, slots=True)
class Route:
    """A way that exists. `to` is the wallet of ours that is paid, else `enrolled` the enrolment of the address outside."""

    asset: Asset
    source: Wallet
    destination: Address
    purpose: Purpose
    account: str
    to: Wallet | None
    derived: Derived | None
    enrolled: Enrolled | None

    @property
    def kind(self) -> Destination:
        """What kind of place it is."""
        return _KIND[self.purpose] if self.to is None else Destination.INTERNAL_WALLET

    @property
    def enrolment(self) -> bytes:
        """The enrolment's hash, as an intent pins it; zero for a wallet of ours."""
        return ZERO32 if self.enrolled is None else self.enrolled.enrolment.message.struct_hash

    @property
    def owner(self) -> Owner:
        """Whose the destination is, for policy."""
        if self.to is not None:
            return Owner.CUSTOMERS if self.to.tier.is_customer else Owner.COMPANY
        if self.enrolled is None:
            return Owner.NOBODY
        owner = self.enrolled.enrolment.message.owner
        if owner == COMPANY:
            return Owner.COMPANY
        return Owner.THE_CUSTOMER if owner == self.account else Owner.ANOTHER_CUSTOMER


def find_route(work: UnitOfWork, kernel: Kernel, proposal: Proposal, now: int, pinned: bytes = b"") -> Route:
    """The way of a proposal, or Refused with every reason; `pinned` asks for the very enrolment that an intent names.

    Refuses: unknown chain, asset, account, purpose; dust; a malformed or foreign address; an own address; an address that nobody
    enrolled, whose enrolment lapsed, or that is another's; every way that law 1 does not know.
    """
    asset, destination, purpose = _read(kernel, proposal)
    raise_if(_check_account(work, proposal.account))
    to = kernel.inventory.wallet_of(destination)
    way = way_of(purpose, to.tier if to is not None else None)
    if way is None:
        raise_if(_no_way(proposal, purpose, to))
        raise AssertionError("unreachable")
    raise_if(check_walls(way.source, to.tier if to is not None else None, proposal.account, proposal.purpose))
    sources = kernel.wallets(asset.chain, way.source)
    if len(sources) != 1:
        raise Refused([Refusal(Rule.UNKNOWN_WALLET, tier=way.source, chain=proposal.chain, wallets=len(sources))])
    if to is not None:
        derived = derived_place(kernel, to, destination)
        if derived is None or to.name == sources[0].name:
            raise Refused(
                [Refusal(Rule.OWN_ADDRESS, to=destination.text, want="a Safe or a change address of another wallet")]
            )
        return Route(asset, sources[0], destination, purpose, proposal.account, to, derived, None)
    enrolled = _enrolled(work, kernel, proposal, purpose, now, pinned)
    return Route(asset, sources[0], destination, purpose, proposal.account, None, None, enrolled)


def _read(kernel: Kernel, proposal: Proposal) -> tuple[Asset, Address, Purpose]:
    """Parse once, at the edge; whatever cannot be read is a refusal."""
    try:
        chain = Chain(proposal.chain)
        asset = kernel.assets.get(proposal.asset)
        destination = Address.parse(chain, proposal.destination, "destination")
    except InvalidInput as error:
        raise Refused([refusal_of(error)]) from error
    found: list[Refusal] = []
    if asset.chain != chain:
        found.append(Refusal(Rule.WRONG_NETWORK, asset=asset.symbol, got=chain.name, want=asset.chain.name))
    if destination.text != proposal.destination:  # what people approve is the one canonical spelling
        found.append(Refusal(Rule.MALFORMED, field="destination", got=proposal.destination, want=destination.text))
    if proposal.purpose not in set(Purpose):
        found.append(Refusal(Rule.MALFORMED, field="purpose", got=proposal.purpose, want=", ".join(Purpose)))
    if proposal.amount < 1:
        found.append(Refusal(Rule.NOT_POSITIVE, field="amount", got=proposal.amount, want="more than zero"))
    elif proposal.amount < asset.dust:
        found.append(Refusal(Rule.DUST, asset=asset.symbol, units=proposal.amount, least=asset.dust))
    raise_if(found)
    return asset, destination, Purpose(proposal.purpose)


def _check_account(work: UnitOfWork, account: str) -> Iterator[Refusal]:
    if account == COMPANY:
        return
    if not account.startswith(CUSTOMER) or not work.customers.is_known(account.removeprefix(CUSTOMER)):
        yield Refusal(Rule.UNKNOWN_CUSTOMER, account=account, want=f"{COMPANY} or {CUSTOMER}ID of a customer")


def _no_way(proposal: Proposal, purpose: Purpose, to: Wallet | None) -> Iterator[Refusal]:
    told = {"purpose": purpose.value, "account": proposal.account, "to_tier": to.tier if to is not None else None}
    if to is not None and purpose in _KIND:
        yield Refusal(Rule.OWN_ADDRESS, to=proposal.destination, wallet=to.name.hex())
    yield Refusal(Rule.WALL, **told, want="a way that law 1 knows")


def derived_place(kernel: Kernel, wallet: Wallet, destination: Address) -> Derived | None:
    """Where a wallet's newest certificate derives a destination that is nobody's but the wallet's: the Safe, or a change address.

    A receive index belongs to whom the attestor bound it: coins that arrive there would be credited to that customer.
    """
    certificate = wallet.certificate
    if wallet.chain.is_evm:
        return Derived(certificate) if kernel.derive.main(certificate) == destination else None
    for index in range(CHANGE_WINDOW):
        if kernel.derive.derive(certificate, Branch.CHANGE, index) == destination:
            return Derived(certificate, Branch.CHANGE.value, index)
    return None


def _enrolled(
    work: UnitOfWork, kernel: Kernel, proposal: Proposal, purpose: Purpose, now: int, pinned: bytes
) -> Enrolled:
    """The newest enrolment in force of this address for this account and purpose, or every reason why there is none."""
    kind, found = _KIND[purpose], work.enrolments.at(proposal.chain, proposal.destination)
    if pinned:
        found = [enrolled for enrolled in found if enrolled.enrolment.message.struct_hash == pinned]
    refusals: list[Refusal] = []
    for enrolled in found:
        message = enrolled.enrolment.message
        against = [*check_enrolment(enrolled.enrolment, kernel.roster, now)]
        if message.owner != proposal.account:
            against.append(Refusal(Rule.OWNER_MISMATCH, owner=message.owner, account=proposal.account))
        if message.kind != kind:
            against.append(Refusal(Rule.ENROLMENT, to=message.address, enrolled=message.kind, want=kind.value))
        if not against:
            return enrolled
        refusals += against
    raise Refused(refusals or [Refusal(Rule.ENROLMENT, to=proposal.destination, want="an address that was enrolled")])


def check_enrolment(signed: Signed[Enrolment], roster: Roster, now: int) -> Iterator[Refusal]:
    """An address authority of this version signed it, and it has not lapsed."""
    authorities = frozenset(roster.version.address_authorities)
    if not roster.people_who_signed(signed, now) & authorities:
        yield Refusal(Rule.SIGNATURE_INVALID, document="Enrolment", to=signed.message.address, want=sorted(authorities))
    if signed.message.expiry <= now:
        yield Refusal(Rule.EXPIRED, document="Enrolment", expired=signed.message.expiry, now=now)


def tier_of(wallet: Wallet | None) -> Tier | None:
    """A wallet's tier; None for no wallet of ours."""
    return None if wallet is None else wallet.tier
