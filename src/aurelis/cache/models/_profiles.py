"""The model protocols that are known, one record each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from aurelis.cache.typing import Terminator

from ._answer import AnswerSummary, read_chat_answer
from ._canonicalise import BodyRules
from ._stream import ChatStreamTerminator, read_chat_stream


@dataclass(frozen=True, slots=True)
class Profile:
    """One operation of one protocol: how to know a call, what its key is made of, when its answer is whole.

    Attributes:
        name: of the protocol, as it stands in keys: `openai`.
        operation: what the call asks for, in the words of OpenTelemetry's `gen_ai.operation.name`: `chat`.
        path_suffix: end of the path of its URLs, on whatever host.
        admits: whether a body is a call of this kind that a cache may answer.
        body: what of the body has no part in the key.
        key_fields: request fields that are part of the key, in lower case.
        terminator: makes the watcher for the end of a stream.
        read_stream: reads a streamed answer.
        read_answer: reads an answer that came as one document.
        incomplete: finish reasons of answers that are cut short, filtered or failed.
    """

    name: str
    operation: str
    path_suffix: str
    admits: Callable[[Mapping[str, object]], bool]
    body: BodyRules
    key_fields: tuple[bytes, ...]
    terminator: Callable[[], Terminator]
    read_stream: Callable[[Iterable[bytes]], AnswerSummary]
    read_answer: Callable[[bytes], AnswerSummary]
    incomplete: frozenset[str]


# With these an answer depends on more than the request, or the call leaves behind what later calls use.
_STATEFUL_FIELDS = frozenset(
    {
        "background",
        "conversation",
        "enable_search",  # DashScope
        "plugins",  # OpenRouter
        "previous_response_id",
        "search_parameters",  # xAI
        "web_search_options",
    }
)
_CLIENT_TOOLS = ("function", "custom")  # a tuple: `in` must not hash, the body may hold anything here


def _admits_chat(body: Mapping[str, object]) -> bool:
    if not isinstance(body.get("messages"), list):
        return False
    if not _STATEFUL_FIELDS.isdisjoint(body):
        for name in _STATEFUL_FIELDS:
            value = body.get(name)
            if value is not None and value is not False:
                return False
    tools = body.get("tools")
    if tools is None:
        return True
    # Only tools that the client itself runs: others may search, run code or act on the provider's side.
    return isinstance(tools, list) and all(
        isinstance(tool, dict) and tool.get("type") in _CLIENT_TOOLS for tool in tools
    )


OPENAI_CHAT = Profile(
    name="openai",
    operation="chat",
    path_suffix="/chat/completions",
    admits=_admits_chat,
    body=BodyRules(
        ignored=("metadata", "user", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"),
        ignored_within=(("stream_options", "include_obfuscation"),),
        stream_default=False,
    ),
    key_fields=(b"openai-organization", b"openai-project", b"openai-beta"),
    terminator=ChatStreamTerminator,
    read_stream=read_chat_stream,
    read_answer=read_chat_answer,
    # `length` and `content_filter` are OpenAI's; the others come from servers that speak its protocol:
    # Mistral, vLLM, OpenRouter, DeepSeek.
    incomplete=frozenset(
        {"length", "content_filter", "model_length", "abort", "error", "insufficient_system_resource"}
    ),
)

PROFILES: tuple[Profile, ...] = (OPENAI_CHAT,)
"""All that are known; the first whose path fits is asked."""
