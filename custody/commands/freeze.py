# SPDX-License-Identifier: AGPL-3.0-or-later
"""`bulkhead freeze SCOPE` and `bulkhead unfreeze list | draft | carry`: one person stops, a quorum starts again.

Seats are handed a freeze before the mirror: whoever has broken the database keeps nobody from stopping signatures.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from custody.commands.approve import KeyFile, Password, Yes
from custody.commands.common import Home, home, open_signer, out, read_hash, read_signed_as, write_json
from custody.rules.errors import CustodyError, InvalidInput, Unavailable
from custody.rules.governance import Freeze, Unfreeze
from custody.rules.provenance import refusal_of
from custody.rules.refusals import Refusal, Refused, Rule, raise_if
from custody.rules.signatures import Signed
from custody.rules.words import lines

if TYPE_CHECKING:
    from custody.bootstrap import Deployment
    from custody.flows.kernel import Kernel
    from custody.flows.ports import SeatPort
    from custody.rules.certificates import SeatHead

app = typer.Typer(help="Stop a wallet, a customer, a chain or everything for hours, at every seat, by your own key.")
unfreeze_app = typer.Typer(help="End a freeze early: by quorum, and after the roster's delay.", no_args_is_help=True)

_HOUR: Final = 3600


@app.command()
def freeze(
    scope: Annotated[str, typer.Argument(help="all, company, wallet:0x…, customer:ID or chain:NAME.")],
    key: KeyFile,
    reason: Annotated[str, typer.Option("--reason", help="Why; it is signed and shown to whoever is stopped by it.")],
    hours: Annotated[int, typer.Option(min=1, max=24, help="When it lapses; another group may extend it.")] = 4,
    file: Annotated[Path | None, typer.Option("--file", help="Where to keep it; in the home if not given.")] = None,
    password_file: Password = None,
    home_option: Home = None,
    yes: Yes = False,
) -> None:
    """Show the freeze, ask, sign it, hand it to every seat that answers, and record it in the mirror."""
    from custody.bootstrap import open_deployment, read_genesis
    from custody.flows import freezes
    from custody.rules.freezes import is_scope
    from custody.rules.typed import Domain

    if not is_scope(scope):
        raise InvalidInput("scope", Rule.MALFORMED, scope[:80], "all, company, wallet:…, customer:… or chain:…")
    deployment, domain = open_deployment(home(home_option)), Domain(read_genesis(home(home_option)))
    kernel, now, fault = _look(deployment)
    message = Freeze(scope, reason, now, now + hours * _HOUR)
    for line in _words(message, deployment, kernel, fault):
        out.print(line, markup=False)
    out.print(f"\ngenesis  0x{domain.genesis.hex()}\ndigest   0x{domain.digest(message).hex()}", markup=False)
    if not yes:
        typer.confirm("Freeze exactly this?", abort=True)
    signed = Signed(message, (open_signer(key, password_file).sign(domain.digest(message)),))
    kept = file or home(home_option) / f"freeze-{message.struct_hash.hex()[:16]}.json"
    write_json(kept, signed.to_json())
    refusals = list(_carry(deployment, "freeze", kept, lambda seat: seat.freeze(signed)))
    if kernel is None:
        raise fault or Unavailable("mirror", "it was not recorded there")
    freezes.freeze(deployment.store, kernel, signed, now)
    out.print(f"frozen: 0x{message.struct_hash.hex()}; to end it early: bulkhead unfreeze draft", markup=False)
    raise_if(refusals)


@unfreeze_app.command("list")
def list_freezes(home_option: Home = None) -> None:
    """Freezes that the mirror has and that hold. Each seat keeps its own: bulkhead seat status."""
    from custody.bootstrap import open_deployment
    from custody.rules.freezes import earliest_end
    from custody.working import KernelReader

    kernel = KernelReader(open_deployment(home(home_option), read_only=True))()
    for found in kernel.freezes:
        out.print(f"0x{found.struct_hash.hex()}  {found.scope}: {found.reason}", markup=False)
        earliest = earliest_end(found, kernel.roster)
        out.print(f"  from {found.from_time}, lapses {found.lapses}, a quorum may end it from {earliest}", markup=False)
    out.print(f"{len(kernel.freezes)} freezes", markup=False)


@unfreeze_app.command()
def draft(
    digest: Annotated[str, typer.Argument(metavar="FREEZE", help="The freeze's hash, as `unfreeze list` shows it.")],
    target: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write what people sign.")],
    reason: Annotated[str, typer.Option("--reason", help="Why; it is signed.")],
    home_option: Home = None,
) -> None:
    """Write the unfreeze of one freeze, for people to sign."""
    from custody.bootstrap import open_deployment
    from custody.flows import freezes
    from custody.working import KernelReader

    deployment = open_deployment(home(home_option), read_only=True)
    kernel, named = KernelReader(deployment)(), read_hash(digest, "freeze")
    message = deployment.store.read(lambda work: freezes.draft_unfreeze(work, kernel.roster, named, reason))
    write_json(target, Signed(message, ()).to_json())
    needed = kernel.roster.version.thresholds.unfreeze
    out.print(f"now {needed} people sign it: bulkhead sign {target} --key …", markup=False)
    out.print(f"and from {message.not_before} on: bulkhead unfreeze carry {target}", markup=False)


@unfreeze_app.command()
def carry(
    file: Annotated[Path, typer.Argument(help="An Unfreeze with its signatures.")], home_option: Home = None
) -> None:
    """Check the quorum and the delay, record the unfreeze, and hand it to every seat that answers."""
    from custody.bootstrap import open_deployment
    from custody.flows import freezes, reversals
    from custody.working import KernelReader

    signed = read_signed_as(file, Unfreeze)
    deployment = open_deployment(home(home_option))
    reader = KernelReader(deployment)
    freezes.unfreeze(deployment.store, reader(), signed, reader.clock())
    out.print(f"ended: 0x{signed.message.freeze.hex()}", markup=False)
    if deployment.store.read(lambda work: reversals.find(work, signed.message.freeze)) is not None:
        return  # a reversed deposit stops nothing at a seat: it is the ledger's to say, and the attestor's
    raise_if(list(_carry(deployment, "unfreeze", file, lambda seat: seat.unfreeze(signed))))


def _look(deployment: "Deployment") -> "tuple[Kernel | None, int, CustodyError | None]":
    """The kernel and its time; where the mirror or the attestor fails, this machine's time and why: a freeze does not wait."""
    from custody.bootstrap import wall_clock
    from custody.working import KernelReader

    try:
        reader = KernelReader(deployment)
        return reader(), reader.clock(), None
    except CustodyError as error:
        return None, wall_clock(), error


def _words(
    message: Freeze, deployment: "Deployment", kernel: "Kernel | None", fault: CustodyError | None
) -> Iterator[str]:
    from custody.flows import freezes

    yield from lines(message)
    yield f"  (for {(message.lapses - message.from_time) // _HOUR} hours; nothing in this scope is signed until then)"
    if kernel is None:
        yield f"WARNING  the mirror cannot be read, seats are handed it all the same: {fault}"
        return
    odd = deployment.store.read(lambda work: freezes.strange(kernel, work, message.scope))
    if odd is not None:
        yield f"WARNING  {odd}: this would stop nothing that is known"


def _carry(
    deployment: "Deployment", verb: str, file: Path, ask: "Callable[[SeatPort], Signed[SeatHead]]"
) -> Iterator[Refusal]:
    """Hand it to every seat, say what each answers, and give what they refused."""
    from custody import parts

    for name, seat in parts.seats(deployment.settings).items():
        try:
            ask(seat)
        except Unavailable:  # a cold seat, or one that is down: it is handed the same file as soon as it answers
            out.print(f"seat {name} is silent: bulkhead seat {verb} {name} {file} --socket …", markup=False)
        except Refused as refused:
            out.print(f"seat {name} refuses: {'; '.join(map(str, refused.refusals))}", markup=False)
            yield from (Refusal(r.rule, **{**r.operands, "seat": name}) for r in refused.refusals)
        except InvalidInput as error:
            out.print(f"seat {name} refuses: {error}", markup=False)
            yield refusal_of(error)
        else:
            out.print(f"seat {name} has it", markup=False)
