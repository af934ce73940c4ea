"""LlamaIndex's classes for OpenAI, which stand on an older release of OpenAI's SDK, and so on httpx."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from llama_index.core.llms import ChatMessage, ImageBlock, TextBlock
from llama_index.embeddings.openai import OpenAIEmbedding
from llama_index.llms.openai import OpenAI

from tests.client.upstream import Upstream
from tests.compat.answers import RESULT, SHAPED, TOOL
from tests.compat.contract import ASYNC, SYNC, Clients, SdkContract, SdkPage, TextContract
from tests.compat.questions import FEATURES, Question, said_as_chat
from tests.models.wire import WIRES


def options(clients: Clients, url: str, key: str) -> dict[str, Any]:
    """What both classes take."""
    return {
        "api_key": key,
        "api_base": f"{url}/v1",
        "http_client": clients.make(SYNC, "httpx"),
        "async_http_client": clients.make(ASYNC, "httpx"),
        "max_retries": 0,
    }


def messages(question: Question) -> list[ChatMessage]:
    """What was said so far."""
    said = [ChatMessage(role="system", content=question.system)] if question.system else []
    for asked, answered in question.turns:
        said += [ChatMessage(role="user", content=asked), ChatMessage(role="assistant", content=answered)]
    blocks: list[Any] = [TextBlock(text=question.text)]
    if question.image:
        blocks.append(ImageBlock(image=question.picture.encode(), image_mimetype="image/png"))
    said.append(ChatMessage(role="user", blocks=blocks))
    if question.called:
        function = {"name": TOOL, "arguments": SHAPED}
        calls = {"tool_calls": [{"id": question.called, "type": "function", "function": function}]}
        said.append(ChatMessage(role="assistant", content="", additional_kwargs=calls))
        of = {"tool_call_id": question.called}
        said.append(ChatMessage(role="tool", content=RESULT, additional_kwargs=of))
    return said


class TestChat(TextContract):
    wire = WIRES["OPENAI_CHAT"]
    features = FEATURES
    another_model = "gpt-4o"

    def plug(self, clients: Clients, url: str, mode: str, key: str) -> Any:
        return options(clients, url, key)

    def wrapped(self, clients: Clients, url: str, mode: str, key: str) -> Any:
        settings: Any = {"api_key": key, "base_url": f"{url}/v1", "max_retries": 0}
        return {
            "openai_client": clients.wrap(openai.OpenAI(**settings), "httpx"),
            "async_openai_client": clients.wrap(openai.AsyncOpenAI(**settings), "httpx"),
        }

    def begin(self, client: Any, question: Question, model: str, *, stream: bool, blocking: bool) -> Any:
        settings = {} if question.temperature is None else {"temperature": question.temperature}
        llm = OpenAI(model=model, **client, **settings)
        call = said_as_chat(question)
        options = {name: call[name] for name in ("tools", "response_format") if name in call}
        names = {(True, True): "stream_chat", (True, False): "chat", (False, True): "astream_chat"}
        return getattr(llm, names.get((blocking, stream), "achat"))(messages(question), **options)

    def shown(self, part: Any) -> Any:
        """The text, what it adds to the last, and all that came from the model."""
        return [part.message.content, part.delta, part.raw.model_dump(mode="json")]


class TestEmbedding(SdkContract):
    wire = WIRES["EMBEDDINGS"]
    items = 2
    streams = False

    def plug(self, clients: Clients, url: str, mode: str, key: str) -> Any:
        return options(clients, url, key)

    async def test_a_client_that_is_there_already_is_wrapped(
        self, clients: Clients, upstream: Upstream, mode: str, stream: bool
    ) -> None:
        """There is none: the first call makes it, and no parameter takes one."""
        embedding = OpenAIEmbedding(api_key="sk-one", api_base=f"{upstream.url}/v1")
        with pytest.raises(TypeError, match="found no client"):
            clients.wrap(embedding, "httpx")

    def begin(self, client: Any, question: Question, model: str, *, stream: bool, blocking: bool) -> Any:
        embedding, texts = OpenAIEmbedding(model_name=model, **client), [question.text, f"{question.text} again"]
        get = embedding.get_text_embedding_batch if blocking else embedding.aget_text_embedding_batch
        return get(texts)

    def shown(self, part: Any) -> Any:
        return part


class TestPage(SdkPage):
    sdk = "llama-index"
