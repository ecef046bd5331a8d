# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a page asks a passkey to sign: one typed message, shown whole, and its digest as the one challenge.

The answer comes back with the message's own JSON in the form. Nothing is kept in the session between asking and answering, so two tabs
cannot be taken for one another; whether what was shown still is so is decided afresh from the form.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from api.console.desk import Desk
from api.console.login import read_answer
from custody.rules import passkeys
from custody.rules.errors import InvalidInput
from custody.rules.json_text import read_json
from custody.rules.passkeys import PASSKEY, Passkey, signature_of
from custody.rules.refusals import Refusal, Refused, Rule
from custody.rules.roster import Roster
from custody.rules.signatures import Signature, Signed
from custody.rules.typed import Struct
from custody.rules.webauthn import challenge_of, origin_hash

M = TypeVar("M", bound=Struct)
_MESSAGE_MOST = 64 * 1024


@dataclass(frozen=True)
class Ask:
    """A message with its digest, and the browser's options in JSON; `possible` is False for somebody without a passkey that counts.

    `younger` says that there is one, and that the roster under which the message was made does not know it.
    """

    message: Struct
    digest: bytes
    options: str
    possible: bool
    younger: bool = False

    @property
    def kind(self) -> str:
        """The verb, which is inside what is signed."""
        return type(self.message).__name__

    @property
    def text(self) -> str:
        """The message's own JSON, for a form."""
        return json.dumps(self.message.to_json(), separators=(",", ":"))


def ask_for(desk: Desk, message: Struct, pinned: Roster | None = None) -> Ask:
    """What this person's passkeys are asked, each named for this very page, and known to the `pinned` roster where one is named."""
    digest = desk.roster.domain.digest(message)
    here = passkeys_of(desk)
    mine = [held for held in here if pinned is None or held.key in pinned.people_by_key]
    options = json.dumps(passkeys.request_options(digest, desk.parts.origin, mine))
    return Ask(message, digest, options, bool(mine), younger=bool(here) and not mine)


def passkeys_of(desk: Desk) -> Sequence[Passkey]:
    """The passkeys that the newest roster gives the person for this page."""
    rows = desk.store.read(lambda work: work.documents.all(PASSKEY))
    here = origin_hash(desk.parts.origin)
    return [held for held in passkeys.known(rows, desk.roster).get(desk.person.id, ()) if held.key.public[:32] == here]


def answered(desk: Desk, digest: bytes, answer: str) -> Signature:
    """The person's own passkey's signature over a digest, out of a form.

    Raises InvalidInput, and Refused: another person's passkey, one that the roster does not name, or one that signed something else.
    """
    given = read_answer(answer)
    found = next((held for held in passkeys_of(desk) if challenge_of(held.credential_id) == given["id"]), None)
    if found is None:
        told = {"person": desk.person.id, "want": "a passkey of the person who is logged in, named for this page"}
        raise Refused([Refusal(Rule.SIGNER_UNKNOWN, **told)])
    signature = signature_of(found.key, given)
    if not signature.is_over(digest):
        raise Refused([Refusal(Rule.SIGNATURE_INVALID, person=desk.person.id, want="over 0x" + digest.hex())])
    return signature


def signed_by(desk: Desk, kind: type[M], text: str, shown: str, answer: str) -> Signed[M]:
    """The message of a form with the person's signature. `shown` is the digest that the page showed. Raises as `answered`."""
    message = read_message(kind, text)
    digest = desk.roster.domain.digest(message)
    check_shown(shown, digest)
    return Signed(message, (answered(desk, digest, answer),))


def read_message(kind: type[M], text: str) -> M:
    """A typed message as a form carries it. Raises InvalidInput."""
    if len(text) > _MESSAGE_MOST:
        raise InvalidInput("message", Rule.MALFORMED, f"{len(text)} characters", f"at most {_MESSAGE_MOST}")
    return kind.from_json(read_json(text, "message"))


def check_shown(shown: str, digest: bytes) -> None:
    """What the page showed is what is asked for now: else a tab was opened before something changed. Raises Refused(wrong_digest)."""
    if shown != "0x" + digest.hex():
        raise Refused([Refusal(Rule.WRONG_DIGEST, shown=shown[:80], now="0x" + digest.hex())])


def typed_form(message: Struct) -> dict[str, Any]:
    """A typed message as a file for another screen. Genesis is not in it: a second screen knows its own deployment."""
    return {"type": type(message).__name__, "message": message.to_json()}
