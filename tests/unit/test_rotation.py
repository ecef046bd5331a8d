# SPDX-License-Identifier: AGPL-3.0-or-later
"""A wallet's next keys: which successors a seat takes, what an order has to be, and which owner calls lead there."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

import pytest

from custody.chains.evm.decode import decode
from custody.chains.evm.leaves import safe_tx
from custody.chains.evm.owners import owner_calls
from custody.chains.evm.safes import owner_address
from custody.chains.scripts import descriptor_builder
from custody.flows.birth import draft_successor
from custody.rules.certificates import WalletCertificate
from custody.rules.payouts import DecodedPayload, LeafKind, Surroundings, apply_owner_calls
from custody.rules.refusals import Refused, Rule
from custody.rules.wallets import Chain
from custody.vault.seat import SeatHost
from tests.fakes.seat import BITCOIN, EVM, Deployment, rules_of, seat_in_memory
from tests.fakes.trust import ASSETS

LABEL: Final = "customer_hot"
FIRST, SECOND = ("hot-1", "hot-2", "hot-3", "hot-4"), ("hot-3", "hot-4", "hot-5", "hot-6")


class House:
    """Six seats; the wallet belongs to the first four, and its next keys to the last four."""

    def __init__(self, chain: Chain = EVM) -> None:
        self.all = Deployment([seat_in_memory(f"hot-{i}") for i in range(1, 7)]).pinned()
        self.chain, self.line = chain, list[WalletCertificate]()
        drafted = replace(self.all, seats=[self.seat(name) for name in FIRST])
        drafted.version = self.all.version
        self.line.append(drafted.draft(LABEL, chain=chain))
        for name in FIRST:
            self.seat(name).accept(self.all.people_sign(self.line[0]))

    def seat(self, name: str) -> SeatHost:
        """One of the six."""
        return next(seat for seat in self.all.seats if seat.name == name and isinstance(seat, SeatHost))

    def next(self, names: Sequence[str] = SECOND, m: int = 3) -> WalletCertificate:
        """The next certificate, with new keys of these seats."""
        made = draft_successor([self.seat(name) for name in names], self.line, m, 9, descriptor_builder())
        self.line.append(made)
        return made


@pytest.mark.parametrize("chain", [pytest.param(EVM, id="a Safe"), pytest.param(BITCOIN, id="a script")])
def test_who_takes_a_successor(chain: Chain) -> None:
    """Seats of both, a retired one, and newcomers, who take what came before first; each once, and the same again."""
    house = House(chain)
    signed = [house.all.people_sign(each) for each in (house.line[0], house.next())]
    for name in ("hot-3", "hot-2"):
        for _ in range(2):
            house.seat(name).accept(signed[1])
        assert house.seat(name).status()["wallets"][0]["certificate"] == "0x" + signed[1].message.struct_hash.hex()
    with pytest.raises(Refused) as refused:
        house.seat("hot-5").accept(signed[1])
    assert Rule.NOT_SUCCESSOR in rules_of(refused.value)
    for each in signed:
        house.seat("hot-5").accept(each)
    third = house.next(("hot-1", "hot-2", "hot-5", "hot-6"))
    assert third.label == f"{LABEL}:3"
    house.seat("hot-5").accept(house.all.people_sign(third))


SPOILT: dict[str, tuple[Callable[[WalletCertificate], WalletCertificate], Rule]] = {
    "another tier": (lambda c: replace(c, tier="operational"), Rule.TIER_CHANGED),
    "a predecessor that is none": (lambda c: replace(c, previous=b"\x11" * 32), Rule.NOT_SUCCESSOR),
    "another Safe": (
        lambda c: replace(c, safe=(replace(c.safe[0], address="0x" + "77" * 20),)),
        Rule.SCRIPT_MISMATCH,
    ),
    "another initializer of the same address": (
        lambda c: replace(c, safe=(replace(c.safe[0], initializer=b"\x01"),)),
        Rule.SCRIPT_MISMATCH,
    ),
    "no Safe": (lambda c: replace(c, safe=()), Rule.SCRIPT_MISMATCH),
    "a threshold too low": (lambda c: replace(c, m=2), Rule.QUORUMS_TOO_DISJOINT),
    "another seat's key in its slot": (
        lambda c: replace(c, seats=(replace(c.seats[0], key=replace(c.seats[1].key, seat="hot-3")), *c.seats[1:])),
        Rule.NOT_OWN_KEY,
    ),
}


@pytest.mark.parametrize(("spoil", "rule"), SPOILT.values(), ids=SPOILT.keys())
def test_successors_that_no_seat_takes(spoil: Callable[[WalletCertificate], WalletCertificate], rule: Rule) -> None:
    """Under people's quorum all the same."""
    house = House()
    bad = house.all.people_sign(spoil(house.next()))
    with pytest.raises(Refused) as refused:
        house.seat("hot-3").accept(bad)
    assert rule in rules_of(refused.value)


def test_a_second_successor_is_refused() -> None:
    """Two from one certificate: whichever a seat took first is the only one."""
    house = House()
    first, other = house.next(), None
    house.line.pop()
    other = replace(first, birth=10)
    house.seat("hot-3").accept(house.all.people_sign(first))
    with pytest.raises(Refused) as refused:
        house.seat("hot-3").accept(house.all.people_sign(other))
    assert Rule.NOT_SUCCESSOR in rules_of(refused.value)


def test_a_stranger_takes_no_birth() -> None:
    """A seat without a key for the wallet, under any of its labels, does not know it."""
    house = House()
    with pytest.raises(Refused) as refused:
        house.seat("hot-6").accept(house.all.people_sign(house.line[0]))
    assert rules_of(refused.value) == {Rule.NOT_OWN_KEY}


SETS = [
    pytest.param(SECOND, 3, ["swapOwner"] * 4, id="as many"),
    pytest.param(("hot-1", "hot-5", "hot-6"), 3, ["swapOwner"] * 3 + ["removeOwner"], id="fewer"),
    pytest.param(
        tuple(f"hot-{i}" for i in range(1, 7)), 4,
        ["swapOwner"] * 4 + ["addOwnerWithThreshold"] * 2 + ["changeThreshold"], id="more, and more to sign",
    ),
    pytest.param(("hot-5", "hot-6"), 2, ["swapOwner"] * 2 + ["removeOwner"] * 2, id="two of two"),
]  # fmt: skip


@pytest.mark.parametrize(("names", "m", "wanted"), SETS)
def test_owner_calls(names: tuple[str, ...], m: int, wanted: list[str]) -> None:
    """What the builder makes, the seats' own decoder reads, and it leads from old to new and nowhere else."""
    house = House()
    old, new = house.line[0], house.next(names, m)
    had = [owner_address(seat.key.public) for seat in old.seats]
    calls = owner_calls(old, new, had, old.m)
    assert [call.name for call in calls] == wanted
    tx = safe_tx(old, 7, calls)
    decoded = decode(tx, Surroundings(old.struct_hash, old, ASSETS))
    assert isinstance(decoded, DecodedPayload)
    assert {leaf.kind for leaf in decoded.leaves} == {LeafKind.OWNER_CHANGE}
    after = apply_owner_calls(had, old.m, [leaf.owners for leaf in decoded.leaves if leaf.owners is not None])
    assert after == (frozenset(owner_address(seat.key.public).lower() for seat in new.seats), m)


def test_owner_calls_of_a_safe_that_drifted() -> None:
    """Owners on chain that are not the certificate's, and a rotation into itself."""
    house = House()
    old, new = house.line[0], house.next()
    had = [owner_address(seat.key.public) for seat in old.seats]
    for owners, threshold, to, rule in (
        (had[1:], 3, new, Rule.SAFE_DRIFT),
        (had, 2, new, Rule.SAFE_DRIFT),
        (had, 3, old, Rule.NOT_ROTATION),
    ):
        with pytest.raises(Refused) as refused:
            owner_calls(old, to, owners, threshold)
        assert rules_of(refused.value) == {rule}
