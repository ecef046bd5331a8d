# SPDX-License-Identifier: AGPL-3.0-or-later
"""Whether an outside address may be enrolled: signed by an authority, spelled so that it can be paid, and nobody's but its owner's.

A seat verifies the signature and the owner again before it signs. What is refused here would never be paid; an authority hears it
when it enrols, and not a day later.
"""

from collections.abc import Iterator
from typing import Final

from custody.flows.kernel import Kernel
from custody.flows.ports import UnitOfWork
from custody.flows.routes import check_enrolment
from custody.rules.certificates import Enrolment
from custody.rules.errors import InvalidInput
from custody.rules.facts import Destination
from custody.rules.provenance import refusal_of
from custody.rules.refusals import Refusal, Rule
from custody.rules.signatures import Signed
from custody.rules.wallets import Address, Chain
from custody.rules.walls import COMPANY, CUSTOMER

_KINDS: Final = (Destination.CUSTOMER_WITHDRAWAL, Destination.ALLOW_LISTED)


def check_new(work: UnitOfWork, kernel: Kernel, signed: Signed[Enrolment], now: int) -> Iterator[Refusal]:
    """Every reason against recording an enrolment now.

    Refuses: no authority's signature; lapsed; an unknown chain; an address of another network, with a wrong checksum or in another
    spelling; one of our own wallets; an unknown kind, customer, or an owner whose kind it is not.
    """
    yield from check_enrolment(signed, kernel.roster, now)
    yield from _check_address(kernel, signed.message)
    yield from _check_owner(work, signed.message)


def _check_address(kernel: Kernel, message: Enrolment) -> Iterator[Refusal]:
    if message.chain not in kernel.roster.version.chains:
        want = ", ".join(kernel.roster.version.chains)
        yield Refusal(Rule.UNKNOWN_CHAIN, field="chain", got=message.chain, want=want)
        return
    try:
        address = Address.parse(Chain(message.chain), message.address)
    except InvalidInput as error:
        yield refusal_of(error)
        return
    if address.text != message.address:  # proposals name the one canonical spelling; another would never match
        yield Refusal(Rule.MALFORMED, field="address", got=message.address, want=address.text)
    own = kernel.inventory.wallet_of(address)
    if own is not None:
        yield Refusal(Rule.OWN_ADDRESS, field="address", to=address.text, wallet=own.name.hex())


def _check_owner(work: UnitOfWork, message: Enrolment) -> Iterator[Refusal]:
    if message.kind not in _KINDS:
        yield Refusal(Rule.MALFORMED, field="kind", got=message.kind, want=" or ".join(_KINDS))
        return
    if message.kind == Destination.ALLOW_LISTED:
        if message.owner != COMPANY:
            yield Refusal(Rule.OWNER_MISMATCH, field="owner", owner=message.owner, kind=message.kind, want=COMPANY)
        return
    if not message.owner.startswith(CUSTOMER):
        want = f"{CUSTOMER}ID"
        yield Refusal(Rule.OWNER_MISMATCH, field="owner", owner=message.owner, kind=message.kind, want=want)
    elif not work.customers.is_known(message.owner.removeprefix(CUSTOMER)):
        yield Refusal(Rule.UNKNOWN_CUSTOMER, field="owner", account=message.owner, want=f"{CUSTOMER}ID of a customer")
