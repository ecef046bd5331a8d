# SPDX-License-Identifier: AGPL-3.0-or-later
"""Moves each transfer one stage at a time: authorize, sign, broadcast, follow, settle. It holds no key and decides nothing.

A step begins from what the store says, so killing it at any moment loses nothing. One bad transfer never stops the others: whatever
goes wrong is said with the transfers that wait for it. An EVM wallet has one unsent payout at a time, since a nonce that is stuck
holds up every later one; until it is out, what waits behind it stays free to be cancelled.

Several workers share the wallets: each takes a turn at one wallet after another, and what it writes in a turn is fenced (leases.py).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from custody.flows import payout_records as records
from custody.flows import proposals, rotation_orders, signing, sweep_records, sweeping
from custody.flows.authorization import SigningPermit, authorize
from custody.flows.beginning import begin, ready
from custody.flows.bumping import bump
from custody.flows.bumping_voids import bump_void
from custody.flows.errands import Tidied
from custody.flows.homing import bring_home
from custody.flows.inventory import Wallet
from custody.flows.leases import turn_of
from custody.flows.payouts import settle
from custody.flows.ports import Damaged, Store, UnitOfWork
from custody.flows.rotating import rotate
from custody.flows.steps import Pace, Parts, Step, transfers_of
from custody.flows.tidying import tidy
from custody.rules.errors import CustodyError, InvalidInput
from custody.rules.intents import Anchor
from custody.rules.payments import Envelope, Sweep
from custody.rules.refusals import Refusal, Refused, Rule
from custody.rules.transfers import Permit, Status, SubStatus, Transfer
from custody.rules.wallets import Chain, Tier

__all__ = ["LOOK", "Line", "Pace", "Parts", "StepReport", "step"]

_UNSENT: Final = frozenset({Status.PENDING_SIGNATURE, Status.BROADCASTING, Status.BROADCAST_UNKNOWN, Status.CANCELLING})

LOOK: Final = 60
"""Seconds between two looks at what lies on deposit addresses: each asks a node for every one of them."""


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
    walk = Step(parts, pace or Pace(retry=0))
    _run(walk)
    faults: list[str] = []
    after = _lines(parts.store, faults)
    ended = [line for digest in before.keys() - after.keys() if (line := _ended(parts.store, digest)) is not None]
    moved = [line for digest, line in after.items() if before.get(digest) != line]
    return StepReport((*moved, *ended), tuple(after.values()), (*faults, *walk.faults))


def _lines(store: Store, faults: list[str] | None = None) -> dict[bytes, Line]:
    """Every unfinished transfer that can be read; of a damaged one it is said which, and what differs."""
    statuses = [status for status in Status if not status.is_final]
    found = store.read(lambda work: [*transfers_of(work, statuses)])
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


def _run(step: Step) -> None:
    """Everything once: what expired, what is on its way, what may begin."""
    step.case("expiry", partial(_expire, step))
    step.case("first sight", partial(_show, step))
    for chain, name in _wallets(step):
        step.case(f"wallet {name.hex()}", partial(_turn, step, chain, name))


def _expire(step: Step) -> None:
    if step.store.read(lambda work: work.transfers.expiring(step.now, 1)):
        with step.turns.turn("expiry") as store:
            if store is not None:
                proposals.expire(store, step.kernel, step.now)


def _show(step: Step) -> None:
    """The attestor counts delays from its first sight, so it is shown what is new."""
    newest = step.store.read(lambda work: _newest(work, step.pace.shown))
    if newest > step.pace.shown:
        step.said()
        step.pace.shown = newest


def _newest(work: UnitOfWork, after: int) -> int:
    """The number of the newest transfer."""
    while page := work.transfers.examine(after, 500):
        after = page[-1][0]
    return after


def _wallets(step: Step) -> Sequence[tuple[str, bytes]]:
    """Wallets with something on its way or ready to begin, in that order."""
    permits = step.store.read(lambda work: work.transfers.examine_permitted())
    step.faults += [str(permit.why) for permit in permits if isinstance(permit, Damaged)]
    busy = [(anchor.chain, anchor.wallet) for anchor in map(_anchor_of, permits)]
    return list(dict.fromkeys((*busy, *ready(step), *_swept(step), *_rekeyed(step))))


def _swept(step: Step) -> Iterator[tuple[str, bytes]]:
    """Wallets whose deposit addresses are to be looked at: a sweep that is under way every step, another one by schedule."""
    for wallet in step.kernel.inventory if step.parts.sweeps else ():
        if wallet.tier is Tier.CUSTOMER_HOT and wallet.chain.is_evm and step.pace.is_due(_sweep(wallet.name), step.now):
            yield wallet.chain.name, wallet.name


def _rekeyed(step: Step) -> Iterator[tuple[str, bytes]]:
    """Wallets whose keys are being changed, and those with coins under an older certificate to look for."""
    for wallet in step.kernel.inventory:
        older = not wallet.chain.is_evm and len(wallet.certificates) > 1
        if (older and step.pace.is_due(_home(wallet.name), step.now)) or step.store.read(
            partial(rotation_orders.standing, wallet=wallet)
        ):
            yield wallet.chain.name, wallet.name


def _turn(step: Step, chain: str, name: bytes) -> None:
    """Everything of one wallet, read after its lease was taken: what another worker did before is seen. Else nothing."""
    with step.turns.turn(turn_of(Chain(chain), name)) as store:
        if store is None:
            return
        step.store = store
        try:
            for permit in store.read(lambda work: work.transfers.examine_permitted()):
                anchor = _anchor_of(permit)
                if (anchor.chain, anchor.wallet) == (chain, name):
                    _try(step, permit, anchor)
            step.case(f"rotation of wallet {name.hex()}", partial(_rotate, step, chain, name))
            step.case(f"sweep of {name.hex()}", partial(_tidy, step, chain, name))
            if waiting := ready(step, name).get((chain, name)):
                _begin(step, chain, name, waiting)
        finally:
            step.store = step.parts.store


def _rotate(step: Step, chain: str, name: bytes) -> None:
    """Carry out what people ordered of the wallet's keys, and bring home what lies under older ones. Nothing begins meanwhile."""
    wallet = step.kernel.inventory.wallets.get(name)
    if wallet is None:
        return
    anchor, now = Anchor(chain, name, ""), step.now
    order, errand = step.store.read(
        lambda work: (rotation_orders.standing(work, wallet), sweep_records.under_way(work, name))
    )
    if order is not None:
        # said before it is tried: whatever goes wrong in it, nothing may be pinned for keys that are about to rest
        step.rotating[name] = "its wallet's next keys: a rotation is under way"
        idle = errand is None and not _pinned(step, wallet)
        found = rotate(step.ceremony(anchor), step.post(anchor), wallet, idle=idle)
        _say_errand(step, f"rotation of wallet {name.hex()}", wallet, found)
    elif not wallet.chain.is_evm and len(wallet.certificates) > 1 and step.pace.is_due(_home(name), now):
        found = bring_home(step.ceremony(anchor), step.post(anchor), wallet)
        if found is None:
            step.pace.again[_home(name)] = now + LOOK
        else:
            _say_errand(step, f"coins of wallet {name.hex()} under older keys", wallet, found)


def _say_errand(step: Step, what: str, wallet: Wallet, found: Tidied | None) -> None:
    if found is None:
        return
    if found.nonce and wallet.chain.is_evm:  # coins brought home hinder no payout that spends others
        step.unsent.setdefault(wallet.name, found.nonce)
    if found.why and wallet.name in step.rotating:
        step.rotating[wallet.name] = f"its wallet's next keys: {found.why}"
    if found.fault:
        step.faults.append(f"{what}: {found.why}")


def _pinned(step: Step, wallet: Wallet) -> bool:
    """Whether something of the wallet waits for its keys as they are: on EVM what is not out yet, on Bitcoin whatever has no end."""
    if wallet.chain.is_evm:
        return wallet.name in step.unsent
    permits = step.store.read(lambda work: work.transfers.examine_permitted())
    return any(_anchor_of(permit).wallet == wallet.name for permit in permits)


def _tidy(step: Step, chain: str, name: bytes) -> None:
    """Sweep deposit addresses, before anything begins behind their nonce; what that waits for is said as a fault."""
    wallet = step.kernel.inventory.wallets.get(name)
    if wallet is None or not wallet.chain.is_evm or not step.pace.is_due(_sweep(name), step.now):
        return
    anchor = Anchor(chain, name, "")
    idle = step.parts.sweeps and name not in step.unsent and name not in step.rotating
    try:
        found = tidy(step.ceremony(anchor), step.post(anchor), wallet, idle=idle)
    except CustodyError:
        run = step.store.read(partial(sweep_records.under_way, wallet=name))
        if run is not None:  # whether its nonce is in a block is not known: nothing begins behind it
            step.unsent.setdefault(name, run.anchor.reference)
        raise
    if found is None:
        step.pace.again[_sweep(name)] = step.now + LOOK
        return
    if found.nonce:
        step.unsent.setdefault(name, found.nonce)
    if found.fault:
        step.faults.append(f"sweep of wallet {name.hex()}: {found.why}")


def _home(wallet: bytes) -> str:
    """The name, in the worker's patience, of looking for coins under older keys."""
    return f"home {wallet.hex()}"


def _sweep(wallet: bytes) -> str:
    """A sweep's name in the worker's patience."""
    return f"sweep {wallet.hex()}"


def _begin(step: Step, chain: str, name: bytes, waiting: Sequence[Transfer]) -> None:
    begun = begin(step, chain, name, waiting)
    if begun is not None:
        _told(step, begun.permit.permit, partial(_sign, step, begun.permit, begun.sweeps))


# what has its permit


def _try(step: Step, permit: Permit | Damaged, anchor: Anchor) -> None:
    """Move a payout on. A damaged one stays as it is: what would be moved with it, nobody knows."""
    try:
        if isinstance(permit, Permit):
            _permitted(step, permit)
            return
    except InvalidInput as error:
        step.faults.append(f"payout {anchor.reference}: {error}")
    kept = step.store.read(lambda work: work.transfers.kept(anchor))
    if Chain(anchor.chain).is_evm and not kept:  # its nonce has to be used before every later one
        step.unsent.setdefault(anchor.wallet, anchor.reference)


def _permitted(step: Step, permit: Permit) -> None:
    anchor, carried = permit.reservation.anchor, _carried(step, permit)
    first = step.unsent.get(anchor.wallet)
    if first is not None and carried and carried[0].status is Status.PENDING_SIGNATURE:
        _mark(step, permit, f"nonce {first} of its wallet to be sent first")
    elif step.pace.is_due(_key(anchor), step.now) and _told(step, permit, partial(_advance, step, permit)) is not None:
        step.pace.wait(_key(anchor), step.now)
    after = _carried(step, permit)
    if after and after[0].status in _UNSENT and Chain(anchor.chain).is_evm:
        step.unsent.setdefault(anchor.wallet, anchor.reference)


def _advance(step: Step, permit: Permit) -> None:
    anchor, carried = permit.reservation.anchor, _carried(step, permit)
    if not carried:
        return
    if carried[0].status is Status.PENDING_SIGNATURE:
        found = authorize(step.store, step.kernel, permit.intents, step.said(), step.chain(anchor.chain), step.now)
        if isinstance(found, SigningPermit):
            wallet, chain, view = found.wallet, step.chain(anchor.chain), step.view(anchor.chain)
            _sign(step, found, sweeping.plan(step.kernel, chain, view, wallet, found.payments))
        return
    try:
        if carried[0].status is Status.CANCELLING:
            _sign_void(step, permit)
    finally:  # a void that comes too late is refused for good, and what consumed the anchor has to be booked all the same
        _settle(step, permit, carried[0].status)
    _bump(step, permit)


def _sign(step: Step, permit: SigningPermit, sweeps: tuple[Sweep, ...]) -> None:
    """Sign, and send at once: the relayer's next envelope needs to know this one."""
    anchor = permit.permit.reservation.anchor
    if isinstance(signing.sign(step.ceremony(anchor), permit, sweeps), Envelope):
        _settle(step, permit.permit, Status.PENDING_SIGNATURE)
    else:
        step.pace.wait(_key(anchor), step.now)


def _sign_void(step: Step, permit: Permit) -> None:
    anchor = permit.reservation.anchor
    void = step.store.read(lambda work: records.void_of(work, anchor))
    wallet = step.kernel.inventory.wallets.get(anchor.wallet)
    if void is None or wallet is None:
        raise Refused([Refusal(Rule.SIGNATURE_MISSING, document="Void", anchor=anchor.reference)])
    if not isinstance(signing.sign_void(step.ceremony(anchor), permit, void, wallet), Envelope):
        step.pace.wait(_key(anchor), step.now)


def _settle(step: Step, permit: Permit, was: Status) -> None:
    """Send, follow or book; what was only just sent is looked at once more, since a devnet's block may have it already."""
    post = step.post(permit.reservation.anchor)
    if settle(post, permit) is Status.CONFIRMING and was is not Status.CONFIRMING:
        settle(post, permit)


def _bump(step: Step, permit: Permit) -> None:
    """What no block takes for long goes out again for a higher fee, within what people approved."""
    anchor = permit.reservation.anchor
    wallet, key = step.kernel.inventory.wallets.get(anchor.wallet), f"bump {_key(anchor)}"
    if wallet is not None and step.pace.is_due(key, step.now):
        step.pace.wait(key, step.now)
        for again in (bump, bump_void):
            again(step.ceremony(anchor), step.post(anchor), permit, wallet)


def _told(step: Step, permit: Permit, do: partial[None]) -> CustodyError | None:
    """A case whose failure the payout's transfers say too, while nothing of it was signed."""
    name = f"payout {permit.reservation.anchor.reference}"
    error = step.case(name, do)
    if error is not None:
        step.case(name, partial(_explain, step, permit, error))
    return error


def _explain(step: Step, permit: Permit, error: CustodyError) -> None:
    carried = _carried(step, permit)
    if carried and carried[0].status is Status.PENDING_SIGNATURE:
        _mark(step, permit, str(error))


def _mark(step: Step, permit: Permit, why: str) -> None:
    step.store.run(lambda work: records.mark(work, permit, Status.PENDING_SIGNATURE, step.now, None, why))


def _carried(step: Step, permit: Permit) -> tuple[Transfer, ...]:
    return step.store.read(lambda work: records.carried(work, permit))


def _key(anchor: Anchor) -> str:
    """A payout's name in the worker's patience."""
    return f"{anchor.chain}/{anchor.wallet.hex()}/{anchor.reference}"


def _anchor_of(permit: Permit | Damaged) -> Anchor:
    """The anchor that a permit pins; of a damaged one as its UNIQUE columns have it."""
    if isinstance(permit, Permit):
        return permit.reservation.anchor
    if permit.anchor is None:
        raise InvalidInput(permit.name, Rule.ROW_DAMAGED, "no anchor", "a permit's anchor")
    return permit.anchor
