# SPDX-License-Identifier: AGPL-3.0-or-later
"""One Anvil: an Ethereum chain for development, kept over restarts."""

from itertools import count
from pathlib import Path
from typing import ClassVar

import requests

from devnet.binaries import Program, find
from devnet.processes import Command, Lifetime, Node

DEFAULT_CHAIN_ID = 31338


class RpcFailed(Exception):
    """A node answered a call with an error: method, code, message."""

    def __init__(self, method: str, code: int, message: str) -> None:
        super().__init__(f"{method}: {message} ({code})")
        self.method, self.code, self.message = method, code, message


class Anvil(Node):
    """Anvil on 127.0.0.1. It mines a block for each transaction, plus one each `block_time` seconds if given.

    With one slot in an epoch, the finalized block is head - 2: call `mine(2)` to make something final.
    """

    kind: ClassVar[str] = "anvil"

    def __init__(
        self,
        folder: Path,
        *,
        name: str = "anvil",
        chain_id: int = DEFAULT_CHAIN_ID,
        block_time: int | None = None,
        lifetime: Lifetime = Lifetime.PARENT,
        program: Path | None = None,
    ) -> None:
        super().__init__(name, folder, lifetime)
        self.chain_id, self.block_time, self._program = chain_id, block_time, program
        self._session = requests.Session()
        self._session.trust_env = False  # a proxy of the machine has no business on loopback
        self._ids = count(1)

    @property
    def url(self) -> str:
        """The JSON-RPC address."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def address(self) -> str:
        """Where it is reached."""
        return self.url

    @property
    def state_file(self) -> Path:
        """Blocks, balances and receipts; written every 10 s and at SIGTERM."""
        return self.folder / "state.json"

    def command(self) -> Command:
        """Anvil without funded accounts: money comes from `set_balance`, keys from whoever tests."""
        program = self._program or find(Program.ANVIL)
        argv = [
            str(program),
            "--host",
            "127.0.0.1",
            "--port",
            str(self.port),
            "--chain-id",
            str(self.chain_id),
        ]
        argv += ["--accounts", "0", "--slots-in-an-epoch", "1", "--quiet"]
        argv += ["--state", str(self.state_file), "--state-interval", "10"]
        argv += ["--preserve-historical-states"]  # or a restart would make every older block unreadable
        argv += ["--block-time", str(self.block_time)] if self.block_time else []
        return Command(argv, {"HOME": str(self.folder)})

    def ready(self) -> bool:
        """Whether it answers, with the chain id that was asked for."""
        try:
            return int(str(self.rpc("eth_chainId")), 16) == self.chain_id
        except requests.RequestException:
            return False

    def rpc(self, method: str, *params: object) -> object:
        """One JSON-RPC call. Raises RpcFailed, or requests.RequestException when nothing answers."""
        body = {"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": params}
        answer = self._session.post(self.url, json=body, timeout=60).json()
        if "error" in answer:
            raise RpcFailed(method, answer["error"].get("code", 0), answer["error"].get("message", ""))
        result: object = answer.get("result")
        return result

    @property
    def height(self) -> int:
        """The number of the head block."""
        return int(str(self.rpc("eth_blockNumber")), 16)

    def mine(self, blocks: int = 1) -> int:
        """Add empty blocks, or blocks of what is pending; returns the new height."""
        self.rpc("anvil_mine", hex(blocks))
        return self.height

    def set_balance(self, address: str, wei: int) -> None:
        """Give an account exactly this many wei."""
        self.rpc("anvil_setBalance", address, hex(wei))

    def snapshot(self) -> str:
        """Remember the whole chain; the name is good for one `revert`."""
        return str(self.rpc("evm_snapshot"))

    def revert(self, snapshot: str) -> None:
        """Go back to a snapshot. Raises RpcFailed when the name is used up or unknown."""
        if self.rpc("evm_revert", snapshot) is not True:
            raise RpcFailed("evm_revert", 0, f"no snapshot {snapshot}")
