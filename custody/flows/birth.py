# SPDX-License-Identifier: AGPL-3.0-or-later
"""How a deployment is born: everybody signs version 1, every part pins it, wallets get their certificates (TRUST.md).

Each step can be repeated after a crash: parts answer the same to the same question, and the mirror is written last.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

from custody.flows.mirror import CERTIFICATE, ROSTER, put_signed
from custody.flows.ports import SeatPort, Store
from custody.rules.birth import LATER
from custody.rules.certificates import Script, SeatKey, WalletCertificate
from custody.rules.refusals import Refusal, Rule, raise_if
from custody.rules.roster import Roster, RosterVersion, check_genesis, check_version
from custody.rules.signatures import Key, Signature, Signed
from custody.rules.typed import ZERO32
from custody.rules.wallets import Chain, Tier


class Part(Protocol):
    """A process with a key of its own that signs and pins version 1: a seat, the attestor, the relayer."""

    def identity(self) -> Key:
        """The key that version 1 names it by."""
        ...

    def sign_roster(self, version: RosterVersion) -> Signature:
        """Sign a version that names it."""
        ...

    def pin(self, signed: Signed[RosterVersion]) -> None:
        """Pin genesis, once."""
        ...


def machines_sign(signed: Signed[RosterVersion], parts: Iterable[Part]) -> Signed[RosterVersion]:
    """Version 1 with the signatures of every part added; refuses a version that is not whole before asking anybody."""
    raise_if(check_version(signed.message))
    return signed.joined(part.sign_roster(signed.message) for part in parts)


def found(store: Store, signed: Signed[RosterVersion], parts: Iterable[Part], now: int) -> Roster:
    """Check that everybody named has signed, let every part pin it, mirror it. Raises Refused naming who is missing."""
    raise_if(check_genesis(signed, now))
    for part in parts:
        part.pin(signed)
    store.run(lambda work: put_signed(work.documents, ROSTER, signed))
    return Roster(signed, signed.message.struct_hash)


def draft_wallet(
    seats: Sequence[SeatPort],
    label: str,
    tier: Tier,
    chain: Chain,
    m: int,
    birth: int,
    script: Callable[[int, Sequence[SeatKey]], Script],
) -> WalletCertificate:
    """Ask each seat for its key for this wallet and write the certificate that people then sign.

    `birth` is the block height before which the wallet cannot hold coins; `script` builds the Safe or the descriptor.
    """
    keys = tuple(seat.make_wallet_key(label, chain) for seat in sorted(seats, key=lambda s: s.name))
    safe, descriptor = script(m, keys)
    return WalletCertificate(ZERO32, label, tier, chain.name, m, len(keys), keys, safe, descriptor, birth)


def draft_successor(
    seats: Sequence[SeatPort],
    line: Sequence[WalletCertificate],
    m: int,
    birth: int,
    script: Callable[[int, Sequence[SeatKey]], Script],
) -> WalletCertificate:
    """Ask each seat for a new key and write the wallet's next certificate; `line` has those until now, the newest last.

    Its label continues the first one's, so that a seat of both has two keys. A Safe stays; `script` makes a new descriptor.
    """
    first, old = line[0], line[-1]
    label = f"{first.label}{LATER}{len(line) + 1}"
    chain = Chain(old.chain)
    keys = tuple(seat.make_wallet_key(label, chain) for seat in sorted(seats, key=lambda s: s.name))
    safe, descriptor = (first.safe, ()) if chain.is_evm else script(m, keys)
    return WalletCertificate(old.struct_hash, label, old.tier, old.chain, m, len(keys), keys, safe, descriptor, birth)


def check_wallet(
    roster: Roster,
    signed: Signed[WalletCertificate],
    known: Iterable[WalletCertificate],
    check_script: Callable[[WalletCertificate], Iterator[Refusal]],
    now: int,
) -> Iterator[Refusal]:
    """Everything about a new certificate: quorum, seats, shape, script, and no key or label that another wallet has."""
    yield from roster.check_certificate(signed, now)
    yield from check_script(signed.message)
    yield from _check_apart(signed.message, known)


def _check_apart(new: WalletCertificate, known: Iterable[WalletCertificate]) -> Iterator[Refusal]:
    mine = {s.key.material: s.key.seat for s in new.seats}
    for other in known:
        if other.struct_hash == new.struct_hash:
            continue
        if shared := mine.keys() & {s.key.material for s in other.seats}:
            holders = sorted(mine[material] for material in shared)
            yield Refusal(Rule.KEY_REUSED, label=new.label, other=other.label, seats=holders)
        if (other.label, other.chain) == (new.label, new.chain):
            yield Refusal(Rule.NAME_REUSED, label=new.label, chain=new.chain)


def admit_wallet(store: Store, signed: Signed[WalletCertificate], seats: Iterable[SeatPort]) -> None:
    """Every seat accepts the certificate, each by its own check; then it is mirrored. Call `check_wallet` first."""
    for seat in seats:
        seat.accept(signed)
    store.run(lambda work: put_signed(work.documents, CERTIFICATE, signed))
