# SPDX-License-Identifier: AGPL-3.0-or-later
"""`bulkhead policy log [replay] | simulate`: which bundles were in force, whether past decisions hold, and which another would flip."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from custody.commands.common import AsJson, Home, home, out, say_json
from custody.commands.policy.governing import read_bundle
from custody.commands.policy.shown import end, facts_lines

if TYPE_CHECKING:
    from custody.bootstrap import Deployment
    from custody.replaying import Flip
    from policies.succession import Lineage, Step

log_app: Final = typer.Typer(help="The bundles that were in force, and every decision made under them.")
_SHOWN: Final = 3


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.add_typer(log_app, name="log")
    app.command("simulate")(simulate)


@log_app.callback(invoke_without_command=True)
def log(context: typer.Context, home_option: Home = None, as_json: AsJson = False) -> None:
    """Each bundle in force, since when, who signed it and by which path; what waits; what counts for nothing. Exit 1 for a forgery."""
    if context.invoked_subcommand is not None:
        return
    from custody.rules import words

    deployment = _open(home_option)
    lineage = deployment.lineage()
    forged = list(_forged(lineage))
    if as_json:
        say_json(
            {
                "in_force": [_step_json(deployment, step) for step in lineage.steps],
                "waiting": [_step_json(deployment, step) for step in lineage.waiting],
                "refused": forged,
            }
        )
    for step in () if as_json else lineage.steps:
        _tell(deployment, step, f"in force since {words.at(step.since)}")
    for step in () if as_json else lineage.waiting:
        _tell(deployment, step, f"waits until {words.at(step.since)}")
    if not as_json:
        for line in forged:
            out.print(f"counts for nothing: {line}", markup=False)
        if not lineage.steps and not lineage.waiting:
            out.print("no bundle was ever in force", markup=False)
    if forged:
        raise typer.Exit(1)


def _tell(deployment: "Deployment", step: "Step", when: str) -> None:
    told = _step_json(deployment, step)
    out.print(f"0x{step.bundle.hash.hex()} {when}", markup=False)
    path = "the first" if step.terms.delay == 0 else step.terms.path
    out.print(f"  {path}; by {told['author']}; signed by {', '.join(_signers(deployment, step))}", markup=False)
    for why in step.terms.loosens:
        out.print(f"  not plainly as strict: {why}", markup=False)


def _step_json(deployment: "Deployment", step: "Step") -> dict[str, object]:
    activation = step.signed.message
    return {
        "bundle": "0x" + activation.bundle.hex(),
        "previous": "0x" + activation.previous.hex(),
        "report": "0x" + activation.diff_report.hex(),
        "author": activation.author,
        "signed_by": _signers(deployment, step),
        "path": step.terms.path,
        "loosens": list(step.terms.loosens),
        "seen": step.seen,
        "since": step.since,
    }


def _signers(deployment: "Deployment", step: "Step") -> list[str]:
    rosters = [r for r in deployment.rosters if r.version.not_before <= step.since] or [deployment.rosters[0]]
    return sorted(rosters[-1].people_who_signed(step.signed, step.since))


def _forged(lineage: "Lineage") -> Iterator[str]:
    """Activations that nobody put in force, but for those that another one was quicker than."""
    from custody.rules.refusals import Rule

    for digest, refusals in lineage.against:
        if any(refusal.rule is not Rule.NOT_SUCCESSOR for refusal in refusals):
            yield f"activation 0x{digest.hex()}: {'; '.join(str(refusal) for refusal in refusals)}"


@log_app.command("replay")
def replay(home_option: Home = None, as_json: AsJson = False) -> None:
    """Answer every recorded decision again, by its own bundles and facts. Exit 1 where an answer differs or a record is not whole."""
    from custody import replaying

    done = replaying.replay(_open(home_option))
    body: dict[str, object] = {"records": done.records, "findings": list(done.findings)}
    end(done.findings, body, as_json=as_json, fine=f"{done.records} recorded decisions, each answered the same again")


def simulate(
    old: Annotated[Path, typer.Argument(help="The bundle in force: a folder, or the file that `policy bundle` wrote.")],
    new: Annotated[Path, typer.Argument(help="The bundle to come.")],
    history: Annotated[  # noqa: ARG001  # what there is to simulate on; named so that a reader sees it
        bool, typer.Option("--history", help="On every proposal that the deployment has recorded.")
    ] = True,
    home_option: Home = None,
    as_json: AsJson = False,
) -> None:
    """Which past proposals another bundle answers differently: counts, value, examples. Exit 1 where it asks less of any of them."""
    from custody import replaying
    from policies.matrix import usd_text

    was, now = read_bundle(old), read_bundle(new)
    proposed, flips = replaying.simulate(_open(home_option), was, now)
    groups: dict[tuple[str, str], list[Flip]] = defaultdict(list)
    for flip in flips:
        groups["looser" if flip.is_looser else "stricter", _how(flip)].append(flip)
    looser = [flip for flip in flips if flip.is_looser]
    if as_json:
        say_json(
            {
                "old": "0x" + was.hash.hex(),
                "new": "0x" + now.hash.hex(),
                "proposals": proposed,
                "flips": [
                    {
                        "direction": direction,
                        "how": how,
                        "count": len(each),
                        "micro_usd": str(_value(each)),
                        "transfers": [flip.id for flip in each],
                    }
                    for (direction, how), each in sorted(groups.items())
                ],
            }
        )
    for (direction, how), each in () if as_json else sorted(groups.items()):
        out.print(f"{direction}: {how}: {len(each)} of {proposed}, {usd_text(_value(each))} USD", markup=False)
        for flip in each[:_SHOWN]:
            out.print("\n".join([f"  {flip.id}", *facts_lines(flip.facts, was.assets)]), markup=False)
    if not as_json:
        told = f"{len(flips)} of {proposed} past proposals would be answered differently, {len(looser)} of them less strictly"
        out.print(told, markup=False)
    if looser:
        raise typer.Exit(1)


def _how(flip: "Flip") -> str:
    from policies.proofs.difference import answer_text

    return f"{answer_text(flip.old)} -> {answer_text(flip.new)}"


def _value(flips: "list[Flip]") -> int:
    return sum(flip.facts.usd or 0 for flip in flips)


def _open(home_option: str | None) -> "Deployment":
    from custody.bootstrap import open_deployment

    return open_deployment(home(home_option), read_only=True)
