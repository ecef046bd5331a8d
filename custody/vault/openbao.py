# SPDX-License-Identifier: AGPL-3.0-or-later
"""The one user of hvac: OpenBao as a `Vault`. HashiCorp Vault speaks the same API.

Never follows a redirect (a hostile server could send the token elsewhere), never reads a proxy, a token or an address from the
environment, and writes only with check-and-set.
"""

import base64
import binascii
import json
import stat
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self, TypeVar
from urllib.parse import urlsplit

import hvac  # type: ignore[import-untyped]
import requests
from hvac.exceptions import Forbidden, InvalidPath, InvalidRequest, VaultError  # type: ignore[import-untyped]

from custody.rules.errors import InvalidInput, Unavailable
from custody.rules.refusals import Rule
from custody.vault.storage import CasConflict

T = TypeVar("T")

MOUNT: Final = "bulkhead"
TRANSIT: Final = "transit"
IDENTITY: Final = "identity"
TIMEOUT: Final = (3.0, 15.0)
"""Seconds to connect, and to wait for an answer."""
_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")
_CREDENTIALS: Final = {"url", "role_id", "secret_id"}


class OpenBaoClient:
    """One holder's vault: kv-v2 at `bulkhead/`, transit key `identity`. Use from one thread at a time."""

    def __init__(self, url: str, role_id: str, secret_id: str) -> None:
        parts = urlsplit(url)
        if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
            # the secret_id would cross a network in the clear
            raise InvalidInput("approle.url", Rule.MALFORMED, repr(url), "https, or http on loopback")
        session = requests.Session()
        session.trust_env = False
        self._what = f"OpenBao at {parts.hostname}:{parts.port}"
        self._role = (role_id, secret_id)
        # token="" because None makes hvac look for one in the environment and the home folder
        self._client = hvac.Client(url=url, token="", session=session, timeout=TIMEOUT, allow_redirects=False)

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Open with an `approle.json`: url, role_id, secret_id, readable by its owner alone. Raises InvalidInput."""
        field = f"approle file {path.name}"
        try:
            mode = path.stat().st_mode
            body = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise InvalidInput(field, Rule.MALFORMED, type(error).__name__, "a readable JSON file") from error
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise InvalidInput(field, Rule.MALFORMED, stat.filemode(mode), "a file that only its owner can read")
        if (
            not isinstance(body, dict)
            or set(body) != _CREDENTIALS
            or not all(isinstance(v, str) for v in body.values())
        ):
            raise InvalidInput(field, Rule.MALFORMED, "another shape", "url, role_id and secret_id")
        return cls(body["url"], body["role_id"], body["secret_id"])

    def identity_public(self) -> bytes:
        """The identity's public key. A rotated key is refused: the roster names one key, made once."""
        body = self._ask(lambda: self._client.secrets.transit.read_key(IDENTITY, mount_point=TRANSIT))
        try:
            key = body["data"]
            if (key["type"], key["latest_version"], set(key["keys"])) != ("ed25519", 1, {"1"}):
                raise Unavailable(self._what, "the identity key is not the one ed25519 key that was made at birth")
            return base64.b64decode(key["keys"]["1"]["public_key"], validate=True)
        except (KeyError, TypeError, binascii.Error) as error:
            raise self._nonsense("transit/keys") from error

    def identity_sign(self, message: bytes) -> bytes:
        """The identity's raw signature over these bytes."""
        text = base64.b64encode(message).decode()
        body = self._ask(lambda: self._client.secrets.transit.sign_data(IDENTITY, hash_input=text, mount_point=TRANSIT))
        try:
            prefix, version, signature = body["data"]["signature"].split(":")
            if (prefix, version) != ("vault", "v1"):
                raise Unavailable(self._what, "the signature is not of the identity key that was made at birth")
            return base64.b64decode(signature, validate=True)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise self._nonsense("transit/sign") from error

    def read(self, path: str) -> tuple[Mapping[str, object] | None, int]:
        """A document with its version; see `Vault.read`."""
        kv, where = self._client.secrets.kv.v2, _checked(path)
        try:
            body = self._ask(
                lambda: kv.read_secret_version(where, mount_point=MOUNT, raise_on_deleted_version=True), InvalidPath
            )
        except InvalidPath as error:
            if _never_was(error):
                return None, 0
            # a state that was deleted must never look like a seat without a past
            raise Unavailable(self._what, f"{path} was deleted, or its mount is not there") from error
        try:
            # One text: OpenBao refuses JSON of more than a thousand strings, and a seat's certificates have more.
            data, version = json.loads(body["data"]["data"]["document"]), body["data"]["metadata"]["version"]
        except (KeyError, TypeError, ValueError) as error:
            raise self._nonsense(path) from error
        if not isinstance(data, dict) or type(version) is not int:
            raise self._nonsense(path)
        return data, version

    def write(self, path: str, data: Mapping[str, object], cas: int) -> None:
        """Write over version `cas`; see `Vault.write`."""
        kv, where = self._client.secrets.kv.v2, _checked(path)
        document = {"document": json.dumps(dict(data), separators=(",", ":"), sort_keys=True)}
        try:
            body = self._ask(
                lambda: kv.create_or_update_secret(where, document, cas=cas, mount_point=MOUNT), InvalidRequest
            )
        except InvalidRequest as error:
            if "check-and-set" in str(error.errors):
                raise CasConflict(path, cas) from error
            raise Unavailable(self._what, f"refused to write {path}: {error.errors}") from error
        try:
            written = body["data"]["version"]
        except (KeyError, TypeError) as error:
            raise self._nonsense(path) from error
        if written != cas + 1:
            raise self._nonsense(path)

    def list(self, path: str) -> Sequence[str]:
        """Names below a folder; only the attestor's role may."""
        kv, where = self._client.secrets.kv.v2, _checked(path)
        try:
            body = self._ask(lambda: kv.list_secrets(where, mount_point=MOUNT), InvalidPath)
        except InvalidPath as error:
            if _never_was(error):
                return ()
            raise Unavailable(self._what, f"{path} cannot be listed") from error
        try:
            names = body["data"]["keys"]
        except (KeyError, TypeError) as error:
            raise self._nonsense(path) from error
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise self._nonsense(path)
        return names

    def _ask(self, call: Callable[[], Any], *left: type[VaultError]) -> Any:  # noqa: ANN401  # hvac has no types
        """Run one request, logging in first where there is no token, and once more where it has expired.

        `left` are the errors that the caller reads for itself; everything else that is no answer raises Unavailable.
        """
        fresh = not self._client.token
        if fresh:
            self._login()
        try:
            return self._translated(call, Forbidden, *left)
        except Forbidden as error:
            if fresh:
                raise Unavailable(self._what, "permission denied to this role") from error
        self._login()
        try:
            return self._translated(call, Forbidden, *left)
        except Forbidden as error:
            raise Unavailable(self._what, "permission denied to this role") from error

    def _login(self) -> None:
        role_id, secret_id = self._role
        self._client.token = ""
        try:
            self._translated(lambda: self._client.auth.approle.login(role_id=role_id, secret_id=secret_id), VaultError)
        except (VaultError, KeyError, TypeError) as error:
            # no detail: an answer about a login may repeat what was sent
            raise Unavailable(self._what, f"AppRole login: {type(error).__name__}") from None

    def _translated(self, call: Callable[[], T], *left: type[VaultError]) -> T:
        """Turn silence, redirects, seals and errors into Unavailable."""
        try:
            answer = call()
        except left:
            raise
        except VaultError as error:
            raise Unavailable(self._what, f"{type(error).__name__}: {error.errors}") from error
        except (requests.RequestException, ValueError) as error:
            raise Unavailable(self._what, type(error).__name__) from error
        if isinstance(answer, requests.Response):  # hvac parses a 200; this is a redirect, or an answer without content
            raise Unavailable(self._what, f"answered with status {answer.status_code}")
        return answer

    def _nonsense(self, where: str) -> Unavailable:
        return Unavailable(self._what, f"{where} came in a shape that is not OpenBao's")


def _never_was(error: VaultError) -> bool:
    """Whether a 404 says that nothing ever stood there: OpenBao names no error then, and no metadata."""
    try:
        return bool(json.loads(error.text or "") == {"errors": []})
    except ValueError:
        return False


def _checked(path: str) -> str:
    """A path that cannot climb out of the mount or reach another API through the URL."""
    parts = path.split("/")
    if not all(part and set(part) <= _SAFE for part in parts):
        raise InvalidInput("vault path", Rule.MALFORMED, repr(path), "names of a-z, A-Z, 0-9, _ and - joined by /")
    return path


_SAFE: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")
