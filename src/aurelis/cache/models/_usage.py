"""Token counts as the model reported them; unknown stays unknown."""

from __future__ import annotations

from dataclasses import dataclass

_LIMIT = 2**53  # beyond this a JSON number is no longer exact for every reader: no count of tokens is


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one call.

    Attributes:
        input_tokens: ≥ 0; `None`: not reported.
        output_tokens: likewise.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None


UNKNOWN = Usage()


def _count(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 <= value < _LIMIT else None


def read_chat_usage(block: object) -> Usage:
    """Counts of a chat completion's `usage` member, of whatever type. Nothing is computed or guessed."""
    if not isinstance(block, dict):
        return UNKNOWN
    return Usage(_count(block.get("prompt_tokens")), _count(block.get("completion_tokens")))
