"""The protocol of Gemini, as AI Studio and Vertex AI offer it."""

from __future__ import annotations

import re

from ._answer import FILTERED, INCOMPLETE, LENGTH, Dialect, Document, Findings, items, members, parse
from ._splitting import Frame
from ._usage import count, total

_CLIENT_TOOLS = frozenset({"functionDeclarations", "function_declarations"})


def admits_content(body: Document) -> bool:
    """Whether a body asks for content and may be cached: with no tools but functions that the client calls."""
    if not isinstance(body.get("contents"), (list, dict)):
        return False
    tools = body.get("tools")
    if isinstance(tools, dict):
        tools = [tools]
    return tools is None or (
        isinstance(tools, list) and all(isinstance(tool, dict) and _CLIENT_TOOLS.issuperset(tool) for tool in tools)
    )


def admits_embedding(body: Document) -> bool:
    """Whether a body asks for the embedding of one content."""
    return isinstance(body.get("content"), dict)


def admits_embeddings(body: Document) -> bool:
    """Whether a body asks for several embeddings."""
    return isinstance(body.get("requests"), list)


def admits_prediction(body: Document) -> bool:
    """Whether a body asks for the embeddings of texts where the path says only that a model of any kind is asked."""
    instances = body.get("instances")
    return (
        isinstance(instances, list)
        and bool(instances)
        and all(isinstance(one, dict) and isinstance(one.get("content"), str) for one in instances)
    )


def _settings(body: Document) -> Document:
    return members(body.get("generationConfig", body.get("generation_config")))


def temperature(body: Document) -> object:
    """What a body says of the temperature."""
    return _settings(body).get("temperature")


def choices(body: Document) -> int:
    """How many candidates a body asks for."""
    settings = _settings(body)
    asked = settings.get("candidateCount", settings.get("candidate_count"))
    return asked if isinstance(asked, int) and asked > 1 else 1


def longest(body: Document) -> float:
    """Seconds for which an answer may be kept: what is cached at the provider lives for an hour unless it is told."""
    return 3600.0 if body.get("cachedContent", body.get("cached_content")) else float("inf")


_DETAILS = {
    "cache_read_tokens": ("cachedContentTokenCount",),
    "output_reasoning_tokens": ("thoughtsTokenCount",),
    "input_tool_tokens": ("toolUsePromptTokenCount",),
}
_BY_MODALITY = {
    "promptTokensDetails": "input_{}_tokens",
    "cacheTokensDetails": "cache_{}_read_tokens",
    "candidatesTokensDetails": "output_{}_tokens",
}
_MODALITIES = {"TEXT": "text", "AUDIO": "audio", "IMAGE": "image", "DOCUMENT": "image", "VIDEO": "video"}


def read_usage(usage: object, findings: Findings) -> None:
    """Note what a block of usage says."""
    findings.used(
        total(usage, "promptTokenCount", "toolUsePromptTokenCount"),
        total(usage, "candidatesTokenCount", "thoughtsTokenCount"),
    )
    findings.detailed(usage, _DETAILS)
    for member, name in _BY_MODALITY.items():
        numbers: dict[str, int] = {}
        for one in items(members(usage).get(member)):
            modality, number = members(one).get("modality"), count(members(one).get("tokenCount"))
            if isinstance(modality, str) and modality in _MODALITIES and number is not None:
                key = name.format(_MODALITIES[modality])
                numbers[key] = numbers.get(key, 0) + number
        findings.details |= numbers
    findings.billed("service_tier", members(usage).get("serviceTier", members(usage).get("trafficType")))


def _read(document: Document, findings: Findings) -> None:
    findings.named(document.get("modelVersion"))
    read_usage(document.get("usageMetadata"), findings)
    if members(document.get("promptFeedback")).get("blockReason") is not None:
        findings.choice("prompt", "SAFETY")
    for candidate in items(document.get("candidates")):
        if not isinstance(candidate, dict):
            findings.malformed = True
            continue
        findings.choice(candidate.get("index", 0), candidate.get("finishReason"))


def _read_whole(document: Document, findings: Findings) -> None:
    _read(document, findings)
    findings.ended = _has_ended(findings)


def _read_event(document: Document, findings: Findings) -> None:
    _read(document, findings)
    # The protocol has no other end: the last event of each candidate says why it has finished.
    findings.ended = _has_ended(findings)


def _has_ended(findings: Findings) -> bool:
    return bool(findings.over) and findings.begun <= findings.over


def _ends(frame: Frame, choices: int) -> bool:
    # The last event also tells the usage. Without it there may be one more; and of several candidates the others go on.
    # Then the end of the body is waited for.
    data = frame.data
    if choices > 1 or b'"finishReason"' not in data or b'"usageMetadata"' not in data:
        return False
    document = parse(data)
    return (
        document is not None
        and isinstance(document.get("usageMetadata"), dict)
        and any(isinstance(members(one).get("finishReason"), str) for one in items(document.get("candidates")))
    )


CONTENT = Dialect(
    read=_read_whole,
    read_event=_read_event,
    ends=_ends,
    finishes=re.compile(rb'"finishReason"\s*:\s*"([^"]+)"'),
    good=frozenset({"STOP"}),
    reasons={
        "MAX_TOKENS": LENGTH,
        **dict.fromkeys(
            ("SAFETY", "RECITATION", "LANGUAGE", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "IMAGE_SAFETY"), FILTERED
        ),
    },
    otherwise=INCOMPLETE,
)


def _read_embeddings(document: Document, findings: Findings) -> None:
    if document.get("embedding") or document.get("embeddings"):
        findings.choice(0, "STOP")
    usage = document.get("usageMetadata")
    read_usage(usage, findings)
    if total(usage, "promptTokenCount") is not None:
        findings.used(None, 0)


EMBEDDINGS = Dialect(read=_read_embeddings)


def _read_predictions(document: Document, findings: Findings) -> None:
    tokens = 0
    known = True
    for one in items(document.get("predictions")):
        embeddings = members(members(one).get("embeddings"))
        if items(embeddings.get("values")):
            findings.choice(0, "STOP")
        count = total(embeddings.get("statistics"), "token_count")
        known = known and count is not None
        tokens += count or 0
    if known:
        findings.used(tokens, 0)


PREDICTIONS = Dialect(read=_read_predictions)
