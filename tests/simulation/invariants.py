# SPDX-License-Identifier: AGPL-3.0-or-later
"""Every invariant of the simulation, each named, each with its sentence. All of `ALWAYS` is asked after each step.

`ON_SIGNATURE` and `ON_SEND` are asked at the very moment that a seat gave a signature or a node was sent bytes; `AT_REST` once the
run was let go quiet: no faults, blocks mined, everything given time to end.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from custody.flows.verification import verify_ledger
from custody.rules.intents import Anchor, TransferIntent
from custody.rules.ledger import Account, AccountKind, JournalEntry, Side
from custody.rules.origins import BitcoinProof, Executed, NativeProof, Release, TokenProof
from custody.rules.provenance import Authorities
from custody.rules.seat_request import Kind, Request
from custody.rules.seat_request import Transfer as Material
from custody.rules.transfers import MOVES, Status, Transfer
from custody.rules.wallets import Address, Chain, Tier
from tests.fakes.seat import BITCOIN, EVM
from tests.simulation import birth
from tests.simulation.books import Books, Paid, Payment, consumed, on_chain, payments
from tests.simulation.world import Witnessed, World

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


@dataclass(frozen=True)
class Broken:
    """An invariant that does not hold, and how."""

    invariant: str
    told: str

    def __str__(self) -> str:
        return f"{self.invariant}: {self.told}"


@dataclass
class Scene:
    """A run as the invariants see it after a step."""

    world: World
    books: Books = field(default_factory=Books)
    fresh: list[JournalEntry] = field(default_factory=list)
    """Entries since the last look."""
    signed: dict[bytes, Anchor] = field(default_factory=dict)
    """Intents that a seat ever gave a signature for, and on which anchor."""
    payloads: dict[Anchor, set[tuple[bool, bytes]]] = field(default_factory=dict)
    """What was ever signed for an anchor: whether a void, and the payload's digest."""
    alone: list[tuple[str, int, TransferIntent]] = field(default_factory=list)
    """What went without people, by seat and time."""
    answered: set[tuple[str, bytes]] = field(default_factory=set)
    transfers: Sequence[Transfer] = ()
    paid: list[Payment] = field(default_factory=list)
    """Canonical payments."""
    by_paid: dict[Paid, Transfer] = field(default_factory=dict)
    broken: list[Broken] = field(default_factory=list)
    drained: bool = False
    """A thief was here: what is owed is no longer there."""

    def __post_init__(self) -> None:
        self.world.on_signature.append(self._signed)
        self.world.on_send.append(self._sent)

    def look(self) -> list[Broken]:
        """Everything that does not hold now."""
        self.fresh = self.books.update(self.world)
        self.transfers = self.world.transfers()
        self.paid = list(payments(self.world))
        self.by_paid = {_paid_of(transfer.intent): transfer for transfer in self.transfers}
        found = [Broken(check.__name__, told) for check in ALWAYS for told in check(self)]
        found, self.broken = [*self.broken, *found], []
        return found

    def rest(self) -> list[Broken]:
        """As `look`, with what holds only at rest."""
        return [*self.look(), *(Broken(check.__name__, told) for check in AT_REST for told in check(self))]

    def _signed(self, witnessed: Witnessed) -> None:
        key = (witnessed.seat, witnessed.request.hash)
        if key in self.answered:  # an identical request gets the identical signature, and no new judgement
            return
        self.answered.add(key)
        self.books.update(self.world)
        for check in ON_SIGNATURE:
            self.broken += [Broken(check.__name__, told) for told in check(self, witnessed)]
        anchor = anchor_of(witnessed.request)
        digest = self.world.born.domain.digest
        self.signed |= {digest(each.intent): anchor for each in witnessed.request.transfers}
        void = witnessed.request.void is not None
        self.payloads.setdefault(anchor, set()).add((void, repr(witnessed.request.payload).encode()))

    def _sent(self, chain: str, raw: bytes) -> None:
        self.broken += [Broken(check.__name__, told) for check in ON_SEND for told in check(self, chain, raw)]


def anchor_of(request: Request) -> Anchor:
    """What a request's payload consumes, as the attestor named it."""
    return request.statement.message.anchor[0]


def _paid_of(intent: TransferIntent) -> Paid:
    return intent.asset, intent.destination, intent.amount


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
            if proof.height > node.final_height or node.at(ref) is None:
                yield f"entry {recorded.position} credits block {proof.height}, final is {node.final_height}"


def an_orphaned_deposit_nets_to_zero(scene: Scene) -> Iterator[str]:
    """Once the watcher has followed a reorg, no credit stands whose block is not on the chain."""
    for node in (scene.world.evm, scene.world.bitcoin):
        chain = node.chain
        newest = scene.world.read(lambda work, c=chain: work.deposits.newest(c))  # type: ignore[misc]
        if newest is None or newest > node.height:
            continue
        mine = scene.world.read(lambda work, c=chain, h=newest: work.deposits.followed(c, h))  # type: ignore[misc]
        if mine != node.blocks[newest].ref.hash:
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
        if not transfer.status.is_final:
            continue
        block = where.get(_paid_of(transfer.intent))
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
    """An anchor is signed for one payload and, voided, for one void; variants are no other payload here, since none bumps a fee."""
    for anchor, payloads in scene.payloads.items():
        kinds = Counter(void for void, _ in payloads)
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
        approvers = _approvers(scene, each)
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


def _approvers(scene: Scene, each: Material) -> frozenset[str]:
    digest, roster = scene.world.born.domain.digest(each.intent), scene.world.born.roster
    return frozenset(
        approval.person
        for approval in each.approvals
        if approval.intent == digest
        and approval.person in birth.PEOPLE
        and approval.person != each.intent.initiator
        and approval.signature.is_over(digest)
        and roster.people_by_key[approval.signature.key].id == approval.person
    )


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
    intents = {digest(t.intent): t.intent for t in scene.world.transfers()}
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
    waiting = {t.intent.wallet for t in scene.transfers if not t.status.is_final and UNFUNDED in t.waiting_for}
    dust: Counter[tuple[bytes, str]] = Counter()
    inventory = world.inventory
    for deposit in world.read(lambda work: work.deposits.all()):
        wallet = inventory.wallet_of(deposit.sighting.address)
        if deposit.status.value == "DUST" and wallet is not None:
            dust[wallet.name, deposit.sighting.amount.asset.symbol] += deposit.sighting.amount.units
    for wallet in inventory:
        node = world.evm if wallet.chain.is_evm else world.bitcoin
        if wallet.name in waiting:
            continue
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


def moves_were_legal(scene: Scene) -> Iterator[str]:
    """Every status follows the one before it by the table."""
    for transfer in scene.transfers:
        history = scene.world.read(lambda work, d=transfer.digest: work.transfers.history(d))  # type: ignore[misc]
        for before, after in pairwise(history):
            if after.status not in MOVES[before.status]:
                yield f"{transfer.intent.id} went from {before.status} to {after.status}"


def everything_ends_or_waits_for_people(scene: Scene) -> Iterator[str]:
    """Let go quiet, every transfer ends, or waits for what only people or time bring: approvals, a time-lock, coins, coverage."""
    for transfer in scene.transfers:
        if transfer.status.is_final or transfer.status in {Status.PENDING_AUTHORIZATION, Status.BLOCKED}:
            continue
        if any(word in transfer.waiting_for for word in EXCUSES):
            continue
        yield f"{transfer.intent.id} is {transfer.status} and waits for: {transfer.waiting_for[:300]}"


UNFUNDED: Final = "the ledger cannot take it: insufficient_balance(account=company_surplus"
"""A void's fee on Bitcoin is the company's: until `make_whole` fills its surplus, the end of that anchor cannot be booked."""
EXCUSES: Final = ("people: ", "time-lock", "insufficient_balance", "automatic_cap", "coverage", "frozen")
"""Words in what a transfer waits for that name what nobody but people, time or new coins can bring."""

Check = Callable[[Scene], Iterator[str]]

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
)
ON_SIGNATURE: Final = (recorded_before_signed, one_anchor_signed, people_or_caps, covered_when_signed)
ON_SEND: Final = (stored_before_sent,)
AT_REST: Final[tuple[Check, ...]] = (
    the_ledger_is_the_chain,
    the_audit_finds_nothing,
    moves_were_legal,
    everything_ends_or_waits_for_people,
)
