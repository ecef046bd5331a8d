# SPDX-License-Identifier: AGPL-3.0-or-later
"""What one OpenBao server grants to the one program that uses it, and the death of its root token.

After `provision` nobody holds a token that can change mounts, policies or roles. The unseal shares could make
a new root token: in the devnet they lie beside the server, in an installation people hold them.
"""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Final

import hvac  # type: ignore[import-untyped]
from hvac.exceptions import Forbidden  # type: ignore[import-untyped]

from custody.vault.engine_client import MOUNT as SEAT_MOUNT
from custody.vault.provisioning import VERBS, Operator, Program

MOUNT: Final = "bulkhead"
TRANSIT: Final = "transit"
IDENTITY: Final = "identity"
ROLE: Final = "bulkhead"
TOKEN_SECONDS: Final = 3600
_LOOPBACK: Final = "127.0.0.1/32"


class Kind(StrEnum):
    """Whose server it is."""

    SEAT = "seat"
    """A seat that a process of ours hosts, with its documents in kv-v2: where no plugin can be installed."""
    ENGINE = "engine"
    """A seat that lives inside its server."""
    ATTESTOR = "attestor"
    RELAYER = "relayer"


class RootStillAlive(Exception):
    """The root token was revoked and still answers."""

    def __init__(self, url: str) -> None:
        super().__init__(f"{url}: the root token still answers after its revocation")
        self.url = url


Rules = Mapping[str, tuple[str, ...]]  # path -> capabilities

_TRANSIT_RULES: Final[Rules] = {
    f"{TRANSIT}/sign/{IDENTITY}": ("update",),
    f"{TRANSIT}/verify/{IDENTITY}": ("update",),
    f"{TRANSIT}/keys/{IDENTITY}": ("read",),
}
_COMMON_RULES: Final[Rules] = {f"{MOUNT}/data/*": ("create", "read", "update"), **_TRANSIT_RULES}
# A seat and the relayer know the names of what they keep, so they never list. The attestor lists bindings and first sights.
_LISTED: Final[Rules] = {f"{MOUNT}/metadata/{folder}/*": ("read", "list") for folder in ("bindings", "seen")}
RULES: Final[Mapping[Kind, Rules]] = {
    Kind.ENGINE: {f"{SEAT_MOUNT}/{verb}": ("update",) for verb in VERBS},
    Kind.SEAT: _COMMON_RULES,
    Kind.RELAYER: _COMMON_RULES,
    Kind.ATTESTOR: {**_COMMON_RULES, **_LISTED},
}


def policy(kind: Kind) -> str:
    """The policy text of a role: exactly these paths, and nothing that deletes or destroys."""
    rules = RULES[kind].items()
    return "".join(f"path {json.dumps(p)} {{ capabilities = {json.dumps(list(c))} }}\n" for p, c in rules)


def write_private(file: Path, content: object) -> None:
    """Store JSON readable by the owner only, whole or not at all."""
    draft = file.with_suffix(".draft")
    draft.unlink(missing_ok=True)
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w") as stream:
        json.dump(content, stream, indent=1)
        stream.flush()
        os.fsync(stream.fileno())
    draft.rename(file)


def provision_engine(root: hvac.Client, seat: str, program: Program) -> dict[str, str]:
    """The engine registered and mounted, and the role of its clients, as `bulkhead seat init` does it. Raises Unavailable."""
    operator = Operator(root)
    operator.check_audited()
    operator.register(program)
    operator.mount(seat)
    return operator.grant(cidrs=[_LOOPBACK])


def provision(root: hvac.Client, kind: Kind) -> dict[str, str]:
    """Mounts, key, policy and role; returns role_id and secret_id. May run again after a crash half-way.

    Raises hvac.exceptions.VaultError when the server refuses.
    """
    _mount(root)
    _identity(root)
    root.sys.create_or_update_policy(ROLE, policy(kind))
    if "approle/" not in root.sys.list_auth_methods()["data"]:
        root.sys.enable_auth_method("approle")
    root.auth.approle.create_or_update_approle(
        ROLE,
        bind_secret_id=True,
        secret_id_num_uses=0,
        secret_id_ttl="0",  # noqa: S106
        secret_id_bound_cidrs=[_LOOPBACK],
        token_bound_cidrs=[_LOOPBACK],
        token_policies=[ROLE],
        token_no_default_policy=True,
        token_ttl=f"{TOKEN_SECONDS}s",
        token_max_ttl=f"{TOKEN_SECONDS}s",
        token_type="service",  # noqa: S106
    )
    return {
        "role_id": str(root.auth.approle.read_role_id(ROLE)["data"]["role_id"]),
        "secret_id": str(root.auth.approle.generate_secret_id(ROLE)["data"]["secret_id"]),
    }


def _mount(root: hvac.Client) -> None:
    there = root.sys.list_mounted_secrets_engines()["data"]
    if f"{MOUNT}/" not in there:
        root.sys.enable_secrets_engine("kv", path=MOUNT, options={"version": "2"})
    if f"{TRANSIT}/" not in there:
        root.sys.enable_secrets_engine("transit", path=TRANSIT)


def _identity(root: hvac.Client) -> None:
    """The server's one transit key: made inside, not exportable, not deletable, no plaintext backup."""
    root.secrets.transit.create_key(
        IDENTITY, key_type="ed25519", exportable=False, allow_plaintext_backup=False, mount_point=TRANSIT
    )
    root.secrets.transit.update_key_configuration(IDENTITY, deletion_allowed=False, mount_point=TRANSIT)


def revoke_root(root: hvac.Client) -> None:
    """End the root token and prove that it is dead. Raises RootStillAlive."""
    with suppress(Forbidden):  # dead already: a run before this one was cut off after the revocation
        root.auth.token.revoke_self()
    try:
        root.auth.token.lookup_self()
    except Forbidden:
        return
    raise RootStillAlive(root.url)
