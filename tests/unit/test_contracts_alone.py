# SPDX-License-Identifier: AGPL-3.0-or-later
"""Contracts are paid alone, after everybody who waits for an ordinary address, and never behind them for ever."""

from collections.abc import Collection
from dataclasses import replace
from functools import partial

import pytest
from eth_utils.address import to_checksum_address

from custody.flows.contracts import LATER, LOOKED_AT, apart
from custody.flows.ports import UnitOfWork
from custody.rules.errors import Unavailable
from custody.rules.payments import Outcome
from custody.rules.transfers import Status, Transfer
from custody.rules.wallets import Address
from tests.fakes.payouts import FakePayouts, Workshop
from tests.fakes.seat import EVM, NOW
from tests.fakes.treasury import enrolment
from tests.fakes.trust import PAYEE

CONTRACT = to_checksum_address("0x00000000000000000000000000000000c0de0001")
ANOTHER = to_checksum_address("0x00000000000000000000000000000000c0de0002")
PLAIN = PAYEE[EVM.name]


def _enrol(address: str, work: UnitOfWork) -> None:
    work.enrolments.add(enrolment(address=address), NOW - 200_000)


def shop_with(*codes: str) -> Workshop:
    """ada has three addresses enrolled; these have code."""
    shop = Workshop()
    for address in (CONTRACT, ANOTHER):
        shop.treasury.store.run(partial(_enrol, address))
    shop.payouts.code = set(codes)
    return shop


def batches(shop: Workshop) -> list[list[str]]:
    """Who was paid together, payout after payout."""
    told = dict.fromkeys(envelope.id for envelope in shop.payouts.sent)
    return [[paid.destination for paid in shop.payouts.built[digest].paid] for digest in told]


def test_a_contract_waits_for_the_others_and_is_paid_alone() -> None:
    """Asked for first, paid last, and nobody beside it."""
    shop = shop_with(CONTRACT, ANOTHER)
    places = [CONTRACT, PLAIN, ANOTHER, PLAIN]
    made = [shop.queued(number, destination=to) for number, to in enumerate(places, 1)]
    shop.run(*made, steps=20)
    assert [shop.get(transfer).status for transfer in made] == [Status.COMPLETED] * 4
    assert batches(shop) == [[PLAIN, PLAIN], [CONTRACT], [ANOTHER]]


class Fickle(FakePayouts):
    """In its blocks the contract refuses what the simulation let through."""

    def mine(self, count: int = 1) -> None:
        """What pays it reverts, whoever is paid beside it."""
        waiting = [self.built[envelope.id] for envelope in self.pool.values()]
        pays = any(paid.destination == CONTRACT for unsigned in waiting for paid in unsigned.paid)
        self.fails = Outcome.REVERTED if pays else Outcome.DONE
        super().mine(count)
        self.fails = Outcome.DONE


def test_one_that_reverts_only_in_a_block_harms_nobody_else() -> None:
    """The others are paid before it; it alone waits for people, who void its nonce."""
    shop = shop_with(CONTRACT)
    bad = shop.queued(1, destination=CONTRACT)
    good = [shop.queued(number) for number in (2, 3)]
    shop.payouts.__class__ = Fickle
    told = set[str]()
    for _ in range(20):
        shop.step()
        told.add(shop.get(bad).waiting_for)
        shop.payouts.mine()
    assert [shop.get(transfer).status for transfer in good] == [Status.COMPLETED] * 2
    assert not shop.get(bad).status.is_final
    assert any(why.startswith("people: ") for why in told)
    assert batches(shop)[0] == [PLAIN, PLAIN]


class Node(FakePayouts):
    """One that counts what it is asked."""

    asked: int = 0

    def contracts(self, addresses: Collection[Address]) -> frozenset[Address]:
        """See `CodeReader`."""
        self.asked += len(addresses)
        return super().contracts(addresses)


def transfers(*places: str) -> list[Transfer]:
    """As they stand in the queue."""
    shop = shop_with()
    return [shop.queued(number, destination=to) for number, to in enumerate(places, 1)]


@pytest.mark.parametrize(
    ("places", "due", "groups"),
    [
        pytest.param((), (), [], id="nobody"),
        pytest.param((PLAIN, PLAIN), (0, 0), [[1, 2]], id="no contract"),
        pytest.param((CONTRACT,), (0,), [[1]], id="one contract"),
        pytest.param((CONTRACT, ANOTHER), (0, 0), [[1], [2]], id="two contracts"),
        pytest.param((CONTRACT, PLAIN), (0, 5), [[2], [1]], id="others first"),
        pytest.param((CONTRACT, PLAIN), (0, LATER - 1), [[2], [1]], id="for ten minutes"),
        pytest.param((CONTRACT, PLAIN), (0, LATER), [[1], [2]], id="but not for ever"),
    ],
)
def test_groups(places: tuple[str, ...], due: tuple[int, ...], groups: list[list[int]]) -> None:
    """In the order in which they may begin."""
    made = transfers(*places)
    node = Node()
    node.code = {CONTRACT, ANOTHER}
    since = {transfer.digest: at for transfer, at in zip(made, due, strict=True)}
    found = apart(node, made, lambda transfer: since[transfer.digest])
    numbers = {transfer.digest: number for number, transfer in enumerate(made, 1)}
    assert [[numbers[transfer.digest] for transfer in group] for group in found] == groups


def test_wallets_of_ours_are_not_asked_about() -> None:
    """A certified Safe's code is known, and a refill need not wait behind anybody."""
    (made,) = transfers(PLAIN)
    inside = replace(made, intent=replace(made.intent, destination_kind="internal_wallet"))
    node = Node()
    node.code = {PLAIN}
    assert apart(node, [inside], lambda _: 0) == ((inside,),)
    assert node.asked == 0


def test_a_chain_without_contracts() -> None:
    """Bitcoin's queue stays whole."""
    (made,) = transfers(PLAIN)
    assert apart(object(), [made], lambda _: 0) == ((made,),)  # type: ignore[arg-type]


def test_a_node_that_does_not_answer_begins_nothing() -> None:
    """Nothing is taken for no contract."""

    class Silent(FakePayouts):
        def contracts(self, addresses: Collection[Address]) -> frozenset[Address]:
            raise Unavailable("node", "no answer")

    shop = shop_with()
    shop.payouts.__class__ = Silent
    made = shop.queued()
    assert any("no answer" in fault for fault in shop.step().faults)
    assert shop.get(made).status is Status.QUEUED


def test_a_long_queue_is_looked_at_in_part() -> None:
    """A backlog of thousands is not asked about at every step."""
    (made,) = transfers(PLAIN)
    queue = [replace(made, digest=number.to_bytes(32)) for number in range(LOOKED_AT + 50)]
    (group,) = apart(Node(), queue, lambda _: 0)
    assert len(group) == LOOKED_AT
