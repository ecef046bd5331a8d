# SPDX-License-Identifier: AGPL-3.0-or-later
"""`bulkhead payout export | import | draft-void | void | sweeps`: what people carry to cold seats and back, and how an anchor dies."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from custody.commands.common import Home, home, out, read_json, read_signed_as, write_json
from custody.commands.sweeps import sweeps
from custody.rules.refusals import Refusal, Refused, Rule

if TYPE_CHECKING:
    from custody.flows.ports import Store
    from custody.rules.transfers import Permit

app = typer.Typer(
    help="Carry a payout to cold seats and their signatures back; void an anchor that must die.", no_args_is_help=True
)
app.command("sweeps")(sweeps)

Named = Annotated[
    str, typer.Argument(metavar="ID", help="The id, or the digest, of any transfer that the payout carries.")
]


@app.command("export")
def export(
    transfer: Named,
    target: Annotated[Path, typer.Argument(help="Where to write it.")],
    fresh: Annotated[
        bool,
        typer.Option("--fresh", help="Ask the attestor for a new statement first, where a seat refused the last one."),
    ] = False,
    home_option: Home = None,
) -> None:
    """Write what seats are asked about a payout: unsigned payload, intents, approvals, statement."""
    from custody.bootstrap import open_deployment
    from custody.flows.carrying import to_carry
    from custody.flows.signing import renew

    deployment = open_deployment(home(home_option), read_only=not fresh)
    anchor = _permit(deployment.store, transfer).reservation.anchor
    if fresh:
        from custody.parts import attestor
        from custody.working import KernelReader

        renew(deployment.store, KernelReader(deployment)(), attestor(deployment.settings), anchor)
    request = to_carry(deployment.store, anchor)
    if request is None:
        raise Refused([Refusal(Rule.UNKNOWN_TRANSFER, transfer=transfer, want="one that seats were asked about")])
    write_json(target, request.to_json())
    out.print(
        f"now each cold seat signs it: bulkhead seat sign SEAT {target} --out SIGNATURES --socket …", markup=False
    )
    number = request.statement.message.sequence
    out.print(f"statement {number}: of several payouts each seat signs the one with the lowest first", markup=False)


@app.command("import")
def bring(
    transfer: Named,
    files: Annotated[
        list[Path], typer.Argument(help="Signatures as `bulkhead seat sign` wrote them, one file a seat.")
    ],
    home_option: Home = None,
) -> None:
    """Take seats' signatures in; the worker checks each against the certificate before it uses any."""
    from custody.bootstrap import open_deployment
    from custody.flows.carrying import bring_back
    from custody.rules.payments import SeatSignatures

    store = open_deployment(home(home_option)).store
    anchor = _permit(store, transfer).reservation.anchor
    for made in [SeatSignatures.from_json(read_json(file), file.name) for file in files]:
        bring_back(store, anchor, made)
        out.print(f"signatures of {made.seat}", markup=False)


@app.command("draft-void")
def draft_void(
    transfer: Named, target: Annotated[Path, typer.Argument(help="Where to write it.")], home_option: Home = None
) -> None:
    """Write the void of a payout's anchor for people to sign: nothing is paid by it, and every transfer on it ends."""
    from custody.bootstrap import open_deployment
    from custody.rules.intents import Void
    from custody.rules.signatures import Signed

    permit = _permit(open_deployment(home(home_option), read_only=True).store, transfer)
    write_json(target, Signed(Void(permit.reservation.anchor, permit.intents), ()).to_json())
    out.print(f"now people sign it: bulkhead sign {target}", markup=False)


@app.command("void")
def void(file: Annotated[Path, typer.Argument(help="A Void with its signatures.")], home_option: Home = None) -> None:
    """Check people's quorum and let the worker kill the anchor; holds are free once that is final."""
    from custody.bootstrap import open_deployment
    from custody.flows import payouts
    from custody.rules.intents import Void
    from custody.working import KernelReader

    signed = read_signed_as(file, Void)
    deployment = open_deployment(home(home_option))
    reader = KernelReader(deployment)
    permit = payouts.void(deployment.store, reader(), signed, reader.clock())
    out.print(
        f"anchor {permit.reservation.anchor.reference} is to die; {len(permit.intents)} transfers wait for it",
        markup=False,
    )


def _permit(store: "Store", named: str) -> "Permit":
    from custody.flows import reviewing

    transfer = reviewing.find(store, named)
    found = store.read(lambda work: work.transfers.permit_of(transfer.digest))
    if found is None:
        raise Refused([Refusal(Rule.UNKNOWN_TRANSFER, transfer=named, want="one that has its permit")])
    return found
