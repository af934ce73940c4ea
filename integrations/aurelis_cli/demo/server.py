"""Runs an ASGI app under uvicorn on a socket that is open already."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable
from typing import Any, Final

import uvicorn

GRACE: Final = 3
"""Seconds that requests under way may take when the server stops."""
KEEP_ALIVE: Final = 75
"""Seconds that a connection may be idle: clients give up sooner, so that none is closed while in use."""


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, on_started: Callable[[], None] | None) -> None:
        super().__init__(config)
        self._on_started = on_started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._on_started is not None:
            self._on_started()


def serve(app: Any, listener: socket.socket, on_started: Callable[[], None] | None = None) -> None:
    """Serve `app` (ASGI) until SIGTERM, then return when requests under way have ended.

    Args:
        app: Any ASGI app with lifespan.
        listener: A listening socket; it is closed at the end.
        on_started: Called once when requests are answered.
    """
    # uvicorn raises the signal again after it has stopped in order; what comes after `serve` must still run.
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    config = uvicorn.Config(
        app,
        lifespan="auto",
        log_level="warning",
        access_log=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=GRACE,
    )
    _Server(config, on_started).run([listener])
