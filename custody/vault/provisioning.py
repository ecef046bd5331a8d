# SPDX-License-Identifier: AGPL-3.0-or-later
"""What an operator does to a seat's own OpenBao, with a token of theirs: the engine registered and mounted, and one role for its clients.

The role may call the mount's verbs: no read, list or delete anywhere, no other mount, nothing under `sys`. It can therefore ask for
everything that a seat decides on, and for nothing that it does not.
"""

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import hvac  # type: ignore[import-untyped]
import requests
from hvac.exceptions import VaultError  # type: ignore[import-untyped]

from custody.rules.errors import InvalidInput, Unavailable
from custody.rules.refusals import Refused, Rule
from custody.vault.engine_client import MOUNT
from custody.vault.keyring import RemoteSeat

PLUGIN: Final = "bulkhead-seat"
ROLE: Final = "bulkhead-seat"
VERBS: Final = (
    "accept",
    "admit_policy",
    "admit_roster",
    "freeze",
    "head",
    "identity",
    "journal",
    "make_wallet_key",
    "pin",
    "sign",
    "sign_many",
    "sign_roster",
    "status",
    "unfreeze",
)
"""The paths of a seat's mount; `tests/unit/test_engine_verbs.py` holds them against the engine's own."""
LEASE_SECONDS: Final = 900
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_RELAUNCH_SECONDS: Final = 15.0


@dataclass(frozen=True, slots=True)
class Program:
    """A packed engine in the server's plugin directory: the file's name there, and its sha256."""

    command: str
    sha256: str


def policy(mount: str = MOUNT) -> str:
    """The policy text of a seat's clients: exactly the verbs, each by a write."""
    return "".join(f'path {json.dumps(f"{mount}/{verb}")} {{ capabilities = ["update"] }}\n' for verb in VERBS)


class Operator:
    """A server in the hands of somebody whose token may change plugins, mounts, policies and roles. Methods raise Unavailable."""

    def __init__(self, client: hvac.Client) -> None:
        self._client = client

    @classmethod
    def at(cls, url: str, token: str) -> "Operator":
        """With a token; no redirect is followed, and nothing of the environment is used."""
        session = requests.Session()
        session.trust_env = False
        return cls(hvac.Client(url=url, token=token, session=session, timeout=30, allow_redirects=False))

    def check_audited(self) -> None:
        """Raises InvalidInput where no audit device stands in the server's configuration: nobody would see what a seat was asked."""
        if not self._do(self._client.sys.list_enabled_audit_devices)["data"]:
            raise InvalidInput("audit", Rule.MALFORMED, "no device", "an audit device in the server's configuration")

    def register(self, program: Program) -> None:
        """Enter a packed engine into the catalog: from here on the server starts this file, with this hash, and no other."""
        if _DIGEST.fullmatch(program.sha256) is None:
            raise InvalidInput("sha256", Rule.MALFORMED, repr(program.sha256), "64 hex digits")
        entry = {"sha256": program.sha256, "command": program.command}
        self._do(lambda: self._client.adapter.post(f"/v1/sys/plugins/catalog/secret/{PLUGIN}", json=entry))

    def registered(self, version: str) -> Program:
        """What the catalog says."""
        path = f"/v1/sys/plugins/catalog/secret/{PLUGIN}"
        found = self._do(lambda: self._client.adapter.get(path, params={"version": version}))["data"]
        return Program(str(found["command"]), str(found["sha256"]))

    def mount(self, seat: str, mount: str = MOUNT, genesis: str | None = None) -> None:
        """Mount the engine for a seat, with the genesis that its operator was told, if any. Does nothing where it is mounted."""
        if f"{mount}/" in self._do(self._client.sys.list_mounted_secrets_engines)["data"]:
            return
        options = {"seat": seat} | ({} if genesis is None else {"genesis": genesis})
        self._do(lambda: self._client.sys.enable_secrets_engine(PLUGIN, path=mount, options=options))

    def reload(self, mount: str = MOUNT) -> None:
        """Have the mount's process started anew, from what the catalog says now."""
        self._do(lambda: self._client.adapter.put("/v1/sys/plugins/reload/backend", json={"mounts": [f"{mount}/"]}))

    def grant(self, mount: str = MOUNT, cidrs: Sequence[str] = ()) -> dict[str, str]:
        """The policy and the role of the seat's clients; role_id and a new secret_id. `cidrs`: from where they may be used."""
        self._do(lambda: self._client.sys.create_or_update_policy(ROLE, policy(mount)))
        if "approle/" not in self._do(self._client.sys.list_auth_methods)["data"]:
            self._do(lambda: self._client.sys.enable_auth_method("approle"))
        bound: dict[str, Any] = (
            {"secret_id_bound_cidrs": list(cidrs), "token_bound_cidrs": list(cidrs)} if cidrs else {}
        )
        self._do(
            lambda: self._client.auth.approle.create_or_update_approle(
                ROLE,
                bind_secret_id=True,
                secret_id_num_uses=0,
                secret_id_ttl="0",  # noqa: S106
                token_policies=[ROLE],
                token_no_default_policy=True,
                token_ttl=f"{LEASE_SECONDS}s",
                token_max_ttl=f"{LEASE_SECONDS}s",
                token_type="service",  # noqa: S106
                **bound,
            )
        )
        role = self._do(lambda: self._client.auth.approle.read_role_id(ROLE))["data"]["role_id"]
        return {"role_id": str(role), "secret_id": self._secret_id()}

    def rotate(self) -> dict[str, str]:
        """A new secret_id for the clients; every other one is dead when this comes back, and tokens end with their lease."""
        approle = self._client.auth.approle
        old = self._do(lambda: approle.list_secret_id_accessors(ROLE))["data"]["keys"]
        role = self._do(lambda: approle.read_role_id(ROLE))["data"]["role_id"]
        fresh = self._secret_id()
        for accessor in old:
            self._do(partial(approle.destroy_secret_id_accessor, ROLE, accessor))
        return {"role_id": str(role), "secret_id": fresh}

    def wait(self, ask: Callable[[], object]) -> None:
        """Until the engine answers `ask` after it was started anew. Raises Unavailable."""
        deadline = time.monotonic() + _RELAUNCH_SECONDS
        while True:
            try:
                ask()
            except Unavailable:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
            else:
                return

    def _secret_id(self) -> str:
        made: Mapping[str, Any] = self._do(lambda: self._client.auth.approle.generate_secret_id(ROLE))
        return str(made["data"]["secret_id"])

    def _do(self, call: Callable[[], Any]) -> Any:  # noqa: ANN401 - hvac has no types
        try:
            return call()
        except VaultError as error:
            raise Unavailable("the seat's OpenBao", f"{type(error).__name__}: {error.errors}") from error
        except requests.RequestException as error:
            raise Unavailable("the seat's OpenBao", type(error).__name__) from error


def upgrade_seat(operator: Operator, seat: RemoteSeat, program: Program) -> tuple[object, object]:
    """Register a program and start the seat from it; what its status said of its host before, and says now.

    It has to answer with the identity and the head that it had: otherwise the program before it is registered again, and
    Unavailable raised. Keys and journal lie in the server's storage and are no part of a program.
    """
    status, identity = seat.status(), seat.identity()
    host: Any = status["host"]
    old = operator.registered(str(host["version"]))
    operator.register(program)
    operator.reload()

    def answers() -> None:
        now: Any = seat.status()
        if now["host"]["sha256"] != program.sha256:
            raise Unavailable(f"seat {seat.name}", "it still runs another program")
        if (seat.identity(), now["position"], now["head"]) != (identity, status["position"], status["head"]):
            raise Unavailable(f"seat {seat.name}", "it does not have the identity or the head that it had")

    try:
        operator.wait(answers)
    except (Unavailable, Refused):
        operator.register(old)
        operator.reload()
        raise
    return host, seat.status()["host"]
