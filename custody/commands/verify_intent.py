# SPDX-License-Identifier: AGPL-3.0-or-later
"""`bulkhead verify-intent MESSAGE…`: what would be signed, said by a second program, so that another screen can confirm the first.

It needs no network, no database and no console: the messages, genesis, and where there is one the raw payload and the certificate
that the messages name by its hash. It shares no code with pages, or with what `bulkhead approve` shows.
"""

import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from custody.commands.common import Home, home, read_hash
from custody.rules.errors import InvalidInput
from custody.rules.json_text import read_json
from custody.rules.refusals import Rule

app = typer.Typer(
    help="Say in plain words what a message means, by a second program; and whether a payload does exactly that."
)


@app.command()
def verify_intent(
    messages: Annotated[
        list[Path], typer.Argument(metavar="MESSAGE...", help="Typed messages in JSON; - for one on standard input.")
    ],
    genesis: Annotated[
        str | None, typer.Option("--genesis", help="Genesis in hex; the home's own if not given.")
    ] = None,
    digest: Annotated[str | None, typer.Option("--digest", help="The digest that a page or a device showed.")] = None,
    payload: Annotated[
        Path | None,
        typer.Option("--payload", help="The unsigned SafeTx or PSBT, or a file of `bulkhead payout export`."),
    ] = None,
    certificate: Annotated[
        list[Path] | None,
        typer.Option("--certificate", help="The wallet's certificate, then others that the payload may name."),
    ] = None,
    home_option: Home = None,
) -> None:
    """Recompute the digest, say what would be signed, and compare. Exit 0: agrees; 1: differs, each way named; 2: malformed."""
    from custody.commands.second_screen import messages as reading
    from custody.commands.second_screen.telling import suspicions, tell

    given = [reading.read(_json(path), path.name) for path in messages]
    if digest is not None and len(given) != 1:
        raise InvalidInput("--digest", Rule.MALFORMED, f"{len(given)} messages", "one message beside it")
    now, against = int(time.time()), list[str]()
    for message in given:
        salt = _salt(message, genesis, home_option)
        made = message.digest(salt)
        _say(*tell(message, now), "", f"genesis  0x{salt.hex()}", f"digest   0x{made.hex()}", "")
        against += suspicions(message)
        if digest is not None and read_hash(digest, "--digest") != made:
            against.append(f"digest: shown was {digest.lower()}, this message has 0x{made.hex()}")
    if payload is not None:
        from custody.commands.second_screen.payloads import differences, read_certificate, read_payload

        if not certificate:
            want = f"--certificate: the one of hash 0x{given[0].fields.get('certificate', b'').hex()}"
            raise InvalidInput("--payload", Rule.MALFORMED, "no certificate beside it", want)
        own, *others = [read_certificate(_json(path)) for path in certificate]
        does, apart = differences(given, read_payload(_json(payload)), own, others)
        _say("The payload:", *(f"  {line}" for line in does or ["  cannot be signed at all"]), "")
        against += apart
    for each in against:
        _say(f"DIFFERS  {each}")
    if against:
        raise typer.Exit(1)
    _say("agrees: " + _checked(digest is not None, payload is not None))


def _checked(digest: bool, payload: bool) -> str:
    found = ["the payload does exactly this and nothing else"] if payload else []
    found += ["the digest is the one that was shown"] if digest else []
    return " and ".join(found) or "the message is whole; compare the digest with the one that you are shown"


def _salt(message: Any, genesis: str | None, home_option: str | None) -> bytes:  # noqa: ANN401  # a Message, loaded late
    if message.kind == "RosterVersion" and message.fields["version"] == 1:
        return bytes(message.hash)  # version 1 is its own salt
    if genesis is not None:
        return read_hash(genesis, "--genesis")
    kept = home(home_option) / "genesis"
    try:
        return read_hash(kept.read_text(encoding="ascii").strip(), "genesis")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput("genesis", Rule.WRONG_GENESIS, f"none in {kept.parent.name}", "--genesis 0x…") from error


def _json(path: Path) -> object:
    try:
        raw = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
        text = raw.decode("utf-8")
    except OSError as error:
        raise InvalidInput(path.name, Rule.MALFORMED, str(error.strerror), "a readable file") from error
    except UnicodeDecodeError as error:
        raise InvalidInput(path.name, Rule.MALFORMED, "bytes that are no UTF-8", "JSON") from error
    return read_json(text, path.name)


def _say(*lines: str) -> None:
    for line in lines:
        typer.echo(line)
