"""Mistral's SDK."""

from __future__ import annotations

from typing import Any

from mistralai.client import Mistral

from tests.compat.contract import ASYNC, Clients, SdkContract, SdkPage, dumped
from tests.models.wire import WIRES


class TestChat(SdkContract):
    wire = WIRES["MISTRAL"]

    def plug(self, clients: Clients, url: str, mode: str, key: str) -> Any:
        http = {"async_client" if mode == ASYNC else "client": clients.make(mode)}
        return Mistral(api_key=key, server_url=url, **http)

    def wrapped(self, clients: Clients, url: str, mode: str, key: str) -> Any:
        return clients.wrap(Mistral(api_key=key, server_url=url))  # both of its modes

    async def ask(self, client: Any, text: str, model: str, *, stream: bool) -> Any:
        call: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": text}]}
        if stream:
            answer = await client.chat.stream_async(**call)
            return dumped([event async for event in answer])
        return dumped([await client.chat.complete_async(**call)])

    def ask_blocking(self, client: Any, text: str, model: str, *, stream: bool) -> Any:
        call: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": text}]}
        if stream:
            return dumped(client.chat.stream(**call))
        return dumped([client.chat.complete(**call)])


class TestPage(SdkPage):
    sdk = "mistralai"
