# SPDX-License-Identifier: AGPL-3.0-or-later
"""`bulkhead policy bundle | draft | sign | activate`: how a bundle comes after another one (docs/decisions/0011).

Nobody who signs has to believe whoever drafted: `sign` computes the difference again from both bundles, proves the new rules
against old and new claims, and signs nothing that says otherwise.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from custody.commands.common import (
    AsJson,
    Home,
    home,
    open_signer,
    out,
    read_hash,
    read_json,
    read_signed_as,
    say_json,
    write_json,
)
from custody.commands.policy.review import Review
from custody.commands.policy.shown import Folder, open_bundle
from custody.rules.errors import InvalidInput, Unavailable
from custody.rules.governance import PolicyActivation
from custody.rules.refusals import Refusal, Refused, Rule
from custody.rules.signatures import Signed
from custody.rules.typed import ZERO32, Domain

if TYPE_CHECKING:
    from custody.bootstrap import Deployment
    from policies.bundle import Bundle

Activation = Annotated[Path, typer.Argument(help="The activation (JSON).")]
New = Annotated[Path, typer.Argument(help="The bundle to come: its folder, or the file that `policy bundle` wrote.")]


def register(app: typer.Typer) -> None:
    """Add these commands."""
    for name, command in (("bundle", bundle), ("draft", draft), ("sign", sign), ("activate", activate)):
        app.command(name)(command)


def read_bundle(path: Path) -> "Bundle":
    """A bundle from its folder, or from the one file that `bundle` wrote. Raises InvalidInput."""
    from custody.governing import bundle_of

    if path.is_dir() or not path.exists():
        return open_bundle(path)
    documents = read_json(path)
    if not isinstance(documents, dict):
        raise InvalidInput(path.name, Rule.MALFORMED, type(documents).__name__, "a bundle's documents")
    return bundle_of(documents)


def bundle(
    target: Annotated[Path, typer.Argument(help="Where to write it.")], folder: Folder = None, as_json: AsJson = False
) -> None:
    """Write a bundle as the one canonical JSON that its hash is over; what owners sign, and what is handed to seats."""
    from custody.rules.ledger import canonical

    found = open_bundle(folder)
    target.write_bytes(canonical(found.to_json()) + b"\n")
    body = {"bundle": "0x" + found.hash.hex(), "file": target.name}
    if as_json:
        say_json(body)
    else:
        out.print(f"bundle {body['bundle']} in {target.name}", markup=False)


def draft(  # each is a word of the command
    target: Annotated[Path, typer.Argument(help="Where to write the activation that owners sign.")],
    new: Annotated[Path | None, typer.Argument(help="The bundle to come; at birth, the settings' own.")] = None,
    old: Annotated[Path | None, typer.Argument(help="The bundle in force, if not the home's own.")] = None,
    author: Annotated[
        str, typer.Option(help="The person who wrote the bundle; does not count as an owner who signs.")
    ] = "",
    not_before: Annotated[
        int, typer.Option(help="Seconds since 1970 before which it is not in force; now at least.")
    ] = 0,
    home_option: Home = None,
    as_json: AsJson = False,
) -> None:
    """Write a bundle's activation for its owners to sign, and beside it the report of what it changes."""
    if not author:
        raise InvalidInput("--author", Rule.MALFORMED, "nobody", "the person who wrote the bundle")
    deployment = _deployment(home_option) if old is None else None
    before = read_bundle(old) if old is not None else _in_force(deployment)
    coming = read_bundle(new) if new is not None else _own(home_option)
    now = _time(deployment)
    if before is None:
        activation = PolicyActivation(coming.hash, ZERO32, ZERO32, author, max(now, not_before))
        write_json(target, Signed(activation, ()).to_json())
        if as_json:
            say_json({"bundle": "0x" + coming.hash.hex(), "previous": None})
        else:
            out.print(f"bundle 0x{coming.hash.hex()}\nnow owners sign it: bulkhead sign {target}", markup=False)
        return
    review = Review(before, coming)
    activation = PolicyActivation(coming.hash, before.hash, review.difference.hash, author, max(now, not_before))
    write_json(target, Signed(activation, ()).to_json())
    report = target.with_name(target.name + ".report.json")
    write_json(report, review.difference.to_json())
    if as_json:
        say_json({**review.to_json(), "activation": target.name, "report_file": report.name})
    else:
        for line in review.lines(None, author):
            out.print(line, markup=False)
        out.print(f"\nreport in {report.name}; now each signs: bulkhead policy sign {target.name} NEW", markup=False)
    if review.failed:
        raise typer.Exit(1)


def sign(  # each is a word of the command
    file: Activation,
    new: New,
    old: Annotated[
        Path | None,
        typer.Argument(help="The bundle in force, if not the home's own; it must be the one that is named."),
    ] = None,
    key: Annotated[Path | None, typer.Option("--key", help="Your keystore. Without it nothing is signed.")] = None,
    password_file: Annotated[Path | None, typer.Option(help="Read the password from here instead of asking.")] = None,
    genesis: Annotated[str | None, typer.Option(help="Genesis in hex; the home's own if not given.")] = None,
    home_option: Home = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask: you have read it.")] = False,
    as_json: AsJson = False,
) -> None:
    """Compute the difference again, prove the new rules, say who has to sign; then sign. Exit 1 where the report or a proof fails."""
    signed = read_signed_as(file, PolicyActivation)
    activation, coming = signed.message, read_bundle(new)
    needed = old is None or (genesis is None and key is not None)  # an owner's machine may have no deployment at all
    deployment = _deployment(home_option) if needed else None
    before = (
        None
        if activation.previous == ZERO32
        else read_bundle(old)
        if old is not None
        else _named(deployment, activation)
    )
    _check_named(activation, before, coming)
    review = Review(before, coming)
    roster = deployment.roster if deployment is not None else None
    against = review.against(activation)
    if as_json:
        say_json({**review.to_json(), "refused": [str(refusal) for refusal in against]})
    else:
        for line in review.lines(roster, activation.author):
            out.print(line, markup=False)
    if against:
        raise Refused(against)
    if review.failed:
        if not as_json:
            out.print(f"\nnot signed: {len(review.failed)} proofs fail", markup=False)
        raise typer.Exit(1)
    if key is None:
        return
    domain = Domain(read_hash(genesis, "genesis") if genesis is not None else _known(deployment).genesis)
    if not as_json:
        shown = f"\ngenesis  0x{domain.genesis.hex()}\ndigest   0x{domain.digest(activation).hex()}"
        out.print(shown, markup=False)
    if not yes:
        typer.confirm("Sign exactly this?", abort=True, err=True)
    signature = open_signer(key, password_file).sign(domain.digest(activation))
    write_json(file, signed.joined([signature]).to_json())
    if not as_json:
        out.print(f"signed by {signature.key}", markup=False)


def activate(
    file: Activation,
    new: Annotated[
        Path | None, typer.Argument(help="The bundle; not needed where the deployment has it, or at birth.")
    ] = None,
    home_option: Home = None,
    as_json: AsJson = False,
) -> None:
    """Check an activation, store it, and hand it to every seat that answers; say from when it is in force. Run it again after that."""
    from custody.activating import activate_policy

    document, deployment = read_signed_as(file, PolicyActivation), _deployment(home_option)
    given = None if new is None else read_bundle(new)
    done = activate_policy(deployment, document, given)
    key = "0x" + document.message.bundle.hex()
    if as_json:
        handed = [{"seat": h.seat, "has_it": h.has_it, "waits_until": h.waits_until, "why": h.why} for h in done.handed]
        say_json(
            {"bundle": key, "path": done.terms.path, "since": done.since, "in_force": done.in_force, "seats": handed}
        )
        return
    from custody.rules import words

    when = (
        f"in force: bundle {key}" if done.in_force else f"noted: bundle {key} is in force from {words.at(done.since)}"
    )
    out.print(when, markup=False)
    for each in done.handed:
        if each.has_it:
            told = "has it"
        elif each.waits_until:
            told = f"noted it, and takes it from {words.at(each.waits_until)}"
        elif each.silent:  # a cold seat: it is handed the same files inside a ceremony
            told = f"is silent: bulkhead seat admit-policy {each.seat} {file} BUNDLE --socket …"
        else:
            told = f"refuses it: {each.why}"
        out.print(f"seat {each.seat} {told}", markup=False)
    if not done.in_force:
        out.print("run this again then, so that every seat takes it; a worker does so by itself", markup=False)


def _check_named(activation: PolicyActivation, before: "Bundle | None", coming: "Bundle") -> None:
    """The bundles at hand are those that the activation names. Raises Refused."""
    held = ZERO32 if before is None else before.hash
    found = (("bundle", activation.bundle, coming.hash), ("previous", activation.previous, held))
    wrong = [
        Refusal(Rule.NOT_SUCCESSOR, field=f, got=got.hex(), want=want.hex()) for f, got, want in found if got != want
    ]
    if wrong:
        raise Refused(wrong)


def _deployment(home_option: str | None) -> "Deployment":
    from custody.bootstrap import open_deployment

    return open_deployment(home(home_option))


def _known(deployment: "Deployment | None") -> "Deployment":
    if deployment is None:
        raise InvalidInput("genesis", Rule.MALFORMED, "none", "--genesis, or a deployment's home")
    return deployment


def _in_force(deployment: "Deployment | None") -> "Bundle | None":
    """The bundle in force in a deployment; None before its first."""
    lineage = None if deployment is None else deployment.lineage()
    return lineage.newest.bundle if lineage is not None and (lineage.steps or lineage.against) else None


def _named(deployment: "Deployment | None", activation: PolicyActivation) -> "Bundle":
    """The bundle in force, which an activation to sign has to follow. Raises Refused where it follows another one."""
    found = _in_force(deployment)
    if found is None or found.hash != activation.previous:
        want = "none" if found is None else found.hash.hex()
        raise Refused([Refusal(Rule.NOT_SUCCESSOR, got=activation.previous.hex(), want=want)])
    return found


def _own(home_option: str | None) -> "Bundle":
    from custody.settings import Settings

    return open_bundle(Path(Settings.load(home(home_option)).bundle))


def _time(deployment: "Deployment | None") -> int:
    """The deployment's time where it is at hand and answers, else this machine's: only what a draft says it is not before."""
    from custody.composing import GENESIS, wall_clock

    if deployment is None or not (deployment.settings.home / GENESIS).exists():
        return wall_clock()
    try:
        return deployment.clock()
    except Unavailable:
        return wall_clock()
