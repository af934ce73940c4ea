"""Ollama's SDK: chat, generate and embed."""

from __future__ import annotations

from typing import Any

import ollama

from tests.compat.answers import RESULT, TOOL
from tests.compat.contract import ASYNC, Clients, SdkContract, SdkPage, TextContract
from tests.compat.questions import FEATURES, FUNCTION_TOOL, Question
from tests.models.wire import WIRES


class OllamaClients(SdkContract):
    """The SDK hands its options to httpx."""

    def plug(self, clients: Clients, url: str, mode: str, key: str) -> Any:
        make: Any = ollama.AsyncClient if mode == ASYNC else ollama.Client
        transport = clients.keep(clients.transport(mode, "httpx"))
        return make(host=url, transport=transport, headers={"Authorization": f"Bearer {key}"})

    def wrapped(self, clients: Clients, url: str, mode: str, key: str) -> Any:
        make: Any = ollama.AsyncClient if mode == ASYNC else ollama.Client
        return clients.wrap(make(host=url, headers={"Authorization": f"Bearer {key}"}), "httpx")


class OllamaContract(OllamaClients, TextContract):
    """Both operations that give texts."""

    def options(self, question: Question) -> dict[str, Any]:
        """What both operations take."""
        options: dict[str, Any] = {} if question.shape is None else {"format": question.shape}
        return (
            options if question.temperature is None else {**options, "options": {"temperature": question.temperature}}
        )


class TestChat(OllamaContract):
    wire = WIRES["OLLAMA_CHAT"]
    features = FEATURES

    def begin(self, client: Any, question: Question, model: str, *, stream: bool, blocking: bool) -> Any:
        messages: list[Any] = [{"role": "system", "content": question.system}] if question.system else []
        for asked, answered in question.turns:
            messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
        images = {"images": [question.image]} if question.image else {}
        messages.append({"role": "user", "content": question.text, **images})
        if question.called:
            call = {"function": {"name": TOOL, "arguments": {"city": question.called}}}
            messages.append({"role": "assistant", "content": "", "tool_calls": [call]})
            messages.append({"role": "tool", "content": RESULT, "tool_name": TOOL})
        tools = {"tools": [FUNCTION_TOOL]} if question.tools else {}
        return client.chat(model=model, messages=messages, stream=stream, **tools, **self.options(question))


class TestGenerate(OllamaContract):
    wire = WIRES["OLLAMA_GENERATE"]
    features = ("shape", "image", "system", "temperature")

    def begin(self, client: Any, question: Question, model: str, *, stream: bool, blocking: bool) -> Any:
        call = {"system": question.system} if question.system else {}
        images = {"images": [question.image]} if question.image else {}
        return client.generate(
            model=model, prompt=question.text, stream=stream, **call, **images, **self.options(question)
        )


class TestEmbed(OllamaClients):
    wire = WIRES["OLLAMA_EMBED"]
    streams = False

    def begin(self, client: Any, question: Question, model: str, *, stream: bool, blocking: bool) -> Any:
        return client.embed(model=model, input=[question.text])


class TestPage(SdkPage):
    sdk = "ollama"
