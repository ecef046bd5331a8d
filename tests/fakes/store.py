# SPDX-License-Identifier: AGPL-3.0-or-later
"""A store in memory that implements `Store`: dicts, and a copy to go back to. The contract suite holds it to the real ones."""

import copy
import threading
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from custody.flows.ports import Deposit, Event, EventKind, Examined, Lease, UnitOfWork, Visit, spread
from custody.rules.amounts import UINT256_MAX, Asset
from custody.rules.certificates import DepositAddress
from custody.rules.deposits import DEPOSIT_MOVES, BlockRef, DepositStatus, Sighting
from custody.rules.errors import InvalidInput, Unavailable
from custody.rules.ledger import (
    Account,
    AccountKind,
    Entry,
    JournalEntry,
    JournalHead,
    Side,
    canonical,
    check_balances,
    loss_of,
    replay,
)
from custody.rules.origins import REVERSIBLE, BitcoinProof, ChainProof, Executed, Once, Reversal, recorded_once
from custody.rules.refusals import Refusal, Refused, Rule, raise_if
from custody.rules.settlements import Settlement
from custody.rules.signatures import Signed
from custody.rules.wallets import Chain
from tests.fakes.transfers import FakeEnrolments, FakeTransfers, TransferState

T = TypeVar("T")


@dataclass
class _State:
    """Everything the store holds; entries and messages are immutable, so a copy of the containers is a snapshot."""

    entries: list[JournalEntry] = field(default_factory=list)
    followed: dict[tuple[str, int], bytes] = field(default_factory=dict)
    deposits: dict[str, Deposit] = field(default_factory=dict)
    customers: list[str] = field(default_factory=list)
    addresses: list[Signed[DepositAddress]] = field(default_factory=list)
    keys: dict[tuple[bytes, int], int] = field(default_factory=dict)
    documents: dict[tuple[str, str], Mapping[str, Any]] = field(default_factory=dict)
    rows: TransferState = field(default_factory=TransferState)
    leases: dict[str, Lease] = field(default_factory=dict)
    visits: dict[bytes, Visit] = field(default_factory=dict)


class FakeJournal:
    """A list of entries; every balance is summed from it, every time."""

    def __init__(self, state: _State, check: Callable[[], None]) -> None:
        self._state, self._check = state, check

    def head(self) -> JournalHead:
        """The newest position and hash."""
        return (
            JournalHead(self._state.entries[-1].position, self._state.entries[-1].hash)
            if self._state.entries
            else JournalHead()
        )

    def append(self, entry: Entry, recorded_at: int) -> JournalEntry:
        """Record an entry, or refuse it with every reason."""
        balances = replay(self._state.entries)
        raise_if((*self._taken(entry), *check_balances(entry, balances), *_too_large(entry, balances)))
        self._check()
        recorded = JournalEntry.append(self.head(), entry, recorded_at)
        self._state.entries.append(recorded)
        return recorded

    def read(self, after: int = 0, limit: int = 1000) -> Sequence[JournalEntry]:
        """Entries above a position."""
        return [e for e in self._state.entries if e.position > after][:limit]

    def get(self, position: int) -> JournalEntry | None:
        """One entry."""
        return next((e for e in self._state.entries if e.position == position), None)

    def examine(self, after: int = 0, limit: int = 1000) -> Sequence[Examined]:
        """Entries above a position; nothing here is ever damaged."""
        return [Examined(e.position, e, ()) for e in self.read(after, limit)]

    def balance(self, account: Account, asset: Asset) -> int:
        """One balance, or a whole kind's."""
        if account.is_whole_kind:
            return self.total(account.kind, asset)
        return replay(self._state.entries).get((account, asset), 0)

    def total(self, kind: AccountKind, asset: Asset) -> int:
        """One total."""
        return sum(
            units for (account, of), units in replay(self._state.entries).items() if (account.kind, of) == (kind, asset)
        )

    def balances(self) -> Iterator[tuple[Account, Asset, int]]:
        """Every balance that is not zero."""
        yield from ((account, asset, units) for (account, asset), units in replay(self._state.entries).items())

    def totals(self) -> Iterator[tuple[AccountKind, Asset, int]]:
        """Every total that is not zero."""
        sums: dict[tuple[AccountKind, Asset], int] = defaultdict(int)
        for account, asset, units in self.balances():
            sums[account.kind, asset] += units
        yield from ((kind, asset, units) for (kind, asset), units in sums.items() if units)

    def matured_fees(self, asset: Asset, recorded_by: int) -> int:
        """What was accrued by then, less everything swept."""
        account, latest, ripe, swept = Account(AccountKind.ACCRUED_FEES), 0, 0, 0
        for recorded in self._state.entries:
            postings = [p for p in recorded.entry.postings if (p.account, p.amount.asset) == (account, asset)]
            credited = sum(p.amount.units for p in postings if p.side is Side.CREDIT)
            swept += sum(p.amount.units for p in postings if p.side is Side.DEBIT)
            if credited:
                latest = max(latest, recorded.recorded_at)
                ripe += credited if latest <= recorded_by else 0
        return max(0, ripe - swept)

    def executed(self, chain: Chain, first: int, last: int | None = None) -> Sequence[JournalEntry]:
        """Payouts in these blocks that stand."""
        found = ((e, e.entry.origin) for e in self._state.entries if e.position not in self._reversed())
        return [
            recorded
            for recorded, origin in found
            if isinstance(origin, Executed) and origin.chain == chain.name
            if first <= origin.height and (last is None or origin.height <= last)
        ]

    def reversals(self, account: Account | None = None) -> Sequence[JournalEntry]:
        """Reversals that touch an account, or all."""
        touched = None if account is None else {account, loss_of(account)}
        found = (e for e in self._state.entries if isinstance(e.entry.origin, Reversal))
        return [e for e in found if touched is None or touched & {p.account for p in e.entry.postings}]

    def credited_since(self, account: Account, asset: Asset, position: int) -> int:
        """What chain events credited after a position."""
        lines = (
            posting
            for recorded in self._state.entries
            if recorded.position > position and recorded.position not in self._reversed()
            if isinstance(recorded.entry.origin, ChainProof)
            for posting in recorded.entry.postings
        )
        mine = (p for p in lines if p.account in {account, loss_of(account)} and p.side is Side.CREDIT)
        return sum(p.amount.units for p in mine if p.amount.asset == asset)

    def _reversed(self) -> set[int]:
        return {e.entry.origin.entry for e in self._state.entries if isinstance(e.entry.origin, Reversal)}

    def settled_since(self, account: Account, since: int) -> dict[Asset, int]:
        """What settlements credited after a time."""
        found: dict[Asset, int] = defaultdict(int)
        for recorded in self._state.entries:
            origin = recorded.entry.origin
            if recorded.recorded_at > since and isinstance(origin, Signed) and isinstance(origin.message, Settlement):
                for posting in recorded.entry.postings:
                    if posting.account == account and posting.side is Side.CREDIT:
                        found[posting.amount.asset] += posting.amount.units
        return dict(found)

    def _taken(self, entry: Entry) -> Iterator[Refusal]:
        newest: dict[tuple[Once, str], int] = {}
        for recorded in self._state.entries:
            newest |= dict.fromkeys(recorded_once(recorded.entry.origin), recorded.position)
        for kind, identity in recorded_once(entry.origin):
            at = newest.get((kind, identity))
            if at is not None and not (kind in REVERSIBLE and (Once.REVERSAL, str(at)) in newest):
                yield Refusal(Rule.ALREADY_RECORDED, kind=kind.value, id=identity, position=at)
        if isinstance(entry.origin, Reversal):
            named = self.get(entry.origin.entry)
            if named is None or not isinstance(named.entry.origin, ChainProof | Executed):
                want = "the position of a credited chain event or of a payout"
                yield Refusal(Rule.ORIGIN, reverses=entry.origin.entry, want=want)


def _too_large(entry: Entry, balances: Mapping[tuple[Account, Asset], int]) -> Iterator[Refusal]:
    for key, units in entry.changes().items():
        if balances.get(key, 0) + units > UINT256_MAX:
            yield Refusal(Rule.TOO_LARGE, account=str(key[0]), asset=key[1].symbol, change=units)
    for kind, asset in {(account.kind, asset) for account, asset in entry.changes()}:
        both = (balances, entry.changes())
        total = sum(u for held in both for (account, of), u in held.items() if (account.kind, of) == (kind, asset))
        if total > UINT256_MAX:
            yield Refusal(Rule.TOO_LARGE, total=kind.value, asset=asset.symbol)


class FakeDeposits:
    """Deposits in a dict, in the order they were first seen."""

    def __init__(self, state: _State, check: Callable[[], None]) -> None:
        self._state, self._check = state, check

    def followed(self, chain: Chain, height: int) -> bytes | None:
        """Hash of the followed block."""
        return self._state.followed.get((chain.name, height))

    def newest(self, chain: Chain) -> int | None:
        """The newest followed height."""
        return max((height for name, height in self._state.followed if name == chain.name), default=None)

    def follow(self, blocks: Sequence[BlockRef], keep: int) -> None:
        """Record blocks, forget old ones."""
        self._check()
        for block in blocks:
            known = self._state.followed.setdefault((block.chain.name, block.height), block.hash)
            if known != block.hash:
                raise Refused(
                    [Refusal(Rule.ALREADY_EXISTS, chain=block.chain.name, height=block.height, followed=known.hex())]
                )
        for chain in {block.chain.name for block in blocks}:
            newest = max(block.height for block in blocks if block.chain.name == chain)
            for name, height in list(self._state.followed):
                if name == chain and height < newest - keep:
                    del self._state.followed[name, height]

    def unfollow(self, chain: Chain, above: int) -> None:
        """Forget blocks above a height."""
        self._check()
        for name, height in list(self._state.followed):
            if name == chain.name and height > above:
                del self._state.followed[name, height]

    def record(self, sighting: Sighting) -> None:
        """SEEN, or SEEN again."""
        self._check()
        known = self._state.deposits.get(sighting.identity)
        free = known is None or DepositStatus.SEEN in {known.status, *DEPOSIT_MOVES[known.status]}
        if free:
            self._state.deposits[sighting.identity] = Deposit(sighting, DepositStatus.SEEN, None)

    def find(self, identity: str) -> Deposit | None:
        """By the event's identity."""
        return self._state.deposits.get(identity)

    def at_or_above(self, chain: Chain, height: int) -> Sequence[Deposit]:
        """By height."""
        return [d for d in self.all() if d.sighting.address.chain == chain and d.sighting.proof.height >= height]

    def waiting(self, chain: Chain, up_to: int) -> Sequence[Deposit]:
        """SEEN ones by height."""
        found = (d for d in self.all() if d.sighting.address.chain == chain and d.status is DepositStatus.SEEN)
        return [d for d in found if d.sighting.proof.height <= up_to]

    def move(self, identity: str, to: DepositStatus, position: int | None = None) -> None:
        """One legal move."""
        self._check()
        known = self._state.deposits.get(identity)
        if known is None or to not in DEPOSIT_MOVES[known.status]:
            was = "unknown" if known is None else known.status.value
            raise Refused([Refusal(Rule.MOVE_NOT_ALLOWED, deposit=identity, was=was, would_be=to.value)])
        if to is DepositStatus.REVERSED:
            position = known.position
        elif (to is DepositStatus.CREDITED) != (position is not None):
            raise Refused([Refusal(Rule.MALFORMED, deposit=identity, would_be=to.value, position=position)])
        self._state.deposits[identity] = replace(known, status=to, position=position)

    def credited(self, chain: Chain, outpoints: Collection[str]) -> frozenset[str]:
        """Those of them that stand credited."""
        credited = (d.sighting.proof for d in self.all() if d.status is DepositStatus.CREDITED)
        bitcoin = (p for p in credited if isinstance(p, BitcoinProof) and p.chain == chain.name)
        return frozenset(f"{proof.txid.hex()}:{proof.vout}" for proof in bitcoin) & frozenset(outpoints)

    def all(self) -> Sequence[Deposit]:
        """By chain and height."""
        return sorted(
            self._state.deposits.values(), key=lambda d: (d.sighting.address.chain.name, d.sighting.proof.height)
        )


class FakeCustomers:
    """Customers and bindings in lists."""

    def __init__(self, state: _State, check: Callable[[], None]) -> None:
        self._state, self._check = state, check

    def add(self, customer: str) -> None:
        """A new one."""
        self._check()
        if not 1 <= len(customer) <= 200:
            raise Refused(
                [Refusal(Rule.MALFORMED, field="customer", got=f"{len(customer)} characters", want="1 to 200")]
            )
        if customer in self._state.customers:
            raise Refused([Refusal(Rule.ALREADY_EXISTS, customer=customer)])
        self._state.customers.append(customer)

    def ids(self) -> frozenset[str]:
        """Every customer."""
        return frozenset(self._state.customers)

    def is_known(self, customer: str) -> bool:
        """Whether there is one."""
        return customer in self._state.customers

    def next_index(self, wallet: bytes) -> int:
        """The lowest free index."""
        used = {s.message.index for s in self._state.addresses if s.message.wallet == wallet}
        return next(index for index in range(len(used) + 1) if index not in used)

    def add_address(self, signed: Signed[DepositAddress], keys: int = 0) -> None:
        """A new binding, or every reason against it."""
        self._check()
        raise_if(self._refusals(signed.message, keys))
        self._state.addresses.append(signed)
        self._state.keys[signed.message.wallet, signed.message.index] = keys

    def addresses(self, chain: Chain | None = None) -> Sequence[Signed[DepositAddress]]:
        """By index."""
        found = [s for s in self._state.addresses if chain is None or s.message.chain == chain.name]
        return sorted(found, key=lambda s: (s.message.index, s.message.wallet))

    def address_of(self, customer: str, wallet: bytes) -> Signed[DepositAddress] | None:
        """One customer's."""
        mine = (s for s in self._state.addresses if (s.message.customer, s.message.wallet) == (customer, wallet))
        newest = sorted(mine, key=lambda s: -self._state.keys.get((s.message.wallet, s.message.index), 0))
        return next(iter(newest), None)

    def _refusals(self, new: DepositAddress, keys: int) -> Iterator[Refusal]:
        if new.customer not in self._state.customers:
            yield Refusal(Rule.UNKNOWN_CUSTOMER, customer=new.customer)
        for known in (s.message for s in self._state.addresses):
            if (known.wallet, known.index) == (new.wallet, new.index):
                yield Refusal(Rule.INDEX_BOUND, index=new.index, customer=known.customer, would_be=new.customer)
            under = self._state.keys.get((known.wallet, known.index), 0)
            if (known.wallet, known.customer, under) == (new.wallet, new.customer, keys):
                yield Refusal(Rule.ALREADY_EXISTS, customer=new.customer, wallet=new.wallet.hex(), index=known.index)
            if (known.chain, known.address) == (new.chain, new.address):
                yield Refusal(Rule.ALREADY_EXISTS, address=new.address, chain=new.chain, customer=known.customer)


class FakeDocuments:
    """Documents in a dict, in the order they were stored."""

    def __init__(self, state: _State, check: Callable[[], None]) -> None:
        self._state, self._check = state, check

    def put(self, kind: str, key: str, body: Mapping[str, object]) -> None:
        """Once."""
        self._check()
        known = self._state.documents.setdefault((kind, key), copy.deepcopy(dict(body)))
        if canonical(known) != canonical(dict(body)):
            raise Refused([Refusal(Rule.ALREADY_EXISTS, kind=kind, key=key)])

    def get(self, kind: str, key: str) -> Mapping[str, object] | None:
        """One."""
        return copy.deepcopy(self._state.documents.get((kind, key)))

    def all(self, kind: str) -> Sequence[Mapping[str, object]]:
        """All of a kind."""
        return [copy.deepcopy(body) for (of, _), body in self._state.documents.items() if of == kind]


class FakeLeases:
    """Leases in a dict; one that was given back has no holder."""

    def __init__(self, state: _State, check: Callable[[], None]) -> None:
        self._state, self._check = state, check

    def acquire(self, name: str, holder: str, now: int, seconds: int) -> Lease:
        """A turn, or whose it is."""
        self._check()
        if not name or not holder or seconds < 1:
            raise InvalidInput(
                "lease", Rule.MALFORMED, f"{name!r}, {holder!r}, {seconds}", "a name, a holder, some time"
            )
        known = self._state.leases.get(name)
        if known is not None and known.holder not in ("", holder) and known.until > now:
            return known
        self._state.leases[name] = Lease(name, holder, known.token + 1 if known else 1, now + seconds)
        return self._state.leases[name]

    def check(self, lease: Lease) -> None:
        """Whether it is still its turn."""
        known = self._state.leases.get(lease.name)
        if known is None or (known.holder, known.token) != (lease.holder, lease.token):
            raise Unavailable(f"lease {lease.name}", f"lease lost: turn {lease.token} is over")

    def renew(self, lease: Lease, now: int, seconds: int) -> Lease:
        """Longer."""
        self._check()
        self.check(lease)
        until = max(self._state.leases[lease.name].until, now + seconds)
        self._state.leases[lease.name] = replace(lease, until=until)
        return self._state.leases[lease.name]

    def release(self, lease: Lease) -> None:
        """Given back."""
        self._check()
        known = self._state.leases.get(lease.name)
        if known is not None and (known.holder, known.token) == (lease.holder, lease.token):
            self._state.leases[lease.name] = replace(known, holder="", until=0)


class FakeVisits:
    """A dict by name."""

    def __init__(self, state: _State, check: Callable[[], None]) -> None:
        self._state, self._check = state, check

    def add(self, visit: Visit) -> None:
        """See `Visits`."""
        self._check()
        if visit.name in self._state.visits:
            raise Refused([Refusal(Rule.ALREADY_EXISTS, kind="visit", key=visit.name.hex())])
        self._state.visits[visit.name] = visit

    def get(self, name: bytes) -> Visit | None:
        """See `Visits`."""
        return self._state.visits.get(name)

    def see(self, name: bytes, at: int) -> None:
        """See `Visits`."""
        self._check()
        if (known := self._state.visits.get(name)) is not None and known.seen < at:
            self._state.visits[name] = replace(known, seen=at)

    def end(self, name: bytes) -> bool:
        """See `Visits`."""
        self._check()
        return self._state.visits.pop(name, None) is not None

    def of(self, person: str) -> Sequence[Visit]:
        """See `Visits`."""
        mine = [visit for visit in self._state.visits.values() if visit.person == person]
        return sorted(mine, key=lambda visit: visit.begun, reverse=True)

    def forget(self, before: int) -> None:
        """See `Visits`."""
        self._check()
        self._state.visits = {name: visit for name, visit in self._state.visits.items() if visit.until >= before}


class FakeListing:
    """See `Listing`: everything is looked at each time."""

    def __init__(self, state: _State) -> None:
        self._state = state

    def entries(self, before: int, limit: int, accounts: Sequence[Account] = ()) -> Sequence[JournalEntry]:
        """Descending."""
        named = {str(account) for account in accounts}
        found = [
            each
            for each in reversed(self._state.entries)
            if each.position < before and (not named or named & {str(p.account) for p in each.entry.postings})
        ]
        return found[:limit]

    def balances(self, kind: AccountKind, limit: int) -> Sequence[tuple[Account, Asset, int]]:
        """By name."""
        found = FakeJournal(self._state, lambda: None).balances()
        return sorted(((a, s, u) for a, s, u in found if a.kind is kind), key=lambda row: str(row[0]))[:limit]

    def deposits(
        self, before: int, limit: int, status: DepositStatus | None = None, addresses: Sequence[str] = ()
    ) -> Sequence[tuple[int, Deposit]]:
        """In the order in which they came, from the end."""
        found = [
            (number, each)
            for number, each in enumerate(self._state.deposits.values(), 1)
            if number < before
            and status in (None, each.status)
            and (not addresses or each.sighting.address.text in addresses)
        ]
        return found[::-1][:limit]

    def numbers(self, kind: str, most: int) -> Sequence[int]:
        """Ascending."""
        return spread([n for n, (sort, _) in enumerate(self._state.documents, 1) if sort == kind], most)

    def document(self, kind: str, number: int) -> Mapping[str, object] | None:
        """By place."""
        rows = list(self._state.documents.items())
        return rows[number - 1][1] if 0 < number <= len(rows) and rows[number - 1][0][0] == kind else None

    def events(self, kind: EventKind, before: int, limit: int, *, about: str = "", person: str = "") -> Sequence[Event]:
        """No fast test leafs through the trail."""
        raise NotImplementedError(kind)


class FakeUnitOfWork:
    """One transaction over a state."""

    def __init__(self, state: _State, check: Callable[[], None]) -> None:
        self.journal, self.deposits = FakeJournal(state, check), FakeDeposits(state, check)
        self.customers, self.documents = FakeCustomers(state, check), FakeDocuments(state, check)
        self.transfers, self.enrolments = FakeTransfers(state.rows, check), FakeEnrolments(state.rows, check)
        self.leases, self.visits = FakeLeases(state, check), FakeVisits(state, check)
        self.listing = FakeListing(state)


class FakeStore:
    """Transactions over a dict: work gets a copy, which takes the place of the state once the work is done."""

    def __init__(self) -> None:
        self._state, self._turn = _State(), threading.Lock()

    def run(self, work: Callable[[UnitOfWork], T]) -> T:
        """Run work on a copy and keep it."""
        with self._turn:
            state = _copy(self._state)
            result = work(FakeUnitOfWork(state, lambda: None))
            self._state = state
            return result

    def read(self, work: Callable[[UnitOfWork], T]) -> T:
        """Run work on the state as it is now; writing raises Unavailable."""
        return work(FakeUnitOfWork(_copy(self._state), _refuse))


def _copy(state: _State) -> _State:
    return _State(
        list(state.entries),
        dict(state.followed),
        dict(state.deposits),
        list(state.customers),
        list(state.addresses),
        dict(state.keys),
        dict(state.documents),
        state.rows.copy(),
        dict(state.leases),
        dict(state.visits),
    )


def _refuse() -> None:
    raise Unavailable("store", "this unit of work cannot write")
