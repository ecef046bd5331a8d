# SPDX-License-Identifier: AGPL-3.0-or-later
"""OpenBao as a `Vault`, for a process that keeps its documents in kv-v2: writes only with check-and-set."""

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Self

from hvac.exceptions import InvalidPath, InvalidRequest, VaultError  # type: ignore[import-untyped]

from custody.rules.errors import InvalidInput, Unavailable
from custody.rules.refusals import Rule
from custody.vault.approle import AppRole, read_credentials
from custody.vault.storage import CasConflict

MOUNT: Final = "bulkhead"
TRANSIT: Final = "transit"
IDENTITY: Final = "identity"


class OpenBaoClient:
    """One holder's vault: kv-v2 at `bulkhead/`, transit key `identity`. Use from one thread at a time."""

    def __init__(self, url: str, role_id: str, secret_id: str) -> None:
        self._role = AppRole(url, role_id, secret_id)
        self._client, self._what, self._ask = self._role.client, self._role.what, self._role.ask

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Open with an `approle.json`: url, role_id, secret_id, readable by its owner alone. Raises InvalidInput."""
        return cls(*read_credentials(path))

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
