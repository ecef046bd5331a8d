# SPDX-License-Identifier: AGPL-3.0-or-later
"""`bulkhead approve | reject | transfers`: people see what would move, in plain words, and say yes or no with their own keys."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from custody.commands.common import AsJson, Home, home, out, say_json

if TYPE_CHECKING:
    from custody.bootstrap import Deployment
    from custody.flows.kernel import Kernel
    from custody.flows.reviewing import Review
    from custody.keyfiles import Signer

app = typer.Typer(help="See what a transfer would move, and approve exactly that with your own key.")
reject_app = typer.Typer(help="Say no to a transfer, with the reason; the initiator's own no cancels it.")
transfers_app = typer.Typer(help="Every transfer, where it stands, and for whom or what it waits.")

Named = Annotated[str, typer.Argument(metavar="ID", help="The transfer's id, or its digest in hex.")]
KeyFile = Annotated[Path, typer.Option("--key", help="Your keystore, or a program's PEM file.")]
Password = Annotated[Path | None, typer.Option(help="Read the password from here instead of asking.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask: you have read it.")]


@app.command()
def approve(
    transfer: Named, key: KeyFile, password_file: Password = None, home_option: Home = None, yes: Yes = False
) -> None:
    """Show what would move, recompute the digest from the fields, ask, sign, and record the approval."""
    from custody.bootstrap import open_deployment
    from custody.flows import proposals
    from custody.rules.approvals import Approval
    from custody.rules.refusals import Refusal, Refused, Rule, raise_if

    deployment = open_deployment(home(home_option))
    kernel, seen, now = _show(deployment, transfer)
    raise_if(seen.against)
    if not yes:
        typer.confirm("Approve exactly this?", abort=True)
    signer = _open(key, password_file)
    person = kernel.roster.people_by_key.get(signer.key)
    if person is None:
        raise Refused([Refusal(Rule.SIGNER_UNKNOWN, key=str(signer.key), want="a person of the newest roster")])
    approval = Approval(seen.digest, person.id, signer.sign(seen.digest))
    after = proposals.approve(deployment.store, kernel, approval, now)
    out.print(f"\napproved by {person.id}; now {after.status.value}: {after.waiting_for}", markup=False)


@reject_app.command()
def reject(
    transfer: Named,
    key: KeyFile,
    reason: Annotated[str, typer.Option("--reason", help="Why not; it is signed and kept.")],
    password_file: Password = None,
    home_option: Home = None,
    yes: Yes = False,
) -> None:
    """Show it, ask, sign a no, and free its hold. After a first signature was asked for only a void ends a payout."""
    from custody.bootstrap import open_deployment
    from custody.flows import proposals
    from custody.rules.hold_origins import who_rejects
    from custody.rules.intents import Rejection
    from custody.rules.signatures import Signed

    deployment = open_deployment(home(home_option))
    kernel, seen, now = _show(deployment, transfer)
    if not yes:
        typer.confirm("Reject it?", abort=True)
    signer = _open(key, password_file)
    message = Rejection(seen.digest, reason)
    signed = Signed(message, (signer.sign(kernel.roster.domain.digest(message)),))
    mine = who_rejects(signed, seen.transfer.intent, kernel.roster, now) == seen.transfer.intent.initiator
    ending = proposals.cancel if mine else proposals.reject
    after = ending(deployment.store, kernel, signed, now)
    out.print(f"\nnow {after.status.value}", markup=False)


@transfers_app.command()
def transfers(
    every: Annotated[bool, typer.Option("--all", help="Those at their end too.")] = False,
    home_option: Home = None,
    as_json: AsJson = False,
) -> None:
    """List transfers, oldest first."""
    from custody.bootstrap import open_deployment
    from custody.rules.amounts import Amount
    from custody.rules.transfers import Status

    deployment = open_deployment(home(home_option), read_only=True)
    statuses = list(Status) if every else [status for status in Status if not status.is_final]
    after, rows = 0, []
    while page := deployment.store.read(lambda work, a=after: work.transfers.page(a, statuses=statuses)):  # type: ignore[misc]
        rows += [found for _, found in page]
        after = page[-1][0]
    assets = deployment.bundle.assets
    if as_json:
        say_json(
            [
                {
                    "id": t.intent.id,
                    "digest": "0x" + t.digest.hex(),
                    "status": t.status.value,
                    "sub_status": None if t.sub_status is None else t.sub_status.value,
                    "waiting_for": t.waiting_for,
                    "intent": t.intent.to_json(),
                }
                for t in rows
            ]
        )
        return
    for found in rows:
        intent = found.intent
        amount = Amount(assets.get(intent.asset), intent.amount).decimal
        status = found.status.value + (f" ({found.sub_status.value})" if found.sub_status is not None else "")
        out.print(f"{intent.id}  {status}", markup=False)
        out.print(
            f"  {amount} {intent.asset}, {intent.purpose} of {intent.account} to {intent.destination}", markup=False
        )
        if found.waiting_for:
            out.print(f"  waits for {found.waiting_for}", markup=False)
    out.print(f"{len(rows)} transfers", markup=False)


def _show(deployment: "Deployment", named: str) -> "tuple[Kernel, Review, int]":
    """Print what would move; everything worked out here, from documents that this command verified."""
    from custody.flows import reviewing
    from custody.parts import attestor
    from custody.rules.errors import Unavailable
    from custody.rules.refusals import Refused
    from custody.working import KernelReader

    reader = KernelReader(deployment)
    kernel, now = reader(), reader.clock()
    try:
        statement = attestor(deployment.settings).statement()
    except (Unavailable, Refused):  # shown as unknown: approving is no signing, and the seats ask it themselves
        statement = None
    seen = reviewing.review(deployment.store, kernel, reviewing.find(deployment.store, named), statement, now)
    for line in reviewing.words(kernel, seen, now):
        out.print(line, markup=False)
    return kernel, seen, now


def _open(key: Path, password_file: Path | None) -> "Signer":
    from custody.keyfiles import open_key

    password = (
        password_file.read_text(encoding="utf-8").rstrip("\n")
        if password_file
        else typer.prompt("Password", hide_input=True)
    )
    return open_key(key, password)
