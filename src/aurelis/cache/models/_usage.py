"""Token counts as the model reported them; unknown stays unknown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_LIMIT = 2**32  # no call has more; some sums of larger ones are no integer of 64 bits, which would end every export


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one call.

    Attributes:
        input_tokens: all that was read, ≥ 0; `None`: not reported.
        output_tokens: all that was written, likewise.
        details: name and number, > 0, of what has a price of its own, as far as it is reported. Parts of the input:
            `cache_read_tokens`, `cache_write_tokens` and, among these, `cache_write_5m_tokens` and
            `cache_write_1h_tokens` (the provider's own cache); `input_audio_tokens` and so on for text, image, video
            and tool. Parts of the output: `output_reasoning_tokens`, `output_audio_tokens` and so on. Parts of both:
            `cache_audio_read_tokens` and so on. Beside them `rerank_searches`, and `billed_input_tokens` and
            `billed_output_tokens` where a provider says that it bills something else than it counts.
        terms: name and value of what the answer says about how it is billed: `service_tier`, `speed`.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    details: tuple[tuple[str, int], ...] = ()
    terms: tuple[tuple[str, str], ...] = ()


UNKNOWN = Usage()


def count(value: object) -> int | None:
    """A count as JSON gives it; `None`: it is none."""
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 <= value < _LIMIT else None


def total(block: object, *names: str) -> int | None:
    """The sum of the counts of these names; `None`: the first one is not there.

    Protocols that report parts of a count leave out those that are zero, but for the first.
    """
    if not isinstance(block, dict):
        return None
    first = count(block.get(names[0]))
    if first is None:
        return None
    return first + sum(count(block.get(name)) or 0 for name in names[1:])


def counts(block: object, paths: Mapping[str, tuple[str, ...]]) -> dict[str, int]:
    """The counts that are there, by name. A path names members within members."""
    found = {}
    for name, path in paths.items():
        value = block
        for step in path:
            value = value.get(step) if isinstance(value, dict) else None
        number = count(value)
        if number is not None:
            found[name] = number
    return found
