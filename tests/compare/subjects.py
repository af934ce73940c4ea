"""The caches that are compared, each behind the same few calls."""

from __future__ import annotations

import importlib
import os
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, ClassVar

from openai import AsyncOpenAI

from aurelis.cache import CacheConfig, CacheManager

Piece = tuple[tuple[tuple[str, tuple[Any, ...], str | None], ...], int | None]
"""An answer or one chunk of a stream: text, calls of tools and why it ended of each choice, and the tokens used."""


class Subject:
    """A cache between an app and a provider.

    Attributes:
        name: what stands above its column.
        packages: whose versions are told.
    """

    name: ClassVar[str]
    packages: ClassVar[tuple[str, ...]]

    async def open(self) -> None:
        """Begin with nothing stored."""

    async def aclose(self) -> None:
        """Let go of everything."""

    async def chat(
        self, url: str, *, key: str = "sk-one", headers: Mapping[str, str] | None = None, **body: Any
    ) -> list[Piece]:
        """A chat completion, read to its end."""
        body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}], **body}
        answer = await self._chat(url, key, {**body, **({"extra_headers": headers} if headers else {})})
        if not body.get("stream"):
            return [_piece(answer, "message")]
        return [_piece(chunk, "delta") async for chunk in answer]

    async def begin(self, url: str, **body: Any) -> None:
        """A streamed chat completion that is left after its first chunk."""
        body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}], **body}
        answer = await self._chat(url, "sk-one", {**body, "stream": True})
        chunks: AsyncIterator[Any] = aiter(answer)
        await anext(chunks)
        close: Callable[[], Any] | None = getattr(answer, "close", None) or getattr(answer, "aclose", None)
        if close is not None:
            await close()

    async def respond(self, url: str, **body: Any) -> str:
        """A call of the Responses API."""
        answer = await self._respond(url, {"model": "gpt-4o-mini", "input": "Hello", **body})
        return str(answer.output_text)

    async def embed(self, url: str, *texts: str) -> list[list[float]]:
        """The embeddings of texts, in one call."""
        call = {"model": "text-embedding-3-small", "input": list(texts), "encoding_format": "float"}
        answer = await self._embed(url, call)
        return [entry["embedding"] if isinstance(entry, dict) else entry.embedding for entry in answer.data]

    async def _chat(self, url: str, key: str, call: dict[str, Any]) -> Any:
        raise NotImplementedError

    async def _respond(self, url: str, call: dict[str, Any]) -> Any:
        raise NotImplementedError

    async def _embed(self, url: str, call: dict[str, Any]) -> Any:
        raise NotImplementedError


def _piece(answer: Any, member: str) -> Piece:
    choices = []
    for choice in answer.choices:
        message = getattr(choice, member)
        tools = tuple((tool.id, tool.function.name, tool.function.arguments) for tool in message.tool_calls or ())
        choices.append((message.content or "", tools, choice.finish_reason))
    usage = getattr(answer, "usage", None)
    return tuple(choices), None if usage is None else usage.total_tokens


class _OverTransport(Subject):
    """OpenAI's SDK over a transport with a cache."""

    def __init__(self) -> None:
        self._clients: list[AsyncOpenAI] = []

    def transport(self, network: Any) -> Any:
        """The cache over the network."""
        raise NotImplementedError

    async def open(self) -> None:
        httpx2 = importlib.import_module("httpx2")
        self._http_client = httpx2.AsyncClient(transport=self.transport(httpx2.AsyncHTTPTransport()), timeout=10)

    async def aclose(self) -> None:
        await self._http_client.aclose()

    def _client(self, url: str, key: str = "sk-one") -> AsyncOpenAI:
        return AsyncOpenAI(api_key=key, base_url=f"{url}/v1", http_client=self._http_client, max_retries=0)

    async def _chat(self, url: str, key: str, call: dict[str, Any]) -> Any:
        return await self._client(url, key).chat.completions.create(**call)

    async def _respond(self, url: str, call: dict[str, Any]) -> Any:
        return await self._client(url).responses.create(**call)

    async def _embed(self, url: str, call: dict[str, Any]) -> Any:
        return await self._client(url).embeddings.create(**call)


class Aurelis(_OverTransport):
    """This one."""

    name = "aurelis-cache"
    packages = ("aurelis-cache",)

    def transport(self, network: Any) -> Any:
        self._cache = CacheManager(CacheConfig(name="probes"))
        return importlib.import_module("aurelis_httpx2").AsyncCacheTransport(network, cache=self._cache)

    async def aclose(self) -> None:
        await super().aclose()
        await self._cache.aclose()


class Hishel(_OverTransport):
    """hishel as it is by default."""

    name = "hishel"
    packages = ("hishel",)
    rfc: ClassVar[Any] = False

    def transport(self, network: Any) -> Any:
        hishel, library = importlib.import_module("hishel"), importlib.import_module("hishel.httpx2")
        storage = hishel.AsyncSqliteStorage(database_path=":memory:")
        return library.AsyncCacheTransport(network, storage=storage, rfc=self.rfc)


class HishelPost(Hishel):
    """hishel by the rules of HTTP, told to cache POST for one user."""

    name = "hishel, POST"
    rfc: ClassVar[Any] = {"supported_methods": ["GET", "HEAD", "POST"], "shared": False}


class LiteLLM(Subject):
    """LiteLLM's own cache in memory."""

    name = "LiteLLM"
    packages = ("litellm",)
    _litellm: Any = None

    async def open(self) -> None:
        os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # it would fetch one
        self._litellm = importlib.import_module("litellm")
        self._litellm.cache = self._litellm.Cache(type="local")
        self._litellm.suppress_debug_info = True

    async def aclose(self) -> None:
        self._litellm.cache = None

    def _options(self, url: str, call: dict[str, Any], key: str = "sk-one") -> dict[str, Any]:
        model = f"openai/{call['model']}"
        return {**call, "model": model, "api_key": key, "api_base": f"{url}/v1", "max_retries": 0, "num_retries": 0}

    async def _chat(self, url: str, key: str, call: dict[str, Any]) -> Any:
        return await self._litellm.acompletion(**self._options(url, call, key))

    async def _respond(self, url: str, call: dict[str, Any]) -> Any:
        return await self._litellm.aresponses(**self._options(url, call))

    async def _embed(self, url: str, call: dict[str, Any]) -> Any:
        return await self._litellm.aembedding(**self._options(url, call))


SUBJECTS: tuple[type[Subject], ...] = (Aurelis, LiteLLM, Hishel, HishelPost)
