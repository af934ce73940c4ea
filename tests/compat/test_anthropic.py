"""Anthropic's SDK."""

from __future__ import annotations

from typing import Any

import anthropic

from tests.compat.contract import ASYNC, Clients, SdkPage, TextContract
from tests.compat.questions import FEATURES, Question, said_to_anthropic
from tests.models.wire import WIRES


class TestMessages(TextContract):
    wire = WIRES["ANTHROPIC"]
    features = FEATURES

    def plug(self, clients: Clients, url: str, mode: str, key: str) -> Any:
        make: Any = anthropic.AsyncAnthropic if mode == ASYNC else anthropic.Anthropic
        return make(api_key=key, base_url=url, http_client=clients.make(mode), max_retries=0)

    def wrapped(self, clients: Clients, url: str, mode: str, key: str) -> Any:
        make: Any = anthropic.AsyncAnthropic if mode == ASYNC else anthropic.Anthropic
        return clients.wrap(make(api_key=key, base_url=url, max_retries=0))

    def begin(self, client: Any, question: Question, model: str, *, stream: bool, blocking: bool) -> Any:
        return client.messages.create(model=model, stream=stream, **said_to_anthropic(question))


class TestPage(SdkPage):
    sdk = "anthropic"
