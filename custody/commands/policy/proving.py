# SPDX-License-Identifier: AGPL-3.0-or-later
"""`bulkhead policy prove | lint | diff`: what the solver says about a bundle, or about two."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from custody.commands.common import AsJson, out, say_json
from custody.commands.policy.shown import Folder, end, facts_lines, open_bundle, without_solver

if TYPE_CHECKING:
    from custody.rules.amounts import Assets
    from policies.proofs.difference import Difference, Shift
    from policies.proofs.obligations import Proof


def register(app: typer.Typer) -> None:
    """Add these commands."""
    for name, command in (("prove", prove), ("lint", lint), ("diff", diff)):
        app.command(name)(command)


def prove(
    folder: Folder = None,
    before: Annotated[Path | None, typer.Option(help="The bundle in force: its claims hold the new rules too.")] = None,
    as_json: AsJson = False,
) -> None:
    """Prove claims and built-in obligations; each counterexample is a transfer, replayed through the evaluator. Unknown is a failure."""
    try:
        from policies.proofs.obligations import Prover
    except ImportError as error:
        without_solver(error)
    bundle = open_bundle(folder)
    proofs = list(Prover(bundle).prove(None if before is None else open_bundle(before)))
    failed = [proof for proof in proofs if not proof.holds]
    if as_json:
        say_json({"bundle": "0x" + bundle.hash.hex(), "proofs": [proof_json(proof) for proof in proofs]})
    else:
        for proof in proofs:
            out.print("\n".join(proof_lines(proof, bundle.assets)), markup=False)
        out.print(f"\n{len(proofs) - len(failed)} of {len(proofs)} hold for bundle 0x{bundle.hash.hex()}", markup=False)
    if failed:
        raise typer.Exit(1)


def proof_json(proof: "Proof") -> dict[str, object]:
    """A proof for programs."""
    examples = [{"facts": e.facts.to_json(), "decision": e.decision.to_json()} for e in proof.examples]
    return {"id": proof.id, "says": proof.says, "holds": proof.holds, "trouble": proof.trouble, "examples": examples}


def proof_lines(proof: "Proof", assets: "Assets") -> Iterator[str]:
    """A proof for people, with what stands against it."""
    from policies.proofs.difference import answer_text

    yield f"{'holds ' if proof.holds else 'FAILS '} {proof.id}: {proof.says}"
    if proof.trouble:
        yield f"    {proof.trouble}"
    for number, example in enumerate(proof.examples, 1):
        yield f"    example{f' {number}' if len(proof.examples) > 1 else ''}, which {answer_text(example.decision)}:"
        yield from facts_lines(example.facts, assets, "      ")


def lint(folder: Folder = None, as_json: AsJson = False) -> None:
    """Rules that do nothing: dead, shadowed by another, redundant; limits that nobody names. Denies against permits to come are told."""
    try:
        from policies.proofs.idle import Idleness, idle
    except ImportError as error:
        without_solver(error)
    found = list(idle(open_bundle(folder)))
    findings = [f"{each.what} is {each.idleness}: {each.why}" for each in found if each.idleness is not Idleness.GUARD]
    guards = [f"{each.what} is a guard: {each.why}" for each in found if each.idleness is Idleness.GUARD]
    if not as_json:
        out.print("\n".join(guards), markup=False)
    body: dict[str, object] = {"findings": findings, "guards": guards}
    end(findings, body, as_json=as_json, fine="no rule and no limit is idle")


def diff(
    old: Annotated[Path, typer.Argument(help="The bundle in force.")],
    new: Annotated[Path | None, typer.Argument(help="The bundle to come; the shipped bundle if not given.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="For a pull request.")] = False,
    as_json: AsJson = False,
) -> None:
    """Every way in which a new bundle asks less, or more, each with a transfer that shows it. Exit 1 where it is weaker."""
    try:
        from policies.proofs.difference import difference
    except ImportError as error:
        without_solver(error)
    was, now = open_bundle(old), open_bundle(new)
    found = difference(was, now)
    if as_json:
        say_json({**found.to_json(), "hash": "0x" + found.hash.hex()})
    else:
        typer.echo("\n".join((_markdown if markdown else told_lines)(found, now.assets)))
    if found.is_weaker:
        raise typer.Exit(1)


def told_lines(found: "Difference", assets: "Assets") -> Iterator[str]:
    """A difference for people: every class with its example, the verdict, the report's hash."""
    yield f"from 0x{found.old.hex()}\n  to 0x{found.new.hex()}\n"
    for shift in found.shifts:
        yield f"{shift.direction}: {shift.lost}"
        yield from facts_lines(shift.facts, assets)
        yield f"    before: {_before(shift)}\n    after:  {_after(shift)}"
    for change in found.changes:
        yield f"{change.direction}: {change.where}: {change.old} -> {change.new}"
    yield from (f"reworded: {name}" for name in found.reworded)
    yield from (f"unknown, so weaker: {why}" for why in found.unknown)
    yield _verdict(found)
    yield f"report 0x{found.hash.hex()}"


def _verdict(found: "Difference") -> str:
    report = found.to_json()
    claims = "; claims or governance change: their owners sign too" if found.claims_change else ""
    return f"verdict: {report['verdict']}{claims}"


def _before(shift: "Shift") -> str:
    from policies.proofs.difference import answer_text

    return answer_text(shift.old)


def _after(shift: "Shift") -> str:
    from policies.proofs.difference import answer_text

    return answer_text(shift.new)


def _markdown(found: "Difference", assets: "Assets") -> Iterator[str]:
    yield f"## Policy: **{found.to_json()['verdict']}**\n"
    yield f"`0x{found.old.hex()}` to `0x{found.new.hex()}`, report `0x{found.hash.hex()}`\n"
    for direction in ("weaker", "stricter"):
        shifts = [shift for shift in found.shifts if shift.direction == direction]
        changes = [change for change in found.changes if change.direction == direction]
        if not shifts and not changes:
            continue
        yield f"### {direction.capitalize()}\n"
        if shifts:
            yield "| what | route | example | before | after |"
            yield "|---|---|---|---|---|"
        for shift in shifts:
            facts = shift.facts
            route = f"{facts.from_tier} to {facts.to_tier or facts.to}, {facts.purpose}"
            example = " ".join(line.strip() for line in facts_lines(facts, assets)[1:])
            yield f"| {shift.lost} | {route} | {example} | {_before(shift)} | {_after(shift)} |"
        yield ""
        yield from (f"- {change.where}: `{change.old}` to `{change.new}`" for change in changes)
        yield ""
    if found.reworded:
        yield f"Reworded: {', '.join(found.reworded)}\n"
    yield from (f"**Unknown, so weaker**: {why}\n" for why in found.unknown)
    if found.claims_change:
        yield "**Claims or governance change: their owners have to sign too.**"
