# SPDX-License-Identifier: AGPL-3.0-or-later
"""gRPC over grpclib without generated stubs: one codec, and a service as a table from paths to functions."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from grpclib.client import Channel, UnaryUnaryMethod
from grpclib.const import Cardinality, Handler
from grpclib.encoding.base import CodecBase

from custody.vault.engine.messages import message

Answer = Callable[[Any], Awaitable[Any]]
"""Takes a request's message, gives the reply's."""


class Codec(CodecBase):
    """Messages as protobuf writes them."""

    __content_subtype__: Final = "proto"

    def encode(self, message: Any, message_type: Any) -> bytes:  # noqa: ANN401, ARG002 - grpclib's signature
        """A message's bytes."""
        return bytes(message.SerializeToString())

    def decode(self, data: bytes, message_type: Any) -> Any:  # noqa: ANN401 - grpclib's signature
        """A message from its bytes."""
        return message_type.FromString(data)


def unary(asked: str, reply: str, answer: Answer) -> Handler:
    """A handler of one message in, one out."""

    async def handle(stream: Any) -> None:  # noqa: ANN401 - grpclib's stream of unknown messages
        request = await stream.recv_message()
        if request is not None:
            await stream.send_message(await answer(request))

    return Handler(handle, Cardinality.UNARY_UNARY, message(asked), message(reply))


class Served:
    """A table of paths and their handlers, in the form in which grpclib takes a service."""

    def __init__(self, mapping: Mapping[str, Handler]) -> None:
        self._mapping = dict(mapping)

    def __mapping__(self) -> dict[str, Handler]:
        """What grpclib asks for."""
        return self._mapping


async def call(channel: Channel, path: str, request: Any, reply: str, seconds: float) -> Any:  # noqa: ANN401 - protobuf
    """One call as a client; raises grpclib's errors, and TimeoutError."""
    method: Any = UnaryUnaryMethod(channel, path, type(request), message(reply))
    return await method(request, timeout=seconds)
