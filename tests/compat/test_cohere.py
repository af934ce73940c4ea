"""Cohere's SDK: chat, embed and rerank of its second version."""

from __future__ import annotations

from typing import Any

import cohere

from tests.compat.contract import ASYNC, Clients, SdkContract, SdkPage, TextContract
from tests.compat.questions import FEATURES, Question, said_as_chat
from tests.models.wire import WIRES


class CohereContract(SdkContract):
    """All operations are methods of one client."""

    def plug(self, clients: Clients, url: str, mode: str, key: str) -> Any:
        make: Any = cohere.AsyncClientV2 if mode == ASYNC else cohere.ClientV2
        return make(api_key=key, base_url=url, httpx_client=clients.make(mode, "httpx"))

    def wrapped(self, clients: Clients, url: str, mode: str, key: str) -> Any:
        make: Any = cohere.AsyncClientV2 if mode == ASYNC else cohere.ClientV2
        return clients.wrap(make(api_key=key, base_url=url), "httpx")


class TestChat(CohereContract, TextContract):
    wire = WIRES["COHERE"]
    features = FEATURES

    def begin(self, client: Any, question: Question, model: str, *, stream: bool, blocking: bool) -> Any:
        call = said_as_chat(question)
        if question.shape is not None:
            call["response_format"] = {"type": "json_object", "json_schema": question.shape}
        return (client.chat_stream if stream else client.chat)(model=model, **call)


class TestEmbed(CohereContract):
    wire = WIRES["COHERE_EMBED"]
    streams = False

    def begin(self, client: Any, question: Question, model: str, *, stream: bool, blocking: bool) -> Any:
        return client.embed(model=model, texts=[question.text], input_type="search_query", embedding_types=["float"])


class TestRerank(CohereContract):
    wire = WIRES["COHERE_RERANK"]
    streams = False

    def begin(self, client: Any, question: Question, model: str, *, stream: bool, blocking: bool) -> Any:
        return client.rerank(model=model, query=question.text, documents=["a", "b"], top_n=1)


class TestPage(SdkPage):
    sdk = "cohere"
