# SPDX-License-Identifier: AGPL-3.0-or-later
"""Which bundle is in force, as a mirror's documents say it: computed from signed activations, never read out of a row.

API, worker, attestor, watcher and commands all ask here (docs/decisions/0011). The folder that settings name serves the first
bundle before it is signed, and nothing else.
"""

import json
from collections.abc import Iterator, Mapping, Sequence

from custody.flows.attestation import FirstSight, ReadStanding, Standing
from custody.flows.mirror import ACTIVATION, BUNDLE
from custody.flows.ports import UnitOfWork
from custody.rules.amounts import Assets
from custody.rules.errors import InvalidInput, Unavailable
from custody.rules.governance import PolicyActivation
from custody.rules.refusals import Refusal, Rule
from custody.rules.roster import Roster
from custody.rules.seat_request import Policies
from custody.rules.signatures import Signed
from custody.rules.succession import FIRST, check_mature, check_signed, check_successor
from custody.rules.typed import ZERO32
from custody.seating import in_force
from policies.bundle import Bundle, from_json
from policies.strict_yaml import Node
from policies.succession import Lineage, Sight, terms, walk

SIGHT = "policy_seen"
"""Kind of document that says when an activation was first stored here. Forged, it hurries nobody but whoever reads this mirror."""


class BundleReader:
    """Walks a mirror's activations afresh whenever one is there that was not, or its time comes; bundles are read once each."""

    def __init__(self) -> None:
        self._bundles: dict[bytes, Bundle] = {}
        self._known: tuple[object, Lineage] | None = None

    def read(self, work: UnitOfWork, rosters: Sequence[Roster], now: int, sight: Sight | None = None) -> Lineage:
        """Every bundle that is or was in force at a time. `sight` is the reader's own memory, where it has one.

        Raises Unavailable where a bundle that owners signed is lost, InvalidInput on a damaged row.
        """
        rows = work.documents.all(ACTIVATION)
        told = work.documents.all(SIGHT) if sight is None else ()
        asked = rows, told, tuple(roster.version.struct_hash for roster in rosters)
        if self._known is not None and self._known[0] == asked and not _comes(self._known[1], now):
            return self._known[1]
        seen = sights(told).get if sight is None else sight
        activations = [Signed.from_json(PolicyActivation, dict(row)) for row in rows]
        chain = walk(activations, lambda digest: self._bundle(work, digest), seen, rosters, now)
        self._known = asked, chain
        return chain

    def _bundle(self, work: UnitOfWork, digest: bytes) -> Bundle | None:
        if digest not in self._bundles:
            found = stored_bundle(work, digest)
            if found is None:
                return None
            self._bundles[digest] = found
        return self._bundles[digest]


def _comes(chain: Lineage, now: int) -> bool:
    """Whether one that waited has its time by now; or time ran back behind the newest."""
    return any(each.since <= now for each in chain.waiting) or any(step.since > now for step in chain.steps)


def bundle_of(documents: Mapping[str, object]) -> Bundle:
    """A bundle from its documents, read as strictly as from files. Raises InvalidInput."""
    nodes: dict[str, Node] = json.loads(json.dumps(dict(documents)))
    return from_json(nodes)


def stored_bundle(work: UnitOfWork, digest: bytes) -> Bundle | None:
    """A bundle of the mirror by the hash that this process computes; whatever else lies under its name is not there."""
    row = work.documents.get(BUNDLE, digest.hex())
    try:
        found = None if row is None else bundle_of(row)
    except InvalidInput:
        return None
    return found if found is not None and found.hash == digest else None


def sights(rows: Sequence[Mapping[str, object]]) -> dict[bytes, int]:
    """When each activation was first stored, by its struct hash. Raises InvalidInput on a row that says no such thing."""
    found: dict[bytes, int] = {}
    for row in rows:
        digest, at = str(row.get("activation")), str(row.get("at"))
        if len(digest) != 64 or not at.isdecimal():
            raise InvalidInput(SIGHT, Rule.MALFORMED, repr(row)[:200], "an activation and a time")
        found[bytes.fromhex(digest)] = int(at)
    return found


def check_follows(lineage: Lineage, activation: PolicyActivation, bundle: Bundle) -> Iterator[Refusal]:
    """Whether it is this bundle's, and that bundle the next one after those in force, whoever signs it."""
    earlier = tuple(step.bundle.hash for step in lineage.steps)
    yield from check_successor(activation, earlier[-1] if earlier else ZERO32, earlier)
    if bundle.hash != activation.bundle:
        yield Refusal(Rule.NOT_SUCCESSOR, field="bundle", got=bundle.hash.hex(), want=activation.bundle.hex())


def check_activation(
    lineage: Lineage, roster: Roster, signed: Signed[PolicyActivation], bundle: Bundle, now: int
) -> Iterator[Refusal]:
    """Whether it may be stored to wait for its time: it follows the bundle in force, and everybody signed whom that one asks for."""
    newest = lineage.steps[-1].bundle if lineage.steps else None
    against = [*check_follows(lineage, signed.message, bundle)]
    yield from against
    if against:  # the terms of another bundle would say nothing
        return
    asked = FIRST if newest is None else terms(newest, bundle)
    yield from check_signed(signed, asked, roster, now)
    if newest is None:
        yield from check_mature(signed.message, asked, 0, now)


def store_activation(work: UnitOfWork, signed: Signed[PolicyActivation], bundle: Bundle, now: int) -> None:
    """Mirror an activation, its bundle and when it was first stored; the first sight stands for ever."""
    digest = signed.message.struct_hash.hex()
    work.documents.put(BUNDLE, bundle.hash.hex(), bundle.to_json())
    if signed.message not in [known.message for known in stored_activations(work)]:
        work.documents.put(ACTIVATION, digest, signed.to_json())
    if work.documents.get(SIGHT, digest) is None:
        work.documents.put(SIGHT, digest, {"activation": digest, "at": str(now)})


def stored_activations(work: UnitOfWork) -> list[Signed[PolicyActivation]]:
    """Every activation of the mirror, in the order in which they were stored; none of them is believed."""
    return [Signed.from_json(PolicyActivation, dict(row)) for row in work.documents.all(ACTIVATION)]


def policies_of(chain: Lineage) -> Policies:
    """The newest bundle, and every one before it that intents may pin. Raises Refused where none is in force."""
    newest, earlier = chain.newest, chain.steps[:-1]
    return Policies(in_force(newest.bundle), {step.bundle.hash: in_force(step.bundle) for step in earlier})


def check_registry(bundle: Bundle, opened: Assets) -> None:
    """Raises Unavailable where a process reads its books by another asset registry than the one in force: it starts again."""
    if {*bundle.assets} != {*opened} or dict(bundle.assets.confirmations) != dict(opened.confirmations):
        raise Unavailable("the asset registry", f"bundle {bundle.hash.hex()} has another one; start this process again")


def standing_in(opened: Assets) -> ReadStanding:
    """How an attestor that opened its books by a registry learns which bundles stand; what it verified once is kept."""
    reader = BundleReader()

    def standing(work: UnitOfWork, rosters: Sequence[Roster], now: int, sight: FirstSight) -> Standing:
        lineage = reader.read(work, rosters, now, sight)
        bundle = lineage.newest.bundle
        check_registry(bundle, opened)
        return Standing(bundle.hash, {step.bundle.hash: step.bundle.fees for step in lineage.steps})

    return standing
