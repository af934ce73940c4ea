"""LiteLLM, for a provider that speaks OpenAI's protocol, and for Anthropic through its own handlers."""

from __future__ import annotations

from typing import Any

import litellm
import openai
from litellm.llms.custom_httpx.http_handler import AsyncHTTPHandler, HTTPHandler

from tests.compat.contract import ASYNC, Clients, SdkPage, TextContract
from tests.compat.questions import FEATURES, Question, said_as_chat
from tests.models.wire import WIRES


class LiteLLMContract(TextContract):
    """LiteLLM has one function for each mode."""

    features = FEATURES
    prefix = ""

    def begin(self, client: Any, question: Question, model: str, *, stream: bool, blocking: bool) -> Any:
        call: Any = litellm.completion if blocking else litellm.acompletion
        options = {"stream": stream, "max_tokens": 64, "num_retries": 0, "max_retries": 0, **client}
        return call(model=self.prefix + model, **said_as_chat(question), **options)

    def shown(self, part: Any) -> Any:
        """Without what LiteLLM adds: a time of its own, and an id to answers of Anthropic."""
        return part.model_dump(mode="json", exclude={"created", "id"})


class TestOpenAI(LiteLLMContract):
    wire = WIRES["OPENAI_CHAT"]
    prefix = "openai/"

    def plug(self, clients: Clients, url: str, mode: str, key: str) -> Any:
        http_client = clients.make(mode, "httpx")
        if mode == ASYNC:
            litellm.aclient_session = http_client
        else:
            litellm.client_session = http_client
        litellm.in_memory_llm_clients_cache.flush_cache()
        return {"api_key": key, "api_base": f"{url}/v1"}

    def wrapped(self, clients: Clients, url: str, mode: str, key: str) -> Any:
        make: Any = openai.AsyncOpenAI if mode == ASYNC else openai.OpenAI
        return {"client": clients.wrap(make(api_key=key, base_url=f"{url}/v1", max_retries=0))}


class TestAnthropic(LiteLLMContract):
    """LiteLLM closes a stream of Anthropic at `message_delta`, before its terminator, which is read on for."""

    wire = WIRES["ANTHROPIC"]
    prefix = "anthropic/"
    held = 2

    def plug(self, clients: Clients, url: str, mode: str, key: str) -> Any:
        http_client = clients.make(mode, "httpx")
        handler: Any
        if mode == ASYNC:
            handler = AsyncHTTPHandler()
            handler.client = http_client
        else:
            handler = HTTPHandler(client=http_client)
        return {"api_key": key, "api_base": url, "client": handler}

    def wrapped(self, clients: Clients, url: str, mode: str, key: str) -> Any:
        handler: Any = AsyncHTTPHandler() if mode == ASYNC else HTTPHandler()
        return {"api_key": key, "api_base": url, "client": clients.wrap(handler, "httpx")}


class TestPage(SdkPage):
    sdk = "litellm"
