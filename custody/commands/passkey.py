# SPDX-License-Identifier: AGPL-3.0-or-later
"""`bulkhead passkey show | add | keep`: an enrolment file is verified, and goes into a roster draft that people sign."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from custody.commands.common import Home, home, out, read_json, read_signed_as, write_json
from custody.rules.errors import InvalidInput
from custody.rules.refusals import Refusal, Refused, Rule, raise_if
from custody.rules.roster import RosterVersion, check_version
from custody.rules.signatures import Signed

if TYPE_CHECKING:
    from custody.rules.passkeys import Passkey
    from custody.rules.roster import Person

app = typer.Typer(
    help="Verify a passkey's enrolment, put it into a roster draft, say where pages find it.", no_args_is_help=True
)

Enrolment = Annotated[Path, typer.Argument(metavar="ENROLMENT", help="The file that the enrolment page offered.")]


@app.command()
def show(file: Enrolment) -> None:
    """Verify the authenticator's whole answer and say what it holds: the person reads the key out to those who will sign."""
    from custody.rules import words

    found = _read(file)
    out.print(
        f"person       {words.clean(found.person)}, as the page was told; whoever signs the roster vouches",
        markup=False,
    )
    out.print(f"page         {words.clean(str(read_json(file)['origin']))}", markup=False)
    out.print(f"key          {found.key}", markup=False)
    out.print(f"credential   0x{found.credential_id.hex()}", markup=False)
    out.print(f"transports   {', '.join(found.transports) or 'not said'}", markup=False)
    out.print("displays     no: a passkey shows nothing of what it signs", markup=False)


@app.command()
def add(
    file: Enrolment,
    target: Annotated[
        Path, typer.Argument(metavar="ROSTER", help="Where to write the next version, for people to sign.")
    ],
    draft: Annotated[
        Path | None,
        typer.Option("--draft", help="A next version that is drafted already; the newest in force if not given."),
    ] = None,
    home_option: Home = None,
) -> None:
    """Write the next roster version with this key for its person, not displaying. It is in force by its quorum and delay alone."""
    found = _read(file)
    version = _drafted(draft) if draft is not None else _next(home_option)
    drafted = replace(version, people=_with_key(version.people, found))
    raise_if(check_version(drafted))
    write_json(target, Signed(drafted, ()).to_json())
    out.print(f"{found.key}", markup=False)
    out.print(
        f"  for {found.person} in version {drafted.version}, struct hash 0x{drafted.struct_hash.hex()}", markup=False
    )
    out.print(f"now people sign it: bulkhead sign {target} --key …, then bulkhead roster carry {target}", markup=False)


@app.command()
def keep(file: Enrolment, home_option: Home = None) -> None:
    """Mirror the credential id, by which pages find a key that is in force. It authorises nothing; no seat knows it."""
    from custody.bootstrap import open_deployment
    from custody.rules.passkeys import PASSKEY
    from custody.working import KernelReader

    found = _read(file)
    deployment = open_deployment(home(home_option))
    whose = KernelReader(deployment).rosters()[-1].people_by_key.get(found.key)
    if whose is None or whose.id != found.person:
        want = f"a key of {found.person} in the newest roster: bulkhead passkey add"
        raise Refused([Refusal(Rule.SIGNER_UNKNOWN, key=str(found.key), want=want)])
    deployment.store.run(lambda work: work.documents.put(PASSKEY, found.key.public.hex(), found.to_json()))
    out.print(f"kept: 0x{found.credential_id.hex()} of {found.person}", markup=False)


def _read(file: Path) -> "Passkey":
    from custody.rules.passkeys import enrolled

    return enrolled(read_json(file))


def _drafted(file: Path) -> RosterVersion:
    return read_signed_as(file, RosterVersion).message


def _next(home_option: str | None) -> RosterVersion:
    """What follows the newest version, with a time after its delay; nothing else is changed."""
    from custody.bootstrap import open_deployment
    from custody.working import KernelReader

    reader = KernelReader(open_deployment(home(home_option), read_only=True))
    newest = reader.rosters()[-1].version
    earliest = max(newest.not_before, reader.clock()) + newest.delay
    return replace(newest, version=newest.version + 1, previous=newest.struct_hash, not_before=earliest)


def _with_key(people: "tuple[Person, ...]", found: "Passkey") -> "tuple[Person, ...]":
    if found.person not in {person.id for person in people}:
        known = ", ".join(person.id for person in people)
        raise InvalidInput("person", Rule.SIGNER_UNKNOWN, repr(found.person[:80]), f"one of {known}")
    return tuple(
        replace(p, keys=(*p.keys, found.key), displays=(*p.displays, False)) if p.id == found.person else p
        for p in people
    )
