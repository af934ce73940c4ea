"""The protocol of Anthropic's Messages API, also as Vertex AI offers it."""

from __future__ import annotations

import re

from ._answer import FILTERED, INCOMPLETE, LENGTH, Dialect, Document, Findings, ends_with_type, members
from ._openai import names_model
from ._usage import total

# Tools that the client runs although the provider has defined them; others run on the provider's side.
_CLIENT_TOOLS = ("bash_", "memory_", "text_editor_")
_STATEFUL_FIELDS = ("container", "mcp_servers")
_INPUT = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
_DETAILS = {
    "cache_read_tokens": ("cache_read_input_tokens",),
    "cache_write_tokens": ("cache_creation_input_tokens",),
    "cache_write_5m_tokens": ("cache_creation", "ephemeral_5m_input_tokens"),
    "cache_write_1h_tokens": ("cache_creation", "ephemeral_1h_input_tokens"),
    "output_reasoning_tokens": ("output_tokens_details", "thinking_tokens"),
}


def _runs_at_the_client(tool: object) -> bool:
    if not isinstance(tool, dict):
        return False
    kind = tool.get("type")
    return kind is None or kind == "custom" or (isinstance(kind, str) and kind.startswith(_CLIENT_TOOLS))


def admits(body: Document) -> bool:
    """Whether a body is a call that may be cached."""
    return names_model(body) and _admits(body)


def _admits(body: Document) -> bool:
    if not isinstance(body.get("messages"), list) or isinstance(body.get("max_tokens"), bool):
        return False
    if not isinstance(body.get("max_tokens"), int) or any(body.get(name) for name in _STATEFUL_FIELDS):
        return False
    tools = body.get("tools")
    return tools is None or (isinstance(tools, list) and all(map(_runs_at_the_client, tools)))


def admits_on_vertex(body: Document) -> bool:
    """The same where the path says only that the body is one of the model's own."""
    return isinstance(body.get("anthropic_version"), str) and _admits(body)


def read_usage(usage: object, findings: Findings) -> None:
    """Note what a block of usage says."""
    findings.used(total(usage, *_INPUT), total(usage, "output_tokens"))
    findings.detailed(usage, _DETAILS)
    for name in ("service_tier", "speed"):
        findings.billed(name, members(usage).get(name))


def _read_message(document: Document, findings: Findings) -> None:
    findings.named(document.get("model"))
    read_usage(document.get("usage"), findings)
    reason = document.get("stop_reason")
    if isinstance(document.get("content"), list):
        findings.choice(0, reason)
    if document.get("type") == "message" and not isinstance(reason, str):
        findings.ended = False


def _read_event(document: Document, findings: Findings) -> None:
    match document.get("type"):
        case "message_start":
            message = members(document.get("message"))
            findings.named(message.get("model"))
            read_usage(message.get("usage"), findings)
            findings.choice(0, None)
        case "message_delta":
            read_usage(document.get("usage"), findings)
            findings.choice(0, members(document.get("delta")).get("stop_reason"))
        case "message_stop":
            findings.ended = True


MESSAGES = Dialect(
    read=_read_message,
    read_event=_read_event,
    ends=ends_with_type("message_stop"),
    finishes=re.compile(rb'"stop_reason"\s*:\s*"([^"]+)"'),
    good=frozenset({"end_turn", "stop_sequence", "tool_use"}),
    reasons={
        "max_tokens": LENGTH,
        "model_context_window_exceeded": LENGTH,
        "refusal": FILTERED,
        "pause_turn": INCOMPLETE,
    },
    otherwise=INCOMPLETE,
)
