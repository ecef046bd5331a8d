# SPDX-License-Identifier: AGPL-3.0-or-later
"""How a run may begin where a planted bug needs one thing after another to show: a few deeds first, and chance from then on."""

from collections.abc import Sequence

from custody.rules.approvals import Approval
from custody.rules.governance import Freeze
from custody.rules.transfers import Status
from tests.fakes.seat import EVM, HOT, secp256k1, signed_by
from tests.simulation.gates import Fault, Plan
from tests.simulation.governing import hand_freeze
from tests.simulation.hands import SMALL, Action, Hands
from tests.simulation.mischief import damage_in, lie_to


def asks(symbol: str, times: int, lasts: int = 100_000) -> Action:
    """A customer asks for so many small amounts at once, for so many seconds."""

    def deed(hands: Hands) -> str:
        return hands.propose("customer:ana.c", symbol, times * SMALL[symbol], "withdrawal", "backend", lasts)

    return deed


def waits(seconds: int) -> Action:
    """Time goes by; blocks are mined."""

    def deed(hands: Hands) -> str:
        hands.world.pass_time(seconds)
        for node in hands.nodes():
            node.mine()
        return f"{seconds} seconds"

    return deed


def works(number: int) -> Action:
    """One worker's step."""

    def deed(hands: Hands) -> str:
        worker = hands.world.workers[number]
        return f"{worker.name}: " + hands.act(worker, lambda: hands.told(worker.step()))

    return deed


def paused_in_its_turn(hands: Hands) -> str:
    """A worker is paused past its lease while it asks the attestor."""
    hands.world.gate.plans.append(Plan(1, Fault.SLOW, "worker/AttestorPort.attest"))
    return works(0)(hands)


def loses_answer(hands: Hands) -> str:
    """The EVM node takes the next broadcast and does not say so."""
    hands.world.evm.lossy = "after"
    return "an answer will be lost"


def mines_one(hands: Hands) -> str:
    """One block on the EVM chain: nothing in it is final."""
    hands.world.evm.mine()
    return "a block"


def asks_seats_again(hands: Hands) -> str:
    """Somebody who saw what seats were asked asks every one of them again."""
    seen = [witnessed.request for witnessed in hands.world.witnessed]
    seats = hands.world.seats[: len(HOT)]
    told = [hands.attempt(lambda s=seat, r=request: s.sign(r).seat) for request in seen for seat in seats]  # type: ignore[misc]
    return "; ".join(text[:40] for text in told)


def freezes_all(hands: Hands) -> str:
    """One person stops everything, and carries it to every seat."""
    now = hands.world.clock()
    signed = signed_by(Freeze("all", "look", now, now + 6_000), hands.world.born.domain, [secp256k1("ana")])
    for seat in hands.world.seats:
        hand_freeze(hands, seat, signed)
    return "everything is frozen"


def settles(hands: Hands) -> str:
    """Blocks until everything is final, followed and booked."""
    told = [waits(30)(hands) for _ in range(6)]
    return "; ".join([*told, hands.follow(EVM), works(0)(hands)])


def ana_approves(hands: Hands) -> str:
    """One person says yes to what needs two."""
    return _approve(hands, ("ana",))


def dee_and_bo_approve(hands: Hands) -> str:
    """One who will leave and one who stays say yes to what waits for people."""
    return _approve(hands, ("dee", "bo"))


def _approve(hands: Hands, people: Sequence[str]) -> str:
    waiting = [t for t in hands.world.transfers() if t.status is Status.PENDING_AUTHORIZATION]
    api, told = hands.world.apis[0], []
    for transfer in waiting:
        for person in people:
            yes = Approval(transfer.digest, person, secp256k1(person).sign(transfer.digest))
            told.append(hands.approve_as(api, yes))
    return "; ".join(told)


def damages_an_amount(hands: Hands) -> str:
    """Somebody changes a transfer's amount."""
    return damage_in(hands, "transfers", "units", "units")


def leaves_nonce(hands: Hands) -> str:
    """Everything that waits in the EVM mempool is dropped."""
    dropped = [*hands.world.evm.pool]
    for name in dropped:
        hands.world.evm.forget(name)
    return f"{EVM} forgets {len(dropped)}"


def lied_to(hands: Hands) -> str:
    """A watcher's node tells of a deposit that never was."""
    return lie_to(hands, hands.world.watchers[EVM][0], EVM, "ana.c")
