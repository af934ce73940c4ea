"""Calls and answers that the tests of the model rules share."""

import json
from collections.abc import Mapping

from aurelis.cache.http import Fields, LoadedResponse, ResponseHead
from aurelis.cache.models import ModelPolicy, ModelRequest, clean_url, partition, recognise

URL = "https://api.openai.com/v1/chat/completions"
PATH = "/v1/chat/completions"
SECRET = b"a secret of this deployment"
FIELDS = {
    b"accept": b"application/json",
    b"authorization": b"Bearer sk-one",
    b"content-type": b"application/json",
}

POLICY = ModelPolicy(keys=lambda category, identifier: f"{category}:{identifier}")


def chat(**changes: object) -> dict[str, object]:
    """A chat body with fields changed or added."""
    return {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}], **changes}


def dump(body: object) -> bytes:
    """JSON as the openai SDK writes it."""
    return json.dumps(body, separators=(",", ":")).encode()


def request_for(body: bytes, *, url: str = URL, fields: Mapping[bytes, bytes] = FIELDS) -> ModelRequest:
    """The request that a transport makes of a recognised call."""
    path, _, query = url.partition("?")
    call = recognise("POST", path, fields.get(b"content-type", b""), body)
    assert call is not None
    return ModelRequest(clean_url(url), fields, call, partition(fields, query, SECRET))


def key_of(body: bytes | dict[str, object], *, url: str = URL, fields: Mapping[bytes, bytes] | None = None) -> str:
    """The key of a call; `fields` replace or add to the usual ones."""
    encoded = body if isinstance(body, bytes) else dump(body)
    return POLICY.key(request_for(encoded, url=url, fields={**FIELDS, **(fields or {})}))


def event(data: object, end: bytes = b"\n") -> bytes:
    """A server-sent event with JSON data."""
    return b"data: " + dump(data) + end + end


def piece(content: str | None = None, finish_reason: str | None = None, index: int = 0) -> dict[str, object]:
    """The data of one event of a chat stream."""
    delta = {} if content is None else {"content": content}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": "gpt-4o-mini-2024-07-18",
        "choices": [{"index": index, "delta": delta, "finish_reason": finish_reason}],
    }


DONE = b"data: [DONE]\n\n"
USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
STREAM = (event(piece("Hel")), event(piece("lo")), event(piece(None, "stop")), DONE)
STREAM_HEADERS: Fields = ((b"content-type", b"text/event-stream; charset=utf-8"),)
JSON_HEADERS: Fields = ((b"content-type", b"application/json"),)


def completion(**changes: object) -> dict[str, object]:
    """A chat answer with members changed or added."""
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "gpt-4o-mini-2024-07-18",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}],
        "usage": USAGE,
        **changes,
    }


def loaded(*chunks: bytes, headers: Fields = JSON_HEADERS, status: int = 200) -> LoadedResponse:
    """A whole response as it came."""
    return LoadedResponse(
        ResponseHead(status, headers), chunks, seconds=1.5, request_time=1_000.0, response_time=1_001.0
    )
