# SPDX-License-Identifier: AGPL-3.0-or-later
"""Every invariant of the simulation, each named, each with its sentence. All of `ALWAYS` is asked after each step.

`ON_SIGNATURE` and `ON_SEND` are asked at the very moment that a seat gave a signature or a node was sent bytes; `AT_REST` once the
run was let go quiet: no faults, blocks mined, everything given time to end.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from custody.flows.verification import verify_ledger
from custody.rules.approvals import Approval
from custody.rules.intents import TransferIntent
from custody.rules.ledger import Account, AccountKind, Side
from custody.rules.origins import BitcoinProof, Executed, NativeProof, Release, TokenProof
from custody.rules.provenance import Authorities
from custody.rules.roster import Roster
from custody.rules.seat_request import Kind
from custody.rules.seat_request import Transfer as Material
from custody.rules.transfers import Status
from custody.rules.wallets import Address, Chain, Tier
from tests.fakes.seat import BITCOIN, EVM
from tests.simulation import birth, trust_checks
from tests.simulation.books import consumed, on_chain
from tests.simulation.processes import Witnessed
from tests.simulation.scene import Check, Checks, Scene, anchor_of, paid_of

DAY: Final = 86_400
CUSTOMER: Final = frozenset({Tier.CUSTOMER_HOT, Tier.CUSTOMER_COLD})
UNIT: Final = {"ETH": 10**18, "BTC": 10**8, "USDX": 10**6, "USDN": 10**6}
BY_ITSELF: Final = {"withdrawal": {"BTC": 25 * 10**6, "ETH": 5 * 10**18, "USDX": 25 * 10**9, "USDN": 25 * 10**9}} | {
    "cold_sweep": {"BTC": 5 * 10**7, "ETH": 10**19, "USDX": 5 * 10**10, "USDN": 5 * 10**10}
}
"""Base units that the shipped policy lets go without people at the most, as its text says; not read from the bundle."""
A_DAY: Final = {"BTC": 15 * 10**8, "ETH": 300 * 10**18, "USDX": 15 * 10**11, "USDN": 15 * 10**11}
"""The same in a day; a seat's share of it is two thirds with three of four."""
ACCOUNT_DAY: Final = 50_000
"""Dollars that one account may take in a day without people."""


def _tier(scene: Scene, wallet: bytes) -> Tier:
    born = scene.world.born.certificates
    return next(tier for (tier, _), signed in born.items() if signed.message.struct_hash == wallet)


def _leaves(scene: Scene, intent: TransferIntent) -> bool:
    """Whether an intent takes coins out of customer tiers."""
    to = scene.world.inventory.wallet_of(_address(intent))
    return _tier(scene, intent.wallet).is_customer and (to is None or not to.tier.is_customer)


def _address(intent: TransferIntent) -> Address:
    return Address(Chain(intent.chain), intent.destination)


# the ledger


def entries_sum_to_zero(scene: Scene) -> Iterator[str]:
    """In every entry debits and credits of each asset are equal."""
    for recorded in scene.fresh:
        sums: Counter[str] = Counter()
        for posting in recorded.entry.postings:
            sign = 1 if posting.side is Side.DEBIT else -1
            sums[posting.amount.asset.symbol] += sign * posting.amount.units
        if any(sums.values()):
            yield f"entry {recorded.position}: {dict(sums)}"


def nobody_below_zero(scene: Scene) -> Iterator[str]:
    """No account stands below zero, and the balances that the store keeps are those of its journal."""
    mine = {key: units for key, units in scene.books.balances.items() if units}
    for (account, asset), units in mine.items():
        if units < 0:
            yield f"{account} has {units} {asset}"
    kept = scene.world.read(lambda work: {(a, s): units for a, s, units in work.journal.balances()})
    if kept != mine:
        yield f"kept {sorted(map(str, kept.items() - mine.items()))}, journal {sorted(map(str, mine.items() - kept.items()))}"


def a_deposit_credits_once(scene: Scene) -> Iterator[str]:
    """Each chain event is credited at most once more than it was reversed, and never reversed more often than credited."""
    for name, times in scene.books.standing.items():
        if times not in {0, 1}:
            yield f"{name} stands credited {times} times"


def credits_are_final(scene: Scene) -> Iterator[str]:
    """Nothing is credited below finality: its block is canonical and final when the entry is made."""
    for recorded in scene.fresh:
        proof = recorded.entry.origin
        if isinstance(proof, TokenProof | NativeProof | BitcoinProof):
            node = scene.world.evm if proof.chain == EVM.name else scene.world.bitcoin
            ref = node.known[proof.block]
            lied = proof.block in scene.early  # then nobody vouches for it, which is looked at where the lie is told
            if not lied and (proof.height > node.final_height or node.at(ref) is None):
                yield f"entry {recorded.position} credits block {proof.height}, final is {node.final_height}"


def _has_followed(scene: Scene, chain: Chain) -> bool:
    """Whether the watcher of a chain stands on a block that is canonical now: whatever a reorg took is taken back by then."""
    node = scene.world.evm if chain == EVM else scene.world.bitcoin
    newest = scene.world.read(lambda work: work.deposits.newest(chain))
    if newest is None or newest > node.height:
        return False
    mine = scene.world.read(lambda work: work.deposits.followed(chain, newest))
    return mine == node.blocks[newest].ref.hash


def an_orphaned_deposit_nets_to_zero(scene: Scene) -> Iterator[str]:
    """Once the watcher has followed a reorg, no credit stands whose block is not on the chain."""
    for node in (scene.world.evm, scene.world.bitcoin):
        chain = node.chain
        if not _has_followed(scene, chain):
            continue
        for name, times in scene.books.standing.items():
            proof = scene.books.proofs[name]
            if times and proof.chain == chain.name and node.at(node.known[proof.block]) is None:
                yield f"{name} stands credited, and its block {proof.height} is gone"


# payments


def an_intent_is_paid_at_most_once(scene: Scene) -> Iterator[str]:
    """One effective settlement an intent: by the chain itself, each is paid once at most, and nothing is paid without one."""
    for paid, times in Counter(payment.paid for payment in scene.paid).items():
        if times > 1:
            yield f"{paid} was paid {times} times"
        if paid not in scene.by_paid:
            yield f"{paid} was paid, and there is no such intent"


def a_transfer_ended_as_it_says(scene: Scene) -> Iterator[str]:
    """COMPLETED was paid in a final block; CANCELLED, REJECTED, EXPIRED and FAILED were not paid at all."""
    where = {payment.paid: payment.block for payment in scene.paid}
    for transfer in scene.transfers:
        chain = EVM if transfer.intent.chain == EVM.name else BITCOIN
        if not transfer.status.is_final or not _has_followed(scene, chain):
            continue
        block = where.get(paid_of(transfer.intent))
        node = scene.world.evm if transfer.intent.chain == EVM.name else scene.world.bitcoin
        final = block is not None and block.height <= node.final_height
        if (transfer.status is Status.COMPLETED and not final) or (
            transfer.status is not Status.COMPLETED and block is not None
        ):
            at = "nowhere" if block is None else f"block {block.height}, final {node.final_height}"
            yield f"{transfer.intent.id} is {transfer.status}, and was paid: {at}"


def a_hold_is_freed_by_final_consumption(scene: Scene) -> Iterator[str]:
    """Once a permit let seats be asked, only the final consumption of its anchor frees a hold: not expiry, not a no."""
    for recorded in scene.fresh:
        origin = recorded.entry.origin
        if isinstance(origin, Release):
            permit = scene.world.read(lambda work, d=origin.intent: work.transfers.permit_of(d))  # type: ignore[misc]
            if permit is not None or origin.intent in scene.signed:
                yield f"entry {recorded.position} frees the hold of {origin.intent.hex()}, which has its permit"
        if isinstance(origin, Executed):
            node = scene.world.evm if origin.chain == EVM.name else scene.world.bitcoin
            if not consumed(scene.world, origin.anchor, node.final_height):
                yield f"entry {recorded.position} ends anchor {origin.anchor.reference}, which no final block consumes"


def customers_coins_stay_customers(scene: Scene) -> Iterator[str]:
    """Law 1: what went from customer tiers to the operational tier is no more than fees that customers paid."""
    inventory = scene.world.inventory
    out: Counter[str] = Counter()
    for payment in scene.paid:
        chain = BITCOIN if payment.paid[0] == "BTC" else EVM
        to = inventory.wallet_of(Address(chain, payment.paid[1]))
        if to is not None and to.tier is Tier.OPERATIONAL and _tier(scene, payment.wallet).is_customer:
            out[payment.paid[0]] += payment.paid[2]
    for symbol, units in out.items():
        if units > scene.books.accrued[symbol]:
            yield f"{units} {symbol} went to the company, {scene.books.accrued[symbol]} were accrued"


def one_anchor_an_intent(scene: Scene) -> Iterator[str]:
    """An anchor is signed for one payout and, voided, for one void; variants of either pay the same and differ in fee alone."""
    for anchor, meanings in scene.meanings.items():
        kinds = Counter(void for void, _ in meanings)
        if kinds[False] > 1 or kinds[True] > 1:
            yield f"anchor {anchor.reference} was signed for {kinds[False]} payouts and {kinds[True]} voids"


def a_transfer_says_what_it_waits_for(scene: Scene) -> Iterator[str]:
    """Every transfer that has not ended says for whom or what it waits."""
    for transfer in scene.transfers:
        if not transfer.status.is_final and not transfer.waiting_for:
            yield f"{transfer.intent.id} is {transfer.status} and says nothing"


# at a signature


def recorded_before_signed(scene: Scene, witnessed: Witnessed) -> Iterator[str]:
    """Law 5: a permit of exactly these intents on this anchor was committed before a seat was asked."""
    request, digest = witnessed.request, scene.world.born.domain.digest
    for each in request.transfers:
        name = digest(each.intent)
        permit = scene.world.read(lambda work, n=name: work.transfers.permit_of(n))  # type: ignore[misc]
        if permit is None or permit.reservation.anchor != anchor_of(request):
            yield f"{witnessed.seat} signed for {name.hex()} without a permit of its anchor"


def one_anchor_signed(scene: Scene, witnessed: Witnessed) -> Iterator[str]:
    """No intent is ever signed for on two anchors."""
    for each in witnessed.request.transfers:
        name = scene.world.born.domain.digest(each.intent)
        if scene.signed.get(name, anchor_of(witnessed.request)) != anchor_of(witnessed.request):
            yield f"{witnessed.seat} signed {name.hex()} on a second anchor"


def people_or_caps(scene: Scene, witnessed: Witnessed) -> Iterator[str]:
    """Law 3: M distinct, eligible people approved exactly this, the initiator not among them, or it went alone inside the caps."""
    for each in witnessed.request.transfers:
        approvers = _approvers(scene, witnessed, each)
        if _enough(each.intent, approvers):
            continue
        intent, purpose = each.intent, each.intent.purpose
        scene.alone.append((witnessed.seat, witnessed.at, intent))
        hot = _tier(scene, intent.wallet) is Tier.CUSTOMER_HOT
        if not hot or intent.amount > BY_ITSELF.get(purpose, {}).get(intent.asset, 0):
            yield f"{witnessed.seat} signed {intent.amount} {intent.asset} ({purpose}) approved by {sorted(approvers)}"
        yield from _caps(scene, witnessed, intent)


def _caps(scene: Scene, witnessed: Witnessed, intent: TransferIntent) -> Iterator[str]:
    lately = [i for seat, at, i in scene.alone if seat == witnessed.seat and at > witnessed.at - DAY]
    units = sum(i.amount + i.maximum_fee for i in {i.id: i for i in lately}.values() if i.asset == intent.asset)
    if units > A_DAY[intent.asset] * 2 // 3:
        yield f"{witnessed.seat} let {units} {intent.asset} go in a day"
    ever = {i.id: i for _, at, i in scene.alone if at > witnessed.at - DAY and i.account == intent.account}
    usd = sum(i.amount * birth.USD[i.asset] // UNIT[i.asset] for i in ever.values() if i.purpose == "withdrawal")
    if usd > ACCOUNT_DAY:
        yield f"{intent.account} took {usd} USD in a day and nobody approved"


def _approvers(scene: Scene, witnessed: Witnessed, each: Material) -> frozenset[str]:
    """Who stands in the version that the intent pins and in the newest one that the seat has, and signed exactly this."""
    world, digest = scene.world, scene.world.born.domain.digest(each.intent)
    rosters = [*world.rosters[each.intent.roster - 1 : each.intent.roster], *world.rosters[: witnessed.roster][-1:]]
    return frozenset(
        approval.person
        for approval in each.approvals
        if approval.intent == digest
        and approval.person in birth.PEOPLE
        and approval.person != each.intent.initiator
        and approval.signature.is_over(digest)
        and all(_is_known(roster, approval) for roster in rosters)
    )


def _is_known(roster: Roster, approval: Approval) -> bool:
    person = roster.people_by_key.get(approval.signature.key)
    return person is not None and person.id == approval.person


def _enough(intent: TransferIntent, approvers: frozenset[str]) -> bool:
    """Whether there is a slot for each group that policy's text asks for, each filled by another person."""
    usd = intent.amount * birth.USD[intent.asset] // UNIT[intent.asset]
    groups = {"withdrawal": ["operations", "risk"], "vendor_payment": ["treasury", "compliance"]}.get(
        intent.purpose,
        ["treasury", "risk"] if intent.purpose in {"fee_sweep", "make_whole"} else ["operations", "treasury"],
    )
    if usd >= 100_000:
        groups = sorted({*groups, "operations", "treasury", "risk"})
    return _fills(groups, approvers)


def _fills(groups: Sequence[str], people: frozenset[str]) -> bool:
    if not groups:
        return True
    return any(groups[0] in birth.PEOPLE[p] and _fills(groups[1:], people - {p}) for p in people)


def covered_when_signed(scene: Scene, witnessed: Witnessed) -> Iterator[str]:
    """Law 2: on the ground of the statement, final customer coins less all that was signed and not final cover what is owed after."""
    request, books = witnessed.request, scene.books
    if request.kind is not Kind.PAYOUT or not any(_leaves(scene, each.intent) for each in request.transfers):
        return
    said, digest = request.statement.message, scene.world.born.domain.digest
    flying = dict(scene.signed) | {digest(each.intent): anchor_of(request) for each in request.transfers}
    intents = scene.intents | {digest(each.intent): each.intent for each in request.transfers}
    for symbol in {each.intent.asset for each in request.transfers}:
        chain = BITCOIN if symbol == "BTC" else EVM
        node = scene.world.bitcoin if symbol == "BTC" else scene.world.evm
        height = next(h for h in said.heights if h.chain == chain.name)
        if node.at(node.known[height.hash]) is None:
            continue  # reorganised below what was final since: judged by the reversal
        have, owed = (
            on_chain(scene.world, CUSTOMER, chain, symbol, height.height),
            books.owed[said.ledger_position][symbol],
        )
        for name, anchor in flying.items():
            intent = intents[name]
            if intent.asset != symbol or not _leaves(scene, intent) or consumed(scene.world, anchor, height.height):
                continue
            most = intent.amount + intent.maximum_fee
            have -= most
            if intent.account.startswith("customer:") and books.owes(name, said.ledger_position):
                owed -= most
        if have < owed:
            yield f"{witnessed.seat} signed at height {height.height} with {have} {symbol} for {owed} owed"


# at a broadcast


def stored_before_sent(scene: Scene, chain: str, raw: bytes) -> Iterator[str]:
    """Law 5: nothing goes out whose very bytes the store does not have."""
    anchors = {permit.reservation.anchor for permit in scene.world.read(lambda work: work.transfers.permitted())}
    kept = {e.raw for a in anchors for e in scene.world.read(lambda work, a=a: work.transfers.kept(a))}  # type: ignore[misc]
    if raw not in kept:
        yield f"{len(raw)} bytes were sent to {chain} that are not stored"


# at rest


def the_ledger_is_the_chain(scene: Scene) -> Iterator[str]:
    """What the ledger says that each wallet has is what the chain says; dust that is not booked apart."""
    if scene.drained:
        return
    world = scene.world
    dust: Counter[tuple[bytes, str]] = Counter()
    inventory = world.inventory
    for deposit in world.read(lambda work: work.deposits.all()):
        wallet = inventory.wallet_of(deposit.sighting.address)
        if deposit.status.value == "DUST" and wallet is not None:
            dust[wallet.name, deposit.sighting.amount.asset.symbol] += deposit.sighting.amount.units
    for wallet in inventory:
        node = world.evm if wallet.chain.is_evm else world.bitcoin
        for asset in world.born.assets.on(wallet.chain):
            if wallet.chain.is_evm:
                state = world.evm.blocks[node.final_height].state
                there = sum(state.holds(asset.symbol, address.text) for address in wallet.addresses)
            else:
                there = world.bitcoin.holds([*wallet.addresses], node.final_height)
            booked = scene.books.balances[Account(AccountKind.WALLET, wallet.name.hex()), asset]
            if there != booked + dust[wallet.name, asset.symbol]:
                yield f"{wallet.tier} on {wallet.chain}: {there} {asset} on chain, {booked} in the ledger"


def the_audit_finds_nothing(scene: Scene) -> Iterator[str]:
    """`ledger verify` from the first entry on, against both chains, is clean."""
    world, made = scene.world, scene.world.born
    inventory = world.inventory
    known = Authorities(
        made.assets, [made.roster], {made.bundle.hash: made.bundle.fees}, inventory.holding_of, inventory.tiers
    )
    for finding in verify_ledger(world.store, known, world.views()):
        yield str(finding)


def everything_ends_or_waits_for_people(scene: Scene) -> Iterator[str]:
    """Let go quiet, every transfer ends, or waits for what only people or time bring: approvals, a time-lock, coins, coverage."""
    for transfer in scene.transfers:
        if transfer.status.is_final or transfer.status in {Status.PENDING_AUTHORIZATION, Status.BLOCKED}:
            continue
        if any(word in transfer.waiting_for for word in EXCUSES):
            continue
        yield f"{transfer.intent.id} is {transfer.status} and waits for: {transfer.waiting_for[:300]}"


EXCUSES: Final = (
    "people: ",
    "time-lock",
    "insufficient_balance",
    "automatic_cap",
    "coverage",
    "frozen",
    "deposit_reversed",
)
"""Words in what a transfer waits for that name what nobody but people, time or new coins can bring."""

ALWAYS: Final[tuple[Check, ...]] = (
    entries_sum_to_zero,
    nobody_below_zero,
    a_deposit_credits_once,
    credits_are_final,
    an_orphaned_deposit_nets_to_zero,
    an_intent_is_paid_at_most_once,
    a_transfer_ended_as_it_says,
    a_hold_is_freed_by_final_consumption,
    customers_coins_stay_customers,
    one_anchor_an_intent,
    a_transfer_says_what_it_waits_for,
    trust_checks.the_hash_chain_holds,
    trust_checks.holds_are_unfinished_transfers,
    trust_checks.a_payment_has_its_permit_and_its_quorum,
    trust_checks.what_was_acknowledged_is_there,
    trust_checks.a_late_worker_writes_nothing,
    trust_checks.moves_were_legal,
)
ON_SIGNATURE: Final = (
    recorded_before_signed,
    one_anchor_signed,
    people_or_caps,
    covered_when_signed,
    trust_checks.nothing_frozen_is_signed,
    trust_checks.no_seat_signs_behind_its_head,
    trust_checks.a_statement_is_fresh,
    trust_checks.nothing_signed_fills_hot_above_its_cap,
    trust_checks.requests_name_their_anchor,
)
ON_SEND: Final = (stored_before_sent,)
AT_REST: Final[tuple[Check, ...]] = (
    the_ledger_is_the_chain,
    the_audit_finds_nothing,
    trust_checks.seats_remember_what_the_chain_shows,
    everything_ends_or_waits_for_people,
)

CHECKS: Final = Checks(ALWAYS, ON_SIGNATURE, ON_SEND, AT_REST)
