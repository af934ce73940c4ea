"""LangChain's chat model and embeddings of Google."""

from __future__ import annotations

from typing import Any

import pytest
from google import genai
from google.genai import types
from langchain_google_genai import ChatGoogleGenerativeAI, GoogleGenerativeAIEmbeddings

from tests.client.upstream import Upstream
from tests.compat.contract import ASYNC, SYNC, Clients, SdkContract, SdkPage
from tests.compat.langchain_models import ChatModelContract
from tests.compat.questions import Question
from tests.models.wire import WIRES


class GoogleContract(SdkContract):
    """A model takes a client of Google's SDK in place of the one that it makes."""

    def plug(self, clients: Clients, url: str, mode: str, key: str) -> Any:
        http = {
            "client_args": {"transport": clients.keep(clients.transport(SYNC))},
            "async_client_args": {"transport": clients.keep(clients.transport(ASYNC))},
        }
        return {"client": genai.Client(api_key=key, http_options=types.HttpOptions(base_url=url, **http))}

    async def test_a_client_that_is_there_already_is_wrapped(
        self, clients: Clients, upstream: Upstream, mode: str, stream: bool
    ) -> None:
        """It is refused, as the client of the SDK below is."""
        with pytest.raises(TypeError, match="found no client"):
            clients.wrap(ChatGoogleGenerativeAI(model="gemini-2.5-flash", api_key="sk-one"))


class TestChat(GoogleContract, ChatModelContract):
    wire = WIRES["GEMINI"]

    def chat(self, client: Any, model: str, **settings: Any) -> Any:
        made = ChatGoogleGenerativeAI(model=model, api_key="unused", max_retries=1, **settings)
        made.client = client["client"]
        return made


class TestEmbeddings(GoogleContract):
    wire = WIRES["GEMINI_EMBEDS"]
    streams = False

    def begin(self, client: Any, question: Question, model: str, *, stream: bool, blocking: bool) -> Any:
        made = GoogleGenerativeAIEmbeddings(model=model, api_key="unused")
        made.client = client["client"]
        return made.embed_documents([question.text]) if blocking else made.aembed_documents([question.text])

    def shown(self, part: Any) -> Any:
        return part


class TestPage(SdkPage):
    sdk = "langchain-google-genai"
