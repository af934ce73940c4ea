"""LlamaIndex's classes for OpenAI, which stand on an older release of OpenAI's SDK, and so on httpx."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from llama_index.core.llms import ChatMessage
from llama_index.embeddings.openai import OpenAIEmbedding
from llama_index.llms.openai import OpenAI

from tests.client.upstream import Upstream
from tests.compat.contract import ASYNC, SYNC, Clients, SdkContract, SdkPage
from tests.models.wire import WIRES


def options(clients: Clients, url: str, key: str) -> dict[str, Any]:
    """What both classes take."""
    return {
        "api_key": key,
        "api_base": f"{url}/v1",
        "http_client": clients.make(SYNC, "httpx"),
        "async_http_client": clients.make(ASYNC, "httpx"),
        "max_retries": 0,
    }


def comparable(response: Any) -> Any:
    """The text, what it adds to the last, and all that came from the model."""
    return [response.message.content, response.delta, response.raw.model_dump(mode="json")]


class TestChat(SdkContract):
    wire = WIRES["OPENAI_CHAT"]
    another_model = "gpt-4o"

    def plug(self, clients: Clients, url: str, mode: str, key: str) -> Any:
        return options(clients, url, key)

    def wrapped(self, clients: Clients, url: str, mode: str, key: str) -> Any:
        settings: Any = {"api_key": key, "base_url": f"{url}/v1", "max_retries": 0}
        return {
            "openai_client": clients.wrap(openai.OpenAI(**settings), "httpx"),
            "async_openai_client": clients.wrap(openai.AsyncOpenAI(**settings), "httpx"),
        }

    async def ask(self, client: Any, text: str, model: str, *, stream: bool) -> Any:
        llm = OpenAI(model=model, **client)
        messages = [ChatMessage(role="user", content=text)]
        if stream:
            return [comparable(part) async for part in await llm.astream_chat(messages)]
        return comparable(await llm.achat(messages))

    def ask_blocking(self, client: Any, text: str, model: str, *, stream: bool) -> Any:
        llm = OpenAI(model=model, **client)
        messages = [ChatMessage(role="user", content=text)]
        if stream:
            return [comparable(part) for part in llm.stream_chat(messages)]
        return comparable(llm.chat(messages))


class TestEmbedding(SdkContract):
    wire = WIRES["EMBEDDINGS"]
    items = 2
    streams = False

    def plug(self, clients: Clients, url: str, mode: str, key: str) -> Any:
        return options(clients, url, key)

    async def test_a_client_that_is_there_already_is_wrapped(
        self, clients: Clients, upstream: Upstream, mode: str, stream: bool
    ) -> None:
        """There is none: the first call makes it, and no parameter takes one."""
        embedding = OpenAIEmbedding(api_key="sk-one", api_base=f"{upstream.url}/v1")
        with pytest.raises(TypeError, match="found no client"):
            clients.wrap(embedding, "httpx")

    async def ask(self, client: Any, text: str, model: str, *, stream: bool) -> Any:
        return await OpenAIEmbedding(model_name=model, **client).aget_text_embedding_batch([text, f"{text} again"])

    def ask_blocking(self, client: Any, text: str, model: str, *, stream: bool) -> Any:
        return OpenAIEmbedding(model_name=model, **client).get_text_embedding_batch([text, f"{text} again"])


class TestPage(SdkPage):
    sdk = "llama-index"
