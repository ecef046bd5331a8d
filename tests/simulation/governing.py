# SPDX-License-Identifier: AGPL-3.0-or-later
"""What people decide about the deployment itself: freezes and their end, a next roster, another policy; and who only tries to."""

from dataclasses import replace
from typing import Final

from custody.flows import freezes
from custody.flows.mirror import ROSTER, put_signed
from custody.rules.errors import InvalidInput, Unavailable
from custody.rules.governance import Freeze, PolicyActivation, Unfreeze
from custody.rules.refusals import Refused
from custody.rules.roster import Person, Roster
from custody.rules.signatures import Signed
from custody.rules.wallets import Tier
from tests.fakes.seat import BITCOIN, EVM, YEAR, secp256k1, signed_by
from tests.simulation import birth
from tests.simulation.hands import Hands
from tests.simulation.processes import Seat
from tests.simulation.scene import Broken

SOON: Final = 600
"""Seconds until a next roster counts."""


def freeze(hands: Hands) -> str:
    """One person stops a scope; the mirror and most seats are told."""
    world, rng = hands.world, hands.rng
    scopes = [f"customer:{rng.choice(birth.CUSTOMERS)}", f"chain:{rng.choice([EVM, BITCOIN]).name}", "company", "all"]
    scopes.append(f"wallet:0x{world.wallet(Tier.CUSTOMER_HOT, rng.choice([EVM, BITCOIN])).hex()}")
    person, now = rng.choice(["ana", "bo", "cy"]), world.clock()
    message = Freeze(rng.choice(scopes), "somebody looks", now, now + rng.choice([1_800, 6_000]))
    signed, api = signed_by(message, world.born.domain, [secp256k1(person)]), hands.api()
    told = hands.act(api, lambda: freezes.freeze(api.store, api.kernel(), signed, api.clock()), "frozen")
    for seat in world.seats:
        if rng.random() < 0.8:
            hand_freeze(hands, seat, signed)
    hands.frozen.append(signed)
    hands.tally["freezes"] += 1
    return f"{person} freezes {message.scope[:20]} until {message.lapses}: {told}"


def hand_freeze(hands: Hands, seat: Seat, signed: Signed[Freeze]) -> None:
    """Carry a freeze to a seat; from its answer on it has to hold to it."""
    try:
        seat.freeze(signed)
    except (Refused, Unavailable, InvalidInput):
        return
    hands.scene.frozen.setdefault(seat.name, {})[signed.message.struct_hash] = signed.message


def unfreeze(hands: Hands) -> str:
    """People end a freeze early: two of them, or one, who is not enough."""
    world, rng = hands.world, hands.rng
    if not hands.frozen:
        return "nothing is frozen"
    frozen, people = rng.choice(hands.frozen), rng.choice([("ana", "bo"), ("ana", "bo"), ("cy",)])
    message = Unfreeze(frozen.message.struct_hash, "looked at", world.clock())
    signed, api = signed_by(message, world.born.domain, [secp256k1(name) for name in people]), hands.api()
    told = hands.act(api, lambda: freezes.unfreeze(api.store, api.kernel(), signed, api.clock()), "ended")
    for seat in world.seats:
        try:
            seat.unfreeze(signed)
        except (Refused, Unavailable, InvalidInput):
            continue
        if len(people) < 2:
            hands.scene.broken.append(Broken("only_a_quorum_loosens", f"{seat.name} took an unfreeze of {people}"))
        hands.scene.frozen.get(seat.name, {}).pop(frozen.message.struct_hash, None)
    return f"{', '.join(people)} end a freeze of {frozen.message.scope[:20]}: {told}"


def next_roster(hands: Hands) -> str:
    """Dee leaves and Fay comes: agreed by two, in force after a while; the mirror, the seats and the attestor learn of it."""
    world = hands.world
    if len(world.rosters) > 1:
        return carry_roster(hands, world.rosters[-1])
    old = world.rosters[-1].version
    stay = tuple(person for person in old.people if person.id != "dee")
    fay = Person("fay", "Fay", birth.PEOPLE["fay"], (secp256k1("fay").key,), (True,), world.clock() + YEAR)
    message = replace(old, version=2, previous=old.struct_hash, people=(*stay, fay), not_before=world.clock() + SOON)
    signed, api = signed_by(message, world.born.domain, [secp256k1("ana"), secp256k1("bo")]), hands.api()
    told = hands.act(api, lambda: api.store.run(lambda work: put_signed(work.documents, ROSTER, signed)), "mirrored")
    if world.read(lambda work: len(work.documents.all(ROSTER))) == 1:
        return f"a next roster came nowhere: {told}"
    world.rosters.append(Roster(signed, world.born.domain.genesis, (world.rosters[-1],)))
    hands.tally["rosters"] += 1
    return f"a next roster: {told}; {carry_roster(hands, world.rosters[-1])}"


def carry_roster(hands: Hands, roster: Roster) -> str:
    """Hand a next roster to every seat: the first time it is noted, and from its time on taken."""
    taken = 0
    for seat in hands.world.seats:
        try:
            seat.admit_roster(roster.signed)
        except (Refused, Unavailable, InvalidInput):
            continue
        taken += 1
        if hands.world.clock() + max(0, seat.skew) < roster.version.not_before:
            hands.scene.broken.append(Broken("a_next_roster_waits_its_time", seat.name))
    return f"{taken} seats took the next roster"


def push_policy(hands: Hands) -> str:
    """Somebody wants another policy in force at once: alone, or for a bundle that follows nothing. Every seat refuses."""
    world, rng = hands.world, hands.rng
    born, seat = world.born, rng.choice(world.seats)
    how = rng.choice(["by its author alone", "before its time", "after a bundle that never was"])
    documents: dict[str, object] = {**born.bundle.to_json()}
    bundle, previous, later = born.bundle.hash, born.bundle.hash, 0
    people = ("cy",) if how == "by its author alone" else ("ana", "bo")
    if how == "before its time":
        later = 86_400
    if how == "after a bundle that never was":
        previous = b"\7" * 32
    message = PolicyActivation(
        bytes(31) + b"\1" if rng.random() < 0.5 else bundle, previous, b"\2" * 32, "cy", world.clock() + later
    )
    signed = signed_by(message, born.domain, [secp256k1(name) for name in people])
    before = seat.position
    told = hands.attempt(lambda: seat.admit_policy(signed, documents), "taken")
    if seat.position != before:
        hands.scene.broken.append(Broken("only_a_quorum_loosens", f"{seat.name} took a policy {how}"))
    return f"{seat.name} is told of another policy, {how}: {told[:120]}"
