"""Usage as the objects of SDKs and apps report it, in the words of whatever protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from . import _anthropic, _gemini, _openai
from ._answer import Findings
from ._usage import UNKNOWN, Usage

_BLOCKS: Final = ("usage", "usage_metadata", "usageMetadata")
_OPENAI: Final = ("prompt_tokens", "completion_tokens", "total_tokens", *_openai.USAGE_DETAILS)
_ANTHROPIC: Final = ("input_tokens", "output_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
_GEMINI: Final = {
    "prompt_token_count": "promptTokenCount",
    "tool_use_prompt_token_count": "toolUsePromptTokenCount",
    "candidates_token_count": "candidatesTokenCount",
    "thoughts_token_count": "thoughtsTokenCount",
}


def reported_usage(response: object) -> Usage:
    """What an answer says that it has used, in a `usage` or `usage_metadata` of its own. Never raises.

    An attribute or a member, which may be an object or a mapping in its turn, in the words of OpenAI, Anthropic or
    Gemini; anything else is not known.
    """
    try:
        block = next((found for name in _BLOCKS if (found := _member(response, name)) is not None), None)
        if block is None:
            return UNKNOWN
        findings = Findings()
        if (counts := _members(block, _OPENAI)).get("prompt_tokens") is not None:
            _openai.read_usage(counts, findings)
        elif (counts := _members(block, _ANTHROPIC)).get("input_tokens") is not None:
            _anthropic.read_usage(counts, findings)  # the Responses API has the same words, and no parts beside them
        else:
            counts = _members(block, (*_GEMINI, *_GEMINI.values()))
            _gemini.read_usage({_GEMINI.get(name, name): number for name, number in counts.items()}, findings)
        return findings.summary().usage
    except Exception:  # noqa: BLE001  # an app's object may do anything; then it does not say it
        return UNKNOWN


def _member(owner: object, name: str) -> object:
    return owner.get(name) if isinstance(owner, Mapping) else getattr(owner, name, None)


def _members(owner: object, names: tuple[str, ...]) -> dict[str, object]:
    """Those that are there, as JSON has them."""
    found = {}
    for name in names:
        value = _member(owner, name)
        if value is not None:
            dump = getattr(value, "model_dump", None)
            found[name] = dump() if callable(dump) else value
    return found
