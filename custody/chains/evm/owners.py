# SPDX-License-Identifier: AGPL-3.0-or-later
"""The owner calls that turn one certificate's owners and threshold into the next one's. The builder's side, as `leaves.py`.

A Safe keeps its owners in a linked list, and a call that swaps or removes one names who stands before it: so the list is read from
the chain and followed call by call. Seats read what comes out of it with code of their own (`rules.payouts.apply_owner_calls`).
"""

from collections.abc import Iterator, Sequence
from typing import Final

from eth_abi.abi import encode
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from custody.chains.evm.leaves import Call
from custody.chains.evm.safes import owner_address
from custody.rules.certificates import WalletCertificate
from custody.rules.refusals import Refusal, Refused, Rule

_SENTINEL: Final = "0x" + "1".rjust(40, "0")
"""Stands before the first owner of the list."""
_ADD: Final = ("addOwnerWithThreshold", ("address", "uint256"))
_REMOVE: Final = ("removeOwner", ("address", "address", "uint256"))
_SWAP: Final = ("swapOwner", ("address", "address", "address"))
_THRESHOLD: Final = ("changeThreshold", ("uint256",))


def owner_calls(
    old: WalletCertificate, new: WalletCertificate, owners: Sequence[str], threshold: int
) -> tuple[Call, ...]:
    """Swaps first, then who joins, then who leaves, then the threshold: no step in between has fewer owners than it needs.

    `owners` and `threshold` are the chain's, the owners in the order of its list. Raises Refused: safe_differs_from_certificate where
    they are not the old certificate's, does_not_turn_old_into_new where nothing would change or two Safes are named.
    """
    had, wanted = _owners(old), _owners(new)
    if {owner.lower() for owner in owners} != {owner.lower() for owner in had} or threshold != old.m:
        got, want = f"{threshold} of {list(owners)}", f"{old.m} of {had}"
        raise Refused([Refusal(Rule.SAFE_DRIFT, field="owners", got=got, want=want)])
    if old.safe != new.safe or (set(had), old.m) == (set(wanted), new.m):
        raise Refused([Refusal(Rule.NOT_ROTATION, want="one Safe, and other owners or another threshold")])
    return tuple(_calls(old.safe[0].address, [*map(to_checksum_address, owners)], wanted, threshold, new.m))


def _calls(safe: str, standing: list[str], wanted: Sequence[str], threshold: int, m: int) -> Iterator[Call]:
    leaving = [owner for owner in standing if owner not in wanted]
    joining = [owner for owner in wanted if owner not in standing]
    for out, into in zip(leaving, joining, strict=False):
        yield _call(safe, _SWAP, _before(standing, out), out, into)
        standing[standing.index(out)] = into
    for into in joining[len(leaving) :]:
        yield _call(safe, _ADD, into, threshold)
        standing.insert(0, into)
    for out in leaving[len(joining) :]:
        yield _call(safe, _REMOVE, _before(standing, out), out, threshold := m)
        standing.remove(out)
    if threshold != m:
        yield _call(safe, _THRESHOLD, m)


def _before(standing: Sequence[str], owner: str) -> str:
    at = standing.index(owner)
    return standing[at - 1] if at else _SENTINEL


def _call(safe: str, what: tuple[str, tuple[str, ...]], *arguments: object) -> Call:
    name, types = what
    data = keccak(text=f"{name}({','.join(types)})")[:4] + encode(types, arguments)
    return Call(name, safe, 0, data)


def _owners(certificate: WalletCertificate) -> list[str]:
    return [owner_address(seat.key.public) for seat in certificate.seats]
