# SPDX-License-Identifier: AGPL-3.0-or-later
"""Something on every page: transfers at each stage, deposits of each status, coins in suspense, drafts, freezes, statements over days."""

from dataclasses import replace

from custody.flows import gathering
from custody.flows.mirror import BUNDLE
from custody.flows.ports import UnitOfWork
from custody.rules.amounts import Amount
from custody.rules.deposits import BlockRef, DepositStatus, Sighting
from custody.rules.ledger import Account, AccountKind, credit_deposit
from custody.rules.origins import NativeProof
from custody.rules.settlements import ManualEntry, ManualPosting
from custody.rules.wallets import Address, Chain, Tier
from tests.console.world import DAY, World
from tests.fakes import treasury
from tests.fakes.governed import activation, after, rule
from tests.fakes.ledger import block_hash
from tests.fakes.seat import EVM, NOW, ed25519, signed_by
from tests.fakes.seated import shipped
from tests.fakes.trust import world as trusted

PLACES = tuple("0x" + f"{n:02x}" * 20 for n in (0x11, 0x12, 0x13))


def furnish(world: World) -> dict[str, str]:
    """Everything; the pages of single things by name."""
    waiting, ended, large = world.propose("20"), world.propose("19"), world.propose("400")
    world.reject(ended, "cleo")
    world.propose("0.4", "BTC")
    world.approve_by_keystore(large, "dan")
    frozen = world.freeze("customer:ada", "eve")
    unfreeze = world.draft_unfreeze(frozen)
    world.store.run(lambda work: _deposits(world, work))
    world.store.run(_statements)
    manual, coming = draft_out_of_suspense(world), draft_bundle(world)
    return {
        "transfer": f"/transfers/{waiting.intent.id}",
        "transfer-ended": f"/transfers/{ended.intent.id}",
        "transfer-large": f"/transfers/{large.intent.id}",
        "unfreeze": f"/unfreeze/{unfreeze.hex()}",
        "suspense": "/ledger/suspense",
        "manual": f"/ledger/manual/{manual.hex()}",
        "activation": f"/policies/{coming.hex()}",
        "entry": "/ledger/1",
        "statement": "/ledger/customers/ada",
    }


def draft_out_of_suspense(world: World, customer: str = "ada") -> bytes:
    """One event's coins, half of them, to a customer; nobody signed yet."""
    events = world.store.read(lambda work: work.listing.balances(AccountKind.SUSPENSE, 1))
    if not events:
        world.store.run(lambda work: _stray(world, work))
        events = world.store.read(lambda work: work.listing.balances(AccountKind.SUSPENSE, 1))
    account, asset, units = events[0]
    postings = (
        ManualPosting(str(account), asset.symbol, "debit", units // 2),
        ManualPosting(f"customer_available:{customer}", asset.symbol, "credit", units // 2),
    )
    message = ManualEntry("from-suspense-1", "Ada named the transaction, and signed from its sender", postings)
    return gathering.draft(world.store, world.roster, message, "bo", world.clock())


def draft_bundle(world: World) -> bytes:
    """An hour more for what R01 delays; nobody signed yet."""
    coming = after(shipped(), rule("R01", delay="2h"))
    world.store.run(lambda work: work.documents.put(BUNDLE, coming.hash.hex(), coming.to_json()))
    message = activation(coming, shipped(), (), author="bo").message
    return gathering.draft(world.store, world.roster, message, "bo", world.clock())


def _proof(height: int, units: int, place: str) -> NativeProof:
    return NativeProof(EVM.name, height, block_hash(height), place, 0, units, 0)


def _stray(world: World, work: UnitOfWork) -> None:
    wallet = treasury.account_of(Tier.CUSTOMER_HOT, Chain(EVM.name))
    proof = _proof(9000 + work.journal.head().position, 7 * 10**17, PLACES[0])
    entry = credit_deposit(proof, wallet, Account(AccountKind.SUSPENSE), Amount(world.asset("ETH"), 7 * 10**17))
    work.journal.append(entry, NOW - DAY)


def _deposits(world: World, work: UnitOfWork) -> None:
    """Seen, credited to somebody and to suspense, orphaned, dust."""
    _stray(world, work)
    eth = world.asset("ETH")
    for number, status in enumerate((*DepositStatus, DepositStatus.SEEN)):
        if status is DepositStatus.REVERSED:
            continue
        proof = _proof(4100 + number, (number + 1) * 10**17 + 12345, PLACES[1])
        sighting = Sighting(Amount(eth, proof.after), Address(EVM, PLACES[1]), proof)
        work.deposits.record(sighting)
        if status is DepositStatus.CREDITED:
            wallet = treasury.account_of(Tier.CUSTOMER_HOT, EVM)
            entry = credit_deposit(proof, wallet, Account(AccountKind.CUSTOMER_AVAILABLE, "ada"), sighting.amount)
            work.deposits.move(sighting.identity, status, work.journal.append(entry, NOW - DAY).position)
        elif status is not DepositStatus.SEEN:
            work.deposits.move(sighting.identity, status)
    work.deposits.follow([BlockRef(EVM, 4110, block_hash(4110), block_hash(4109), NOW)], 64)


def _statements(work: UnitOfWork) -> None:
    """Two days of the attestor's word."""
    for number in range(48):
        owed, held = 10**20 + number * 10**18 + (number % 7) * 4 * 10**17, 10**20 + (number + 6) * 10**18
        rows = {"reserves": held, "on_chain": held, "in_ledger": held, "available": owed}
        message = treasury.statement(NOW - 2 * DAY + number * 3600, **rows).message
        signed = signed_by(replace(message, sequence=number + 100), trusted().domain, [ed25519("attestor")])
        work.documents.put("statement", str(number + 100), signed.to_json())
