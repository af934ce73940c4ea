"""Anthropic's SDK."""

from __future__ import annotations

from typing import Any

import anthropic

from tests.compat.contract import ASYNC, Clients, SdkContract, SdkPage, dumped
from tests.models.wire import WIRES


class TestMessages(SdkContract):
    wire = WIRES["ANTHROPIC"]

    def plug(self, clients: Clients, url: str, mode: str, key: str) -> Any:
        make: Any = anthropic.AsyncAnthropic if mode == ASYNC else anthropic.Anthropic
        return make(api_key=key, base_url=url, http_client=clients.make(mode), max_retries=0)

    def wrapped(self, clients: Clients, url: str, mode: str, key: str) -> Any:
        make: Any = anthropic.AsyncAnthropic if mode == ASYNC else anthropic.Anthropic
        return clients.wrap(make(api_key=key, base_url=url, max_retries=0))

    def _call(self, client: Any, text: str, model: str, stream: bool) -> Any:
        message = {"role": "user", "content": text}
        return client.messages.create(model=model, max_tokens=64, messages=[message], stream=stream)

    async def ask(self, client: Any, text: str, model: str, *, stream: bool) -> Any:
        answer = await self._call(client, text, model, stream)
        return dumped([event async for event in answer]) if stream else dumped([answer])

    def ask_blocking(self, client: Any, text: str, model: str, *, stream: bool) -> Any:
        answer = self._call(client, text, model, stream)
        return dumped(answer) if stream else dumped([answer])


class TestPage(SdkPage):
    sdk = "anthropic"
