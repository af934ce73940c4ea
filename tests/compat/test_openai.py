"""OpenAI's SDK: chat, responses, embeddings, and Azure's addresses."""

from __future__ import annotations

from typing import Any

import openai

from tests.compat.contract import ASYNC, Clients, SdkContract, SdkPage, TextContract
from tests.compat.questions import FEATURES, Question, said_as_chat, said_as_response
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

    def arguments(self, question: Question) -> dict[str, Any]:
        """What it is called with."""
        return said_as_chat(question)

    def begin(self, client: Any, question: Question, model: str, *, stream: bool, blocking: bool) -> Any:
        streamed = {"stream": True} if stream else {}
        return self.create(client)(model=model, **self.arguments(question), **streamed)


class TestChat(OpenAIContract, TextContract):
    wire = WIRES["OPENAI_CHAT"]
    features = FEATURES

    def create(self, client: Any) -> Any:
        return client.chat.completions.create


class TestResponses(OpenAIContract, TextContract):
    wire = WIRES["RESPONSES"]
    features = FEATURES

    def create(self, client: Any) -> Any:
        return client.responses.create

    def arguments(self, question: Question) -> dict[str, Any]:
        return said_as_response(question)


class TestEmbeddings(OpenAIContract):
    wire = WIRES["EMBEDDINGS"]
    items = 2
    streams = False

    def create(self, client: Any) -> Any:
        return client.embeddings.create

    def arguments(self, question: Question) -> dict[str, Any]:
        return {"input": [question.text, f"{question.text} again"], "encoding_format": "float"}


class TestAzure(OpenAIContract, TextContract):
    wire = WIRES["AZURE"]
    features = FEATURES

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
