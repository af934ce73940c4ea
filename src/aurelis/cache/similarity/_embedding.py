"""An embedder over any endpoint that speaks as OpenAI's does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

from aurelis.cache._canonical import digest
from aurelis.cache._options import whole
from aurelis.cache.exceptions import ConfigurationError, EmbeddingError

OPENAI: Final = "https://api.openai.com/v1/embeddings"
_BATCH: Final = 256


class _Response(Protocol):
    @property
    def status_code(self) -> int: ...

    def json(self) -> Any: ...  # whatever the endpoint sends


class Client(Protocol):
    """What an embedder needs of an HTTP client. Those of httpx2 and httpx, the asynchronous ones, have it."""

    async def post(self, url: str, *, json: Any, headers: Mapping[str, str] | None) -> _Response:
        """Send the JSON, and read the response."""
        ...


class OpenAIEmbedder:
    """Asks an endpoint for vectors: OpenAI's, or of any server that speaks as it does (vLLM, Ollama, llama.cpp, …).

    Args:
        client: an `AsyncClient` of httpx2 or httpx, which is never closed here. It says how long to wait, and it may
            carry the credentials.
        model: its name.
        url: of the endpoint, the whole of it.
        api_key: sent as a bearer token; `None`: nothing is sent.
        dimensions: asked of models that can shorten their vectors; `None`: as the model has them.
        batch: texts in one request, ≥ 1.

    Raises:
        ConfigurationError: an argument is out of range or of the wrong kind.
    """

    def __init__(
        self,
        client: Client,
        model: str,
        *,
        url: str = OPENAI,
        api_key: str | None = None,
        dimensions: int | None = None,
        batch: int = _BATCH,
    ) -> None:
        if not model:
            raise ConfigurationError("model must be the name of a model")
        if not url.startswith(("http://", "https://")):
            raise ConfigurationError("url must begin with http:// or https://")
        if dimensions is not None:
            whole("dimensions", dimensions)
        whole("batch", batch)
        self._client = client
        self._model = model
        self._url = url
        self._headers = None if api_key is None else {"Authorization": f"Bearer {api_key}"}
        self._dimensions = dimensions
        self._batch = batch

    @property
    def name(self) -> str:
        """A digest of the endpoint, the model and the dimensions; an address may hold what nobody else is to see."""
        return digest((self._url, self._model, self._dimensions))

    async def embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        """One vector for each text, in their order.

        Raises:
            EmbeddingError: the endpoint refused, or sent something else than it should.
            Exception: as the client raises it.
        """
        vectors: list[Sequence[float]] = []
        for begin in range(0, len(texts), self._batch):
            vectors += await self._asked(list(texts[begin : begin + self._batch]))
        return vectors

    async def _asked(self, texts: list[str]) -> list[Sequence[float]]:
        body: dict[str, object] = {"model": self._model, "input": texts, "encoding_format": "float"}
        if self._dimensions is not None:
            body["dimensions"] = self._dimensions
        response = await self._client.post(self._url, json=body, headers=self._headers)
        if response.status_code != 200:
            # Its text may repeat what was sent.
            raise EmbeddingError(f"the endpoint answered with status {response.status_code}")
        try:
            items = {item["index"]: item["embedding"] for item in response.json()["data"]}
            return [items[index] for index in range(len(texts))]
        except (KeyError, TypeError, ValueError):
            raise EmbeddingError("the endpoint sent something else than a vector for each text") from None
