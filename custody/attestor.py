# SPDX-License-Identifier: AGPL-3.0-or-later
"""The attestor's own process, the client that talks to it, and the offline check of what it signs."""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from custody.answers import Handler, read_body, read_text
from custody.flows.attestation import Attestor, InForce
from custody.flows.ports import Clock
from custody.rules.attested import check_safes, verify_signature, verify_statement
from custody.rules.certificates import DepositAddress, SeatHead
from custody.rules.errors import InvalidInput, Unavailable
from custody.rules.intents import Anchor
from custody.rules.refusals import Refusal, Refused, Rule
from custody.rules.roster import RosterVersion
from custody.rules.signatures import Key, Signature, Signed
from custody.rules.statements import Statement
from custody.rules.wallets import DEVNET_CHAINS, Chain
from custody.settings import NodeSettings
from custody.wire import Client, serve

T = TypeVar("T")

_EVM_OLDEST: Final = 3600
_BITCOIN_OLDEST: Final = 6 * 3600
_DEVNET_OLDEST: Final = 30 * 86400
"""Seconds. Devnet chains stand still between two commands, and carry no value."""
STATEMENT_SECONDS: Final = 300.0
"""How long a client waits: the first statement after a start reads the whole journal."""


def oldest_finals(chains: Sequence[Chain]) -> dict[Chain, int]:
    """How many seconds old a chain's final block may be before a statement on it is refused as stale."""
    ages = {True: _EVM_OLDEST, False: _BITCOIN_OLDEST}
    return {chain: _DEVNET_OLDEST if chain.name in DEVNET_CHAINS else ages[chain.is_evm] for chain in chains}


def attestor_handlers(attestor: Attestor, genesis: bytes | None = None) -> Mapping[str, Handler]:
    """The verbs of an attestor. `genesis` is what its operator was told apart from the wire; then no other can be pinned."""

    def identity(body: object) -> object:
        read_body(body)
        return attestor.identity().to_json()

    def sign_roster(body: object) -> object:
        (version,) = read_body(body, "version")
        return attestor.sign_roster(RosterVersion.from_json(version)).to_json()

    def pin(body: object) -> object:
        signed = Signed.from_json(RosterVersion, read_body(body, "signed")[0])
        if genesis is not None and signed.message.struct_hash != genesis:
            raise Refused([Refusal(Rule.WRONG_GENESIS, got=signed.message.struct_hash.hex(), want=genesis.hex())])
        attestor.pin(signed)
        return {}

    def bind(body: object) -> object:
        return attestor.bind(DepositAddress.from_json(read_body(body, "request")[0])).to_json()

    def statement(body: object) -> object:
        read_body(body)
        return attestor.statement().to_json()

    def attest(body: object) -> object:
        anchor, intents = read_body(body, "anchor", "intents")
        if not isinstance(intents, list):
            raise InvalidInput("intents", Rule.MALFORMED, type(intents).__name__, "a list of digests")
        return attestor.attest(Anchor.from_json(anchor), [_digest(intent) for intent in intents]).to_json()

    def advance(body: object) -> object:
        text = read_text(read_body(body, "seconds")[0], "seconds")
        if not text.isdecimal() or len(text) > _DIGITS:
            raise InvalidInput("seconds", Rule.MALFORMED, repr(text[:40]), "a decimal number of seconds")
        return {"time": str(attestor.advance(int(text)))}

    def status(body: object) -> object:
        read_body(body)
        return attestor.status()

    verbs = (identity, sign_roster, pin, bind, statement, attest, advance, status)
    return {verb.__name__: verb for verb in verbs}


_DIGITS: Final = 9


def _digest(found: object) -> bytes:
    text = read_text(found, "intents")
    if re.fullmatch("0x[0-9a-f]{64}", text) is None:
        raise InvalidInput("intents", Rule.MALFORMED, repr(text[:80]), "0x and 64 lower-case hex digits")
    return bytes.fromhex(text[2:])


def wall_clock() -> int:
    """Seconds since 1970, by this machine."""
    return int(time.time())


def serve_attestor(
    approle: Path,
    socket: Path,
    database: str,
    nodes: Mapping[Chain, Sequence[NodeSettings]],
    open_by: Callable[[int], InForce],
    *,
    genesis: bytes | None = None,
    births: Mapping[Chain, int] | None = None,
    cache: Path | None = None,
    clock: Clock = wall_clock,
    seat_heads: Callable[[], Sequence[Signed[SeatHead]]] = tuple,
    ready: Callable[[], None] = lambda: None,
) -> None:
    """Host the attestor until SIGTERM; raises InvalidInput or Unavailable where it cannot begin.

    `open_by` gives what it goes by at a time, which is its own. `database` is its own login, or the same one opened read-only;
    `nodes` are its own connections; `births` the first blocks that can hold coins; `cache` a folder for what its views keep between
    runs, which nobody else may write to.
    """
    from custody.chains.addresses import ChainDeriver  # a client of this module needs no driver
    from custody.chains.views import open_view
    from custody.store import open_store
    from custody.vault.attestor_memory import VaultMemory
    from custody.vault.hardening import harden
    from custody.vault.openbao import OpenBaoClient

    harden()
    memory = VaultMemory(OpenBaoClient.from_file(approle))
    memory.identity()  # a wrong AppRole or a sealed server shows now, not at the first signature
    in_force = open_by(clock() + memory.offset())
    views = {
        chain: [
            open_view(
                chain,
                node.url,
                node.cookie,
                in_force.assets,
                cache / f"attestor-{chain.name.replace(':', '-')}-{number}.json" if cache is not None else None,
                (births or {}).get(chain, 0),
            )
            for number, node in enumerate(own)
        ]
        for chain, own in nodes.items()
    }
    store = open_store(database, in_force.assets, read_only=True)
    attestor = Attestor(store, views, memory, ChainDeriver(), clock, in_force, seat_heads=seat_heads)
    serve(socket, attestor_handlers(attestor, genesis), ready)


class RemoteAttestor:
    """The attestor by its socket: `AttestorPort`, and `advance` and `status` beside it. Believes nothing that it can check."""

    def __init__(self, path: Path) -> None:
        self._client = Client(path, STATEMENT_SECONDS, name="attestor")

    def identity(self) -> Key:
        """See `AttestorPort`."""
        return _read(Key.from_json, self._client.call("identity"))

    def sign_roster(self, version: RosterVersion) -> Signature:
        """See `AttestorPort`."""
        return _read(Signature.from_json, self._client.call("sign_roster", {"version": version.to_json()}))

    def pin(self, signed: Signed[RosterVersion]) -> None:
        """See `AttestorPort`."""
        self._client.call("pin", {"signed": signed.to_json()})

    def bind(self, request: DepositAddress) -> Signed[DepositAddress]:
        """See `AttestorPort`. Whoever asked compares the answer with the question and checks the signature."""
        answer = self._client.call("bind", {"request": request.to_json()})
        return _read(lambda found: Signed.from_json(DepositAddress, found), answer)

    def statement(self) -> Signed[Statement]:
        """See `AttestorPort`."""
        return _read(lambda found: Signed.from_json(Statement, found), self._client.call("statement"))

    def attest(self, anchor: Anchor, intents: Sequence[bytes]) -> Signed[Statement]:
        """See `AttestorPort`. Whoever asked compares the answer with the question and checks the signature."""
        asked = {"anchor": anchor.to_json(), "intents": ["0x" + intent.hex() for intent in intents]}
        return _read(lambda found: Signed.from_json(Statement, found), self._client.call("attest", asked))

    def advance(self, seconds: int) -> int:
        """Move the statement clock forward, where genesis declares one; gives the time there now."""
        answer = self._client.call("advance", {"seconds": str(seconds)})
        return _read(lambda found: int(str(_object(found)["time"])), answer)

    def status(self) -> dict[str, object]:
        """What it knows, for people; unsigned."""
        return _read(lambda found: dict(_object(found)), self._client.call("status"))


def _object(found: object) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise InvalidInput("answer", Rule.MALFORMED, type(found).__name__, "an object")
    return found


def _read(parse: Callable[[object], T], answer: object) -> T:
    """An answer in another shape is the attestor's fault, never the caller's input."""
    try:
        return parse(answer)
    except (InvalidInput, KeyError, ValueError) as error:
        raise Unavailable("attestor", f"answered in another shape: {error}") from error


__all__ = [
    "InForce",
    "RemoteAttestor",
    "attestor_handlers",
    "check_safes",
    "oldest_finals",
    "serve_attestor",
    "verify_signature",
    "verify_statement",
]
