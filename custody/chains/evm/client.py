# SPDX-License-Identifier: AGPL-3.0-or-later
"""One EVM node over HTTP: calls and batches, answers as the node's JSON, every failure as `Unavailable`.

Below web3's `eth` module on purpose: no middleware, no silent retries, and no CCIP read, by which a contract's revert
sends the caller to a URL of its choice (EIP-3668). What the node says is read by `wire.py`.
"""

from collections.abc import Sequence
from typing import Final

import requests
from eth_utils.crypto import keccak
from web3 import HTTPProvider
from web3.exceptions import Web3Exception
from web3.types import RPCEndpoint, RPCResponse

from custody.chains.evm import wire
from custody.rules.deposits import BlockRef
from custody.rules.errors import InvalidInput, Unavailable
from custody.rules.refusals import Rule
from custody.rules.wallets import Chain

Call = tuple[str, Sequence[object]]
"""A method and its parameters."""

BATCH: Final = 200
"""Calls in one HTTP request: a few tens of kilobytes, below what hosted nodes take."""


class NodeRefused(Unavailable):
    """The node answered, with an error: a revert, a block it does not have, a limit of its own."""


class EvmClient:
    """One node of one chain, for one thread. Raises InvalidInput(wrong_network) where the node is on another chain."""

    def __init__(self, url: str, chain: Chain, timeout: float = 30.0) -> None:
        self.chain = chain
        session = requests.Session()
        session.trust_env = False  # no proxy and no netrc of the machine stands between us and our node
        session.max_redirects = 0
        self._provider = HTTPProvider(
            url, request_kwargs={"timeout": timeout}, session=session, exception_retry_configuration=None
        )
        self._provider.global_ccip_read_enabled = False
        found = wire.quantity(self.call("eth_chainId"), "chain id")
        if found != chain.evm_id:
            raise InvalidInput("chain", Rule.WRONG_NETWORK, f"eip155:{found}", str(chain))

    def call(self, method: str, *params: object) -> object:
        """One call. Raises Unavailable, or NodeRefused where the node answered with an error."""
        try:
            response = self._provider.make_request(RPCEndpoint(method), list(params))
        except (requests.RequestException, Web3Exception, ValueError) as error:
            raise self._silent(error) from None
        return self._result(method, response)

    def batch(self, calls: Sequence[Call]) -> list[object]:
        """Many calls in few requests, answers in the order of the calls; one error fails all of them."""
        answers: list[object] = []
        for start in range(0, len(calls), BATCH):
            answers += self._one_batch(calls[start : start + BATCH])
        return answers

    def header(self, block: str) -> BlockRef | None:
        """The header at a tag or a height in hex; None where the node has no such block."""
        without_transactions = False
        return wire.block_ref(self.chain, self.call("eth_getBlockByNumber", block, without_transactions))

    def code(self, address: str, block: wire.BlockId = "latest") -> bytes:
        """Runtime code at an address; empty where there is none."""
        return wire.data(self.call("eth_getCode", address, block), "code")

    def read(self, to: str, signature: str, block: wire.BlockId = "latest") -> object:
        """eth_call of a view without arguments, such as `nonce()`."""
        return self.call("eth_call", {"to": to, "data": "0x" + keccak(text=signature)[:4].hex()}, block)

    def _one_batch(self, calls: Sequence[Call]) -> list[object]:
        try:
            responses = self._provider.make_batch_request([(RPCEndpoint(m), list(params)) for m, params in calls])
        except (requests.RequestException, Web3Exception, ValueError, TypeError, KeyError) as error:
            raise self._silent(error) from None
        if not isinstance(responses, list):
            self._result("batch", responses)
            raise Unavailable(f"the node of {self.chain}", "it answered a batch with a single result")
        ids = [response.get("id") for response in responses]
        first = ids[0] if ids and isinstance(ids[0], int) else 0
        if ids != list(range(first, first + len(calls))):  # an answer left out would shift every one after it
            raise Unavailable(f"the node of {self.chain}", f"it answered {len(ids)} of {len(calls)} calls")
        return [self._result(method, response) for (method, _), response in zip(calls, responses, strict=True)]

    def _result(self, method: str, response: RPCResponse) -> object:
        if ("result" in response) == ("error" in response):
            raise Unavailable(f"the node of {self.chain}", f"its answer to {method} is not JSON-RPC")
        if "error" in response:
            error = response["error"]
            told = error if isinstance(error, str) else error.get("message")
            raise NodeRefused(f"the node of {self.chain}", f"{method}: {str(told)[:300]}")
        result: object = response["result"]
        return result

    def _silent(self, error: Exception) -> Unavailable:
        # Only the kind: an error's text holds the URL, and a hosted node's URL holds its key.
        status = f" {error.response.status_code}" if isinstance(error, requests.HTTPError) else ""
        return Unavailable(f"the node of {self.chain}", type(error).__name__ + status)
