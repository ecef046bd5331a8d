# SPDX-License-Identifier: AGPL-3.0-or-later
"""Reading signed documents back from the store's mirror: nothing in it is believed, everything is verified again.

A row authorises nothing; a signature does. Whoever reads the mirror brings genesis from elsewhere (a file written at birth, a
seat's own vault) and re-verifies from there.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from custody.flows.ports import Documents
from custody.rules.certificates import WalletCertificate, check_succession
from custody.rules.errors import InvalidInput
from custody.rules.refusals import Refusal, Rule, raise_if
from custody.rules.roster import Roster, RosterVersion, check_genesis, check_successor
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

    `versions` are `Signed[RosterVersion]` in JSON, in any order. An expiry after a version's own time is no matter here:
    version 1 was checked when it was signed, and whoever counts a signature later checks expiry then.
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
        raise_if(check_successor(rosters[-1], successor, now))
        rosters.append(Roster(successor, genesis))
    return tuple(rosters)


def certificates_from(
    documents: Sequence[Mapping[str, object]], roster: Roster
) -> dict[bytes, tuple[Signed[WalletCertificate], ...]]:
    """Each wallet's certificates by the wallet's name, birth first; raises Refused where one is not what people signed."""
    found = {s.message.struct_hash: s for s in (Signed.from_json(WalletCertificate, dict(d)) for d in documents)}
    wallets: dict[bytes, tuple[Signed[WalletCertificate], ...]] = {}
    for name, birth in found.items():
        if birth.message.previous == ZERO32:
            wallets[name] = _succession(birth, found)
    listed = {s.message.struct_hash for chain in wallets.values() for s in chain}
    raise_if(
        Refusal(Rule.NOT_SUCCESSOR, certificate=name.hex(), want="a known predecessor") for name in set(found) - listed
    )
    now = roster.version.not_before
    raise_if(refusal for chain in wallets.values() for s in chain for refusal in roster.check_certificate(s, now))
    return wallets


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
