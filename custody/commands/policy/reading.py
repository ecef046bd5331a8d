# SPDX-License-Identifier: AGPL-3.0-or-later
"""`bulkhead policy check | fmt | test | explain | docs`: what a bundle says, without asking the solver."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from custody.commands.common import AsJson, Home, home, out, read_json, say_json
from custody.commands.policy.shown import Folder, end, facts_lines, open_bundle, without_solver
from custody.rules.errors import InvalidInput
from custody.rules.refusals import Rule
from custody.rules.roster import RosterVersion

if TYPE_CHECKING:
    from custody.rules.facts import Facts
    from policies.bundle import Bundle


def register(app: typer.Typer) -> None:
    """Add these commands."""
    for name, command in (("check", check), ("fmt", fmt), ("test", try_cases), ("explain", explain), ("docs", docs)):
        app.command(name)(command)


def check(
    folder: Folder = None,
    roster: Annotated[
        Path | None, typer.Option(help="A roster version (JSON): can its people fill every quorum, whoever asks?")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Read a bundle strictly: syntax, words, totality over assets; with a roster, whether each quorum can be reached at all."""
    bundle = open_bundle(folder)
    body: dict[str, object] = {
        "bundle": "0x" + bundle.hash.hex(),
        "rules": len(bundle.rules),
        "claims": len(bundle.claims.each),
    }
    findings = [] if roster is None else _locked(bundle, roster)
    body["findings"] = findings
    told = f"bundle 0x{bundle.hash.hex()}: {len(bundle.rules)} rules, {len(bundle.claims.each)} claims, read and whole"
    end(findings, body, as_json=as_json, fine=told + ("" if roster is None else "; every quorum can be reached"))


def _locked(bundle: "Bundle", file: Path) -> list[str]:
    try:
        from policies.proofs.feasibility import locked
    except ImportError as error:
        without_solver(error)
    version = _roster(file)
    groups = {person.id: frozenset(person.groups) for person in version.people}
    known = frozenset().union(*groups.values())
    named = sorted({group for rule in bundle.rules for group, _ in rule.approvals} - known)
    found = [f"group {group!r} is asked by a rule, and nobody of the roster is in it" for group in named]
    owners = len(version.policy_owners) - 1
    if bundle.governance.weaker.owners > owners:
        found.append(f"governance asks {bundle.governance.weaker.owners} owners besides the author; there are {owners}")
    showing = {person.id for person in version.people if any(person.displays)}
    for stuck in locked(bundle, groups, showing):
        who = stuck.initiator or "a program"
        found.append(f"nobody can fill {', '.join(stuck.empty)} of {stuck.requirement} where {who} asks:")
        found += facts_lines(stuck.facts, bundle.assets)
    return found


def _roster(file: Path) -> RosterVersion:
    data = read_json(file)
    message = data.get("message", data) if isinstance(data, dict) else data
    return RosterVersion.from_json(message)


def fmt(
    folder: Folder = None,
    only_check: Annotated[
        bool, typer.Option("--check", help="Change nothing; exit 1 where a file is laid out otherwise.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Lay a bundle's files out in the one way, comments and all. No text changes, so no hash does."""
    try:
        from policies.layout import laid_out
    except ImportError as error:
        without_solver(error)
    from custody.commands.policy.shown import SHIPPED

    where = folder or SHIPPED
    other: list[str] = []
    for file in sorted(where.glob("*.yaml")):
        raw = file.read_bytes()
        fresh = laid_out(raw, file.name)
        if fresh != raw:
            other.append(file.name)
            if not only_check:
                file.with_suffix(".fresh").write_bytes(fresh)
                file.with_suffix(".fresh").replace(file)
    findings = [f"{name} is laid out otherwise" for name in other] if only_check else []
    done = f"laid out: {', '.join(other)}" if other else "every file is laid out in the one way"
    end(findings, {"changed": [] if only_check else other, "findings": findings}, as_json=as_json, fine=done)


def try_cases(
    folder: Folder = None,
    show_coverage: Annotated[
        bool, typer.Option("--coverage", help="Say which rules and conditions no case shows; exit 1 for a rule.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Put the cases beside the rules (cases.yaml) to the evaluator."""
    from custody.commands.policy.shown import SHIPPED
    from policies import cases
    from policies.strict_yaml import read

    bundle = open_bundle(folder)
    results = cases.run(cases.read_cases(read((folder or SHIPPED) / cases.FILE), bundle), bundle)
    findings = [f"{result.case.name}: {result.wrong}" for result in results if result.wrong]
    covered = cases.coverage(results, bundle)
    shown = sum(each.matched for each in covered)
    body: dict[str, object] = {
        "cases": len(results),
        "wrong": list(findings),
        "rules_matched": shown,
        "rules": len(covered),
    }
    if show_coverage:
        body["unshown"] = {each.rule.id: list(each.unshown) for each in covered if each.unshown}
        findings += [f"no case matches {each.rule.id}" for each in covered if not each.matched]
    fine = f"{len(results)} cases as wanted; {shown} of {len(covered)} rules match in one of them"
    if show_coverage and not as_json:
        for each in covered:
            for condition in each.unshown:
                out.print(f"  {each.rule.id}: no case fails first at `{condition}`", markup=False)
    end(findings, body, as_json=as_json, fine=fine)


def explain(
    transfer: Annotated[
        str, typer.Argument(help="A file of facts (YAML, the words of the rules), or a transfer's id.")
    ],
    folder: Folder = None,
    home_option: Home = None,
    as_json: AsJson = False,
) -> None:
    """What the rules answer to one transfer: every rule that matched, and of each other the first condition that does not hold."""
    from policies.fact_files import read_facts
    from policies.strict_yaml import read

    if Path(transfer).exists():
        bundle = open_bundle(folder)
        facts = read_facts(read(Path(transfer)), bundle.assets, f"{Path(transfer).name}:")
    else:
        bundle, facts = _recorded(transfer, folder, home_option)
    decision = bundle.policy.evaluate(facts)
    if as_json:
        say_json({"facts": facts.to_json(), "decision": decision.to_json()})
        return
    out.print("\n".join(facts_lines(facts, bundle.assets, "")), markup=False)
    asks = f": {decision.requirement}" if decision.requirement else ""
    out.print(f"\n{decision.outcome}{asks}", markup=False)
    for fault in decision.faults:
        out.print(f"  impossible: {fault}", markup=False)
    why = {rule.id: rule.why for rule in bundle.rules}
    for matched in decision.matched:
        out.print(f"  matched {matched}: {why[matched]}", markup=False)
    for unmet in decision.unmet:
        part = "" if unmet.part == "when" else f" ({unmet.part})"
        out.print(f"  not {unmet.rule}{part}: {unmet.condition}", markup=False)


def _recorded(name: str, folder: Path | None, home_option: str | None) -> "tuple[Bundle, Facts]":
    """A transfer of the deployment with the facts that its decision was recorded with, and the bundle that it was made under."""
    from custody.bootstrap import open_deployment
    from custody.rules.decisions import bundles_of
    from custody.rules.facts import Facts

    deployment = open_deployment(home(home_option), read_only=True)
    transfer = deployment.store.read(lambda work: work.transfers.find(name))
    facts = None if transfer is None or transfer.decision is None else transfer.decision.get("facts")
    if not isinstance(facts, dict):
        raise InvalidInput(
            "transfer", Rule.UNKNOWN_TRANSFER, repr(name), "a file, or a transfer with a recorded decision"
        )
    named = bundles_of(transfer.decision or {}) if transfer is not None else ()
    under = [step.bundle for step in deployment.lineage().steps if step.bundle.hash in named]
    return (open_bundle(folder) if folder is not None else (under or [deployment.bundle])[-1]), Facts.from_json(facts)


def docs(
    folder: Folder = None,
    target: Annotated[Path | None, typer.Option("--output", help="Write to this file instead of the terminal.")] = None,
) -> None:
    """The approval matrix per route and value band, generated from the rules (Markdown)."""
    from policies.matrix import markdown

    text = "\n".join(markdown(open_bundle(folder))) + "\n"
    if target is None:
        typer.echo(text, nl=False)
    else:
        target.write_text(text, encoding="ascii")
