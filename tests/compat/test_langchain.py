"""LangChain's chat models of OpenAI and Anthropic."""

from __future__ import annotations

from typing import Any

import anthropic
from langchain_anthropic import ChatAnthropic
from langchain_openai import ChatOpenAI, OpenAIEmbeddings

from tests.compat.contract import ASYNC, SYNC, Clients, SdkContract, SdkPage
from tests.compat.langchain_models import ChatModelContract
from tests.compat.questions import Question
from tests.models.wire import WIRES


class TestChatOpenAI(ChatModelContract):
    wire = WIRES["OPENAI_CHAT"]

    def plug(self, clients: Clients, url: str, mode: str, key: str) -> Any:
        return {
            "api_key": key,
            "base_url": f"{url}/v1",
            "http_client": clients.make(SYNC),
            "http_async_client": clients.make(ASYNC),
            "max_retries": 0,
        }

    def wrapped(self, clients: Clients, url: str, mode: str, key: str) -> Any:
        return clients.wrap(ChatOpenAI(model="gpt-4o-mini", api_key=key, base_url=f"{url}/v1", max_retries=0))

    def chat(self, client: Any, model: str, **settings: Any) -> Any:
        return ChatOpenAI(model=model, **client, **settings)


class TestChatAnthropic(ChatModelContract):
    wire = WIRES["ANTHROPIC"]

    def plug(self, clients: Clients, url: str, mode: str, key: str) -> Any:
        options: Any = {"api_key": key, "base_url": url, "max_retries": 0}
        return {
            "_client": anthropic.Anthropic(http_client=clients.make(SYNC), **options),
            "_async_client": anthropic.AsyncAnthropic(http_client=clients.make(ASYNC), **options),
        }

    def wrapped(self, clients: Clients, url: str, mode: str, key: str) -> Any:
        chat: Any = ChatAnthropic(
            model_name="claude", max_tokens_to_sample=64, api_key=key, base_url=url, max_retries=0
        )
        clients.wrap(chat._async_client if mode == ASYNC else chat._client)  # they are made when they are asked for
        return chat

    def chat(self, client: Any, model: str, **settings: Any) -> Any:
        made: Any = ChatAnthropic(
            model_name=model, max_tokens_to_sample=64, api_key="unused", max_retries=0, **settings
        )
        made.__dict__.update(client)  # it has no parameter for them
        return made


class TestOpenAIEmbeddings(SdkContract):
    wire = WIRES["EMBEDDINGS"]
    items = 2
    streams = False

    def plug(self, clients: Clients, url: str, mode: str, key: str) -> Any:
        return {
            "api_key": key,
            "base_url": f"{url}/v1",
            "http_client": clients.make(SYNC),
            "http_async_client": clients.make(ASYNC),
            "max_retries": 0,
            "check_embedding_ctx_length": False,
        }

    def wrapped(self, clients: Clients, url: str, mode: str, key: str) -> Any:
        embeddings: Any = OpenAIEmbeddings(
            model="m", api_key=key, base_url=f"{url}/v1", max_retries=0, check_embedding_ctx_length=False
        )
        return clients.wrap(embeddings)

    def _embeddings(self, client: Any, model: str) -> Any:
        return OpenAIEmbeddings(model=model, **client) if isinstance(client, dict) else client

    def begin(self, client: Any, question: Question, model: str, *, stream: bool, blocking: bool) -> Any:
        texts = [question.text, f"{question.text} again"]
        embeddings = self._embeddings(client, model)
        return embeddings.embed_documents(texts) if blocking else embeddings.aembed_documents(texts)

    def shown(self, part: Any) -> Any:
        return part


class TestPage(SdkPage):
    sdk = "langchain"
