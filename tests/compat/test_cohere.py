"""Cohere's SDK: chat, embed and rerank of its second version."""

from __future__ import annotations

from typing import Any

import cohere

from tests.compat.contract import ASYNC, Clients, SdkContract, SdkPage, dumped
from tests.models.wire import WIRES


class CohereContract(SdkContract):
    """All operations are methods of one client."""

    def plug(self, clients: Clients, url: str, mode: str, key: str) -> Any:
        make: Any = cohere.AsyncClientV2 if mode == ASYNC else cohere.ClientV2
        return make(api_key=key, base_url=url, httpx_client=clients.make(mode, "httpx"))

    def wrapped(self, clients: Clients, url: str, mode: str, key: str) -> Any:
        make: Any = cohere.AsyncClientV2 if mode == ASYNC else cohere.ClientV2
        return clients.wrap(make(api_key=key, base_url=url), "httpx")

    def _call(self, client: Any, text: str, model: str, stream: bool) -> Any:
        raise NotImplementedError

    async def ask(self, client: Any, text: str, model: str, *, stream: bool) -> Any:
        answer = self._call(client, text, model, stream)
        return dumped([event async for event in answer]) if stream else dumped([await answer])

    def ask_blocking(self, client: Any, text: str, model: str, *, stream: bool) -> Any:
        answer = self._call(client, text, model, stream)
        return dumped(answer) if stream else dumped([answer])


class TestChat(CohereContract):
    wire = WIRES["COHERE"]

    def _call(self, client: Any, text: str, model: str, stream: bool) -> Any:
        return (client.chat_stream if stream else client.chat)(
            model=model, messages=[{"role": "user", "content": text}]
        )


class TestEmbed(CohereContract):
    wire = WIRES["COHERE_EMBED"]
    streams = False

    def _call(self, client: Any, text: str, model: str, stream: bool) -> Any:
        return client.embed(model=model, texts=[text], input_type="search_query", embedding_types=["float"])


class TestRerank(CohereContract):
    wire = WIRES["COHERE_RERANK"]
    streams = False

    def _call(self, client: Any, text: str, model: str, stream: bool) -> Any:
        return client.rerank(model=model, query=text, documents=["a", "b"], top_n=1)


class TestPage(SdkPage):
    sdk = "cohere"
