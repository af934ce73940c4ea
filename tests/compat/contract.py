"""What holds for each SDK, once the cache is plugged into it: the same tests for all of them."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pytest

from aurelis.cache import CacheManager, cache_options
from aurelis.cache.client import find_clients
from tests.client.model_server import Model
from tests.client.upstream import Gate, Upstream
from tests.docs.blocks import page_of, run_block
from tests.managers import eventually, requests
from tests.models.wire import Wire

T = TypeVar("T")
_THREADS = ThreadPoolExecutor(32)
ASYNC, SYNC = "async", "sync"


async def in_thread(call: Callable[[], T]) -> T:
    """Call what blocks, in the context of the caller."""
    return await asyncio.get_running_loop().run_in_executor(_THREADS, copy_context().run, call)


class Clients:
    """Makes clients of the HTTP libraries with a cache in them; all are closed in the end."""

    def __init__(self, manager: CacheManager) -> None:
        self.manager = manager
        self._made: list[Any] = []

    def make(self, mode: str, library: str = "httpx2") -> Any:
        """A client for one mode of one library."""
        package = importlib.import_module(library)
        maker = package.AsyncClient if mode == ASYNC else package.Client
        return self.keep(maker(timeout=10, transport=self.transport(mode, library)))

    def transport(self, mode: str, library: str = "httpx2") -> Any:
        """A transport with a cache."""
        package = importlib.import_module(f"aurelis_{library}")
        return (package.AsyncCacheTransport if mode == ASYNC else package.CacheTransport)(cache=self.manager)

    def wrap(self, client: Any, library: str = "httpx2") -> Any:
        """A client of an SDK as an app makes it, with a cache put into it."""
        library_package = importlib.import_module(library)
        for found in find_clients(client, (library_package.Client, library_package.AsyncClient)):
            self.keep(found)
        return importlib.import_module(f"aurelis_{library}").wrap(client, cache=self.manager)

    def keep(self, client: Any) -> Any:
        """A client that is to be closed, too."""
        self._made.append(client)
        return client

    async def aclose(self) -> None:
        """Close all."""
        for client in self._made:
            if hasattr(client, "aclose"):
                await client.aclose()
            else:
                client.close()


@dataclass
class Plugged:
    """A client of an SDK with the cache in it.

    Attributes:
        client: of the SDK.
        blocking: it has no event loop.
    """

    client: Any
    blocking: bool


class SdkContract:
    """Tests of one SDK. A class derived from it tells how to plug in and how to call.

    Attributes:
        wire: what the server speaks.
        modes: with an event loop, without one, or both.
        streams: whether the SDK reads streams of this operation.
        wholes: whether it reads whole answers.
        items: of how many things a call asks for the embeddings, each of which is loaded by itself; 1 for other calls.
        another_model: one that the SDK knows, beside that of the wire.
    """

    wire: ClassVar[Wire]
    modes: ClassVar[tuple[str, ...]] = (ASYNC, SYNC)
    streams: ClassVar[bool] = True
    wholes: ClassVar[bool] = True
    items: ClassVar[int] = 1
    another_model: ClassVar[str] = "another-model"

    # --- to be told

    def plug(self, clients: Clients, url: str, mode: str, key: str) -> Any:
        """A client of the SDK, of this mode, for a server at this URL, with this API key, that does not retry."""
        raise NotImplementedError

    def wrapped(self, clients: Clients, url: str, mode: str, key: str) -> Any:
        """The same, with the cache put into a client that the SDK has made by itself."""
        raise NotImplementedError

    async def ask(self, client: Any, text: str, model: str, *, stream: bool) -> Any:
        """One call, read to its end: what the SDK makes of the answer, or the list of that for each chunk."""
        raise NotImplementedError

    def ask_blocking(self, client: Any, text: str, model: str, *, stream: bool) -> Any:
        """The same for a client without an event loop."""
        raise NotImplementedError

    # --- the tests

    async def call(self, plugged: Plugged, text: str = "Hello", model: str = "", *, stream: bool = False) -> Any:
        """One call of either mode."""
        model = model or str(self.wire.body.get("model", "gemini-2.5-flash"))
        if plugged.blocking:
            return await in_thread(partial(self.ask_blocking, plugged.client, text, model, stream=stream))
        return await self.ask(plugged.client, text, model, stream=stream)

    @pytest.fixture
    def plugged(self, clients: Clients, upstream: Upstream, mode: str) -> Plugged:
        """The client that most tests need."""
        return self.another(clients, upstream, mode)

    def another(self, clients: Clients, upstream: Upstream, mode: str, key: str = "sk-one") -> Plugged:
        """One more client."""
        return Plugged(self.plug(clients, upstream.url, mode, key), mode == SYNC)

    async def test_the_second_identical_call_is_answered_from_the_cache(
        self, plugged: Plugged, upstream: Upstream, stream: bool
    ) -> None:
        upstream.answer = Model(self.wire)
        first = await self.call(plugged, stream=stream)
        assert first
        assert upstream.calls == 1
        assert await self.call(plugged, stream=stream) == first
        assert upstream.calls == 1

    async def test_a_client_that_is_there_already_is_wrapped(
        self, clients: Clients, upstream: Upstream, mode: str, stream: bool
    ) -> None:
        upstream.answer = Model(self.wire)
        plugged = Plugged(self.wrapped(clients, upstream.url, mode, "sk-one"), mode == SYNC)
        first = await self.call(plugged, stream=stream)
        assert first
        assert await self.call(plugged, stream=stream) == first
        assert upstream.calls == 1
        await self.call(plugged, "Goodbye", stream=stream)
        assert upstream.calls == 2

    async def test_each_call_is_counted_once(
        self, plugged: Plugged, upstream: Upstream, manager: CacheManager, stream: bool
    ) -> None:
        upstream.answer = Model(self.wire)
        for _ in range(3):
            await self.call(plugged, stream=stream)
        counted = requests(manager)
        assert {name: number for name, number in counted.items() if name != "loads"} == {"miss": 1, "hit l1": 2}

    async def test_another_text_or_model_is_another_call(
        self, plugged: Plugged, upstream: Upstream, stream: bool
    ) -> None:
        upstream.answer = Model(self.wire)
        await self.call(plugged, stream=stream)
        await self.call(plugged, "Goodbye", stream=stream)
        assert upstream.calls == 2
        await self.call(plugged, model=self.another_model, stream=stream)
        assert upstream.calls == 3

    async def test_another_key_is_another_caller(
        self, clients: Clients, upstream: Upstream, mode: str, stream: bool
    ) -> None:
        upstream.answer = Model(self.wire)
        for key in ("sk-one", "sk-two"):
            client = self.another(clients, upstream, mode, key)
            await self.call(client, stream=stream)
            await self.call(client, stream=stream)
        assert upstream.calls == 2

    async def test_options_reach_through_to_the_transport(
        self, plugged: Plugged, upstream: Upstream, stream: bool
    ) -> None:
        upstream.answer = Model(self.wire)
        with cache_options(bypass=True):
            await self.call(plugged, stream=stream)
        await self.call(plugged, stream=stream)
        with cache_options(refresh=True):
            await self.call(plugged, stream=stream)
        with cache_options(namespace="other"):
            await self.call(plugged, stream=stream)
        assert upstream.calls == 4

    @pytest.mark.parametrize("fault", ["drop", "error", "unterminated", "length", "filtered"])
    async def test_what_is_not_whole_is_not_stored(
        self, plugged: Plugged, upstream: Upstream, stream: bool, fault: str
    ) -> None:
        if not self._can(fault, stream=stream):
            return
        upstream.answer = Model(self.wire, frozenset({fault}))
        await self._in_spite(plugged, stream=stream)
        upstream.answer = Model(self.wire)
        before = upstream.calls
        good = await self.call(plugged, stream=stream)
        assert upstream.calls == before + 1
        assert await self.call(plugged, stream=stream) == good
        assert upstream.calls == before + 1

    def _can(self, fault: str, *, stream: bool) -> bool:
        wire = self.wire
        if fault in ("error", "unterminated"):
            return stream
        if fault == "length":
            return bool(wire.length) and (stream or wire.cut is not None)
        return fault == "drop" or (bool(wire.filtered) and (stream or wire.cut is not None))

    async def _in_spite(self, plugged: Plugged, *, stream: bool) -> None:
        with contextlib.suppress(Exception):  # what each SDK makes of it is its own affair
            await self.call(plugged, stream=stream)

    @pytest.mark.parametrize("manner", ["gzip", "bytes", "clumps", "large"])
    async def test_however_it_comes_it_is_replayed_so(
        self, plugged: Plugged, upstream: Upstream, stream: bool, manner: str
    ) -> None:
        upstream.answer = Model(self.wire, frozenset({manner}))
        first = await self.call(plugged, stream=stream)
        assert await self.call(plugged, stream=stream) == first
        assert upstream.calls == 1

    async def test_a_busy_upstream_is_not_remembered(self, plugged: Plugged, upstream: Upstream, stream: bool) -> None:
        upstream.answer = Model(self.wire, frozenset({"busy"}))  # 429, the first time
        await self._in_spite(plugged, stream=stream)
        good = await self.call(plugged, stream=stream)
        assert upstream.calls == 2
        assert await self.call(plugged, stream=stream) == good
        assert upstream.calls == 2

    async def test_many_identical_calls_at_once_ask_once(
        self, plugged: Plugged, upstream: Upstream, manager: CacheManager, stream: bool
    ) -> None:
        gate, number = Gate(), 20 if plugged.blocking else 50  # each that blocks needs a thread
        upstream.answer = Model(self.wire, gate=gate)
        calls = [asyncio.create_task(self.call(plugged, stream=stream)) for _ in range(number)]
        await upstream.arrived.happened()
        flights = manager._engine.flights
        await eventually(lambda: flights.waiting == self.items * (number - 1))
        gate.open()
        answers = await asyncio.gather(*calls)
        assert upstream.calls == 1
        assert all(answer == answers[0] for answer in answers)


def dumped(values: Iterable[Any]) -> list[Any]:
    """What pydantic's models hold."""
    return [value.model_dump(mode="json") for value in values]


class SdkPage:
    """The blocks of a page run. A class derived from it is one page.

    Attributes:
        sdk: the page is `docs/sdks/SDK.md`.
    """

    sdk: ClassVar[str]

    def test_a_block_of_its_page_runs(self, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        run_block(page_of(self.sdk), line, tmp_path, monkeypatch)
