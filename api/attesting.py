# SPDX-License-Identifier: AGPL-3.0-or-later
"""The attestor over its socket, with the verbs that the web process needs, and its statements as they may be shown.

`custody.attestor` has a client with every verb, but its module hosts the attestor too and so reaches chains and vault.
"""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from api.problems import Unproven
from custody.flows.ports import Clock, Store
from custody.rules.attested import verify_signature
from custody.rules.certificates import DepositAddress
from custody.rules.errors import InvalidInput, Unavailable
from custody.rules.refusals import Refusal, Refused, Rule, raise_if
from custody.rules.roster import Roster
from custody.rules.signatures import Signed
from custody.rules.statements import Statement
from custody.wire import Client

T = TypeVar("T")
STATEMENTS: Final = "statement"
"""Kind of document under which statements are mirrored, by their sequence."""
_STATEMENT_SECONDS: Final = 300.0
_KEPT: Final = 60
"""Seconds for which a statement is shown as the latest."""
_CLOCK_KEPT: Final = 2


class SocketAttestor:
    """Three verbs: bind a deposit address, a plain statement, the time. Believes nothing that whoever asked can check."""

    def __init__(self, socket: Path) -> None:
        self._client = Client(socket, _STATEMENT_SECONDS)

    def bind(self, request: DepositAddress) -> Signed[DepositAddress]:
        """See `AddressBinder`. Whoever asked compares the answer with the question and checks the signature."""
        answer = self._client.call("bind", {"request": request.to_json()})
        return _read(lambda: Signed.from_json(DepositAddress, answer))

    def statement(self) -> Signed[Statement]:
        """A plain statement. Whoever asked verifies its signature."""
        answer = self._client.call("statement")
        return _read(lambda: Signed.from_json(Statement, answer))

    def time(self) -> int:
        """The attestor's own time, which a devnet's `clock: statement` makes everybody's."""
        answer = self._client.call("status")
        if not isinstance(answer, dict) or not str(answer.get("time", "")).isdecimal():
            raise Unavailable("attestor", "answered in another shape")
        return int(str(answer["time"]))


class Statements:
    """Implements `StatementDesk`: asks the attestor, verifies its signature, mirrors what it said, and shows only that."""

    def __init__(self, store: Store, attestor: SocketAttestor, roster: Callable[[], Roster], wall: Clock) -> None:
        self._store, self._attestor, self._roster, self._wall = store, attestor, roster, wall
        self._turn = threading.Lock()
        self._latest: tuple[int, Signed[Statement]] | None = None

    def latest(self) -> Signed[Statement]:
        """See `StatementDesk`."""
        with self._turn:  # many who ask at once make one statement, not one each
            if self._latest is None or not 0 <= self._wall() - self._latest[0] < _KEPT:
                signed = self._verified(self._attestor.statement)
                key = str(signed.message.sequence)
                self._store.run(lambda work: work.documents.put(STATEMENTS, key, signed.to_json()))
                self._latest = self._wall(), signed
            return self._latest[1]

    def numbered(self, sequence: int) -> Signed[Statement] | None:
        """See `StatementDesk`. Raises Unproven where the row is not what the attestor signed, or is another's."""
        body = self._store.read(lambda work: work.documents.get(STATEMENTS, str(sequence)))
        if body is None:
            return None
        signed = self._verified(lambda: _read(lambda: Signed.from_json(Statement, dict(body))))
        if signed.message.sequence != sequence:
            raise Unproven(
                [Refusal(Rule.ROW_DAMAGED, document="Statement", got=signed.message.sequence, want=sequence)]
            )
        return signed

    def _verified(self, give: Callable[[], Signed[Statement]]) -> Signed[Statement]:
        """A statement whose signature holds. Raises Unproven: of a forgery nothing is shown; an attestor that refuses says why."""
        try:
            signed = give()
            raise_if(verify_signature(signed, self._roster()))
        except Refused as error:
            raise Unproven(error.refusals) from error
        return signed


class StatementClock:
    """The attestor's time, asked every few seconds and carried on by our own clock between (TRUST.md, `clock: statement`)."""

    def __init__(self, attestor: SocketAttestor, wall: Clock) -> None:
        self._attestor, self._wall = attestor, wall
        self._asked: tuple[int, int] | None = None

    def __call__(self) -> int:
        """Seconds since 1970. Raises Unavailable."""
        wall = self._wall()
        if self._asked is None or not 0 <= wall - self._asked[0] < _CLOCK_KEPT:
            self._asked = wall, self._attestor.time() - wall
        return wall + self._asked[1]


def _read(parse: Callable[[], T]) -> T:
    """An answer in another shape is the attestor's fault, never the caller's input."""
    try:
        return parse()
    except InvalidInput as error:
        raise Unavailable("attestor", f"answered in another shape: {error}") from error
