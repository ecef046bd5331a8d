# SPDX-License-Identifier: AGPL-3.0-or-later
"""A small JSON-RPC client of one bitcoind: exact numbers, errors with operands, and never the wrong network.

Numbers with a fraction come back as Decimal, so that no amount is ever a float. A node that does not answer, or answers
with something else than was asked for, is `Unavailable`; a node that refuses is `RpcError`.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Final, NoReturn
from urllib.parse import quote

import requests

from custody.rules.errors import InvalidInput, Unavailable
from custody.rules.json_text import check_depth
from custody.rules.refusals import Rule
from custody.rules.wallets import BITCOIN_NETWORKS, Chain

Json = None | bool | int | Decimal | str | Sequence["Json"] | dict[str, "Json"]

SATOSHI_PER_BITCOIN: Final = 10**8
MAX_SATOSHI: Final = 21_000_000 * SATOSHI_PER_BITCOIN
WARMING_UP: Final = -28
NOT_FOUND: Final = -5
OUT_OF_RANGE: Final = -8
WALLET_NOT_FOUND: Final = -18
WALLET_LOADED: Final = -35

_WHAT: Final = "bitcoind"
_UNAUTHORIZED: Final = 401


class RpcError(Unavailable):
    """The node understood the call and refused it. `code` is Bitcoin Core's (rpc/protocol.h)."""

    def __init__(self, method: str, code: int, message: str) -> None:
        super().__init__(_WHAT, f"{method} was refused: {message} ({code})")
        self.method, self.code, self.message = method, code, message


@dataclass(frozen=True, slots=True)
class Login:
    """A fixed RPC user."""

    user: str
    password: str = field(repr=False)


class BitcoinRpc:
    """One node, confirmed at construction to be on the chain that was asked for.

    The credentials are a cookie file, read again whenever the node refuses the last ones, or a fixed login. `timeout` is
    in seconds, for connecting and for each read. Not safe to share between threads. Raises
    Unavailable where the node does not answer and InvalidInput(wrong_network) where its genesis block is another chain's.
    """

    def __init__(
        self,
        url: str,
        chain: Chain,
        *,
        cookie: Path | None = None,
        login: Login | None = None,
        timeout: float = 30.0,
    ) -> None:
        if url.startswith("http") and "@" in url:  # it would end up in logs and in error texts
            raise InvalidInput(
                "bitcoin.url", Rule.MALFORMED, "an address with a password in it", "a plain address and a login"
            )
        self.chain = chain
        self._url, self._cookie, self._login, self._timeout = url.rstrip("/"), cookie, login, timeout
        self._session = requests.Session()
        self._session.trust_env = False  # no proxy and no .netrc of the environment between us and the node
        self._auth = Login("", "")
        self._ids = count(1)
        self._confirm_chain(chain)

    def call(self, method: str, *params: Json, wallet: str | None = None) -> Json:
        """One call; raises RpcError where the node refuses it."""
        return self.batch(method, [params], wallet=wallet)[0]

    def batch(self, method: str, parameters: Sequence[Sequence[Json]], wallet: str | None = None) -> list[Json]:
        """One method for several parameter lists in one round trip; answers in the same order. The first error raises."""
        if not parameters:
            return []
        asked = {next(self._ids): list(params) for params in parameters}
        body = [{"jsonrpc": "2.0", "id": i, "method": method, "params": params} for i, params in asked.items()]
        answers = self._post(method, json.dumps(body, default=_plain), wallet)
        by_id: dict[Json, Json] = {}
        for answer in as_list(answers if isinstance(answers, list) else [answers], method):
            reply = as_object(answer, method)
            if reply.get("error") is not None:
                _raise(method, as_object(reply["error"], method))
            by_id[as_int(reply.get("id"), method)] = reply.get("result")
        if set(by_id) != set(asked):
            raise Unavailable(_WHAT, f"{method} answered {len(by_id)} of {len(asked)} calls")
        return [by_id[i] for i in asked]

    def _post(self, method: str, body: str, wallet: str | None) -> Json:
        url = self._url if wallet is None else f"{self._url}/wallet/{quote(wallet, safe='')}"
        response = self._send(url, body)
        if (
            response.status_code == _UNAUTHORIZED
        ):  # the first call, or the node was started again and wrote another cookie
            self._auth = self._login or _read(self._cookie)
            response = self._send(url, body)
        if not response.content or response.headers.get("Content-Type", "").partition(";")[0] != "application/json":
            raise Unavailable(_WHAT, f"{method} was answered with HTTP {response.status_code}")
        return decode(response.content, method)

    def _send(self, url: str, body: str) -> requests.Response:
        try:
            return self._session.post(
                url,
                data=body.encode(),
                auth=(self._auth.user, self._auth.password),
                timeout=self._timeout,
                allow_redirects=False,  # a redirect would carry the credentials elsewhere
                headers={"Content-Type": "application/json"},
            )
        except requests.RequestException as error:
            raise Unavailable(_WHAT, type(error).__name__) from error

    def _confirm_chain(self, chain: Chain) -> None:
        want = chain.name.removeprefix("bip122:")
        if want not in BITCOIN_NETWORKS:
            raise InvalidInput("bitcoin.chain", Rule.WRONG_NETWORK, chain.name, "a Bitcoin network")
        genesis = as_text(self.call("getblockhash", 0), "getblockhash")
        if genesis[:32] != want:
            raise InvalidInput("bitcoin node", Rule.WRONG_NETWORK, f"bip122:{genesis[:32]}", chain.name)


def decode(content: bytes, what: str) -> Json:
    """Read JSON exactly: integers as int, fractions as Decimal; NaN and Infinity are no numbers. Raises Unavailable."""
    try:
        check_depth(content.decode("utf-8"), what)
        value: Json = json.loads(content, parse_float=Decimal, parse_constant=_no_number)
    except (ValueError, InvalidInput) as error:
        raise Unavailable(_WHAT, f"{what} was answered with something that is not JSON") from error
    return value


def satoshi(value: Json, what: str = "amount") -> int:
    """An amount of bitcoin as the node writes it (a JSON number of BTC), in satoshi, exactly; 0 to 21 million BTC."""
    if type(value) not in (int, Decimal):
        raise Unavailable(_WHAT, f"{what} is {value!r}, not a number")
    units = Decimal(str(value)).scaleb(8)
    if units != units.to_integral_value() or not 0 <= units <= MAX_SATOSHI:
        raise Unavailable(_WHAT, f"{what} is {value!s} BTC, not a whole number of satoshi that can exist")
    return int(units)


def bitcoins(units: int) -> str:
    """Satoshi as the decimal string of BTC that bitcoind takes, such as "0.00000001"."""
    if type(units) is not int or not 0 <= units <= MAX_SATOSHI:
        raise InvalidInput("satoshi", Rule.MALFORMED, repr(units), f"an integer, 0 to {MAX_SATOSHI}")
    return f"{units // SATOSHI_PER_BITCOIN}.{units % SATOSHI_PER_BITCOIN:08d}"


def as_object(value: Json, what: str) -> dict[str, Json]:
    """The answer as an object; raises Unavailable where it is something else, as do its siblings."""
    return value if isinstance(value, dict) else _other(what, value, "an object")


def as_list(value: Json, what: str) -> list[Json]:
    """The answer as a list."""
    return value if isinstance(value, list) else _other(what, value, "a list")


def as_text(value: Json, what: str) -> str:
    """The answer as a string."""
    return value if isinstance(value, str) else _other(what, value, "a string")


def as_int(value: Json, what: str) -> int:
    """The answer as an integer; true and false are none."""
    return value if isinstance(value, int) and not isinstance(value, bool) else _other(what, value, "an integer")


def as_hash(value: Json, what: str) -> bytes:
    """A 32-byte hash in the order in which it is displayed."""
    text = as_text(value, what)
    try:
        found = bytes.fromhex(text)
    except ValueError:
        _other(what, value, "hex")
    return found if len(found) == 32 else _other(what, value, "32 bytes of hex")


def _read(cookie: Path | None) -> Login:
    """User and password of this run of the node: bitcoind writes a new cookie file at each start."""
    if cookie is None:
        raise Unavailable(_WHAT, "it wants credentials and none are configured")
    try:
        user, _, password = cookie.read_text(encoding="ascii").strip().partition(":")
    except (OSError, UnicodeDecodeError) as error:
        raise Unavailable(_WHAT, f"its cookie cannot be read: {type(error).__name__}") from error
    return Login(user, password)


def _other(what: str, value: Json, want: str) -> NoReturn:
    raise Unavailable(_WHAT, f"{what} answered {str(value)[:80]!r}, not {want}")


def _raise(method: str, error: dict[str, Json]) -> NoReturn:
    code, message = as_int(error.get("code"), method), as_text(error.get("message"), method)
    if code == WARMING_UP:
        raise Unavailable(_WHAT, f"warming up: {message}")
    raise RpcError(method, code, message)


def _plain(value: object) -> str:
    if isinstance(value, Decimal):
        return format(value, "f")  # bitcoind takes amounts as text; there is no float in between
    raise TypeError(f"not JSON: {value!r}")


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number")
