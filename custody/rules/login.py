# SPDX-License-Identifier: AGPL-3.0-or-later
"""Who-are-you: a typed message of its own, so that a login is never an approval and an approval never a login (TRUST.md).

A session that begins with one may look and draft. It approves nothing: every approval, rejection, freeze and activation is a
signature of its own over its own message.
"""

from dataclasses import dataclass
from typing import Final

from custody.rules.refusals import Refusal, Rule
from custody.rules.roster import Person, Roster
from custody.rules.signatures import Scheme, Signed
from custody.rules.typed import Bytes32, Struct, Uint64
from custody.rules.webauthn import origin_hash

LOGIN_MOST: Final = 300
"""Seconds that somebody has to answer; one that lived longer could be gathered today and used tomorrow."""
CLOCK_AHEAD: Final = 5
"""Seconds that two processes of one console may disagree on when a login was issued."""


@dataclass(frozen=True, slots=True)
class Login(Struct):
    """One person opens one session at one page. `session` is the SHA-256 of a secret that only this browser was given."""

    origin: str
    session: Bytes32
    issued: Uint64
    expires: Uint64


def who_logs_in(signed: Signed[Login], asked: Login, newest: Roster, now: int) -> Person | tuple[Refusal, ...]:
    """The person whose passkey answered exactly the login that was asked for, or why nobody did.

    `asked` is what the console made for this very browser, from its own memory and never from the answer; it is used up by the first
    answer, which the console has to remember. Only a passkey named for that page counts: any other key could be asked to sign a
    stranger's session from anywhere. `newest` is the newest roster, so that a key that was taken out logs nobody in.
    """
    login = signed.message
    if login != asked:
        return (
            Refusal(Rule.WRONG_DIGEST, document="Login", got=login.struct_hash.hex(), want=asked.struct_hash.hex()),
        )
    refusals = _time(login, now)
    if len(signed.signatures) != 1:
        refusals.append(Refusal(Rule.SIGNATURE_MISSING, document="Login", got=len(signed.signatures), want="one"))
        return tuple(refusals)
    (signature,) = signed.signatures
    person = newest.people_by_key.get(signature.key)
    if person is None:
        return (*refusals, Refusal(Rule.SIGNER_UNKNOWN, key=str(signature.key), want="a key of the newest roster"))
    if person.expires <= now:
        refusals.append(Refusal(Rule.SIGNER_EXPIRED, person=person.id, expired=person.expires, now=now))
    page = signature.key.scheme == Scheme.WEBAUTHN_ES256 and signature.key.public[:32] == origin_hash(login.origin)
    if not page or not signature.is_over(newest.domain.digest(login)):
        want = f"a passkey named for {login.origin}"
        refusals.append(Refusal(Rule.SIGNATURE_INVALID, document="Login", person=person.id, want=want))
    return tuple(refusals) or person


def _time(login: Login, now: int) -> list[Refusal]:
    if not login.issued < login.expires <= login.issued + LOGIN_MOST:
        most = login.issued + LOGIN_MOST
        return [Refusal(Rule.EXPIRY_TOO_FAR, document="Login", expires=login.expires, most=most)]
    if now >= login.expires:
        return [Refusal(Rule.EXPIRED, document="Login", expires=login.expires, now=now)]
    if login.issued > now + CLOCK_AHEAD:
        return [Refusal(Rule.TOO_EARLY, document="Login", issued=login.issued, now=now)]
    return []
