# SPDX-License-Identifier: AGPL-3.0-or-later
"""The client side of a seat: `SeatPort` over its socket. Believes nothing that it can check."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from custody.rules.certificates import SeatHead, SeatKey, WalletCertificate
from custody.rules.errors import InvalidInput, Unavailable
from custody.rules.governance import Freeze, PolicyActivation, Unfreeze
from custody.rules.payments import SeatSignatures
from custody.rules.roster import RosterVersion
from custody.rules.seat_request import Request
from custody.rules.signatures import Key, Signature, Signed
from custody.rules.statements import Statement
from custody.rules.wallets import Chain
from custody.vault.seat_memory import Line
from custody.wire import Client

T = TypeVar("T")


class RemoteSeat:
    """One seat by its socket. Every method raises Unavailable where the process does not answer, and as the seat does."""

    def __init__(self, name: str, path: Path) -> None:
        self._name = name
        self._client = Client(path)

    @property
    def name(self) -> str:
        """The seat's id in the roster."""
        return self._name

    def identity(self) -> Key:
        """See `SeatPort`."""
        return self._read(Key.from_json, self._client.call("identity"))

    def sign_roster(self, version: RosterVersion) -> Signature:
        """See `SeatPort`."""
        answer = self._client.call("sign_roster", {"version": version.to_json()})
        return self._read(Signature.from_json, answer)

    def pin(self, signed: Signed[RosterVersion]) -> None:
        """See `SeatPort`."""
        self._client.call("pin", {"signed": signed.to_json()})

    def admit_roster(self, signed: Signed[RosterVersion], statement: Signed[Statement] | None = None) -> None:
        """Give the seat the roster's next version, and where a devnet's statements tell the time, one of these."""
        told = {} if statement is None else {"statement": statement.to_json()}
        self._client.call("admit_roster", {"signed": signed.to_json(), **told})

    def make_wallet_key(self, label: str, chain: Chain) -> SeatKey:
        """See `SeatPort`."""
        answer = self._client.call("make_wallet_key", {"label": label, "chain": chain.name})
        made = self._read(SeatKey.from_json, answer)
        asked, got = (self._name, label, chain.name), (made.key.seat, made.key.label, made.key.chain)
        if got != asked:
            raise self._another(f"a key of {got}")
        return made

    def accept(self, signed: Signed[WalletCertificate]) -> Signed[SeatHead]:
        """See `SeatPort`."""
        return self._head(self._client.call("accept", {"signed": signed.to_json()}))

    def admit_policy(
        self,
        signed: Signed[PolicyActivation],
        documents: Mapping[str, object],
        statement: Signed[Statement] | None = None,
    ) -> Signed[SeatHead]:
        """See `SeatPort`."""
        told = None if statement is None else statement.to_json()
        asked = {"signed": signed.to_json(), "documents": dict(documents), "statement": told}
        return self._head(self._client.call("admit_policy", asked))

    def freeze(self, signed: Signed[Freeze]) -> Signed[SeatHead]:
        """See `SeatPort`."""
        return self._head(self._client.call("freeze", {"signed": signed.to_json()}))

    def unfreeze(self, signed: Signed[Unfreeze]) -> Signed[SeatHead]:
        """See `SeatPort`."""
        return self._head(self._client.call("unfreeze", {"signed": signed.to_json()}))

    def sign(self, request: Request) -> SeatSignatures:
        """See `SeatPort`."""
        made = self._read(SeatSignatures.from_json, self._client.call("sign", {"request": request.to_json()}))
        if made.seat != self._name:
            raise self._another(f"signatures of {made.seat}")
        return made

    def journal(self, after: int = 0, limit: int = 100) -> tuple[Signed[SeatHead], Sequence[Line]]:
        """The newest head, signed, and the lines with position > after, ascending; the seat gives at most 100 at once."""
        answer = self._client.call("journal", {"after": after, "limit": limit})
        if not isinstance(answer, dict) or set(answer) != {"head", "lines"} or not isinstance(answer["lines"], list):
            raise self._another("another journal")
        lines = [self._read(Line.from_json, line) for line in answer["lines"]]
        return self._head(answer["head"]), lines

    def head(self) -> Signed[SeatHead]:
        """See `SeatPort`."""
        return self._head(self._client.call("head"))

    def status(self) -> dict[str, object]:
        """What the seat knows, for people; unsigned."""
        answer = self._client.call("status")
        if not isinstance(answer, dict) or answer.get("seat") != self._name:
            raise self._another("another status")
        return answer

    def _head(self, answer: object) -> Signed[SeatHead]:
        head = self._read(lambda found: Signed.from_json(SeatHead, found), answer)
        if head.message.seat != self._name:
            raise self._another(f"a head of {head.message.seat}")
        return head

    def _read(self, parse: Callable[[object], T], answer: object) -> T:
        """An answer in another shape is the seat's fault, never the caller's input."""
        try:
            return parse(answer)
        except InvalidInput as error:
            raise self._another(str(error)) from error

    def _another(self, got: str) -> Unavailable:
        return Unavailable(f"seat {self._name}", f"its socket answered with {got}")
