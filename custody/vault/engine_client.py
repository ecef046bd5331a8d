# SPDX-License-Identifier: AGPL-3.0-or-later
"""The way to a seat that lives inside its OpenBao: verbs as paths of its mount, over HTTP with the client's own AppRole.

The role may call the mount's verbs and nothing else; what it asks for, the engine judges as any seat does.
"""

import json
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from hvac.exceptions import (  # type: ignore[import-untyped]
    Forbidden,
    InvalidRequest,
    VaultDown,
    VaultError,
)

from custody.answers import MESSAGE_BYTES, encode, read_answer
from custody.rules.errors import InvalidInput, Unavailable
from custody.rules.refusals import Rule
from custody.vault.approle import AppRole

MOUNT: Final = "seat"
TIMEOUT: Final = (3.0, 30.0)
"""Seconds to connect, and to wait: a batch of hundreds takes seconds to judge."""
REST_SECONDS: Final = 30.0
"""For so long a seat that let somebody wait in vain is not asked: whoever signs asks one seat after another, and goes on to the next."""
PART_CHARACTERS: Final = 256 << 10
"""OpenBao bounds each text of a request, so that a body travels in parts."""
_VERB: Final = re.compile(r"[a-z_]{1,32}")
_MOUNT: Final = re.compile(r"[A-Za-z0-9_-]{1,64}(/[A-Za-z0-9_-]{1,64}){0,3}")


class EngineClient:
    """`Asked` for one seat's mount. Threads may share it; the engine takes requests in turn."""

    def __init__(self, name: str, approle: Path, mount: str = MOUNT, timeout: tuple[float, float] = TIMEOUT) -> None:
        """`approle`: url, role_id and secret_id, readable by its owner alone; read when it is needed, and again after a failure."""
        if _MOUNT.fullmatch(mount) is None:
            raise InvalidInput("mount", Rule.MALFORMED, repr(mount), "a mount's path, such as seat")
        self._what, self._name, self._file, self._mount, self._timeout = f"seat {name}", name, approle, mount, timeout
        self._role: AppRole | None = None
        self._rests_until = 0.0

    def call(self, verb: str, body: Mapping[str, object] | None = None) -> object:
        """The answer's body; see `Asked`. After Unavailable the request may have been carried out: ask again."""
        if _VERB.fullmatch(verb) is None:
            raise InvalidInput("verb", Rule.MALFORMED, repr(verb), "the name of a seat's verb")
        text = encode(dict(body or {})).decode()
        if len(text) > MESSAGE_BYTES:
            raise InvalidInput("request", Rule.MALFORMED, f"{len(text)} bytes", f"at most {MESSAGE_BYTES}")
        parts = [text[at : at + PART_CHARACTERS] for at in range(0, len(text), PART_CHARACTERS)]
        if time.monotonic() < self._rests_until:
            raise Unavailable(self._what, f"it did not answer in time, and is asked again within {REST_SECONDS:g} s")
        try:
            return read_answer(self._ask(self._opened(), f"/v1/{self._mount}/{verb}", parts), self._what, self._what)
        except Unavailable as error:
            if "Timeout" in error.why:
                self._rests_until = time.monotonic() + REST_SECONDS
            self._role = None  # a server may come back at another address, or its clients' secret was rotated
            raise

    def _opened(self) -> AppRole:
        role = self._role
        if role is None:
            try:
                role = self._role = AppRole.from_file(self._file, self._timeout)
            except InvalidInput as error:
                raise Unavailable(self._what, str(error)) from error
        return role

    def _ask(self, role: AppRole, path: str, parts: list[str]) -> bytes:
        adapter = role.client.adapter
        try:
            told = role.ask(lambda: adapter.post(path, json={"body": parts}), Forbidden, InvalidRequest, VaultDown)
            return str(told["data"]["answer"]).encode()
        except (KeyError, TypeError) as error:
            raise Unavailable(self._what, "its mount answered in a shape that is not a seat's") from error
        except VaultError as error:
            return _refusal(error, self._what)


def _refusal(error: VaultError, what: str) -> bytes:
    """The engine's own answer out of OpenBao's error, which wraps it in words of its own. Raises Unavailable where it has none."""
    for told in error.errors or ():
        text = str(told)
        inner = text[text.find("{") : text.rfind("}") + 1]
        try:
            if isinstance(json.loads(inner), dict):
                return inner.encode()
        except ValueError:
            continue
    raise Unavailable(what, f"{type(error).__name__}: {error.errors}") from error
