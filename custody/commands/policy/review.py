# SPDX-License-Identifier: AGPL-3.0-or-later
"""What an owner is shown before signing a bundle that comes after another: computed here, from both, and believed of nobody."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from custody.commands.policy.shown import without_solver
from custody.rules.errors import InvalidInput
from custody.rules.governance import PolicyActivation
from custody.rules.refusals import Refusal, Rule
from custody.rules.typed import ZERO32

if TYPE_CHECKING:
    from custody.rules.roster import Roster
    from custody.rules.succession import Terms
    from policies.bundle import Bundle
    from policies.proofs.difference import Difference
    from policies.proofs.obligations import Proof


class Review:
    """Difference, proofs and path of a bundle after the one in force, or of the first, which has no difference."""

    def __init__(self, before: "Bundle | None", coming: "Bundle") -> None:
        try:
            from policies.proofs.difference import difference
            from policies.proofs.obligations import Prover
        except ImportError as error:
            without_solver(error)
        from policies.succession import terms

        self.before, self.coming = before, coming
        self.terms: Terms = terms(before, coming)
        self._difference: Difference | None = None if before is None else difference(before, coming)
        self.proofs: list[Proof] = list(Prover(coming).prove(before))
        self.failed = [proof for proof in self.proofs if not proof.holds]

    @property
    def difference(self) -> "Difference":
        """From the bundle before it; there is one wherever this is asked."""
        if self._difference is None:
            raise InvalidInput("previous", Rule.MALFORMED, "the first bundle", "one that follows another")
        return self._difference

    def against(self, activation: PolicyActivation) -> list[Refusal]:
        """Why its report cannot be signed: it is not the one that these two bundles give."""
        want = ZERO32 if self._difference is None else self._difference.hash
        if activation.diff_report == want:
            return []
        return [Refusal(Rule.WRONG_DIGEST, field="diff_report", got=activation.diff_report.hex(), want=want.hex())]

    def to_json(self) -> dict[str, object]:
        """For programs."""
        from custody.commands.policy.proving import proof_json

        difference = self._difference
        return {
            "bundle": "0x" + self.coming.hash.hex(),
            "previous": None if self.before is None else "0x" + self.before.hash.hex(),
            "difference": None if difference is None else difference.to_json(),
            "report": None if difference is None else "0x" + difference.hash.hex(),
            "path": {
                "name": self.terms.path,
                "owners": self.terms.owners,
                "delay": self.terms.delay,
                "claims": {"group": self.terms.group, "people": self.terms.people},
                "loosens": list(self.terms.loosens),
            },
            "proofs_failed": [proof_json(proof) for proof in self.failed],
            "proofs": len(self.proofs),
        }

    def lines(self, roster: "Roster | None", author: str) -> Iterator[str]:
        """For people: what changes, what is proved, who has to sign and how long it waits."""
        from custody.commands.policy.proving import proof_lines, told_lines

        if self._difference is not None:
            yield from told_lines(self._difference, self.coming.assets)
        yield ""
        for proof in self.failed:
            yield from proof_lines(proof, self.coming.assets)
        yield f"{len(self.proofs) - len(self.failed)} of {len(self.proofs)} proofs hold, claims of both bundles among them"
        yield from path_lines(self.terms, roster, author)


def path_lines(terms: "Terms", roster: "Roster | None", author: str) -> Iterator[str]:
    """Which path a bundle takes, why, who has to sign, and how long it waits."""
    from custody.rules.requirement import exact_span

    yield f"path: {terms.path}, {exact_span(terms.delay) if terms.delay else 'no time'} after each part first saw it"
    yield from (f"  not plainly as strict: {why}" for why in terms.loosens)
    least = terms.owners if roster is None else max(terms.owners, roster.version.thresholds.policy)
    named = "" if roster is None else " of " + ", ".join(sorted({*roster.version.policy_owners} - {author}))
    yield f"has to be signed by {least} owners{named}, {author} not among them"
    if terms.people:
        group = (
            []
            if roster is None
            else [p.id for p in roster.version.people if terms.group in p.groups and p.id != author]
        )
        names = f" ({', '.join(sorted(group)) or 'nobody'})" if roster is not None else ""
        yield f"and by {terms.people} of {terms.group}{names}, since claims or governance change"
