"""What each protocol looks like on the wire: calls, whole answers and streams."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.models.examples import DONE, STREAM, USAGE, chat, completion, dump, event, piece

Doc = dict[str, Any]  # Any: JSON


def named(name: str, data: object) -> bytes:
    """A server-sent event with a name."""
    return b"event: " + name.encode() + b"\n" + event(data)


def line(data: object) -> bytes:
    """A line of NDJSON."""
    return dump(data) + b"\n"


@dataclass(frozen=True)
class Wire:
    """One operation of one protocol.

    Attributes:
        path: of a call, and that of a call for a stream where it is another one.
        body: of a call for a whole answer; `streamed` is added for a stream.
        whole: an answer.
        cut: makes of an answer one that ended for the reason given.
        chunks: of a stream, its end in the last one; empty: there are no streams.
        end: makes of the reason why it ended a stream's last chunks, from where it is known.
        lengths: reasons for which an answer is cut short, and those for which it is filtered.
        usage: tokens that whole answers report, and streams.
        error: a frame that reports an error.
    """

    name: str
    path: str
    body: Doc
    whole: Doc
    usage: tuple[int | None, int | None]
    cut: Callable[[str], Doc] | None = None
    stream_path: str = ""
    streamed: Mapping[str, object] = field(default_factory=lambda: {"stream": True})
    chunks: tuple[bytes, ...] = ()
    content_type: str = "text/event-stream"
    end: Callable[[str], tuple[bytes, ...]] | None = None
    length: str = ""
    filtered: str = ""
    error: bytes = b""
    stream_usage: tuple[int | None, int | None] | None = None

    def call(self, *, stream: bool, **changes: object) -> tuple[str, Doc]:
        """Path and body of a call."""
        if not stream:
            return self.path, {**self.body, **changes}
        return self.stream_path or self.path, {**self.body, **self.streamed, **changes}


def _completion_piece(text: str, reason: str | None = None) -> Doc:
    return {"id": "c", "object": "text_completion", "choices": [{"index": 0, "text": text, "finish_reason": reason}]}


OPENAI_CHAT = Wire(
    "openai/chat",
    "/v1/chat/completions",
    chat(),
    completion(),
    (11, 7),
    cut=lambda reason: completion(
        choices=[{"index": 0, "message": {"role": "assistant", "content": "Hel"}, "finish_reason": reason}]
    ),
    chunks=(*STREAM[:-1], event({"object": "chat.completion.chunk", "choices": [], "usage": USAGE}), DONE),
    end=lambda reason: (event(piece(None, reason)), DONE),
    length="length",
    filtered="content_filter",
    error=event({"error": {"message": "overloaded"}}),
)
OPENAI_COMPLETIONS = Wire(
    "openai/completions",
    "/v1/completions",
    {"model": "gpt-3.5-turbo-instruct", "prompt": "Hello"},
    {**_completion_piece("Hello", "stop"), "usage": USAGE},
    (11, 7),
    cut=lambda reason: _completion_piece("Hel", reason),
    chunks=(event(_completion_piece("Hel")), event(_completion_piece("lo", "stop")), DONE),
    end=lambda reason: (event(_completion_piece("lo", reason)), DONE),
    length="length",
    filtered="content_filter",
    error=event({"error": {"message": "overloaded"}}),
    stream_usage=(None, None),
)


def _response(status: str = "completed", **changes: object) -> Doc:
    message = {
        "type": "message",
        "id": "msg_1",
        "status": "completed",
        "role": "assistant",
        "content": [{"type": "output_text", "text": "Hello", "annotations": []}],
    }
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1_700_000_000,
        "status": status,
        "error": None,
        "incomplete_details": None,
        "model": "gpt-4o-mini",
        "output": [message],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": {
            "input_tokens": 11,
            "output_tokens": 7,
            "total_tokens": 18,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens_details": {"reasoning_tokens": 0},
        },
        **changes,
    }


def _cut_response(reason: str) -> Doc:
    return _response("incomplete", incomplete_details={"reason": reason})


def _response_event(kind: str, number: int, **members: object) -> bytes:
    return named(kind, {"type": kind, "sequence_number": number, **members})


_DELTA = {"item_id": "msg_1", "output_index": 0, "content_index": 0, "logprobs": []}
RESPONSES = Wire(
    "openai/responses",
    "/v1/responses",
    {"model": "gpt-4o-mini", "input": "Hello"},
    _response(),
    (11, 7),
    cut=_cut_response,
    chunks=(
        _response_event("response.created", 0, response=_response("in_progress", output=[], usage=None)),
        _response_event("response.output_text.delta", 1, delta="Hel", **_DELTA),
        _response_event("response.output_text.delta", 2, delta="lo response.completed", **_DELTA),
        _response_event("response.completed", 3, response=_response()),
    ),
    end=lambda reason: (_response_event("response.incomplete", 3, response=_cut_response(reason)),),
    length="max_output_tokens",
    filtered="content_filter",
    error=named("error", {"type": "error", "code": "server_error", "message": "overloaded", "sequence_number": 2}),
)
EMBEDDINGS = Wire(
    "openai/embeddings",
    "/v1/embeddings",
    {"model": "text-embedding-3-small", "input": ["a", "b"], "encoding_format": "float"},
    {
        "object": "list",
        "data": [{"object": "embedding", "index": index, "embedding": [0.5, -0.25]} for index in (0, 1)],
        "model": "text-embedding-3-small",
        "usage": {"prompt_tokens": 2, "total_tokens": 2},
    },
    (2, 0),
)


def _message(reason: str = "end_turn") -> Doc:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-test",
        "content": [{"type": "text", "text": "Hello"}],
        "stop_reason": reason,
        "stop_sequence": None,
        "usage": {
            "input_tokens": 6,
            "cache_read_input_tokens": 5,
            "cache_creation_input_tokens": 0,
            "output_tokens": 7,
        },
    }


def _anthropic_end(reason: str) -> tuple[bytes, ...]:
    delta = {"stop_reason": reason, "stop_sequence": None}
    return (
        named("message_delta", {"type": "message_delta", "delta": delta, "usage": {"output_tokens": 7}}),
        named("message_stop", {"type": "message_stop"}),
    )


_START = {**_message(), "content": [], "stop_reason": None}
_START["usage"] = {"input_tokens": 11, "output_tokens": 1}
ANTHROPIC = Wire(
    "anthropic/messages",
    "/v1/messages",
    {"model": "claude-test", "max_tokens": 64, "messages": [{"role": "user", "content": "Hello"}]},
    _message(),
    (11, 7),
    cut=_message,
    chunks=(
        named("message_start", {"type": "message_start", "message": _START}),
        named(
            "content_block_start",
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        ),
        named("ping", {"type": "ping"}),
        named(
            "content_block_delta",
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "He message_stop"}},
        ),
        named("content_block_stop", {"type": "content_block_stop", "index": 0}),
        *_anthropic_end("end_turn"),
    ),
    end=_anthropic_end,
    length="max_tokens",
    filtered="refusal",
    error=named("error", {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}),
)


def _candidates(text: str, reason: str | None = None) -> Doc:
    candidate: Doc = {"content": {"role": "model", "parts": [{"text": text}]}, "index": 0}
    if reason:
        candidate["finishReason"] = reason
    usage = {"promptTokenCount": 11, "candidatesTokenCount": 5, "thoughtsTokenCount": 2, "totalTokenCount": 18}
    return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "gemini-2.5-flash"}


_GEMINI = "/v1beta/models/gemini-2.5-flash"
_CONTENTS: Doc = {"contents": [{"role": "user", "parts": [{"text": "Hello"}]}]}
GEMINI = Wire(
    "gemini/generateContent",
    f"{_GEMINI}:generateContent",
    _CONTENTS,
    _candidates("Hello", "STOP"),
    (11, 7),
    cut=lambda reason: _candidates("Hel", reason),
    stream_path=f"{_GEMINI}:streamGenerateContent?alt=sse",
    streamed={},
    chunks=(
        event(_candidates('Hel "finishReason"'), b"\r\n"),
        event(_candidates("lo"), b"\r\n"),
        event(_candidates("", "STOP"), b"\r\n"),
    ),
    end=lambda reason: (event(_candidates("", reason), b"\r\n"),),
    length="MAX_TOKENS",
    filtered="SAFETY",
    error=event({"error": {"code": 503, "message": "overloaded", "status": "UNAVAILABLE"}}, b"\r\n"),
)


def _element(document: Doc) -> bytes:
    return json.dumps(document, indent=2).encode()


GEMINI_ARRAY = Wire(
    "gemini/generateContent",
    GEMINI.path,
    _CONTENTS,
    GEMINI.whole,
    (11, 7),
    stream_path="/v1/projects/p/locations/eu/publishers/google/models/gemini-2.5-flash:streamGenerateContent",
    streamed={},
    chunks=(
        b"[" + _element(_candidates('Hel ]} \\"')),
        b",\r\n" + _element(_candidates("lo")),
        b",\r\n" + _element(_candidates("", "STOP")),
        b"\n]\n",
    ),
    content_type="application/json; charset=UTF-8",
    end=lambda reason: (b",\r\n" + _element(_candidates("", reason)), b"\n]\n"),
    length="MAX_TOKENS",
    filtered="SAFETY",
    error=b",\r\n" + _element({"error": {"code": 503, "message": "overloaded"}}),
)
GEMINI_EMBED = Wire(
    "gemini/embedContent",
    "/v1beta/models/gemini-embedding-001:embedContent",
    {"content": {"parts": [{"text": "Hello"}]}},
    {"embedding": {"values": [0.5, -0.25]}},
    (None, None),
)
GEMINI_EMBEDS = Wire(
    "gemini/batchEmbedContents",
    "/v1beta/models/gemini-embedding-001:batchEmbedContents",
    {"requests": [{"model": "models/gemini-embedding-001", "content": {"parts": [{"text": "Hello"}]}}]},
    {"embeddings": [{"values": [0.5, -0.25]}]},
    (None, None),
)

VERTEX_EMBED = Wire(
    "gemini/predict",
    "/v1/projects/p/locations/eu/publishers/google/models/text-embedding-005:predict",
    {"instances": [{"content": "a"}, {"content": "b"}], "parameters": {"outputDimensionality": 1}},
    {"predictions": [{"embeddings": {"values": [0.5], "statistics": {"token_count": 1}}}] * 2},
    (2, 0),
)


def _cohere(reason: str = "COMPLETE") -> Doc:
    return {
        "id": "c1",
        "finish_reason": reason,
        "message": {"role": "assistant", "content": [{"type": "text", "text": "Hello"}]},
        "usage": {
            "billed_units": {"input_tokens": 1, "output_tokens": 2},
            "tokens": {"input_tokens": 11, "output_tokens": 7},
        },
    }


def _cohere_end(reason: str) -> tuple[bytes, ...]:
    delta = {"finish_reason": reason, "usage": _cohere()["usage"]}
    return (named("message-end", {"type": "message-end", "delta": delta}),)


COHERE = Wire(
    "cohere/chat",
    "/v2/chat",
    {"model": "command-a-03-2025", "messages": [{"role": "user", "content": "Hello"}]},
    _cohere(),
    (11, 7),
    cut=_cohere,
    chunks=(
        named("message-start", {"type": "message-start", "id": "c1", "delta": {"message": {"role": "assistant"}}}),
        named(
            "content-delta",
            {"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": "message-end"}}}},
        ),
        *_cohere_end("COMPLETE"),
    ),
    end=_cohere_end,
    length="MAX_TOKENS",
    filtered="ERROR_TOXIC",
    error=named("error", {"message": "overloaded"}),
)
COHERE_EMBED = Wire(
    "cohere/embed",
    "/v2/embed",
    {"model": "embed-v4.0", "texts": ["Hello"], "input_type": "search_query", "embedding_types": ["float"]},
    {"id": "e1", "embeddings": {"float": [[0.5]]}, "texts": ["Hello"], "meta": {"billed_units": {"input_tokens": 2}}},
    (2, 0),
)
COHERE_RERANK = Wire(
    "cohere/rerank",
    "/v2/rerank",
    {"model": "rerank-v3.5", "query": "Hello", "documents": ["a", "b"], "top_n": 1},
    {"id": "r1", "results": [{"index": 1, "relevance_score": 0.9}], "meta": {"billed_units": {"search_units": 1}}},
    (None, None),
)


def _ollama(text: str, done: str | None = None, member: str = "message") -> Doc:
    document: Doc = {"model": "llama3.2", "created_at": "2026-11-22T10:00:00Z", "done": done is not None}
    document[member] = {"role": "assistant", "content": text} if member == "message" else text
    if done is not None:
        document |= {"done_reason": done, "prompt_eval_count": 11, "eval_count": 7}
    return document


OLLAMA_CHAT = Wire(
    "ollama/chat",
    "/api/chat",
    {"model": "llama3.2", "messages": [{"role": "user", "content": "Hello"}], "stream": False},
    _ollama("Hello", "stop"),
    (11, 7),
    cut=lambda reason: _ollama("Hel", reason),
    chunks=(line(_ollama('{"done":true}')), line(_ollama("lo")), line(_ollama("", "stop"))),
    content_type="application/x-ndjson",
    end=lambda reason: (line(_ollama("", reason)),),
    length="length",
    filtered="",
    error=line({"error": "an error was encountered while running the model"}),
)
OLLAMA_GENERATE = Wire(
    "ollama/generate",
    "/api/generate",
    {"model": "llama3.2", "prompt": "Hello", "stream": False},
    _ollama("Hello", "stop", "response"),
    (11, 7),
    cut=lambda reason: _ollama("Hel", reason, "response"),
    chunks=(line(_ollama("Hel", None, "response")), line(_ollama("", "stop", "response"))),
    content_type="application/x-ndjson",
    end=lambda reason: (line(_ollama("", reason, "response")),),
    length="length",
    error=line({"error": "an error was encountered while running the model"}),
)
OLLAMA_EMBED = Wire(
    "ollama/embed",
    "/api/embed",
    {"model": "all-minilm", "input": ["Hello"]},
    {"model": "all-minilm", "embeddings": [[0.5, -0.25]], "prompt_eval_count": 2},
    (2, 0),
)
MISTRAL = Wire(
    "openai/chat",
    "/v1/chat/completions#stream",
    {"model": "mistral-small-latest", "messages": [{"role": "user", "content": "Hello"}], "stream": False},
    completion(model="mistral-small-latest"),
    (11, 7),
    cut=OPENAI_CHAT.cut,
    chunks=(event(piece("Hello")), event({**piece("", "stop"), "usage": USAGE}), DONE),
    end=OPENAI_CHAT.end,
    length="model_length",
    error=event({"object": "error", "message": "overloaded"}),
)
AZURE = Wire(
    "openai/chat",
    "/openai/deployments/gpt/chat/completions?api-version=2025-01-01",
    {"messages": [{"role": "user", "content": "Hello"}]},
    completion(),
    (11, 7),
    cut=OPENAI_CHAT.cut,
    chunks=OPENAI_CHAT.chunks,
    end=OPENAI_CHAT.end,
    length="length",
    filtered="content_filter",
    error=OPENAI_CHAT.error,
)

WIRES = {name: value for name, value in list(globals().items()) if isinstance(value, Wire)}
"""All, by the names that they have here."""
STREAMS = {name: wire for name, wire in WIRES.items() if wire.chunks}
"""Those that stream."""
