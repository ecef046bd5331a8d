# SPDX-License-Identifier: AGPL-3.0-or-later
"""Sessions: who sits at which browser. A session looks and drafts; it approves nothing (TRUST.md).

Two secrets follow each other. The first is drawn before a login and is bound into the `Login` that the passkey signs; it is used up by the
first answer, and the session gets another one: whoever planted the first in somebody's browser holds nothing afterwards (fixation).
The store keeps hashes alone, so that whoever reads it opens no session.
"""

import hmac
import json
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from api.console.parts import ConsoleParts
from api.problems import Busy
from custody.flows.ports import UnitOfWork, Visit
from custody.rules.errors import InvalidInput
from custody.rules.login import LOGIN_MOST, Login, who_logs_in
from custody.rules.refusals import Refusal, Refused, Rule
from custody.rules.roster import Person
from custody.rules.signatures import Key, Signature, Signed

IDLE: Final = 30 * 60
"""Seconds after which a session that nobody used is over."""
WHOLE: Final = 10 * 3600
"""Seconds after which a session is over whatever happened: a working day."""
MOST: Final = 16
"""Sessions of one person; the oldest gives way."""
STRANGERS_MOST: Final = 30
"""Browsers a second that are asked for a login by one process; a proxy in front bounds each address."""
_NOTED: Final = 60
"""Seconds between two notes of when a session was used: not every look at a page is a write."""
_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Session:
    """A person at a browser. `name` is the stored hash; `token` what every form of this session holds."""

    name: bytes
    person: Person
    token: str
    begun: int
    until: int


@dataclass(frozen=True, slots=True)
class Doorstep:
    """A browser that is about to log in: the secret for its cookie, and the message whose digest its passkey is asked for."""

    secret: str
    login: Login


def cookie_name(parts: ConsoleParts) -> str:
    """`__Host-` binds a cookie to this very host and to TLS; browsers refuse it without, so that localhost has another name."""
    return "__Host-bulkhead" if parts.secure else "bulkhead"


def form_token(secret: str) -> str:
    """What a form of this session holds: nobody who does not have the cookie's secret can compute it, and it does not tell the secret."""
    return hmac.new(secret.encode(), b"bulkhead console form", sha256).hexdigest()


def is_token_of(secret: str, given: str) -> bool:
    """Compared in constant time."""
    return hmac.compare_digest(form_token(secret).encode(), given.encode())


class Doorbell:
    """How many strangers a second are asked for a login: each is a row, and whoever floods the door holds up no withdrawal's write."""

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._clock, self._turn = most, clock, threading.Lock()
        self._rung: deque[float] = deque()

    def ring(self) -> None:
        """Raises Busy where too many stand there."""
        with self._turn:
            now = self._clock()
            while self._rung and self._rung[0] <= now - 1:
                self._rung.popleft()
            if len(self._rung) >= self._most:
                raise Busy([Refusal(Rule.BUSY, waiting=len(self._rung), most=self._most)])
            self._rung.append(now)


def step_up(parts: ConsoleParts) -> Doorstep:
    """Draw a secret for a browser that nobody is logged in at yet, and remember what its passkey will be asked to sign."""
    secret = _drawn(parts)
    wall, now = parts.api.wall(), parts.api.clock()
    login = Login(parts.origin, _name(secret), now, now + LOGIN_MOST)
    visit = Visit(_name(secret), "", json.dumps(login.to_json()), wall, wall, wall + LOGIN_MOST)

    def work(work: UnitOfWork) -> None:
        work.visits.forget(wall)
        work.visits.add(visit)

    parts.api.store.run(work)
    return Doorstep(secret, login)


def waiting(parts: ConsoleParts, secret: str, still: int = LOGIN_MOST // 2) -> Doorstep | None:
    """The login that this browser is asked for already, where it is good for `still` seconds more: a second tab asks for the same."""
    name, wall = _name(secret), parts.api.wall()
    visit = parts.api.store.read(lambda work: work.visits.get(name))
    if visit is None or visit.person or visit.until - still <= wall:
        return None
    return Doorstep(secret, Login.from_json(json.loads(visit.login)))


def log_in(parts: ConsoleParts, secret: str, signature: Signature) -> tuple[str, Person]:
    """The new session's secret, and whose it is. Raises Refused: nothing was asked of this browser, or everything of `who_logs_in`."""
    now, roster = parts.api.clock(), parts.api.roster()

    def judge(asked: Visit) -> Person | tuple[Refusal, ...]:
        login = Login.from_json(json.loads(asked.login))
        return who_logs_in(Signed(login, (signature,)), login, roster, now)

    return _enter(parts, secret, judge, {"key": str(signature.key)})


def log_in_as(parts: ConsoleParts, secret: str, who: str, issuer: str) -> tuple[str, Person]:
    """The new session's secret for a person that an identity provider vouched for.

    Raises Refused: expired (nothing was asked of this browser), signer_not_in_roster, signer_expired.
    """
    now, roster = parts.api.clock(), parts.api.roster()

    def judge(_asked: Visit) -> Person | tuple[Refusal, ...]:
        person = next((p for p in roster.version.people if p.id == who), None)
        if person is None:
            return (Refusal(Rule.SIGNER_UNKNOWN, person=who[:80], want="a person of the newest roster"),)
        if person.expires <= now:
            return (Refusal(Rule.SIGNER_EXPIRED, person=who, expired=person.expires, now=now),)
        return person

    return _enter(parts, secret, judge, {"issuer": issuer})


def _enter(
    parts: ConsoleParts, secret: str, judge: Callable[[Visit], Person | tuple[Refusal, ...]], by: Mapping[str, str]
) -> tuple[str, Person]:
    """Use up the login that this browser was asked for, whatever becomes of it, and begin a session of whom `judge` names."""
    name, wall, fresh = _name(secret), parts.api.wall(), _drawn(parts)

    def work(work: UnitOfWork) -> Person | tuple[Refusal, ...]:
        asked = work.visits.get(name)
        if asked is None or asked.person or asked.until <= wall or not work.visits.end(name):
            want = "a login that this browser was asked for, and once"
            return (Refusal(Rule.EXPIRED, document="Login", want=want),)
        found = judge(asked)
        if isinstance(found, Person):
            for old in work.visits.of(found.id)[MOST - 1 :]:
                work.visits.end(old.name)
            work.visits.add(Visit(_name(fresh), found.id, json.dumps(dict(by)), wall, wall, wall + WHOLE))
        return found

    found = parts.api.store.run(work)
    if not isinstance(found, Person):
        raise Refused(found)
    return fresh, found


def session_of(parts: ConsoleParts, secret: str) -> Session | None:
    """The session of a cookie's secret; None where it is over, or its person or key stands in the roster no more."""
    name, wall = _name(secret), parts.api.wall()
    visit = parts.api.store.read(lambda work: work.visits.get(name))
    if visit is None or not visit.person or visit.until <= wall or visit.seen + IDLE <= wall:
        return None
    roster, now = parts.api.roster(), parts.api.clock()
    person = next((p for p in roster.version.people if p.id == visit.person and p.expires > now), None)
    if person is None or not _stands(parts, visit, person):
        return None
    if wall - visit.seen >= _NOTED:
        parts.api.store.run(lambda work: work.visits.see(name, wall))
    return Session(name, person, form_token(secret), visit.begun, visit.until)


def sessions_of(parts: ConsoleParts, person: str) -> list[Visit]:
    """Every session of a person that is not over, the newest first."""
    wall = parts.api.wall()
    found = parts.api.store.read(lambda work: work.visits.of(person))
    return [visit for visit in found if visit.until > wall and visit.seen + IDLE > wall]


def end(parts: ConsoleParts, session: Session, name: bytes) -> None:
    """End a session of the same person, this one or another."""

    def work(work: UnitOfWork) -> None:
        visit = work.visits.get(name)
        if visit is not None and visit.person == session.person.id:
            work.visits.end(name)

    parts.api.store.run(work)


def key_from(text: str) -> Key:
    """A key as `str(key)` writes it. Raises InvalidInput."""
    scheme, _, public = text.partition(":0x")
    try:
        return Key(scheme, bytes.fromhex(public))
    except ValueError as error:
        raise InvalidInput("key", Rule.MALFORMED, text[:80], "scheme:0x…") from error


def _stands(parts: ConsoleParts, visit: Visit, person: Person) -> bool:
    """Whether what opened a session still would: a key that left the roster, or a provider that is none of ours any more, does not."""
    by = json.loads(visit.login)
    if "issuer" in by:
        return parts.oidc is not None and by["issuer"] == parts.oidc.issuer
    return by.get("key", "") in {str(key) for key in person.keys}


def _drawn(parts: ConsoleParts) -> str:
    return parts.api.entropy(_BYTES).hex()


def _name(secret: str) -> bytes:
    return sha256(secret.encode()).digest()
