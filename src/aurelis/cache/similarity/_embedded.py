"""Vectors of prompts, each asked of the embedder once, and of one that fails only now and then."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from aurelis.cache import _breaker
from aurelis.cache._answer_places import namespace_tag
from aurelis.cache._canonical import digest
from aurelis.cache._forking import renew_in_children
from aurelis.cache._keys import CacheKeyBuilder
from aurelis.cache.exceptions import ConfigurationError, EmbeddingError
from aurelis.cache.telemetry import names
from aurelis.cache.telemetry.otel import Telemetry
from aurelis.cache.typing import Embedder

from ._shelf import Shelf
from ._vectors import packed, unit, unpacked

if TYPE_CHECKING:
    from ._vectors import Vector

VECTORS: Final = "similar_vectors"
"""Category of vectors of prompts that were asked."""
_LIFE: Final = 3600.0
_THRESHOLD: Final = 3
_PAUSE: Final = 10.0
_MAX_LATE: Final = 1024
"""Prompts of which is remembered that their vector took too long."""


class Embedded:
    """The vectors of one cache.

    Args:
        timeout: seconds for the embedder.

    Attributes:
        name: of the embedder.

    Raises:
        ConfigurationError: it is no embedder.
    """

    def __init__(
        self, embedder: Embedder, shelf: Shelf, keys: CacheKeyBuilder, telemetry: Telemetry, timeout: float
    ) -> None:
        name = getattr(embedder, "name", None)
        if not isinstance(name, str) or not name or not callable(getattr(embedder, "embed", None)):
            raise ConfigurationError("embedder must have a name, which is a str, and a coroutine function embed(texts)")
        self.name = name
        self._embedder = embedder
        self._shelf = shelf
        self._keys = keys
        self._telemetry = telemetry
        self._timeout = timeout
        self._late: dict[str, float] = {}  # with the instants until which they are not asked for again
        self.after_fork()
        telemetry.expect_breaker(names.SIMILARITY, self, lambda embedded: embedded._state.kind)
        renew_in_children(self)

    def after_fork(self) -> None:
        """A thread that does not exist here may have been changing the state, whose changes are counted anew."""
        self._lock = threading.Lock()
        self._state = _breaker.CLOSED

    async def vector(self, prompt: str, namespace: str | None) -> Vector | None:
        """The vector of a prompt, which is kept for a while; `None`: the embedder failed, or is left alone for that.

        Whoever has waited in vain for one does not wait again when the answer to the same prompt is stored.
        """
        key = self._keys.build_key(VECTORS, digest((self.name, prompt, namespace)))
        shelved = (await self._shelf.read([key])).get(key)
        if shelved is not None and isinstance(shelved.value, bytes):
            known = unpacked(shelved.value)
            if known is not None:
                return known
        if self._late.get(key, -math.inf) > self._shelf.now():
            return None
        vector = await self._asked(key, prompt)
        if vector is not None:
            tags = () if namespace is None else (namespace_tag(namespace),)
            await self._shelf.keep(key, packed(vector), _LIFE, tags)
        return vector

    async def _asked(self, key: str, prompt: str) -> Vector | None:
        # A probe that never returns counts as lost when it has had its time.
        pause = max(_PAUSE, 2 * self._timeout if self._timeout < math.inf else 0.0)
        with self._lock:
            state, admitted = _breaker.admit(self._state, self._shelf.now(), pause=pause)
            self._note(state)
        if not admitted:
            return None
        probe = state.kind != "closed"
        deadline = asyncio.timeout(self._timeout)
        try:
            async with deadline:
                vectors = await self._vectors(prompt)
            if len(vectors) != 1:
                raise EmbeddingError("there must be one vector for each text")
            vector = unit(vectors[0])
        except Exception as error:  # noqa: BLE001  # an embedder may raise anything; the model can still be asked
            self._telemetry.incident(names.SIMILARITY, "embed", type(error).__qualname__)
            with self._lock:
                if deadline.expired():
                    self._late.pop(key, None)
                    self._late[key] = self._shelf.now() + _PAUSE
                    if len(self._late) > _MAX_LATE:
                        del self._late[next(iter(self._late))]
                self._note(
                    _breaker.failed(self._state, self._shelf.now(), probe=probe, threshold=_THRESHOLD, pause=_PAUSE)
                )
            return None
        except BaseException:
            with self._lock:
                self._note(_breaker.released(self._state, self._shelf.now(), probe=probe))
            raise
        with self._lock:
            self._note(_breaker.succeeded(self._state, probe=probe))
        return vector

    async def _vectors(self, prompt: str) -> Sequence[Sequence[float]]:
        try:
            return await self._embedder.embed([prompt])
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Nobody has cancelled this: the embedder waited for something that was.
            raise EmbeddingError("the embedder was cancelled") from None

    def _note(self, state: _breaker.Breaker) -> None:
        if state.kind != self._state.kind:
            self._telemetry.breaker(names.SIMILARITY, state.kind)
        self._state = state
