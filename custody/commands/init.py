# SPDX-License-Identifier: AGPL-3.0-or-later
"""`bulkhead init ROSTER`: a deployment is born once everybody named has signed version 1."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from custody.commands.common import Home, home, out, read_signed_as, write_json
from custody.rules.errors import Unavailable
from custody.rules.refusals import Refusal, Refused, Rule, raise_if
from custody.rules.roster import RosterVersion, check_version, named_keys
from custody.rules.signatures import Signed
from custody.rules.typed import Domain
from custody.rules.words import at

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from custody.flows.ports import SeatPort
    from custody.rules.statements import Statement

app = typer.Typer(help="Give birth to a deployment: everybody named signs roster version 1, every part pins it.")


@app.command()
def init(
    roster: Annotated[
        Path, typer.Argument(help="Version 1 with people's signatures (bulkhead roster draft, bulkhead sign).")
    ],
    home_option: Home = None,
) -> None:
    """Let seats, attestor and relayer sign, check that nobody is missing, pin it everywhere, and write down genesis."""
    from custody.bootstrap import GENESIS, wall_clock
    from custody.flows.birth import Part, found, machines_sign
    from custody.parts import attestor, ledger_before_birth, relayer, seats
    from custody.settings import Settings

    signed = read_signed_as(roster, RosterVersion)
    folder = home(home_option)
    settings = Settings.load(folder)
    parts: list[Part] = [*seats(settings).values(), attestor(settings), relayer(settings)]
    complete = machines_sign(signed, parts)
    write_json(roster, complete.to_json())
    born = found(ledger_before_birth(settings), complete, parts, wall_clock())
    (folder / GENESIS).write_text(f"0x{born.domain.genesis.hex()}\n", encoding="ascii")
    out.print(f"born. genesis 0x{born.domain.genesis.hex()}", markup=False)
    out.print(f"signed by all {len(named_keys(complete.message))} named; pinned by {len(parts)} parts", markup=False)


roster_app = typer.Typer(help="Roster versions: draft, show who signed, carry one that people signed to every part.")


@roster_app.command("draft")
def draft(
    source: Annotated[Path, typer.Argument(help="The version's fields in JSON.")],
    target: Annotated[Path, typer.Argument(help="Where to write the document that people sign.")],
) -> None:
    """Check that a version is whole in itself and write it as a document without signatures."""
    from custody.commands.common import read_json

    version = RosterVersion.from_json(read_json(source), "roster")
    raise_if(check_version(version))
    write_json(target, Signed(version, ()).to_json())
    out.print(
        f"struct hash 0x{version.struct_hash.hex()}" + (" = genesis" if version.version == 1 else ""), markup=False
    )


@roster_app.command("carry")
def carry(
    file: Annotated[Path, typer.Argument(help="A next version with its signatures.")], home_option: Home = None
) -> None:
    """Check its quorums, mirror it, and hand it to every seat that answers: noted the first time, taken after the delay.

    Again after the delay, and to cold seats at a ceremony. Each part decides by itself; nothing is in force by being carried.
    """
    from custody.bootstrap import open_deployment
    from custody.flows.mirror import ROSTER, put_signed
    from custody.parts import attestor, seats
    from custody.rules.roster import check_agreed
    from custody.working import KernelReader

    signed, deployment = read_signed_as(file, RosterVersion), open_deployment(home(home_option))
    reader = KernelReader(deployment)
    newest = reader.rosters()[-1]
    if signed.message != newest.version:
        raise_if(check_agreed(newest, signed, reader.clock()))
        deployment.store.run(lambda work: put_signed(work.documents, ROSTER, signed))
    out.print(f"mirrored: version {signed.message.version}", markup=False)
    statement = attestor(deployment.settings).statement() if newest.version.clock == "statement" else None
    raise_if([*_admitted(signed, statement, seats(deployment.settings).values())])


def _admitted(
    signed: Signed[RosterVersion], statement: "Signed[Statement] | None", seats: "Iterable[SeatPort]"
) -> "Iterator[Refusal]":
    """Hand a version to seats and say what each made of it; refusals but for its time, which comes."""
    for seat in seats:
        try:
            seat.admit_roster(signed, statement)
        except Unavailable:
            out.print(f"{seat.name}: silent; carry it again when it answers", markup=False)
        except Refused as error:
            early = [r for r in error.refusals if r.rule is Rule.TOO_EARLY]
            if len(early) == len(error.refusals):
                since = early[0].operands.get("not_before")
                told = at(since) if isinstance(since, int) else str(since)
                out.print(f"{seat.name}: noted; carry it again from {told} on", markup=False)
            else:
                out.print(f"{seat.name}: refused", markup=False)
                yield from error.refusals
        else:
            out.print(f"{seat.name}: in force", markup=False)


@roster_app.command("show")
def show(file: Annotated[Path, typer.Argument(help="A roster document.")]) -> None:
    """Who is named, and who has signed so far (version 1)."""
    signed = read_signed_as(file, RosterVersion)
    signers = signed.signers(Domain(signed.message.struct_hash))
    for name, keys in named_keys(signed.message).items():
        out.print(f"{'signed ' if signers & set(keys) else 'missing'}  {name}", markup=False)
