# SPDX-License-Identifier: AGPL-3.0-or-later
"""Customers, what they are owed, and their deposit addresses."""

from fastapi import APIRouter

from api import cursors
from api.documents import address_out, balances
from api.problems import Absent
from api.routes.common import Json, Parts, Proposer, Reader
from api.schemas import AddressIn, CustomerIn
from custody.flows.customers import add_customer, issue_address
from custody.flows.inventory import check_binding, check_derived
from custody.flows.ports import UnitOfWork
from custody.rules.errors import InvalidInput
from custody.rules.refusals import Refusal, Rule, raise_if
from custody.rules.wallets import Chain, Tier

router = APIRouter(prefix="/v1/customers", tags=["customers"])


@router.post("", status_code=201)
def post_customer(body: CustomerIn, parts: Parts, _caller: Proposer) -> Json:
    """Record a customer. It owns nothing until coins of theirs are final on a chain."""
    add_customer(parts.store, body.id)
    return {"id": body.id}


@router.get("")
def get_customers(
    parts: Parts, _caller: Reader, limit: cursors.Limit = cursors.PAGE, cursor: cursors.Cursor = None
) -> Json:
    """Customers by id, with balances."""
    after, assets = cursors.read("customers", cursor), parts.kernel().assets

    def read(work: UnitOfWork) -> Json:
        ids = sorted(customer for customer in work.customers.ids() if after is None or customer > after)
        page, more = ids[:limit], len(ids) > limit
        items = [{"id": customer, "balances": balances(work, customer, assets)} for customer in page]
        return {"items": items, "next_cursor": cursors.make("customers", page[-1]) if more else None}

    return parts.store.read(read)


@router.get("/{customer}")
def get_customer(customer: str, parts: Parts, _caller: Reader) -> Json:
    """One customer with balances."""
    assets = parts.kernel().assets

    def read(work: UnitOfWork) -> Json:
        _check_known(work, customer)
        return {"id": customer, "balances": balances(work, customer, assets)}

    return parts.store.read(read)


@router.get("/{customer}/addresses")
def get_addresses(customer: str, parts: Parts, _caller: Reader) -> Json:
    """Deposit addresses as the attestor signed them, each verified and derived again from its wallet's certificate here."""
    kernel = parts.kernel()

    def read(work: UnitOfWork) -> Json:
        _check_known(work, customer)
        items = []
        for wallet in kernel.inventory:
            signed = work.customers.address_of(customer, wallet.name)
            if signed is not None:
                raise_if(check_binding(signed, kernel.roster))
                raise_if(check_derived(signed.message, [c.message for c in wallet.certificates], kernel.derive))
                items.append(address_out(signed))
        return {"items": items}

    return parts.store.read(read)


@router.post("/{customer}/addresses", status_code=201)
def post_address(customer: str, body: AddressIn, parts: Parts, _caller: Proposer) -> Json:
    """The customer's address at the chain's hot wallet: the one there is, or the next, bound by the attestor for ever."""
    parts.store.read(lambda work: _check_known(work, customer))
    kernel = parts.kernel()
    wallets = kernel.wallets(Chain(body.chain), Tier.CUSTOMER_HOT)
    if len(wallets) != 1:
        raise InvalidInput("chain", Rule.UNKNOWN_WALLET, f"{len(wallets)} hot wallets on {body.chain}", "exactly one")
    signed = issue_address(parts.store, parts.attestor, kernel.roster, wallets[0], customer, kernel.derive)
    return address_out(signed)


def _check_known(work: UnitOfWork, customer: str) -> None:
    if not work.customers.is_known(customer):
        raise Absent([Refusal(Rule.UNKNOWN_CUSTOMER, customer=customer[:80])])
