# SPDX-License-Identifier: AGPL-3.0-or-later
"""`bulkhead approve | reject | transfers`: people see what would move, in plain words, and say yes or no with their own keys."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from custody.commands.common import AsJson, Home, home, open_signer, out, say_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from custody.bootstrap import Deployment
    from custody.flows.kernel import Kernel
    from custody.flows.ports import Damaged
    from custody.flows.reviewing import Review
    from custody.rules.amounts import Assets
    from custody.rules.transfers import Transfer

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
    from custody.flows import proposals, review_words
    from custody.rules import words
    from custody.rules.approvals import Approval
    from custody.rules.refusals import Refusal, Refused, Rule, raise_if

    deployment = open_deployment(home(home_option))
    kernel, seen, now = _show(deployment, transfer)
    raise_if((*seen.late, *seen.against))
    for line in review_words.meaning(kernel, seen):
        out.print(line, markup=False)
    if not yes:
        typer.confirm("\nApprove exactly this?", abort=True)
    signer = open_signer(key, password_file)
    person = kernel.roster.people_by_key.get(signer.key)
    if person is None:
        raise Refused([Refusal(Rule.SIGNER_UNKNOWN, key=str(signer.key), want="a person of the newest roster")])
    approval = Approval(seen.digest, person.id, signer.sign(seen.digest))
    after = proposals.approve(deployment.store, kernel, approval, now)
    waits = words.clean(after.waiting_for)
    out.print(f"\napproved by {person.id}; now {after.status.value}, waits for {waits}", markup=False)


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
    from custody.rules import words
    from custody.rules.hold_origins import who_rejects
    from custody.rules.intents import Rejection
    from custody.rules.refusals import raise_if
    from custody.rules.signatures import Signed

    deployment = open_deployment(home(home_option))
    kernel, seen, now = _show(deployment, transfer)
    raise_if(seen.late if seen.transfer.status.is_final else ())
    out.print(
        f"\nA NO ENDS IT for good and frees its hold; your reason is signed and kept: {words.clean(reason)}",
        markup=False,
    )
    if not yes:
        typer.confirm("\nReject it?", abort=True)
    signer = open_signer(key, password_file)
    message = Rejection(seen.digest, reason)
    signed = Signed(message, (signer.sign(kernel.roster.domain.digest(message)),))
    mine = who_rejects(signed, seen.transfer.intent, kernel.roster, now) == seen.transfer.intent.initiator
    ending = proposals.cancel if mine else proposals.reject
    after = ending(deployment.store, kernel, signed, now)
    out.print(f"\nnow {after.status.value}: what it held is free again", markup=False)


@transfers_app.callback(invoke_without_command=True)
def transfers(
    context: typer.Context,
    every: Annotated[bool, typer.Option("--all", help="Those at their end too.")] = False,
    home_option: Home = None,
    as_json: AsJson = False,
) -> None:
    """List transfers, oldest first; `show ID` tells one of them whole."""
    if context.invoked_subcommand is not None:
        context.obj = home_option
        return
    from custody.bootstrap import open_deployment
    from custody.flows.ports import Damaged
    from custody.rules.transfers import Status

    deployment = open_deployment(home(home_option), read_only=True)
    statuses = list(Status) if every else [status for status in Status if not status.is_final]
    after, rows = 0, []
    while page := deployment.store.read(lambda work, a=after: work.transfers.examine(a, statuses=statuses)):  # type: ignore[misc]
        rows += [found for _, found in page]
        after = page[-1][0]
    if as_json:
        say_json([_as_json(found) for found in rows])
        return
    for found in rows:
        for line in _damaged(found) if isinstance(found, Damaged) else _listed(found, deployment.bundle.assets):
            out.print(line, markup=False)
    if rows:
        out.print("")
    out.print(f"{len(rows)} transfers{'' if every else ' under way; --all lists those at their end too'}", markup=False)


@transfers_app.command("show")
def show(context: typer.Context, transfer: Named, home_option: Home = None) -> None:
    """One transfer whole, worked out again as `bulkhead approve` shows it, and every status that it had."""
    from custody.bootstrap import open_deployment
    from custody.flows import review_words

    deployment = open_deployment(home(home_option or context.obj), read_only=True)
    _, seen, _ = _show(deployment, transfer)
    for line in review_words.history(seen):
        out.print(line, markup=False)


def _as_json(found: "Transfer | Damaged") -> dict[str, object]:
    from custody.flows.ports import Damaged

    if isinstance(found, Damaged):
        return {"digest": "0x" + found.name, "damaged": str(found.why)}
    return {
        "id": found.intent.id,
        "digest": "0x" + found.digest.hex(),
        "status": found.status.value,
        "sub_status": None if found.sub_status is None else found.sub_status.value,
        "waiting_for": found.waiting_for,
        "intent": found.intent.to_json(),
    }


def _damaged(found: "Damaged") -> "Iterator[str]":
    """A row that somebody changed: what is wrong with it, and nothing that it says."""
    from custody.rules import words

    yield ""
    yield f"0x{found.name}  is damaged, and does not move: {words.clean(str(found.why))}"


def _listed(found: "Transfer", assets: "Assets") -> "Iterator[str]":
    """A transfer in four lines, as its row has it: `show` and `approve` work it out again."""
    from custody.rules import words
    from custody.rules.amounts import Amount
    from custody.rules.errors import InvalidInput

    intent = found.intent
    sub = f" ({found.sub_status.value})" if found.sub_status is not None else ""
    try:
        amount = str(Amount(assets.get(intent.asset), intent.amount))
    except InvalidInput:  # a row that names an asset of nobody hides no other row
        amount = f"{intent.amount} base units of {words.clean(intent.asset)}, an unknown asset"
    yield ""
    yield f"{words.clean(intent.id)}  {found.status.value}{sub}, since {words.at(found.moved_at)}"
    whose, by = words.clean(intent.account), words.clean(intent.initiator)
    yield f"  {amount}, {words.clean(intent.purpose)} of {whose}, asked for by {by}"
    yield f"  to {words.clean(intent.destination)} on {words.clean(intent.chain)}"
    if found.waiting_for:
        yield f"  waits for {words.clean(found.waiting_for)}"


def _show(deployment: "Deployment", named: str) -> "tuple[Kernel, Review, int]":
    """Print what would move; everything worked out here, from documents that this command verified."""
    from custody.flows import review_words, reviewing
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
    for line in review_words.tell(kernel, seen, now):
        out.print(line, markup=False)
    return kernel, seen, now
