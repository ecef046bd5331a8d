# SPDX-License-Identifier: AGPL-3.0-or-later
"""Contracts are paid alone: what code does in a block need not be what it did in the simulation (TRUST.md, "One anchor per payout").

A receiver's code may look at the block's number, its base fee or the gas that is left, and refuse only there: one such payment in a
batch would take everybody else's with it, and hold their nonce until people void it. Alone it harms nobody but itself.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Final, Protocol, runtime_checkable

from custody.flows.ports import PayoutChain
from custody.rules.facts import Destination
from custody.rules.transfers import Transfer
from custody.rules.wallets import Address, Chain

LATER: Final = 600
"""Seconds for which a payment to a contract lets others go first: if it gets stuck, what is behind it on its wallet waits for people."""

LOOKED_AT: Final = 500
"""The oldest of a queue whose destinations are looked at in one step: a payout takes no more than a fifth of them."""


@runtime_checkable
class CodeReader(Protocol):
    """What only a chain with contracts can tell."""

    def contracts(self, addresses: Collection[Address]) -> frozenset[Address]:
        """Those of them where code stands at the newest block, a delegation of an ordinary account (EIP-7702) included.

        Code may still come between this look and the block of a payout; then its batch fails whole, nobody is paid, and people void
        it. Raises Unavailable.
        """
        ...


def apart(
    chain: PayoutChain, queued: Sequence[Transfer], due: Callable[[Transfer], int]
) -> tuple[tuple[Transfer, ...], ...]:
    """Groups in the order in which they may begin: those that may share a batch, and each that pays a contract of somebody else's.

    `due` is since when a transfer may begin, in seconds since 1970. Wallets of ours are certified Safes, whose code is known. Raises
    Unavailable where the node does not answer: nothing is taken for no contract.
    """
    if not isinstance(chain, CodeReader) or not queued:
        return (tuple(queued),) if queued else ()
    looked = queued[:LOOKED_AT]
    strangers = [transfer for transfer in looked if transfer.intent.destination_kind != Destination.INTERNAL_WALLET]
    code = chain.contracts({_destination(transfer) for transfer in strangers}) if strangers else frozenset()
    alone = {transfer.digest: transfer for transfer in strangers if _destination(transfer) in code}
    together = tuple(transfer for transfer in looked if transfer.digest not in alone)
    groups: list[tuple[tuple[Transfer, ...], int]] = [((t,), due(t) + LATER) for t in alone.values()]
    if together:
        groups.append((together, min(due(transfer) for transfer in together)))
    return tuple(group for group, _ in sorted(groups, key=lambda group: group[1]))


def _destination(transfer: Transfer) -> Address:
    return Address(Chain(transfer.intent.chain), transfer.intent.destination)
