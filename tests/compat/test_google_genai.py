"""Google's SDK for Gemini, with the Developer API and with addresses of Vertex AI."""

from __future__ import annotations

from typing import Any

import pytest
from google import genai
from google.genai import types

from tests.client.upstream import Upstream
from tests.compat.contract import ASYNC, Clients, SdkContract, SdkPage, dumped
from tests.models.wire import WIRES


def client_of(clients: Clients, url: str, mode: str, key: str) -> Any:
    """A client that keeps its own time-outs and limits, over a transport with a cache."""
    options = types.HttpOptions(
        base_url=url,
        client_args={"transport": clients.keep(clients.transport("sync"))},
        async_client_args={"transport": clients.keep(clients.transport(ASYNC))},
    )
    return genai.Client(api_key=key, http_options=options)


class GeminiContract(SdkContract):
    """One client has both modes."""

    def plug(self, clients: Clients, url: str, mode: str, key: str) -> Any:
        return client_of(clients, url, mode, key)

    async def test_a_client_that_is_there_already_is_wrapped(
        self, clients: Clients, upstream: Upstream, mode: str, stream: bool
    ) -> None:
        """It is refused: the SDK makes a client of its own for each event loop, which would have no cache."""
        client = genai.Client(api_key="sk-one", http_options=types.HttpOptions(base_url=upstream.url))
        with pytest.raises(TypeError, match="found no client"):
            clients.wrap(client)


class TestGenerate(GeminiContract):
    wire = WIRES["GEMINI"]

    async def ask(self, client: Any, text: str, model: str, *, stream: bool) -> Any:
        if stream:
            answer = await client.aio.models.generate_content_stream(model=model, contents=text)
            return [chunk.model_dump(mode="json", exclude={"sdk_http_response"}) async for chunk in answer]
        answer = await client.aio.models.generate_content(model=model, contents=text)
        return answer.model_dump(mode="json", exclude={"sdk_http_response"})

    def ask_blocking(self, client: Any, text: str, model: str, *, stream: bool) -> Any:
        if stream:
            answer = client.models.generate_content_stream(model=model, contents=text)
            return [chunk.model_dump(mode="json", exclude={"sdk_http_response"}) for chunk in answer]
        answer = client.models.generate_content(model=model, contents=text)
        return answer.model_dump(mode="json", exclude={"sdk_http_response"})


class TestEmbeddings(GeminiContract):
    wire = WIRES["GEMINI_EMBEDS"]
    streams = False

    async def ask(self, client: Any, text: str, model: str, *, stream: bool) -> Any:
        answer = await client.aio.models.embed_content(model=model, contents=[text])
        return dumped(answer.embeddings)

    def ask_blocking(self, client: Any, text: str, model: str, *, stream: bool) -> Any:
        return dumped(client.models.embed_content(model=model, contents=[text]).embeddings)


class TestPage(SdkPage):
    sdk = "google-genai"
