# SPDX-License-Identifier: AGPL-3.0-or-later
"""The plugin's process: hardened first, then the handshake, then OpenBao's requests until it goes away."""

import asyncio
import logging
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from grpclib.client import Channel
from grpclib.config import Configuration
from grpclib.server import Server

from custody.vault.engine import VERSION
from custody.vault.engine.calls import Codec, Served
from custody.vault.engine.handshake import (
    NotStartedByOpenBao,
    ServerLog,
    Start,
    make_tls,
    read_environment,
    say_hello,
    take_stdout,
)
from custody.vault.engine.plugin import Plugin, Verbs
from custody.vault.hardening import harden

_WINDOW: Final = 4 << 20


def open_seat(options: Mapping[str, str], channel: Channel, loop: asyncio.AbstractEventLoop) -> Verbs:
    """The seat of a mount: what it is made of loads only here, so that OpenBao's looks at a plugin cost little."""
    from custody.vault.engine.hosting import host  # noqa: PLC0415

    return host(options, channel, loop)


async def _serve(start: Start, stdout: int) -> None:
    end = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end.set)
    tls = make_tls(start.host_certificate)
    folder = Path(tempfile.mkdtemp(prefix="seat-", dir=start.sockets))  # of mode 0700
    try:
        plugin = Plugin(tls, open_seat, VERSION, end)
        configuration = Configuration(http2_connection_window_size=_WINDOW, http2_stream_window_size=_WINDOW)
        server = Server([Served(plugin.__mapping__())], codec=Codec(), config=configuration)
        await server.start(path=str(folder / "s"), ssl=tls.server)
        say_hello(stdout, folder / "s", tls.certificate)
        await end.wait()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    """Run until the host goes away. Exit code 2 where it was not OpenBao that started us."""
    harden()
    stdout = take_stdout()
    lines = logging.StreamHandler(sys.stderr)
    lines.setFormatter(ServerLog())
    logging.basicConfig(level=logging.WARNING, handlers=[lines])
    try:
        start = read_environment(os.environ)
    except NotStartedByOpenBao as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(2) from error
    asyncio.run(_serve(start, stdout))
    os._exit(0)  # a request that hangs in its thread holds nobody up: what it has not written never was


if __name__ == "__main__":
    main()
