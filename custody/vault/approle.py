# SPDX-License-Identifier: AGPL-3.0-or-later
"""One role's way into one OpenBao, with hvac: short leases, taken again before they end. HashiCorp Vault speaks the same API.

Never follows a redirect (a hostile server could send the token elsewhere), never reads a proxy, a token or an address from the
environment.
"""

import json
import math
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Self, TypeVar
from urllib.parse import urlsplit

import hvac  # type: ignore[import-untyped]
import requests
from hvac.exceptions import Forbidden, VaultError  # type: ignore[import-untyped]

from custody.rules.errors import InvalidInput, Unavailable
from custody.rules.refusals import Rule

T = TypeVar("T")

TIMEOUT: Final = (3.0, 15.0)
"""Seconds to connect, and to wait for an answer."""
_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")
_CREDENTIALS: Final = {"url", "role_id", "secret_id"}
_USED: Final = 0.7
"""The part of a lease after which a new one is taken."""


class AppRole:
    """A role's requests to its server. Every method raises Unavailable where it does not answer."""

    def __init__(self, url: str, role_id: str, secret_id: str, timeout: tuple[float, float] | None = None) -> None:
        parts = urlsplit(check_url(url))
        session = requests.Session()
        session.trust_env = False
        self.what = f"OpenBao at {parts.hostname}:{parts.port}"
        self._role = (role_id, secret_id)
        # token="" because None makes hvac look for one in the environment and the home folder
        self.client = hvac.Client(url=url, token="", session=session, timeout=timeout or TIMEOUT, allow_redirects=False)
        self._turn = threading.Lock()
        self._until = 0.0

    @classmethod
    def from_file(cls, path: Path, timeout: tuple[float, float] | None = None) -> Self:
        """Open with an `approle.json`: url, role_id, secret_id, readable by its owner alone. Raises InvalidInput."""
        url, role_id, secret_id = read_credentials(path)
        return cls(url, role_id, secret_id, timeout)

    def ask(self, call: Callable[[], Any], *left: type[VaultError]) -> Any:  # noqa: ANN401  # hvac has no types
        """Run one request, logging in first where the lease is used up, and once more where it has ended before its time.

        `left` are the errors that the caller reads for itself; everything else that is no answer raises Unavailable.
        """
        fresh = self._log_in_before_the_end()
        try:
            return self._translated(call, Forbidden, *left)
        except Forbidden as error:
            if _says_more(error, left):
                raise
            if fresh:
                raise Unavailable(self.what, "permission denied to this role") from error
        with self._turn:
            self._login()
        try:
            return self._translated(call, Forbidden, *left)
        except Forbidden as error:
            if _says_more(error, left):
                raise
            raise Unavailable(self.what, "permission denied to this role") from error

    def _log_in_before_the_end(self) -> bool:
        with self._turn:
            fresh = not self.client.token or time.monotonic() > self._until
            if fresh:
                self._login()
        return fresh

    def _login(self) -> None:
        role_id, secret_id = self._role
        self.client.token = ""
        began = time.monotonic()
        try:
            made = self._translated(
                lambda: self.client.auth.approle.login(role_id=role_id, secret_id=secret_id), VaultError
            )
            lease = float(made["auth"].get("lease_duration") or math.inf)  # none: a token that does not end by itself
            self._until = began + lease * _USED
        except (VaultError, KeyError, TypeError, ValueError, AttributeError) as error:
            # no detail: an answer about a login may repeat what was sent
            raise Unavailable(self.what, f"AppRole login: {type(error).__name__}") from None

    def _translated(self, call: Callable[[], T], *left: type[VaultError]) -> T:
        """Turn silence, redirects, seals and errors into Unavailable."""
        try:
            answer = call()
        except left:
            raise
        except VaultError as error:
            raise Unavailable(self.what, f"{type(error).__name__}: {error.errors}") from error
        except (requests.RequestException, ValueError) as error:
            raise Unavailable(self.what, type(error).__name__) from error
        if isinstance(answer, requests.Response):  # hvac parses a 200; this is a redirect, or an answer without content
            raise Unavailable(self.what, f"answered with status {answer.status_code}")
        return answer


def check_url(url: str) -> str:
    """The address, if a secret may be sent there: it would cross a network in the clear otherwise. Raises InvalidInput."""
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        raise InvalidInput("approle.url", Rule.MALFORMED, repr(url), "https, or http on loopback")
    return url


def _says_more(error: Forbidden, left: tuple[type[VaultError], ...]) -> bool:
    """Whether a 403 is an engine's own refusal, which its caller reads, and not the server's no to this token."""
    return Forbidden in left and "{" in str(error.errors)


def read_credentials(path: Path) -> tuple[str, str, str]:
    """Address, role_id and secret_id of an `approle.json` that its owner alone can read. Raises InvalidInput."""
    field = f"approle file {path.name}"
    try:
        mode = path.stat().st_mode
        body = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InvalidInput(field, Rule.MALFORMED, type(error).__name__, "a readable JSON file") from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise InvalidInput(field, Rule.MALFORMED, stat.filemode(mode), "a file that only its owner can read")
    if not isinstance(body, dict) or set(body) != _CREDENTIALS or not all(isinstance(v, str) for v in body.values()):
        raise InvalidInput(field, Rule.MALFORMED, "another shape", "url, role_id and secret_id")
    return body["url"], body["role_id"], body["secret_id"]
