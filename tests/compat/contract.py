"""What holds for each SDK, once the cache is plugged into it: the same tests for all of them."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import inspect
import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pytest

from aurelis.cache import CacheManager, cache_options
from aurelis.cache.client import find_clients
from tests.client.model_server import Model
from tests.client.upstream import Gate, Upstream
from tests.compat.answers import FINAL, Actor
from tests.compat.questions import FEATURES, UNLIKE, WITH, Question
from tests.conftest import ROOT
from tests.docs.blocks import page_of, run_block
from tests.managers import eventually, is_settled, requests
from tests.models.wire import Wire

T = TypeVar("T")
AT_ONCE = 50
_THREADS = ThreadPoolExecutor(AT_ONCE)
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

    def transport(self, mode: str, library: str = "httpx2", **options: Any) -> Any:
        """A transport with a cache."""
        package = importlib.import_module(f"aurelis_{library}")
        return (package.AsyncCacheTransport if mode == ASYNC else package.CacheTransport)(cache=self.manager, **options)

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
        features: of `FEATURES`: what a call of this operation may have beside a text.
        held: how many of a stream's last chunks the SDK leaves to come, because it knows that it has all.
    """

    wire: ClassVar[Wire]
    modes: ClassVar[tuple[str, ...]] = (ASYNC, SYNC)
    streams: ClassVar[bool] = True
    wholes: ClassVar[bool] = True
    items: ClassVar[int] = 1
    another_model: ClassVar[str] = "another-model"
    features: ClassVar[tuple[str, ...]] = ()
    held: ClassVar[int] = 1

    # --- to be told

    def plug(self, clients: Clients, url: str, mode: str, key: str) -> Any:
        """A client of the SDK, of this mode, for a server at this URL, with this API key, that does not retry."""
        raise NotImplementedError

    def wrapped(self, clients: Clients, url: str, mode: str, key: str) -> Any:
        """The same, with the cache put into a client that the SDK has made by itself."""
        raise NotImplementedError

    def begin(self, client: Any, question: Question, model: str, *, stream: bool, blocking: bool) -> Any:
        """Call: the answer, or what its chunks are got from; each of it, or both, may have to be awaited."""
        raise NotImplementedError

    def shown(self, part: Any) -> Any:
        """What came from the model, of an answer or of a chunk."""
        return part.model_dump(mode="json")

    # --- what few need to tell

    async def ask(self, client: Any, question: Question, model: str, *, stream: bool) -> Any:
        """One call, read to its end: what the SDK makes of the answer, or the list of that for each chunk."""
        answer = self.begin(client, question, model, stream=stream, blocking=False)
        if inspect.isawaitable(answer):
            answer = await answer
        return [self.shown(part) async for part in answer] if stream else self.shown(answer)

    def ask_blocking(self, client: Any, question: Question, model: str, *, stream: bool) -> Any:
        """The same for a client without an event loop."""
        answer = self.begin(client, question, model, stream=stream, blocking=True)
        return [self.shown(part) for part in answer] if stream else self.shown(answer)

    # --- the tests

    async def call(
        self, plugged: Plugged, asked: str | Question = "Hello", model: str = "", *, stream: bool = False
    ) -> Any:
        """One call of either mode."""
        question = Question(asked) if isinstance(asked, str) else asked
        model = model or str(self.wire.body.get("model", "gemini-2.5-flash"))
        if plugged.blocking:
            return await in_thread(partial(self.ask_blocking, plugged.client, question, model, stream=stream))
        return await self.ask(plugged.client, question, model, stream=stream)

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
        self, plugged: Plugged, upstream: Upstream, manager: CacheManager, stream: bool, fault: str
    ) -> None:
        if not self._can(fault, stream=stream):
            return
        upstream.answer = Model(self.wire, frozenset({fault}))
        await self._in_spite(plugged, stream=stream)
        # Some SDKs leave what has failed unread, and who comes before it is gone would share it.
        gc.collect()
        with contextlib.suppress(AssertionError):
            await eventually(lambda: is_settled(manager), within=1)
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
        gate = Gate()
        upstream.answer = Model(self.wire, gate=gate, held=self.held)
        calls = [asyncio.create_task(self.call(plugged, stream=stream)) for _ in range(AT_ONCE)]
        await upstream.arrived.happened()
        flights = manager._engine.flights
        await eventually(lambda: flights.waiting == self.items * (AT_ONCE - 1))
        gate.open()
        answers = await asyncio.gather(*calls)
        assert upstream.calls == 1
        assert all(answer == answers[0] for answer in answers)


class TextContract(SdkContract):
    """Tests of an operation whose answer is a text.

    Attributes:
        loops: the SDK itself calls the functions and asks again.
    """

    loops: ClassVar[bool] = False

    async def loop(self, plugged: Plugged, *, stream: bool) -> list[Any]:
        """A conversation in which the model calls a function and answers with what that gives: both answers."""
        first = await self.call(plugged, WITH["tools"], stream=stream)
        if self.loops:
            return [first]
        called = re.search(r"call_\d+", json.dumps(first))
        assert called is not None
        return [first, await self.call(plugged, replace(WITH["tools"], called=called[0]), stream=stream)]

    async def test_what_the_answer_depends_on_is_part_of_the_call(
        self, plugged: Plugged, upstream: Upstream, feature: str, stream: bool
    ) -> None:
        upstream.answer = Actor(self.wire)
        questions = [Question(), *([UNLIKE[feature]] if UNLIKE[feature] != Question() else []), WITH[feature]]
        answers = [await self.call(plugged, question, stream=stream) for question in questions]
        asked = len(questions) + (self.loops and feature == "tools")
        assert upstream.calls == asked
        assert [await self.call(plugged, question, stream=stream) for question in questions] == answers
        assert upstream.calls == asked

    async def test_a_loop_with_tools_replays_whole(self, plugged: Plugged, upstream: Upstream, stream: bool) -> None:
        """The ids of tool calls come from the answer that was kept, so the next turn is the same call again."""
        if "tools" not in self.features:
            return
        upstream.answer = Actor(self.wire)
        first = await self.loop(plugged, stream=stream)
        assert FINAL[-5:] in json.dumps(first)
        assert upstream.calls == 2
        assert await self.loop(plugged, stream=stream) == first
        assert upstream.calls == 2


class SdkPage:
    """The blocks of a page run, and it says what is tested. A class derived from it is one page.

    Attributes:
        sdk: the page is `docs/sdks/SDK.md`.
    """

    sdk: ClassVar[str]

    def test_a_block_of_its_page_runs(self, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        run_block(page_of(self.sdk), line, tmp_path, monkeypatch)

    def test_the_table_says_what_is_tested(self) -> None:
        """Each class of this module has its row, and none is left of others; `--table` writes them."""
        table = (ROOT / "docs" / "sdk-tests.md").read_text("utf-8").splitlines()
        assert [line for line in table if line.startswith(f"| [{self.sdk}](")] == rows_of(
            self.sdk, type(self).__module__
        )


def rows_of(sdk: str, module: str) -> list[str]:
    """What is tested of an SDK, a row for each operation."""
    found = vars(importlib.import_module(module)).values()
    contracts = [one for one in found if isinstance(one, type) and issubclass(one, SdkContract)]
    return [_row_of(sdk, contract) for contract in contracts if "wire" in vars(contract)]


def _row_of(sdk: str, contract: type[SdkContract]) -> str:
    operation = contract.__name__.removeprefix("Test")
    modes = ", ".join(contract.modes)
    answers = ", ".join(["whole"] * contract.wholes + ["streamed"] * contract.streams)
    marks = " | ".join("yes" if feature in contract.features else "–" for feature in FEATURES)
    return f"| [{sdk}](sdks/{sdk}.md) | {operation} | {modes} | {answers} | {marks} |"
