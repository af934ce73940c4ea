"""Ollama's SDK: chat, generate and embed."""

from __future__ import annotations

from typing import Any

import ollama

from tests.compat.contract import ASYNC, Clients, SdkContract, SdkPage, dumped
from tests.models.wire import WIRES


class OllamaContract(SdkContract):
    """The SDK hands its options to httpx."""

    def plug(self, clients: Clients, url: str, mode: str, key: str) -> Any:
        make: Any = ollama.AsyncClient if mode == ASYNC else ollama.Client
        transport = clients.keep(clients.transport(mode, "httpx"))
        return make(host=url, transport=transport, headers={"Authorization": f"Bearer {key}"})

    def wrapped(self, clients: Clients, url: str, mode: str, key: str) -> Any:
        make: Any = ollama.AsyncClient if mode == ASYNC else ollama.Client
        return clients.wrap(make(host=url, headers={"Authorization": f"Bearer {key}"}), "httpx")

    def _call(self, client: Any, text: str, model: str, stream: bool) -> Any:
        raise NotImplementedError

    async def ask(self, client: Any, text: str, model: str, *, stream: bool) -> Any:
        answer = await self._call(client, text, model, stream)
        return dumped([part async for part in answer]) if stream else dumped([answer])

    def ask_blocking(self, client: Any, text: str, model: str, *, stream: bool) -> Any:
        answer = self._call(client, text, model, stream)
        return dumped(answer) if stream else dumped([answer])


class TestChat(OllamaContract):
    wire = WIRES["OLLAMA_CHAT"]

    def _call(self, client: Any, text: str, model: str, stream: bool) -> Any:
        return client.chat(model=model, messages=[{"role": "user", "content": text}], stream=stream)


class TestGenerate(OllamaContract):
    wire = WIRES["OLLAMA_GENERATE"]

    def _call(self, client: Any, text: str, model: str, stream: bool) -> Any:
        return client.generate(model=model, prompt=text, stream=stream)


class TestEmbed(OllamaContract):
    wire = WIRES["OLLAMA_EMBED"]
    streams = False

    def _call(self, client: Any, text: str, model: str, stream: bool) -> Any:
        return client.embed(model=model, input=[text])


class TestPage(SdkPage):
    sdk = "ollama"
