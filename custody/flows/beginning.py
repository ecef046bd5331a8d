# SPDX-License-Identifier: AGPL-3.0-or-later
"""Which transfers begin next at a wallet: what is ready, goes together, can be paid on the chain, and is permitted.

One failing payment never stops the others: it is found on the chain before anything is pinned, left out, and says why it waits.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from custody.flows import proposals, sweeping
from custody.flows.authorization import SigningPermit, authorize
from custody.flows.contracts import apart
from custody.flows.inventory import Wallet
from custody.flows.kernel import Kernel
from custody.flows.ports import UnitOfWork
from custody.flows.routes import Route, find_route
from custody.flows.steps import Step, transfers_of
from custody.rules.payments import Payment, Sweep
from custody.rules.refusals import Refusal, Refused, Rule
from custody.rules.requirement import Outcome
from custody.rules.transfers import Status, SubStatus, Transfer

BATCH_MOST: Final = 100
_TRIES: Final = 16
_UNASKED: Final = (Status.QUEUED, Status.BLOCKED)


@dataclass(frozen=True, slots=True)
class Begun:
    """A payout that has its permit, with the deposit Safes that it empties on its way."""

    permit: SigningPermit
    sweeps: tuple[Sweep, ...]


def ready(step: Step, wallet: bytes | None = None) -> dict[tuple[str, bytes], list[Transfer]]:
    """Transfers that may be authorized now, by the wallet that pays: their delay is over and it is time to try again."""
    found: dict[tuple[str, bytes], list[Transfer]] = {}
    for transfer in step.store.read(lambda work: [*transfers_of(work, _UNASKED, wallet=wallet)]):
        if isinstance(transfer, Transfer) and transfer.live and _is_ready(step, transfer):
            found.setdefault((transfer.intent.chain, transfer.intent.wallet), []).append(transfer)
    return found


def _is_ready(step: Step, transfer: Transfer) -> bool:
    # a freeze that ended is looked at again at once: its people are to be asked while the time-lock runs, not after it
    thawed = transfer.sub_status is SubStatus.FROZEN and step.kernel.freeze_of(transfer.intent, step.now) is None
    due = max(transfer.intent.not_before, transfer.created_at) if thawed else _due(transfer)
    return step.now >= due and step.pace.is_due(transfer.intent.id, step.now)


def _due(transfer: Transfer) -> int:
    """When its delay is over."""
    by_itself = (transfer.decision or {}).get("outcome") == Outcome.AUTOMATIC
    asked = None if by_itself else proposals.requirement_of(transfer.decision)
    return max(transfer.intent.not_before, transfer.created_at + (0 if asked is None else asked.delay))


def begin(step: Step, chain: str, name: bytes, waiting: Sequence[Transfer]) -> Begun | None:
    """One payout for a wallet: as many of those in the queue as go together, else one of those that were blocked.

    None where nothing may begin; each transfer then says why. Raises Refused: unknown_wallet, and Unavailable.
    """
    wallet = step.kernel.inventory.wallets.get(name)
    if wallet is None:
        raise Refused([Refusal(Rule.UNKNOWN_WALLET, wallet=name.hex())])
    if name in step.rotating:
        step.say(waiting, Status.QUEUED, None, step.rotating[name])
        return None
    if name in step.unsent:
        step.say(waiting, Status.QUEUED, None, f"nonce {step.unsent[name]} of its wallet to be sent first")
        return None
    drift = step.chain(chain).preflight(name, wallet.certificate)
    if drift:
        step.say(waiting, Status.BLOCKED, SubStatus.FROZEN, "; ".join(str(refusal) for refusal in drift))
        return None
    queued = [transfer for transfer in waiting if transfer.status is Status.QUEUED]
    blocked = [(transfer,) for transfer in waiting if transfer.status is Status.BLOCKED]
    groups = (_together(step.kernel, group, wallet) for group in apart(step.chain(chain), queued, _due))
    for group in filter(None, (*groups, *blocked)):
        payable, sweeps = _payable(step, group, wallet)
        permit = _permitted(step, payable, chain)
        if permit is not None:
            return Begun(permit, sweeps)
    return None


def _together(kernel: Kernel, queued: Iterable[Transfer], wallet: Wallet) -> tuple[Transfer, ...]:
    """The oldest of the queue. What nobody approves stays together within one seat's share of a day: more would be refused."""
    found: list[Transfer] = []
    alone: dict[str, int] = {}
    certificate = wallet.certificate
    for transfer in queued:
        asset, units = transfer.intent.asset, transfer.intent.amount + transfer.intent.maximum_fee
        if (transfer.decision or {}).get("outcome") == Outcome.AUTOMATIC:
            bundles = kernel.bundles(transfer.intent.policy)
            day = min((bundle.rules.floors.automatic_day.get(asset, 0) for bundle in bundles), default=0)
            if found and alone.get(asset, 0) + units > day * (certificate.m - 1) // max(1, certificate.n - 1):
                continue
            alone[asset] = alone.get(asset, 0) + units
        found.append(transfer)
        if len(found) == BATCH_MOST:
            break
    return tuple(found)


def _payable(step: Step, group: Sequence[Transfer], wallet: Wallet) -> tuple[tuple[Transfer, ...], tuple[Sweep, ...]]:
    """Without what would revert: one failing leaf takes the whole batch with it, and its nonce would need a void.

    Tried on the chain before anything is pinned; what fails is blocked and says why. Bitcoin has no such leaves.
    """
    left = list(group)
    if not wallet.chain.is_evm:
        return tuple(left), ()
    chain, view, certificate = step.chain(wallet.chain.name), step.view(wallet.chain.name), wallet.certificate
    taken = step.store.read(lambda work: work.transfers.taken(wallet.chain.name, wallet.name))
    while left:
        routed = [*_payments(step, left)]
        left = [transfer for transfer, _ in routed]
        payments = [payment for _, payment in routed]
        if not left:
            break
        sweeps = sweeping.plan(step.kernel, chain, view, wallet, payments)
        try:
            chain.build(certificate, chain.next_anchor(wallet.name, certificate, payments, taken), payments, sweeps)
        except Refused as error:
            failing = _failing(error, len(sweeps), left)
            step.say(failing, Status.BLOCKED, None, "; ".join(str(refusal) for refusal in error.refusals))
            left = [transfer for transfer in left if transfer not in failing]
            continue
        return tuple(left), sweeps
    return (), ()


def _payments(step: Step, transfers: Sequence[Transfer]) -> Iterator[tuple[Transfer, Payment]]:
    for transfer in transfers:
        intent = transfer.intent
        try:
            to = step.store.read(partial(_route, step, transfer))
        except Refused as error:
            step.say([transfer], Status.BLOCKED, SubStatus.BLOCKED_BY_POLICY, str(error))
            continue
        payment = Payment(transfer.digest, intent.asset, intent.amount, to.destination, intent.maximum_fee, to.derived)
        yield transfer, payment


def _route(step: Step, transfer: Transfer, work: UnitOfWork) -> Route:
    return find_route(work, step.kernel, transfer.proposal.message, step.now, transfer.intent.enrolment)


def _permitted(step: Step, group: Sequence[Transfer], chain: str) -> SigningPermit | None:
    """The largest part of a group that is permitted: those that are refused are left out, then fewer are asked for."""
    asked = [transfer.digest for transfer in group]
    by_digest = {transfer.digest: transfer for transfer in group}
    for _ in range(_TRIES):
        if not asked:
            return None
        try:
            found = authorize(step.store, step.kernel, asked, step.said(), step.chain(chain), step.now)
        except Refused as error:
            if len(asked) == 1:
                step.say([by_digest[asked[0]]], Status.BLOCKED, None, str(error))
            asked = asked[: len(asked) // 2]
            continue
        if isinstance(found, SigningPermit):
            return found
        for digest in found.refusals:
            step.pace.wait(by_digest[digest].intent.id, step.now)
        left = [digest for digest in asked if digest not in found.refusals]
        asked = left or asked[: len(asked) // 2]  # all of them: together they are too much
    return None


def _failing(error: Refused, sweeps: int, group: Sequence[Transfer]) -> list[Transfer]:
    """Whose leaf fails, where the chain names one; the whole group otherwise."""
    for refusal in error.refusals:
        at = refusal.operands.get("leaf")
        if refusal.rule is Rule.LEAF_FAILS and isinstance(at, int) and sweeps <= at < sweeps + len(group):
            return [group[at - sweeps]]
    return list(group)
