"""Mistral's SDK."""

from __future__ import annotations

from typing import Any

from mistralai.client import Mistral

from tests.compat.contract import ASYNC, Clients, SdkPage, TextContract
from tests.compat.questions import FEATURES, Question, said_as_chat
from tests.models.wire import WIRES


class TestChat(TextContract):
    wire = WIRES["MISTRAL"]
    features = FEATURES

    def plug(self, clients: Clients, url: str, mode: str, key: str) -> Any:
        http = {"async_client" if mode == ASYNC else "client": clients.make(mode)}
        return Mistral(api_key=key, server_url=url, **http)

    def wrapped(self, clients: Clients, url: str, mode: str, key: str) -> Any:
        return clients.wrap(Mistral(api_key=key, server_url=url))  # both of its modes

    def begin(self, client: Any, question: Question, model: str, *, stream: bool, blocking: bool) -> Any:
        chat = client.chat
        call = {(True, False): chat.complete, (True, True): chat.stream}.get((blocking, stream))
        call = call or (chat.stream_async if stream else chat.complete_async)
        return call(model=model, **said_as_chat(question))


class TestPage(SdkPage):
    sdk = "mistralai"
