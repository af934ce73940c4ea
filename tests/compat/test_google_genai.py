"""Google's SDK for Gemini, with the Developer API and with addresses of Vertex AI."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google import genai
from google.genai import types
from google.oauth2.credentials import Credentials

from tests.client.model_server import Model
from tests.client.upstream import Upstream
from tests.compat.answers import RESULT, SHAPED, TOOL
from tests.compat.contract import ASYNC, SYNC, Clients, Plugged, SdkContract, SdkPage, TextContract
from tests.compat.questions import FEATURES, FUNCTION, Question
from tests.models.wire import WIRES


def client_of(clients: Clients, url: str, mode: str, key: str) -> Any:
    """A client that keeps its own time-outs and limits, over a transport with a cache."""
    options = types.HttpOptions(
        base_url=url,
        client_args={"transport": clients.keep(clients.transport(SYNC))},
        async_client_args={"transport": clients.keep(clients.transport(ASYNC))},
    )
    return genai.Client(api_key=key, http_options=options)


def contents(question: Question) -> list[types.Content]:
    """What was said so far."""
    said: list[tuple[str, types.Part]] = []
    for asked, answered in question.turns:
        said += [("user", types.Part(text=asked)), ("model", types.Part(text=answered))]
    turns = [types.Content(role=role, parts=[part]) for role, part in said]
    parts = [types.Part(text=question.text)]
    if question.image:
        parts.append(types.Part.from_bytes(data=question.image, mime_type="image/png"))
    turns.append(types.Content(role="user", parts=parts))
    if question.called:
        call = types.FunctionCall(id=question.called, name=TOOL, args=json.loads(SHAPED))
        result = types.FunctionResponse(id=question.called, name=TOOL, response={"result": RESULT})
        turns.append(types.Content(role="model", parts=[types.Part(function_call=call)]))
        turns.append(types.Content(role="user", parts=[types.Part(function_response=result)]))
    return turns


def config(question: Question) -> types.GenerateContentConfig:
    """How it is to be answered."""
    function = types.FunctionDeclaration(
        name=TOOL, description=FUNCTION["description"], parameters_json_schema=FUNCTION["parameters"]
    )
    return types.GenerateContentConfig(
        system_instruction=question.system or None,
        temperature=question.temperature,
        tools=[types.Tool(function_declarations=[function])] if question.tools else None,
        response_mime_type=None if question.shape is None else "application/json",
        response_json_schema=question.shape,
    )


class GeminiContract(SdkContract):
    """One client has both modes."""

    def plug(self, clients: Clients, url: str, mode: str, key: str) -> Any:
        return client_of(clients, url, mode, key)

    async def test_a_client_that_is_there_already_is_wrapped(
        self, clients: Clients, upstream: Upstream, mode: str, stream: bool
    ) -> None:
        """It is refused: the SDK makes a client of its own for each event loop, which would have no cache."""
        client = genai.Client(api_key="sk-one", http_options=types.HttpOptions(base_url=upstream.url))
        with pytest.raises(TypeError, match="found no client"):
            clients.wrap(client)


class GenerateContract(TextContract):
    """One method for each mode, whole and streamed."""

    features = FEATURES

    def begin(self, client: Any, question: Question, model: str, *, stream: bool, blocking: bool) -> Any:
        models = client.models if blocking else client.aio.models
        call = models.generate_content_stream if stream else models.generate_content
        return call(model=model, contents=contents(question), config=config(question))

    def shown(self, part: Any) -> Any:
        return part.model_dump(mode="json", exclude={"sdk_http_response"})


class TestGenerate(GeminiContract, GenerateContract):
    wire = WIRES["GEMINI"]


class TestEmbeddings(GeminiContract):
    wire = WIRES["GEMINI_EMBEDS"]
    streams = False

    def begin(self, client: Any, question: Question, model: str, *, stream: bool, blocking: bool) -> Any:
        models = client.models if blocking else client.aio.models
        return models.embed_content(model=model, contents=[question.text])

    def shown(self, part: Any) -> Any:
        return [embedding.model_dump(mode="json") for embedding in part.embeddings]


class TestVertex(GeminiContract, GenerateContract):
    """Addresses of Vertex AI, and tokens of OAuth in place of keys."""

    wire = WIRES["GEMINI"]

    def plug(self, clients: Clients, url: str, mode: str, key: str, **options: Any) -> Any:
        http = {
            "client_args": {"transport": clients.keep(clients.transport(SYNC, **options))},
            "async_client_args": {"transport": clients.keep(clients.transport(ASYNC, **options))},
        }
        return genai.Client(
            vertexai=True,
            project="a-project",
            location="europe-west1",
            credentials=Credentials(token=key),
            http_options=types.HttpOptions(base_url=url, **http),
        )

    async def test_it_asks_as_vertex_does(self, plugged: Plugged, upstream: Upstream, stream: bool) -> None:
        upstream.answer = Model(self.wire)
        await self.call(plugged, stream=stream)
        (asked,) = upstream.asked
        assert "/projects/a-project/locations/europe-west1/publishers/google/models/" in asked.path
        assert asked.headers["authorization"] == "Bearer sk-one"

    async def test_tokens_may_change_where_a_namespace_tells_callers_apart(
        self, clients: Clients, upstream: Upstream, mode: str, stream: bool
    ) -> None:
        """They live for an hour, and each is a caller of its own otherwise."""
        upstream.answer = Model(self.wire)
        for token, namespace in (("one", "here"), ("two", "here"), ("three", "there")):
            options = {"share_across_credentials": True, "namespace": namespace}
            client = self.plug(clients, upstream.url, mode, token, **options)
            await self.call(Plugged(client, mode == SYNC), stream=stream)
        assert upstream.calls == 2


class TestPage(SdkPage):
    sdk = "google-genai"
