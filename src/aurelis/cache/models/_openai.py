"""The protocol of OpenAI's API and of the many servers that speak it: which calls may be cached, what answers say."""

from __future__ import annotations

import re

from ._answer import (
    FILTERED,
    INCOMPLETE,
    LENGTH,
    Dialect,
    Document,
    Findings,
    ends_with_done,
    ends_with_type,
    items,
    members,
)
from ._usage import counts, total

# With these an answer depends on more than the request, or the call leaves behind what later calls use.
_STATEFUL_FIELDS = (
    "background",
    "conversation",
    "data_sources",  # Azure OpenAI
    "enable_search",  # DashScope
    "plugins",  # OpenRouter
    "previous_response_id",
    "search_parameters",  # xAI
    "web_search_options",
)
_CLIENT_TOOLS = ("function", "custom")  # a tuple: `in` must not hash, the body may hold anything here
# Models that search the web by themselves: OpenAI's, Perplexity's, Groq's, and OpenRouter's suffix for any.
_SEARCHING_MODEL = re.compile(r"-search-(preview|api)\b|^(perplexity/)?sonar\b|^(groq/)?compound\b|:online$")


def is_set(body: Document, name: str) -> bool:
    """Whether a field is there and asks for something."""
    value = body.get(name)
    return value is not None and value is not False


def has_client_tools_alone(body: Document) -> bool:
    """Whether the client itself runs all tools: others may search, run code or act on the provider's side."""
    tools = body.get("tools")
    if tools is None:
        return True
    return isinstance(tools, list) and all(
        isinstance(tool, dict) and tool.get("type") in _CLIENT_TOOLS for tool in tools
    )


def _is_stateless(body: Document) -> bool:
    model = body.get("model")
    if isinstance(model, str) and _SEARCHING_MODEL.search(model):
        return False
    return not any(is_set(body, name) for name in _STATEFUL_FIELDS) and has_client_tools_alone(body)


def admits_chat(body: Document) -> bool:
    """Whether a body is a chat completion that may be cached."""
    return isinstance(body.get("messages"), list) and _is_stateless(body)


def choices(body: Document) -> int:
    """How many answers a body asks for, which all end before the stream does."""
    asked, prompt = body.get("n"), body.get("prompt")
    number = asked if isinstance(asked, int) and asked > 1 else 1
    several = isinstance(prompt, list) and all(isinstance(one, (str, list)) for one in prompt)
    return number * max(len(prompt), 1) if isinstance(prompt, list) and several else number


def admits_completion(body: Document) -> bool:
    """Whether a body is a completion of a text that may be cached."""
    return isinstance(body.get("prompt"), (str, list)) and _is_stateless(body)


def admits_response(body: Document) -> bool:
    """Whether a body is a call of the Responses API that may be cached.

    Prompts that are kept at the provider may change and name tools of their own; items of earlier answers are state.
    """
    if not isinstance(body.get("input"), (str, list)) or not names_model(body):
        return False
    if is_set(body, "prompt") or not _is_stateless(body):
        return False
    return not any(members(item).get("type") == "item_reference" for item in items(body["input"]))


def admits_embeddings(body: Document) -> bool:
    """Whether a body asks for embeddings."""
    return isinstance(body.get("input"), (str, list)) and isinstance(body.get("model", ""), str)


def names_model(body: Document) -> bool:
    """Whether a body names a model: where it must, a body without one is for something else at the same path."""
    model = body.get("model")
    return isinstance(model, str) and bool(model)


def admits_moderation(body: Document) -> bool:
    """Whether a body asks for the moderation of something."""
    return isinstance(body.get("input"), (str, list))


def admits_image(body: Document) -> bool:
    """Whether a body asks for images as one document."""
    return isinstance(body.get("prompt"), str) and not is_set(body, "stream")


def admits_speech(body: Document) -> bool:
    """Whether a body asks for speech as one file."""
    return isinstance(body.get("input"), str) and body.get("stream_format", "audio") in (None, "audio")


USAGE_DETAILS = _READ, _WRITTEN = "prompt_tokens_details", "completion_tokens_details"
"""Blocks within one of usage."""
_CHAT_DETAILS = {
    "cache_read_tokens": (_READ, "cached_tokens"),
    "cache_write_tokens": (_READ, "cache_write_tokens"),
    "input_audio_tokens": (_READ, "audio_tokens"),
    "output_audio_tokens": (_WRITTEN, "audio_tokens"),
    "output_reasoning_tokens": (_WRITTEN, "reasoning_tokens"),
}
_RESPONSE_DETAILS = {
    "cache_read_tokens": ("input_tokens_details", "cached_tokens"),
    "cache_write_tokens": ("input_tokens_details", "cache_write_tokens"),
    "output_reasoning_tokens": ("output_tokens_details", "reasoning_tokens"),
}
_IMAGE_DETAILS = {
    "input_text_tokens": ("input_tokens_details", "text_tokens"),
    "input_image_tokens": ("input_tokens_details", "image_tokens"),
    "output_text_tokens": ("output_tokens_details", "text_tokens"),
    "output_image_tokens": ("output_tokens_details", "image_tokens"),
}


def read_usage(usage: object, findings: Findings) -> None:
    """Note what a block of usage says."""
    if not isinstance(usage, dict):
        return
    read, written = total(usage, "prompt_tokens"), total(usage, "completion_tokens")
    findings.detailed(usage, _CHAT_DETAILS)
    if read is not None and written is not None:
        # xAI does not count the reasoning among the rest, and its total says so.
        reasoning = counts(usage, _CHAT_DETAILS).get("output_reasoning_tokens", 0)
        if reasoning and total(usage, "total_tokens") == read + written + reasoning:
            written += reasoning
    findings.used(read, written)


def _read_choices(document: Document, findings: Findings) -> None:
    findings.named(document.get("model"))
    findings.billed("service_tier", document.get("service_tier"))
    read_usage(document.get("usage"), findings)
    for choice in items(document.get("choices")):
        if not isinstance(choice, dict):
            findings.malformed = True
            continue
        findings.error |= choice.get("error") is not None  # gateways report a provider's failure inside the choice
        findings.choice(choice.get("index"), choice.get("finish_reason"))


CHAT = Dialect(
    read=_read_choices,
    read_event=_read_choices,
    ends=ends_with_done,
    done=True,
    finishes=re.compile(rb'"finish_reason"\s*:\s*"([^"]+)"'),  # some servers say "" as long as there is none
    # `length` and `content_filter` are OpenAI's; the others come from servers that speak its protocol: Mistral, vLLM,
    # OpenRouter, DeepSeek, and from those that pass the words of other providers through.
    reasons={
        "length": LENGTH,
        "max_tokens": LENGTH,
        "model_length": LENGTH,
        "content_filter": FILTERED,
        "refusal": FILTERED,
        "safety": FILTERED,
        "abort": INCOMPLETE,
        "cancelled": INCOMPLETE,
        "error": INCOMPLETE,
        "insufficient_system_resource": INCOMPLETE,
        "timeout": INCOMPLETE,
    },
)

_ENDINGS = ("response.completed", "response.incomplete", "response.failed")


def _read_response(document: Document, findings: Findings) -> None:
    findings.named(document.get("model"))
    usage = document.get("usage")
    findings.used(total(usage, "input_tokens"), total(usage, "output_tokens"))
    findings.detailed(usage, _RESPONSE_DETAILS)
    findings.billed("service_tier", document.get("service_tier"))
    status = document.get("status")
    if status == "failed":
        findings.error = True
    if isinstance(document.get("output"), list):
        reason = members(document.get("incomplete_details")).get("reason")
        findings.choice(0, reason if status == "incomplete" and isinstance(reason, str) else status)


def _read_response_event(document: Document, findings: Findings) -> None:
    kind = document.get("type")
    if isinstance(kind, str) and kind in _ENDINGS:
        findings.ended = True
        response = members(document.get("response"))
        findings.error |= kind == "response.failed" or response.get("error") is not None
        _read_response(response, findings)


RESPONSES = Dialect(
    read=_read_response,
    read_event=_read_response_event,
    ends=ends_with_type(*_ENDINGS),
    good=frozenset({"completed"}),
    reasons={"max_output_tokens": LENGTH, "content_filter": FILTERED},
    otherwise=INCOMPLETE,  # also `queued`, `in_progress`, `cancelled`: they are no answers
)


def _read_data(document: Document, findings: Findings) -> None:
    findings.named(document.get("model"))
    if items(document.get("data")):
        findings.choice(0, "stop")
    tokens = total(document.get("usage"), "prompt_tokens")
    if tokens is not None:
        findings.used(tokens, 0)  # vectors are no tokens


EMBEDDINGS = Dialect(read=_read_data)


def _read_images(document: Document, findings: Findings) -> None:
    usage = document.get("usage")
    findings.used(total(usage, "input_tokens"), total(usage, "output_tokens"))
    findings.detailed(usage, _IMAGE_DETAILS)
    if items(document.get("data")):
        findings.choice(0, "stop")


IMAGES = Dialect(read=_read_images)


def _read_moderation(document: Document, findings: Findings) -> None:
    findings.named(document.get("model"))
    if items(document.get("results")):
        findings.choice(0, "stop")


MODERATION = Dialect(read=_read_moderation)
SPEECH = Dialect(read=_read_moderation)  # never read: its answers are no JSON
