# SPDX-License-Identifier: AGPL-3.0-or-later
"""What is written down of errands, which carry no intent, so that a killed worker goes on with the same one. Numbered, one at a time.

Sweeps of deposit addresses by schedule, a rotation's owner calls, and coins brought home from under an older certificate: each kind
of a wallet has its own numbers. An errand pins its anchor by a permit that carries no intent, so that no payout can ever be given the
same one.
"""

from dataclasses import dataclass, replace
from typing import Final

from custody.flows.ports import UnitOfWork
from custody.rules.intents import Anchor
from custody.rules.origins import Executed
from custody.rules.payments import Reservation, UnsignedPayout
from custody.rules.refusals import Refusal, Refused, Rule
from custody.rules.transfers import Permit
from custody.rules.typed import Bytes32, Struct, Uint64
from custody.rules.wallets import Chain


@dataclass(frozen=True, slots=True)
class _Begun(Struct):
    """A document: which anchor a sweep has, and since when."""

    anchor: Anchor
    at: Uint64


@dataclass(frozen=True, slots=True)
class _Ended(Struct):
    """A document: in which final block its anchor was consumed, and whether that moved any account."""

    height: Uint64
    block: Bytes32
    booked: bool


DEPOSITS: Final = "deposit sweep"
"""Deposit addresses are emptied into their Safe."""
HOME: Final = "homing sweep"
"""Coins under an older Bitcoin certificate are brought under the newest."""
ROTATION: Final = "rotation"
"""The owner calls that turn a Safe's old keys into new ones."""
WHATS: Final = (DEPOSITS, HOME, ROTATION)


@dataclass(frozen=True, slots=True)
class SweepRun:
    """One errand of a wallet. `at` is when it began, in seconds since 1970; `what` its kind."""

    number: int
    anchor: Anchor
    at: int
    ended: bool
    what: str = DEPOSITS

    @property
    def permit(self) -> Permit:
        """What pins its anchor: no intent, and nothing that an attestor was asked before."""
        return Permit(Reservation(self.anchor, (self.anchor.reference,), 0), (), 0, self.at)


def newest(work: UnitOfWork, wallet: bytes, what: str = DEPOSITS) -> SweepRun | None:
    """The last errand of a kind that was begun; numbers are taken in order, so it is found by doubling and halving."""
    if (first := _run(work, wallet, 0, what)) is None:
        return None
    last, free = first, 1
    while (found := _run(work, wallet, free, what)) is not None:
        last, free = found, free * 2
    while free - last.number > 1:
        middle = (last.number + free) // 2
        found = _run(work, wallet, middle, what)
        last, free = (found, free) if found is not None else (last, middle)
    return last


def under_way(work: UnitOfWork, wallet: bytes) -> SweepRun | None:
    """The errand of a wallet that is not at its end, of whatever kind."""
    runs = (newest(work, wallet, what) for what in WHATS)
    return next((run for run in runs if run is not None and not run.ended), None)


def begin(work: UnitOfWork, wallet: bytes, unsigned: UnsignedPayout, now: int, what: str = DEPOSITS) -> SweepRun:
    """Pin the anchor and record what is to be signed, at once. Raises Refused where another one is under way or has the anchor."""
    if (other := under_way(work, wallet)) is not None:
        raise Refused([Refusal(Rule.ANCHOR_BOUND, wallet=wallet.hex(), sweep=other.anchor.reference)])
    last = newest(work, wallet, what)
    run = SweepRun(0 if last is None else last.number + 1, unsigned.anchor, now, ended=False, what=what)
    work.transfers.permit(run.permit)
    work.documents.put(_kind(wallet, what), str(run.number), _Begun(run.anchor, now).to_json())
    return run


def end(work: UnitOfWork, run: SweepRun, done: Executed, *, booked: bool) -> None:
    """Its anchor was finally consumed, and what that moved is booked; for as long as no reorg takes it back."""
    ends = len(_ends(work, run))
    work.documents.put(_ended(run), f"{run.number}/{ends}", _Ended(done.height, done.block, booked).to_json())


def open_at(work: UnitOfWork, anchor: Anchor) -> SweepRun | None:
    """The errand under way that has an anchor."""
    run = under_way(work, anchor.wallet)
    return run if run is not None and run.anchor == anchor else None


def _run(work: UnitOfWork, wallet: bytes, number: int, what: str) -> SweepRun | None:
    row = work.documents.get(_kind(wallet, what), str(number))
    if row is None:
        return None
    begun = _Begun.from_json(row)
    run = SweepRun(number, begun.anchor, begun.at, ended=False, what=what)
    return replace(run, ended=any(_stands(work, run, end) for end in _ends(work, run)[-1:]))


def _ends(work: UnitOfWork, run: SweepRun) -> list[_Ended]:
    """Each time that it was finally consumed: one, unless a reorg took it back."""
    found, kind = list[_Ended](), _ended(run)
    while (row := work.documents.get(kind, f"{run.number}/{len(found)}")) is not None:
        found.append(_Ended.from_json(row))
    return found


def _stands(work: UnitOfWork, run: SweepRun, ended: _Ended) -> bool:
    """Whether no reorg took its block back: its entry stands, or, where it moved nothing, its block is followed or long forgotten."""
    chain = Chain(run.anchor.chain)
    if not ended.booked:
        return work.deposits.followed(chain, ended.height) in {None, ended.block}
    origins = (recorded.entry.origin for recorded in work.journal.executed(chain, ended.height, ended.height))
    return any(isinstance(origin, Executed) and origin.anchor == run.anchor for origin in origins)


def _kind(wallet: bytes, what: str) -> str:
    return f"{what}:{wallet.hex()}"


def _ended(run: SweepRun) -> str:
    return f"{run.what} ended:{run.anchor.wallet.hex()}"
