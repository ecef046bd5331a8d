# SPDX-License-Identifier: AGPL-3.0-or-later
"""The plugin's storage as OpenBao serves it over gRPC, for a thread that waits; the calls run in the plugin's event loop."""

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, Final, TypeVar

from grpclib.client import Channel
from grpclib.exceptions import GRPCError, StreamTerminatedError

from custody.rules.errors import Unavailable
from custody.vault.engine.calls import call
from custody.vault.engine.messages import message
from custody.vault.engine.storage import WHAT

T = TypeVar("T")
SECONDS: Final = 15.0
"""How long a call to the storage may take; raft commits in milliseconds, or has lost its quorum."""
_TOGETHER: Final = 16
_STORAGE: Final = "/pb.Storage/"


class GrpcEntries:
    """`Entries` over a channel to OpenBao, from another thread than the loop's."""

    def __init__(self, channel: Channel, loop: asyncio.AbstractEventLoop) -> None:
        self._channel, self._loop = channel, loop

    def get(self, key: str) -> bytes | None:
        """See `Entries`."""
        return self._wait(self._get(key, ""))

    def put_all(self, expected: Mapping[str, bytes | None], entries: Mapping[str, bytes]) -> bool:
        """See `Entries`."""
        return self._wait(self._put_all(expected, entries))

    def names(self, prefix: str) -> Sequence[str]:
        """See `Entries`."""
        return self._wait(self._names(prefix))

    def check(self) -> None:
        """Raises Unavailable where the storage has no transactions: a seat's steps would not be whole there."""
        if not self._wait(self._ask("IsTransactional", "Empty", "StorageIsTransactionalReply")).transactional:
            raise Unavailable(WHAT, "the server's storage has no transactions; raft has")

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except (GRPCError, StreamTerminatedError, OSError, TimeoutError, asyncio.CancelledError) as error:
            raise Unavailable(WHAT, type(error).__name__) from error

    async def _ask(self, method: str, asked: str, reply: str, **fields: object) -> Any:  # noqa: ANN401 - protobuf
        answer = await call(self._channel, _STORAGE + method, message(asked)(**fields), reply, SECONDS)
        if getattr(answer, "err", ""):
            raise Unavailable(WHAT, answer.err)
        return answer

    async def _get(self, key: str, txn: str) -> bytes | None:
        answer = await self._ask("Get", "StorageGetArgs", "StorageGetReply", key=key, txn=txn)
        return bytes(answer.entry.value) if answer.HasField("entry") else None

    async def _put(self, key: str, value: bytes, txn: str) -> None:
        entry = message("StorageEntry")(key=key, value=value)
        await self._ask("Put", "StoragePutArgs", "StoragePutReply", entry=entry, txn=txn)

    async def _names(self, prefix: str) -> Sequence[str]:
        answer = await self._ask("List", "StorageListArgs", "StorageListReply", prefix=prefix)
        return list(answer.keys)

    async def _put_all(self, expected: Mapping[str, bytes | None], entries: Mapping[str, bytes]) -> bool:
        begun = await self._ask("BeginTx", "Empty", "StorageBeginTxReply")
        try:
            found = await _some(self._get(key, begun.txn) for key in expected)
            same = found == list(expected.values())
            if same:
                await _some(self._put(key, value, begun.txn) for key, value in entries.items())
        except (Unavailable, GRPCError, StreamTerminatedError, OSError, TimeoutError):
            await self._ask("Rollback", "StorageTxArgs", "StorageTxReply", txn=begun.txn)
            raise
        await self._ask("Commit" if same else "Rollback", "StorageTxArgs", "StorageTxReply", txn=begun.txn)
        return same


async def _some(work: Any) -> list[Any]:  # noqa: ANN401 - coroutines of any result
    """Their results in order, a few at a time."""
    turns = asyncio.Semaphore(_TOGETHER)

    async def turn(one: Coroutine[Any, Any, Any]) -> object:
        async with turns:
            return await one

    return list(await asyncio.gather(*(turn(one) for one in work)))
