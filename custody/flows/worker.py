# SPDX-License-Identifier: AGPL-3.0-or-later
"""Moves each transfer one stage at a time: authorize, sign, broadcast, follow, settle. It holds no key and decides nothing.

A step begins from what the store says, so killing it at any moment loses nothing. One bad transfer never stops the others: whatever
goes wrong is said with the transfers that wait for it. An EVM wallet has one unsent payout at a time, since a nonce that is stuck
holds up every later one; until it is out, what waits behind it stays free to be cancelled.

Several workers share the wallets: each takes a turn at one wallet after another, and what it writes in a turn is fenced (leases.py).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from custody.flows import payout_records as records
from custody.flows import proposals, signing, sweeping
from custody.flows.authorization import SigningPermit, authorize
from custody.flows.bumping import bump
from custody.flows.inventory import Wallet
from custody.flows.kernel import Kernel
from custody.flows.leases import LEASE, Relayed, Turns, nobody_gone, relayed, wallet_turn
from custody.flows.payouts import Decode, Post, settle
from custody.flows.ports import AttestorPort, ChainView, Clock, Damaged, PayoutChain, SeatPort, Store, UnitOfWork
from custody.flows.routes import find_route
from custody.rules.errors import CustodyError, InvalidInput, Unavailable
from custody.rules.intents import Anchor
from custody.rules.payments import Envelope, Payment, Sweep
from custody.rules.refusals import Refusal, Refused, Rule
from custody.rules.requirement import Outcome
from custody.rules.signatures import Signed
from custody.rules.statements import Statement
from custody.rules.transfers import Permit, Status, SubStatus, Transfer, move
from custody.rules.wallets import Chain

BATCH_MOST: Final = 100
RETRY: Final = 10
"""Seconds after which what was refused or blocked is tried again."""
_TRIES: Final = 16
_UNASKED: Final = (Status.QUEUED, Status.BLOCKED)
_UNSENT: Final = frozenset({Status.PENDING_SIGNATURE, Status.BROADCASTING, Status.BROADCAST_UNKNOWN, Status.CANCELLING})


@dataclass(frozen=True)
class Parts:
    """What a worker is composed of. `kernel` is asked once a step, since documents change; `clock` is the documents' time."""

    store: Store
    kernel: Callable[[], Kernel]
    chains: Mapping[Chain, PayoutChain]
    views: Mapping[Chain, ChainView]
    seats: Sequence[SeatPort]
    attestor: AttestorPort
    decode: Decode
    clock: Clock
    holder: str = "worker"
    """This worker among several: two of one name would take each other's turns away, which costs time and nothing else."""
    wall: Clock | None = None
    """The machine's time, by which leases lapse; `clock` where there is none."""
    lease: int = LEASE
    """Seconds of a turn at a wallet."""
    gone: Callable[[str], bool] = nobody_gone
    """Whether a holder is known to be dead, so that nobody waits for its leases."""


@dataclass
class Pace:
    """What a running worker remembers between steps; nothing is lost with it but patience."""

    retry: int = RETRY
    again: dict[str, int] = field(default_factory=dict)
    """When something is tried again, by transfer or anchor."""
    shown: int = 0
    """The number of the newest transfer that the attestor was shown: delays count from its first sight."""

    def is_due(self, what: str, now: int) -> bool:
        """Whether its time to wait is over."""
        return self.again.get(what, 0) <= now

    def wait(self, what: str, now: int) -> None:
        """Try it again later."""
        self.again[what] = now + self.retry


@dataclass(frozen=True, slots=True)
class Line:
    """One transfer after a step: where it stands and for whom or what it waits."""

    transfer: str
    status: Status
    sub_status: SubStatus | None
    waiting_for: str


@dataclass(frozen=True, slots=True)
class StepReport:
    """What a step moved, every unfinished transfer as it stands, and what did not answer or was refused on the way."""

    moved: tuple[Line, ...]
    waiting: tuple[Line, ...]
    faults: tuple[str, ...]


def step(parts: Parts, pace: Pace | None = None) -> StepReport:
    """One look at everything. Raises Unavailable and Refused only where the store or the kernel cannot be read at all."""
    before = _lines(parts.store)
    walk = _Step(parts, pace or Pace(retry=0))
    walk.run()
    faults: list[str] = []
    after = _lines(parts.store, faults)
    ended = [line for digest in before.keys() - after.keys() if (line := _ended(parts.store, digest)) is not None]
    moved = [line for digest, line in after.items() if before.get(digest) != line]
    return StepReport((*moved, *ended), tuple(after.values()), (*faults, *walk.faults))


def _lines(store: Store, faults: list[str] | None = None) -> dict[bytes, Line]:
    """Every unfinished transfer that can be read; of a damaged one it is said which, and what differs."""
    statuses = [status for status in Status if not status.is_final]
    found = store.read(lambda work: [*_all(work, statuses)])
    if faults is not None:
        faults += [str(damaged.why) for damaged in found if isinstance(damaged, Damaged)]
    return {transfer.digest: _line(transfer) for transfer in found if isinstance(transfer, Transfer)}


def _ended(store: Store, digest: bytes) -> Line | None:
    try:
        found = store.read(lambda work: work.transfers.get(digest))
    except InvalidInput:  # damaged meanwhile: that is said where it is read
        return None
    return None if found is None or not found.status.is_final else _line(found)


def _line(transfer: Transfer) -> Line:
    return Line(transfer.intent.id, transfer.status, transfer.sub_status, transfer.waiting_for)


def _all(
    work: UnitOfWork, statuses: Sequence[Status], after: int = 0, wallet: bytes | None = None
) -> Iterator[Transfer | Damaged]:
    while page := work.transfers.examine(after, 500, wallet=wallet, statuses=statuses):
        yield from (transfer for _, transfer in page)
        after = page[-1][0]


def _newest(work: UnitOfWork, after: int) -> int:
    """The number of the newest transfer."""
    while page := work.transfers.examine(after, 500):
        after = page[-1][0]
    return after


class _Step:
    """One step. Every payout and every wallet is a case of its own: what fails in one is noted, and the next one begins."""

    def __init__(self, parts: Parts, pace: Pace) -> None:
        self._parts, self._pace, self._store = parts, pace, parts.store
        self._now, self._kernel = parts.clock(), parts.kernel()
        self._statement: Signed[Statement] | None = None
        self._unsent: dict[bytes, str] = {}
        """EVM wallets with a payout that is not out yet, and its nonce."""
        self._turns = Turns(parts.store, parts.holder, parts.wall or parts.clock, parts.lease, parts.gone)
        self._relayed: dict[Chain, Relayed] = {}
        self.faults: list[str] = []

    def run(self) -> None:
        """Everything once: what expired, what is on its way, what may begin."""
        self._case("expiry", self._expire)
        self._case("first sight", self._show)
        for chain, name in self._wallets():
            self._case(f"wallet {name.hex()}", lambda c=chain, n=name: self._turn(c, n))  # type: ignore[misc]

    def _expire(self) -> None:
        if self._store.read(lambda work: work.transfers.expiring(self._now, 1)):
            with self._turns.turn("expiry") as store:
                if store is not None:
                    proposals.expire(store, self._kernel, self._now)

    def _wallets(self) -> Sequence[tuple[str, bytes]]:
        """Wallets with something on its way or ready to begin, in that order."""
        permits = self._store.read(lambda work: work.transfers.examine_permitted())
        self.faults += [str(permit.why) for permit in permits if isinstance(permit, Damaged)]
        busy = [(anchor.chain, anchor.wallet) for anchor in map(_anchor_of, permits)]
        return list(dict.fromkeys((*busy, *self._queues())))

    def _turn(self, chain: str, name: bytes) -> None:
        """Everything of one wallet, read after its lease was taken: what another worker did before is seen. Else nothing."""
        with self._turns.turn(wallet_turn(chain, name)) as store:
            if store is None:
                return
            self._store = store
            try:
                for permit in self._store.read(lambda work: work.transfers.examine_permitted()):
                    anchor = _anchor_of(permit)
                    if (anchor.chain, anchor.wallet) == (chain, name):
                        self._try(permit, anchor)
                if waiting := self._queues(name).get((chain, name)):
                    self._begin(chain, name, waiting)
            finally:
                self._store = self._parts.store
                if (relayer := self._relayed.pop(Chain(chain), None)) is not None:
                    relayer.end()

    def _case(self, what: str, do: Callable[[], object]) -> CustodyError | None:
        try:
            do()
        except (Unavailable, Refused, InvalidInput) as error:
            self.faults.append(f"{what}: {error}")
            return error
        return None

    def _said(self) -> Signed[Statement]:
        """One statement serves a whole step: what is permitted meanwhile is counted beside it."""
        if self._statement is None:
            self._statement = self._parts.attestor.statement()
        return self._statement

    def _show(self) -> None:
        """The attestor counts delays from its first sight, so it is shown what is new."""
        newest = self._store.read(lambda work: _newest(work, self._pace.shown))
        if newest > self._pace.shown:
            self._said()
            self._pace.shown = newest

    # what has its permit

    def _try(self, permit: Permit | Damaged, anchor: Anchor) -> None:
        """Move a payout on. A damaged one stays as it is: what would be moved with it, nobody knows."""
        try:
            if isinstance(permit, Permit):
                self._permitted(permit)
                return
        except InvalidInput as error:
            self.faults.append(f"payout {anchor.reference}: {error}")
        kept = self._store.read(lambda work: work.transfers.kept(anchor))
        if Chain(anchor.chain).is_evm and not kept:  # its nonce has to be used before every later one
            self._unsent.setdefault(anchor.wallet, anchor.reference)

    def _permitted(self, permit: Permit) -> None:
        anchor, carried = permit.reservation.anchor, self._carried(permit)
        key = f"{anchor.chain}/{anchor.wallet.hex()}/{anchor.reference}"
        first = self._unsent.get(anchor.wallet)
        if first is not None and carried and carried[0].status is Status.PENDING_SIGNATURE:
            self._mark(permit, Status.PENDING_SIGNATURE, f"nonce {first} of its wallet to be sent first")
        elif self._pace.is_due(key, self._now):
            error = self._case(f"payout {anchor.reference}", lambda: self._advance(permit))
            if error is not None:
                self._pace.wait(key, self._now)
                if carried and carried[0].status is Status.PENDING_SIGNATURE:
                    self._case(key, lambda: self._mark(permit, Status.PENDING_SIGNATURE, str(error)))
        after = self._carried(permit)
        if after and after[0].status in _UNSENT and Chain(anchor.chain).is_evm:
            self._unsent.setdefault(anchor.wallet, anchor.reference)

    def _advance(self, permit: Permit) -> None:
        anchor, carried = permit.reservation.anchor, self._carried(permit)
        if not carried:
            return
        if carried[0].status is Status.PENDING_SIGNATURE:
            chain = self._chain(anchor)
            found = authorize(self._store, self._kernel, permit.intents, self._said(), chain, self._now)
            if isinstance(found, SigningPermit):
                self._sign(found, None)
            return
        try:
            if carried[0].status is Status.CANCELLING:
                self._sign_void(permit)
        finally:  # a void that comes too late is refused for good, and what consumed the anchor has to be booked all the same
            status = settle(self._post(anchor), permit)
            if status is Status.CONFIRMING and carried[0].status is not Status.CONFIRMING:
                settle(self._post(anchor), permit)
        self._bump(permit)

    def _bump(self, permit: Permit) -> None:
        """What no block takes for long goes out again for a higher fee, within what people approved."""
        anchor = permit.reservation.anchor
        wallet, key = self._kernel.inventory.wallets.get(anchor.wallet), f"bump {anchor.chain}/{anchor.reference}"
        if wallet is not None and self._pace.is_due(key, self._now):
            self._pace.wait(key, self._now)
            bump(self._ceremony(anchor), self._post(anchor), permit, wallet)

    def _sign(self, permit: SigningPermit, sweeps: tuple[Sweep, ...] | None) -> None:
        """Sign, and send at once: the relayer's next envelope needs to know this one. `sweeps` are planned where None."""
        anchor = permit.permit.reservation.anchor
        if sweeps is None:
            view, chain = self._view(anchor), self._chain(anchor)
            sweeps = sweeping.plan(self._kernel, chain, view, permit.wallet, permit.payments)
        made = signing.sign(self._ceremony(anchor), permit, sweeps)
        if isinstance(made, Envelope):
            if settle(self._post(anchor), permit.permit) is Status.CONFIRMING:
                settle(self._post(anchor), permit.permit)
        else:
            self._pace.wait(f"{anchor.chain}/{anchor.wallet.hex()}/{anchor.reference}", self._now)

    def _sign_void(self, permit: Permit) -> None:
        anchor = permit.reservation.anchor
        void = self._store.read(lambda work: records.void_of(work, anchor))
        wallet = self._kernel.inventory.wallets.get(anchor.wallet)
        if void is None or wallet is None:
            raise Refused([Refusal(Rule.SIGNATURE_MISSING, document="Void", anchor=anchor.reference)])
        made = signing.sign_void(self._ceremony(anchor), permit, void, wallet)
        if not isinstance(made, Envelope):
            self._pace.wait(f"{anchor.chain}/{anchor.wallet.hex()}/{anchor.reference}", self._now)

    # what may begin

    def _queues(self, wallet: bytes | None = None) -> dict[tuple[str, bytes], list[Transfer]]:
        """Transfers that may be authorized now, by the wallet that pays: their delay is over and it is time to try again."""
        found: dict[tuple[str, bytes], list[Transfer]] = {}
        for transfer in self._store.read(lambda work: [*_all(work, _UNASKED, wallet=wallet)]):
            if isinstance(transfer, Transfer) and transfer.live and self._is_ready(transfer):
                found.setdefault((transfer.intent.chain, transfer.intent.wallet), []).append(transfer)
        return found

    def _is_ready(self, transfer: Transfer) -> bool:
        by_itself = (transfer.decision or {}).get("outcome") == Outcome.AUTOMATIC
        asked = None if by_itself else proposals.requirement_of(transfer.decision)
        # a freeze that ended is looked at again at once: its people are to be asked while the time-lock runs, not after it
        thawed = transfer.sub_status is SubStatus.FROZEN and self._kernel.freeze_of(transfer.intent, self._now) is None
        delay = 0 if asked is None or thawed else asked.delay
        due = self._now >= max(transfer.intent.not_before, transfer.created_at + delay)
        return due and self._pace.is_due(transfer.intent.id, self._now)

    def _begin(self, chain: str, name: bytes, waiting: Sequence[Transfer]) -> None:
        """One payout for a wallet: as many of those in the queue as go together, else one of those that were blocked."""
        wallet, anchor = self._kernel.inventory.wallets.get(name), Anchor(chain, name, "")
        if wallet is None:
            raise Refused([Refusal(Rule.UNKNOWN_WALLET, wallet=name.hex())])
        if name in self._unsent:
            self._say(waiting, Status.QUEUED, None, f"nonce {self._unsent[name]} of its wallet to be sent first")
            return
        drift = self._chain(anchor).preflight(name, wallet.certificate)
        if drift:
            self._say(waiting, Status.BLOCKED, SubStatus.FROZEN, "; ".join(str(refusal) for refusal in drift))
            return
        queued = [transfer for transfer in waiting if transfer.status is Status.QUEUED]
        blocked = [(transfer,) for transfer in waiting if transfer.status is Status.BLOCKED]
        for group in filter(None, (self._together(queued, wallet), *blocked)):
            payable, sweeps = self._payable(group, wallet)
            permit = self._authorize(payable, anchor)
            if permit is not None:
                key = f"payout {permit.permit.reservation.anchor.reference}"
                error = self._case(key, lambda p=permit, s=sweeps: self._sign(p, s))  # type: ignore[misc]
                if error is not None:
                    self._case(key, lambda p=permit, e=error: self._explain(p.permit, e))  # type: ignore[misc]
                return

    def _together(self, queued: Iterable[Transfer], wallet: Wallet) -> tuple[Transfer, ...]:
        """The oldest of the queue. What nobody approves stays together within one seat's share of a day: more would be refused."""
        found: list[Transfer] = []
        alone: dict[str, int] = {}
        certificate = wallet.certificate
        for transfer in queued:
            asset, units = transfer.intent.asset, transfer.intent.amount + transfer.intent.maximum_fee
            if (transfer.decision or {}).get("outcome") == Outcome.AUTOMATIC:
                day = min(
                    (b.rules.floors.automatic_day.get(asset, 0) for b in self._kernel.bundles(transfer.intent.policy)),
                    default=0,
                )
                if found and alone.get(asset, 0) + units > day * (certificate.m - 1) // max(1, certificate.n - 1):
                    continue
                alone[asset] = alone.get(asset, 0) + units
            found.append(transfer)
            if len(found) == BATCH_MOST:
                break
        return tuple(found)

    def _payable(self, group: Sequence[Transfer], wallet: Wallet) -> tuple[tuple[Transfer, ...], tuple[Sweep, ...]]:
        """Without what would revert: one failing leaf takes the whole batch with it, and its nonce would need a void.

        Tried on the chain before anything is pinned; what fails is blocked and says why. Bitcoin has no such leaves.
        """
        left = list(group)
        if not wallet.chain.is_evm:
            return tuple(left), ()
        anchor = Anchor(wallet.chain.name, wallet.name, "")
        chain, view = self._chain(anchor), self._view(anchor)
        taken = self._store.read(lambda work: work.transfers.taken(wallet.chain.name, wallet.name))
        while left:
            routed = [*self._payments(left)]
            left = [transfer for transfer, _ in routed]
            payments = [payment for _, payment in routed]
            if not left:
                break
            sweeps = sweeping.plan(self._kernel, chain, view, wallet, payments)
            try:
                chain.build(
                    wallet.certificate,
                    chain.next_anchor(wallet.name, wallet.certificate, payments, taken),
                    payments,
                    sweeps,
                )
            except Refused as error:
                failing = _failing(error, len(sweeps), left)
                self._say(failing, Status.BLOCKED, None, "; ".join(str(refusal) for refusal in error.refusals))
                left = [transfer for transfer in left if transfer not in failing]
                continue
            return tuple(left), sweeps
        return (), ()

    def _payments(self, transfers: Sequence[Transfer]) -> Iterator[tuple[Transfer, Payment]]:
        for transfer in transfers:
            intent, proposal = transfer.intent, transfer.proposal.message
            try:
                route = self._store.read(
                    lambda work, p=proposal, e=intent.enrolment: find_route(work, self._kernel, p, self._now, e)  # type: ignore[misc]
                )
            except Refused as error:
                self._say([transfer], Status.BLOCKED, SubStatus.BLOCKED_BY_POLICY, str(error))
                continue
            yield (
                transfer,
                Payment(
                    transfer.digest, intent.asset, intent.amount, route.destination, intent.maximum_fee, route.derived
                ),
            )

    def _authorize(self, group: Sequence[Transfer], anchor: Anchor) -> SigningPermit | None:
        """The largest part of a group that is permitted: those that are refused are left out, then fewer are asked for."""
        asked = [transfer.digest for transfer in group]
        by_digest = {transfer.digest: transfer for transfer in group}
        for _ in range(_TRIES):
            if not asked:
                return None
            try:
                found = authorize(self._store, self._kernel, asked, self._said(), self._chain(anchor), self._now)
            except Refused as error:
                if len(asked) == 1:
                    self._say([by_digest[asked[0]]], Status.BLOCKED, None, str(error))
                asked = asked[: len(asked) // 2]
                continue
            if isinstance(found, SigningPermit):
                return found
            for digest in found.refusals:
                self._pace.wait(by_digest[digest].intent.id, self._now)
            left = [digest for digest in asked if digest not in found.refusals]
            asked = left or asked[: len(asked) // 2]  # all of them: together they are too much
        return None

    # small things

    def _carried(self, permit: Permit) -> tuple[Transfer, ...]:
        return self._store.read(lambda work: records.carried(work, permit))

    def _mark(self, permit: Permit, status: Status, why: str) -> None:
        self._store.run(lambda work: records.mark(work, permit, status, self._now, None, why))

    def _explain(self, permit: Permit, error: CustodyError) -> None:
        carried = self._carried(permit)
        if carried and carried[0].status is Status.PENDING_SIGNATURE:
            self._mark(permit, Status.PENDING_SIGNATURE, str(error))

    def _say(self, transfers: Sequence[Transfer], status: Status, sub_status: SubStatus | None, why: str) -> None:
        """Say what transfers wait for that were not asked about yet; one that moved on meanwhile is left alone."""
        told = why[: records.TOLD]

        def work(work: UnitOfWork) -> None:
            for known in transfers:
                transfer = work.transfers.get(known.digest)
                if transfer is None or transfer.status.is_final or transfer.status.is_asked:
                    continue
                if (transfer.status, transfer.sub_status, transfer.waiting_for) != (status, sub_status, told):
                    work.transfers.update(move(transfer, status, self._now, sub_status, told), transfer)

        self._store.run(work)
        if status is Status.BLOCKED:
            for known in transfers:
                self._pace.wait(known.intent.id, self._now)

    def _chain(self, anchor: Anchor) -> PayoutChain:
        chain = Chain(anchor.chain)
        found = self._parts.chains.get(chain)
        if found is None:
            raise Unavailable(f"chain {anchor.chain}", "no node of it is configured")
        return self._relayed.setdefault(chain, relayed(found, self._turns)) if chain.is_evm else found

    def _view(self, anchor: Anchor) -> ChainView:
        found = self._parts.views.get(Chain(anchor.chain))
        if found is None:
            raise Unavailable(f"chain {anchor.chain}", "no node of it is configured")
        return found

    def _ceremony(self, anchor: Anchor) -> signing.Ceremony:
        parts = self._parts
        return signing.Ceremony(self._store, self._kernel, self._chain(anchor), parts.seats, parts.attestor, self._now)

    def _post(self, anchor: Anchor) -> Post:
        return Post(self._store, self._kernel, self._chain(anchor), self._view(anchor), self._parts.decode, self._now)


def _anchor_of(permit: Permit | Damaged) -> Anchor:
    """The anchor that a permit pins; of a damaged one as its UNIQUE columns have it."""
    if isinstance(permit, Permit):
        return permit.reservation.anchor
    if permit.anchor is None:
        raise InvalidInput(permit.name, Rule.ROW_DAMAGED, "no anchor", "a permit's anchor")
    return permit.anchor


def _failing(error: Refused, sweeps: int, group: Sequence[Transfer]) -> list[Transfer]:
    """Whose leaf fails, where the chain names one; the whole group otherwise."""
    for refusal in error.refusals:
        at = refusal.operands.get("leaf")
        if refusal.rule is Rule.LEAF_FAILS and isinstance(at, int) and sweeps <= at < sweeps + len(group):
            return [group[at - sweeps]]
    return list(group)
