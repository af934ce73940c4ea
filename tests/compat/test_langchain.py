"""LangChain's chat models of OpenAI and Anthropic."""

from __future__ import annotations

from typing import Any

import anthropic
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import BaseMessage
from langchain_openai import ChatOpenAI, OpenAIEmbeddings

from tests.compat.contract import ASYNC, SYNC, Clients, SdkContract, SdkPage
from tests.models.wire import WIRES


def comparable(message: BaseMessage) -> Any:
    """What came from the model: LangChain gives each run an id."""
    return message.model_dump(mode="json", exclude={"id"})


class ChatContract(SdkContract):
    """All chat models are called alike; a model's name is part of it."""

    def chat(self, client: Any, model: str) -> Any:
        """The chat model of this name."""
        raise NotImplementedError

    async def ask(self, client: Any, text: str, model: str, *, stream: bool) -> Any:
        chat = self.chat(client, model) if isinstance(client, dict) else client
        if stream:
            return [comparable(chunk) async for chunk in chat.astream(text)]
        return comparable(await chat.ainvoke(text))

    def ask_blocking(self, client: Any, text: str, model: str, *, stream: bool) -> Any:
        chat = self.chat(client, model) if isinstance(client, dict) else client
        return [comparable(chunk) for chunk in chat.stream(text)] if stream else comparable(chat.invoke(text))


class TestChatOpenAI(ChatContract):
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

    def chat(self, client: Any, model: str) -> Any:
        return ChatOpenAI(model=model, **client)


class TestChatAnthropic(ChatContract):
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

    def chat(self, client: Any, model: str) -> Any:
        made: Any = ChatAnthropic(model_name=model, max_tokens_to_sample=64, api_key="unused", max_retries=0)
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

    async def ask(self, client: Any, text: str, model: str, *, stream: bool) -> Any:
        return await self._embeddings(client, model).aembed_documents([text, f"{text} again"])

    def ask_blocking(self, client: Any, text: str, model: str, *, stream: bool) -> Any:
        return self._embeddings(client, model).embed_documents([text, f"{text} again"])


class TestPage(SdkPage):
    sdk = "langchain"
