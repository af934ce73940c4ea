"""The protocol of Cohere's API, version 2."""

from __future__ import annotations

from ._answer import FILTERED, INCOMPLETE, LENGTH, Dialect, Document, Findings, ends_with_type, members
from ._openai import has_client_tools_alone, names_model
from ._usage import total

_INPUTS = ("texts", "images", "inputs")


def admits_chat(body: Document) -> bool:
    """Whether a body is a chat that may be cached."""
    return isinstance(body.get("messages"), list) and names_model(body) and has_client_tools_alone(body)


def admits_embed(body: Document) -> bool:
    """Whether a body asks for embeddings."""
    return any(isinstance(body.get(name), list) for name in _INPUTS) and names_model(body)


def admits_rerank(body: Document) -> bool:
    """Whether a body asks for an order of documents."""
    return isinstance(body.get("query"), str) and isinstance(body.get("documents"), list) and names_model(body)


_BILLED = {
    "billed_input_tokens": ("billed_units", "input_tokens"),
    "billed_output_tokens": ("billed_units", "output_tokens"),
    "rerank_searches": ("billed_units", "search_units"),
}


def _read_usage(usage: object, findings: Findings) -> None:
    findings.detailed(usage, _BILLED)
    for name in ("billed_units", "tokens"):  # what was processed counts, what is billed where nothing else is known
        block = members(usage).get(name)
        findings.used(total(block, "input_tokens"), total(block, "output_tokens"))


def _read_chat(document: Document, findings: Findings) -> None:
    _read_usage(document.get("usage"), findings)
    if isinstance(document.get("message"), dict):
        findings.choice(0, document.get("finish_reason"))
    findings.ended = isinstance(document.get("finish_reason"), str)


def _read_event(document: Document, findings: Findings) -> None:
    match document.get("type"):
        case "message-start":
            findings.choice(0, None)
        case "message-end":
            delta = members(document.get("delta"))
            findings.ended = True
            findings.error |= delta.get("error") is not None
            findings.choice(0, delta.get("finish_reason"))
            _read_usage(delta.get("usage"), findings)


CHAT = Dialect(
    read=_read_chat,
    read_event=_read_event,
    ends=ends_with_type("message-end"),
    good=frozenset({"COMPLETE", "STOP_SEQUENCE", "TOOL_CALL"}),
    reasons={"MAX_TOKENS": LENGTH, "ERROR_LIMIT": LENGTH, "ERROR_TOXIC": FILTERED},
    otherwise=INCOMPLETE,
)


def _read_list(document: Document, findings: Findings) -> None:
    if document.get("embeddings") or document.get("results"):
        findings.choice(0, "COMPLETE")
    meta = members(document.get("meta"))
    findings.detailed(meta, _BILLED)
    tokens = total(meta.get("tokens"), "input_tokens")
    if tokens is None:
        tokens = total(meta.get("billed_units"), "input_tokens")
    if tokens is not None:
        findings.used(tokens, 0)


LIST = Dialect(read=_read_list)
