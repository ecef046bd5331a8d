# SPDX-License-Identifier: AGPL-3.0-or-later
"""Reading signed documents back from the store's mirror: nothing in it is believed, everything is verified again.

A row authorises nothing; a signature does. Whoever reads the mirror brings genesis from elsewhere (a file written at birth, a
seat's own vault) and re-verifies from there.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from custody.flows.ports import Documents
from custody.rules.certificates import WalletCertificate, check_succession
from custody.rules.errors import InvalidInput
from custody.rules.refusals import Refusal, Rule, raise_if
from custody.rules.roster import Roster, RosterVersion, check_agreed, check_genesis, check_successor
from custody.rules.signatures import Signed
from custody.rules.typed import ZERO32

ROSTER = "roster"
CERTIFICATE = "certificate"
ACTIVATION = "activation"
BUNDLE = "bundle"


def put_signed(documents: Documents, kind: str, signed: Signed[Any]) -> None:
    """Mirror a signed document under its struct hash."""
    documents.put(kind, signed.message.struct_hash.hex(), signed.to_json())


def roster_from(versions: Sequence[Mapping[str, object]], genesis: bytes, now: int) -> Roster:
    """The newest roster in force; see `rosters_from`."""
    return rosters_from(versions, genesis, now)[-1]


def rosters_from(versions: Sequence[Mapping[str, object]], genesis: bytes, now: int) -> tuple[Roster, ...]:
    """Every roster that is or was in force, oldest first, verified from genesis on; raises Refused where one does not follow.

    `versions` are `Signed[RosterVersion]` in JSON, in any order. An expiry after a version's own time is no matter here: else a
    chain of rosters would break as soon as somebody who signed an old one leaves. Whoever counts a signature later checks expiry.
    """
    signed = sorted((Signed.from_json(RosterVersion, dict(v)) for v in versions), key=lambda s: s.message.version)
    if not signed:
        raise InvalidInput("roster", Rule.MALFORMED, "no version", "a deployment that was born (bulkhead init)")
    first = signed[0]
    if first.message.struct_hash != genesis:
        raise_if([Refusal(Rule.WRONG_GENESIS, got=first.message.struct_hash.hex(), want=genesis.hex())])
    raise_if(check_genesis(first, first.message.not_before))
    rosters = [Roster(first, genesis)]
    for successor in signed[1:]:
        if successor.message.not_before > now:
            break
        raise_if(check_successor(rosters[-1], successor, successor.message.not_before))
        rosters.append(Roster(successor, genesis, tuple(rosters)))
    return tuple(rosters)


def upcoming(versions: Sequence[Mapping[str, object]], newest: Roster, now: int) -> Iterator[RosterVersion]:
    """Successors of the newest roster that both quorums signed and that are not in force: what is noted so that delays count."""
    for signed in (Signed.from_json(RosterVersion, dict(version)) for version in versions):
        if signed.message.version == newest.version.version + 1 and not any(check_agreed(newest, signed, now)):
            yield signed.message


def certificates_from(
    documents: Sequence[Mapping[str, object]], roster: Roster
) -> dict[bytes, tuple[Signed[WalletCertificate], ...]]:
    """Each wallet's certificates by the wallet's name, birth first; raises Refused where one is not what people signed.

    A certificate holds by the version under which it was signed, the newest or an earlier one: nobody who leaves takes a wallet with
    him. That those who left sign no new one, seats see to: each accepts a certificate by its newest roster alone, and once.
    """
    found = {s.message.struct_hash: s for s in (Signed.from_json(WalletCertificate, dict(d)) for d in documents)}
    wallets: dict[bytes, tuple[Signed[WalletCertificate], ...]] = {}
    for name, birth in found.items():
        if birth.message.previous == ZERO32:
            wallets[name] = _succession(birth, found)
    listed = {s.message.struct_hash for chain in wallets.values() for s in chain}
    raise_if(
        Refusal(Rule.NOT_SUCCESSOR, certificate=name.hex(), want="a known predecessor") for name in set(found) - listed
    )
    raise_if(refusal for chain in wallets.values() for s in chain for refusal in _check_signed_then(s, roster))
    return wallets


def _check_signed_then(signed: Signed[WalletCertificate], roster: Roster) -> Iterator[Refusal]:
    """Nothing where one of the versions bears it out; what the newest one has against it otherwise."""
    by_version = ([*r.check_certificate(signed, r.version.not_before)] for r in (roster, *reversed(roster.earlier)))
    newest = next(by_version)
    if newest and all(by_version):
        yield from newest


def _succession(
    birth: Signed[WalletCertificate], found: Mapping[bytes, Signed[WalletCertificate]]
) -> tuple[Signed[WalletCertificate], ...]:
    chain = [birth]
    while following := [s for s in found.values() if s.message.previous == chain[-1].message.struct_hash]:
        if len(following) > 1:
            raise_if(
                [Refusal(Rule.NOT_SUCCESSOR, certificate=birth.message.struct_hash.hex(), want="one successor only")]
            )
        raise_if(check_succession(chain[-1].message, following[0].message))
        chain.append(following[0])
    return tuple(chain)
