# SPDX-License-Identifier: AGPL-3.0-or-later
"""One bitcoind on regtest, with a wallet that mines."""

import json
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import ClassVar, Final

import requests

from devnet.anvil import RpcFailed
from devnet.binaries import Program, find
from devnet.processes import Command, Lifetime, Node

MINER: Final = "miner"
COINBASE_MATURITY: Final = 100  # blocks before a mined coin can be spent
SATOSHI: Final = Decimal("0.00000001")
_WARMING_UP: Final = -28
_WALLET_NOT_FOUND: Final = -18
_WALLET_ALREADY_LOADED: Final = -35


def _plain(value: object) -> str:
    if isinstance(value, Decimal):
        return format(value, "f")  # bitcoind takes amounts as text, without a float in between
    raise TypeError(f"not JSON: {value!r}")


class Bitcoind(Node):
    """bitcoind -regtest on 127.0.0.1, without peers; the RPC password is the cookie it writes itself."""

    kind: ClassVar[str] = "bitcoind"

    def __init__(
        self,
        folder: Path,
        *,
        name: str = "bitcoind",
        lifetime: Lifetime = Lifetime.PARENT,
        program: Path | None = None,
    ) -> None:
        super().__init__(name, folder, lifetime)
        self._program = program
        self._session = requests.Session()
        self._session.trust_env = False
        self._ids = count(1)

    @property
    def url(self) -> str:
        """The RPC address, without credentials."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def address(self) -> str:
        """Where it is reached."""
        return self.url

    @property
    def datadir(self) -> Path:
        """Chain and wallets."""
        return self.folder / "data"

    @property
    def cookie_file(self) -> Path:
        """`user:password`, new at each start, readable by the owner only."""
        return self.datadir / "regtest" / ".cookie"

    @property
    def credentials(self) -> tuple[str, str]:
        """RPC user and password of this run. Raises FileNotFoundError when it does not run."""
        user, _, password = self.cookie_file.read_text().partition(":")
        return user, password

    def command(self) -> Command:
        """Build the flags: no peers, bech32, a fee when there is no history, an index to audit by."""
        program = self._program or find(Program.BITCOIND)
        self.datadir.mkdir(parents=True, exist_ok=True)
        # Knots stops at a date; Core has no such setting: it refuses the flag and only warns of a line here
        (self.datadir / "bitcoin.conf").write_text("softwareexpiry=0\n")
        flags = {
            "datadir": self.datadir,
            "rpcport": self.port,
            "rpcbind": "127.0.0.1",
            "rpcallowip": "127.0.0.1",
            "rpcworkqueue": 64,
            "server": 1,
            "listen": 0,
            "connect": 0,
            "dnsseed": 0,
            "txindex": 1,
            "addresstype": "bech32",
            "changetype": "bech32",
            "fallbackfee": "0.0001",
            "maxtipage": 10**9,  # seconds: a chain kept for weeks is not "still downloading" after a restart
            "dbcache": 16,
            "printtoconsole": 1,
            "debuglogfile": 0,
        }
        return Command([str(program), "-regtest", *(f"-{k}={v}" for k, v in flags.items())], {"HOME": str(self.folder)})

    def ready(self) -> bool:
        """Whether it answers, on regtest, and is done warming up."""
        try:
            info = self.rpc("getblockchaininfo")
        except (requests.RequestException, FileNotFoundError):
            return False
        except RpcFailed as error:
            if error.code in {
                _WARMING_UP,
                requests.codes.unauthorized,
            }:  # unauthorized: the cookie of an older run
                return False
            raise
        return isinstance(info, dict) and info["chain"] == "regtest"

    def start(self) -> bool:
        """Start it, with the miner's wallet loaded and one mature coin in it. Raises NodeFailed."""
        started = super().start()
        try:
            self.rpc("loadwallet", MINER)
        except RpcFailed as error:
            if error.code == _WALLET_NOT_FOUND:
                self.rpc("createwallet", MINER)
            elif error.code != _WALLET_ALREADY_LOADED:
                raise
        missing = COINBASE_MATURITY + 1 - self.height
        if missing > 0:
            self.mine(missing)
        return started

    def rpc(self, method: str, *params: object, wallet: str | None = None) -> object:
        """One JSON-RPC call; fractions are Decimal. Raises RpcFailed or requests.RequestException."""
        body = {"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": params}
        url = self.url if wallet is None else f"{self.url}/wallet/{wallet}"
        answer = self._session.post(url, data=json.dumps(body, default=_plain), auth=self.credentials, timeout=120)
        if not answer.content:
            raise RpcFailed(method, answer.status_code, answer.reason)
        content = json.loads(answer.text, parse_float=Decimal)
        if content.get("error"):
            raise RpcFailed(method, content["error"]["code"], content["error"]["message"])
        result: object = content.get("result")
        return result

    @property
    def height(self) -> int:
        """The number of the head block."""
        return int(str(self.rpc("getblockcount")))

    def mine(self, blocks: int = 1, to: str | None = None) -> list[str]:
        """Mine blocks to an address, the miner's own if none is given; returns their hashes."""
        hashes = self.rpc("generatetoaddress", blocks, to or self.rpc("getnewaddress", wallet=MINER))
        if not isinstance(hashes, list):
            raise TypeError(f"generatetoaddress returned {hashes!r}")
        return [str(block) for block in hashes]

    def pay(self, address: str, satoshi: int, rate: int = 2) -> str:
        """Send from the miner, at `rate` satoshi per vbyte; returns the txid, not yet in a block. Raises RpcFailed.

        The wallet sometimes draws a lock time from the last hundred heights, Knots relays nothing with the one 21 ("CAT-21"), and
        `send` tells neither: so the lock time is named, and the pool is asked.
        """
        options = {"fee_rate": rate, "locktime": 0}
        outputs = [{address: satoshi * SATOSHI}]
        sent = self.rpc("send", outputs, None, "unset", None, options, wallet=MINER)
        if not isinstance(sent, dict):
            raise TypeError(f"send returned {sent!r}")
        txid = str(sent["txid"])
        self.rpc("getmempoolentry", txid)
        return txid
