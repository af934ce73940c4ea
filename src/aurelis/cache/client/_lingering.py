"""Bodies that lack nothing but their end when their last reader leaves, read on without an event loop.

The thread that leaves must not wait for the origin, whose time-outs are made for answers and not for their last bytes.
So another thread reads, and what it waits for is cut off when the time is up: the connection is shut down, which is
the one thing that wakes a thread that reads from it.
"""

from __future__ import annotations

import logging
import socket
from contextlib import suppress
from threading import Event, Thread
from typing import Any, Final, Protocol

from aurelis.cache.exchange import Lead

from ._library import Response
from ._ongoing import Ongoing
from ._threads import Threads

_LOG = logging.getLogger("aurelis.cache")

_MAX_AT_ONCE: Final = 32
"""Threads that may read on; what is left while there are so many is not kept."""
_AGAIN: Final = 0.5
"""Seconds at least between two looks whether others still read."""
_ONE_EACH: Final = frozenset({b"HTTP/1.1", b"HTTP/1.0"})
"""Versions that have one response at a time on a connection, so that shutting it down harms no other."""


class Rest(Protocol):
    """What is left of a body."""

    def finish(self) -> None:
        """Read it, as long as it is wanted, and close it."""
        ...


class Lingering:
    """The threads of one transport that read such bodies on."""

    def __init__(self, ongoing: Ongoing) -> None:
        self._threads = Threads("aurelis-cache-linger", _MAX_AT_ONCE, ongoing)

    def begin(self, rest: Rest, lead: Lead, response: Response, seconds: float) -> bool:
        """Read on for so many seconds at most, and finish then; whether it is done so.

        It is not where nothing can stop it: the response comes from no connection of its own.
        """
        connection = _connection(response)
        if connection is None:
            return False
        handed_over = Event()

        def run() -> None:
            with connection:
                handed_over.wait()
                _read(rest, lead, connection, seconds)

        thread = self._threads.begin(run)
        if thread is None:
            connection.close()
            return False
        try:
            lead.hand_over(thread)
        finally:
            handed_over.set()
        return True


def _read(rest: Rest, lead: Lead, connection: socket.socket, seconds: float) -> None:
    over = Event()

    def watch() -> None:
        pause = seconds
        while not over.wait(pause):
            if not lead.linger_no_more():
                with suppress(OSError):  # it is over already
                    connection.shutdown(socket.SHUT_RDWR)
                return
            # Whoever reads after all has it to the end, and may leave before that, too.
            pause = max(seconds, _AGAIN)

    try:
        Thread(target=watch, name="aurelis-cache-linger-end", daemon=True).start()
    except RuntimeError:  # there can be no more threads, so nothing could end it
        lead.linger_no_more()
    try:
        rest.finish()
    except Exception:  # noqa: BLE001  # nobody is left to be told
        _LOG.debug("what was read on could not be closed", exc_info=False)
    finally:
        over.set()


def _connection(response: Response) -> socket.socket | None:
    """A handle on the connection that a response alone comes from; `None`: there is none."""
    extensions = response.extensions
    stream: Any = extensions.get("network_stream")  # Any: what the transport has put there
    if stream is None or extensions.get("http_version") not in _ONE_EACH:
        return None
    try:
        plain = stream.get_extra_info("socket")
        # One of our own: the library may close its own at any time, which would wake nobody.
        return socket.fromfd(plain.fileno(), plain.family, plain.type)
    except (AttributeError, OSError):
        return None
