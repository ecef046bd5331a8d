# SPDX-License-Identifier: AGPL-3.0-or-later
"""Bugs that others had, planted into the code under test one at a time: the simulation has to find each and name what it breaks."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import pytest

from custody.flows import authorization, deposits, payout_records, payouts, proposals, reorgs, signing
from custody.flows.reorgs import Taken
from custody.rules import holds, seat_checks_quorum
from custody.rules.origins import Release
from custody.rules.transfers import Status, Transfer
from tests.simulation.hands import Action, Hands
from tests.simulation.openings import ana_approves, asks, loses_answer, mines_one, settles, waits, works

Patch = pytest.MonkeyPatch


@dataclass(frozen=True)
class Plant:
    """A bug, the invariants of which one has to be named, what has to happen often for it to show, and the seeds until it does."""

    id: str
    put: Callable[[Patch], None]
    breaks: frozenset[str]
    focus: Mapping[Action, int]
    faulty: float = 0.35
    seeds: range = range(1, 9)
    steps: int = 60
    rest: bool = False
    """Whether it shows only where the run is let go quiet."""
    opening: tuple[Action, ...] = ()
    """What happens first, before chance decides."""


def hold_freed_on_expiry(patch: Patch) -> None:
    """A transfer expires while seats have signed it, and its customer can spend the balance again."""
    expire = proposals.expire

    def too_much(store: Any, kernel: Any, now: int, most: int = 100) -> Any:
        def free(work: Any) -> None:
            for _, transfer in work.transfers.examine(0, 1_000):
                if not isinstance(transfer, Transfer) or not transfer.status.is_asked or transfer.intent.expiry > now:
                    continue
                if transfer.hold is None:
                    continue
                entry = holds.release(Release(transfer.hold, transfer.digest, (), ()), transfer.intent, kernel.assets)
                freed = [r.entry.origin for r in work.journal.read(0, 100_000) if isinstance(r.entry.origin, Release)]
                if entry is not None and transfer.digest not in [origin.intent for origin in freed]:
                    work.journal.append(entry, now)

        store.run(free)
        return expire(store, kernel, now, most)

    patch.setattr(proposals, "expire", too_much)


def credited_when_seen(patch: Patch) -> None:
    """The watcher takes the newest block for a final one."""
    run = deposits._Crediting.run

    class Hasty:
        def __init__(self, view: Any) -> None:
            self._view = view

        def __getattr__(self, name: str) -> Any:
            return getattr(self._view, "head" if name == "final" else name)

    def hasty(self: Any) -> Any:
        self._view = Hasty(self._view)
        return run(self)

    patch.setattr(deposits._Crediting, "run", hasty)


def rebuilt_after_a_lost_answer(patch: Patch) -> None:
    """Whether the node took the bytes is not known: the payout is sealed anew and sent, and nobody stored it."""
    send = payouts._send

    def again(post: Any, permit: Any, kept: Any) -> None:
        anchor = permit.reservation.anchor
        carried = post.store.read(lambda work: payout_records.carried(work, permit))
        signed = post.store.read(lambda work: payout_records.signed_of(work, anchor, kept[-1].id))
        if carried[0].status is Status.BROADCAST_UNKNOWN and signed is not None:
            wallet = payouts._wallet(post.kernel, anchor)
            fresh = post.chain.seal(payouts._certificate(post, permit, wallet), signed)
            post.chain.broadcast(fresh)
            kept = (fresh,)
        send(post, permit, kept)

    patch.setattr(payouts, "_send", again)


def reorgs_ignored(patch: Patch) -> None:
    """A reorg is followed, and what it took back stays credited (ETC, 51 %)."""
    patch.setattr(reorgs, "take_back", lambda *_: Taken())
    patch.setattr(deposits, "take_back", lambda *_: Taken())


def nobody_counts(patch: Patch) -> None:
    """Whoever counts approvals finds that there are enough, in every room (an approval as a boolean column)."""

    def enough(*_: Any) -> Iterator[Any]:
        return iter(())

    for room in (authorization, seat_checks_quorum, proposals):
        patch.setattr(room, "satisfied", enough)


def settled_when_mined(patch: Patch) -> None:
    """A payout is booked as soon as it is in a block, as if the head were final."""
    finish = payouts._finish

    class Hasty:
        def __init__(self, view: Any) -> None:
            self._view = view

        def __getattr__(self, name: str) -> Any:
            return getattr(self._view, "head" if name == "final" else name)

    def hasty(post: Any, permit: Any, wallet: Any, mined: Any) -> None:
        finish(
            payouts.Post(post.store, post.kernel, post.chain, Hasty(post.view), post.decode, post.now),
            permit,
            wallet,
            mined,
        )

    patch.setattr(payouts, "_finish", hasty)


def sent_before_stored(patch: Patch) -> None:
    """The worker sends first and stores afterwards: a crash between the two forgets what is out."""
    sign = signing.sign

    def eager(ceremony: Any, permit: Any, sweeps: Any = ()) -> Any:
        seal = ceremony.chain.seal

        class Eager:
            def __getattr__(self, name: str) -> Any:
                return getattr(ceremony.chain, name)

            def seal(self, certificate: Any, signed: Any) -> Any:
                envelope = seal(certificate, signed)
                ceremony.chain.broadcast(envelope)
                return envelope

        told = signing.Ceremony(
            ceremony.store,
            ceremony.kernel,
            Eager(),
            ceremony.seats,
            ceremony.attestor,
            ceremony.now,
        )
        return sign(told, permit, sweeps)

    patch.setattr(signing, "sign", eager)


def void_frees_at_once(patch: Patch) -> None:
    """People void a payout and its hold is free before any block consumed the anchor."""
    void = payouts.void

    def hasty(store: Any, kernel: Any, signed: Any, now: int) -> Any:
        permit = void(store, kernel, signed, now)

        def free(work: Any) -> None:
            for transfer in payout_records.carried(work, permit):
                if transfer.hold is None:
                    continue
                entry = holds.release(Release(transfer.hold, transfer.digest, (), ()), transfer.intent, kernel.assets)
                freed = [r.entry.origin for r in work.journal.read(0, 100_000) if isinstance(r.entry.origin, Release)]
                if entry is not None and transfer.digest not in [origin.intent for origin in freed]:
                    work.journal.append(entry, now)

        store.run(free)
        return permit

    patch.setattr(payouts, "void", hasty)


_FREED: Final = frozenset({"a_hold_is_freed_by_final_consumption"})

_PAYS: Final[Mapping[Action, int]] = {Hands.withdraw: 60, Hands.work: 90, Hands.mine: 40}

PLANTS: Final = (
    Plant(
        "hold freed on expiry after signing",
        hold_freed_on_expiry,
        _FREED,
        {Hands.withdraw: 30, Hands.work: 40, Hands.pass_time: 30},
        0.1,
        range(3, 9),
        opening=(asks("ETH", 60, 600), asks("ETH", 1, 600), works(0), waits(700), works(0)),
    ),
    Plant(
        "deposit credited below finality",
        credited_when_seen,
        frozenset({"credits_are_final"}),
        {Hands.deposit: 30, Hands.mine: 30, Hands.watch: 60},
        0.1,
    ),
    Plant(
        "rebuilt after a lost answer",
        rebuilt_after_a_lost_answer,
        frozenset({"stored_before_sent"}),
        {**_PAYS, Hands.lose_answers: 40},
        0.1,
        range(2, 8),
        opening=(asks("ETH", 1), loses_answer, works(0), works(0)),
    ),
    Plant(
        "reorg ignored", reorgs_ignored, frozenset({"an_orphaned_deposit_nets_to_zero"}), {Hands.double_spend: 30}, 0.1
    ),
    Plant(
        "nobody counts approvals",
        nobody_counts,
        frozenset({"people_or_caps"}),
        {**_PAYS, Hands.approve: 30},
        0.1,
        range(4, 10),
        opening=(asks("ETH", 60), ana_approves, works(0)),
    ),
    Plant(
        "settled when mined",
        settled_when_mined,
        _FREED | {"a_transfer_ended_as_it_says"},
        {**_PAYS, Hands.slow_finality: 30},
        0.1,
        range(6, 12),
        opening=(asks("ETH", 1), works(0), settles, asks("ETH", 2), works(0), mines_one, works(0)),
    ),
    Plant("sent before stored", sent_before_stored, frozenset({"stored_before_sent"}), _PAYS, 0.1),
    Plant("a void frees at once", void_frees_at_once, _FREED, {**_PAYS, Hands.void: 30}, 0.1),
)
