# SPDX-License-Identifier: AGPL-3.0-or-later
"""The services of a secrets-engine plugin, as OpenBao asks for them: broker, controller, health, and `pb.Backend`."""

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from grpclib.client import Channel
from grpclib.config import Configuration
from grpclib.const import Cardinality, Handler

from custody.vault.engine.calls import Answer, Codec, unary
from custody.vault.engine.handshake import Tls
from custody.vault.engine.messages import message

LOG: Final = logging.getLogger("bulkhead.seat")
SECRETS_ENGINE: Final = 1
_SERVING: Final = 1
_CODED: Final = 3
_UNSUPPORTED: Final = 5
_WRITES: Final = ("create", "update")
_BROKER_SECONDS: Final = 5.0
_HOST: Final = "localhost"
_TLS_NAME: Final = "ssl_target_name_override"
"""grpclib's word for the name that a certificate has to have; a unix socket has none of its own."""

Verbs = Callable[[str, str], tuple[int, str]]
"""Path and data in; an HTTP status and the answer's text out. Called from one thread, one request at a time."""
Open = Callable[[Mapping[str, str], Channel, asyncio.AbstractEventLoop], Verbs]
"""Makes the verbs from a mount's options and a channel to its storage; called in the verbs' thread, at the first request."""


class Plugin:
    """One mount of the engine in one process. Requests take turns: a seat has one journal."""

    def __init__(self, tls: Tls, open_verbs: Open, version: str, end: asyncio.Event) -> None:
        self._tls, self._open, self._version, self._end = tls, open_verbs, version, end
        self._brokered: dict[int, asyncio.Future[Any]] = {}
        self._channel: Channel | None = None
        self._options: dict[str, str] = {}
        self._verbs: Verbs | None = None
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="seat")

    def __mapping__(self) -> dict[str, Handler]:
        """Every path that OpenBao 2.7 asks a plugin for; an unknown one would be answered in a form that it does not read."""
        backend: dict[str, tuple[str, str, Answer]] = {
            "Setup": ("SetupArgs", "SetupReply", self._setup),
            "Type": ("Empty", "TypeReply", self._type),
            "SpecialPaths": ("Empty", "SpecialPathsReply", self._special_paths),
            "Initialize": ("Empty", "InitializeReply", self._initialize),
            "HandleExistenceCheck": ("HandleRequestArgs", "HandleExistenceCheckReply", self._exists),
            "HandleRequest": ("HandleRequestArgs", "HandleRequestReply", self._handle),
            "InvalidateKey": ("InvalidateKeyArgs", "Empty", self._nothing),
            "Cleanup": ("Empty", "Empty", self._nothing),
        }
        multiplexing = "/pluginutil.multiplexing.PluginMultiplexing/MultiplexingSupport"
        return {
            "/plugin.GRPCBroker/StartStream": _streaming(self._broker, "ConnInfo", Cardinality.STREAM_STREAM),
            "/plugin.GRPCStdio/StreamStdio": _streaming(self._hold, "Empty", Cardinality.UNARY_STREAM),
            "/plugin.GRPCController/Shutdown": unary("Empty", "Empty", self._shutdown),
            "/grpc.health.v1.Health/Check": unary("HealthCheckRequest", "HealthCheckResponse", self._health),
            multiplexing: unary("Empty", "MultiplexingSupportResponse", self._multiplexing),
            "/logical.PluginVersion/Version": unary("Empty", "VersionReply", self._tell_version),
            **{f"/pb.Backend/{name}": unary(*row) for name, row in backend.items()},
        }

    async def _broker(self, stream: Any) -> None:  # noqa: ANN401 - grpclib's stream
        """Learn where the host's own services listen. The end of this stream is the end of the host."""
        try:
            while (info := await stream.recv_message()) is not None:
                waiting = self._waiting(info.service_id)
                if not waiting.done():
                    waiting.set_result(info)
        finally:
            self._end.set()

    def _waiting(self, service: int) -> asyncio.Future[Any]:
        return self._brokered.setdefault(service, asyncio.get_running_loop().create_future())

    async def _hold(self, stream: Any) -> None:  # noqa: ANN401 - grpclib's stream
        await stream.recv_message()
        await stream.send_initial_metadata()
        await self._end.wait()

    async def _shutdown(self, _request: object) -> object:
        asyncio.get_running_loop().call_later(0.05, self._end.set)
        return message("Empty")()

    async def _health(self, _request: object) -> object:
        return message("HealthCheckResponse")(status=_SERVING)

    async def _multiplexing(self, _request: object) -> object:
        return message("MultiplexingSupportResponse")(
            supported=False
        )  # one process for each mount: no seat shares memory

    async def _tell_version(self, _request: object) -> object:
        return message("VersionReply")(plugin_version=self._version)

    async def _type(self, _request: object) -> object:
        return message("TypeReply")(type=SECRETS_ENGINE)

    async def _special_paths(self, _request: object) -> object:
        return message("SpecialPathsReply")(paths=message("Paths")())  # nothing is open to those without a token

    async def _nothing(self, _request: object) -> object:
        return message("Empty")()  # nothing is kept between requests that could be out of date

    async def _setup(self, request: Any) -> object:  # noqa: ANN401 - protobuf
        try:
            info = await asyncio.wait_for(self._waiting(request.broker_id), _BROKER_SECONDS)
        except TimeoutError:
            return message("SetupReply")(err="the host never said where its storage is")
        if info.network != "unix":
            return message("SetupReply")(err=f"the host's storage is at a {info.network} address, not a unix socket")
        self._options = dict(request.config)
        said: dict[str, Any] = {_TLS_NAME: _HOST}
        configuration = Configuration(**said)
        self._channel = Channel(path=info.address, ssl=self._tls.client, codec=Codec(), config=configuration)
        return message("SetupReply")()

    async def _initialize(self, _request: object) -> object:
        """Begin to load what a seat needs, so that the first request does not wait for all of it."""
        opening = asyncio.get_running_loop().run_in_executor(self._thread, self._opened)
        opening.add_done_callback(lambda done: done.exception())  # the first request tells whoever asks
        return message("InitializeReply")()

    async def _exists(self, _request: object) -> object:
        return message("HandleExistenceCheckReply")(check_found=True, exists=True)  # every write is an update

    async def _handle(self, request: Any) -> object:  # noqa: ANN401 - protobuf
        asked, reply = request.request, message("HandleRequestReply")()
        if asked.operation not in _WRITES:  # nothing of a seat is read, listed, patched or deleted
            reply.err.err_type, reply.err.err_msg = _UNSUPPORTED, "unsupported operation"
            return reply
        code, text = await asyncio.get_running_loop().run_in_executor(
            self._thread, self._carry_out, asked.path, asked.data
        )
        if code == 200:
            reply.response.data = json.dumps({"answer": text})
        else:
            reply.err.err_type, reply.err.err_msg, reply.err.err_code = _CODED, text, code
        return reply

    def _carry_out(self, path: str, data: str) -> tuple[int, str]:
        return self._opened()(path, data)

    def _opened(self) -> Verbs:
        if self._verbs is None:
            if self._channel is None:
                raise RuntimeError("asked before Setup")
            self._verbs = self._open(self._options, self._channel, self._loop)
        return self._verbs


def _streaming(handle: Callable[[Any], Any], each: str, cardinality: Cardinality) -> Handler:
    return Handler(handle, cardinality, message(each), message(each))
