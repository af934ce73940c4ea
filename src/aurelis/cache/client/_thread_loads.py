"""Loads that a thread makes by itself: its own request's, or one that nobody waits for."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from functools import partial
from itertools import chain
from typing import Any, Generic, TypeVar

from aurelis.cache.exchange import Exchange, Hit, Lead
from aurelis.cache.models import ModelRequest
from aurelis.cache.typing import Pass

from ._calls import Call, decoded_head
from ._library import Library, Request, Response
from ._lingering import Lingering
from ._load import asking, unobserved
from ._responses import Responses, marked
from ._threads import Threads

Q = TypeVar("Q", bound=Request)
R = TypeVar("R", bound=Response)

_LOG = logging.getLogger("aurelis.cache")


class ThreadLoads(Generic[Q, R]):
    """Loads of synchronous clients.

    Args:
        library: the classes of the client's library.
        responses: makes responses.
        lingering: keeps what nobody reads any more, while it may still be of use.
        behind: threads for what nobody waits for.
    """

    def __init__(self, library: Library[R], responses: Responses[R], lingering: Lingering, behind: Threads) -> None:
        self._library = library
        self._responses = responses
        self._lingering = lingering
        self._behind = behind

    def lead(self, request: Q, call: Call, lead: Lead, ask: Callable[[Q], R]) -> R:
        """The response of the origin, which is recorded while its caller reads it, or what stands in for it.

        Raises:
            Exception: what `ask` raised.
        """
        handled = sys.exc_info()[1]
        try:
            with lead.asking():
                response = ask(asking(request, call, lead.conditions))
        except BaseException as error:
            stale = lead.fail(error, handled)
            lead.close()
            if stale is None:
                raise
            return self._responses.replay(request, call, stale)
        try:
            head, refused = decoded_head(response, call, self._library.decodes)
            chunks = None
            if isinstance(call, ModelRequest) and not refused and lead.awaits_body(head):
                rest = response.iter_bytes()
                first = next(rest, None)
                chunks = rest if first is None else chain((first,), rest)
            decision = lead.take(head, response, refused=refused)
        except BaseException as error:
            stale = lead.fail(error, handled)
            lead.close()
            response.close()
            if stale is None:
                raise
            return self._responses.replay(request, call, stale)
        if isinstance(decision, Hit):
            lead.close()
            response.close()
            return self._responses.replay(request, call, decision)
        member = self._responses.forwarded(lead.reason, head, decision, collapsed=False)
        if isinstance(decision, Pass):
            lead.close()
            return marked(response, member)
        return self._responses.response(
            request, head, member, self._library.led(lead, response, chunks, self._lingering), response.extensions
        )

    def refresh(self, request: Q, exchange: Exchange[Any], call: Call, hit: Hit, ask: Callable[[Q], R]) -> None:
        """Load a stale response anew in a thread that nobody waits for, if not too many do so already."""
        behind = unobserved(request)

        def load(lead: Lead) -> None:
            response = self.lead(behind, call, lead, ask)
            try:
                if not lead.recorder.over:  # what is not kept is of no use to anybody
                    response.read()
            finally:
                response.close()

        self.run_behind(partial(exchange.refresh_blocking, call, hit, load, exchange.here()))

    def run_behind(self, refresh: Callable[[], None]) -> None:
        """Run something in a thread that nobody waits for, if not too many do so already."""

        def run() -> None:
            try:
                refresh()
            except Exception:  # noqa: BLE001  # nobody waits for it, and the cache has counted that it failed
                _LOG.debug("a refresh in the background failed", exc_info=False)

        self._behind.begin(run)
