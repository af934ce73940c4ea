"""OpenAI's SDK: chat, responses, embeddings, and Azure's addresses."""

from __future__ import annotations

from typing import Any

import openai

from tests.compat.contract import ASYNC, Clients, SdkContract, SdkPage, dumped
from tests.models.wire import WIRES


class OpenAIContract(SdkContract):
    """All of the SDK's operations are called alike."""

    def plug(self, clients: Clients, url: str, mode: str, key: str) -> Any:
        make: Any = openai.AsyncOpenAI if mode == ASYNC else openai.OpenAI
        return make(api_key=key, base_url=f"{url}/v1", http_client=clients.make(mode), max_retries=0)

    def wrapped(self, clients: Clients, url: str, mode: str, key: str) -> Any:
        make: Any = openai.AsyncOpenAI if mode == ASYNC else openai.OpenAI
        return clients.wrap(make(api_key=key, base_url=f"{url}/v1", max_retries=0))

    def create(self, client: Any) -> Any:
        """The method of the operation."""
        raise NotImplementedError

    def arguments(self, text: str) -> dict[str, Any]:
        """What it is called with."""
        return {"messages": [{"role": "user", "content": text}]}

    async def ask(self, client: Any, text: str, model: str, *, stream: bool) -> Any:
        answer = await self.create(client)(model=model, **self.arguments(text), **({"stream": True} if stream else {}))
        return dumped([chunk async for chunk in answer]) if stream else dumped([answer])

    def ask_blocking(self, client: Any, text: str, model: str, *, stream: bool) -> Any:
        answer = self.create(client)(model=model, **self.arguments(text), **({"stream": True} if stream else {}))
        return dumped(answer) if stream else dumped([answer])


class TestChat(OpenAIContract):
    wire = WIRES["OPENAI_CHAT"]

    def create(self, client: Any) -> Any:
        return client.chat.completions.create


class TestResponses(OpenAIContract):
    wire = WIRES["RESPONSES"]

    def create(self, client: Any) -> Any:
        return client.responses.create

    def arguments(self, text: str) -> dict[str, Any]:
        return {"input": text}


class TestEmbeddings(OpenAIContract):
    wire = WIRES["EMBEDDINGS"]
    items = 2
    streams = False

    def create(self, client: Any) -> Any:
        return client.embeddings.create

    def arguments(self, text: str) -> dict[str, Any]:
        return {"input": [text, f"{text} again"], "encoding_format": "float"}


class TestAzure(OpenAIContract):
    wire = WIRES["AZURE"]

    def plug(self, clients: Clients, url: str, mode: str, key: str) -> Any:
        make: Any = openai.AsyncAzureOpenAI if mode == ASYNC else openai.AzureOpenAI
        return make(
            api_key=key,
            azure_endpoint=url,
            api_version="2025-01-01",
            http_client=clients.make(mode),
            max_retries=0,
        )

    def wrapped(self, clients: Clients, url: str, mode: str, key: str) -> Any:
        make: Any = openai.AsyncAzureOpenAI if mode == ASYNC else openai.AzureOpenAI
        return clients.wrap(make(api_key=key, azure_endpoint=url, api_version="2025-01-01", max_retries=0))

    def create(self, client: Any) -> Any:
        return client.chat.completions.create


class TestPage(SdkPage):
    sdk = "openai"
