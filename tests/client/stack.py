"""One way of calling for both libraries, with and without an event loop."""

import asyncio
import contextlib
import importlib
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import openai

from aurelis.cache import CacheManager
from tests.models.examples import chat

T = TypeVar("T")
_THREADS = ThreadPoolExecutor(32)  # asyncio's own has fewer than some tests have callers


async def in_thread(function: Callable[..., T], *args: Any, thread: ThreadPoolExecutor = _THREADS) -> T:
    """Call what blocks."""
    return await asyncio.get_running_loop().run_in_executor(thread, partial(function, *args))


KINDS = [f"{library}-{mode}" for library in ("httpx2", "httpx") for mode in ("sync", "async")]


@dataclass
class Received:
    """A response read to its end.

    Attributes:
        chunks: of the body, as the caller got them.
    """

    status: int
    headers: dict[str, str]
    chunks: list[bytes]
    request: object

    @property
    def body(self) -> bytes:
        """The whole body."""
        return b"".join(self.chunks)

    @property
    def cache_status(self) -> str:
        """What the cache said about it; empty: nothing."""
        return self.headers.get("cache-status", "")

    @property
    def is_hit(self) -> bool:
        """Whether it came out of the cache."""
        return "; hit" in self.cache_status


class Opened:
    """A response whose body is read step by step.

    Args:
        response: of either library.
        thread: the one that asked for it and does the rest; `None`: the event loop does.
    """

    def __init__(self, response: Any, thread: ThreadPoolExecutor | None) -> None:
        self.response = response
        self._thread = thread
        self._chunks: Any = response.aiter_bytes() if thread is None else response.iter_bytes()

    async def chunk(self) -> bytes | None:
        """The next chunk; `None`: it was the last."""
        if self._thread is None:
            return await anext(self._chunks, None)
        return await in_thread(next, self._chunks, None, thread=self._thread)

    async def rest(self) -> list[bytes]:
        """All chunks that are left."""
        chunks = []
        while (chunk := await self.chunk()) is not None:
            chunks.append(chunk)
        return chunks

    async def close(self) -> None:
        """Let go of it."""
        if self._thread is None:
            await self._chunks.aclose()
            await self.response.aclose()
        else:
            await in_thread(self.response.close, thread=self._thread)
            self._thread.shutdown(wait=False)


class Stack:
    """Makes clients of one library and one mode; all are closed in the end. What blocks runs in threads."""

    def __init__(self, kind: str, manager: CacheManager) -> None:
        self.library_name, mode = kind.split("-")
        self.blocking = mode == "sync"
        # Any: the two libraries have the same names, and no type in common.
        self.library: Any = importlib.import_module(self.library_name)
        self.package: Any = importlib.import_module(f"aurelis_{self.library_name}")
        self.manager = manager
        self._clients: list[Any] = []
        self._default: Any = None

    def network(self, **options: Any) -> Any:
        """The library's own transport."""
        make = self.library.HTTPTransport if self.blocking else self.library.AsyncHTTPTransport
        # To read the certificates of the system takes longer than most tests.
        return make(**{"verify": False, **options})

    def transport(self, inner: object = None, **options: Any) -> Any:
        """A transport over the manager of this test."""
        if inner is None:
            inner = self.network()
        name = "CacheTransport" if self.blocking else "AsyncCacheTransport"
        return getattr(self.package, name)(inner, **{"cache": self.manager, **options})

    def mock(self, handler: Callable[..., Any]) -> Any:
        """An inner transport without a network."""
        return self.library.MockTransport(handler)

    def client(self, transport: object = None, settings: Mapping[str, Any] | None = None, **options: Any) -> Any:
        """A client of the library; `settings` are its own."""
        transport = self.transport(**options) if transport is None else transport
        return self.keep(self.maker(**{"transport": transport, "timeout": 10, **(settings or {})}))

    @property
    def maker(self) -> Any:
        """The library's class of clients."""
        return self.library.Client if self.blocking else self.library.AsyncClient

    def keep(self, client: Any) -> Any:
        """The client, which is closed in the end."""
        self._clients.append(client)
        return client

    async def aclose(self) -> None:
        """Close all clients."""
        for client in self._clients:
            if self.blocking:
                client.close()
            else:
                await client.aclose()

    # Plain requests

    async def send(self, method: str, url: str, *, client: Any = None, **request: Any) -> Received:
        """Send one request and read its response chunk by chunk."""
        opened = await self.open(method, url, client=client, **request)
        try:
            chunks = await opened.rest()
        finally:
            await opened.close()
        response = opened.response
        return Received(response.status_code, dict(response.headers), chunks, response.request)

    async def get(self, url: str, **request: Any) -> Received:
        """`send` a GET."""
        return await self.send("GET", url, **request)

    async def request(self, method: str, url: str, *, client: Any, **request: Any) -> Any:
        """The library's own response, as the client's method gives it."""
        if self.blocking:
            return await in_thread(lambda: client.request(method, url, **request))
        return await client.request(method, url, **request)

    async def open(self, method: str, url: str, *, client: Any = None, **request: Any) -> Opened:
        """Send one request and leave its body unread."""
        if client is None:
            if self._default is None:
                self._default = self.client()
            client = self._default
        built = client.build_request(method, url, **request)
        if not self.blocking:
            return Opened(await client.send(built, stream=True), None)
        thread = ThreadPoolExecutor(1)  # one of its own: a thread does not wait for what itself has to read
        return Opened(await in_thread(lambda: client.send(built, stream=True), thread=thread), thread)

    # Model calls through the official SDK

    def sdk(self, url: str, *, api_key: str = "sk-one", max_retries: int = 0, **options: Any) -> Any:
        """A client of the SDK, which accepts clients of both libraries."""
        make = openai.OpenAI if self.blocking else openai.AsyncOpenAI
        http_client = self.client(**options)
        return make(api_key=api_key, base_url=f"{url}/v1", http_client=http_client, max_retries=max_retries)

    async def ask(self, sdk: Any, **changes: Any) -> list[dict[str, Any]]:
        """One call, read to its end: the fields of the answer, or of each chunk of a stream."""
        extra = {name: changes.pop(name) for name in ("extra_body", "extra_headers") if name in changes}
        create = sdk.chat.completions.create
        if self.blocking:
            return await in_thread(lambda: _dumped(create(**chat(**changes), **extra)))
        answer = await create(**chat(**changes), **extra)
        if changes.get("stream"):
            return [chunk.model_dump() async for chunk in answer]
        return [answer.model_dump()]


def _dumped(answer: Any) -> list[dict[str, Any]]:
    if isinstance(answer, openai.Stream):
        return [chunk.model_dump() for chunk in answer]
    return [answer.model_dump()]


@contextlib.asynccontextmanager
async def closing(stack: Stack) -> AsyncIterator[Stack]:
    """The stack, closed in the end."""
    try:
        yield stack
    finally:
        await stack.aclose()
