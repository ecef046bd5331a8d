# SPDX-License-Identifier: AGPL-3.0-or-later
"""Customers, and the one deposit address each has at a wallet: attested, and checked before anybody sees it (TRUST.md)."""

import re
from collections.abc import Iterator
from typing import Final

from custody.flows.inventory import GAP, Wallet, check_binding, check_derived
from custody.flows.ports import AddressBinder, AddressDeriver, Branch, Store, UnitOfWork
from custody.rules.certificates import DepositAddress
from custody.rules.errors import InvalidInput
from custody.rules.refusals import Refusal, Refused, Rule, raise_if
from custody.rules.roster import Roster
from custody.rules.signatures import Signed

_ID: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


def add_customer(store: Store, customer: str) -> None:
    """Record a customer. Raises InvalidInput (malformed id), Refused (already_exists)."""
    if _ID.fullmatch(customer) is None:
        want = "1 to 64 of a-z, 0-9, dot, underscore, hyphen; the first a letter or digit"
        raise InvalidInput("customer", Rule.MALFORMED, repr(customer[:80]), want)
    store.run(lambda work: work.customers.add(customer))


def issue_address(
    store: Store, attestor: AddressBinder, roster: Roster, wallet: Wallet, customer: str, derive: AddressDeriver
) -> Signed[DepositAddress]:
    """The customer's address at a wallet: the one there is, or the next index, bound by the attestor and checked here.

    On Bitcoin an address under older keys is not given out any more: what arrives there is credited, and the customer gets another.

    Safe to call again after a crash at any point: the attestor answers the same to the same question, and an index it has
    bound to somebody whose record was lost is left for that customer. Raises Refused, Unavailable.
    """
    known = store.read(lambda work: _standing(work, wallet, customer))
    if known is not None and not _is_older(known.message, wallet, derive):
        raise_if(_check_answer(known, known.message, roster, wallet, derive))
        return known
    signed = _bind_next(store, attestor, wallet, customer, derive)
    raise_if(_check_answer(*signed, roster, wallet, derive))
    return store.run(lambda work: _record(work, signed[0], wallet, derive))


def _is_older(known: DepositAddress, wallet: Wallet, derive: AddressDeriver) -> bool:
    """Whether a rotation left an address behind; on EVM they follow their wallet."""
    return derive.derive(wallet.certificate, Branch.RECEIVE, known.index).text != known.address


def _standing(work: UnitOfWork, wallet: Wallet, customer: str) -> Signed[DepositAddress] | None:
    if customer not in work.customers.ids():
        raise Refused([Refusal(Rule.UNKNOWN_CUSTOMER, customer=customer)])
    return work.customers.address_of(customer, wallet.name)


def _bind_next(
    store: Store, attestor: AddressBinder, wallet: Wallet, customer: str, derive: AddressDeriver
) -> tuple[Signed[DepositAddress], DepositAddress]:
    first = store.read(lambda work: work.customers.next_index(wallet.name))
    for index in range(first, first + GAP[wallet.chain.is_evm]):
        address = derive.derive(wallet.certificate, Branch.RECEIVE, index)
        asked = DepositAddress(wallet.name, wallet.chain.name, customer, index, address.text)
        try:
            return attestor.bind(asked), asked
        except Refused as refused:
            if {refusal.rule for refusal in refused.refusals} != {Rule.INDEX_BOUND}:
                raise
    raise Refused([Refusal(Rule.INDEX_BOUND, wallet=wallet.name.hex(), first=first, tried=GAP[wallet.chain.is_evm])])


def _check_answer(
    signed: Signed[DepositAddress], asked: DepositAddress, roster: Roster, wallet: Wallet, derive: AddressDeriver
) -> Iterator[Refusal]:
    """What comes back is what was asked, under the attestor's key, and derives from the certificate here as well."""
    if signed.message != asked:
        yield Refusal(Rule.ADDRESS_MISMATCH, got=str(signed.message), want=str(asked))
    yield from check_binding(signed, roster)
    yield from check_derived(signed.message, [c.message for c in wallet.certificates], derive)


def _record(
    work: UnitOfWork, signed: Signed[DepositAddress], wallet: Wallet, derive: AddressDeriver
) -> Signed[DepositAddress]:
    """Record it, unless another process was faster with the same customer; then theirs stands."""
    theirs = work.customers.address_of(signed.message.customer, signed.message.wallet)
    if theirs is not None and not _is_older(theirs.message, wallet, derive):
        return theirs
    work.customers.add_address(signed, 0 if wallet.chain.is_evm else len(wallet.certificates) - 1)
    return signed
