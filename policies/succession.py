# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the bundle in force asks of the next one, and which of many activations put which bundles in force (docs/decisions/0011).

The chain of bundles is computed afresh from signatures: a row that was forged, deleted or put elsewhere is worth what is signed in
it. Seats keep a memory of their own, and refuse an older bundle whatever a mirror says.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from custody.rules.errors import Unavailable
from custody.rules.governance import PolicyActivation
from custody.rules.refusals import Refusal, Refused, Rule, raise_if
from custody.rules.roster import Roster
from custody.rules.signatures import Signed
from custody.rules.succession import FIRST, Terms, check_signed, check_successor, matures
from custody.rules.typed import ZERO32
from policies.bundle import Bundle
from policies.refinement import governance_changes, not_plainly_stricter

Sight = Callable[[bytes], int | None]
"""When an activation (by its struct hash) was first seen by whoever asks; None where that is not known, and then it never counts."""
BundleOf = Callable[[bytes], Bundle | None]


def terms(old: Bundle | None, new: Bundle) -> Terms:
    """What is asked of `new` after `old`. Unknown is weaker: no solver is asked here, since seats and services load none.

    Raises Refused where an asset of the books would go, or become another: a journal of base units cannot be read by other units.
    """
    if old is None:
        return FIRST
    raise_if(_check_books(old, new))
    governance, loosens = old.governance, not_plainly_stricter(old, new)
    path = governance.weaker if loosens else governance.stricter
    people = governance.claims_people if governance_changes(old, new) else 0
    return Terms(path.owners, path.delay, governance.claims_group if people else "", people, loosens)


def _check_books(old: Bundle, new: Bundle) -> Iterator[Refusal]:
    now = {asset.symbol: asset for asset in new.assets}
    for asset in old.assets:
        other = now.get(asset.symbol)
        kept = None if other is None else (other.chain, other.kind, other.decimals, other.contract)
        if kept != (asset.chain, asset.kind, asset.decimals, asset.contract):
            want = "its chain, contract and decimals for ever: rules may deny what an asset is used for"
            yield Refusal(Rule.NOT_SUCCESSOR, field="assets.yaml", asset=asset.symbol, want=want)


@dataclass(frozen=True, slots=True)
class Step:
    """A bundle that everybody signed whom its predecessor asks for: in force since then, or from then on unless another comes first."""

    signed: Signed[PolicyActivation]
    bundle: Bundle
    terms: Terms
    since: int
    seen: int


@dataclass(frozen=True, slots=True)
class Lineage:
    """What activations say together, at one time. `steps` are the bundles in force, oldest first; `waiting` comes next.

    `against` is everything that counts for nothing, by the activation's struct hash, with the reasons.
    """

    steps: tuple[Step, ...]
    waiting: tuple[Step, ...]
    against: tuple[tuple[bytes, tuple[Refusal, ...]], ...]

    @property
    def newest(self) -> Step:
        """The bundle in force. Raises Refused where there is none: everything that was refused, else that none was signed."""
        if not self.steps:
            told = [refusal for _, refusals in self.against for refusal in refusals]
            told += [
                Refusal(Rule.TOO_EARLY, bundle=each.bundle.hash.hex(), not_before=each.since) for each in self.waiting
            ]
            raise Refused(told or [Refusal(Rule.SIGNATURE_MISSING, document="PolicyActivation")])
        return self.steps[-1]


def walk(
    activations: Iterable[Signed[PolicyActivation]],
    bundle_of: BundleOf,
    sight: Sight,
    rosters: Sequence[Roster],
    now: int,
) -> Lineage:
    """From the first bundle to the one in force: each verified by the roster of its time, each mature; the earliest wins.

    Rosters oldest first, verified; `bundle_of` gives what it hashed itself. An activation's delay counts from when it was first
    seen, or from when its predecessor came in force where that is later, as it does for a seat. Raises Unavailable where owners
    put a bundle in force whose documents are lost: going on by the older one would be guessing.
    """
    left = {signed.message.struct_hash: signed for signed in activations}
    steps: list[Step] = []
    waiting: list[Step] = []
    against: dict[bytes, tuple[Refusal, ...]] = {}
    while True:
        waiting.clear()
        for digest, signed in left.items():
            found = _judged(signed, steps, bundle_of, sight, rosters)
            if isinstance(found, Step):
                waiting.append(found)
                against.pop(digest, None)
            else:
                against[digest] = found
        mature = [each for each in waiting if each.since <= now]
        if not mature:
            break
        chosen = min(mature, key=lambda each: (each.since, each.signed.message.struct_hash))
        digest = chosen.signed.message.struct_hash
        steps.append(chosen)
        left.pop(digest)
        against.pop(digest, None)
    return Lineage(tuple(steps), tuple(waiting), tuple(against.items()))


def _judged(
    signed: Signed[PolicyActivation],
    steps: Sequence[Step],
    bundle_of: BundleOf,
    sight: Sight,
    rosters: Sequence[Roster],
) -> Step | tuple[Refusal, ...]:
    activation, newest = signed.message, steps[-1] if steps else None
    earlier = tuple(step.bundle.hash for step in steps)
    refusals = [*check_successor(activation, earlier[-1] if earlier else ZERO32, earlier)]
    if refusals:
        return tuple(refusals)
    # a row is read no further, and its first sight not noted, before as many owners of some time signed as any bundle needs
    tried = [[*check_signed(signed, FIRST, r, max(r.version.not_before, activation.not_before))] for r in rosters]
    if all(tried):
        return tuple(tried[-1])
    bundle = bundle_of(activation.bundle)
    if bundle is None:
        raise Unavailable("the mirror", f"it has lost bundle {activation.bundle.hex()}, which owners signed")
    try:
        asked = terms(newest.bundle if newest else None, bundle)
    except Refused as refused:
        return refused.refusals
    seen = activation.not_before if newest is None else sight(activation.struct_hash)
    if seen is None:
        return (Refusal(Rule.TOO_EARLY, activation=activation.struct_hash.hex(), want="a first sight to count from"),)
    since = matures(activation, asked, max(seen, newest.since) if newest else seen)
    if refusals := [*check_signed(signed, asked, _roster_at(rosters, since), since)]:
        return tuple(refusals)
    return Step(signed, bundle, asked, since, seen)


def _roster_at(rosters: Sequence[Roster], time: int) -> Roster:
    """The roster in force at a time, of those in force now."""
    return next((roster for roster in reversed(rosters) if roster.version.not_before <= time), rosters[0])
